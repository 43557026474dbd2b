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
//! They are walked in the order of the module's table: first the leaves that TD_PARAMS configures, in its
//! order, then the others (recorded: the leaf after 0 is 3, because 1 is the first of all).

use tdx_module_iface::metadata::FieldId;
use tdx_module_iface::metadata::cpuid::{CONFIG, RULES};

/// Leaf and subleaf of one entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuidKey {
    /// EAX on entry.
    pub leaf: u32,
    /// ECX on entry; `None` where the leaf has no subleaves.
    pub subleaf: Option<u32>,
}

/// Number of entries.
pub const LOOKUP_LEN: usize = RULES.len();

/// The entry at a position of the module's order.
pub fn key_at(position: usize) -> Option<CpuidKey> {
    if let Some(config) = CONFIG.get(position) {
        return Some(CpuidKey { leaf: config.leaf, subleaf: config.subleaf });
    }
    let mut others = RULES.iter().filter(|rule| rule.config.is_none());
    others
        .nth(position.checked_sub(CONFIG.len())?)
        .map(|rule| CpuidKey { leaf: rule.leaf, subleaf: rule.subleaf })
}

/// The position of the entry that answers for a leaf and subleaf.
pub fn position(leaf: u32, subleaf: u32) -> Option<usize> {
    (0..LOOKUP_LEN).find(|position| {
        key_at(*position).is_some_and(|key| key.leaf == leaf && key.subleaf.is_none_or(|own| own == subleaf))
    })
}

/// Leaf and subleaf in a field code, as the module compares them; `None` if unused bits are set.
fn decode(code: u32) -> Option<(u32, u32)> {
    if code >> 17 != 0 {
        return None;
    }
    let leaf = code >> 9 & 0x7f | (code >> 16 & 1) << 31;
    let subleaf = if code >> 8 & 1 == 0 { code >> 1 & 0x7f } else { u32::MAX };
    Some((leaf, subleaf))
}

const fn encode(key: CpuidKey) -> u32 {
    let subleaf = match key.subleaf {
        Some(subleaf) => (subleaf & 0x7f) << 1,
        None => 1 << 8 | 0x7f << 1,
    };
    subleaf | (key.leaf & 0x7f) << 9 | (key.leaf >> 31) << 16
}

/// The position of the element that an identifier names, among all elements: two per entry.
pub fn element_of(id: FieldId) -> Option<u32> {
    let (leaf, subleaf) = decode(id.code())?;
    let entry = u32::try_from(position(leaf, subleaf)?).ok()?;
    Some(entry * 2 + (id.code() & 1))
}

/// The identifier of the first element.
pub fn first(id: FieldId) -> FieldId {
    key_at(0).map_or(id, |key| id.with_code(encode(key)))
}

/// The identifier of the element after this one; `None` after the last.
pub fn next(id: FieldId) -> Option<FieldId> {
    if id.code() & 1 == 0 {
        return Some(id.with_code(id.code() + 1));
    }
    let (leaf, subleaf) = decode(id.code())?;
    let key = key_at(position(leaf, subleaf)? + 1)?;
    Some(id.with_code(encode(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: FieldId = tdx_module_iface::metadata::td::CPUID_VALUES.id;

    #[test]
    fn the_walk_visits_every_entry_once_and_both_elements_of_each() {
        let mut id = Some(first(ID));
        let mut seen = Vec::new();
        while let Some(current) = id {
            seen.push(element_of(current).unwrap());
            assert!(seen.len() <= 2 * LOOKUP_LEN, "the walk does not end");
            id = next(current);
        }
        assert_eq!(seen, (0..2 * LOOKUP_LEN as u32).collect::<Vec<_>>());
    }

    #[test]
    fn after_leaf_0_comes_leaf_3_as_recorded() {
        assert_eq!(next(ID.with_code(0x49)), Some(ID.with_code(0x7fe)));
        assert_eq!(next(ID.with_code(0x72)), Some(ID.with_code(0x73)));
    }

    #[test]
    fn a_leaf_that_the_module_does_not_know_has_no_element() {
        assert_eq!(element_of(ID.with_code(0x2 << 9)), None);
        assert_eq!(element_of(ID.with_code(1 << 17)), None);
    }
}
