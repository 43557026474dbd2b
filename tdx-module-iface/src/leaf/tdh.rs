//! The leaves of SEAMCALL, by family.

mod mem;
mod migration;
mod mng;
mod phymem;
mod servtd;
mod sys;
mod vp;

use super::number::leaf_number;
use super::{LeafInfo, gather};

leaf_number! {
    /// A host-side leaf number (RAX bits 15:0 of a SEAMCALL).
    pub struct TdhLeaf of TABLE;
}

const FAMILIES: &[&[LeafInfo]] =
    &[vp::ROWS, mng::ROWS, mem::ROWS, sys::ROWS, phymem::ROWS, servtd::ROWS, migration::ROWS];

/// Every known leaf, by number.
pub(super) const TABLE: &[LeafInfo] = &gather::<{ super::count(FAMILIES) }>(FAMILIES);
