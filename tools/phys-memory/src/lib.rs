//! Physical memory of an emulated machine, shared by all of its threads.
//!
//! # Protocol
//! - Memory is sparse: 2 MiB chunks come into being at the first write; reads of absent memory give zeros.
//!   A chunk is an anonymous mapping, whose pages the operating system provides when they are first written.
//! - Each 4 KiB page has one state word (`page.rs`): the key it was last written under, whether a CPU has
//!   decoded code from it, whether it was ever written, and a code generation. Every access names a key.
//! - A page that nobody wrote yet is zeros under every key that takes it, and [`Arena::clear_page`] does not
//!   touch it: what a guest accepts and does not use costs no memory.
//! - Keys at or above [`KeySpace::first_private`] are *private*. Access under a private key to a page with
//!   another key fails with [`MemoryFault::Integrity`] and changes nothing: the machine-check path. Under a
//!   shared key, reading such a page gives a pattern that depends on the address only, never on the
//!   contents; writing it destroys the contents and moves the page to the writer's key, so that the
//!   *owner's* next access is what fails. [`Arena::clear_page`] is MOVDIR64B over a page: it takes the page
//!   for a key whatever it was before.
//! - A store into a page whose code is watched bumps the page's code generation; whoever caches decoded
//!   code compares generations before running it. Code modified by one CPU while another decodes it is
//!   seen there no later than its next decode, as cross-modifying code must expect on hardware.
//! - [`Arena::snapshot`] freezes the contents; arenas made from a snapshot copy a chunk when they first
//!   write it. A slot goes absent → shared → owned or absent → owned and, once owned, keeps its chunk until
//!   the next `&mut` operation; replaced chunks are kept until then, so a reader never outlives what it reads.
//!
//! # Why the unsafe code here is sound
//! No integer ever becomes a pointer: pages are reached by an index into chunks that this module
//! mapped and keeps alive (see above). Guest memory is read and written by racing threads with mixed
//! sizes, which Rust's atomics do not allow; so all such accesses go through the instructions in
//! `access.rs`, each of which is one machine access with x86 ordering, on memory inside an `UnsafeCell`
//! that no Rust reference ever covers except as atomics.

#![expect(unsafe_code, reason = "guest memory is raced on with mixed sizes; the proof is in the module docs")]

extern crate alloc;

mod access;
mod chunk;
mod page;
mod snapshot;
mod window;

#[cfg(all(test, not(shuttle)))]
mod tests;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};
use std::sync::OnceLock;

use tdvisor_base::addr::{Hpa, KeyId, PAGE_SIZE, Pfn};
use tdvisor_base::sync::{Arc, Mutex, MutexGuard, preemption_point};
use tdvisor_base::table::Table;

pub use access::{Atomic, Word};
use chunk::{CHUNK_BYTES, Chunk, Mapped, PAGES_PER_CHUNK};
use page::PageWord;
pub use snapshot::Snapshot;
pub use window::{Incarnation, Window};

/// The largest arena: 1 TiB, whose chunk index is 4 MiB.
pub const MAX_ARENA_BYTES: u64 = 1 << 40;

/// Which key ids are private.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySpace {
    /// The lowest private key id; all above it are private too.
    pub first_private: u16,
}

impl KeySpace {
    /// A machine without private keys.
    pub const SHARED_ONLY: Self = Self { first_private: u16::MAX };

    const fn is_private(self, key: KeyId) -> bool {
        key.get() >= self.first_private
    }
}

/// Why an access did not happen. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryFault {
    /// The address is outside the arena.
    OutOfRange(Hpa),
    /// The access crosses a page boundary or is misaligned for what was asked.
    Misaligned(Hpa),
    /// A private-key access found the page under another key: a machine check in hardware.
    Integrity(Hpa),
}

impl fmt::Display for MemoryFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange(hpa) => write!(f, "host-physical address {hpa} is outside memory"),
            Self::Misaligned(hpa) => write!(f, "access at host-physical address {hpa} is misaligned"),
            Self::Integrity(hpa) => write!(f, "page of {hpa} is held under another key"),
        }
    }
}

impl core::error::Error for MemoryFault {}

/// What a store did besides storing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreEffect {
    /// Nothing.
    Plain,
    /// The page held decoded code: its generation moved on.
    CodeModified,
}

/// Is told of a page that a store under a shared key is about to take from its private key.
pub type TakeoverObserver = Box<dyn Fn(Pfn) + Send + Sync>;

