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
/// #PF with reserved bit set, by a supervisor or user access.
const PF_RESERVED: u32 = 1 << 3 | 1;

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

/// Handles an EPT violation, whether the guest's processor met it or a guest leaf.
pub(crate) fn violation(vcpu: &Running<'_, '_>, state: &mut GuestState, exit: &VmExit) -> Handled {
    if (exit.gpa.get() & PHYSICAL_BITS) >> vcpu.tdcs.gpa_bits() != 0 {
        // Bits above the guest's width are reserved in its page tables.
        state.control.cr2 = exit.gla;
        let write = if exit.qualification & EptViolation::WRITE != 0 { 2 } else { 0 };
        return Handled::Inject(Event::exception_with_code(vector::PF, PF_RESERVED | write));
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
        return Handled::exit(out);
    }
    zero_step::log(vcpu.tdvps, state.rip(), out.gpa);
    Handled::exit(out)
}

/// An EPT misconfiguration: possible in the shared EPT only, because the host cannot write Secure-EPT entries.
pub(crate) fn misconfiguration(exit: &VmExit) -> Handled {
    let mut out = AsyncExit::pass(exit);
    out.gpa = exit.gpa.align_down(PAGE_SIZE);
    Handled::exit(out)
}
