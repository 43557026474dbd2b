//! Whether the module's own bookkeeping adds up: PAMT, Secure EPTs, counts, key ids, locks.
//!
//! Everything here is redundant in the module: the PAMT says whose each page is, and so do the structures that
//! point to the page. [`Machine::audit`] derives the one from the other. It is for machines at rest: while a
//! processor is inside a leaf or a guest, counts may be on their way and locks are held.
//!
//! # Invariants
//! 1. A page in use lies in no larger page in use, and no lock of an entry is held.
//! 2. A TD has as many pages as the PAMT says (CHLDCNT).
//! 3. From the Secure-EPT root of a TD, each of its table pages and each of its private pages is reached once,
//!    at its level, and nothing else is.
//!    In the tree of an L2 VM, each table stands where the TD has one, each alias at the TD's own leaf of the same page, whose
//!    entry names the VM; an alias is open only where the leaf is.
//! 4. TDR and TDVPR name the TD's control pages, each once.
//! 5. No vCPU runs or counts in an epoch; as many are on processors as the TD thinks.
//! 6. A key id in use belongs to one TD, and its state goes with the TD's life cycle.

mod pages;
mod secure_ept;
mod td;
#[cfg(test)]
mod tests;
mod vcpu;

pub use secure_ept::{PamtView, SecureEptView};

use core::fmt;

use tdvisor_base::{Gpa, Hpa, Level};
use tdx_module_iface::lifecycle::HkidState;
use tdx_module_iface::tdmr::PageType;

use crate::machine::Machine;
use pages::Pages;

/// Something that does not add up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AuditFinding {
    /// A page in use lies inside a larger one that is in use.
    NestedPage(Hpa),
    /// A lock is held although nobody is inside the module.
    LockHeld(Hpa),
    /// The owner that the PAMT names is no TD.
    NoOwner(Hpa),
    /// CHLDCNT of a TD is not the number of its pages.
    ChildCount {
        /// The TD.
        tdr: Hpa,
        /// CHLDCNT.
        counted: u64,
        /// What the PAMT says.
        found: u64,
    },
    /// An entry of a Secure EPT has a state that does not exist, or bits that no leaf writes.
    BadEntry {
        /// The TD.
        tdr: Hpa,
        /// Where the entry's range begins.
        gpa: Gpa,
        /// The entry.
        raw: u64,
    },
    /// An entry points to a page whose type, size or owner is another.
    WrongTarget {
        /// The TD.
        tdr: Hpa,
        /// Where the entry's range begins.
        gpa: Gpa,
        /// The page.
        page: Hpa,
    },
    /// A table of an L2 VM where the TD has none, or an alias of no leaf of the TD's, or one that is open where that is not.
    StrayAlias {
        /// The TD.
        tdr: Hpa,
        /// The VM.
        vm: u8,
        /// Where the entry's range begins.
        gpa: Gpa,
        /// The entry's level.
        level: Level,
    },
    /// An entry of a TD names an L2 VM that has no alias of it.
    MissingAlias {
        /// The TD.
        tdr: Hpa,
        /// The VM.
        vm: u8,
        /// Where the entry's range begins.
        gpa: Gpa,
        /// The entry's level.
        level: Level,
    },
    /// A page is pointed to more than once.
    SharedPage(Hpa),
    /// A page of a TD to which nothing points.
    LostPage {
        /// The page.
        page: Hpa,
        /// What the PAMT says that it is.
        page_type: PageType,
        /// The page's size.
        level: Level,
    },
    /// A vCPU counts as running.
    VcpuRuns(Hpa),
    /// The number of vCPUs that are on processors is wrong.
    AssociatedVcpus {
        /// The TD.
        tdr: Hpa,
        /// NUM_ASSOC_VCPUS.
        counted: u64,
        /// What the vCPUs say.
        found: u64,
    },
    /// The key ownership table and the TDs differ about a key id.
    KeyState {
        /// The key id.
        hkid: u16,
        /// What the table says.
        state: HkidState,
    },
}

impl fmt::Display for AuditFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NestedPage(page) => write!(f, "page {page} lies in a larger page in use"),
            Self::LockHeld(page) => write!(f, "a lock of {page} is held"),
            Self::NoOwner(page) => write!(f, "the owner of page {page} is no TD"),
            Self::ChildCount { tdr, counted, found } => {
                write!(f, "TD {tdr} counts {counted} pages and has {found}")
            }
            Self::BadEntry { tdr, gpa, raw } => {
                write!(f, "TD {tdr}: the entry of {gpa} is {raw:#x}")
            }
            Self::WrongTarget { tdr, gpa, page } => {
                write!(f, "TD {tdr}: the entry of {gpa} points to {page}, which is not such a page")
            }
            Self::StrayAlias { tdr, vm, gpa, level } => {
                write!(f, "TD {tdr}: L2 VM {vm} has a {level} entry at {gpa} that is none of the TD's own")
            }
            Self::MissingAlias { tdr, vm, gpa, level } => {
                write!(f, "TD {tdr}: L2 VM {vm} has no alias of the {level} page at {gpa}")
            }
            Self::SharedPage(page) => write!(f, "page {page} is pointed to twice"),
            Self::LostPage { page, page_type, level } => {
                write!(f, "nothing points to page {page} (type {page_type:?}, {level:?})")
            }
            Self::VcpuRuns(tdvpr) => write!(f, "vCPU {tdvpr} counts as running"),
            Self::AssociatedVcpus { tdr, counted, found } => {
                write!(f, "TD {tdr} counts {counted} vCPUs on processors and has {found}")
            }
            Self::KeyState { hkid, state } => {
                write!(f, "key id {hkid} is {state:?}, which no TD's life cycle agrees with")
            }
        }
    }
}

/// Findings of one audit are cut off here: one mistake can show at every page.
const MOST_FINDINGS: usize = 64;

#[derive(Default)]
struct Findings(Vec<AuditFinding>);

impl Findings {
    fn push(&mut self, finding: AuditFinding) {
        if self.0.len() < MOST_FINDINGS {
            self.0.push(finding);
        }
    }
}

impl Machine {
    /// What does not add up in the module's bookkeeping; empty as long as module and emulator are right. Call it
    /// while no processor is inside a SEAMCALL.
    ///
    /// A module that has shut down because the host broke its memory is not looked at.
    pub fn audit(&self) -> Vec<AuditFinding> {
        let mut findings = Findings::default();
        if !self.module.has_shut_down() {
            let pages = Pages::collect(self, &mut findings);
            td::check_all(self, &pages, &mut findings);
        }
        findings.0
    }
}
