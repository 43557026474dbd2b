//! One entry of a mirror or direct table.
//!
//! # Protocol
//! Direct entries are EPT entries that hardware walks; mirror entries use the same layout, with a slab index
//! where an EPT entry has the address of a table. Being present is a *software* bit, so an entry that
//! hardware may not use (access-tracked) still counts as a mapping.
//!
//! | bits | meaning | source |
//! |---|---|---|
//! | 0, 1, 2 | read, write, execute | Intel SDM vol. 3, EPT entries |
//! | 5:3 | memory type of a leaf | the same |
//! | 7 | leaf above 4 KiB | the same |
//! | 8, 9 | accessed, dirty, where EPTP enables them | the same |
//! | 11 | present in software | ignored by hardware |
//! | 51:12 | host frame or [`TableRef`] | |
//! | 56:54 | read, write, execute as they were before access tracking | ignored by hardware |
//! | 57 | private leaf: sent to another machine ([`crate::transfer`]) | ignored by hardware |
//! | 58 | software may set write | ignored by hardware |
//! | 59 | huge pages inhibited by the guest (on a table entry) | ignored by hardware |
//! | 60 | private leaf: held for sending | a leaf of the mirror is no entry that hardware walks |
//! | 61 | emulated device memory: absent, with #VE | ignored by hardware |
//! | 63 | suppress #VE | Intel SDM vol. 3, EPT-violation #VE |
//!
//! - *Absent* is bit 63 alone: an access leaves the guest. *MMIO* is absent with bit 63 clear: an access
//!   raises #VE in the guest.
//! - *FROZEN* marks an entry that somebody is changing. It has no permission, is not present, and has
//!   neither Accessed bit (EPT's bit 8, the ordinary bit 5) nor any bit that aging moves, so that an ager
//!   that lost a race cannot turn it into anything else (41).

use core::fmt;

use tdvisor_base::{Level, Pfn};

use crate::shadow::Rights;
use crate::table::TableRef;
use crate::transfer::Standing;

const READ: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const EXECUTE: u64 = 1 << 2;
const RWX: u64 = READ | WRITE | EXECUTE;
const WRITE_BACK: u64 = 6 << 3;
const HUGE: u64 = 1 << 7;
const ACCESSED: u64 = 1 << 8;
const DIRTY: u64 = 1 << 9;
const PRESENT: u64 = 1 << 11;
const ADDRESS: u64 = ((1 << 52) - 1) & !0xfff;
const SAVED_SHIFT: u32 = 54;
const SAVED: u64 = RWX << SAVED_SHIFT;
const MAY_WRITE: u64 = 1 << 58;
const SENT: u64 = 1 << 57;
const INHIBIT: u64 = 1 << 59;
const HELD: u64 = 1 << 60;
const MMIO: u64 = 1 << 61;
const SUPPRESS_VE: u64 = 1 << 63;

/// The Accessed bit of ordinary page tables, which FROZEN must not contain either.
const ACCESSED_ORDINARY: u64 = 1 << 5;

/// `--cfg frozen_has_accessed` puts the hazard of invariant 41 back in, to see that it is caught.
const FROZEN_MARK: u64 = if cfg!(all(loom, frozen_has_accessed)) { 0x1d0 } else { 0x0d0 };

/// How a tree learns that a page was used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AccessTracking {
    /// The Accessed and Dirty bits are off (as in a TD's shared EPT): aging takes all permissions away,
    /// and the next access is a fault that gives them back.
    #[default]
    Permissions,
    /// Hardware sets Accessed and Dirty.
    Hardware,
}

/// What a fault wants to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// A read.
    Read,
    /// A write.
    Write,
    /// An instruction fetch.
    Execute,
}

/// What a leaf of a direct tree allows besides reading and executing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writing {
    /// Never writable.
    Never,
    /// Writable when the dirty log has seen the write; not now.
    OnFault,
    /// Writable.
    Now,
}

/// The value of an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spte(pub(crate) u64);

