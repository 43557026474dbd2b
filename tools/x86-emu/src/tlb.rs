//! The software TLB: linear pages (combined mappings) and guest-physical pages (second-stage mappings).
//!
//! # Protocol
//! - A linear entry is good for one privilege view: user; supervisor that SMAP keeps from user pages;
//!   supervisor that it does not. It has one tag per kind of access; a tag matches when that access to
//!   that page needs no further check. A write tag appears only once the Dirty bit is set.
//! - The low 12 bits of a tag are the generation of the whole linear TLB, so dropping all entries is one
//!   increment.
//! - Guest invalidations (CR3, INVLPG, ...) drop linear entries only, as on hardware; entries of the second
//!   stage live until the owner calls [`Tlb::flush_all`] or [`Tlb::flush_guest_page`]. Nothing here ever
//!   notices by itself that a second-stage table changed: a flush that is missing shows.

use tdvisor_base::{Gpa, Hpa, KeyId, Level};

use crate::bus::Translation;

/// Entries per view; a power of two.
const LINEAR_ENTRIES: usize = 1024;
const VIEWS: usize = 4;
const GUEST_ENTRIES: usize = 512;
const PAGE: u64 = !0xFFF;
const LAST_GENERATION: u64 = 0xFFF;
/// Not page-aligned and not a generation: never matches.
const NO_GPA: u64 = u64::MAX;

/// Whose rights an access has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum View {
    User = 0,
    /// SMAP forbids user pages.
    Supervisor = 1,
    /// SMAP is off or suspended by RFLAGS.AC.
    SupervisorNoSmap = 2,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct LinearEntry {
    pub(crate) read: u64,
    pub(crate) write: u64,
    pub(crate) execute: u64,
    pub(crate) hpa: Hpa,
    gpa: Gpa,
    pub(crate) key: KeyId,
    level: Level,
}

const EMPTY: LinearEntry = LinearEntry {
    read: 0,
    write: 0,
    execute: 0,
    hpa: Hpa::new(0),
    gpa: Gpa::new(0),
    key: KeyId::DEFAULT,
    level: Level::L4K,
};

#[derive(Clone, Copy, Debug)]
struct GuestEntry {
    gpa: u64,
    translation: Translation,
}

const NO_GUEST: GuestEntry = GuestEntry {
    gpa: NO_GPA,
    translation: Translation {
        hpa: Hpa::new(0),
        key: KeyId::DEFAULT,
        level: Level::L4K,
        readable: false,
        writable: false,
        executable: false,
    },
};

/// What a filled linear entry allows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fill {
    pub(crate) gpa: Gpa,
    pub(crate) translation: Translation,
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) execute: bool,
    /// Bytes of the guest's page.
    pub(crate) page_bytes: u64,
}

/// A translation that the CPU may still use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CachedTranslation {
    /// The linear page, or `None` for an entry of the second stage.
    pub linear: Option<u64>,
    /// The guest-physical page.
    pub gpa: Gpa,
    /// The page of memory.
    pub hpa: Hpa,
    /// Its key.
    pub key: KeyId,
    /// Size of the second-stage mapping when it was read.
    pub level: Level,
    /// Writes go through it.
    pub writable: bool,
}

/// The translation caches of one CPU.
#[derive(Debug)]
pub struct Tlb {
    linear: Box<[LinearEntry]>,
    guest: Box<[GuestEntry]>,
    /// 1 to [`LAST_GENERATION`].
    generation: u64,
    /// Moves on with every flush, whole or partial.
    stamp: u64,
    misses: u64,
    /// Per half of the address space, first and last byte of what large guest pages were cached for: an
    /// invalidation inside must drop all pieces of such a page.
    large: [Option<(u64, u64)>; 2],
}

impl Default for Tlb {
    fn default() -> Self {
        Self {
            linear: vec![EMPTY; LINEAR_ENTRIES * VIEWS].into_boxed_slice(),
            guest: vec![NO_GUEST; GUEST_ENTRIES].into_boxed_slice(),
            generation: 1,
            stamp: 1,
            misses: 0,
            large: [None; 2],
        }
    }
}

impl Tlb {
    /// Drops everything: INVEPT, a new TLB epoch.
    pub fn flush_all(&mut self) {
        self.flush_linear();
        self.guest.fill(NO_GUEST);
    }

    /// Drops every linear translation: a MOV to CR3.
    pub fn flush_linear(&mut self) {
        self.stamp = self.stamp.wrapping_add(1);
        self.large = [None; 2];
        if self.generation == LAST_GENERATION {
            self.linear.fill(EMPTY);
            self.generation = 1;
        } else {
            self.generation += 1;
        }
    }

