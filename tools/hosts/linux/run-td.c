/*
 * Runs a TDVF image as a TD on KVM, as plainly as KVM_TDX allows: split irqchip, one console, no devices.
 *
 *   run-td [-m MIB] [-c VCPUS] IMAGE
 *
 * The TD's COM1 goes to stdout, line by line, behind "TD| ". The last line counts what KVM came back for. The TD ends with
 * its status byte at port 0x501, which is the exit status; 125 where it ended otherwise, 126 where it could not be made.
 *
 * Structures and numbers: include/uapi/linux/kvm.h, arch/x86/include/uapi/asm/kvm.h of Linux 7.3. Image and hand-off block:
 * Intel TDX Virtual Firmware Design Guide, "TDVF Metadata" and "TD Hand-Off Block".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kvm-tdx.h"

#define PAGE 4096ul
#define FOUR_GIB 0x100000000ul
#define MAX_VCPUS 64
#define MAX_CPUID 256
#define COM1 0x3f8
#define COM2 0x2f8
#define LINE_STATUS 5
#define LINE_IS_IDLE 0x60
#define STATUS_PORT 0x501
#define ENDED_OTHERWISE 125
#define NOT_MADE 126

/* TDVF sections that QEMU knows as well. */
enum { SECTION_BFV, SECTION_CFV, SECTION_TD_HOB, SECTION_TEMP_MEM };
#define SECTION_MEASURED 1u

struct tdvf_section {
	uint32_t offset, raw_size;
	uint64_t gpa, size;
	uint32_t type, attributes;
} __attribute__((packed));

struct tdvf {
	char signature[4];
	uint32_t length, version, sections;
	struct tdvf_section section[];
} __attribute__((packed));

struct hob_header {
	uint16_t type, length;
	uint32_t reserved;
};
enum { HOB_HANDOFF = 1, HOB_RESOURCE = 3, HOB_END = 0xffff };
enum { RESOURCE_MEMORY = 0, RESOURCE_UNACCEPTED = 7 };

struct hob_handoff {
	struct hob_header header;
	uint32_t version, boot_mode;
	uint64_t memory_top, memory_bottom, free_top, free_bottom, end;
};

struct hob_resource {
	struct hob_header header;
	uint8_t owner[16];
	uint32_t type, attributes;
	uint64_t start, length;
};

static int kvm, vm;
static uint64_t ram = 64ul << 20;
static const struct tdvf *tdvf;
static atomic_ulong runs, port_accesses, conversions, memory_faults;

static _Noreturn void give_up(const char *what)
{
	printf("run-td: %s: %s\n", what, strerror(errno));
	exit(NOT_MADE);
}

static void check(int result, const char *what)
{
	if (result < 0)
		give_up(what);
}

static void tdx(int fd, uint32_t id, uint32_t flags, uint64_t data, const char *what)
{
	struct tdx_command command = { .id = id, .flags = flags, .data = data };

	if (ioctl(fd, KVM_MEMORY_ENCRYPT_OP, &command) < 0) {
		printf("run-td: %s: %s, module status %#llx\n", what, strerror(errno),
		       (unsigned long long)command.hw_error);
		exit(NOT_MADE);
	}
}

static void enable(uint32_t capability, uint64_t argument, const char *what)
{
	struct kvm_enable_cap enable = { .cap = capability, .args = { argument } };

	check(ioctl(vm, KVM_ENABLE_CAP, &enable), what);
}

static void *memory(uint64_t size)
{
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED)
		give_up("memory");
	return at;
}

static int set_private(uint64_t gpa, uint64_t size, int private)
{
	struct memory_attributes attributes = {
		.address = gpa, .size = size, .attributes = private ? ATTRIBUTE_PRIVATE : 0
	};

	return ioctl(vm, KVM_SET_MEMORY_ATTRIBUTES, &attributes);
}

/* Memory of the TD: private pages from a guest_memfd, shared ones beside them. */
static void slot(uint32_t number, uint64_t gpa, uint64_t size)
{
	struct create_guest_memfd create = { .size = size };
	int fd = ioctl(vm, KVM_CREATE_GUEST_MEMFD, &create);
	struct memory_region2 region = {
		.slot = number, .flags = REGION_GUEST_MEMFD, .guest_phys_addr = gpa, .memory_size = size,
		.userspace_addr = (uint64_t)memory(size), .guest_memfd = fd,
	};

	check(fd, "KVM_CREATE_GUEST_MEMFD");
	check(ioctl(vm, KVM_SET_USER_MEMORY_REGION2, &region), "KVM_SET_USER_MEMORY_REGION2");
	check(set_private(gpa, size, 1), "KVM_SET_MEMORY_ATTRIBUTES");
}