impl Spte {
    /// Nothing is mapped; an access leaves the guest.
    pub(crate) const ABSENT: Self = Self(SUPPRESS_VE);
    /// Device memory; an access raises #VE in the guest.
    pub(crate) const DEVICE: Self = Self(MMIO);
    /// Somebody is changing the entry.
    pub(crate) const FROZEN: Self = Self(SUPPRESS_VE | FROZEN_MARK);

    /// A leaf of a mirror tree: everything is allowed.
    pub(crate) const fn mirror_leaf(pfn: Pfn, level: Level) -> Self {
        Self(SUPPRESS_VE | PRESENT | RWX | WRITE_BACK | huge_bit(level) | address(pfn.get()))
    }

    /// Where a leaf of a mirror tree stands in a transfer. Writes are allowed exactly where the page may change.
    #[inline(always)]
    pub(crate) const fn standing(self) -> Standing {
        match (self.0 & SENT != 0, self.0 & HELD != 0, self.0 & WRITE != 0) {
            (false, true, _) => Standing::Held,
            (true, true, _) => Standing::DirtyHeld,
            (true, false, false) => Standing::Sent,
            (true, false, true) => Standing::Dirty,
            (false, false, _) => Standing::Plain,
        }
    }

    /// The leaf of a mirror tree with another standing.
    pub(crate) const fn with_standing(self, standing: Standing) -> Self {
        let bits = match standing {
            Standing::Plain => WRITE,
            Standing::Held => HELD,
            Standing::Sent => SENT,
            Standing::Dirty => SENT | WRITE,
            Standing::DirtyHeld => SENT | HELD,
        };
        Self(self.0 & !(SENT | HELD | WRITE) | bits)
    }

    /// A leaf of a direct tree. It is young: somebody asked for it.
    pub(crate) const fn direct_leaf(pfn: Pfn, level: Level, writing: Writing, by: AccessTracking) -> Self {
        let write = match writing {
            Writing::Never => 0,
            Writing::OnFault => MAY_WRITE,
            Writing::Now => MAY_WRITE | WRITE,
        };
        let used = match by {
            AccessTracking::Hardware => ACCESSED,
            AccessTracking::Permissions => 0,
        };
        let leaf = SUPPRESS_VE | PRESENT | READ | EXECUTE | WRITE_BACK;
        Self(leaf | write | used | huge_bit(level) | address(pfn.get()))
    }

    /// An entry that points at a table.
    pub(crate) const fn table(table: TableRef) -> Self {
        Self(SUPPRESS_VE | PRESENT | RWX | address(table.get()))
    }

    /// A leaf of a shadow tree, with the rights that the guest's table gives.
    pub(crate) const fn shadow_leaf(pfn: Pfn, level: Level, rights: Rights) -> Self {
        let leaf = SUPPRESS_VE | PRESENT | WRITE_BACK | rights.bits();
        Self(leaf | huge_bit(level) | address(pfn.get()))
    }

    /// A table entry of a shadow tree.
    pub(crate) const fn shadow_table(table: TableRef, rights: Rights) -> Self {
        Self(SUPPRESS_VE | PRESENT | rights.bits() | address(table.get()))
    }

    /// A mapping or a table.
    #[inline(always)]
    pub(crate) const fn is_present(self) -> bool {
        self.0 & PRESENT != 0
    }

    /// Whether a present entry of this level maps a page.
    #[inline(always)]
    pub(crate) const fn is_leaf(self, level: Level) -> bool {
        self.is_present() && (self.0 & HUGE != 0 || matches!(level, Level::L4K))
    }

    /// Whether a present entry of this level points at a table.
    #[inline(always)]
    pub(crate) const fn is_table(self, level: Level) -> bool {
        self.0 & (PRESENT | HUGE) == PRESENT && !matches!(level, Level::L4K)
    }

    pub(crate) const fn is_frozen(self) -> bool {
        self.0 == Self::FROZEN.0
    }

    pub(crate) const fn is_device(self) -> bool {
        self.0 & (PRESENT | MMIO) == MMIO
    }

