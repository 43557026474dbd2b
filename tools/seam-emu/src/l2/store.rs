//! A vCPU as one of its VMs sees it: the VMCS and the virtual APIC are the VM's, everything else is shared by all.

use phys_memory::Arena;
use tdvisor_base::Hpa;

use super::Vm;
use crate::fields::layout::tdvps;
use crate::fields::{FieldPage, FieldStore, Width, vmcs};
use crate::td::Tdvps;
use crate::vcpu::apic::TPR;

/// Bytes of a page, as an offset.
const PAGE: u32 = 4096;
/// Pages of an L2 VM in the TDVPS: VMCS, MSR bitmaps, and those that L1 wrote.
const PAGES_PER_VM: u32 = 3;
/// Where those of the first L2 VM begin.
const FIRST: u32 = 6 * PAGE;
/// What a vCPU's state holds of the virtual APIC: the class of the task priority. A page that says the same is not
/// written.
const PRIORITY_CLASS: u64 = 0xf0;
/// In an array of addresses of each VM: nobody set it.
pub(crate) const NOT_SET: u64 = u64::MAX;

/// Where an L2 VM's VMCS lies in the TDVPS.
pub(crate) const fn vmcs_page(vm: Vm) -> u32 {
    match vm.number() {
        0 => vmcs::PAGE,
        number => FIRST + (number as u32 - 1) * PAGES_PER_VM * PAGE,
    }
}

/// Where the MSR bitmaps lie that the processor uses for an L2 VM.
pub(crate) const fn msr_bitmaps(vm: Vm) -> u32 {
    vmcs_page(vm) + PAGE
}

/// Where the MSR bitmaps lie that L1 wrote.
pub(crate) const fn l1_msr_bitmaps(vm: Vm) -> u32 {
    vmcs_page(vm) + 2 * PAGE
}

/// The element of an array of 64-bit values with one for each VM.
pub(crate) const fn of_vm(array: u32, vm: Vm) -> u32 {
    array + 8 * vm.number() as u32
}

/// A vCPU as one of its VMs sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VmView<'a, 'm> {
    memory: &'m Arena,
    tdvps: &'a Tdvps<'m>,
    vm: Vm,
}

impl<'a, 'm> VmView<'a, 'm> {
    pub(crate) const fn new(memory: &'m Arena, tdvps: &'a Tdvps<'m>, vm: Vm) -> Self {
        Self { memory, tdvps, vm }
    }

    /// The page of memory that an L2 VM has for its virtual APIC, if it was found already.
    fn apic_page(&self) -> Option<FieldPage<'m>> {
        let hpa = self.tdvps.load_u64(of_vm(tdvps::L2_VAPIC_HPA, self.vm));
        if hpa == NOT_SET {
            return None;
        }
        Some(FieldPage::new(self.memory.table(Hpa::new(hpa).frame()).ok()?))
    }

    fn is_apic(&self, offset: u32) -> bool {
        self.vm.is_l2() && (tdvps::VAPIC..tdvps::VAPIC + PAGE).contains(&offset)
    }

    /// Where an offset of the TD's own VM lies in the TDVPS.
    fn place(&self, offset: u32) -> u32 {
        match offset {
            vmcs::PAGE..tdvps::VAPIC => offset - vmcs::PAGE + vmcs_page(self.vm),
            _ => offset,
        }
    }
}

impl FieldStore for VmView<'_, '_> {
    fn load(&self, offset: u32, width: Width) -> u64 {
        if self.is_apic(offset) {
            return self.apic_page().map_or(0, |page| page.load(offset - tdvps::VAPIC, width));
        }
        self.tdvps.load(self.place(offset), width)
    }

    fn store(&self, offset: u32, width: Width, value: u64) {
        if !self.is_apic(offset) {
            self.tdvps.store(self.place(offset), width, value);
            return;
        }
        let Some(page) = self.apic_page() else { return };
        let register = offset - tdvps::VAPIC;
        let is_kept = register == TPR && (page.load(register, width) ^ value) & PRIORITY_CLASS == 0;
        if !is_kept {
            page.store(register, width, value);
        }
    }
}
