//! Mistakes of host software that hardware would punish later or never, named at once.

use core::fmt;

use tdvisor_base::sync::Mutex;

use tdvisor_base::{Gpa, Hpa, KeyId, Level};

/// A translation that a processor still holds although its page has left the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StaleTranslation {
    /// The processor.
    pub lp: usize,
    /// What the translation maps.
    pub gpa: Gpa,
    /// Where to.
    pub hpa: Hpa,
    /// How large.
    pub level: Level,
}

/// Something that the host must never do, or forgot to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostViolation {
    /// A private page was removed, relocated or demoted, or a Secure-EPT page removed, while a processor could
    /// still reach it: a TRACK or a kick is missing.
    StalePrivateTranslation(StaleTranslation),
    /// A page that the host frees is still mapped in a processor's TLB through the shared EPT: an INVEPT is
    /// missing.
    StaleSharedTranslation(StaleTranslation),
    /// A page changed its key while dirty lines of the old key were in a cache: a write-back is missing.
    DirtyLinesOfOldKey {
        /// The page.
        page: Hpa,
        /// The key whose lines were dirty.
        old: KeyId,
        /// The key that the page was taken for.
        new: KeyId,
    },
    /// The host wrote, under a shared key, a page that belongs to a TD or to the module.
    WriteToPrivatePage {
        /// The page.
        page: Hpa,
        /// The key that the page was held under.
        held_under: KeyId,
    },
}

impl fmt::Display for HostViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StalePrivateTranslation(t) => write!(
                f,
                "LP {} can still reach private page {} ({}, guest {}) after its removal: TRACK or kick missing",
                t.lp, t.hpa, t.level, t.gpa
            ),
            Self::StaleSharedTranslation(t) => write!(
                f,
                "LP {} still maps freed page {} ({}, guest {}) through the shared EPT: INVEPT missing",
                t.lp, t.hpa, t.level, t.gpa
            ),
            Self::DirtyLinesOfOldKey { page, old, new } => write!(
                f,
                "page {page} was taken for key {new} with dirty lines of key {old} in the caches: write-back missing"
            ),
            Self::WriteToPrivatePage { page, held_under } => {
                write!(f, "the host wrote page {page}, which is held under private key {held_under}")
            }
        }
    }
}

/// How many violations are kept; later ones are counted with the last kept one.
const KEPT: usize = 1024;

#[derive(Default)]
pub(super) struct ViolationLog(Mutex<Vec<HostViolation>>);

impl ViolationLog {
    /// One that is told twice in a row, by who stores and by memory itself, is one.
    pub(super) fn push(&self, violation: HostViolation) {
        let mut log = self.0.lock();
        if log.len() < KEPT && log.last() != Some(&violation) {
            log.push(violation);
        }
    }

    pub(super) fn all(&self) -> Vec<HostViolation> {
        self.0.lock().clone()
    }
}
