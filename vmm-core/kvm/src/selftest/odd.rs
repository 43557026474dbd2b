//! Requests that break the documented rules of their form: flags, reserved words, addresses where nothing is, ranges that no
//! slot has.

use libc::{E2BIG, EBADF, EEXIST, EFAULT, EINVAL, ENOENT};
use tdvisor_base::{Gpa, PAGE_SIZE};

use super::rig::{MEMORY, MEMORY_BYTES, Rig, created, initialised, parameters, width};
use super::{Case, Outcome, Run, done, holds, refused};
use crate::build::ADDRESS_BITS;
use crate::kernel::odd::{BareCommand, OddVcpuRequest as OnVcpu, OddVmRequest as OnVm};
use crate::kernel::{Kernel, KernelVcpu, KernelVm, Listed, SlotPlace};
use crate::uapi::command;

/// No type of VM, and no command, has this number.
const UNKNOWN: u32 = 31;
/// Where no slot is.
const NOWHERE: Gpa = Gpa::new(0x4000_0000);
/// A frequency that a TD can have: 2 GHz.
const TSC_KHZ: u32 = 2_000_000;

pub(super) fn cases<K: Kernel>() -> Vec<Case<K>> {
    macro_rules! list {
        ($($name:literal => $run:expr,)*) => { vec![$(Case { name: $name, run: Run::Requests($run) }),*] };
    }
    list! {
        "KVM_CREATE_VM of a type that does not exist is EINVAL" => |kernel| {
            refused("type 31", kernel.create_vm(UNKNOWN).map(drop), EINVAL)
        },
        "KVM_MEMORY_ENCRYPT_OP with an unknown command is EINVAL, without one EFAULT" => |kernel| {
            let rig = Rig::new(kernel)?;
            let unknown = BareCommand { id: UNKNOWN, ..BareCommand::default() };
            refused("on a VM", rig.vm.odd(OnVm::Command(unknown)), EINVAL)?;
            refused("on a vCPU", rig.vcpu.odd(OnVcpu::Command(unknown)), EINVAL)?;
            refused("nothing, on a VM", rig.vm.odd(OnVm::NoCommand), EFAULT)?;
            refused("nothing, on a vCPU", rig.vcpu.odd(OnVcpu::NoCommand), EFAULT)
        },
        "KVM_MEMORY_ENCRYPT_OP on what a command is not for is EINVAL" => |kernel| {
            let rig = Rig::new(kernel)?;
            let bare = |id| BareCommand { id, ..BareCommand::default() };
            for id in [command::INIT_VCPU, command::INIT_MEM_REGION, command::GET_CPUID] {
                refused("on a VM", rig.vm.odd(OnVm::Command(bare(id))), EINVAL)?;
            }
            for id in [command::CAPABILITIES, command::INIT_VM, command::FINALIZE_VM] {
                refused("on a vCPU", rig.vcpu.odd(OnVcpu::Command(bare(id))), EINVAL)?;
            }
            Ok(())
        },
        "KVM_MEMORY_ENCRYPT_OP with a hw_error that is not zero is EINVAL" => |kernel| {
            let (vm, rig) = (created(kernel)?, Rig::new(kernel)?);
            let odd = |id| BareCommand { id, flags: 0, hw_error: 1 };
            for id in [command::CAPABILITIES, command::INIT_VM] {
                refused("on a VM", vm.odd(OnVm::Command(odd(id))), EINVAL)?;
            }
            refused("KVM_TDX_FINALIZE_VM", rig.vm.odd(OnVm::Command(odd(command::FINALIZE_VM))), EINVAL)?;
            for id in [command::INIT_VCPU, command::INIT_MEM_REGION, command::GET_CPUID] {
                refused("on a vCPU", rig.vcpu.odd(OnVcpu::Command(odd(id))), EINVAL)?;
            }
            Ok(())
        },
        "commands with flags that they have not are EINVAL" => |kernel| {
            let (vm, rig) = (created(kernel)?, Rig::new(kernel)?);
            let odd = |id| BareCommand { id, flags: 1, hw_error: 0 };
            refused("KVM_TDX_CAPABILITIES", vm.odd(OnVm::Command(odd(command::CAPABILITIES))), EINVAL)?;
            refused("KVM_TDX_INIT_VM", vm.odd(OnVm::Command(odd(command::INIT_VM))), EINVAL)?;
            rig.tell_cpuid()?;
            refused("KVM_TDX_INIT_VCPU", rig.vcpu.odd(OnVcpu::Command(odd(command::INIT_VCPU))), EINVAL)
        },
        "commands whose data is nowhere are EFAULT" => |kernel| {
            let (vm, rig) = (created(kernel)?, Rig::ready(kernel)?);
            let bare = |id| BareCommand { id, ..BareCommand::default() };
            refused("KVM_TDX_CAPABILITIES", vm.odd(OnVm::Command(bare(command::CAPABILITIES))), EFAULT)?;
            refused("KVM_TDX_INIT_VM", vm.odd(OnVm::Command(bare(command::INIT_VM))), EFAULT)?;
            let region = OnVcpu::Command(bare(command::INIT_MEM_REGION));
            refused("KVM_TDX_INIT_MEM_REGION", rig.vcpu.odd(region), EFAULT)?;
            refused("KVM_TDX_GET_CPUID", rig.vcpu.odd(OnVcpu::Command(bare(command::GET_CPUID))), EFAULT)?;
            refused("contents", rig.vcpu.odd(OnVcpu::PageFromNowhere(MEMORY)), EFAULT)
        },
        "KVM_TDX_GET_CPUID with too little room is E2BIG, and says how much it takes" => |kernel| {
            let rig = Rig::new(kernel)?;
            let Listed { count, result, .. } = rig.vcpu.cpuid_with_room(1);
            refused("one entry", result, E2BIG)?;
            let listed = rig.vcpu.cpuid_with_room(count);
            done("as many as it said", listed.result)?;
            holds("as many entries", listed.entries.len() == count)
        },
        "KVM_TDX_INIT_MEM_REGION of contents that are not aligned is EINVAL" => |kernel| {
            let rig = Rig::ready(kernel)?;
            refused("+1", rig.vcpu.add_pages(&rig.contents, 1, MEMORY, 1, 0).result, EINVAL)
        },
        "KVM_TDX_INIT_MEM_REGION of a range that ends in shared addresses, or at the end of all, is EINVAL" => |kernel| {
            let rig = Rig::ready(kernel)?;
            let last = Gpa::new((1 << (ADDRESS_BITS - 1)) - PAGE_SIZE);
            refused("beyond the SHARED bit", rig.add(last, 2, 0).result, EINVAL)?;
            refused("beyond 64 bits", rig.add(Gpa::new(u64::MAX - PAGE_SIZE + 1), 1, 0).result, EINVAL)
        },
        "KVM_TDX_INIT_MEM_REGION where no slot is is EINVAL" => |kernel| {
            refused("nowhere", Rig::ready(kernel)?.add(NOWHERE, 1, 0).result, EINVAL)
        },
        "KVM_TDX_INIT_MEM_REGION of memory that is not private is EINVAL" => |kernel| {
            let rig = Rig::ready(kernel)?;
            done("KVM_SET_MEMORY_ATTRIBUTES", rig.vm.set_attributes(MEMORY, MEMORY_BYTES, 0))?;
            refused("shared", rig.add(MEMORY, 1, 0).result, EINVAL)
        },
        "KVM_PRE_FAULT_MEMORY of what is no range of pages is EINVAL, where no slot is ENOENT, without a range EFAULT" => |kernel| {
            let vcpu = Rig::finalised(kernel)?.vcpu;
            refused("no bytes", vcpu.pre_fault(MEMORY, 0), EINVAL)?;
            refused("+1", vcpu.pre_fault(MEMORY.wrapping_add(1), PAGE_SIZE), EINVAL)?;
            refused("one byte more", vcpu.pre_fault(MEMORY, PAGE_SIZE + 1), EINVAL)?;
            refused("beyond 64 bits", vcpu.pre_fault(Gpa::new(u64::MAX - PAGE_SIZE + 1), PAGE_SIZE), EINVAL)?;
            refused("flags", vcpu.odd(OnVcpu::PreFaultWithFlags(MEMORY)), EINVAL)?;
            refused("nothing", vcpu.odd(OnVcpu::PreFaultNothing), EFAULT)?;
            refused("nowhere", vcpu.pre_fault(NOWHERE, PAGE_SIZE), ENOENT)
        },
        "KVM_SET_TSC_KHZ is the VM's before there are vCPUs, and EINVAL afterwards and of vCPUs" => |kernel| {
            let vm = created(kernel)?;
            done("on a VM", vm.odd(OnVm::TscKhz(TSC_KHZ)))?;
            done("KVM_TDX_INIT_VM", vm.init_vm(parameters(), &[width(48)]))?;
            let vcpu = done("KVM_CREATE_VCPU", vm.create_vcpu(0))?;
            refused("on a VM with a vCPU", vm.odd(OnVm::TscKhz(TSC_KHZ)), EINVAL)?;
            refused("on a vCPU", vcpu.odd(OnVcpu::TscKhz(TSC_KHZ)), EINVAL)
        },
        "registers of a TD's vCPU are EINVAL" => |kernel| {
            let vcpu = Rig::finalised(kernel)?.vcpu;
            refused("KVM_GET_REGS", vcpu.odd(OnVcpu::GetRegisters), EINVAL)?;
            refused("KVM_SET_REGS", vcpu.odd(OnVcpu::SetRegisters), EINVAL)?;
            refused("KVM_GET_SREGS", vcpu.odd(OnVcpu::GetSystemRegisters), EINVAL)
        },
        "KVM_SET_MEMORY_ATTRIBUTES and KVM_CREATE_GUEST_MEMFD with unknown flags are EINVAL" => |kernel| {
            let vm = created(kernel)?;
            refused("KVM_SET_MEMORY_ATTRIBUTES", vm.odd(OnVm::AttributesWithFlags(MEMORY)), EINVAL)?;
            refused("KVM_CREATE_GUEST_MEMFD", vm.odd(OnVm::GuestMemfdWithFlags), EINVAL)
        },
        "KVM_SET_USER_MEMORY_REGION2 of memory that is read only, or in a second address space, is EINVAL" => |kernel| {
            let place = SlotPlace { slot: 1, gpa: NOWHERE, bytes: PAGE_SIZE };
            refused("read only", created(kernel)?.odd(OnVm::ReadOnlySlot(place)), EINVAL)?;
            added(kernel, SlotPlace { slot: 1 << 16, ..place }, EINVAL)
        },
        "KVM_SET_USER_MEMORY_REGION2 without a guest_memfd is EBADF" => |kernel| {
            let place = SlotPlace { slot: 1, gpa: NOWHERE, bytes: PAGE_SIZE };
            refused("no file", created(kernel)?.odd(OnVm::SlotWithoutMemfd(place)), EBADF)
        },
        "KVM_SET_USER_MEMORY_REGION2 of a guest_memfd that has a slot is EEXIST, of another VM's EINVAL" => |kernel| {
            let (vm, other) = (initialised(kernel)?, initialised(kernel)?);
            let private = done("KVM_CREATE_GUEST_MEMFD", vm.guest_memfd(PAGE_SIZE))?;
            let shared = done("mmap", vm.map(PAGE_SIZE))?;
            let place = SlotPlace { slot: 0, gpa: MEMORY, bytes: PAGE_SIZE };
            refused("another VM's", other.add_slot(place, &shared, &private), EINVAL)?;
            done("a slot", vm.add_slot(place, &shared, &private))?;
            let again = SlotPlace { slot: 1, gpa: NOWHERE, bytes: PAGE_SIZE };
            refused("a second one", vm.add_slot(again, &shared, &private), EEXIST)
        },
        "KVM_SET_USER_MEMORY_REGION2 where a slot is is EEXIST" => |kernel| {
            let rig = Rig::new(kernel)?;
            let private = done("KVM_CREATE_GUEST_MEMFD", rig.vm.guest_memfd(PAGE_SIZE))?;
            let shared = done("mmap", rig.vm.map(PAGE_SIZE))?;
            let place = SlotPlace { slot: 1, gpa: MEMORY, bytes: PAGE_SIZE };
            refused("overlap", rig.vm.add_slot(place, &shared, &private), EEXIST)
        },
        "KVM_CREATE_VCPU with a number that no vCPU can have is EINVAL" => |kernel| {
            refused("2^31", initialised(kernel)?.create_vcpu(1 << 31).map(drop), EINVAL)
        },
    }
}

/// A slot that is refused.
fn added<K: Kernel>(kernel: &K, place: SlotPlace, errno: i32) -> Outcome {
    let vm = created(kernel)?;
    let private = done("KVM_CREATE_GUEST_MEMFD", vm.guest_memfd(place.bytes))?;
    let shared = done("mmap", vm.map(place.bytes))?;
    refused("KVM_SET_USER_MEMORY_REGION2", vm.add_slot(place, &shared, &private), errno)
}
