//! TDH.VP.ENTER of a vCPU that left its TD in an L2 VM: the VM goes on, or L1 does, as if the VM had exited to it.
//!
//! The wish for L1 stays until L1 really runs: what the module needs of L1's memory may be missing first.

use tdvisor_base::PAGE_SIZE;
use tdx_module_iface::StatusCode;
use tdx_module_iface::exit::{EptViolation, ExitReason, ExitReasonField};
use tdx_module_iface::lifecycle::LastTdExit;

use super::exit::{HOST_ROUTING, L1Exit, recorded};
use super::state::{L1Page, NotMapped};
use crate::fields::{FieldStore, Width};
use crate::guest::GuestState;
use crate::td::Tdvps;
use crate::vcpu::{AsyncExit, Running};

/// Values of L2_EXIT_HOST_ROUTING.
const NONE: u64 = 0;
const ASYNC: u64 = 1;
const TDVMCALL: u64 = 2;

/// The host wants L1 instead of the L2 VM whose exit it got.
pub(crate) fn ask_for_l1(tdvps: &Tdvps<'_>, last: LastTdExit) {
    if tdvps.load(HOST_ROUTING, Width::B1) == NONE {
        let kind = if last == LastTdExit::TDVMCALL { TDVMCALL } else { ASYNC };
        tdvps.store(HOST_ROUTING, Width::B1, kind);
    }
}

/// Prepares the entry of a vCPU that is in an L2 VM. `guest` is the VM's state, with the host's answer to its
/// TDG.VP.VMCALL in it.
///
/// # Errors
/// The TD exit that comes instead, because a page of L1 is not there.
pub(crate) fn prepare(vcpu: &Running<'_, '_>, guest: &mut GuestState) -> Result<(), AsyncExit> {
    let vm = vcpu.vm();
    let missing = |NotMapped(gpa): NotMapped| AsyncExit {
        qualification: EptViolation::WRITE,
        gpa: gpa.align_down(PAGE_SIZE),
        ..AsyncExit::new(StatusCode::SUCCESS, ExitReasonField(ExitReason::EPT_VIOLATION.0.into()))
    };
    let find = |page: L1Page| page.find(vcpu.tdcs, vcpu.tdvps, vm).map_err(missing);
    let code = match vcpu.tdvps.load(HOST_ROUTING, Width::B1) {
        // L1 has the VM's state since the TD exit.
        ASYNC => StatusCode::L2_EXIT_HOST_ROUTED_ASYNC,
        TDVMCALL => {
            find(L1Page::GuestState)?;
            vcpu.store_to_l1(guest, vm);
            StatusCode::L2_EXIT_HOST_ROUTED_TDVMCALL
        }
        _ => {
            find(L1Page::GuestState)?;
            find(L1Page::Apic)?;
            return Ok(());
        }
    };
    vcpu.tdvps.store(HOST_ROUTING, Width::B1, NONE);
    let exit = recorded(vcpu, vm);
    vcpu.resume_l1(guest, &L1Exit { code, ..L1Exit::new(&exit) });
    Ok(())
}
