//! The software TLB: linear pages (combined mappings) and guest-physical pages (second-stage mappings).
//!
//! # Protocol
//! - A linear entry is good for one privilege view: user; supervisor that SMAP keeps from user pages;
//!   supervisor that it does not. It has one tag per kind of access; a tag matches when that access to
//!   that page needs no further check. A write tag appears only once the Dirty bit is set.
//! - The low 12 bits of a tag are the generation of one half of the linear TLB (lower and upper half of the
//!   address space), so dropping all entries of a half is one increment.
//! - A page has one place among the recent entries, by the low bits of its number, and another among the older ones, by all of
//!   its bits: pages that lie a power of two apart push each other out of the first and not out of the second. Only a fill moves
//!   entries. What is held does not depend on how often it was used, nor through which engine.
//! - A MOV to CR3 keeps global pages. They are kept where kernels have them: the upper half stays as long as it
//!   holds global pages only. Dropping more than was asked for is always allowed.
//! - Guest invalidations (CR3, INVLPG, ...) drop linear entries only, as on hardware; entries of the second
//!   stage live until the owner calls [`Tlb::flush_all`] or [`Tlb::flush_guest_page`]. Nothing here ever
//!   notices by itself that a second-stage table changed: a flush that is missing shows.

use phys_memory::Arena;
use tdvisor_base::{Gpa, Hpa, KeyId, Level};
use x86_jit::{CodePlace, HostTlb, Miss, Right};

use crate::bus::Translation;
use crate::memory::Place;
use crate::paging::Want;

/// Entries per view; a power of two.
const LINEAR_ENTRIES: usize = 1024;
const VIEWS: usize = 4;
/// log2 of the number of older entries, which all views share.
const OLDER_BITS: u32 = 12;
/// Spreads page numbers over the older entries: 2^64 divided by the golden ratio.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;
/// Covers 32 MiB of pages and page tables; a miss costs a walk of the second stage by the owner.
const GUEST_ENTRIES: usize = 8192;
/// Bits of a set of code pages, per half of the address space.
const CODE_BITS: usize = 1024;
const PAGE: u64 = !0xFFF;
const LAST_GENERATION: u64 = 0xFFF;
/// Of no generation: never matches.
const NO_GPA: u64 = 0;
const LOWER: usize = 0;
const UPPER: usize = 1;

/// Which half of the address space an address is in.
#[inline(always)]
const fn half_of(linear: u64) -> usize {
    (linear >> 63) as usize
}

/// Whose rights an access has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum View {
    User = 0,
    /// SMAP forbids user pages.
    Supervisor = 1,
    /// SMAP is off or suspended by RFLAGS.AC.
    SupervisorNoSmap = 2,
    /// User, with alignment checks: nothing is cached for it, so that every access is looked at.
    UserAligned = 3,
}

impl View {
    /// Whether the rights are those of user code.
    #[inline(always)]
    pub(crate) const fn is_user(self) -> bool {
        matches!(self, Self::User | Self::UserAligned)
    }
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

impl LinearEntry {
    /// Where an address of the page is.
    #[inline(always)]
    pub(crate) fn place(&self, linear: u64) -> Place {
        Place { hpa: self.hpa.wrapping_add(linear & !PAGE), key: self.key }
    }

    /// Whether an access needs no further check, if the entry is live.
    pub(crate) const fn allows(&self, want: Want) -> bool {
        let tag = match want {
            Want::Read => self.read,
            Want::Write => self.write,
            Want::Execute => self.execute,
        };
        tag != 0
    }

    /// The tag of a filled entry: all of its tags that are not zero agree. Zero where it allows nothing.
    const fn tag(&self) -> u64 {
        self.read | self.write | self.execute
    }

    /// The half of the address space of a filled entry.
    const fn half(&self) -> usize {
        half_of(self.tag())
    }

