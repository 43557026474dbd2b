/*
 * What of KVM's interface newer than the headers of this machine's distribution is needed for a TD. Values and layouts:
 * include/uapi/linux/kvm.h and arch/x86/include/uapi/asm/kvm.h of Linux 7.3.
 */
#ifndef KVM_TDX_H
#define KVM_TDX_H

#include <linux/kvm.h>
#include <stdint.h>

#define VM_TYPE_TDX 5

#ifndef KVM_CAP_VM_TYPES
#define KVM_CAP_VM_TYPES 235
#endif
#ifndef KVM_CAP_X86_APIC_BUS_CYCLES_NS
#define KVM_CAP_X86_APIC_BUS_CYCLES_NS 237
#endif

#define HYPERCALL_MAP_GPA 12
#define EXIT_MEMORY_FAULT 39

/* Memory attribute, and flag of a memory fault. */
#define ATTRIBUTE_PRIVATE (1ull << 3)

struct memory_region2 {
	uint32_t slot, flags;
	uint64_t guest_phys_addr, memory_size, userspace_addr, guest_memfd_offset;
	uint32_t guest_memfd, pad1;
	uint64_t pad2[14];
};
#define REGION_GUEST_MEMFD (1u << 2)

struct memory_attributes {
	uint64_t address, size, attributes, flags;
};

struct create_guest_memfd {
	uint64_t size, flags, reserved[6];
};

struct exit_memory_fault {
	uint64_t flags, gpa, size;
};

#ifndef KVM_SET_USER_MEMORY_REGION2
#define KVM_SET_USER_MEMORY_REGION2 _IOW(KVMIO, 0x49, struct memory_region2)
#define KVM_SET_MEMORY_ATTRIBUTES _IOW(KVMIO, 0xd2, struct memory_attributes)
#define KVM_CREATE_GUEST_MEMFD _IOWR(KVMIO, 0xd4, struct create_guest_memfd)
#endif

enum {
	TDX_CAPABILITIES, TDX_INIT_VM, TDX_INIT_VCPU, TDX_INIT_MEM_REGION, TDX_FINALIZE_VM, TDX_GET_CPUID
};

struct tdx_command {
	uint32_t id, flags;
	uint64_t data, hw_error;
};

#define ATTRIBUTE_SEPT_VE_DISABLE (1ull << 28)

struct tdx_init_vm {
	uint64_t attributes, xfam;
	uint64_t mrconfigid[6], mrowner[6], mrownerconfig[6], reserved[12];
	struct kvm_cpuid2 cpuid;
};

struct init_mem_region {
	uint64_t source, gpa, pages;
};

#endif