/// The physical memory of one machine.
pub struct Arena {
    /// One slot per chunk. Bit 0 of the pointer set: shared with a snapshot, copy before writing.
    slots: Box<[AtomicPtr<Chunk>]>,
    /// Keeps every chunk alive that a slot points to, and those that were replaced.
    owners: Mutex<Owners>,
    /// Held during a locked access that one atomic operation cannot do.
    bus_lock: Mutex<()>,
    bytes: u64,
    keys: KeySpace,
    incarnation: Incarnation,
    takeovers: OnceLock<TakeoverObserver>,
}

#[derive(Default)]
struct Owners {
    live: Vec<Option<Arc<Mapped>>>,
    retired: Vec<Arc<Mapped>>,
}

const SHARED_TAG: usize = 1;

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Arena {
    /// Memory from address zero to `bytes`, rounded up to 2 MiB and capped at [`MAX_ARENA_BYTES`].
    pub fn new(bytes: u64, keys: KeySpace) -> Self {
        let chunks = bytes.min(MAX_ARENA_BYTES).div_ceil(CHUNK_BYTES) as usize;
        Self {
            slots: (0..chunks).map(|_| AtomicPtr::new(ptr::null_mut())).collect(),
            owners: Mutex::new(Owners { live: (0..chunks).map(|_| None).collect(), retired: Vec::new() }),
            bus_lock: Mutex::new(()),
            bytes: chunks as u64 * CHUNK_BYTES,
            keys,
            incarnation: Incarnation::next(),
            takeovers: OnceLock::new(),
        }
    }

    /// Has every store under a shared key that takes a page from a private key told to `observer`, whoever stores, before it
    /// does. The first observer stays. [`Self::clear_page`] is no such store.
    pub fn observe_takeovers(&self, observer: TakeoverObserver) {
        let _ = self.takeovers.set(observer);
    }

    /// The bus lock of this machine, which a locked access across two pages holds: such accesses are atomic to each other.
    /// Accesses within one page do not take it, so one of those by another processor may fall between the two halves; on
    /// hardware the bus lock keeps it out.
    pub fn lock_bus(&self) -> MutexGuard<'_, ()> {
        self.bus_lock.lock()
    }

    /// Size of the address space, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of chunks that exist (the operating system backs them as they are touched).
    pub fn reserved_bytes(&self) -> u64 {
        self.owners.lock().live.iter().flatten().count() as u64 * CHUNK_BYTES
    }

    /// The distance between two addresses for which [`Self::is_absent`] gives answers of its own, in bytes.
    pub const GRANULE: u64 = CHUNK_BYTES;

    /// Whether nothing in the [granule](Self::GRANULE) of an address was ever written, so that all of it is zeros under the
    /// default key; also where there is no memory.
    pub fn is_absent(&self, hpa: Hpa) -> bool {
        !matches!(self.readable(hpa), Ok(Some(_)))
    }

    /// Reads one word that does not cross a page.
    ///
    /// # Errors
    /// [`MemoryFault`]; see the module docs for what keys do.
    #[inline(always)]
    pub fn load<W: Word>(&self, hpa: Hpa, key: KeyId) -> Result<W, MemoryFault> {
        preemption_point();
        check_within_page(hpa, size_of::<W>())?;
        let Some(chunk) = self.readable(hpa)? else { return self.load_absent(hpa, key) };
        if chunk.word(hpa).load(Ordering::Relaxed) & PageWord::KEY_MASK == u64::from(key.get()) {
            // SAFETY: `data_ptr` points at `hpa` inside the live chunk and the word ends inside its page.
            Ok(unsafe { W::load(chunk.data_ptr(hpa)) })
        } else {
            self.refuse_private(hpa, key)?;
            Ok(W::pattern(hpa))
        }
    }

    /// Writes one word that does not cross a page.
    ///
    /// # Errors
    /// [`MemoryFault`]; see the module docs for what keys do.
    #[inline(always)]
    pub fn store<W: Word>(&self, hpa: Hpa, key: KeyId, value: W) -> Result<StoreEffect, MemoryFault> {
        preemption_point();
        check_within_page(hpa, size_of::<W>())?;
        let (chunk, effect) = self.writable(hpa, key)?;
        // SAFETY: as in `load`; the chunk is owned by this arena, so no snapshot sees the write.
        unsafe { W::store(chunk.data_ptr(hpa), value) };
        Ok(after_store(chunk, hpa, effect))
    }

    /// Replaces one word that does not cross a page by a function of it, as a load and a store do: not as one operation.
    ///
    /// # Errors
    /// [`MemoryFault`]; see the module docs for what keys do. Nothing was written and `update` was not called.
    #[inline(always)]
    pub fn update<W: Word>(
        &self,
        hpa: Hpa,
        key: KeyId,
        update: impl FnOnce(W) -> W,
    ) -> Result<StoreEffect, MemoryFault> {
        preemption_point();
        check_within_page(hpa, size_of::<W>())?;
        let (chunk, effect) = self.writable(hpa, key)?;
        // SAFETY: as in `store`.
        let old = unsafe { W::load(chunk.data_ptr(hpa)) };
        preemption_point();
        // SAFETY: as in `store`.
        unsafe { W::store(chunk.data_ptr(hpa), update(old)) };
        Ok(after_store(chunk, hpa, effect))
    }

    /// LOCK CMPXCHG: replaces `current` by `new`, and gives the value found and whether it was `current`.
    ///
    /// # Errors
    /// [`MemoryFault`]; 16-byte words must be 16-byte aligned.
    #[inline]
    pub fn compare_exchange<W: Atomic>(
        &self,
        hpa: Hpa,
        key: KeyId,
        current: W,
        new: W,
    ) -> Result<(W, bool, StoreEffect), MemoryFault> {
        preemption_point();
        check_within_page(hpa, size_of::<W>())?;
        if size_of::<W>() == 16 && !hpa.is_aligned(16) {
            return Err(MemoryFault::Misaligned(hpa));
        }
        let (chunk, effect) = self.writable(hpa, key)?;
        // SAFETY: as in `store`; alignment for the 16-byte form was checked.
        let (found, replaced) = unsafe { W::compare_exchange(chunk.data_ptr(hpa), current, new) };
        Ok((found, replaced, after_store(chunk, hpa, effect)))
    }

    /// Applies `update` atomically and gives the old value.
    ///
    /// # Errors
    /// [`MemoryFault`].
    pub fn fetch_update<W: Atomic>(
        &self,
        hpa: Hpa,
        key: KeyId,
        mut update: impl FnMut(W) -> W,
    ) -> Result<(W, StoreEffect), MemoryFault> {
        let mut current = self.load::<W>(hpa, key)?;
        loop {
            let (found, replaced, effect) = self.compare_exchange(hpa, key, current, update(current))?;
            if replaced {
                return Ok((found, effect));
            }
            current = found;
        }
    }

    /// Copies memory out; may cross pages. Not atomic as a whole.
    ///
    /// # Errors
    /// [`MemoryFault`]; what was copied before the failing page stays in `out`.
    pub fn read(&self, hpa: Hpa, key: KeyId, out: &mut [u8]) -> Result<(), MemoryFault> {
        let mut at = hpa;
        let mut rest = out;
        while !rest.is_empty() {
            preemption_point();
            let room = (PAGE_SIZE - at.page_offset()) as usize;
            let (piece, tail) = rest.split_at_mut(room.min(rest.len()));
            match self.readable(at)? {
                Some(chunk)
                    if chunk.word(at).load(Ordering::Relaxed) & PageWord::KEY_MASK
                        == u64::from(key.get()) =>
                {
                    // SAFETY: `piece` lies inside one page of the live chunk and cannot overlap it.
                    unsafe { access::copy_out(chunk.data_ptr(at), piece) };
                }
                None if key == KeyId::DEFAULT => piece.fill(0),
                _ => {
                    self.refuse_private(at, key)?;
                    access::fill_pattern(at, piece);
                }
            }
            at = at.checked_add(piece.len() as u64).ok_or(MemoryFault::OutOfRange(at))?;
            rest = tail;
        }
        Ok(())
    }

    /// Copies memory in; may cross pages. Not atomic as a whole.
    ///
    /// # Errors
    /// [`MemoryFault`]; the range is checked before the first byte is written, keys page by page.
    pub fn write(&self, hpa: Hpa, key: KeyId, data: &[u8]) -> Result<StoreEffect, MemoryFault> {
        match hpa.checked_add(data.len() as u64) {
            Some(end) if end.get() <= self.bytes => {}
            _ => return Err(MemoryFault::OutOfRange(hpa)),
        }
        let mut at = hpa;
        let mut rest = data;
        let mut effect = StoreEffect::Plain;
        while !rest.is_empty() {
            preemption_point();
            let room = (PAGE_SIZE - at.page_offset()) as usize;
            let (piece, tail) = rest.split_at(room.min(rest.len()));
            let (chunk, page_effect) = self.writable(at, key)?;
            if page_effect == StoreEffect::CodeModified {
                effect = page_effect;
            }
            // SAFETY: `piece` lies inside one page of the owned chunk and cannot overlap it.
            unsafe { access::copy_in(chunk.data_ptr(at), piece) };
            at = at.wrapping_add(piece.len() as u64);
            rest = tail;
        }
        Ok(effect)
    }

    /// MOVDIR64B over a whole page: the page becomes zero under `key`, whatever it was before.
    ///
    /// # Errors
    /// [`MemoryFault::OutOfRange`].
    pub fn clear_page(&self, pfn: Pfn, key: KeyId) -> Result<(), MemoryFault> {
        preemption_point();
        let hpa = pfn.base();
        if self.readable(hpa)?.is_none() && key == KeyId::DEFAULT {
            return Ok(());
        }
        let chunk = self.owned(hpa)?;
        if PageWord::take_for(chunk.word(hpa), key) {
            // SAFETY: one whole page of the owned chunk.
            unsafe { access::zero(chunk.data_ptr(hpa), PAGE_SIZE as usize) };
        }
        Ok(())
    }

    /// The key that a page is held under.
    ///
    /// # Errors
    /// [`MemoryFault::OutOfRange`].
    pub fn page_key(&self, pfn: Pfn) -> Result<KeyId, MemoryFault> {
        let hpa = pfn.base();
        Ok(self.readable(hpa)?.map_or(KeyId::DEFAULT, |c| PageWord::key(c.word(hpa).load(Ordering::Relaxed))))
    }

    /// Marks a page as holding decoded code and gives its generation.
    ///
    /// Call it *before* reading the code bytes.
    ///
    /// # Errors
    /// [`MemoryFault::OutOfRange`].
    pub fn watch_code(&self, pfn: Pfn) -> Result<u32, MemoryFault> {
        let hpa = pfn.base();
        let chunk = self.owned(hpa)?;
        Ok(PageWord::watch(chunk.word(hpa)))
    }

    /// The code generation of a page: unequal to an earlier one means that the page's code may differ.
    #[inline]
    pub fn code_generation(&self, pfn: Pfn) -> u32 {
        match self.readable(pfn.base()) {
            Ok(Some(chunk)) => PageWord::generation(chunk.word(pfn.base()).load(Ordering::Acquire)),
            _ => 0,
        }
    }

    /// A page as 512 atomic words: page tables and other structures that hardware and software race on.
    ///
    /// Accesses through the table bypass keys and code watching, as a page walker does; the page must be
    /// one that holds a table.
    ///
    /// # Errors
    /// [`MemoryFault::OutOfRange`].
    pub fn table(&self, pfn: Pfn) -> Result<&Table, MemoryFault> {
        let hpa = pfn.base();
        let chunk = self.owned(hpa)?;
        PageWord::note_written(chunk.word(hpa));
        // SAFETY: the page is 16-byte aligned and inside the owned chunk, which lives as long as `self` is
        // borrowed; `AtomicU64` (and its shuttle twin, which is transparent) has interior mutability
        // and no invalid values.
        Ok(unsafe { &*chunk.data_ptr(hpa).cast::<Table>() })
    }

    /// The chunk of an address, if it exists.
    #[inline]
    fn readable(&self, hpa: Hpa) -> Result<Option<&Chunk>, MemoryFault> {
        let slot = self.slots.get((hpa.get() / CHUNK_BYTES) as usize).ok_or(MemoryFault::OutOfRange(hpa))?;
        let tagged = slot.load(Ordering::Acquire);
        let chunk = tagged.map_addr(|a| a & !SHARED_TAG);
        // SAFETY: a slot is null or points at a chunk that `owners` keeps alive until `&mut self`.
        Ok(unsafe { chunk.as_ref() })
    }

    /// The chunk of an address, ready to be written by this arena alone.
    #[inline]
    fn owned(&self, hpa: Hpa) -> Result<&Chunk, MemoryFault> {
        let index = (hpa.get() / CHUNK_BYTES) as usize;
        let slot = self.slots.get(index).ok_or(MemoryFault::OutOfRange(hpa))?;
        let tagged = slot.load(Ordering::Acquire);
        if tagged.is_null() || tagged.addr() & SHARED_TAG != 0 {
            return Ok(self.materialise(index, slot));
        }
        // SAFETY: as in `readable`; the tag is clear.
        Ok(unsafe { &*tagged })
    }

    /// The chunk of an address, if this arena alone has it.
    fn owned_already(&self, hpa: Hpa) -> Option<&Chunk> {
        let tagged = self.slots.get((hpa.get() / CHUNK_BYTES) as usize)?.load(Ordering::Acquire);
        if tagged.addr() & SHARED_TAG != 0 {
            return None;
        }
        // SAFETY: as in `readable`; the tag is clear.
        unsafe { tagged.as_ref() }
    }

    /// The chunk of an address for a write under `key`, with what that write does to the page's state.
    #[inline]
    fn writable(&self, hpa: Hpa, key: KeyId) -> Result<(&Chunk, StoreEffect), MemoryFault> {
        let chunk = self.owned(hpa)?;
        let word = chunk.word(hpa);
        let state = word.load(Ordering::Relaxed) & (PageWord::KEY_MASK | PageWord::CODE | PageWord::WRITTEN);
        if state == u64::from(key.get()) | PageWord::WRITTEN {
            return Ok((chunk, StoreEffect::Plain));
        }
        Ok((chunk, self.prepare_write(chunk, hpa, key)?))
    }

    #[cold]
    fn prepare_write(&self, chunk: &Chunk, hpa: Hpa, key: KeyId) -> Result<StoreEffect, MemoryFault> {
        let word = chunk.word(hpa);
        let held_under = PageWord::key(word.load(Ordering::Relaxed));
        if held_under != key {
            self.refuse_private(hpa, key)?;
            if self.keys.is_private(held_under)
                && let Some(observer) = self.takeovers.get()
            {
                observer(hpa.frame());
            }
            let page = hpa.align_down(PAGE_SIZE);
            PageWord::take_for(word, key);
            PageWord::note_written(word);
            let mut pattern = [0u8; PAGE_SIZE as usize];
            access::fill_pattern(page, &mut pattern);
            // SAFETY: one whole page of the owned chunk.
            unsafe { access::copy_in(chunk.data_ptr(page), &pattern) };
            return Ok(StoreEffect::CodeModified);
        }
        PageWord::note_written(word);
        Ok(PageWord::note_store(word))
    }

    fn load_absent<W: Word>(&self, hpa: Hpa, key: KeyId) -> Result<W, MemoryFault> {
        if key == KeyId::DEFAULT {
            return Ok(W::ZERO);
        }
        self.refuse_private(hpa, key)?;
        Ok(W::pattern(hpa))
    }

    fn refuse_private(&self, hpa: Hpa, key: KeyId) -> Result<(), MemoryFault> {
        if self.keys.is_private(key) { Err(MemoryFault::Integrity(hpa)) } else { Ok(()) }
    }

    #[cold]
    fn materialise<'a>(&'a self, index: usize, slot: &'a AtomicPtr<Chunk>) -> &'a Chunk {
        let mut owners = self.owners.lock();
        let tagged = slot.load(Ordering::Acquire);
        if tagged.is_null() || tagged.addr() & SHARED_TAG != 0 {
            // SAFETY: as in `readable`.
            let old = unsafe { tagged.map_addr(|a| a & !SHARED_TAG).as_ref() };
            let chunk = Mapped::new_copy_of(old);
            slot.store(chunk.as_ptr(), Ordering::Release);
            if let Some(entry) = owners.live.get_mut(index)
                && let Some(replaced) = entry.replace(chunk)
            {
                owners.retired.push(replaced);
            }
        }
        // SAFETY: the slot now holds an owned chunk that `owners` keeps alive.
        unsafe { &*slot.load(Ordering::Acquire) }
    }
}

/// A CPU may have begun to watch the page between the check before the store and the store itself: it may have
/// decoded the old bytes, so the store counts as one into watched code.
#[inline(always)]
fn after_store(chunk: &Chunk, hpa: Hpa, effect: StoreEffect) -> StoreEffect {
    let word = chunk.word(hpa);
    if word.load(Ordering::Relaxed) & PageWord::CODE == 0 { effect } else { PageWord::note_store(word) }
}

/// An access must end inside the page that it starts in.
#[inline(always)]
fn check_within_page(hpa: Hpa, size: usize) -> Result<(), MemoryFault> {
    if hpa.page_offset() + size as u64 <= PAGE_SIZE { Ok(()) } else { Err(MemoryFault::Misaligned(hpa)) }
}

const _: () = assert!(PAGES_PER_CHUNK as u64 * PAGE_SIZE == CHUNK_BYTES);
