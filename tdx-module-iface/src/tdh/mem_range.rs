//! `TDH.MEM.RANGE.BLOCK` and `TDH.MEM.RANGE.UNBLOCK`.

use super::{issue, sept_details};
use crate::handles::{GpaLevel, Tdr};
use crate::leaf::TdhLeaf;
use crate::outcome::SeamError;
use crate::regs::{Gprs, SeamCall};
use crate::sept::SeptInfo;
use crate::status::StatusCode;

/// How blocking ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockOutcome {
    /// The entry is blocked now, in the current epoch.
    Blocked,
    /// The entry was blocked before; nothing changed.
    AlreadyBlocked(SeptInfo),
}

/// Blocks new translations through an entry: a page, or a table with everything below it.
///
/// # Errors
/// `EPT_ENTRY_STATE_INCORRECT` for a free entry; `EPT_WALK_FAILED` below a blocked or missing table.
pub fn tdh_mem_range_block<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdr: Tdr,
    gpa: GpaLevel,
) -> Result<BlockOutcome, SeamError<SeptInfo>> {
    let leaf = TdhLeaf::MEM_RANGE_BLOCK;
    let gprs = Gprs { rcx: gpa.word(), rdx: tdr.0.get(), ..Gprs::ZERO };
    let answer = issue(lp, leaf, leaf.word(), gprs)?;
    if answer.is(StatusCode::GPA_RANGE_ALREADY_BLOCKED)
        && let Some(info) = sept_details(answer.status, &answer.gprs)
    {
        return Ok(BlockOutcome::AlreadyBlocked(info));
    }
    answer.sept().map(|_| BlockOutcome::Blocked)
}

/// Undoes blocking.
///
/// # Errors
/// `TLB_TRACKING_NOT_DONE | SEPT_TREE` while VCPUs may run and the blocking was not tracked: unblocking needs
/// tracking too.
pub fn tdh_mem_range_unblock<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdr: Tdr,
    gpa: GpaLevel,
) -> Result<(), SeamError<SeptInfo>> {
    let leaf = TdhLeaf::MEM_RANGE_UNBLOCK;
    let gprs = Gprs { rcx: gpa.word(), rdx: tdr.0.get(), ..Gprs::ZERO };
    issue(lp, leaf, leaf.word(), gprs)?.sept().map(drop)
}
