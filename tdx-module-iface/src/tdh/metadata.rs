//! What the RD and WR leaves of modules, TDs and VCPUs have in common.

use super::{Answer, issue};
use crate::leaf::TdhLeaf;
use crate::metadata::FieldId;
use crate::outcome::SeamError;
use crate::regs::{Gprs, SeamCall};
use crate::status::StatusCode;

/// What reading with iteration returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetadataStep {
    /// The identifier was [`FieldId::NULL`]: this is the first one.
    First(FieldId),
    /// The value, and the next identifier ([`FieldId::NULL`] at the end).
    Value {
        /// The element's value.
        value: u64,
        /// The identifier of the next readable element.
        next: FieldId,
    },
}

/// A value with the bits of it that shall be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FieldWrite {
    /// The new value.
    pub value: u64,
    /// The bits to write; the others keep their value.
    pub mask: u64,
}

impl FieldWrite {
    /// All bits.
    pub const fn all(value: u64) -> Self {
        Self { value, mask: u64::MAX }
    }
}

/// Reads one element; `object` is RCX.
pub(super) fn read<S>(lp: &mut S, leaf: TdhLeaf, object: u64, field: FieldId) -> Result<u64, SeamError>
where
    S: SeamCall + ?Sized,
{
    let gprs = Gprs { rcx: object, rdx: field.0, ..Gprs::ZERO };
    Ok(issue(lp, leaf, leaf.word(), gprs)?.plain()?.r8)
}

/// Turns the answer of an iterating read into a step.
pub(super) fn step(answer: Answer) -> Result<MetadataStep, SeamError> {
    if answer.is(StatusCode::METADATA_FIRST_FIELD_ID_IN_CONTEXT) {
        return Ok(MetadataStep::First(FieldId(answer.gprs.rdx)));
    }
    answer.plain().map(|gprs| MetadataStep::Value { value: gprs.r8, next: FieldId(gprs.rdx) })
}

/// Reads one element and learns the next identifier; `object` is RCX.
pub(super) fn read_next<S>(
    lp: &mut S,
    leaf: TdhLeaf,
    object: u64,
    field: FieldId,
) -> Result<MetadataStep, SeamError>
where
    S: SeamCall + ?Sized,
{
    let gprs = Gprs { rcx: object, rdx: field.0, ..Gprs::ZERO };
    step(issue(lp, leaf, leaf.word_version(1), gprs)?)
}

/// Writes one element and returns the old value; `object` is RCX.
pub(super) fn write<S>(
    lp: &mut S,
    leaf: TdhLeaf,
    object: u64,
    field: FieldId,
    write: FieldWrite,
) -> Result<u64, SeamError>
where
    S: SeamCall + ?Sized,
{
    let gprs = Gprs { rcx: object, rdx: field.0, r8: write.value, r9: write.mask, ..Gprs::ZERO };
    Ok(issue(lp, leaf, leaf.word(), gprs)?.plain()?.r8)
}
