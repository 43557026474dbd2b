//! The cases.

use libc::{E2BIG, EBUSY, EEXIST, EINVAL, EIO, EOPNOTSUPP, EPERM};
use tdvisor_base::{Gpa, PAGE_SIZE};

use super::rig::{MEMORY, MEMORY_BYTES, Rig, created, initialised, parameters, width};
use super::{Case, Outcome, Run, done, holds, refused};
use crate::build::ADDRESS_BITS;
use crate::capabilities::{Capabilities, Needed};
use crate::kernel::{Capability, Kernel, KernelVcpu, KernelVm, Msi};
use crate::uapi::{CpuidEntry, InitVm, MAX_CPUID_ENTRIES, MEASURE};

/// Cases in which no guest runs, in an order in which the first that fails says most.
pub(super) fn cases<K: Kernel>() -> Vec<Case<K>> {
    macro_rules! list {
        ($($name:literal => $run:expr,)*) => { vec![$(Case { name: $name, run: Run::Requests($run) }),*] };
    }
    list! {
        "KVM_CREATE_VM makes a TD, and it has the capabilities that TDs need" => capabilities_of_vm,
        "KVM_TDX_CAPABILITIES says what TDs may have" => capabilities,
        "KVM_TDX_CAPABILITIES with too little room is E2BIG" => |kernel| {
            let vm = created(kernel)?;
            refused("no room", vm.tdx_capabilities(0), E2BIG)
        },
        "KVM_TDX_INIT_VM initialises a TD once; the second time is EINVAL" => |kernel| {
            let vm = initialised(kernel)?;
            refused("again", vm.init_vm(parameters(), &[width(48)]), EINVAL)
        },
        "KVM_TDX_INIT_VM with ATTRIBUTES that KVM does not offer is EINVAL" => |kernel| {
            let vm = created(kernel)?;
            let offered = done("KVM_TDX_CAPABILITIES", all(&vm))?.attributes;
            let odd = InitVm { attributes: !offered, ..parameters() };
            refused("all the others", vm.init_vm(odd, &[width(48)]), EINVAL)
        },
        "KVM_TDX_INIT_VM with an XFAM that KVM does not offer is EINVAL" => |kernel| {
            let vm = created(kernel)?;
            let offered = done("KVM_TDX_CAPABILITIES", all(&vm))?.xfam;
            let odd = InitVm { xfam: !offered, ..parameters() };
            refused("all the others", vm.init_vm(odd, &[width(48)]), EINVAL)
        },
        "KVM_TDX_INIT_VM with reserved words that are not zero is EINVAL" => |kernel| {
            let vm = created(kernel)?;
            let odd = InitVm { reserved: [1; 12], ..parameters() };
            refused("ones", vm.init_vm(odd, &[width(48)]), EINVAL)
        },
        "KVM_TDX_INIT_VM without CPUID leaf 0x80000008 is EINVAL" => |kernel| {
            refused("no entries", created(kernel)?.init_vm(parameters(), &[]), EINVAL)
        },
        "KVM_TDX_INIT_VM with an address width of neither 48 nor 52 bits is EINVAL" => |kernel| {
            refused("47 bits", created(kernel)?.init_vm(parameters(), &[width(47)]), EINVAL)
        },
        "KVM_TDX_INIT_VM with a CPUID leaf that cannot be configured is EINVAL" => |kernel| {
            let odd = CpuidEntry::new(0x4000_0000, 0, [1; 4]);
            refused("leaf 0x40000000", created(kernel)?.init_vm(parameters(), &[width(48), odd]), EINVAL)
        },
        "KVM_TDX_INIT_VM with more CPUID entries than there can be is E2BIG" => |kernel| {
            let many = vec![width(48); MAX_CPUID_ENTRIES + 1];
            refused("257 entries", created(kernel)?.init_vm(parameters(), &many), E2BIG)
        },
        "KVM_CREATE_VCPU before KVM_TDX_INIT_VM is EIO" => |kernel| {
            refused("too early", created(kernel)?.create_vcpu(0), EIO)
        },
        "KVM_CREATE_VCPU without a split irqchip is EINVAL" => |kernel| {
            let vm = done("KVM_CREATE_VM", kernel.create_td())?;
            done("KVM_TDX_INIT_VM", vm.init_vm(parameters(), &[width(48)]))?;
            refused("no irqchip", vm.create_vcpu(0), EINVAL)
        },
        "KVM_CREATE_VCPU of the same number is EEXIST" => |kernel| {
            let vm = initialised(kernel)?;
            // The limit of vCPUs is looked at first, where there is one CPU only.
            let errno = if vm.extension(Capability::MaxVcpus) == 1 { EINVAL } else { EEXIST };
            let _first = done("KVM_CREATE_VCPU", vm.create_vcpu(0))?;
            refused("again", vm.create_vcpu(0), errno)
        },
        "KVM_CREATE_VCPU beyond KVM_CAP_MAX_VCPUS is EINVAL" => |kernel| {
            let vm = initialised(kernel)?;
            let limit = vm.extension(Capability::MaxVcpus);
            let made = (0..limit).map(|index| vm.create_vcpu(index)).collect::<Result<Vec<_>, _>>();
            let _vcpus = done("KVM_CREATE_VCPU", made)?;
            refused("one more", vm.create_vcpu(limit), EINVAL)
        },
        "KVM_TDX_GET_CPUID begins with leaf 0" => |kernel| {
            let entries = done("KVM_TDX_GET_CPUID", Rig::new(kernel)?.vcpu.cpuid())?;
            holds("leaf 0", entries.first().is_some_and(|entry| entry.function == 0 && entry.eax != 0))
        },
        "KVM_SET_CPUID2 takes what KVM_TDX_GET_CPUID gave" => |kernel| {
            Rig::new(kernel)?.tell_cpuid()
        },
        "KVM_TDX_INIT_VCPU before KVM_SET_CPUID2 has told KVM of x2APIC is EINVAL" => |kernel| {
            refused("too early", Rig::new(kernel)?.vcpu.init(0), EINVAL)
        },
        "KVM_TDX_INIT_VCPU initialises a vCPU once; the second time is EINVAL" => |kernel| {
            refused("again", Rig::ready(kernel)?.vcpu.init(0), EINVAL)
        },
        "KVM_TDX_INIT_MEM_REGION adds pages, measured or not" => |kernel| {
            let rig = Rig::ready(kernel)?;
            done("measured", rig.add(MEMORY, 2, MEASURE).result)?;
            let added = rig.add(MEMORY.wrapping_add(2 * PAGE_SIZE), 3, 0);
            done("not measured", added.result)?;
            holds("three pages", added.pages == 3)
        },
        "KVM_TDX_INIT_MEM_REGION before KVM_TDX_INIT_VCPU is EINVAL" => |kernel| {
            let rig = Rig::new(kernel)?;
            rig.make_private()?;
            refused("too early", rig.add(MEMORY, 1, 0).result, EINVAL)
        },
        "KVM_TDX_INIT_MEM_REGION without pages is EINVAL" => |kernel| {
            refused("none", Rig::ready(kernel)?.add(MEMORY, 0, 0).result, EINVAL)
        },
        "KVM_TDX_INIT_MEM_REGION at an address that is not aligned is EINVAL" => |kernel| {
            refused("+1", Rig::ready(kernel)?.add(MEMORY.wrapping_add(1), 1, 0).result, EINVAL)
        },
        "KVM_TDX_INIT_MEM_REGION at a shared address is EINVAL" => |kernel| {
            let shared = Gpa::new(MEMORY.get() | 1 << (ADDRESS_BITS - 1));
            refused("SHARED bit", Rig::ready(kernel)?.add(shared, 1, 0).result, EINVAL)
        },
        "KVM_TDX_INIT_MEM_REGION with an unknown flag is EINVAL" => |kernel| {
            refused("bit 1", Rig::ready(kernel)?.add(MEMORY, 1, 2).result, EINVAL)
        },
        "KVM_TDX_FINALIZE_VM finalises a TD once; the second time is EINVAL" => |kernel| {
            refused("again", Rig::finalised(kernel)?.vm.finalize(), EINVAL)
        },
        "KVM_TDX_FINALIZE_VM before KVM_TDX_INIT_VM is EINVAL" => |kernel| {
            refused("too early", created(kernel)?.finalize(), EINVAL)
        },
        "what is fixed by KVM_TDX_FINALIZE_VM is EINVAL afterwards" => |kernel| {
            let rig = Rig::finalised(kernel)?;
            let next = MEMORY.wrapping_add(PAGE_SIZE);
            refused("KVM_TDX_INIT_MEM_REGION", rig.add(next, 1, 0).result, EINVAL)?;
            refused("KVM_TDX_INIT_VCPU", rig.vcpu.init(0), EINVAL)?;
            refused("KVM_TDX_GET_CPUID", rig.vcpu.cpuid(), EINVAL)
        },
        "KVM_RUN before KVM_TDX_FINALIZE_VM is EINVAL" => |kernel| {
            refused("too early", Rig::ready(kernel)?.vcpu.run(), EINVAL)
        },
        "KVM_RUN of a vCPU that is not initialised is EINVAL" => |kernel| {
            refused("too early", Rig::new(kernel)?.vcpu.run(), EINVAL)
        },
        "KVM_PRE_FAULT_MEMORY of private memory is EOPNOTSUPP before KVM_TDX_FINALIZE_VM, and maps it afterwards" => |kernel| {
            let rig = Rig::ready(kernel)?;
            refused("too early", rig.vcpu.pre_fault(MEMORY, PAGE_SIZE), EOPNOTSUPP)?;
            let rig = Rig::finalised(kernel)?;
            done("KVM_PRE_FAULT_MEMORY", rig.vcpu.pre_fault(MEMORY, MEMORY_BYTES))
        },
        "KVM_SET_MEMORY_ATTRIBUTES with an unknown attribute or a range that is not aligned is EINVAL" => |kernel| {
            let rig = Rig::new(kernel)?;
            refused("bit 4", rig.vm.set_attributes(MEMORY, PAGE_SIZE, 1 << 4), EINVAL)?;
            refused("+1", rig.vm.set_attributes(MEMORY.wrapping_add(1), PAGE_SIZE, 0), EINVAL)?;
            refused("no bytes", rig.vm.set_attributes(MEMORY, 0, 0), EINVAL)
        },
        "KVM_CREATE_GUEST_MEMFD of no size or one that is not aligned is EINVAL" => |kernel| {
            let vm = created(kernel)?;
            refused("no bytes", vm.guest_memfd(0).map(drop), EINVAL)?;
            refused("one byte more", vm.guest_memfd(PAGE_SIZE + 1).map(drop), EINVAL)
        },
        "KVM_SIGNAL_MSI reaches a vCPU; one to nobody is nothing, or EPERM" => |kernel| {
            let rig = Rig::ready(kernel)?;
            let nobody = Msi { address_high: 0, address_low: 0xfee0_0000 | 0x55 << 12, data: 0x41 };
            done("id 0", rig.vm.signal_msi(Msi { address_low: 0xfee0_0000, ..nobody }))?;
            let answer = rig.vm.signal_msi(nobody);
            done("id 0x55", answer).or_else(|_| refused("id 0x55", answer, EPERM))
        },
        "KVM_ENABLE_CAP of the split irqchip is EBUSY or EEXIST once there is one" => |kernel| {
            let vm = created(kernel)?;
            let again = vm.enable(Capability::SplitIrqchip, 24);
            refused("again", again, EEXIST).or_else(|_| refused("again", again, EBUSY))
        },
        "a TD is torn down in every state" => |kernel| {
            drop(created(kernel)?);
            drop(initialised(kernel)?);
            drop(Rig::new(kernel)?);
            drop(Rig::ready(kernel)?);
            drop(Rig::finalised(kernel)?);
            Ok(())
        },
        "TDs in a row all get their key ids" => |kernel| {
            (0..40).try_for_each(|_| initialised(kernel).map(drop))
        },
    }
}

fn all<V: KernelVm>(vm: &V) -> Result<Capabilities, crate::Errno> {
    Capabilities::of(vm).map_err(|error| error.errno)
}

fn capabilities_of_vm<K: Kernel>(kernel: &K) -> Outcome {
    let vm = done("KVM_CREATE_VM", kernel.create_td())?;
    Needed::ALL.iter().try_for_each(|needed| holds(needed.name, vm.extension(needed.capability) != 0))?;
    holds("KVM_CAP_MAX_VCPUS", vm.extension(Capability::MaxVcpus) != 0)
}

fn capabilities<K: Kernel>(kernel: &K) -> Outcome {
    let capabilities = done("KVM_TDX_CAPABILITIES", all(&created(kernel)?))?;
    holds("ATTRIBUTES", capabilities.attributes != 0)?;
    holds("XFAM with x87 and SSE", capabilities.xfam & 0b11 == 0b11)?;
    let width = |entry: &CpuidEntry| entry.function == 0x8000_0008 && entry.eax >> 16 & 0xff == 0xff;
    holds("the width of guest addresses", capabilities.cpuid.iter().any(width))
}
