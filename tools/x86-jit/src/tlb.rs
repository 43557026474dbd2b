//! Where pages of a linear address space are: in this process, for loads and stores of compiled code, and in memory, for its
//! branches.
//!
//! # Protocol
//! - The owner has a TLB of its own, of which this one holds a part: a page has its place by its number's low bits, in one
//!   table of [`PAGES`] entries for each view and right, and goes when it goes from the owner's.
//! - An entry is a [`phys_memory::Window`] into the arena and the key that the page must be held under; compiled code looks at the
//!   state word before every access. A store may find watched code behind it, as is said there.
//! - Code pages have entries of their own, which say in which page of memory the code is ([`CodePlace`]). Like an instruction TLB
//!   these go with what the guest or the owner invalidates, and not with what the owner's TLB has no room for.

use phys_memory::{Arena, Incarnation, Window};
use tdvisor_base::{Hpa, KeyId, Pfn};

use crate::context::Jump;

/// Entries of one view.
pub const PAGES: usize = 1024;
/// Address spaces with rights of their own.
pub const VIEWS: usize = 4;
/// One for each right, and one for code.
const TABLES: usize = 3;
const CODE_TABLE: usize = 2;
const PAGE: u64 = !0xFFF;
/// Entries of one half of the address space that are found again when it goes; behind more, everything is looked at.
const MAX_FILLED: usize = 1024;
const _: () = assert!(VIEWS * TABLES * PAGES <= 1 << 16);
/// Not the first byte of a page: matches nothing.
const NOTHING: u64 = 1;

/// What compiled code reads; it knows the layout.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Entry {
    /// The linear page.
    pub(crate) page: u64,
    /// Address in this process minus linear address.
    pub(crate) addend: u64,
    /// The address of the page's state word.
    pub(crate) word: u64,
    /// What the state word's low half must be, as far as the access asks: a write wants a page that was written before.
    /// For code, its place.
    pub(crate) key: u64,
}

const EMPTY: Entry = Entry { page: NOTHING, addend: 0, word: 0, key: 0 };

/// log2 of an entry's size.
pub(crate) const ENTRY_SHIFT: u32 = 5;
const _: () = assert!(size_of::<Entry>() == 1 << ENTRY_SHIFT);

/// In which page of memory code is, and under which key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CodePlace(u64);

impl CodePlace {
    /// Bits of a key beside the page's number.
    const KEY_BITS: u32 = 16;

    /// This page under this key.
    pub const fn new(page: Pfn, key: KeyId) -> Self {
        Self(page.get() << Self::KEY_BITS | key.get() as u64)
    }

    pub(crate) const fn word(self) -> u64 {
        self.0
    }

    /// The place that an entry of the jump table is for.
    pub(crate) const fn of(jump: &Jump) -> Self {
        Self(jump.place)
    }

    /// The page.
    pub const fn page(self) -> Pfn {
        Pfn::new(self.0 >> Self::KEY_BITS)
    }
}

/// What may be done with a page without asking.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Right {
    /// Data reads.
    Read = 0,
    /// Data writes, and reads before them.
    Write = 1,
}

/// The pages that compiled code may access by itself.
#[derive(Debug)]
pub struct HostTlb {
    /// By view and right.
    tables: Box<[Entry]>,
    /// Per half of the address space: where entries were put since all of that half went.
    filled: [Vec<u16>; 2],
    incarnation: Option<Incarnation>,
}

impl Default for HostTlb {
    fn default() -> Self {
        Self {
            tables: vec![EMPTY; VIEWS * TABLES * PAGES].into_boxed_slice(),
            filled: [Vec::new(), Vec::new()],
            incarnation: None,
        }
    }
}

const fn half_of(linear: u64) -> usize {
    (linear >> 63) as usize
}

/// Where the table of a view and a right begins.
const fn table_of(view: usize, right: usize) -> usize {
    (view % VIEWS * TABLES + right % TABLES) * PAGES
}

const fn index_of(view: usize, right: usize, linear: u64) -> usize {
    table_of(view, right) + (linear >> 12) as usize % PAGES
}

impl HostTlb {
    /// Drops all entries of one half of the address space: 0 the lower, 1 the upper.
    pub fn clear_half(&mut self, half: usize) {
        let Some(filled) = self.filled.get_mut(half) else { return };
        if filled.len() > MAX_FILLED {
            for entry in self.tables.iter_mut().filter(|e| half_of(e.page) == half) {
                entry.page = NOTHING;
            }
        } else {
            for place in filled.iter() {
                if let Some(entry) = self.tables.get_mut(usize::from(*place))
                    && half_of(entry.page) == half
                {
                    entry.page = NOTHING;
                }
            }
        }
        filled.clear();
    }

