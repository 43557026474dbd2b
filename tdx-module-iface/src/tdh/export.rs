//! `TDH.EXPORT.*`: the sender's side of a live migration.

use tdvisor_base::{Gpa, Hpa};

use super::migration::{Command, GpaList, MemoryCall, PageList, Stream, mbmd_word, problems, take_list};
use super::{Answer, issue};
use crate::handles::{GpaLevel, Tdr, Tdvpr};
use crate::leaf::TdhLeaf;
use crate::outcome::SeamError;
use crate::regs::{Gprs, SeamCall};
use crate::sept::SeptInfo;

/// R10 of `TDH.EXPORT.TRACK`: the in-order phase is done.
const IN_ORDER_DONE: u64 = 1 << 63;

/// What an export of memory made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exported {
    /// Pages written: the head's, those of tags, those of contents.
    pub pages: u64,
    /// Entries that were not exported.
    pub problems: u32,
}

fn state<S: SeamCall + ?Sized>(
    lp: &mut S,
    leaf: TdhLeaf,
    object: Hpa,
    mbmd: Hpa,
    pages: PageList,
    stream: u64,
) -> Result<u64, SeamError> {
    let gprs = Gprs { rcx: object.get(), r8: mbmd_word(mbmd), r9: pages.word(), r10: stream, ..Gprs::ZERO };
    Ok(issue(lp, leaf, leaf.word(), gprs)?.plain()?.rdx)
}

/// Begins a session: exports what does not change of a TD, which runs on. Gives the number of pages written. The key
/// of the session is used up, whatever comes of the call.
///
/// # Errors
/// `TD_NOT_MIGRATABLE`, `MIN_MIGS_NOT_CREATED`, `MIGRATION_DECRYPTION_KEY_NOT_SET`;
/// `PREVIOUS_EXPORT_CLEANUP_INCOMPLETE` while pages of an aborted session are not restored.
pub fn tdh_export_state_immutable<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdr: Tdr,
    mbmd: Hpa,
    pages: PageList,
    command: Command,
) -> Result<u64, SeamError> {
    state(lp, TdhLeaf::EXPORT_STATE_IMMUTABLE, tdr.0, mbmd, pages, Stream::FIRST.word(command))
}

/// Exports what changes of a TD that is paused. Gives the number of pages written.
///
/// # Errors
/// `OP_STATE_INCORRECT` unless the TD is paused.
pub fn tdh_export_state_td<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdr: Tdr,
    mbmd: Hpa,
    pages: PageList,
    command: Command,
) -> Result<u64, SeamError> {
    state(lp, TdhLeaf::EXPORT_STATE_TD, tdr.0, mbmd, pages, Stream::FIRST.word(command))
}

/// Exports a VCPU of a TD that is paused, which associates it with this LP. Gives the number of pages written.
///
/// # Errors
/// `VCPU_ASSOCIATED` where it is associated with another LP; `VCPU_ALREADY_EXPORTED`.
pub fn tdh_export_state_vp<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdvpr: Tdvpr,
    mbmd: Hpa,
    pages: PageList,
    stream: Stream,
    command: Command,
) -> Result<u64, SeamError> {
    state(lp, TdhLeaf::EXPORT_STATE_VP, tdvpr.0, mbmd, pages, stream.word(command))
}

/// Exports pages. `call.list` tells afterwards, also after an error, how far it came; the entries tell what came of
/// each.
///
/// # Errors
/// `OPERAND_INVALID` with the operand; `INTERRUPTED_RESUMABLE` asks for [`Command::Resume`] with what `call` is then.
pub fn tdh_export_mem<S: SeamCall + ?Sized>(
    lp: &mut S,
    call: &mut MemoryCall,
    command: Command,
) -> Result<Exported, SeamError> {
    let leaf = TdhLeaf::EXPORT_MEM;
    let answer = issue(lp, leaf, leaf.word(), call.gprs(command))?;
    take_list(&mut call.list, answer.gprs.rcx);
    let problems = problems(answer.gprs.rax);
    Ok(Exported { pages: answer.plain()?.rdx, problems })
}