    /// The table a table entry points at.
    #[inline(always)]
    pub(crate) const fn table_ref(self) -> TableRef {
        TableRef::new((self.0 & ADDRESS) >> 12)
    }

    /// The first host frame of a leaf.
    #[inline(always)]
    pub(crate) const fn pfn(self) -> Pfn {
        Pfn::new((self.0 & ADDRESS) >> 12)
    }

    /// Whether hardware may write through the leaf, now or after access tracking ends.
    pub(crate) const fn may_be_dirtied(self) -> bool {
        self.0 & (WRITE | WRITE << SAVED_SHIFT) != 0
    }

    /// Whether software may make the leaf writable.
    pub(crate) const fn may_write(self) -> bool {
        self.0 & MAY_WRITE != 0
    }

    /// Whether the leaf allows the access right now.
    pub(crate) const fn allows(self, access: Access) -> bool {
        let needed = match access {
            Access::Read => READ,
            Access::Write => WRITE,
            Access::Execute => EXECUTE,
        };
        self.0 & needed != 0
    }

    /// Whether the leaf's permissions are put aside.
    pub(crate) const fn is_access_tracked(self) -> bool {
        self.is_present() && self.0 & RWX == 0
    }

    /// The leaf with its permissions back.
    pub(crate) const fn restored(self) -> Self {
        if !self.is_access_tracked() {
            return self;
        }
        Self((self.0 & !SAVED) | (self.0 & SAVED) >> SAVED_SHIFT)
    }

    /// The leaf with write allowed, where software may allow it.
    pub(crate) const fn with_write(self) -> Self {
        let leaf = self.restored();
        if leaf.may_write() { Self(leaf.0 | WRITE) } else { leaf }
    }

    /// The leaf without write, now or later.
    pub(crate) const fn write_protected(self) -> Self {
        Self(self.0 & !(WRITE | WRITE << SAVED_SHIFT))
    }

    pub(crate) const fn is_dirty(self) -> bool {
        self.0 & DIRTY != 0
    }

    /// The bits of a leaf that say that it was used.
    pub(crate) const fn young_mask(by: AccessTracking) -> u64 {
        match by {
            AccessTracking::Hardware => ACCESSED,
            AccessTracking::Permissions => RWX,
        }
    }

    /// Whether a leaf was used since it was last aged.
    pub(crate) const fn is_young(self, by: AccessTracking) -> bool {
        self.0 & Self::young_mask(by) != 0
    }

    /// The leaf as not used.
    pub(crate) const fn aged(self, by: AccessTracking) -> Self {
        match by {
            AccessTracking::Hardware => Self(self.0 & !ACCESSED),
            AccessTracking::Permissions if self.0 & RWX == 0 => self,
            AccessTracking::Permissions => Self((self.0 & !(RWX | SAVED)) | (self.0 & RWX) << SAVED_SHIFT),
        }
    }

    /// Child `index` of a leaf of `level` that is split: the same pages, permissions and age.
    #[inline(always)]
    pub(crate) const fn split_child(self, level: Level, index: u64) -> Self {
        let Some(below) = level.down() else { return self };
        let pfn = self.pfn().wrapping_add(index * below.frames());
        let huge = huge_bit(below);
        Self((self.0 & !(ADDRESS | HUGE)) | address(pfn.get()) | huge)
    }

    /// What the leaves of one page have in common whatever happened to each: not age, not dirt, not whether
    /// write is allowed at the moment.
    pub(crate) const fn timeless(self) -> Self {
        Self(self.restored().write_protected().0 & !(ACCESSED | DIRTY))
    }

    /// The leaf with what another part of the same page adds: used, dirty; and write only where both allow it.
    pub(crate) const fn folded(self, other: Self) -> Self {
        let other = other.restored().0;
        Self((self.0 | other & (ACCESSED | DIRTY)) & (other | !WRITE))
    }

    /// The huge leaf that 512 children would make, if this is the first of them.
    pub(crate) const fn merged(self, level: Level) -> Self {
        Self(self.0 | huge_bit(level))
    }

