//! The virtual CPUID values of a TD as metadata: their field codes are composed of leaf and subleaf.
//!
//! | bits | meaning |
//! |---|---|
//! | 0 | 0: EAX and EBX, 1: ECX and EDX |
//! | 7:1 | subleaf |
//! | 8 | the leaf has no subleaves (then 7:1 are all ones) |
//! | 15:9 | leaf, bits 6:0 |
//! | 16 | leaf, bit 31 |
//!
//! They are walked in the order of the release's table (recorded: the leaf after 0 is 3, because 1 is the first of
//! all).

use tdx_module_iface::metadata::FieldId;
use tdx_module_iface::metadata::cpuid::{CpuidLeaf, CpuidTable};

/// Leaf and subleaf in a field code, as the module compares them; `None` if unused bits are set.
fn decode(code: u32) -> Option<(u32, u32)> {
    if code >> 17 != 0 {
        return None;
    }
    let leaf = code >> 9 & 0x7f | (code >> 16 & 1) << 31;
    let subleaf = if code >> 8 & 1 == 0 { code >> 1 & 0x7f } else { u32::MAX };
    Some((leaf, subleaf))
}

pub(super) const fn encode(key: &CpuidLeaf) -> u32 {
    let subleaf = match key.subleaf {
        Some(subleaf) => (subleaf & 0x7f) << 1,
        None => 1 << 8 | 0x7f << 1,
    };
    subleaf | (key.leaf & 0x7f) << 9 | (key.leaf >> 31) << 16
}

/// The position of the element that an identifier names, among all elements: two per entry.
pub fn element_of(table: &CpuidTable, id: FieldId) -> Option<u32> {
    let (leaf, subleaf) = decode(id.code())?;
    let entry = u32::try_from(table.position(leaf, subleaf)?).ok()?;
    Some(entry * 2 + (id.code() & 1))
}

/// The identifier of the first element.
pub fn first(table: &CpuidTable, id: FieldId) -> FieldId {
    table.at(0).map_or(id, |key| id.with_code(encode(key)))
}

/// The identifier of the element after this one; `None` after the last.
pub fn next(table: &CpuidTable, id: FieldId) -> Option<FieldId> {
    if id.code() & 1 == 0 {
        return Some(id.with_code(id.code() + 1));
    }
    let (leaf, subleaf) = decode(id.code())?;
    let key = table.at(table.position(leaf, subleaf)? + 1)?;
    Some(id.with_code(encode(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: FieldId = tdx_module_iface::metadata::td::CPUID_VALUES.id;
    const TABLE: &CpuidTable = &CpuidTable::V1_5_05;

    #[test]
    fn the_walk_visits_every_entry_once_and_both_elements_of_each() {
        let mut id = Some(first(TABLE, ID));
        let mut seen = Vec::new();
        while let Some(current) = id {
            seen.push(element_of(TABLE, current).unwrap());
            assert!(seen.len() <= 2 * TABLE.len(), "the walk does not end");
            id = next(TABLE, current);
        }
        assert_eq!(seen, (0..2 * TABLE.len() as u32).collect::<Vec<_>>());
    }

    #[test]
    fn leaf_0_stands_between_the_last_configurable_leaf_and_leaf_3_as_recorded() {
        assert_eq!(next(TABLE, ID.with_code(0x49)), Some(ID.with_code(0x7fe)));
        assert_eq!(next(TABLE, ID.with_code(0x72)), Some(ID.with_code(0x73)));
        assert_eq!(next(TABLE, ID.with_code(0x1_11ff)), Some(ID.with_code(0x1fe)));
    }

    #[test]
    fn a_leaf_that_the_module_does_not_know_has_no_element() {
        assert_eq!(element_of(TABLE, ID.with_code(0x2 << 9)), None);
        assert_eq!(element_of(TABLE, ID.with_code(1 << 17)), None);
    }
}