fn listed<S: SeamCall + ?Sized>(
    lp: &mut S,
    leaf: TdhLeaf,
    tdr: Tdr,
    list: &mut GpaList,
) -> Result<u32, SeamError> {
    let gprs = Gprs { rcx: list.word(), rdx: tdr.0.get(), ..Gprs::ZERO };
    let answer: Answer = issue(lp, leaf, leaf.word(), gprs)?;
    take_list(list, answer.gprs.rcx);
    let problems = problems(answer.gprs.rax);
    answer.plain().map(|_| problems)
}

/// Blocks pages for writing. `list` tells afterwards how far it came. Gives the number of entries that were not
/// blocked. An interrupted call goes on with the list as it is then.
///
/// # Errors
/// `OPERAND_INVALID` for an entry that is none.
pub fn tdh_export_blockw<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdr: Tdr,
    list: &mut GpaList,
) -> Result<u32, SeamError> {
    listed(lp, TdhLeaf::EXPORT_BLOCKW, tdr, list)
}

/// Gives exported pages back to a TD that runs on after an aborted session. `list` tells afterwards how far it came.
/// Gives the number of entries that were not restored.
///
/// # Errors
/// `OPERAND_INVALID` for an entry that is none; `OP_STATE_INCORRECT` during a session.
pub fn tdh_export_restore<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdr: Tdr,
    list: &mut GpaList,
) -> Result<u32, SeamError> {
    listed(lp, TdhLeaf::EXPORT_RESTORE, tdr, list)
}

/// Allows writes to a 4 KiB page that was blocked for writing: a page that was exported is dirty then.
///
/// # Errors
/// `EPT_ENTRY_STATE_INCORRECT` where it is not blocked for writing.
pub fn tdh_export_unblockw<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdr: Tdr,
    page: Gpa,
) -> Result<(), SeamError<SeptInfo>> {
    let leaf = TdhLeaf::EXPORT_UNBLOCKW;
    let gprs = Gprs { rcx: GpaLevel::page(page).word(), rdx: tdr.0.get(), ..Gprs::ZERO };
    issue(lp, leaf, leaf.word(), gprs)?.sept().map(drop)
}

/// Pauses a TD: none of its VCPUs runs until the session is aborted.
///
/// # Errors
/// `OPERAND_BUSY` on the TDR while a VCPU runs.
pub fn tdh_export_pause<S: SeamCall + ?Sized>(lp: &mut S, tdr: Tdr) -> Result<(), SeamError> {
    let leaf = TdhLeaf::EXPORT_PAUSE;
    let gprs = Gprs { rcx: tdr.0.get(), ..Gprs::ZERO };
    issue(lp, leaf, leaf.word(), gprs)?.plain().map(drop)
}

/// What a token of `TDH.EXPORT.TRACK` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Epoch {
    /// A new epoch begins.
    Next,
    /// The in-order phase is over: the importer may start the TD.
    OutOfOrder,
}

/// Begins an epoch, and writes the token that says so.
///
/// # Errors
/// `EXPORTED_DIRTY_PAGES_REMAIN` where the in-order phase cannot end yet.
pub fn tdh_export_track<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdr: Tdr,
    mbmd: Hpa,
    epoch: Epoch,
) -> Result<(), SeamError> {
    let leaf = TdhLeaf::EXPORT_TRACK;
    let r10 = match epoch {
        Epoch::Next => 0,
        Epoch::OutOfOrder => IN_ORDER_DONE,
    };
    let gprs = Gprs { rcx: tdr.0.get(), r8: mbmd_word(mbmd), r10, ..Gprs::ZERO };
    issue(lp, leaf, leaf.word(), gprs)?.plain().map(drop)
}

/// Aborts a session: the TD may run on here. Once the in-order phase is over the importer's abort token, at `token`,
/// has to prove that it will not run there.
///
/// # Errors
/// `INVALID_MBMD` and `INCORRECT_MBMD_MAC` for a token that is none; `OPERAND_INVALID | R8` where one is missing or
/// not expected.
pub fn tdh_export_abort<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdr: Tdr,
    token: Option<Hpa>,
) -> Result<(), SeamError> {
    let leaf = TdhLeaf::EXPORT_ABORT;
    let gprs = Gprs { rcx: tdr.0.get(), r8: token.map_or(0, mbmd_word), ..Gprs::ZERO };
    issue(lp, leaf, leaf.word(), gprs)?.plain().map(drop)
}