    /// A table entry that the guest wants not to be huge.
    pub(crate) const fn with_inhibit(self) -> Self {
        Self(self.0 | INHIBIT)
    }

    pub(crate) const fn without_inhibit(self) -> Self {
        Self(self.0 & !INHIBIT)
    }

    pub(crate) const fn is_inhibited(self) -> bool {
        self.0 & INHIBIT != 0
    }
}

const fn address(frame: u64) -> u64 {
    (frame << 12) & ADDRESS
}

const fn huge_bit(level: Level) -> u64 {
    match level {
        Level::L4K => 0,
        _ => HUGE,
    }
}

impl fmt::Debug for Spte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::FROZEN => f.write_str("Spte(frozen)"),
            Self::ABSENT => f.write_str("Spte(absent)"),
            Self(bits) => write!(f, "Spte({bits:#x})"),
        }
    }
}

// Invariant 41, as far as one value can show it: whatever aging does to FROZEN leaves FROZEN.
#[cfg(not(all(loom, frozen_has_accessed)))]
const _: () = {
    assert!(Spte::FROZEN.0 & (ACCESSED | ACCESSED_ORDINARY) == 0);
    assert!(Spte::FROZEN.aged(AccessTracking::Hardware).0 == Spte::FROZEN.0);
    assert!(Spte::FROZEN.aged(AccessTracking::Permissions).0 == Spte::FROZEN.0);
};
const _: () = {
    assert!(!Spte::FROZEN.is_present() && Spte::FROZEN.0 & (RWX | SAVED | DIRTY | MMIO) == 0);
    assert!(Spte::FROZEN.0 != Spte::ABSENT.0 && Spte::FROZEN.0 & (SENT | HELD) == 0);
    assert!(!Spte::ABSENT.is_present() && !Spte::DEVICE.is_present());
    assert!(Spte::DEVICE.0 & SUPPRESS_VE == 0 && Spte::ABSENT.0 & SUPPRESS_VE != 0);
    assert!(
        ACCESSED_ORDINARY & WRITE_BACK != 0,
        "bit 5 is part of a memory type: only FROZEN is checked for it"
    );
};

#[cfg(test)]
mod tests {
    use super::*;

    const FORMS: [AccessTracking; 2] = [AccessTracking::Permissions, AccessTracking::Hardware];
    const WRITINGS: [Writing; 3] = [Writing::Never, Writing::OnFault, Writing::Now];

    #[test]
    fn inv_41_frozen_is_closed_under_every_write_that_aging_can_do() {
        for form in FORMS {
            assert_eq!(Spte::FROZEN.aged(form), Spte::FROZEN);
            assert!(!Spte::FROZEN.is_young(form));
        }
    }

    #[test]
    fn inv_42_aging_changes_neither_page_nor_presence_and_what_it_takes_comes_back() {
        for form in FORMS {
            for writing in WRITINGS {
                let leaf = Spte::direct_leaf(Pfn::new(0x12345), Level::L2M, writing, form);
                let aged = leaf.aged(form);
                assert!(leaf.is_young(form) && !aged.is_young(form), "{form:?} {writing:?}");
                assert_eq!(aged.pfn(), leaf.pfn());
                assert!(aged.is_leaf(Level::L2M));
                assert_eq!(aged.may_be_dirtied(), leaf.may_be_dirtied());
                if form == AccessTracking::Permissions {
                    assert_eq!(aged.restored(), leaf);
                }
                assert_eq!(aged.aged(form), aged, "aging twice is aging once");
            }
        }
    }

    #[test]
    fn write_protection_also_takes_a_write_permission_that_was_put_aside() {
        let leaf = Spte::direct_leaf(Pfn::new(7), Level::L4K, Writing::Now, AccessTracking::Permissions);
        let hidden = leaf.aged(AccessTracking::Permissions).write_protected();
        assert!(!hidden.restored().allows(Access::Write));
        assert!(hidden.with_write().allows(Access::Write), "software may still allow it");
    }