    /// Whether the entry is for the page that begins at this linear address.
    const fn is_of(&self, page: u64) -> bool {
        self.tag() != 0 && self.tag() & PAGE == page
    }
}

/// An entry that gave its place to another page.
#[derive(Clone, Copy, Debug)]
struct OlderEntry {
    entry: LinearEntry,
    view: u8,
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

/// Made on the heap; the length is known to the compiler, so no look-up checks it.
fn empty_entries() -> Box<[LinearEntry; LINEAR_ENTRIES * VIEWS]> {
    let entries = vec![EMPTY; LINEAR_ENTRIES * VIEWS].into_boxed_slice();
    // The lengths are the same: nothing is ever made a second time.
    entries.try_into().unwrap_or_else(|_| Box::new([EMPTY; LINEAR_ENTRIES * VIEWS]))
}

#[derive(Clone, Copy, Debug)]
struct GuestEntry {
    /// The page, and the generation of the second stage in its low 12 bits.
    tag: u64,
    translation: Translation,
}

const NO_OLDER: OlderEntry = OlderEntry { entry: EMPTY, view: 0 };

const NO_GUEST: GuestEntry = GuestEntry {
    tag: NO_GPA,
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
    /// A MOV to CR3 may keep the translation.
    pub(crate) global: bool,
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
    /// The key that the page is reached with.
    pub key: KeyId,
    /// Size of the second-stage mapping when it was read.
    pub level: Level,
    /// Writes go through it.
    pub writable: bool,
}

/// The translation caches of one CPU.
#[derive(Debug)]
pub struct Tlb {
    linear: Box<[LinearEntry; LINEAR_ENTRIES * VIEWS]>,
    /// Entries of all views that had to give way.
    older: Box<[OlderEntry]>,
    guest: Box<[GuestEntry]>,
    /// 1 to [`LAST_GENERATION`].
    guest_generation: u64,
    /// Per half of the address space, 1 to [`LAST_GENERATION`].
    generation: [u64; 2],
    /// Per half; moves on with every flush of more than one page, and with one of a page that code may have run from.
    stamp: [u64; 2],
    /// Per half: pages that code was run from since the stamp moved on, as a set that may say yes too often.
    code: [[u64; CODE_BITS / 64]; 2],
    /// The upper half may hold translations that are not global.
    upper_has_local: bool,
    misses: u64,
    /// Bit n: a translation may be held whose rights depend on protection key n.
    keys: u16,
    /// Per half of the address space, first and last byte of what large guest pages were cached for: an
    /// invalidation inside must drop all pieces of such a page.
    large: [Option<(u64, u64)>; 2],
    /// A part of the linear entries, for compiled code: what goes here goes there.
    host: Option<Box<HostTlb>>,
}

impl Default for Tlb {
    fn default() -> Self {
        Self {
            linear: empty_entries(),
            older: vec![NO_OLDER; 1 << OLDER_BITS].into_boxed_slice(),
            guest: vec![NO_GUEST; GUEST_ENTRIES].into_boxed_slice(),
            guest_generation: 1,
            generation: [1; 2],
            stamp: [1; 2],
            code: [[0; CODE_BITS / 64]; 2],
            upper_has_local: false,
            misses: 0,
            keys: 0,
            large: [None; 2],
            host: None,
        }
    }
}

impl Tlb {
    /// Drops everything: INVEPT, a new TLB epoch.
    pub fn flush_all(&mut self) {
        self.flush_linear();
        if self.guest_generation == LAST_GENERATION {
            self.guest_generation = 1;
            self.guest.fill(NO_GUEST);
        } else {
            self.guest_generation += 1;
        }
    }

    /// Drops every linear translation, global ones too: a change of CR0, CR4 or EFER.
    pub fn flush_linear(&mut self) {
        self.flush_half(LOWER);
        self.flush_half(UPPER);
        self.keys = 0;
    }

    /// Notes that the rights of a translation depend on a protection key.
    pub(crate) fn note_key(&mut self, key: u8) {
        self.keys |= 1 << (key & 15);
    }

    /// Whether a translation may depend on any of these protection keys.
    pub(crate) const fn depends_on_keys(&self, keys: u16) -> bool {
        self.keys & keys != 0
    }

    /// Drops every linear translation that is not global: a MOV to CR3.
    pub(crate) fn flush_not_global(&mut self) {
        self.flush_half(LOWER);
        if self.upper_has_local {
            self.flush_half(UPPER);
        }
    }

    fn flush_half(&mut self, half: usize) {
        if half == UPPER {
            self.upper_has_local = false;
        }
        self.touch_half(half);
        if let Some(host) = &mut self.host {
            host.clear_half(half);
        }
        if let Some(large) = self.large.get_mut(half) {
            *large = None;
        }
        let Some(generation) = self.generation.get_mut(half) else { return };
        if *generation == LAST_GENERATION {
            *generation = 1;
            for entry in self.linear.iter_mut().filter(|e| e.half() == half) {
                *entry = EMPTY;
            }
            for older in self.older.iter_mut().filter(|o| o.entry.half() == half) {
                *older = NO_OLDER;
            }
        } else {
            *generation += 1;
        }
    }

