//! Metadata: the fields of the module, of a TD and of a VCPU that the RD and WR leaves name by identifier.
//!
//! [`FieldId`] is the 64-bit identifier; [`Field`] describes one field (identifier, shape, place, who may read
//! and write which bits of it, what its value is made of, and which releases have it). Each field is a constant
//! of its table's module, such as [`td::TD_CTLS`]. The tables are complete for module 1.5.01 and 1.5.05 and
//! are what the emulated module answers from:
//!
//! | table | context | leaves |
//! |---|---|---|
//! | [`SYS`] | 0 | `TDH.SYS.RD`, `TDG.SYS.RD` |
//! | [`TD`] | 1 | `TDH.MNG.RD`/`WR`, `TDG.VM.RD`/`WR`, `TDG.SERVTD.RD`/`WR` |
//! | [`VCPU`]: [`VP`], [`VMCS`] and those of L2 VMs | 2 | `TDH.VP.RD`/`WR`, `TDG.VP.RD`/`WR` |
//!
//! A read or write names one element. The module looks only at class and field code to find it; element size,
//! context, increment, write-mask and the top bit are ignored, while a non-zero reserved, last-element or
//! last-field part is refused (recorded).

mod carried;
pub mod cpuid;
mod field;
mod id;
mod l2_vmcs;
pub mod sys;
pub mod td;
pub mod vmcs;
pub mod vp;

pub use carried::{Carried, Demand, StateList};
pub use field::{ALL, Amendment, Field, FieldElement, Masks, NONE, Place, RdWr, Transform, find};
pub use id::{Context, FieldId, Increment};
pub use l2_vmcs::VCPU;

/// The fields of the module itself.
pub const SYS: &[Field] = sys::FIELDS;
/// The fields of a TD.
pub const TD: &[Field] = td::FIELDS;
/// The fields of a VCPU, without its VMCS.
pub const VP: &[Field] = vp::FIELDS;
/// The fields of a VCPU's VMCS.
pub const VMCS: &[Field] = vmcs::FIELDS;

/// Finds the element that an identifier names in the tables of its context.
///
/// `context` is the context of the leaf that reads or writes, which the identifier need not repeat.
pub fn find_in_context(context: Context, id: FieldId) -> Option<FieldElement> {
    match context {
        Context::System => find(SYS, id),
        Context::Td => find(TD, id),
        Context::Vcpu => VCPU.iter().find_map(|table| find(table, id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::Release;

    #[test]
    fn each_table_has_every_field_of_its_releases() {
        let count = |release: Release| {
            [SYS, TD, VP, VMCS].map(|table| table.iter().filter(|field| field.exists_in(release)).count())
        };
        assert_eq!(count(Release::V1_5_01), [65, 83, 119, 144]);
        assert_eq!(count(Release::V1_5_05), [66, 85, 119, 144]);
    }

    #[test]
    fn a_field_of_the_td_lies_in_the_tdr_exactly_if_its_class_is_below_16() {
        for field in TD {
            match field.place {
                Place::Tdr(_) => assert!(field.id.class() < 16, "{}", field.name),
                Place::Tdcs(_) => assert!(field.id.class() >= 16, "{}", field.name),
                other => assert_eq!(other, Place::Nowhere, "{}", field.name),
            }
        }
    }

    #[test]
    fn no_two_fields_of_a_structure_lie_on_top_of_each_other() {
        let kind = |place| match place {
            Place::Tdr(at) => Some((0, at)),
            Place::Tdcs(at) => Some((1, at)),
            Place::Tdvps(at) => Some((2, at)),
            Place::Vmcs | Place::Nowhere => None,
        };
        let mut spans: std::vec::Vec<_> = [TD, VP]
            .iter()
            .flat_map(|table| table.iter())
            .filter_map(|field| {
                let (structure, start) = kind(field.place)?;
                let bytes = field.elements() * u32::from(field.id.element_bytes());
                Some((structure, start, start + bytes, field.name))
            })
            .collect();
        spans.sort_unstable();
        for pair in spans.windows(2) {
            let [(structure, _, end, name), (next_structure, start, _, next)] = pair else { continue };
            assert!(structure != next_structure || end <= start, "{name} overlaps {next}");
        }
    }

    #[test]
    fn every_field_is_found_by_its_own_identifier_and_by_that_of_its_last_element() {
        for (context, tables) in [(Context::System, &[SYS][..]), (Context::Td, &[TD]), (Context::Vcpu, VCPU)]
        {
            for field in tables.iter().copied().flatten() {
                let first = find_in_context(context, field.id).expect(field.name);
                let (found, wanted) = ((first.field.name, first.field.id), (field.name, field.id));
                assert_eq!((found, first.index), (wanted, 0));
                if field.is_sparse() {
                    continue;
                }
                let last = field.elements() - 1;
                let id = field.element_id(last).expect(field.name);
                let found = find_in_context(context, id).expect(field.name);
                assert_eq!((found.field.name, found.index), (field.name, last), "{id}");
            }
        }
    }

    #[test]
    fn no_two_fields_claim_the_same_code() {
        for table in [SYS, TD, VP, VMCS] {
            for (position, field) in table.iter().enumerate() {
                for other in &table[position + 1..] {
                    if field.is_sparse() || other.is_sparse() || field.id.class() != other.id.class() {
                        continue;
                    }
                    for index in 0..other.elements() {
                        let id = other.element_id(index).unwrap();
                        assert_eq!(field.index_of(id), None, "{} and {}", field.name, other.name);
                    }
                }
            }
        }
    }

    #[test]
    fn an_identifier_of_each_table_says_its_context() {
        for (context, tables) in [(Context::System, &[SYS][..]), (Context::Td, &[TD]), (Context::Vcpu, VCPU)]
        {
            for field in tables.iter().copied().flatten() {
                assert_eq!(field.id.context(), Some(context), "{}", field.name);
                assert_eq!(field.id.reserved_bits(), 0, "{}", field.name);
            }
        }
    }
}
