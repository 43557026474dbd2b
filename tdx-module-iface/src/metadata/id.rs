//! The 64-bit field identifier.

use core::fmt;

/// Whose field an identifier names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Context {
    /// The module.
    System = 0,
    /// A TD.
    Td = 1,
    /// A VCPU.
    Vcpu = 2,
}

/// How a sequence of elements advances (bit 50).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Increment {
    /// Element by element.
    Element,
    /// Field by field.
    Field,
}

/// A metadata field identifier.
///
/// | bits | meaning |
/// |---|---|
/// | 23:0 | field code: position of the element in its class |
/// | 33:32 | log2 of the element size in bytes |
/// | 37:34 | last element in field |
/// | 46:38 | last field in sequence |
/// | 50 | increment field by field |
/// | 51 | a write mask is present |
/// | 54:52 | context |
/// | 61:56 | class |
/// | 63 | not architectural (ignored by newer modules) |
///
/// Bits 31:24, 49:47, 55 and 62 are reserved.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct FieldId(pub u64);

impl FieldId {
    /// All ones: asks a read of version 1 for the first identifier of its context.
    pub const NULL: Self = Self(u64::MAX);

    /// Bits that must be zero.
    pub const RESERVED: u64 = 0xff << 24 | 7 << 47 | 1 << 55 | 1 << 62;

    /// Bits 23:0.
    pub const fn code(self) -> u32 {
        (self.0 & 0xff_ffff) as u32
    }

    /// The size of one element in bytes: 1, 2, 4 or 8.
    pub const fn element_bytes(self) -> u8 {
        1 << (self.0 >> 32 & 3)
    }

    /// Bits 37:34: number of elements in the field, minus one.
    pub const fn last_element(self) -> u8 {
        (self.0 >> 34 & 0xf) as u8
    }

    /// Bits 46:38: number of fields in the sequence, minus one.
    pub const fn last_field(self) -> u16 {
        (self.0 >> 38 & 0x1ff) as u16
    }

    /// Bit 50.
    pub const fn increment(self) -> Increment {
        if self.0 >> 50 & 1 == 0 { Increment::Element } else { Increment::Field }
    }

    /// Bit 51.
    pub const fn has_write_mask(self) -> bool {
        self.0 >> 51 & 1 != 0
    }

    /// Bits 54:52 as a number.
    pub const fn context_number(self) -> u8 {
        (self.0 >> 52 & 7) as u8
    }

    /// Bits 54:52, where they name a known context.
    pub const fn context(self) -> Option<Context> {
        match self.context_number() {
            0 => Some(Context::System),
            1 => Some(Context::Td),
            2 => Some(Context::Vcpu),
            _ => None,
        }
    }

    /// Bits 61:56.
    pub const fn class(self) -> u8 {
        (self.0 >> 56 & 0x3f) as u8
    }

    /// The reserved bits that are set; zero for a well-formed identifier.
    pub const fn reserved_bits(self) -> u64 {
        self.0 & Self::RESERVED
    }

    /// This identifier with another field code (24 bits).
    #[must_use]
    pub const fn with_code(self, code: u32) -> Self {
        Self(self.0 & !0xff_ffff | code as u64 & 0xff_ffff)
    }

    /// This identifier with bit 63 set: the form of a field that is not architectural.
    #[must_use]
    pub const fn not_architectural(self) -> Self {
        Self(self.0 | 1 << 63)
    }
}

impl fmt::Debug for FieldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FieldId({:#018x})", self.0)
    }
}

impl fmt::Display for FieldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_an_identifier_are_where_the_abi_says() {
        let mrtd = FieldId(0x1310_0003_0000_0000);
        assert_eq!(mrtd.class(), 19);
        assert_eq!(mrtd.context(), Some(Context::Td));
        assert_eq!(mrtd.element_bytes(), 8);
        assert_eq!(mrtd.code(), 0);
        let odd = FieldId(7 << 52 | 1 << 50 | 1 << 51 | 5 << 34 | 9 << 38 | 0x1234);
        assert_eq!(odd.context(), None);
        assert_eq!(odd.increment(), Increment::Field);
        assert!(odd.has_write_mask());
        assert_eq!((odd.last_element(), odd.last_field()), (5, 9));
        assert_eq!(odd.reserved_bits(), 0);
        assert_eq!(FieldId::NULL.reserved_bits(), FieldId::RESERVED);
        assert_eq!(odd.with_code(0x77).code(), 0x77);
    }
}