    /// Drops the translations of one linear page, in all views: INVLPG. Where the guest maps it by a large
    /// page, all of that page goes.
    pub fn flush_linear_page(&mut self, linear: u64) {
        let half = half_of(linear);
        let large = self.large.get(half).copied().flatten();
        if large.is_some_and(|(first, last)| (first..=last).contains(&linear)) {
            self.flush_half(half);
            return;
        }
        if self.may_hold_code(linear) {
            self.touch_half(half);
        }
        for view in 0..VIEWS {
            if let Some(entry) = self.linear.get_mut(Self::index(view as u8, linear))
                && entry.is_of(linear & PAGE)
            {
                *entry = EMPTY;
            }
            self.drop_older(view as u8, linear);
            if let Some(host) = &mut self.host {
                host.clear_page(view, linear);
            }
        }
    }

    /// Notes that jumps may lead to code at this address as long as the stamp stays.
    pub(crate) fn note_code(&mut self, linear: u64) {
        let (word, bit) = Self::code_bit(linear);
        self.code[half_of(linear)][word] |= bit;
    }

    fn may_hold_code(&self, linear: u64) -> bool {
        let (word, bit) = Self::code_bit(linear);
        self.code[half_of(linear)][word] & bit != 0
    }

    /// The word and the bit of an address's page.
    const fn code_bit(linear: u64) -> (usize, u64) {
        let bit = (linear >> 12) as usize % CODE_BITS;
        (bit / 64, 1 << (bit % 64))
    }

    fn older_index(view: u8, linear: u64) -> usize {
        (((linear >> 12) ^ u64::from(view) << 52).wrapping_mul(SPREAD) >> (64 - OLDER_BITS)) as usize
    }

    /// The older entry of a page, if it has one that is live.
    pub(crate) fn older(&self, view: View, linear: u64) -> Option<&LinearEntry> {
        let older = self.older.get(Self::older_index(view as u8, linear))?;
        (older.view == view as u8 && older.entry.tag() == self.tag(linear)).then_some(&older.entry)
    }

    /// What is held of a page.
    fn held(&self, view: View, linear: u64) -> Option<LinearEntry> {
        let (recent, tag) = self.probe(view, linear);
        if recent.tag() == tag { Some(*recent) } else { self.older(view, linear).copied() }
    }

    /// Where an address is that some entry leads to.
    pub(crate) fn held_at(&self, view: View, linear: u64) -> Option<Hpa> {
        self.held(view, linear).map(|entry| entry.place(linear).hpa)
    }

    fn drop_older(&mut self, view: u8, linear: u64) {
        if let Some(older) = self.older.get_mut(Self::older_index(view, linear))
            && older.view == view
            && older.entry.is_of(linear & PAGE)
        {
            *older = NO_OLDER;
        }
    }

    fn is_live(&self, entry: &LinearEntry) -> bool {
        entry.tag() != 0 && entry.tag() & !PAGE == self.generation[entry.half()]
    }

    /// Keeps an entry that gives its place to another page, in the place of one that goes.
    fn keep_older(&mut self, view: u8, entry: LinearEntry) {
        let Some(place) = self.older.get_mut(Self::older_index(view, entry.tag())) else { return };
        let gone = core::mem::replace(place, OlderEntry { entry, view });
        if self.is_live(&gone.entry)
            && let Some(host) = &mut self.host
        {
            host.clear_data(usize::from(gone.view), gone.entry.tag());
        }
    }

    /// Drops the second-stage translation of a guest page and every linear one that leads to it.
    pub fn flush_guest_page(&mut self, gpa: Gpa) {
        let page = gpa.get() & PAGE;
        self.touch();
        if let Some(entry) = self.guest.get_mut(Self::guest_index(gpa))
            && entry.tag & PAGE == page
        {
            *entry = NO_GUEST;
        }
        let Self { linear, older, host, .. } = self;
        let mut drop_from_host = |view: usize, entry: &LinearEntry| {
            if let Some(host) = host {
                host.clear_data(view, entry.tag());
            }
        };
        for (n, entry) in linear.iter_mut().enumerate().filter(|(_, e)| e.gpa.get() == page) {
            drop_from_host(n / LINEAR_ENTRIES, entry);
            *entry = EMPTY;
        }
        for older in older.iter_mut().filter(|o| o.entry.gpa.get() == page) {
            drop_from_host(usize::from(older.view), &older.entry);
            *older = NO_OLDER;
        }
    }