    /// Drops the translations of one linear page, in all views: INVLPG. Where the guest maps it by a large
    /// page, all of that page goes.
    pub fn flush_linear_page(&mut self, linear: u64) {
        let [low, high] = self.large;
        let large = if linear >> 63 == 0 { low } else { high };
        if large.is_some_and(|(first, last)| (first..=last).contains(&linear)) {
            self.flush_linear();
            return;
        }
        self.stamp = self.stamp.wrapping_add(1);
        for view in 0..VIEWS {
            let index = Self::index(view as u8, linear);
            if let Some(entry) = self.linear.get_mut(index) {
                *entry = EMPTY;
            }
        }
    }

    /// Drops the second-stage translation of a guest page and every linear one that leads to it.
    pub fn flush_guest_page(&mut self, gpa: Gpa) {
        let page = gpa.get() & PAGE;
        self.stamp = self.stamp.wrapping_add(1);
        for entry in self.guest.iter_mut().filter(|e| e.gpa == page) {
            *entry = NO_GUEST;
        }
        for entry in self.linear.iter_mut().filter(|e| e.gpa.get() == page) {
            *entry = EMPTY;
        }
    }

    /// Every translation that the CPU may still use without asking the bus.
    pub fn entries(&self) -> impl Iterator<Item = CachedTranslation> + '_ {
        let generation = self.generation;
        let linear = self.linear.iter().filter_map(move |e| {
            let live = |tag: &u64| tag & !PAGE == generation;
            let tag = [e.read, e.write, e.execute].into_iter().find(live)?;
            Some(CachedTranslation {
                linear: Some(tag & PAGE),
                gpa: e.gpa,
                hpa: e.hpa,
                key: e.key,
                level: e.level,
                writable: live(&e.write),
            })
        });
        let guest = self.guest.iter().filter(|e| e.gpa != NO_GPA).map(|e| CachedTranslation {
            linear: None,
            gpa: Gpa::new(e.gpa),
            hpa: e.translation.hpa,
            key: e.translation.key,
            level: e.translation.level,
            writable: e.translation.writable,
        });
        linear.chain(guest)
    }

    /// How often a linear address had to be translated by a page walk.
    pub fn misses(&self) -> u64 {
        self.misses
    }

    /// Makes [`Self::stamp`] unequal to every earlier one, although no entry went.
    pub(crate) fn touch(&mut self) {
        self.stamp = self.stamp.wrapping_add(1);
    }

    /// Identifies the state of the linear TLB: unequal to an earlier one after any flush.
    #[inline(always)]
    pub(crate) fn stamp(&self) -> u64 {
        self.stamp
    }

    #[inline(always)]
    fn index(view: u8, linear: u64) -> usize {
        (view as usize & (VIEWS - 1)) * LINEAR_ENTRIES + (linear >> 12) as usize % LINEAR_ENTRIES
    }

    /// The entry where a page would be, and the tag that it has if it is there.
    #[inline(always)]
    pub(crate) fn probe(&self, view: View, linear: u64) -> (Option<&LinearEntry>, u64) {
        (self.linear.get(Self::index(view as u8, linear)), linear & PAGE | self.generation)
    }

    pub(crate) fn fill(&mut self, view: View, linear: u64, fill: &Fill) -> LinearEntry {
        self.misses = self.misses.wrapping_add(1);
        let tag = linear & PAGE | self.generation;
        if fill.page_bytes > 4096 {
            let first = linear & !(fill.page_bytes - 1);
            let last = first | (fill.page_bytes - 1);
            let [low, high] = &mut self.large;
            let range = if linear >> 63 == 0 { low } else { high };
            *range = Some(range.map_or((first, last), |(a, b)| (a.min(first), b.max(last))));
        }
        let tag_if = |allowed: bool| if allowed { tag } else { 0 };
        let entry = LinearEntry {
            read: tag_if(fill.read),
            write: tag_if(fill.write),
            execute: tag_if(fill.execute),
            hpa: fill.translation.hpa.align_down(4096),
            gpa: fill.gpa.align_down(4096),
            key: fill.translation.key,
            level: fill.translation.level,
        };
        if let Some(slot) = self.linear.get_mut(Self::index(view as u8, linear)) {
            *slot = entry;
        }
        entry
    }

    #[inline]
    pub(crate) fn guest(&self, gpa: Gpa) -> Option<&Translation> {
        let page = gpa.get() & PAGE;
        let entry = self.guest.get((page >> 12) as usize % GUEST_ENTRIES)?;
        (entry.gpa == page).then_some(&entry.translation)
    }

    pub(crate) fn fill_guest(&mut self, gpa: Gpa, translation: Translation) {
        let page = gpa.get() & PAGE;
        if let Some(slot) = self.guest.get_mut((page >> 12) as usize % GUEST_ENTRIES) {
            *slot = GuestEntry { gpa: page, translation };
        }
    }
}
