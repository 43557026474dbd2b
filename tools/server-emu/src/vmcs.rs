//! VMCS regions as a plain store: what VMWRITE put into a field, VMREAD gives back, and nothing acts on it.
//!
//! A field lives in the region itself, in memory, at a place that follows from its encoding; software may not look
//! there, and a hypervisor that moves a VMCS to another processor finds its fields as it left them. Fields exist up to
//! the index that IA32_VMX_VMCS_ENUM names. Encodings: SDM volume 3, "VMCS Component Encoding".

use seam_emu::Machine;
use tdvisor_base::Hpa;

/// What the first word of every region has to be (IA32_VMX_BASIC bits 30:0).
pub(crate) const REVISION: u32 = 1;
/// The highest index of a field (IA32_VMX_VMCS_ENUM bits 9:1).
pub(crate) const HIGHEST_INDEX: u64 = 23;

/// The first field, behind revision and abort indicator.
const FIELDS: u64 = 16;
const FIELD_BYTES: u64 = 8;

/// How wide a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    Bits16,
    Bits64,
    /// The upper half of a 64-bit field, as a field of its own.
    Upper32,
    Bits32,
    Natural,
}

/// A field of a VMCS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    offset: u64,
    width: Width,
    read_only: bool,
}

/// VM-instruction error.
pub(crate) const INSTRUCTION_ERROR: u64 = 0x4400;

impl Field {
    /// The field with this encoding, if there is one.
    pub(crate) fn from_encoding(encoding: u64) -> Option<Self> {
        const KINDS: u64 = 4;
        const READ_ONLY: u64 = 1;
        let (upper, index, kind, width) =
            (encoding & 1 != 0, encoding >> 1 & 0x1ff, encoding >> 10 & 3, encoding >> 13 & 3);
        if encoding >> 15 != 0 || encoding & 1 << 12 != 0 || index > HIGHEST_INDEX {
            return None;
        }
        let slot = (width * KINDS + kind) * (HIGHEST_INDEX + 1) + index;
        let width = match (width, upper) {
            (0, false) => Width::Bits16,
            (1, false) => Width::Bits64,
            (1, true) => Width::Upper32,
            (2, false) => Width::Bits32,
            (3, false) => Width::Natural,
            _ => return None,
        };
        Some(Self { offset: FIELDS + slot * FIELD_BYTES, width, read_only: kind == READ_ONLY })
    }

    /// Whether VMWRITE refuses it (IA32_VMX_MISC bit 29 is 0).
    pub(crate) const fn is_read_only(self) -> bool {
        self.read_only
    }

    /// What the field gives of the 64 bits in its place.
    const fn of_place(self, place: u64) -> u64 {
        match self.width {
            Width::Bits16 => place & 0xffff,
            Width::Bits32 => place & 0xffff_ffff,
            Width::Upper32 => place >> 32,
            Width::Bits64 | Width::Natural => place,
        }
    }

    /// The 64 bits in its place with the field set.
    const fn in_place(self, place: u64, value: u64) -> u64 {
        match self.width {
            Width::Bits16 => value & 0xffff,
            Width::Bits32 => value & 0xffff_ffff,
            Width::Upper32 => place & 0xffff_ffff | value << 32,
            Width::Bits64 | Width::Natural => value,
        }
    }
}

/// A region that lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region(pub(crate) Hpa);

impl Region {
    /// The revision that software wrote.
    pub(crate) fn revision(self, machine: &Machine) -> u32 {
        let mut word = [0; 4];
        // A region is memory: where its page cannot be read, it has no revision that fits either.
        let _ = machine.host_read(self.0, &mut word);
        u32::from_le_bytes(word)
    }

    fn place(self, machine: &Machine, field: Field) -> u64 {
        let mut bytes = [0; FIELD_BYTES as usize];
        let _ = machine.host_read(self.0.wrapping_add(field.offset), &mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// VMREAD.
    pub(crate) fn read(self, machine: &Machine, field: Field) -> u64 {
        field.of_place(self.place(machine, field))
    }

    /// VMWRITE.
    pub(crate) fn write(self, machine: &Machine, field: Field, value: u64) {
        let place = field.in_place(self.place(machine, field), value);
        let _ = machine.host_write(self.0.wrapping_add(field.offset), &place.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn fields() -> impl Iterator<Item = (u64, Field)> {
        (0..=0xffff).filter_map(|encoding| Some((encoding, Field::from_encoding(encoding)?)))
    }

    #[test]
    fn every_field_has_a_place_of_its_own_within_the_region() {
        let mut places = BTreeSet::new();
        for (encoding, field) in fields().filter(|(_, field)| field.width != Width::Upper32) {
            assert!(field.offset >= FIELDS && field.offset + FIELD_BYTES <= 4096, "{encoding:#x}");
            assert!(places.insert(field.offset), "{encoding:#x}");
        }
    }

    #[test]
    fn a_field_gives_back_what_was_written_as_far_as_it_is_wide() {
        for (encoding, mask) in
            [(0x0002, 0xffff), (0x4002, 0xffff_ffff), (0x2010, u64::MAX), (0x6800, u64::MAX)]
        {
            let field = Field::from_encoding(encoding).unwrap();
            assert_eq!(field.of_place(field.in_place(7, u64::MAX)), mask, "{encoding:#x}");
        }
        let (whole, upper) = (Field::from_encoding(0x2010).unwrap(), Field::from_encoding(0x2011).unwrap());
        assert_eq!(whole.offset, upper.offset);
        assert_eq!(upper.in_place(0x1_0000_0002, 5), 0x5_0000_0002);
        assert_eq!(upper.of_place(0x5_0000_0002), 5);
    }

    #[test]
    fn encodings_with_reserved_bits_or_beyond_the_highest_index_name_nothing() {
        for encoding in [0x1000, 0x8000, 1 << 32, 0x4001, 0x2000 | (2 * (HIGHEST_INDEX + 1))] {
            assert_eq!(Field::from_encoding(encoding), None, "{encoding:#x}");
        }
        assert!(Field::from_encoding(INSTRUCTION_ERROR).is_some_and(Field::is_read_only));
    }
}
