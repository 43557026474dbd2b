//! The description of one metadata field, and finding the element that an identifier names.

use super::id::{Context, FieldId};

/// Access mask: every bit.
pub const ALL: u64 = u64::MAX;
/// Access mask: no bit, that is, no access.
pub const NONE: u64 = 0;

/// Which bits one kind of accessor may read and write. Unreadable bits read as zero; a field none of whose
/// bits may be read or written is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RdWr {
    /// Readable bits.
    pub rd: u64,
    /// Writable bits.
    pub wr: u64,
}

/// Which bits each kind of accessor may read and write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Masks {
    /// The host, for a production TD (and for the module's own fields).
    pub host: RdWr,
    /// The host, for a TD with ATTRIBUTES.DEBUG.
    pub host_debug: RdWr,
    /// The guest about itself.
    pub guest: RdWr,
    /// A bound migration TD about its target.
    pub migtd: RdWr,
}

/// Whether a field's value is simply stored, or reading or writing it does more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Special {
    /// Stored and loaded as it is.
    Plain,
    /// Reads are computed or checked.
    Read,
    /// Writes are checked or have effects.
    Write,
    /// Both.
    ReadWrite,
}

/// One metadata field, or an array of equal fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// The name that the ABI gives to the field.
    pub name: &'static str,
    /// The identifier of the first element.
    pub id: FieldId,
    /// How many fields the array has; 1 for a single field.
    pub fields: u16,
    /// Elements per field: a 384-bit measurement is one field of six elements.
    pub elems: u16,
    /// Byte offset of the first element in the control structure, where it is known.
    pub offset: Option<u32>,
    /// Who may read and write which bits.
    pub masks: Masks,
    /// Whether access has effects.
    pub special: Special,
}

/// The class of the CPUID values of a TD, whose codes are composed of leaf and subleaf.
const CLASS_CPUID_VALUES: u8 = 20;

impl Field {
    /// Number of elements in all fields of the array.
    pub const fn elements(&self) -> u32 {
        self.fields as u32 * self.elems as u32
    }

    /// Whether element codes are not consecutive: the CPUID values of a TD, whose code is composed of leaf
    /// and subleaf numbers.
    pub const fn is_sparse(&self) -> bool {
        matches!(self.id.context(), Some(Context::Td)) && self.id.class() == CLASS_CPUID_VALUES
    }

    /// How much the code grows from one element to the next: VMCS encodings advance by two.
    pub const fn code_step(&self) -> u32 {
        if matches!(self.id.context(), Some(Context::Vcpu)) && self.id.class() == 0 { 2 } else { 1 }
    }

    /// The identifier of element `index`; `None` beyond the last, and for sparse fields.
    pub const fn element_id(&self, index: u32) -> Option<FieldId> {
        if self.is_sparse() || index >= self.elements() {
            return None;
        }
        Some(self.id.with_code(self.id.code() + index * self.code_step()))
    }

    /// Which element of this field an identifier names, by class and code alone.
    pub const fn index_of(&self, id: FieldId) -> Option<u32> {
        if id.class() != self.id.class() {
            return None;
        }
        if self.is_sparse() {
            // The caller maps leaf and subleaf to a position; here only the class is known to match.
            return Some(0);
        }
        let Some(distance) = id.code().checked_sub(self.id.code()) else { return None };
        let step = self.code_step();
        if !distance.is_multiple_of(step) || distance / step >= self.elements() {
            return None;
        }
        Some(distance / step)
    }
}

/// One element of a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FieldElement {
    /// The field.
    pub field: &'static Field,
    /// The position of the element among all elements of the field; 0 for sparse fields.
    pub index: u32,
}

/// Finds the element that an identifier names, by class and code.
pub fn find(table: &'static [Field], id: FieldId) -> Option<FieldElement> {
    table.iter().find_map(|field| field.index_of(id).map(|index| FieldElement { field, index }))
}

/// One row of a table. The masks are, for host, debug host, guest and migration TD: read, write.
pub(super) const fn row(
    name: &'static str,
    id: u64,
    fields: u16,
    elems: u16,
    offset: Option<u32>,
    masks: [u64; 8],
    special: Special,
) -> Field {
    let [host_rd, host_wr, debug_rd, debug_wr, guest_rd, guest_wr, migtd_rd, migtd_wr] = masks;
    Field {
        name,
        id: FieldId(id),
        fields,
        elems,
        offset,
        masks: Masks {
            host: RdWr { rd: host_rd, wr: host_wr },
            host_debug: RdWr { rd: debug_rd, wr: debug_wr },
            guest: RdWr { rd: guest_rd, wr: guest_wr },
            migtd: RdWr { rd: migtd_rd, wr: migtd_wr },
        },
        special,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{TD, VMCS};
    use super::*;

    #[test]
    fn the_code_of_a_vmcs_array_advances_by_two() {
        let pdpte = VMCS.iter().find(|field| field.name == "PDPTEn").unwrap();
        assert_eq!(pdpte.element_id(3), Some(FieldId(0x0024_0003_0000_2810)));
        assert_eq!(pdpte.index_of(FieldId(0x0024_0003_0000_280b)), None);
        assert_eq!(pdpte.element_id(4), None);
    }

    #[test]
    fn context_size_and_top_bit_do_not_matter_for_finding_a_field() {
        let found = find(TD, FieldId(0x1000_0000_0000_0001)).unwrap();
        assert_eq!(found.field.name, "NUM_VCPUS");
        let rtmr = find(TD, FieldId(0x1310_0003_0000_0047)).unwrap();
        assert_eq!((rtmr.field.name, rtmr.index), ("RTMR", 7));
        assert!(find(TD, FieldId(0x1310_0003_0000_0030)).is_none());
    }
}
