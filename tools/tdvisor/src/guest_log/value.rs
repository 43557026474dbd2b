//! The arguments of a message, out of the bytes of a frame.
//!
//! Nothing on the wire says what it is: the format string does. Integers are little-endian and of their type's
//! width, `usize` and `isize` have 32 bits whatever the guest, lengths have 32 bits, and indices of strings 16. A
//! nested value is preceded by the index of its format; the elements of a slice share one.
//! (Source: `defmt` 1.2, `export` and `impls`.)
//!
//! The bytes come from a guest. Each step takes from a fixed budget, because a value may take no byte at all: a
//! slice of a thousand million `()` is six bytes long.

use std::fmt;

use defmt_parser::Type;

use super::format::{Format, Pattern};
use super::table::{Purpose, Table};

/// How deep values may be nested.
const MAX_DEPTH: usize = 16;
/// How many values one frame may have, all levels together.
const MAX_VALUES: usize = 4096;
/// Ends a text that has no length before it; it is no byte of UTF-8.
const END_OF_TEXT: u8 = 0xFF;

/// One argument.
#[derive(Debug)]
pub enum Value<'a> {
    /// A `bool`.
    Bool(bool),
    /// An unsigned integer, or the part of one that bit fields show.
    Unsigned(u128),
    /// A signed integer.
    Signed {
        /// The number's value.
        value: i128,
        /// The width of its type.
        bits: u32,
    },
    /// An `f32`.
    F32(f32),
    /// An `f64`.
    F64(f64),
    /// A `char`.
    Char(char),
    /// A text, sent or interned.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A value with a format of its own.
    Nested(Nested<'a>),
    /// The elements of a slice or an array.
    List(Vec<Nested<'a>>),
    /// What a hand-written `Format` wrote, piece by piece.
    Sequence(Vec<Nested<'a>>),
}

/// A format with its arguments.
#[derive(Debug)]
pub struct Nested<'a> {
    /// The format, for an enum that of its variant.
    pub pattern: &'a Pattern,
    /// The arguments of the pattern, in the order of [`Pattern::arguments`].
    pub arguments: Vec<Value<'a>>,
}

/// Why a value cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undecodable {
    /// The frame ends inside of it.
    Truncated,
    /// The table has no format of this index.
    UnknownFormat(u16),
    /// The table has no string of this index.
    UnknownString(u16),
    /// The enum has no variant of this number.
    UnknownVariant(u128),
    /// A `bool` that is neither 0 nor 1.
    Bool(u8),
    /// No Unicode character.
    Char(u32),
    /// A text that is not UTF-8.
    Text,
    /// Nested too deep.
    Depth,
    /// More values than a frame may have.
    Values,
}

impl fmt::Display for Undecodable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => out.write_str("the frame is too short"),
            Self::UnknownFormat(index) => write!(out, "no format {index}"),
            Self::UnknownString(index) => write!(out, "no string {index}"),
            Self::UnknownVariant(number) => write!(out, "no variant {number}"),
            Self::Bool(byte) => write!(out, "bool {byte}"),
            Self::Char(code) => write!(out, "char {code:#x}"),
            Self::Text => out.write_str("the text is not UTF-8"),
            Self::Depth => write!(out, "nested deeper than {MAX_DEPTH}"),
            Self::Values => write!(out, "more than {MAX_VALUES} values"),
        }
    }
}

