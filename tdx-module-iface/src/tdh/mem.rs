//! `TDH.MEM.RD`, `TDH.MEM.WR` and `TDH.MEM.TRACK`.

use tdvisor_base::Gpa;

use super::issue;
use crate::handles::Tdr;
use crate::leaf::TdhLeaf;
use crate::outcome::SeamError;
use crate::regs::{Gprs, SeamCall};
use crate::sept::SeptInfo;

/// Reads eight bytes of a debug TD's private memory; `gpa` is 8-byte aligned.
///
/// # Errors
/// `TD_NON_DEBUG` for other TDs; `EPT_ENTRY_NOT_PRESENT` where nothing is mapped.
pub fn tdh_mem_rd<S: SeamCall + ?Sized>(lp: &mut S, tdr: Tdr, gpa: Gpa) -> Result<u64, SeamError<SeptInfo>> {
    let leaf = TdhLeaf::MEM_RD;
    let gprs = Gprs { rcx: gpa.get(), rdx: tdr.0.get(), ..Gprs::ZERO };
    Ok(issue(lp, leaf, leaf.word(), gprs)?.sept()?.r8)
}

/// Writes eight bytes of a debug TD's private memory and returns the old ones; `gpa` is 8-byte aligned.
///
/// # Errors
/// As for [`tdh_mem_rd`].
pub fn tdh_mem_wr<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdr: Tdr,
    gpa: Gpa,
    value: u64,
) -> Result<u64, SeamError<SeptInfo>> {
    let leaf = TdhLeaf::MEM_WR;
    let gprs = Gprs { rcx: gpa.get(), rdx: tdr.0.get(), r8: value, ..Gprs::ZERO };
    Ok(issue(lp, leaf, leaf.word(), gprs)?.sept()?.r8)
}

/// Starts a new TLB epoch of a TD. Once every VCPU that ran before has left the guest, what was blocked before
/// is tracked.
///
/// # Errors
/// [`Retry::PreviousTlbEpochBusy`](crate::outcome::Retry::PreviousTlbEpochBusy) while a VCPU still runs in the
/// epoch before the current one.
pub fn tdh_mem_track<S: SeamCall + ?Sized>(lp: &mut S, tdr: Tdr) -> Result<(), SeamError> {
    let leaf = TdhLeaf::MEM_TRACK;
    let gprs = Gprs { rcx: tdr.0.get(), ..Gprs::ZERO };
    issue(lp, leaf, leaf.word(), gprs)?.plain().map(drop)
}
