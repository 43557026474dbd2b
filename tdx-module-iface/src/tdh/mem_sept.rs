//! `TDH.MEM.SEPT.*`: Secure-EPT pages.

use tdvisor_base::Hpa;

use super::issue;
use crate::handles::{GpaLevel, Tdr};
use crate::leaf::TdhLeaf;
use crate::outcome::SeamError;
use crate::regs::{Gprs, SeamCall};
use crate::sept::SeptInfo;
use crate::status::StatusCode;

/// Register value for "no page" in version 1 of the leaves that take L2 pages.
pub(super) const NO_PAGE: u64 = u64::MAX;
/// The module did not use this page.
pub(super) const UNUSED: u64 = 1 << 63;
/// RDX of SEPT.ADD: an entry that already points to a table is no error.
const ALLOW_EXISTING: u64 = 1;

/// What SEPT.ADD does where the entry points to a table already.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ExistingTable {
    /// Fail with `EPT_ENTRY_STATE_INCORRECT`.
    Refuse,
    /// Leave the table and go on with the L2 tables (TD partitioning).
    Allow,
}

/// Gives a Secure-EPT page to the entry `gpa`, whose level is at least 2M: the page becomes a table of free
/// entries of the level below.
///
/// # Errors
/// `EPT_WALK_FAILED` where the table above is missing; `EPT_ENTRY_STATE_INCORRECT` where there is one already.
pub fn tdh_mem_sept_add<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdr: Tdr,
    gpa: GpaLevel,
    table: Hpa,
) -> Result<(), SeamError<SeptInfo>> {
    let leaf = TdhLeaf::MEM_SEPT_ADD;
    let gprs = Gprs { rcx: gpa.word(), rdx: tdr.0.get(), r8: table.get(), ..Gprs::ZERO };
    issue(lp, leaf, leaf.word(), gprs)?.sept().map(drop)
}

/// The pages of one SEPT.ADD of version 1: the TD's own table and those of three L2 VMs.
///
/// Keeps the registers' encoding so that an interrupted call can be resumed with exactly what it returned.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SeptPages([u64; 4]);

impl SeptPages {
    /// A set of `pages`; index 0 is the page of the TD's own table, 1 to 3 are those of the L2 VMs.
    pub fn new(pages: [Option<Hpa>; 4]) -> Self {
        Self(pages.map(|page| page.map_or(NO_PAGE, Hpa::get)))
    }

    /// After the call: a page that was given and not used, so that it is still the host's.
    pub fn unused(&self, index: usize) -> Option<Hpa> {
        let word = *self.0.get(index)?;
        (word != NO_PAGE && word & UNUSED != 0).then(|| Hpa::new(word & !UNUSED))
    }
}

/// How SEPT.ADD of version 1 ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SeptAddOutcome {
    /// All tables are there; [`SeptPages::unused`] names the pages that were not needed.
    Done(SeptPages),
    /// Interrupted: call again with the same entry and these pages.
    Interrupted(SeptPages),
}

/// Gives Secure-EPT pages to an entry of the TD's tree and of its L2 VMs' trees (version 1 of the leaf).
///
/// # Errors
/// `L2_SEPT_WALK_FAILED` and `L2_SEPT_ENTRY_NOT_FREE` beside those of [`tdh_mem_sept_add`].
pub fn tdh_mem_sept_add_l2<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdr: Tdr,
    gpa: GpaLevel,
    existing: ExistingTable,
    pages: SeptPages,
) -> Result<SeptAddOutcome, SeamError<SeptInfo>> {
    let leaf = TdhLeaf::MEM_SEPT_ADD;
    let flag = match existing {
        ExistingTable::Refuse => 0,
        ExistingTable::Allow => ALLOW_EXISTING,
    };
    let [r8, r9, r10, r11] = pages.0;
    let gprs = Gprs { rcx: gpa.word(), rdx: tdr.0.get() | flag, r8, r9, r10, r11, ..Gprs::ZERO };
    let answer = issue(lp, leaf, leaf.word_version(1), gprs)?;
    let returned = |gprs: &Gprs| SeptPages([gprs.r8, gprs.r9, gprs.r10, gprs.r11]);
    if answer.is(StatusCode::INTERRUPTED_RESUMABLE) {
        return Ok(SeptAddOutcome::Interrupted(returned(&answer.gprs)));
    }
    answer.sept().map(|gprs| SeptAddOutcome::Done(returned(&gprs)))
}

/// Takes back the Secure-EPT page of a blocked, tracked table entry all of whose entries are free, and returns
/// its address.
///
/// # Errors
/// `EPT_PAGE_NOT_FREE` where an entry is in use; while VCPUs may run, `GPA_RANGE_NOT_BLOCKED` and
/// `TLB_TRACKING_NOT_DONE`.
pub fn tdh_mem_sept_remove<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdr: Tdr,
    gpa: GpaLevel,
) -> Result<Hpa, SeamError<SeptInfo>> {
    let leaf = TdhLeaf::MEM_SEPT_REMOVE;
    let gprs = Gprs { rcx: gpa.word(), rdx: tdr.0.get(), ..Gprs::ZERO };
    Ok(Hpa::new(issue(lp, leaf, leaf.word(), gprs)?.sept()?.rcx))
}

/// As [`tdh_mem_sept_remove`], in a TD with L2 VMs (version 1 of the leaf): the tables of the VMs at the same place come back
/// with it, by VM from 1 on; `None` where there was none.
///
/// # Errors
/// As for [`tdh_mem_sept_remove`].
pub fn tdh_mem_sept_remove_l2<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdr: Tdr,
    gpa: GpaLevel,
) -> Result<(Hpa, [Option<Hpa>; 3]), SeamError<SeptInfo>> {
    let leaf = TdhLeaf::MEM_SEPT_REMOVE;
    let gprs = Gprs { rcx: gpa.word(), rdx: tdr.0.get(), ..Gprs::ZERO };
    let gprs = issue(lp, leaf, leaf.word_version(1), gprs)?.sept()?;
    Ok((Hpa::new(gprs.rcx), l2_tables(&gprs)))
}

/// The tables of L2 VMs that a leaf of version 1 gave back.
pub(super) fn l2_tables(gprs: &Gprs) -> [Option<Hpa>; 3] {
    [gprs.r9, gprs.r10, gprs.r11].map(|page| (page != NO_PAGE).then(|| Hpa::new(page)))
}

/// Reads an entry as the module shows it.
///
/// # Errors
/// `EPT_WALK_FAILED` where the walk ends above the level asked for.
pub fn tdh_mem_sept_rd<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdr: Tdr,
    gpa: GpaLevel,
) -> Result<SeptInfo, SeamError<SeptInfo>> {
    let leaf = TdhLeaf::MEM_SEPT_RD;
    let gprs = Gprs { rcx: gpa.word(), rdx: tdr.0.get(), ..Gprs::ZERO };
    let gprs = issue(lp, leaf, leaf.word(), gprs)?.sept()?;
    Ok(SeptInfo { entry: gprs.rcx, level_state: gprs.rdx })
}