    /// Every translation that the CPU may still use without asking the bus.
    pub fn entries(&self) -> impl Iterator<Item = CachedTranslation> + '_ {
        let generation = self.generation;
        let older = self.older.iter().map(|older| &older.entry);
        let linear = self.linear.iter().chain(older).filter_map(move |e| {
            let live = |tag: &u64| Some(&(tag & !PAGE)) == generation.get(half_of(*tag));
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
        let now = self.guest_generation;
        let guest = self.guest.iter().filter(move |e| e.tag & !PAGE == now).map(|e| CachedTranslation {
            linear: None,
            gpa: Gpa::new(e.tag & PAGE),
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
        self.touch_half(LOWER);
        self.touch_half(UPPER);
        if let Some(host) = &mut self.host {
            host.clear_code();
        }
    }

    fn touch_half(&mut self, half: usize) {
        if let Some(code) = self.code.get_mut(half) {
            code.fill(0);
        }
        if let Some(stamp) = self.stamp.get_mut(half) {
            *stamp = stamp.wrapping_add(1);
        }
    }

    /// Identifies the state of the linear TLB for the half of this address: unequal to an earlier one after any
    /// flush there that may concern code.
    #[inline(always)]
    pub(crate) fn stamp(&self, linear: u64) -> u64 {
        self.stamp[half_of(linear)]
    }

    #[inline(always)]
    fn index(view: u8, linear: u64) -> usize {
        (view as usize & (VIEWS - 1)) * LINEAR_ENTRIES + (linear >> 12) as usize % LINEAR_ENTRIES
    }

    /// The entry where a page would be, and the tag that it has if it is there.
    #[inline(always)]
    pub(crate) fn probe(&self, view: View, linear: u64) -> (&LinearEntry, u64) {
        (&self.linear[Self::index(view as u8, linear)], self.tag(linear))
    }

    /// The tag of a live entry for this page.
    #[inline(always)]
    fn tag(&self, linear: u64) -> u64 {
        linear & PAGE | self.generation[half_of(linear)]
    }

    pub(crate) fn fill(&mut self, view: View, linear: u64, fill: &Fill) -> LinearEntry {
        self.misses = self.misses.wrapping_add(1);
        let tag = self.tag(linear);
        self.upper_has_local |= half_of(linear) == UPPER && !fill.global;
        if fill.page_bytes > 4096 {
            let first = linear & !(fill.page_bytes - 1);
            let last = first | (fill.page_bytes - 1);
            let range = &mut self.large[half_of(linear)];
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
        // What was held of this page had other rights.
        self.drop_older(view as u8, linear);
        if let Some(host) = &mut self.host {
            host.clear_data(view as usize, linear);
        }
        if let Some(slot) = self.linear.get_mut(Self::index(view as u8, linear)) {
            let before = core::mem::replace(slot, entry);
            if self.is_live(&before) && !before.is_of(linear & PAGE) {
                self.keep_older(view as u8, before);
            }
        }
        entry
    }

    /// Whether branches of compiled code find code at this address in this place.
    pub(crate) fn leads_to(&self, linear: u64, place: CodePlace) -> bool {
        self.host.as_ref().is_some_and(|host| host.leads_to(linear, place))
    }

    /// The pages that compiled code may access by itself.
    pub(crate) fn host(&mut self) -> &mut HostTlb {
        self.host.get_or_insert_default()
    }

    /// Lets compiled code access a page in the way that it missed, as far as there is an entry that allows it; and in the
    /// other way, if no other page goes for that.
    pub(crate) fn expose(&mut self, view: View, miss: Miss, arena: &Arena) {
        let Miss { linear, right: wanted } = miss;
        let (Some(entry), tag) = (self.held(view, linear), self.tag(linear)) else { return };
        for (have, right) in [(entry.read, Right::Read), (entry.write, Right::Write)] {
            if have == tag {
                let fill = if right == wanted { HostTlb::fill } else { HostTlb::fill_free };
                fill(self.host(), view as usize, linear, right, arena, entry.hpa, entry.key);
            }
        }
    }

    #[inline]
    pub(crate) fn guest(&self, gpa: Gpa) -> Option<&Translation> {
        let entry = self.guest.get(Self::guest_index(gpa))?;
        (entry.tag == gpa.get() & PAGE | self.guest_generation).then_some(&entry.translation)
    }

    #[inline(always)]
    fn guest_index(gpa: Gpa) -> usize {
        (gpa.get() >> 12) as usize % GUEST_ENTRIES
    }

    pub(crate) fn fill_guest(&mut self, gpa: Gpa, translation: Translation) {
        let tag = gpa.get() & PAGE | self.guest_generation;
        if let Some(slot) = self.guest.get_mut(Self::guest_index(gpa)) {
            *slot = GuestEntry { tag, translation };
        }
    }
}