/* The metadata is found backwards: its distance from the image's end is not where every image has it. */
static const struct tdvf *find_metadata(const uint8_t *image, uint64_t size)
{
	for (uint64_t at = size - sizeof(struct tdvf); at > 0; at--) {
		const struct tdvf *found = (const void *)(image + at);
		uint64_t room = (size - at - sizeof *found) / sizeof found->section[0];

		if (!memcmp(found->signature, "TDVF", 4) && found->version == 1 && found->sections <= room)
			return found;
	}
	errno = EINVAL;
	give_up("TDVF metadata");
}

static int is_added_memory(const struct tdvf_section *section)
{
	return section->type == SECTION_TD_HOB || section->type == SECTION_TEMP_MEM;
}

static void resource(uint8_t **to, uint32_t type, uint64_t start, uint64_t end)
{
	struct hob_resource hob = {
		.header = { .type = HOB_RESOURCE, .length = sizeof hob }, .type = type, .attributes = 7,
		.start = start, .length = end - start,
	};

	if (start < end) {
		memcpy(*to, &hob, sizeof hob);
		*to += sizeof hob;
	}
}

/* RAM as added pages and the rest, ascending. */
static void build_hob(uint8_t *at, uint64_t gpa)
{
	struct hob_handoff handoff = { .header = { .type = HOB_HANDOFF, .length = sizeof handoff }, .version = 9 };
	struct hob_header end = { .type = HOB_END, .length = sizeof end };
	uint8_t *to = at + sizeof handoff;
	uint64_t done = 0;

	while (done < ram) {
		const struct tdvf_section *next = NULL;

		for (uint32_t i = 0; i < tdvf->sections; i++) {
			const struct tdvf_section *one = &tdvf->section[i];

			if (is_added_memory(one) && one->gpa >= done && one->gpa < ram && (!next || one->gpa < next->gpa))
				next = one;
		}
		resource(&to, RESOURCE_UNACCEPTED, done, next ? next->gpa : ram);
		if (next)
			resource(&to, RESOURCE_MEMORY, next->gpa, next->gpa + next->size);
		done = next ? next->gpa + next->size : ram;
	}
	memcpy(to, &end, sizeof end);
	handoff.end = gpa + (to + sizeof end - at);
	memcpy(at, &handoff, sizeof handoff);
}

static void add_memory(int vcpu, const uint8_t *image)
{
	for (uint32_t i = 0; i < tdvf->sections; i++) {
		const struct tdvf_section *section = &tdvf->section[i];
		struct init_mem_region region = { .gpa = section->gpa, .pages = section->size / PAGE };
		uint8_t *source;

		if (section->type > SECTION_TEMP_MEM)
			continue;
		source = memory(section->size);
		if (section->type == SECTION_TD_HOB)
			build_hob(source, section->gpa);
		else
			memcpy(source, image + section->offset, section->raw_size);
		region.source = (uint64_t)source;
		tdx(vcpu, TDX_INIT_MEM_REGION, section->attributes & SECTION_MEASURED, (uint64_t)&region,
		    "KVM_TDX_INIT_MEM_REGION");
		munmap(source, section->size);
	}
}

static int make_vcpu(unsigned long id, uint64_t hob)
{
	struct {
		struct kvm_cpuid2 list;
		struct kvm_cpuid_entry2 entry[MAX_CPUID];
	} *cpuid = calloc(1, sizeof *cpuid);
	int vcpu = ioctl(vm, KVM_CREATE_VCPU, id);

	check(vcpu, "KVM_CREATE_VCPU");
	cpuid->list.nent = MAX_CPUID;
	tdx(vcpu, TDX_GET_CPUID, 0, (uint64_t)cpuid, "KVM_TDX_GET_CPUID");
	check(ioctl(vcpu, KVM_SET_CPUID2, cpuid), "KVM_SET_CPUID2");
	tdx(vcpu, TDX_INIT_VCPU, 0, hob, "KVM_TDX_INIT_VCPU");
	free(cpuid);
	return vcpu;
}

static void make_td(void)
{
	struct tdx_init_vm *init = calloc(1, sizeof *init + sizeof init->cpuid.entries[0]);

	enable(KVM_CAP_SPLIT_IRQCHIP, 24, "KVM_CAP_SPLIT_IRQCHIP");
	enable(KVM_CAP_EXIT_HYPERCALL, 1 << HYPERCALL_MAP_GPA, "KVM_CAP_EXIT_HYPERCALL");
	enable(KVM_CAP_X86_APIC_BUS_CYCLES_NS, 40, "KVM_CAP_X86_APIC_BUS_CYCLES_NS");
	init->attributes = ATTRIBUTE_SEPT_VE_DISABLE;
	init->xfam = 3;
	init->cpuid.nent = 1;
	/* Leaf 0x80000008 says how wide guest addresses are, in EAX bits 23:16. */
	init->cpuid.entries[0].function = 0x80000008;
	init->cpuid.entries[0].eax = 48 << 16;
	tdx(vm, TDX_INIT_VM, 0, (uint64_t)init, "KVM_TDX_INIT_VM");
	free(init);
}

