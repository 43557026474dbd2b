//! Pages as addresses of this process, for generated code that accesses guest memory by itself.
//!
//! # Protocol
//! - A [`Window`] is good as long as the arena is borrowed, and beyond that as long as [`Arena::incarnation`] stays what it
//!   was: only `&mut` operations and the arena's end take a chunk away from its slot, and both end the incarnation.
//! - Whoever accesses memory through a window does for every access what [`Arena::load`] and [`Arena::store`] do: it compares the
//!   state word with the key it was made for before, a store also finds [`Window::WRITTEN`] set there and [`Window::CODE`] clear, and after a
//!   store it looks for [`Window::CODE`] again. Where one of these says no, it leaves the access to the arena, or tells it about the store ([`Arena::note_code_store`]).

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use tdvisor_base::addr::{Hpa, PAGE_SIZE, Pfn};

use super::page::PageWord;
use super::{Arena, StoreEffect};

/// Names one arena between two of its `&mut` operations; no two arenas of a process ever have the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Incarnation(u64);

impl Incarnation {
    pub(super) fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed))
    }
}

/// Where one page is in this process. The addresses are for generated code; nothing in safe code follows them.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    data: NonNull<u8>,
    word: NonNull<u64>,
}

impl Window {
    /// Bits of the state word that hold the page's key.
    pub const KEY_MASK: u32 = PageWord::KEY_MASK as u32;
    /// Bit of the state word that says that some CPU has decoded code from the page.
    pub const CODE: u32 = PageWord::CODE as u32;
    /// Bit of the state word that is set before the page's first byte is written.
    pub const WRITTEN: u32 = PageWord::WRITTEN as u32;
    /// Where the code generation is in the state word, in bytes: four bytes, little-endian.
    pub const GENERATION_OFFSET: u32 = 4;

    /// The first of the page's 4096 bytes.
    pub const fn data(&self) -> NonNull<u8> {
        self.data
    }

    /// The page's state word.
    pub const fn word(&self) -> NonNull<u64> {
        self.word
    }
}

impl Arena {
    /// Which incarnation of which arena this is: how long a [`Window`] is good.
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Where a page is, if it lies in a chunk that only this arena has. No other page stays where it is: the first write to
    /// its chunk moves it.
    pub fn window(&self, pfn: Pfn) -> Option<Window> {
        let hpa = pfn.base().align_down(PAGE_SIZE);
        let chunk = self.owned_already(hpa)?;
        Some(Window { data: NonNull::new(chunk.data_ptr(hpa))?, word: NonNull::from(chunk.word(hpa)).cast() })
    }

    /// Notes a store through a [`Window`] behind which the page turned out to hold watched code.
    pub fn note_code_store(&self, hpa: Hpa) -> StoreEffect {
        self.owned_already(hpa).map_or(StoreEffect::Plain, |chunk| PageWord::note_store(chunk.word(hpa)))
    }
}
