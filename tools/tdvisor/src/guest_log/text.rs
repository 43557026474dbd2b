//! Messages as one line of text.
//!
//! A display hint holds for all that is nested in the value, until a nested format has one of its own; `:?` is no
//! notation, so numbers in a derived format follow the hint outside of it.
//!
//! The text is a guest's. It is cut off at [`MAX_TEXT`], and control characters are escaped, so that a guest can
//! neither forge a line nor command the terminal.

use std::fmt::{self, Write};

use defmt_parser::Type;

use super::format::{Hint, Notation, Pattern, Piece, Radix};
use super::value::{Nested, Undecodable, Value};

/// The longest text of one frame, bytes.
pub const MAX_TEXT: usize = 4096;

/// A line that grows up to [`MAX_TEXT`]; more is an error, which ends the writing.
#[derive(Debug, Default)]
pub struct Line {
    text: String,
}

impl Line {
    /// The text. One that reached the limit ends in an ellipsis.
    pub fn finish(mut self, written: fmt::Result) -> String {
        if written.is_err() {
            self.text.push('…');
        }
        self.text
    }

    fn push(&mut self, shown: char) -> fmt::Result {
        if self.text.len() + shown.len_utf8() > MAX_TEXT {
            return Err(fmt::Error);
        }
        self.text.push(shown);
        Ok(())
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for shown in text.chars() {
            if shown.is_control() {
                shown.escape_default().try_for_each(|escaped| self.push(escaped))?;
            } else {
                self.push(shown)?;
            }
        }
        Ok(())
    }
}

/// The hints that hold at some depth.
#[derive(Clone, Copy, Debug, Default)]
struct Style<'a> {
    /// Strings are shown in quotes.
    quoted: bool,
    notation: Option<&'a Notation>,
}

impl<'a> Style<'a> {
    fn with(self, hint: Option<&'a Hint>) -> Self {
        match hint {
            None => self,
            Some(Hint::Debug) => Self { quoted: true, ..self },
            Some(Hint::Number(notation)) => Self { quoted: false, notation: Some(notation) },
        }
    }
}

