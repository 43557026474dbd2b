//! `TDH.MEM.PAGE.*`: adding, removing, moving, splitting and merging private pages.

use tdvisor_base::{Gpa, Hpa};

use super::issue;
use super::mem_sept::{NO_PAGE, UNUSED, l2_tables};
use crate::handles::{GpaLevel, Tdr};
use crate::leaf::TdhLeaf;
use crate::outcome::SeamError;
use crate::regs::{Gprs, SeamCall};
use crate::sept::SeptInfo;

/// Adds a 4 KiB page to a TD that is being built, with the contents of `source`. The address is measured, the
/// contents are not.
///
/// # Errors
/// `OP_STATE_INCORRECT` once the TD is finalised.
pub fn tdh_mem_page_add<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdr: Tdr,
    gpa: Gpa,
    page: Hpa,
    source: Hpa,
) -> Result<(), SeamError<SeptInfo>> {
    let leaf = TdhLeaf::MEM_PAGE_ADD;
    let gprs = Gprs {
        rcx: GpaLevel::page(gpa).word(),
        rdx: tdr.0.get(),
        r8: page.get(),
        r9: source.get(),
        ..Gprs::ZERO
    };
    issue(lp, leaf, leaf.word(), gprs)?.sept().map(drop)
}

/// Adds a page of 4 KiB or 2 MiB in state PENDING; the guest accepts it, which also zeroes it.
///
/// # Errors
/// `EPT_WALK_FAILED` where the table is missing, `EPT_ENTRY_STATE_INCORRECT` where the entry is in use.
pub fn tdh_mem_page_aug<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdr: Tdr,
    gpa: GpaLevel,
    page: Hpa,
) -> Result<(), SeamError<SeptInfo>> {
    let leaf = TdhLeaf::MEM_PAGE_AUG;
    let gprs = Gprs { rcx: gpa.word(), rdx: tdr.0.get(), r8: page.get(), ..Gprs::ZERO };
    issue(lp, leaf, leaf.word(), gprs)?.sept().map(drop)
}

/// Removes a page and returns its address. The page is free afterwards; its contents are not scrubbed.
///
/// # Errors
/// While VCPUs may run, `GPA_RANGE_NOT_BLOCKED` and `TLB_TRACKING_NOT_DONE`.
pub fn tdh_mem_page_remove<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdr: Tdr,
    gpa: GpaLevel,
) -> Result<Hpa, SeamError<SeptInfo>> {
    let leaf = TdhLeaf::MEM_PAGE_REMOVE;
    let gprs = Gprs { rcx: gpa.word(), rdx: tdr.0.get(), ..Gprs::ZERO };
    Ok(Hpa::new(issue(lp, leaf, leaf.word(), gprs)?.sept()?.rcx))
}

/// Moves a blocked, tracked 4 KiB page to `page` and returns the old address, which is free then.
///
/// # Errors
/// As for [`tdh_mem_page_remove`]; `OPERAND_INVALID | R8` where `page` is the page's present address.
pub fn tdh_mem_page_relocate<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdr: Tdr,
    gpa: Gpa,
    page: Hpa,
) -> Result<Hpa, SeamError<SeptInfo>> {
    let leaf = TdhLeaf::MEM_PAGE_RELOCATE;
    let gprs = Gprs { rcx: GpaLevel::page(gpa).word(), rdx: tdr.0.get(), r8: page.get(), ..Gprs::ZERO };
    Ok(Hpa::new(issue(lp, leaf, leaf.word(), gprs)?.sept()?.rcx))
}

/// Splits a blocked, tracked large page into 512 pages of the next level; `table` becomes their Secure-EPT
/// page.
///
/// # Errors
/// [`Retry::InterruptedRestartable`](crate::outcome::Retry::InterruptedRestartable) where an interrupt is
/// pending: nothing was done.
pub fn tdh_mem_page_demote<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdr: Tdr,
    gpa: GpaLevel,
    table: Hpa,
) -> Result<(), SeamError<SeptInfo>> {
    let leaf = TdhLeaf::MEM_PAGE_DEMOTE;
    let gprs = Gprs { rcx: gpa.word(), rdx: tdr.0.get(), r8: table.get(), ..Gprs::ZERO };
    issue(lp, leaf, leaf.word(), gprs)?.sept().map(drop)
}