    /// Drops the page of an address for loads and stores, in one view.
    pub fn clear_data(&mut self, view: usize, linear: u64) {
        for right in [Right::Read, Right::Write] {
            self.clear_entry(index_of(view, right as usize, linear), linear);
        }
    }

    /// Drops the page of an address for loads, stores and branches, in one view.
    pub fn clear_page(&mut self, view: usize, linear: u64) {
        self.clear_data(view, linear);
        self.clear_entry(index_of(view, CODE_TABLE, linear), linear);
    }

    fn clear_entry(&mut self, place: usize, linear: u64) {
        let entry = &mut self.tables[place];
        if entry.page == linear & PAGE {
            entry.page = NOTHING;
        }
    }

    /// Drops all code pages.
    pub fn clear_code(&mut self) {
        for view in 0..VIEWS {
            let begin = table_of(view, CODE_TABLE);
            for entry in &mut self.tables[begin..begin + PAGES] {
                entry.page = NOTHING;
            }
        }
    }

    /// Lets branches find code in the page of an address, as long as nothing that concerns it is invalidated.
    pub fn fill_code(&mut self, view: usize, linear: u64, place: CodePlace) {
        let page = linear & PAGE;
        let index = index_of(view, CODE_TABLE, linear);
        let entry = &mut self.tables[index];
        if entry.page != page || entry.key != place.word() {
            *entry = Entry { page, addend: 0, word: 0, key: place.word() };
            self.note_filled(index, linear);
        }
    }

    /// Whether branches find code at this address in this place, with the rights of some view.
    pub fn leads_to(&self, linear: u64, place: CodePlace) -> bool {
        (0..VIEWS).any(|view| {
            let entry = &self.tables[index_of(view, CODE_TABLE, linear)];
            entry.page == linear & PAGE && entry.key == place.word()
        })
    }

    fn note_filled(&mut self, index: usize, linear: u64) {
        let filled = &mut self.filled[half_of(linear)];
        if filled.len() <= MAX_FILLED {
            filled.push(index as u16);
        }
    }

    /// Drops everything that belongs to another arena, or to another incarnation of this one.
    pub(crate) fn follow(&mut self, arena: &Arena) {
        if self.incarnation != Some(arena.incarnation()) {
            self.incarnation = Some(arena.incarnation());
            self.clear_half(0);
            self.clear_half(1);
        }
    }

    /// Lets compiled code access a page that the owner's TLB holds with this right. Nothing happens where the page
    /// may still move in this process, or is held under another key.
    pub fn fill(&mut self, view: usize, linear: u64, right: Right, arena: &Arena, hpa: Hpa, key: KeyId) {
        self.follow(arena);
        if arena.page_key(hpa.frame()) != Ok(key) {
            return;
        }
        let Some(window) = arena.window(hpa.frame()) else { return };
        let page = linear & PAGE;
        let data = window.data().as_ptr().expose_provenance() as u64;
        let asked = if right == Right::Write { Window::WRITTEN } else { 0 };
        let place = index_of(view, right as usize, linear);
        self.tables[place] = Entry {
            page,
            addend: data.wrapping_sub(page),
            word: window.word().as_ptr().expose_provenance() as u64,
            key: u64::from(key.get()) | u64::from(asked),
        };
        self.note_filled(place, linear);
    }

    /// As [`Self::fill`], where no other page has the place.
    pub fn fill_free(&mut self, view: usize, linear: u64, right: Right, arena: &Arena, hpa: Hpa, key: KeyId) {
        let there = self.tables[index_of(view, right as usize, linear)].page;
        if there == NOTHING || there == linear & PAGE {
            self.fill(view, linear, right, arena, hpa, key);
        }
    }

    /// The address of the table of a view and a right: [`PAGES`] entries.
    pub(crate) fn table(&mut self, view: usize, right: Right) -> u64 {
        self.address_of(table_of(view, right as usize))
    }

    /// The address of the table of a view's code pages: [`PAGES`] entries.
    pub(crate) fn code_table(&mut self, view: usize) -> u64 {
        self.address_of(table_of(view, CODE_TABLE))
    }

    fn address_of(&mut self, begin: usize) -> u64 {
        self.tables[begin..begin + PAGES].as_mut_ptr().expose_provenance() as u64
    }
}