    #[test]
    fn children_of_a_split_leaf_map_the_same_frames_with_the_same_rights() {
        let leaf =
            Spte::direct_leaf(Pfn::new(0x40000), Level::L1G, Writing::OnFault, AccessTracking::Permissions);
        let child = leaf.split_child(Level::L1G, 3);
        assert_eq!(child.pfn(), Pfn::new(0x40000 + 3 * 512));
        assert!(child.is_leaf(Level::L2M) && child.may_write() && !child.allows(Access::Write));
        let grandchild = child.split_child(Level::L2M, 511);
        assert_eq!(grandchild.pfn(), Pfn::new(0x40000 + 3 * 512 + 511));
        assert!(grandchild.is_leaf(Level::L4K));
        assert_eq!(leaf.split_child(Level::L1G, 0).merged(Level::L1G), leaf);
    }

    #[test]
    fn a_standing_is_what_was_set_and_changes_neither_page_nor_presence() {
        let leaf = Spte::mirror_leaf(Pfn::new(0x12345), Level::L4K);
        assert_eq!(leaf.standing(), Standing::Plain);
        for from in Standing::ALL {
            for to in Standing::ALL {
                let moved = leaf.with_standing(from).with_standing(to);
                assert_eq!(moved.standing(), to);
                assert_eq!(moved.allows(Access::Write), to.may_change(), "{to:?}");
                assert!(moved.is_leaf(Level::L4K) && moved.pfn() == leaf.pfn());
            }
        }
        assert_eq!(leaf.with_standing(Standing::Sent).with_standing(Standing::Plain), leaf);
    }

    #[test]
    fn absent_suppresses_the_exception_and_device_memory_does_not() {
        let suppressed = |value: Spte| value.0 >> 63 == 1;
        assert_eq!([Spte::ABSENT, Spte::FROZEN, Spte::DEVICE].map(suppressed), [true, true, false]);
        assert_eq!([Spte::ABSENT, Spte::FROZEN, Spte::DEVICE].map(Spte::is_device), [false, false, true]);
    }

    /// Each bit of an entry that means something or is in FROZEN, and a frame.
    const MEANING: [u64; 18] = [
        READ,
        WRITE,
        EXECUTE,
        1 << 4,
        1 << 5,
        1 << 6,
        HUGE,
        ACCESSED,
        DIRTY,
        PRESENT,
        READ << SAVED_SHIFT,
        WRITE << SAVED_SHIFT,
        EXECUTE << SAVED_SHIFT,
        MAY_WRITE,
        INHIBIT,
        MMIO,
        SUPPRESS_VE,
        address(0x12_3456_7203),
    ];

    /// Every word of an entry: all sets of [`MEANING`].
    fn words() -> impl Iterator<Item = Spte> {
        let chosen = |set: u32| {
            let picked = MEANING.iter().enumerate().filter(move |(bit, _)| set >> bit & 1 != 0);
            picked.fold(0, |word, (_, bits)| word | bits)
        };
        (0..1u32 << MEANING.len()).map(move |set| Spte(chosen(set)))
    }

    /// Whether an entry's permissions are in one place: in effect, or put aside.
    const fn is_in_one_place(word: Spte) -> bool {
        word.0 & RWX == 0 || word.0 & SAVED == 0
    }

    /// Words of mappings and tables.
    fn entries() -> impl Iterator<Item = Spte> {
        words().filter(|word| word.is_present() && is_in_one_place(*word))
    }

    #[test]
    fn every_word_is_one_thing_at_every_level() {
        for word in words() {
            for level in [Level::L4K, Level::L2M, Level::L1G] {
                let kinds = [word.is_leaf(level), word.is_table(level), word.is_device(), word.is_frozen()];
                let count = kinds.into_iter().filter(|is| *is).count();
                assert!(count <= 1, "{word:?} at {level}: {kinds:?}");
                let is_mapped = word.is_leaf(level) || word.is_table(level);
                assert_eq!(is_mapped, word.is_present(), "{word:?} at {level}");
            }
        }
    }

    /// What changes a leaf.
    type Change = fn(Spte) -> Spte;

