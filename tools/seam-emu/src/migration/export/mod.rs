//! TDH.EXPORT.*: a TD leaves.

pub(crate) mod abort;
pub(crate) mod blockw;
pub(crate) mod immutable;
pub(crate) mod mem;
pub(crate) mod page;
pub(crate) mod pause;
pub(crate) mod restore;
mod state;
pub(crate) mod td;
pub(crate) mod track;
pub(crate) mod unblockw;
pub(crate) mod vp;
