//! Format strings: what follows an index in a frame, and how it is shown.
//!
//! `defmt-parser` reads the grammar of one format string. This module adds what the wire needs:
//!
//! - the arguments in the order of their indices, each sent once, however often the text shows it;
//! - bit fields of one argument sent together: the bytes from the lowest to the highest bit that is shown;
//! - the variants of an enum, whose texts stand in one string with `|` between them.

use defmt_parser::{DisplayHint, Fragment, ParserMode, TimePrecision, Type};

/// The longest format string that is read, bytes.
pub const MAX_FORMAT: usize = 4096;
/// The widest number that zeros fill up: 128 bits in binary with their prefix.
const MAX_ZERO_PAD: usize = 130;
/// The most digits that the index of an argument may have.
const MAX_INDEX_DIGITS: usize = 3;

/// Whether `|` separates variants in a format string: only the strings that `defmt` derives say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alternatives {
    /// A log statement's or `write!`'s string.
    None,
    /// A derived string, or one of `defmt`'s own types.
    Variants,
}

/// The format of a value or of a message.
#[derive(Debug)]
pub struct Format {
    /// One pattern, or one for each variant of an enum. Never empty.
    patterns: Vec<Pattern>,
}

/// One text with its arguments.
#[derive(Debug)]
pub struct Pattern {
    /// What the text is made of, in its order.
    pub pieces: Vec<Piece>,
    /// The types of the arguments, in the order of their indices, which is the order on the wire.
    pub arguments: Vec<Type>,
}

/// A part of a [`Pattern`].
#[derive(Debug)]
pub enum Piece {
    /// Text.
    Literal(String),
    /// An argument.
    Argument {
        /// Which one, an index of [`Pattern::arguments`].
        index: usize,
        /// The argument's type, which for a bit field is the part to show.
        ty: Type,
        /// How to show it, if the string says so.
        hint: Option<Hint>,
    },
}

/// How to show an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// `:?`: strings in quotes, numbers as the outer hint says.
    Debug,
    /// Numbers in this notation.
    Number(Notation),
}

/// How to write numbers, and bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notation {
    /// Decimal, filled up with zeros to so many digits.
    Decimal {
        /// Least number of digits.
        zero_pad: usize,
    },
    /// In another base.
    Radix {
        /// The base.
        radix: Radix,
        /// `0x`, `0o` or `0b` before it.
        prefix: bool,
        /// Least number of characters, with the prefix.
        zero_pad: usize,
    },
    /// Bytes as the text of a byte string.
    Ascii,
    /// Fractions of a second, as seconds.
    Seconds {
        /// Digits after the point: 3 for milliseconds, 6 for microseconds.
        digits: u32,
    },
    /// The bits of a `defmt::bitflags!` type of this name.
    Flags(Box<str>),
}

/// A base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Radix {
    /// Base 2.
    Binary,
    /// Base 8.
    Octal,
    /// Base 16, small letters.
    LowerHex,
    /// Base 16, capital letters.
    UpperHex,
}

/// A format string that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadFormat;

impl Format {
    /// Reads a format string.
    pub fn parse(text: &str, alternatives: Alternatives) -> Result<Self, BadFormat> {
        if text.len() > MAX_FORMAT {
            return Err(BadFormat);
        }
        let patterns = match alternatives {
            Alternatives::None => vec![Pattern::parse(text)?],
            Alternatives::Variants => text.split('|').map(Pattern::parse).collect::<Result<_, _>>()?,
        };
        Ok(Self { patterns })
    }

    /// How many bytes the discriminant has: none for a single pattern.
    pub fn discriminant_bytes(&self) -> usize {
        match self.patterns.len() {
            0..=1 => 0,
            2..=0xFF => 1,
            0x100..=0xFFFF => 2,
            _ => 4,
        }
    }

    /// The pattern of this discriminant.
    pub fn variant(&self, discriminant: u128) -> Option<&Pattern> {
        self.patterns.get(usize::try_from(discriminant).ok()?)
    }

