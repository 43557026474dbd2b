//! #VE: exceptions that tell a TD's guest what its VMM would otherwise have to do behind its back.
//!
//! VE_INFO holds one of them. While it waits to be read (VALID is all ones) a further #VE becomes #DF.

use tdx_module_iface::exit::ExitReasonField;
use x86_arch::{Event, vector};

use super::{Handled, Running};
use crate::fields::layout::tdvps;
use crate::fields::{FieldStore, Width};
use crate::guest::VmExit;
use crate::l2::exit::L1Exit;

/// Fills VE_INFO and injects #VE. An L2 VM gets none: L1 gets the exit.
pub(crate) fn inject(vcpu: &Running<'_, '_>, exit: &VmExit) -> Handled {
    if vcpu.vm().is_l2() {
        return Handled::ToL1(L1Exit::new(exit));
    }
    let tdvps = vcpu.tdvps;
    if tdvps.load(tdvps::VE_VALID, Width::B4) != 0 {
        return Handled::Inject(Event::exception_with_code(vector::DF, 0));
    }
    let ExitReasonField(reason) = exit.reason;
    tdvps.store(tdvps::VE_EXIT_REASON, Width::B4, u64::from(reason));
    tdvps.store(tdvps::VE_VALID, Width::B4, u64::from(u32::MAX));
    tdvps.store_u64(tdvps::VE_QUALIFICATION, exit.qualification);
    tdvps.store_u64(tdvps::VE_GLA, exit.gla);
    tdvps.store_u64(tdvps::VE_GPA, exit.gpa.get());
    tdvps.store(tdvps::VE_EPTP_INDEX, Width::B2, 0);
    tdvps.store(tdvps::VE_INSTRUCTION_LENGTH, Width::B4, u64::from(exit.instruction_length));
    tdvps.store(tdvps::VE_INSTRUCTION_INFO, Width::B4, u64::from(exit.instruction_info));
    Handled::Inject(Event::exception(vector::VE))
}
