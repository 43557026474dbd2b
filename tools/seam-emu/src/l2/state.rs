//! The state that L1 keeps of an L2 VM in its memory, and the switch between the VMs of a vCPU.
//!
//! | offset | register |
//! |---|---|
//! | 0x00 | RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15 |
//! | 0x80 | RFLAGS, RIP, SSP |
//! | 0x98 | guest interrupt status, 16 bits |

use tdvisor_base::{Gpa, Hpa, Level};
use tdx_module_iface::sept::SeptStates;
use x86_arch::Gpr;

use super::Vm;
use super::store::{NOT_SET, VmView, of_vm};
use crate::fields::layout::tdvps;
use crate::fields::{FieldStore, Width, vmcs};
use crate::guest::GuestState;
use crate::td::sept::Walk;
use crate::td::{Tdcs, Tdvps};
use crate::vcpu::{Running, state};

/// Bytes of the structure, and its alignment.
pub(crate) const ALIGN: u64 = 256;
const REGISTERS: usize = 16;
const WORDS: usize = 20;
const RFLAGS: usize = 16;
const RIP: usize = 17;
const SSP: usize = 18;
const INTERRUPT_STATUS: usize = 19;

/// Which VM of a vCPU ran last.
const CURRENT_VM: u32 = match tdx_module_iface::metadata::vp::CURR_VM.offset() {
    Some(offset) => offset,
    None => panic!("a field of the TDVPS"),
};

/// The VM that the vCPU is in.
pub(crate) fn current_vm(tdvps: &Tdvps<'_>) -> Vm {
    Vm::l2(tdvps.load(CURRENT_VM, Width::B2) as u8).unwrap_or(Vm::L1)
}

pub(crate) fn set_current_vm(tdvps: &Tdvps<'_>, vm: Vm) {
    tdvps.store(CURRENT_VM, Width::B2, u64::from(vm.number()));
}

/// A page that L1 gave to the module for a VM, by guest address.
#[derive(Clone, Copy)]
pub(crate) enum L1Page {
    /// The state of the VM.
    GuestState,
    /// The virtual APIC of the VM.
    Apic,
}

impl L1Page {
    const fn arrays(self) -> (u32, u32) {
        match self {
            Self::GuestState => (tdvps::L2_ENTER_GUEST_STATE_GPA, tdvps::L2_ENTER_GUEST_STATE_HPA),
            Self::Apic => (tdvps::L2_VAPIC_GPA, tdvps::L2_VAPIC_HPA),
        }
    }

    /// The address of the page; `None` where nobody set one.
    pub(crate) fn gpa(self, tdvps: &Tdvps<'_>, vm: Vm) -> Option<Gpa> {
        let gpa = tdvps.load_u64(of_vm(self.arrays().0, vm));
        (gpa != NOT_SET).then_some(Gpa::new(gpa))
    }

    /// Finds it in memory, where that was not done since the address was set or the TD's epoch changed.
    ///
    /// # Errors
    /// Its page is no page that the TD may access.
    pub(crate) fn find(self, tdcs: &Tdcs<'_>, tdvps: &Tdvps<'_>, vm: Vm) -> Result<Hpa, NotMapped> {
        let (gpas, hpas) = self.arrays();
        let cached = tdvps.load_u64(of_vm(hpas, vm));
        if cached != NOT_SET {
            return Ok(Hpa::new(cached));
        }
        let gpa = Gpa::new(tdvps.load_u64(of_vm(gpas, vm)));
        let hpa = translate(tdcs, gpa).ok_or(NotMapped(gpa))?;
        tdvps.store_u64(of_vm(hpas, vm), hpa.get());
        Ok(hpa)
    }
}

/// A page of L1 that is not there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NotMapped(pub(crate) Gpa);

fn translate(tdcs: &Tdcs<'_>, gpa: Gpa) -> Option<Hpa> {
    let (Walk::Found(slot) | Walk::Stopped(slot)) = tdcs.walk(gpa, Level::L4K)?;
    if !SeptStates::GUEST_ACCESSIBLE_LEAF.contains(slot.state()) {
        return None;
    }
    let offset = gpa.get() & (slot.level.bytes() - 1);
    Some(slot.entry().hpa().align_down(slot.level.bytes()).wrapping_add(offset))
}

