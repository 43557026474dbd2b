//! TDH.VP.*: virtual processors.

pub(super) mod addcx;
pub(super) mod create;
pub(super) mod enter;
pub(super) mod flush;
pub(super) mod init;

use tdx_module_iface::StatusCode;

use super::steps::LockedVcpu;
use super::{Call, Step, plain};
use crate::fields::Width;
use crate::fields::layout::tdcs;
use crate::td::Tdcs;

/// Ties a vCPU to the calling processor, on which it stays until TDH.VP.FLUSH.
pub(crate) fn associate(call: &Call<'_>, vcpu: &LockedVcpu<'_>, tdcs: &Tdcs<'_>) -> Step {
    match vcpu.tdvps.associated_lp() {
        Some(lp) if lp == call.lp => Ok(()),
        Some(_) => Err(plain(StatusCode::VCPU_ASSOCIATED)),
        None => {
            if !vcpu.tdvps.try_associate(call.lp) {
                return Err(plain(StatusCode::VCPU_ASSOCIATED));
            }
            count_associated(tdcs, 1);
            // Other vCPUs of the TD may have left translations on this processor in an older epoch.
            if let Some(processor) = call.machine.processors().get(call.lp) {
                processor.tlb.flush(vcpu.owner.tdr.hpa);
            }
            Ok(())
        }
    }
}

/// Changes the number of vCPUs that some processor holds.
fn count_associated(tdcs: &Tdcs<'_>, change: i32) {
    tdcs.update(tdcs::NUM_ASSOC_VCPUS, Width::B4, |old| old.wrapping_add_signed(i64::from(change)));
}