/// Splits a blocked, tracked 2 MiB page on a module with dynamic PAMT (release 2.0): `table` becomes the pieces'
/// Secure-EPT page, `pair` the pages of their PAMT entries, where the range has none.
///
/// # Errors
/// `INTERRUPTED_RESTARTABLE` where an interrupt is pending: nothing was done. `PAGE_METADATA_INCORRECT` for a page of the pair that is in use.
pub fn tdh_mem_page_demote_with_pamt<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdr: Tdr,
    gpa: GpaLevel,
    table: Hpa,
    pair: [Hpa; 2],
) -> Result<(), SeamError<SeptInfo>> {
    let leaf = TdhLeaf::MEM_PAGE_DEMOTE;
    let [first, second] = pair.map(Hpa::get);
    let gprs =
        Gprs { rcx: gpa.word(), rdx: tdr.0.get(), r8: table.get(), r12: first, r13: second, ..Gprs::ZERO };
    issue(lp, leaf, leaf.word(), gprs)?.sept().map(drop)
}

/// As [`tdh_mem_page_demote`], in a TD with L2 VMs: the VMs that have an alias of the page get a table of aliases, of the page
/// that `l2` has for them (by VM from 1 on). Gives the pages that were not needed. `pair` as for
/// [`tdh_mem_page_demote_with_pamt`].
///
/// # Errors
/// As for [`tdh_mem_page_demote`]; `L2_SEPT_PAGE_NOT_PROVIDED` for a VM with an alias and without a page.
pub fn tdh_mem_page_demote_l2<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdr: Tdr,
    gpa: GpaLevel,
    table: Hpa,
    l2: [Option<Hpa>; 3],
    pair: Option<[Hpa; 2]>,
) -> Result<[Option<Hpa>; 3], SeamError<SeptInfo>> {
    /// RDX: pages for VMs without an alias come back.
    const RETURN_UNUSED: u64 = 1;
    let leaf = TdhLeaf::MEM_PAGE_DEMOTE;
    let [r9, r10, r11] = l2.map(|page| page.map_or(NO_PAGE, Hpa::get));
    let [r12, r13] = pair.map_or([0; 2], |pair| pair.map(Hpa::get));
    let rdx = tdr.0.get() | RETURN_UNUSED;
    let gprs = Gprs { rcx: gpa.word(), rdx, r8: table.get(), r9, r10, r11, r12, r13, ..Gprs::ZERO };
    let gprs = issue(lp, leaf, leaf.word(), gprs)?.sept()?;
    let unused = |page: u64| (page != NO_PAGE && page & UNUSED != 0).then(|| Hpa::new(page & !UNUSED));
    Ok([gprs.r9, gprs.r10, gprs.r11].map(unused))
}

/// Merges the 512 pages below a blocked, tracked table entry into one page of the entry's level, and returns
/// the address of the table page, which is free then.
///
/// # Errors
/// `EPT_INVALID_PROMOTE_CONDITIONS` unless all 512 are mapped, or all pending, and contiguous.
pub fn tdh_mem_page_promote<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdr: Tdr,
    gpa: GpaLevel,
) -> Result<Hpa, SeamError<SeptInfo>> {
    let leaf = TdhLeaf::MEM_PAGE_PROMOTE;
    let gprs = Gprs { rcx: gpa.word(), rdx: tdr.0.get(), ..Gprs::ZERO };
    Ok(Hpa::new(issue(lp, leaf, leaf.word(), gprs)?.sept()?.rcx))
}

/// As [`tdh_mem_page_promote`], in a TD with L2 VMs (version 1 of the leaf): the tables of the VMs at the same place come back
/// with it, by VM from 1 on; `None` where there was none.
///
/// # Errors
/// As for [`tdh_mem_page_promote`]; its condition holds for the aliases of each VM, too.
pub fn tdh_mem_page_promote_l2<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdr: Tdr,
    gpa: GpaLevel,
) -> Result<(Hpa, [Option<Hpa>; 3]), SeamError<SeptInfo>> {
    let leaf = TdhLeaf::MEM_PAGE_PROMOTE;
    let gprs = Gprs { rcx: gpa.word(), rdx: tdr.0.get(), ..Gprs::ZERO };
    let gprs = issue(lp, leaf, leaf.word_version(1), gprs)?.sept()?;
    Ok((Hpa::new(gprs.rcx), l2_tables(&gprs)))
}