static void console(uint8_t byte)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static char line[256];
	static size_t length;

	pthread_mutex_lock(&lock);
	if (byte == '\n' || length == sizeof line - 1) {
		printf("TD| %.*s\n", (int)length, line);
		length = 0;
	}
	if (byte != '\n' && byte != '\r')
		line[length++] = byte;
	pthread_mutex_unlock(&lock);
}

static _Noreturn void ended(int status)
{
	printf("run-td: KVM_RUN %lu, port accesses %lu, conversions %lu, memory faults %lu\n", runs, port_accesses,
	       conversions, memory_faults);
	exit(status);
}

static void port(struct kvm_run *run)
{
	uint8_t *data = (uint8_t *)run + run->io.data_offset;

	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
		port_accesses++;
		if (run->io.direction == KVM_EXIT_IO_OUT) {
			if (run->io.port == COM1)
				console(*data);
			if (run->io.port == STATUS_PORT)
				ended(*data);
		} else {
			int status = run->io.port == COM1 + LINE_STATUS || run->io.port == COM2 + LINE_STATUS;

			memset(data, 0xff, run->io.size);
			if (status)
				*data = LINE_IS_IDLE;
		}
	}
}

static void *vcpu_loop(void *argument)
{
	int vcpu = (int)(intptr_t)argument;
	int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	struct kvm_run *run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);

	if (run == MAP_FAILED)
		give_up("the vCPU's page");
	for (;;) {
		int result = ioctl(vcpu, KVM_RUN, 0);
		uint32_t reason = run->exit_reason;

		runs++;
		if (result < 0 && errno == EINTR)
			continue;
		if (result < 0 && errno != EFAULT)
			give_up("KVM_RUN");
		if (result < 0 && reason != EXIT_MEMORY_FAULT)
			give_up("KVM_RUN");
		switch (reason) {
		case KVM_EXIT_IO:
			port(run);
			break;
		case KVM_EXIT_HYPERCALL:
			conversions++;
			/* Arguments: address, pages, attributes with "encrypted" in bit 4. */
			result = set_private(run->hypercall.args[0], run->hypercall.args[1] * PAGE,
					     run->hypercall.args[2] >> 4 & 1);
			run->hypercall.ret = result < 0 ? EINVAL : 0;
			break;
		case EXIT_MEMORY_FAULT: {
			struct exit_memory_fault *fault = (void *)&run->io;

			memory_faults++;
			check(set_private(fault->gpa, fault->size, fault->flags & ATTRIBUTE_PRIVATE ? 1 : 0),
			      "a memory fault");
			break;
		}
		default:
			printf("run-td: the TD ended with KVM exit %u\n", reason);
			ended(ENDED_OTHERWISE);
		}
	}
}

int main(int argc, char **argv)
{
	unsigned long vcpus = 1;
	int option, file, first = -1;
	struct stat status;
	uint8_t *image;
	uint64_t hob = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	while ((option = getopt(argc, argv, "m:c:")) != -1) {
		if (option == 'm')
			ram = strtoul(optarg, NULL, 10) << 20;
		else if (option == 'c')
			vcpus = strtoul(optarg, NULL, 10);
		else
			return NOT_MADE;
	}
	if (optind + 1 != argc || vcpus < 1 || vcpus > MAX_VCPUS || ram == 0 || ram > FOUR_GIB / 2) {
		printf("run-td: usage: run-td [-m MIB] [-c VCPUS] IMAGE\n");
		return NOT_MADE;
	}

	file = open(argv[optind], O_RDONLY | O_CLOEXEC);
	check(file, argv[optind]);
	check(fstat(file, &status), argv[optind]);
	if (status.st_size < (off_t)PAGE || status.st_size % PAGE || status.st_size > (16 << 20)) {
		errno = EINVAL;
		give_up(argv[optind]);
	}
	image = memory(status.st_size);
	if (pread(file, image, status.st_size, 0) != status.st_size)
		give_up(argv[optind]);
	tdvf = find_metadata(image, status.st_size);
	for (uint32_t i = 0; i < tdvf->sections; i++)
		if (tdvf->section[i].type == SECTION_TD_HOB)
			hob = tdvf->section[i].gpa;

	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	check(kvm, "/dev/kvm");
	vm = ioctl(kvm, KVM_CREATE_VM, VM_TYPE_TDX);
	check(vm, "KVM_CREATE_VM");
	make_td();
	slot(0, 0, ram);
	slot(1, FOUR_GIB - status.st_size, status.st_size);
	int fds[MAX_VCPUS];
	for (unsigned long id = 0; id < vcpus; id++)
		fds[id] = make_vcpu(id, hob);
	first = fds[0];
	add_memory(first, image);
	tdx(vm, TDX_FINALIZE_VM, 0, 0, "KVM_TDX_FINALIZE_VM");

	for (unsigned long id = 1; id < vcpus; id++) {
		pthread_t thread;

		errno = pthread_create(&thread, NULL, vcpu_loop, (void *)(intptr_t)fds[id]);
		if (errno)
			give_up("a thread");
	}
	vcpu_loop((void *)(intptr_t)first);
}
