//! The description of one metadata field, and finding the element that an identifier names.

use super::id::FieldId;
use crate::release::Release;

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

/// What lies between a field's stored form and the value that an accessor sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transform {
    /// Nothing: it is stored and loaded as it is.
    Stored,
    /// The value is stored as it is, once a write was compared with other state of the TD or VCPU.
    Checked,
    /// The value is not stored: each read computes it, and it cannot be written.
    Computed,
    /// Microseconds outside, ticks of the time-stamp counter inside; writes replace the whole value.
    Microseconds,
    /// The address of a page of the TD, shown with the TD's key id; zero where there is no page.
    PageAddress,
    /// The virtual CPUID values of a TD: the field code is composed of leaf and subleaf.
    CpuidValues,
}

/// The structure in which a field lies, and the byte offset of its first element there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In the TDR page.
    Tdr(u32),
    /// In the TDCS, counted from its first TDCX page.
    Tdcs(u32),
    /// In the TDVPS, counted from its first page.
    Tdvps(u32),
    /// In the VCPU's VMCS, whose layout is the processor's; the field code is the VMCS encoding.
    Vmcs,
    /// In no structure that the ABI describes.
    Nowhere,
}

/// One metadata field, or an array of equal fields.
///
/// The structure is a valid pattern: `match *field { td::TD_CTLS => .., _ => .. }`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// The identifier of the first element, in the form of the first release that has the field.
    pub id: FieldId,
    /// The name that the ABI gives to the field.
    pub name: &'static str,
    /// How many fields the array has; 1 for a single field.
    pub fields: u16,
    /// Elements per field: a 384-bit measurement is one field of six elements.
    pub elems: u16,
    /// Where the field lies.
    pub place: Place,
    /// Who may read and write which bits, in the first release that has the field.
    pub masks: Masks,
    /// How the value that an accessor sees comes from what is stored.
    pub transform: Transform,
    /// The first release that has the field.
    pub since: Release,
    /// What a later release changed.
    pub amended: Option<Amendment>,
    /// The L2 VM that the field belongs to, from 1 on; 0: it exists in every TD.
    pub l2_vm: u8,
}

/// What a release changed in a field that earlier releases have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Amendment {
    /// The first release in which this holds.
    pub since: Release,
    /// The identifier of the first element.
    pub id: FieldId,
    /// Who may read and write which bits.
    pub masks: Masks,
}

impl Field {
    /// Number of elements in all fields of the array.
    pub const fn elements(&self) -> u32 {
        self.fields as u32 * self.elems as u32
    }

    /// Byte offset of the first element in its control structure; `None` where the ABI describes none.
    pub const fn offset(&self) -> Option<u32> {
        match self.place {
            Place::Tdr(offset) | Place::Tdcs(offset) | Place::Tdvps(offset) => Some(offset),
            Place::Vmcs | Place::Nowhere => None,
        }
    }

    /// Whether a release has the field.
    pub const fn exists_in(&self, release: Release) -> bool {
        release.is_from(self.since)
    }

    /// The identifier of the first element as a release gives it out. On input every release takes every
    /// form, because bit 63 is not looked at.
    pub const fn id_in(&self, release: Release) -> FieldId {
        match self.amended {
            Some(amended) if release.is_from(amended.since) => amended.id,
            _ => self.id,
        }
    }

    /// Who may read and write which bits in a release.
    pub const fn masks_in(&self, release: Release) -> Masks {
        match self.amended {
            Some(amended) if release.is_from(amended.since) => amended.masks,
            _ => self.masks,
        }
    }

    /// Whether element codes are not consecutive: the CPUID values of a TD, whose code is composed of leaf
    /// and subleaf numbers.
    pub const fn is_sparse(&self) -> bool {
        matches!(self.transform, Transform::CpuidValues)
    }

