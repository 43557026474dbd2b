//! Private key ids: who has which.
//!
//! The module keeps its own table (KOT) and refuses an id that is not free; this allocator keeps the host
//! from asking twice and from losing one. An id is handed out as a value that is not `Copy`; it comes back
//! through [`HkidPool::give_back`] only after TDH.MNG.KEY.FREEID succeeded for it. An id whose TD could not
//! be torn down is [retired](HkidPool::retire) and never handed out again.

use alloc::vec::Vec;

use mirror_ept::{BadNumbers, Numbers, Reader};
use tdvisor_base::KeyId;
use tdvisor_base::sync::Mutex;

use crate::platform::PrivateKeyIds;

/// A private key id that belongs to one owner.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a key id that is dropped is lost until the host restarts"]
pub struct Hkid(KeyId);

impl Hkid {
    /// The number that the module and physical addresses use.
    pub fn key(&self) -> KeyId {
        self.0
    }
}

/// All private key ids of the machine.
#[derive(Debug)]
pub struct HkidPool {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    free: Vec<KeyId>,
    total: usize,
    retired: usize,
}

/// How the pool stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HkidCounts {
    /// Ids that can be allocated now.
    pub free: usize,
    /// Ids that the machine has.
    pub total: usize,
    /// Ids lost to TDs that could not be torn down.
    pub retired: usize,
}

impl HkidPool {
    /// A pool of all ids of a machine.
    pub fn new(ids: PrivateKeyIds) -> Self {
        // Handed out from the end of the list: the lowest id comes first.
        let free: Vec<KeyId> = (ids.first.get()..=ids.last.get()).rev().map(KeyId::new).collect();
        let total = free.len();
        Self { inner: Mutex::new(Inner { free, total, retired: 0 }) }
    }

    /// The lowest free id.
    pub fn allocate(&self) -> Option<Hkid> {
        self.inner.lock().free.pop().map(Hkid)
    }

    /// Takes an id back whose key the module has freed.
    pub fn give_back(&self, hkid: Hkid) {
        let mut inner = self.inner.lock();
        inner.free.push(hkid.0);
        inner.free.sort_unstable_by(|a, b| b.cmp(a));
    }

    /// Counts an id as lost: the module may still hold it.
    pub fn retire(&self, hkid: Hkid) {
        let _ = hkid;
        self.inner.lock().retired += 1;
    }

    /// Writes the pool.
    pub(super) fn save(&self, out: &mut Numbers) {
        let inner = self.inner.lock();
        out.put_list(&inner.free, |out, key| out.put(key.get()));
        out.put_count(inner.total);
        out.put_count(inner.retired);
    }

    /// Reads what [`Self::save`] wrote.
    pub(super) fn restore(reader: &mut Reader<'_>) -> Result<Self, BadNumbers> {
        let free = reader.list(Reader::narrow::<u16>)?.into_iter().map(KeyId::new).collect();
        let (total, retired) = (reader.narrow()?, reader.narrow()?);
        Ok(Self { inner: Mutex::new(Inner { free, total, retired }) })
    }

    /// An id of the pool that has an owner, who was saved.
    pub(crate) fn taken(key: KeyId) -> Hkid {
        Hkid(key)
    }

    /// How the pool stands.
    pub fn counts(&self) -> HkidCounts {
        let inner = self.inner.lock();
        HkidCounts { free: inner.free.len(), total: inner.total, retired: inner.retired }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_lowest_first_and_come_back() {
        let pool = HkidPool::new(PrivateKeyIds { first: KeyId::new(32), last: KeyId::new(34) });
        let first = pool.allocate().unwrap();
        let second = pool.allocate().unwrap();
        assert_eq!((first.key().get(), second.key().get()), (32, 33));
        pool.give_back(first);
        assert_eq!(pool.allocate().unwrap().key().get(), 32);
        pool.retire(second);
        assert_eq!(pool.counts(), HkidCounts { free: 1, total: 3, retired: 1 });
    }

    #[test]
    fn an_empty_pool_says_so() {
        let pool = HkidPool::new(PrivateKeyIds { first: KeyId::new(1), last: KeyId::new(1) });
        let only = pool.allocate();
        assert!(only.is_some());
        assert!(pool.allocate().is_none());
    }
}
