//! Copy-on-write snapshots: many machines start from one recorded state without copying it.

use alloc::vec::Vec;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use super::chunk::{CHUNK_BYTES, Mapped};
use super::{Arena, Incarnation, KeySpace, Owners, SHARED_TAG};
use tdvisor_base::sync::{Arc, Mutex};

/// Frozen contents of an arena. Cheap to clone; arenas made from it share its memory until they write.
#[derive(Clone)]
pub struct Snapshot {
    chunks: Vec<Option<Arc<Mapped>>>,
    keys: KeySpace,
}

impl core::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Snapshot").field("chunks", &self.chunks.iter().flatten().count()).finish()
    }
}

impl Arena {
    /// Freezes the contents. The arena goes on and copies what it writes from now on.
    pub fn snapshot(&mut self) -> Snapshot {
        self.incarnation = Incarnation::next();
        let mut owners = self.owners.lock();
        owners.retired.clear();
        for slot in &self.slots {
            let tagged = slot.load(Ordering::Relaxed);
            if !tagged.is_null() {
                slot.store(tagged.map_addr(|a| a | SHARED_TAG), Ordering::Relaxed);
            }
        }
        Snapshot { chunks: owners.live.clone(), keys: self.keys }
    }
}

impl Snapshot {
    /// A new arena that starts with these contents.
    pub fn to_arena(&self) -> Arena {
        let slots = self
            .chunks
            .iter()
            .map(|chunk| {
                AtomicPtr::new(match chunk {
                    Some(chunk) => chunk.as_ptr().map_addr(|a| a | SHARED_TAG),
                    None => ptr::null_mut(),
                })
            })
            .collect();
        Arena {
            slots,
            owners: Mutex::new(Owners { live: self.chunks.clone(), retired: Vec::new() }),
            bus_lock: Mutex::new(()),
            bytes: self.chunks.len() as u64 * CHUNK_BYTES,
            keys: self.keys,
            incarnation: Incarnation::next(),
            takeovers: std::sync::OnceLock::new(),
        }
    }
}
