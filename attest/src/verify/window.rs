//! When all of the evidence is valid, and which piece ends first.

use super::{Item, VerifyError};
use crate::UnixSeconds;
use crate::time::Validity;

/// The common validity of everything that a verdict rests on.
///
/// Intel's library draws these dates from eight sources: both revocation lists, the chains of the PCK
/// list, the PCK, the TCB info and the QE identity, and the two JSON bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidityWindow {
    /// The oldest issue date of any source.
    pub earliest_issue: UnixSeconds,
    /// The newest issue date: before it the evidence did not exist as a whole.
    pub latest_issue: UnixSeconds,
    /// The first expiry.
    pub earliest_expiration: UnixSeconds,
    /// What expires first.
    pub expires_first: Item,
}

impl ValidityWindow {
    /// The window of `sources`, which must not be empty.
    pub(super) fn of(sources: &[(Item, Validity)]) -> Self {
        let mut window = Self {
            earliest_issue: UnixSeconds(u64::MAX),
            latest_issue: UnixSeconds(0),
            earliest_expiration: UnixSeconds(u64::MAX),
            expires_first: Item::Quote,
        };
        for (item, validity) in sources {
            window.earliest_issue = window.earliest_issue.min(validity.from);
            window.latest_issue = window.latest_issue.max(validity.from);
            if validity.until < window.earliest_expiration {
                window.earliest_expiration = validity.until;
                window.expires_first = *item;
            }
        }
        window
    }
}

/// Fails with the first source that is not valid at `at`. Both ends are inside.
pub(super) fn check(sources: &[(Item, Validity)], at: UnixSeconds) -> Result<(), VerifyError> {
    for (item, Validity { from, until }) in sources {
        if at < *from {
            return Err(VerifyError::NotYetValid { item: *item, from: *from });
        }
        if at > *until {
            return Err(VerifyError::Expired { item: *item, until: *until });
        }
    }
    Ok(())
}
