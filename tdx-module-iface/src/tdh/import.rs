//! `TDH.IMPORT.*`: the receiver's side of a live migration.
//!
//! An error whose status has the fatal bit ends the import: the TD can only be taken apart then.

use tdvisor_base::Hpa;

use super::issue;
use super::migration::{Command, MemoryCall, PageList, Stream, mbmd_word, problems, take_list};
use crate::handles::{Tdr, Tdvpr};
use crate::leaf::TdhLeaf;
use crate::outcome::SeamError;
use crate::regs::{Gprs, SeamCall};

/// R13: the buffers become the TD's pages.
const IN_PLACE: u64 = u64::MAX;

fn state<S: SeamCall + ?Sized>(
    lp: &mut S,
    leaf: TdhLeaf,
    object: Hpa,
    mbmd: Hpa,
    pages: PageList,
    stream: u64,
) -> Result<(), SeamError> {
    let gprs = Gprs { rcx: object.get(), r8: mbmd_word(mbmd), r9: pages.word(), r10: stream, ..Gprs::ZERO };
    issue(lp, leaf, leaf.word(), gprs)?.plain().map(drop)
}

/// Begins an import into a TD that has its control pages and nothing else. The key of the session is used up,
/// whatever comes of the call.
///
/// # Errors
/// `MIN_MIGS_NOT_CREATED`, `MIGRATION_DECRYPTION_KEY_NOT_SET`; what is wrong with the bundle is fatal.
pub fn tdh_import_state_immutable<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdr: Tdr,
    mbmd: Hpa,
    pages: PageList,
    command: Command,
) -> Result<(), SeamError> {
    state(lp, TdhLeaf::IMPORT_STATE_IMMUTABLE, tdr.0, mbmd, pages, Stream::FIRST.word(command))
}

/// Imports the changing state of a TD.
///
/// # Errors
/// What is wrong with the bundle is fatal.
pub fn tdh_import_state_td<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdr: Tdr,
    mbmd: Hpa,
    pages: PageList,
    command: Command,
) -> Result<(), SeamError> {
    state(lp, TdhLeaf::IMPORT_STATE_TD, tdr.0, mbmd, pages, Stream::FIRST.word(command))
}

/// Imports a VCPU into one that has its control pages and is not initialised, which associates it with this LP.
///
/// # Errors
/// `TDCX_NUM_INCORRECT` while control pages are missing; what is wrong with the bundle is fatal.
pub fn tdh_import_state_vp<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdvpr: Tdvpr,
    mbmd: Hpa,
    pages: PageList,
    stream: Stream,
    command: Command,
) -> Result<(), SeamError> {
    state(lp, TdhLeaf::IMPORT_STATE_VP, tdvpr.0, mbmd, pages, stream.word(command))
}

/// Imports pages into those of the list at `new_pages` (one address per entry), or into the buffers themselves.
/// `call.list` tells afterwards, also after an error, how far it came; the entries tell what came of each. Gives the
/// number of entries that were not imported.
///
/// # Errors
/// `INVALID_MBMD` and `INCORRECT_MBMD_MAC`: nothing happened. In the in-order phase an entry that cannot be imported is
/// fatal. `INTERRUPTED_RESUMABLE` asks for [`Command::Resume`] with what `call` is then.
pub fn tdh_import_mem<S: SeamCall + ?Sized>(
    lp: &mut S,
    call: &mut MemoryCall,
    new_pages: Option<Hpa>,
    command: Command,
) -> Result<u32, SeamError> {
    let leaf = TdhLeaf::IMPORT_MEM;
    let gprs = Gprs { r13: new_pages.map_or(IN_PLACE, Hpa::get), ..call.gprs(command) };
    let answer = issue(lp, leaf, leaf.word(), gprs)?;
    take_list(&mut call.list, answer.gprs.rcx);
    let problems = problems(answer.gprs.rax);
    answer.plain().map(|_| problems)
}

/// Takes over the epoch of a token; one that ends the in-order phase lets the TD be started.
///
/// # Errors
/// What is wrong with the token is fatal; `SOME_VCPUS_NOT_MIGRATED`.
pub fn tdh_import_track<S: SeamCall + ?Sized>(lp: &mut S, tdr: Tdr, mbmd: Hpa) -> Result<(), SeamError> {
    let leaf = TdhLeaf::IMPORT_TRACK;
    let gprs = Gprs { rcx: tdr.0.get(), r8: mbmd_word(mbmd), ..Gprs::ZERO };
    issue(lp, leaf, leaf.word(), gprs)?.plain().map(drop)
}

fn on_tdr<S: SeamCall + ?Sized>(lp: &mut S, leaf: TdhLeaf, tdr: Tdr) -> Result<(), SeamError> {
    let gprs = Gprs { rcx: tdr.0.get(), ..Gprs::ZERO };
    issue(lp, leaf, leaf.word(), gprs)?.plain().map(drop)
}

/// Lets the TD run here, before the rest of its memory is there.
///
/// # Errors
/// `OP_STATE_INCORRECT` before the token that ends the in-order phase.
pub fn tdh_import_commit<S: SeamCall + ?Sized>(lp: &mut S, tdr: Tdr) -> Result<(), SeamError> {
    on_tdr(lp, TdhLeaf::IMPORT_COMMIT, tdr)
}

/// Ends an import: all memory is there.
///
/// # Errors
/// `OP_STATE_INCORRECT` before the token that ends the in-order phase.
pub fn tdh_import_end<S: SeamCall + ?Sized>(lp: &mut S, tdr: Tdr) -> Result<(), SeamError> {
    on_tdr(lp, TdhLeaf::IMPORT_END, tdr)
}

/// Gives an import up: the TD will never run here, and the token written to `mbmd` proves it to the sender. May be
/// repeated.
///
/// # Errors
/// `OP_STATE_INCORRECT` before an import began, and once the TD may run.
pub fn tdh_import_abort<S: SeamCall + ?Sized>(lp: &mut S, tdr: Tdr, mbmd: Hpa) -> Result<(), SeamError> {
    let leaf = TdhLeaf::IMPORT_ABORT;
    let gprs = Gprs { rcx: tdr.0.get(), r8: mbmd_word(mbmd), ..Gprs::ZERO };
    let answer = issue(lp, leaf, leaf.word(), gprs)?;
    // The call did what it should, and says all the same that the TD is lost.
    if answer.status.is_fatal() && !answer.status.is_error() {
        return Ok(());
    }
    answer.plain().map(drop)
}