/// Reads values from the rest of a frame.
#[derive(Debug)]
pub struct Reader<'a> {
    table: &'a Table,
    bytes: &'a [u8],
    values_left: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    /// A reader of these bytes.
    pub fn new(table: &'a Table, bytes: &'a [u8]) -> Self {
        Self { table, bytes, values_left: MAX_VALUES, depth: 0 }
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// The index of a string.
    pub fn index(&mut self) -> Result<u16, Undecodable> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// The arguments of a pattern, up to the first that cannot be decoded, and why that cannot.
    pub fn arguments(&mut self, pattern: &'a Pattern) -> (Vec<Value<'a>>, Option<Undecodable>) {
        let mut arguments = Vec::with_capacity(pattern.arguments.len().min(MAX_VALUES));
        for ty in &pattern.arguments {
            match self.value(ty) {
                Ok(value) => arguments.push(value),
                Err(undecodable) => return (arguments, Some(undecodable)),
            }
        }
        (arguments, None)
    }

    fn value(&mut self, ty: &Type) -> Result<Value<'a>, Undecodable> {
        self.count()?;
        Ok(match ty {
            Type::Bool => match self.array()? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [byte] => return Err(Undecodable::Bool(byte)),
            },
            Type::U8 => Value::Unsigned(self.unsigned(1)?),
            Type::U16 => Value::Unsigned(self.unsigned(2)?),
            Type::U32 | Type::Usize => Value::Unsigned(self.unsigned(4)?),
            Type::U64 => Value::Unsigned(self.unsigned(8)?),
            Type::U128 => Value::Unsigned(self.unsigned(16)?),
            Type::I8 => self.signed(i8::from_le_bytes, i8::BITS)?,
            Type::I16 => self.signed(i16::from_le_bytes, i16::BITS)?,
            Type::I32 | Type::Isize => self.signed(i32::from_le_bytes, i32::BITS)?,
            Type::I64 => self.signed(i64::from_le_bytes, i64::BITS)?,
            Type::I128 => self.signed(i128::from_le_bytes, i128::BITS)?,
            Type::F32 => Value::F32(f32::from_le_bytes(self.array()?)),
            Type::F64 => Value::F64(f64::from_le_bytes(self.array()?)),
            Type::Char => {
                let code = u32::from_le_bytes(self.array()?);
                Value::Char(char::from_u32(code).ok_or(Undecodable::Char(code))?)
            }
            Type::BitField(bits) => {
                // Whole bytes from the lowest to the highest bit, as the next larger integer.
                let lowest = usize::from(bits.start / 8);
                let bytes = usize::from(bits.end.div_ceil(8)).saturating_sub(lowest);
                let sent = self.unsigned(bytes.next_power_of_two())?;
                Value::Unsigned(sent.checked_shl(lowest as u32 * 8).unwrap_or(0))
            }
            Type::Str => {
                let len = self.length()?;
                Value::Text(text(self.take(len)?)?)
            }
            Type::IStr => {
                let index = self.index()?;
                match self.table.entry(index) {
                    Some(entry) => Value::Text(&entry.text),
                    None => return Err(Undecodable::UnknownString(index)),
                }
            }
            Type::Debug | Type::Display => Value::Text(self.unsized_text()?),
            Type::U8Slice => {
                let len = self.length()?;
                Value::Bytes(self.take(len)?)
            }
            Type::U8Array(len) => Value::Bytes(self.take(*len)?),
            Type::Format => {
                let format = self.format()?;
                Value::Nested(self.nested(format)?)
            }
            Type::FormatSlice => {
                let len = self.length()?;
                self.list(len)?
            }
            Type::FormatArray(len) => self.list(*len)?,
            Type::FormatSequence => self.sequence()?,
        })
    }

    /// Elements of one format.
    fn list(&mut self, len: usize) -> Result<Value<'a>, Undecodable> {
        let format = self.format()?;
        let mut elements = Vec::new();
        for _ in 0..len {
            elements.push(self.nested(format)?);
        }
        Ok(Value::List(elements))
    }

    /// Values with a format each, up to the index that no string has.
    fn sequence(&mut self) -> Result<Value<'a>, Undecodable> {
        let mut pieces = Vec::new();
        loop {
            match self.index()? {
                0 => return Ok(Value::Sequence(pieces)),
                index => {
                    let format = self.format_of(index)?;
                    pieces.push(self.nested(format)?);
                }
            }
        }
    }

    /// A value of this format: its discriminant, if it is an enum, and its arguments.
    fn nested(&mut self, format: &'a Format) -> Result<Nested<'a>, Undecodable> {
        self.count()?;
        if self.depth == MAX_DEPTH {
            return Err(Undecodable::Depth);
        }
        let discriminant = self.unsigned(format.discriminant_bytes())?;
        let pattern = format.variant(discriminant).ok_or(Undecodable::UnknownVariant(discriminant))?;
        self.depth += 1;
        let decoded = self.arguments(pattern);
        self.depth -= 1;
        match decoded {
            (arguments, None) => Ok(Nested { pattern, arguments }),
            (_, Some(undecodable)) => Err(undecodable),
        }
    }

    fn format(&mut self) -> Result<&'a Format, Undecodable> {
        let index = self.index()?;
        self.format_of(index)
    }

    fn format_of(&self, index: u16) -> Result<&'a Format, Undecodable> {
        match self.table.entry(index) {
            Some(entry) if entry.purpose == Purpose::Value => entry.format.as_ref(),
            _ => None,
        }
        .ok_or(Undecodable::UnknownFormat(index))
    }

    fn unsized_text(&mut self) -> Result<&'a str, Undecodable> {
        let len = self.bytes.iter().position(|byte| *byte == END_OF_TEXT).ok_or(Undecodable::Truncated)?;
        let text = text(self.take(len)?)?;
        self.take(1)?;
        Ok(text)
    }

    fn length(&mut self) -> Result<usize, Undecodable> {
        // What does not fit is longer than any frame.
        usize::try_from(u32::from_le_bytes(self.array()?)).map_err(|_| Undecodable::Truncated)
    }

    fn unsigned(&mut self, bytes: usize) -> Result<u128, Undecodable> {
        Ok(self.take(bytes)?.iter().rev().fold(0, |value, byte| value << 8 | u128::from(*byte)))
    }

    fn signed<const N: usize, T: Into<i128>>(
        &mut self,
        decode: fn([u8; N]) -> T,
        bits: u32,
    ) -> Result<Value<'a>, Undecodable> {
        Ok(Value::Signed { value: decode(self.array()?).into(), bits })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Undecodable> {
        let (array, rest) = self.bytes.split_first_chunk().ok_or(Undecodable::Truncated)?;
        self.bytes = rest;
        Ok(*array)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Undecodable> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or(Undecodable::Truncated)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn count(&mut self) -> Result<(), Undecodable> {
        self.values_left = self.values_left.checked_sub(1).ok_or(Undecodable::Values)?;
        Ok(())
    }
}

fn text(bytes: &[u8]) -> Result<&str, Undecodable> {
    std::str::from_utf8(bytes).map_err(|_| Undecodable::Text)
}
