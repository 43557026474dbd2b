//! One register value, read as what the leaf says it is.

use core::fmt;

use crate::handles::GpaLevel;
use crate::leaf::Kind;
use crate::metadata::{FieldId, find_in_context};
use crate::sept::{SeptEntry, SeptInfo};
use crate::tdmr::PageType;

/// A register value with its kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Value {
    /// How to read it.
    pub kind: Kind,
    /// The register's value.
    pub raw: u64,
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let raw = self.raw;
        match self.kind {
            Kind::Hpa | Kind::Gpa | Kind::Bits => write!(f, "{raw:#x}"),
            Kind::HpaAndFlags => {
                // Flags are bit 0 of a TDR operand and bits 52 and 53 of VP.ENTER's.
                let flags = raw & (0xfff | 0xfff << 52);
                write!(f, "{:#x}", raw & !flags)?;
                if flags != 0 { write!(f, " flags {flags:#x}") } else { Ok(()) }
            }
            Kind::OptionalHpa if raw == u64::MAX => f.write_str("none"),
            Kind::OptionalHpa if raw >> 63 != 0 => write!(f, "{:#x} (not used)", raw & !(1 << 63)),
            Kind::OptionalHpa => write!(f, "{raw:#x}"),
            Kind::GpaLevel => match GpaLevel::from_word(raw) {
                Some(entry) => write!(f, "{entry}"),
                None => write!(f, "{raw:#x} (not a valid gpa and level)"),
            },
            Kind::SeptEntry => {
                write!(f, "{raw:#x}")?;
                if raw & SeptEntry::LEAF != 0 {
                    write!(f, " (page {:#x})", raw & SeptEntry::HPA)
                } else {
                    Ok(())
                }
            }
            Kind::LevelState => {
                let info = SeptInfo { entry: 0, level_state: raw };
                match info.level() {
                    Some(level) => write!(f, "{level} {}", info.state_id()),
                    None => write!(f, "{raw:#x}"),
                }
            }
            Kind::Field(_) if raw == FieldId::NULL.0 => f.write_str("null"),
            Kind::Field(context) => {
                write!(f, "{raw:#x}")?;
                match find_in_context(context, FieldId(raw)) {
                    Some(found) if found.field.elements() == 1 || found.field.is_sparse() => {
                        write!(f, " ({})", found.field.name)
                    }
                    Some(found) => write!(f, " ({}[{}])", found.field.name, found.index),
                    None => f.write_str(" (unknown field)"),
                }
            }
            Kind::PageType => match u8::try_from(raw) {
                Ok(number) => write!(f, "{}", PageType(number)),
                Err(_) => write!(f, "{raw:#x}"),
            },
            Kind::PageSize => match u8::try_from(raw).ok().and_then(tdvisor_base::Level::from_index) {
                Some(level) => write!(f, "{level}"),
                None => write!(f, "{raw:#x}"),
            },
            Kind::KeyId | Kind::Number => write!(f, "{raw}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;
    use crate::metadata::Context;

    #[test]
    fn values_are_printed_as_what_they_are() {
        for (kind, raw, text) in [
            (Kind::GpaLevel, 0x8000_0001, "gpa 0x80000000 at 2M"),
            (Kind::GpaLevel, 0x8000_0005, "0x80000005 (not a valid gpa and level)"),
            (Kind::HpaAndFlags, 0x1_0020_0001, "0x100200000 flags 0x1"),
            (Kind::OptionalHpa, u64::MAX, "none"),
            (Kind::OptionalHpa, 0x8000_0001_0020_d000, "0x10020d000 (not used)"),
            (Kind::SeptEntry, 0x8000_0001_0020_d0f7, "0x800000010020d0f7 (page 0x10020d000)"),
            (Kind::LevelState, 0x8402, "1G NL_MAPPED"),
            (Kind::Field(Context::Td), 0x9010_0002_0000_0004, "0x9010000200000004 (OP_STATE)"),
            (Kind::Field(Context::Td), 0x1310_0003_0000_0046, "0x1310000300000046 (RTMR[6])"),
            (Kind::Field(Context::Td), u64::MAX, "null"),
            (Kind::PageType, 8, "EPT"),
            (Kind::PageSize, 1, "2M"),
            (Kind::KeyId, 33, "33"),
        ] {
            assert_eq!(Value { kind, raw }.to_string(), text);
        }
    }
}
