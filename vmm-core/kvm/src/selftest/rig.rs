//! TDs as far as a case needs them.

use tdvisor_base::{Gpa, PAGE_SIZE};
use zerocopy::FromZeros;

use super::{Mismatch, done};
use crate::kernel::{Added, Capability, Kernel, KernelVcpu, KernelVm, SlotPlace};
use crate::uapi::{ATTRIBUTE_PRIVATE, CpuidEntry, InitVm};

/// Where the cases have their memory.
pub(super) const MEMORY: Gpa = Gpa::new(0x10_0000);
/// How much.
pub(super) const MEMORY_BYTES: u64 = 16 * PAGE_SIZE;
const IO_APIC_PINS: u64 = 24;

/// The only CPUID value without which KVM initialises no TD: the width of guest addresses.
pub(super) fn width(bits: u32) -> CpuidEntry {
    CpuidEntry::new(0x8000_0008, 0, [bits << 16, 0, 0, 0])
}

/// What KVM_TDX_INIT_VM is given where nothing special is meant.
pub(super) fn parameters() -> InitVm {
    const SEPT_VE_DISABLE: u64 = 1 << 28;
    InitVm { attributes: SEPT_VE_DISABLE, xfam: 0b11, ..InitVm::new_zeroed() }
}

/// A TD that has its interrupt controller, and is not initialised.
pub(super) fn created<K: Kernel>(kernel: &K) -> Result<K::Vm, Mismatch> {
    let vm = done("KVM_CREATE_VM", kernel.create_td())?;
    done("split irqchip", vm.enable(Capability::SplitIrqchip, IO_APIC_PINS))?;
    Ok(vm)
}

/// A TD after KVM_TDX_INIT_VM.
pub(super) fn initialised<K: Kernel>(kernel: &K) -> Result<K::Vm, Mismatch> {
    let vm = created(kernel)?;
    done("KVM_TDX_INIT_VM", vm.init_vm(parameters(), &[width(48)]))?;
    Ok(vm)
}

type VcpuOf<K> = <<K as Kernel>::Vm as KernelVm>::Vcpu;
type PagesOf<K> = <<K as Kernel>::Vm as KernelVm>::Pages;
type MemfdOf<K> = <<K as Kernel>::Vm as KernelVm>::GuestMemfd;

/// A TD with a vCPU and memory.
pub(super) struct Rig<K: Kernel> {
    pub(super) vcpu: VcpuOf<K>,
    pub(super) contents: PagesOf<K>,
    _shared: PagesOf<K>,
    _private: MemfdOf<K>,
    pub(super) vm: K::Vm,
}

impl<K: Kernel> Rig<K> {
    /// A vCPU that is made and not initialised; memory that is not private.
    pub(super) fn new(kernel: &K) -> Result<Self, Mismatch> {
        let vm = initialised(kernel)?;
        let shared = done("mmap", vm.map(MEMORY_BYTES))?;
        let private = done("KVM_CREATE_GUEST_MEMFD", vm.guest_memfd(MEMORY_BYTES))?;
        let place = SlotPlace { slot: 0, gpa: MEMORY, bytes: MEMORY_BYTES };
        done("KVM_SET_USER_MEMORY_REGION2", vm.add_slot(place, &shared, &private))?;
        let vcpu = done("KVM_CREATE_VCPU", vm.create_vcpu(0))?;
        let contents = done("mmap", vm.map(MEMORY_BYTES))?;
        Ok(Self { vcpu, contents, _shared: shared, _private: private, vm })
    }

    /// With private memory, and a vCPU that is initialised.
    pub(super) fn ready(kernel: &K) -> Result<Self, Mismatch> {
        let rig = Self::new(kernel)?;
        rig.make_private()?;
        rig.tell_cpuid()?;
        done("KVM_TDX_INIT_VCPU", rig.vcpu.init(0))?;
        Ok(rig)
    }

    /// With one page, finalised.
    pub(super) fn finalised(kernel: &K) -> Result<Self, Mismatch> {
        let rig = Self::ready(kernel)?;
        done("KVM_TDX_INIT_MEM_REGION", rig.add(MEMORY, 1, 0).result)?;
        done("KVM_TDX_FINALIZE_VM", rig.vm.finalize())?;
        Ok(rig)
    }

    /// Tells KVM the CPUID values of the TD: it must know of x2APIC before the vCPU is initialised.
    pub(super) fn tell_cpuid(&self) -> Result<(), Mismatch> {
        let entries = done("KVM_TDX_GET_CPUID", self.vcpu.cpuid())?;
        done("KVM_SET_CPUID2", self.vcpu.set_cpuid(&entries))
    }

    pub(super) fn make_private(&self) -> Result<(), Mismatch> {
        done("KVM_SET_MEMORY_ATTRIBUTES", self.vm.set_attributes(MEMORY, MEMORY_BYTES, ATTRIBUTE_PRIVATE))
    }

    /// Adds pages of zeros.
    pub(super) fn add(&self, to: Gpa, pages: u64, flags: u32) -> Added {
        self.vcpu.add_pages(&self.contents, 0, to, pages, flags)
    }
}