    /// Every change of a leaf, by name.
    const CHANGES: [(&str, Change); 6] = [
        ("aged by permissions", |word| word.aged(AccessTracking::Permissions)),
        ("aged by hardware", |word| word.aged(AccessTracking::Hardware)),
        ("restored", Spte::restored),
        ("with write", Spte::with_write),
        ("write-protected", Spte::write_protected),
        ("timeless", Spte::timeless),
    ];

    #[test]
    fn inv_41_no_change_makes_frozen_of_another_word_or_another_word_of_frozen() {
        for (name, change) in CHANGES {
            assert_eq!(change(Spte::FROZEN), Spte::FROZEN, "{name}");
            for word in words().filter(|word| !word.is_frozen()) {
                let frozen = change(word).is_frozen();
                // What is not present is nobody's to change; a leaf is never taken for one that is being changed.
                assert!(!(frozen && word.is_present()), "{word:?} {name}");
            }
        }
    }

    #[test]
    fn inv_42_no_change_of_any_word_touches_its_page_its_presence_or_its_kind() {
        const KEPT: u64 = ADDRESS | PRESENT | HUGE | WRITE_BACK | MAY_WRITE | INHIBIT | MMIO | SUPPRESS_VE;
        for (name, change) in CHANGES {
            for word in words() {
                assert_eq!(change(word).0 & KEPT, word.0 & KEPT, "{word:?} {name}");
                if is_in_one_place(word) {
                    assert_eq!(change(change(word)), change(word), "{word:?} {name}, twice");
                }
            }
        }
    }

    #[test]
    fn inv_42_whatever_an_entry_allows_comes_back_after_aging_and_nothing_else() {
        for word in entries() {
            for form in FORMS {
                assert!(!word.aged(form).is_young(form), "{word:?} {form:?}");
            }
            let aged = word.aged(AccessTracking::Permissions);
            assert_eq!(aged.restored(), word.restored(), "{word:?}");
            assert_eq!(aged.may_be_dirtied(), word.may_be_dirtied(), "{word:?}");
            assert_eq!(
                aged.timeless(),
                word.timeless(),
                "{word:?}: age leaves no trace in what parts compare"
            );
        }
    }

    #[test]
    fn no_entry_becomes_writable_but_where_software_may_allow_it() {
        for word in entries() {
            let protected = word.write_protected();
            assert!(!protected.may_be_dirtied() && !protected.restored().allows(Access::Write), "{word:?}");
            let writable = word.with_write().allows(Access::Write);
            assert_eq!(writable, word.may_write() || word.restored().allows(Access::Write), "{word:?}");
            for other in [Spte(0), Spte(RWX | DIRTY), Spte(READ | ACCESSED), protected] {
                let folded = word.folded(other);
                let both = word.allows(Access::Write) && other.restored().allows(Access::Write);
                assert_eq!(folded.allows(Access::Write), both, "{word:?} with {other:?}");
                assert_eq!(folded.is_dirty(), word.is_dirty() || other.restored().is_dirty(), "{word:?}");
            }
        }
    }

    #[test]
    fn every_huge_leaf_splits_into_children_that_make_it_again() {
        for word in entries().filter(|word| word.0 & HUGE != 0) {
            for level in [Level::L2M, Level::L1G] {
                let Some(below) = level.down() else { panic!("{level} has no level below") };
                let aligned = Spte(word.0 & !ADDRESS | address(word.pfn().get() & !(level.frames() - 1)));
                for index in [0, 1, 511] {
                    let child = aligned.split_child(level, index);
                    assert!(child.is_leaf(below), "{aligned:?}");
                    let first = aligned.pfn().get() + index * below.frames();
                    assert_eq!(child.pfn().get(), first, "{aligned:?} {index}");
                    assert_eq!((child.0 ^ aligned.0) & !(ADDRESS | HUGE), 0, "{aligned:?} {index}");
                }
                assert_eq!(aligned.split_child(level, 0).merged(level), aligned);
            }
        }
    }
}