/// Writes a pattern with its arguments. The first argument that is not there ends the text, with the reason why it
/// is `missing`: what follows it on the wire cannot be found.
pub fn write_message(
    line: &mut Line,
    pattern: &Pattern,
    arguments: &[Value<'_>],
    missing: Option<Undecodable>,
) -> fmt::Result {
    for piece in &pattern.pieces {
        match piece {
            Piece::Literal(text) => line.write_str(text)?,
            Piece::Argument { index, ty, hint } => match arguments.get(*index) {
                Some(value) => write_value(line, value, ty, Style::default().with(hint.as_ref()))?,
                None => break,
            },
        }
    }
    match missing {
        Some(why) => write!(line, "<cannot decode: {why}>"),
        None => Ok(()),
    }
}

fn write_nested(line: &mut Line, nested: &Nested<'_>, style: Style<'_>) -> fmt::Result {
    for piece in &nested.pattern.pieces {
        match piece {
            Piece::Literal(text) => line.write_str(text)?,
            Piece::Argument { index, ty, hint } => {
                // Nested values are decoded whole or not at all, so each argument is there.
                if let Some(value) = nested.arguments.get(*index) {
                    write_value(line, value, ty, style.with(hint.as_ref()))?;
                }
            }
        }
    }
    Ok(())
}

fn write_value(line: &mut Line, value: &Value<'_>, ty: &Type, style: Style<'_>) -> fmt::Result {
    match value {
        Value::Bool(value) => write!(line, "{value}"),
        Value::Char(value) => line.write_char(*value),
        Value::F32(value) => write!(line, "{value:?}"),
        Value::F64(value) => write!(line, "{value:?}"),
        Value::Unsigned(sent) => match ty {
            Type::BitField(bits) => write_bits(line, *sent, bits.start.into(), bits.end.into(), style),
            _ => write_unsigned(line, *sent, style.notation),
        },
        Value::Signed { value, bits } => match style.notation {
            // Two's complement in the width of the type, as Rust's own formatting.
            Some(notation @ Notation::Radix { .. }) => {
                write_unsigned(line, value.cast_unsigned() & low_bits(*bits), Some(notation))
            }
            Some(Notation::Decimal { zero_pad }) => write!(line, "{value:0zero_pad$}"),
            _ => write!(line, "{value}"),
        },
        Value::Text(text) if style.quoted => write!(line, "{text:?}"),
        Value::Text(text) => line.write_str(text),
        Value::Bytes(bytes) => write_bytes(line, bytes, style.notation),
        Value::Nested(nested) => write_nested(line, nested, style),
        Value::Sequence(pieces) => pieces.iter().try_for_each(|piece| write_nested(line, piece, style)),
        Value::List(elements) => match bytes_of(elements) {
            Some(bytes) if style.notation == Some(&Notation::Ascii) => {
                write_bytes(line, &bytes, style.notation)
            }
            _ => write_list(line, elements, |line, element| write_nested(line, element, style)),
        },
    }
}

/// The elements as bytes, if each is a `u8`.
fn bytes_of(elements: &[Nested<'_>]) -> Option<Vec<u8>> {
    elements
        .iter()
        .map(|element| match element.arguments.as_slice() {
            [Value::Unsigned(value)] if element.pattern.is_byte() => u8::try_from(*value).ok(),
            _ => None,
        })
        .collect()
}

fn write_list<T>(
    line: &mut Line,
    elements: &[T],
    mut write_element: impl FnMut(&mut Line, &T) -> fmt::Result,
) -> fmt::Result {
    line.push('[')?;
    for (index, element) in elements.iter().enumerate() {
        if index != 0 {
            line.write_str(", ")?;
        }
        write_element(line, element)?;
    }
    line.push(']')
}

/// The bits `start..end` of what was sent.
fn write_bits(line: &mut Line, sent: u128, start: u32, end: u32, style: Style<'_>) -> fmt::Result {
    let width = end.saturating_sub(start);
    let value = sent.checked_shr(start).unwrap_or(0) & low_bits(width);
    if style.notation == Some(&Notation::Ascii) {
        let bytes = value.to_be_bytes();
        let shown = bytes.len().saturating_sub(width.div_ceil(8) as usize);
        return write_bytes(line, bytes.get(shown..).unwrap_or_default(), style.notation);
    }
    write_unsigned(line, value, style.notation)
}

/// A mask of this many low bits.
fn low_bits(count: u32) -> u128 {
    u128::MAX.checked_shr(u128::BITS.saturating_sub(count)).unwrap_or(0)
}

fn write_unsigned(line: &mut Line, value: u128, notation: Option<&Notation>) -> fmt::Result {
    match notation {
        Some(Notation::Decimal { zero_pad }) => write!(line, "{value:0zero_pad$}"),
        Some(Notation::Radix { radix, prefix, zero_pad }) => match (radix, prefix) {
            (Radix::Binary, false) => write!(line, "{value:0zero_pad$b}"),
            (Radix::Binary, true) => write!(line, "{value:#0zero_pad$b}"),
            (Radix::Octal, false) => write!(line, "{value:0zero_pad$o}"),
            (Radix::Octal, true) => write!(line, "{value:#0zero_pad$o}"),
            (Radix::LowerHex, false) => write!(line, "{value:0zero_pad$x}"),
            (Radix::LowerHex, true) => write!(line, "{value:#0zero_pad$x}"),
            (Radix::UpperHex, false) => write!(line, "{value:0zero_pad$X}"),
            (Radix::UpperHex, true) => write!(line, "{value:#0zero_pad$X}"),
        },
        Some(Notation::Seconds { digits }) => {
            let unit = 10_u128.pow(*digits);
            write!(line, "{}.{:0width$}", value / unit, value % unit, width = *digits as usize)
        }
        Some(Notation::Flags(name)) => write!(line, "{name}({value:#x})"),
        Some(Notation::Ascii) | None => write!(line, "{value}"),
    }
}

fn write_bytes(line: &mut Line, bytes: &[u8], notation: Option<&Notation>) -> fmt::Result {
    if notation == Some(&Notation::Ascii) {
        return write!(line, "b\"{}\"", bytes.escape_ascii());
    }
    write_list(line, bytes, |line, byte| write_unsigned(line, (*byte).into(), notation))
}