/// Forgets where L1's pages are: translations have to be made anew.
pub(crate) fn forget_pages(tdvps: &Tdvps<'_>) {
    for vm in (1..=Vm::MAX_L2).filter_map(Vm::l2) {
        for array in [tdvps::L2_ENTER_GUEST_STATE_HPA, tdvps::L2_VAPIC_HPA] {
            tdvps.store_u64(of_vm(array, vm), NOT_SET);
        }
    }
}

/// Sets where L1 keeps the state of a VM.
pub(crate) fn set_guest_state(tdvps: &Tdvps<'_>, vm: Vm, gpa: Gpa) {
    if tdvps.load_u64(of_vm(tdvps::L2_ENTER_GUEST_STATE_GPA, vm)) != gpa.get() {
        tdvps.store_u64(of_vm(tdvps::L2_ENTER_GUEST_STATE_GPA, vm), gpa.get());
        tdvps.store_u64(of_vm(tdvps::L2_ENTER_GUEST_STATE_HPA, vm), NOT_SET);
    }
}

impl<'m> Running<'_, 'm> {
    /// The vCPU as one of its VMs sees it.
    pub(crate) fn view(&self, vm: Vm) -> VmView<'_, 'm> {
        VmView::new(self.machine.memory(), self.tdvps, vm)
    }

    fn guest_state(&self, vm: Vm) -> Option<Hpa> {
        let hpa = self.tdvps.load_u64(of_vm(tdvps::L2_ENTER_GUEST_STATE_HPA, vm));
        (hpa != NOT_SET).then_some(Hpa::new(hpa))
    }

    /// Leaves one VM for another: everything that is in the VMCS changes, everything else stays.
    pub(crate) fn switch(&self, guest: &mut GuestState, to: Vm) {
        state::save(&self.view(self.vm()), guest);
        self.set_vm(to);
        *guest = state::load(&self.view(to));
    }

    /// Loads what L1 says of an L2 VM that is entered.
    pub(crate) fn load_from_l1(&self, guest: &mut GuestState, vm: Vm) {
        let Some(hpa) = self.guest_state(vm) else { return };
        let mut words = [0u64; WORDS];
        for (at, word) in (0u64..).zip(&mut words) {
            let mut bytes = [0; 8];
            // The page belongs to the TD, as the walk found; what the host broke reads as zero.
            let _ = self.machine.memory().read(hpa.wrapping_add(8 * at), self.tdr.key(), &mut bytes);
            *word = u64::from_le_bytes(bytes);
        }
        for (number, word) in (0u8..).zip(words.iter().take(REGISTERS)) {
            guest.set_gpr(Gpr::from_index(number), *word);
        }
        guest.flags.set(words[RFLAGS]);
        guest.set_rip(words[RIP]);
        let view = self.view(vm);
        view.store_u64(GUEST_SSP, words[SSP]);
        view.store_u64(vmcs::INTERRUPT_STATUS, words[INTERRUPT_STATUS] & 0xffff);
    }

    /// Gives L1 the state of an L2 VM that is left.
    pub(crate) fn store_to_l1(&self, guest: &GuestState, vm: Vm) {
        let Some(hpa) = self.guest_state(vm) else { return };
        let view = self.view(vm);
        let mut words = [0u64; WORDS];
        for (number, word) in (0u8..).zip(words.iter_mut().take(REGISTERS)) {
            *word = guest.gpr(Gpr::from_index(number));
        }
        words[RFLAGS] = guest.flags.get();
        words[RIP] = guest.rip();
        words[SSP] = view.load_u64(GUEST_SSP);
        let key = self.tdr.key();
        for (at, word) in (0u64..).zip(words.iter().take(INTERRUPT_STATUS)) {
            let _ = self.machine.memory().write(hpa.wrapping_add(8 * at), key, &word.to_le_bytes());
        }
        let status = view.load(vmcs::INTERRUPT_STATUS, Width::B2) as u16;
        let at = hpa.wrapping_add(8 * INTERRUPT_STATUS as u64);
        let _ = self.machine.memory().write(at, key, &status.to_le_bytes());
    }
}

const GUEST_SSP: u32 = match vmcs::offset(tdx_module_iface::metadata::vmcs::GUEST_SSP.id.code()) {
    Some(offset) => offset,
    None => panic!("a field of the VMCS"),
};
