//! TCB levels as every part of collateral writes them: a version, and what was said of it when.

use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::Deserialize;

use super::json::{self, Text};
use super::{CollateralError, Part, TcbStatus};
use crate::UnixSeconds;

/// A level whose version is a `T`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "T: Deserialize<'de>"))]
pub(super) struct RawLevel<'a, T> {
    pub(super) tcb: T,
    #[serde(borrow)]
    tcb_date: Text<'a>,
    #[serde(borrow)]
    tcb_status: Text<'a>,
    #[serde(borrow, rename = "advisoryIDs", default)]
    advisory_ids: Vec<Text<'a>>,
}

/// The version of an enclave or a TDX module.
#[derive(Deserialize)]
pub(super) struct IsvSvn {
    pub(super) isvsvn: u32,
}

impl<T> RawLevel<'_, T> {
    /// tcbDate.
    pub(super) fn date(&self, part: Part, field: &'static str) -> Result<UnixSeconds, CollateralError> {
        self.tcb_date.date(part, field)
    }

    /// tcbStatus; `None` for a name that is not known.
    pub(super) fn status(&self) -> Option<TcbStatus> {
        TcbStatus::from_name(self.tcb_status.as_str())
    }

    /// tcbStatus, which must be one that collateral gives to a platform.
    pub(super) fn known_status(&self, part: Part) -> Result<TcbStatus, CollateralError> {
        self.status()
            .filter(|status| status.is_of_platform())
            .ok_or(CollateralError::Field { part, field: "tcbStatus" })
    }

    /// advisoryIDs.
    pub(super) fn advisories(&self) -> Vec<Arc<str>> {
        json::advisories(&self.advisory_ids)
    }
}

/// Puts levels into the order in which they are tried, the highest first.
///
/// # Errors
/// No level, and two of the same version: which of them holds would depend on the order in the text.
pub(super) fn highest_first<L, K: Ord>(
    mut levels: Vec<L>,
    key: impl Fn(&L) -> K,
    part: Part,
    field: &'static str,
) -> Result<Vec<L>, CollateralError> {
    if levels.is_empty() {
        return Err(CollateralError::Field { part, field });
    }
    levels.sort_by_key(|level| core::cmp::Reverse(key(level)));
    if levels.windows(2).any(|pair| matches!(pair, [a, b] if key(a) == key(b))) {
        return Err(CollateralError::DuplicateLevel(part));
    }
    Ok(levels)
}
