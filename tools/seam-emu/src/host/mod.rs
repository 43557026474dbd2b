//! SEAMCALL: dispatch, and the leaves that the host calls.
//!
//! # Protocol
//! A leaf gets the registers, changes those that it documents as outputs, and gives a status, which dispatch
//! puts into RAX. Everything else keeps its input value. Checks stand in the order in which the module makes
//! them (held by the recordings); whatever a leaf locked is let go when it returns.

mod dispatch;
mod leaves;
pub(crate) mod mem;
mod memory;
mod mng;
mod mr;
pub(crate) mod phymem;
pub(crate) mod steps;
mod sys;
pub(crate) mod vp;

pub(crate) use dispatch::dispatch;
pub(crate) use leaves::LEAVES;

use tdx_module_iface::{Operand, Status, StatusCode};

use crate::machine::Machine;

/// One SEAMCALL under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'m> {
    pub(crate) machine: &'m Machine,
    pub(crate) lp: usize,
}

/// How a step of a leaf ends: with what it found, or with the status that ends the leaf. Codes that are no
/// errors (GPA_RANGE_ALREADY_BLOCKED and its like) end a leaf in the same way.
pub(crate) type Step<T = ()> = Result<T, Status>;

/// A code with the operand that it names.
pub(crate) const fn at(code: StatusCode, operand: Operand) -> Status {
    Status::with_operand(code, operand)
}

/// OPERAND_INVALID.
pub(crate) const fn invalid(operand: Operand) -> Status {
    at(StatusCode::OPERAND_INVALID, operand)
}

/// OPERAND_BUSY.
pub(crate) const fn busy(operand: Operand) -> Status {
    at(StatusCode::OPERAND_BUSY, operand)
}

/// A code without details.
pub(crate) const fn plain(code: StatusCode) -> Status {
    Status::new(code)
}