    /// How much the code grows from one element to the next: VMCS encodings advance by two.
    pub const fn code_step(&self) -> u32 {
        if matches!(self.place, Place::Vmcs) { 2 } else { 1 }
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

    /// The field, named.
    pub(super) const fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// The field, known from this release on.
    pub(super) const fn since(mut self, release: Release) -> Self {
        self.since = release;
        self
    }

    /// The field, of this L2 VM.
    pub(super) const fn of_l2_vm(mut self, vm: u8) -> Self {
        self.l2_vm = vm;
        self
    }

    /// The field, given out with bit 63 of its identifier set from this release on.
    pub(super) const fn not_architectural_since(self, release: Release) -> Self {
        let mut amended = self.amended_in(release);
        amended.id = amended.id.not_architectural();
        self.with(amended)
    }

    /// The field, whose bits `wr` a guest may write from this release on.
    pub(super) const fn guest_writes_since(self, release: Release, wr: u64) -> Self {
        let mut amended = self.amended_in(release);
        amended.masks.guest.wr = wr;
        self.with(amended)
    }

    /// The field, whose bits `wr` the host of a debuggable TD may write from this release on.
    pub(super) const fn debug_host_writes_since(self, release: Release, wr: u64) -> Self {
        let mut amended = self.amended_in(release);
        amended.masks.host_debug.wr = wr;
        self.with(amended)
    }

    const fn amended_in(&self, release: Release) -> Amendment {
        match self.amended {
            Some(amended) => {
                assert!(amended.since as u8 == release as u8, "a row holds the changes of one release");
                amended
            }
            None => Amendment { since: release, id: self.id, masks: self.masks },
        }
    }

    const fn with(mut self, amended: Amendment) -> Self {
        self.amended = Some(amended);
        self
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

/// One row of a table, of the first release. The masks are, for host, debug host, guest and migration TD: read,
/// write.
pub(super) const fn row(
    id: u64,
    fields: u16,
    elems: u16,
    place: Place,
    masks: [u64; 8],
    transform: Transform,
) -> Field {
    let [host_rd, host_wr, debug_rd, debug_wr, guest_rd, guest_wr, migtd_rd, migtd_wr] = masks;
    Field {
        id: FieldId(id),
        name: "",
        fields,
        elems,
        place,
        masks: Masks {
            host: RdWr { rd: host_rd, wr: host_wr },
            host_debug: RdWr { rd: debug_rd, wr: debug_wr },
            guest: RdWr { rd: guest_rd, wr: guest_wr },
            migtd: RdWr { rd: migtd_rd, wr: migtd_wr },
        },
        transform,
        since: Release::V1_5_01,
        amended: None,
        l2_vm: 0,
    }
}

/// Declares a table: one constant per row, and all of them in the order of the module's own table.
///
/// A field whose ABI name is no identifier has that name after an equals sign.
macro_rules! fields {
    ($( $constant:ident $(= $name:literal)?: $row:expr; )*) => {
        $(
            #[doc = concat!("The field `", $crate::metadata::field::name_of!($constant $($name)?), "`.")]
            pub const $constant: $crate::metadata::Field =
                $row.named($crate::metadata::field::name_of!($constant $($name)?));
        )*

        /// Every field of the table, in the order in which the module walks them.
        pub const FIELDS: &[$crate::metadata::Field] = &[ $( $constant ),* ];
    };
}

/// The name of a row: as given, otherwise that of its constant.
macro_rules! name_of {
    ($constant:ident) => {
        stringify!($constant)
    };
    ($constant:ident $name:literal) => {
        $name
    };
}

pub(super) use {fields, name_of};

#[cfg(test)]
mod tests {
    use super::super::{TD, VMCS, id::FieldId, sys, td, vmcs, vp};
    use super::*;

    #[test]
    fn the_code_of_a_vmcs_array_advances_by_two() {
        assert_eq!(vmcs::PDPTE.name, "PDPTEn");
        assert_eq!(vmcs::PDPTE.element_id(3), Some(FieldId(0x0024_0003_0000_2810)));
        assert_eq!(vmcs::PDPTE.index_of(FieldId(0x0024_0003_0000_280b)), None);
        assert_eq!(vmcs::PDPTE.element_id(4), None);
        assert_eq!(find(VMCS, FieldId(0x0024_0003_0000_280c)).unwrap().index, 1);
    }

    #[test]
    fn context_size_and_top_bit_do_not_matter_for_finding_a_field() {
        let found = find(TD, FieldId(0x1000_0000_0000_0001)).unwrap();
        assert_eq!(*found.field, td::NUM_VCPUS);
        let rtmr = find(TD, FieldId(0x1310_0003_0000_0047)).unwrap();
        assert_eq!((*rtmr.field, rtmr.index), (td::RTMR, 7));
        assert!(find(TD, FieldId(0x1310_0003_0000_0030)).is_none());
    }

    #[test]
    fn a_row_says_what_release_1_5_05_added_and_changed() {
        use Release::{V1_5_01, V1_5_05};
        assert!(!sys::MAX_VCPUS_PER_TD.exists_in(V1_5_01) && sys::MAX_VCPUS_PER_TD.exists_in(V1_5_05));
        assert_eq!(td::TD_CTLS.id_in(V1_5_01), FieldId(0x1110_0003_0000_0017));
        assert_eq!(td::TD_CTLS.id_in(V1_5_05), FieldId(0x9110_0003_0000_0017));
        assert_eq!([V1_5_01, V1_5_05].map(|at| td::TD_CTLS.masks_in(at).guest.wr), [1, 3]);
        assert_eq!([V1_5_01, V1_5_05].map(|at| vp::L2_CTLS.masks_in(at).host_debug.wr), [7, 3]);
        assert_eq!(td::OP_STATE.id_in(Release::V2_0), td::OP_STATE.id);
    }
}