    /// How many pieces this takes in memory.
    pub fn size(&self) -> usize {
        self.patterns.iter().map(|pattern| 1 + pattern.pieces.len() + pattern.arguments.len()).sum()
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, BadFormat> {
        check_indices(text)?;
        let fragments = defmt_parser::parse(text, ParserMode::ForwardsCompatible).map_err(|_| BadFormat)?;
        let mut arguments: Vec<Option<Type>> = Vec::new();
        let mut pieces = Vec::with_capacity(fragments.len());
        for fragment in fragments {
            pieces.push(match fragment {
                Fragment::Literal(text) => Piece::Literal(text.into_owned()),
                Fragment::Parameter(parameter) => {
                    let (index, ty) = (parameter.index, parameter.ty);
                    if arguments.len() <= index {
                        arguments.resize(index + 1, None);
                    }
                    let argument = arguments.get_mut(index).ok_or(BadFormat)?;
                    *argument = Some(match (argument.take(), &ty) {
                        (Some(Type::BitField(sent)), Type::BitField(shown)) => {
                            Type::BitField(sent.start.min(shown.start)..sent.end.max(shown.end))
                        }
                        _ => ty.clone(),
                    });
                    Piece::Argument { index, ty, hint: parameter.hint.and_then(hint) }
                }
            });
        }
        let arguments = arguments.into_iter().collect::<Option<_>>().ok_or(BadFormat)?;
        Ok(Self { pieces, arguments })
    }

    /// Whether this is nothing but one byte, `{=u8}`.
    pub fn is_byte(&self) -> bool {
        matches!(self.pieces.as_slice(), [Piece::Argument { ty: Type::U8, .. }])
    }
}

/// Refuses arguments with large indices: the parser allocates for all up to the largest.
fn check_indices(text: &str) -> Result<(), BadFormat> {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('{') {
        if let Some(after_escape) = after.strip_prefix('{') {
            rest = after_escape;
            continue;
        }
        rest = after;
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        if digits > MAX_INDEX_DIGITS {
            return Err(BadFormat);
        }
    }
    Ok(())
}

/// The hint in our terms; none for what only other tools show, which leaves the plain value.
fn hint(hint: DisplayHint) -> Option<Hint> {
    let radix = |radix, prefix, zero_pad: usize| Notation::Radix {
        radix,
        prefix,
        zero_pad: zero_pad.min(MAX_ZERO_PAD),
    };
    Some(Hint::Number(match hint {
        DisplayHint::Debug => return Some(Hint::Debug),
        DisplayHint::NoHint { zero_pad } => Notation::Decimal { zero_pad: zero_pad.min(MAX_ZERO_PAD) },
        DisplayHint::Hexadecimal { alternate, uppercase: false, zero_pad } => {
            radix(Radix::LowerHex, alternate, zero_pad)
        }
        DisplayHint::Hexadecimal { alternate, uppercase: true, zero_pad } => {
            radix(Radix::UpperHex, alternate, zero_pad)
        }
        DisplayHint::Octal { alternate, zero_pad } => radix(Radix::Octal, alternate, zero_pad),
        DisplayHint::Binary { alternate, zero_pad } => radix(Radix::Binary, alternate, zero_pad),
        DisplayHint::Ascii => Notation::Ascii,
        DisplayHint::Seconds(TimePrecision::Millis) => Notation::Seconds { digits: 3 },
        DisplayHint::Seconds(TimePrecision::Micros) => Notation::Seconds { digits: 6 },
        DisplayHint::Bitflags { name, .. } => Notation::Flags(name.into()),
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(text: &str) -> Vec<Type> {
        let format = Format::parse(text, Alternatives::None).expect("the format string is good");
        format.variant(0).expect("there is one pattern").arguments.clone()
    }

    #[test]
    fn arguments_are_sent_once_and_in_the_order_of_their_indices() {
        assert_eq!(arguments("{1=u8} {0=bool} {1=u8}"), [Type::Bool, Type::U8]);
        assert_eq!(arguments("{{0}} {}"), [Type::Format]);
    }

    #[test]
    fn bit_fields_of_one_argument_are_sent_together() {
        assert_eq!(arguments("{0=9..14} {1=u8} {0=0..3}"), [Type::BitField(0..14), Type::U8]);
    }

    #[test]
    fn only_derived_strings_have_variants() {
        let derived = Format::parse("None|Some({=?})", Alternatives::Variants).expect("a good string");
        assert_eq!(derived.discriminant_bytes(), 1);
        assert_eq!(derived.variant(1).map(|pattern| pattern.arguments.len()), Some(1));
        assert!(derived.variant(2).is_none());
        let written = Format::parse("a|b {=u8}", Alternatives::None).expect("a good string");
        assert_eq!(written.discriminant_bytes(), 0);
    }

    #[test]
    fn the_discriminant_is_as_wide_as_the_number_of_variants_needs() {
        let bytes = |variants: usize| {
            let text = vec!["A"; variants].join("|");
            Format::parse(&text, Alternatives::Variants).map(|format| format.discriminant_bytes())
        };
        assert_eq!(bytes(1), Ok(0));
        assert_eq!(bytes(255), Ok(1));
        // The encoder goes by the number of variants, not by the largest discriminant.
        assert_eq!(bytes(256), Ok(2));
    }

    #[test]
    fn strings_made_to_exhaust_memory_are_refused() {
        for text in ["{18446744073709551615=u8}", "{99999999=u8}", "{1=u8}", "{", "{=u9}", "{=u8"] {
            assert_eq!(Format::parse(text, Alternatives::None).err(), Some(BadFormat), "{text}");
        }
        assert!(Format::parse(&"x".repeat(MAX_FORMAT + 1), Alternatives::None).is_err());
        assert!(Format::parse("{{99999999}} is text", Alternatives::None).is_ok());
        let padded = Format::parse("{=u8:099999999x}", Alternatives::None).expect("a good string");
        assert!(matches!(
            padded.variant(0).map(|pattern| pattern.pieces.as_slice()),
            Some([Piece::Argument { hint: Some(Hint::Number(Notation::Radix { zero_pad: 130, .. })), .. }])
        ));
    }
}
