//! TDH.IMPORT.*: a TD arrives.
//!
//! # Protocol
//! An error in what came from the sender ends the import, and with it the TD: its OP_STATE is FAILED_IMPORT then, and
//! the status has bit 61. What is wrong with the host's own operands does not, as long as nothing has been taken.

pub(crate) mod abort;
pub(crate) mod end;
pub(crate) mod immutable;
mod list;
pub(crate) mod mem;
mod page;
mod state;
pub(crate) mod td;
mod td_fields;
#[cfg(test)]
mod tests;
pub(crate) mod track;
pub(crate) mod vp;
mod vp_fields;
