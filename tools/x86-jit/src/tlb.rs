//! Where pages of a linear address space are in this process, for loads and stores of compiled code.
//!
//! # Protocol
//! - The owner has a TLB of its own, of which this one holds a part: the entry of a page lies in the same place of the
//!   same view ([`PAGES`] entries, by the low bits of the page number), and goes when the owner's goes.
//! - An entry is a [`phys_memory::Window`] into the arena and the key that the page must be held under; compiled code looks at the
//!   state word before every access. A store may find watched code behind it, as is said there.

use phys_memory::{Arena, Incarnation};
use tdvisor_base::{Hpa, KeyId};

/// Entries of one view.
pub const PAGES: usize = 1024;
/// Address spaces with rights of their own.
pub const VIEWS: usize = 4;
/// One per right.
const TABLES: usize = 2;
const PAGE: u64 = !0xFFF;
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
    /// What the state word's low half must be, as far as the access asks.
    pub(crate) key: u64,
}

const EMPTY: Entry = Entry { page: NOTHING, addend: 0, word: 0, key: 0 };

/// log2 of an entry's size.
pub(crate) const ENTRY_SHIFT: u32 = 5;
const _: () = assert!(size_of::<Entry>() == 1 << ENTRY_SHIFT);

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
    /// Per view and half of the address space: there may be entries.
    used: [[bool; 2]; VIEWS],
    incarnation: Option<Incarnation>,
}

impl Default for HostTlb {
    fn default() -> Self {
        Self {
            tables: vec![EMPTY; VIEWS * TABLES * PAGES].into_boxed_slice(),
            used: [[false; 2]; VIEWS],
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
        for (tables, used) in self.tables.chunks_exact_mut(TABLES * PAGES).zip(&mut self.used) {
            let Some(used) = used.get_mut(half) else { continue };
            if core::mem::take(used) {
                for entry in tables.iter_mut().filter(|e| half_of(e.page) == half) {
                    entry.page = NOTHING;
                }
            }
        }
    }

    /// Drops what lies where the entry of an address is, in one view.
    pub fn clear_slot(&mut self, view: usize, linear: u64) {
        for right in [Right::Read, Right::Write] {
            self.tables[index_of(view, right as usize, linear)].page = NOTHING;
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
        self.tables[index_of(view, right as usize, linear)] = Entry {
            page,
            addend: data.wrapping_sub(page),
            word: window.word().as_ptr().expose_provenance() as u64,
            key: u64::from(key.get()),
        };
        self.used[view % VIEWS][half_of(linear)] = true;
    }

    /// The address of the table of a view and a right: [`PAGES`] entries.
    pub(crate) fn table(&mut self, view: usize, right: Right) -> u64 {
        let begin = table_of(view, right as usize);
        self.tables[begin..begin + PAGES].as_mut_ptr().expose_provenance() as u64
    }
}
