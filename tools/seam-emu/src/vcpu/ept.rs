//! EPT violations and misconfigurations.

use tdvisor_base::{Gpa, Level, PAGE_SIZE};
use tdx_module_iface::exit::{EptViolation, ExtendedQualification};
use tdx_module_iface::sept::SeptStates;
use tdx_module_iface::tdg::td_ctls;
use x86_arch::{Event, vector};

use super::{AsyncExit, Handled, Running, ve, zero_step};
use crate::fields::FieldStore;
use crate::fields::layout::tdcs;
use crate::guest::{GuestState, VmExit};
use crate::td::sept::Walk;

/// Bits that a physical address can have.
const PHYSICAL_BITS: u64 = (1 << 52) - 1;
/// Error code of #PF: a reserved bit of a present entry.
const PF_RESERVED: u32 = 1 << 3 | 1;
const PF_WRITE: u32 = 1 << 1;
const PF_USER: u32 = 1 << 2;
const PF_FETCH: u32 = 1 << 4;

impl Running<'_, '_> {
    /// Whether an address lies in the shared half.
    pub(crate) fn is_shared(&self, gpa: Gpa) -> bool {
        gpa.get() & self.tdcs.shared_bit() != 0
    }

    /// Whether a private address is mapped to a page that the guest has to accept first.
    pub(crate) fn is_pending(&self, gpa: Gpa) -> bool {
        match self.tdcs.walk(gpa, Level::L4K) {
            Some(Walk::Found(slot) | Walk::Stopped(slot)) => {
                SeptStates::ANY_PENDING_AND_GUEST_ACCEPTABLE.contains(slot.state())
            }
            None => false,
        }
    }
}

/// Handles an EPT violation of the guest itself.
pub(crate) fn violation(vcpu: &Running<'_, '_>, state: &mut GuestState, exit: &VmExit) -> Handled {
    let handled = violation_of_leaf(vcpu, state, exit);
    if let Handled::Exit(_) = handled
        && !vcpu.is_shared(exit.gpa)
    {
        zero_step::log(vcpu.tdvps, exit.gpa);
    }
    handled
}

/// Handles an EPT violation that a guest leaf met in the guest's stead. It is no step: the guest was not run.
pub(crate) fn violation_of_leaf(vcpu: &Running<'_, '_>, state: &mut GuestState, exit: &VmExit) -> Handled {
    if (exit.gpa.get() & PHYSICAL_BITS) >> vcpu.tdcs.gpa_bits() != 0 {
        // Bits above the guest's width are reserved in its page tables.
        state.control.cr2 = exit.gla;
        let has = |bit: u64, code: u32| if exit.qualification & bit != 0 { code } else { 0 };
        let code = has(EptViolation::WRITE, PF_WRITE) | has(EptViolation::FETCH, PF_FETCH);
        let user = if state.cpl() == 3 { PF_USER } else { 0 };
        return Handled::Inject(Event::exception_with_code(vector::PF, PF_RESERVED | code | user));
    }
    let mut out = AsyncExit::pass(exit);
    out.qualification = EptViolation(exit.qualification).for_host().0 & 0xffff_ffff;
    out.gpa = exit.gpa.align_down(PAGE_SIZE);
    if vcpu.is_shared(exit.gpa) {
        if !exit.suppress_ve {
            return ve::inject(vcpu, exit);
        }
        return Handled::exit(out);
    }
    if vcpu.is_pending(exit.gpa) {
        if vcpu.tdcs.load_u64(tdcs::TD_CTLS) & td_ctls::PENDING_VE_DISABLE == 0 {
            return ve::inject(vcpu, exit);
        }
        out.extended = ExtendedQualification::PENDING;
    }
    Handled::exit(out)
}

/// An EPT misconfiguration: possible in the shared EPT only, because the host cannot write Secure-EPT entries.
pub(crate) fn misconfiguration(exit: &VmExit) -> Handled {
    let mut out = AsyncExit::pass(exit);
    out.gpa = exit.gpa.align_down(PAGE_SIZE);
    Handled::exit(out)
}
