//! The table by which shadow pages are found, allocated when the first shadow root is.
//!
//! # Protocol
//! Most guests never use nested paging, so the table does not exist until somebody asks for a shadow root.
//! 1. Creators are serialised by a lock of their own and publish the table once. They hold no MMU guard.
//! 2. Whoever reads holds the MMU in some mode ([`Held`]). A reader that finds no table, and one that finds a
//!    fresh one, see the same: no page.
//! 3. A list changes only under [`Exclusive`], and only for who has the [`Ready`] that [`PageHash::allocate`]
//!    gives. So between two looks in one section nothing can appear, whether or not the table was published
//!    in between (44).
//!
//! The last two sentences are the whole argument why publication needs no MMU lock; both are in the types.

use alloc::boxed::Box;
use alloc::vec::Vec;

use tdvisor_base::Gfn;
use tdvisor_base::sync::Mutex;

use super::Role;
use crate::lock::{Exclusive, Shared};
use crate::once::Once;
use crate::table::NoMemory;

/// Lists in the table.
const BUCKETS: usize = if cfg!(any(loom, shuttle)) { 2 } else { 4096 };

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Shared<'_> {}
    impl Sealed for super::Exclusive<'_> {}
}

/// The MMU lock, in whichever mode.
pub trait Held: sealed::Sealed {}
impl Held for Shared<'_> {}
impl Held for Exclusive<'_> {}

/// What a shadow page shadows, and where it is.
#[derive(Clone, Copy, Debug)]
struct Entry {
    gfn: Gfn,
    role: Role,
    page: u32,
}

type Buckets = Box<[Mutex<Vec<Entry>>]>;

/// The table, or its absence.
#[derive(Debug)]
pub struct PageHash {
    buckets: Once<Buckets>,
    creators: Mutex<()>,
}

impl Default for PageHash {
    fn default() -> Self {
        Self::new()
    }
}

/// Proof that the table exists; only with it can anything be put in.
#[derive(Clone, Copy, Debug)]
pub struct Ready<'h>(&'h Buckets);

impl PageHash {
    /// No table yet.
    pub fn new() -> Self {
        Self { buckets: Once::new(), creators: Mutex::new(()) }
    }

    /// Makes sure that the table exists. Needs no MMU guard.
    ///
    /// # Errors
    /// [`NoMemory`]: nothing changed, the guest goes on without nested paging, and it may be tried again.
    pub fn allocate(&self) -> Result<Ready<'_>, NoMemory> {
        if let Some(buckets) = self.buckets.get() {
            return Ok(Ready(buckets));
        }
        let _alone = self.creators.lock();
        if let Some(buckets) = self.buckets.get() {
            return Ok(Ready(buckets));
        }
        let mut list = Vec::new();
        list.try_reserve_exact(BUCKETS).map_err(|_| NoMemory)?;
        list.extend((0..BUCKETS).map(|_| Mutex::new(Vec::new())));
        Ok(Ready(self.buckets.publish(list.into_boxed_slice())))
    }

    /// Whether the table exists.
    pub fn is_allocated(&self) -> bool {
        self.buckets.get().is_some()
    }

    /// The page that shadows `gfn` in this role and that the caller still counts as valid.
    pub fn find(&self, _held: &impl Held, gfn: Gfn, role: Role, valid: impl Fn(u32) -> bool) -> Option<u32> {
        let list = bucket(self.buckets.get()?, gfn)?.lock();
        list.iter().find(|e| e.gfn == gfn && e.role == role && valid(e.page)).map(|e| e.page)
    }

    /// Every page that shadows `gfn`, in whatever role.
    pub fn all(&self, _held: &impl Held, gfn: Gfn) -> Vec<u32> {
        let Some(list) = self.buckets.get().and_then(|buckets| bucket(buckets, gfn)) else {
            return Vec::new();
        };
        list.lock().iter().filter(|e| e.gfn == gfn).map(|e| e.page).collect()
    }
}

impl Ready<'_> {
    /// Adds a page.
    ///
    /// # Errors
    /// [`NoMemory`].
    pub fn insert(
        &self,
        _alone: &mut Exclusive<'_>,
        gfn: Gfn,
        role: Role,
        page: u32,
    ) -> Result<(), NoMemory> {
        let mut list = bucket(self.0, gfn).ok_or(NoMemory)?.lock();
        list.try_reserve(1).map_err(|_| NoMemory)?;
        list.push(Entry { gfn, role, page });
        Ok(())
    }

    /// Takes a page out.
    pub fn remove(&self, _alone: &mut Exclusive<'_>, gfn: Gfn, page: u32) {
        if let Some(list) = bucket(self.0, gfn) {
            list.lock().retain(|e| e.page != page);
        }
    }
}

fn bucket(buckets: &Buckets, gfn: Gfn) -> Option<&Mutex<Vec<Entry>>> {
    // Fibonacci hashing: neighbouring frames go to different lists.
    let hash = gfn.get().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    buckets.get(hash as usize % BUCKETS)
}
