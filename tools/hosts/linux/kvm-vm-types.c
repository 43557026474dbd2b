/* Prints what KVM_CHECK_EXTENSION(KVM_CAP_VM_TYPES) answers: a bit for each type of VM; bit 5 is a TD. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include "kvm-tdx.h"

int main(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (kvm < 0) {
		perror("/dev/kvm");
		return 1;
	}
	printf("%#x\n", ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_VM_TYPES));
	return 0;
}
