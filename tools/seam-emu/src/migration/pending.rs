//! Pages of bundles whose call was interrupted. The tag of a bundle covers all of its pages, and the host may change
//! those that it has in the meantime.

use std::collections::BTreeMap;

use tdvisor_base::sync::Mutex;
use tdvisor_base::{Hpa, PAGE_SIZE};

/// Pages of one bundle that are kept. A call with more of them done is not interrupted any more.
pub(crate) const MAX_PAGES: u64 = 16;

/// TD, stream, plaintext.
pub(crate) type SavedBundles = Vec<(u64, u16, Vec<u8>)>;

/// Plaintext by TD and stream.
#[derive(Debug, Default)]
pub(crate) struct PendingBundles(Mutex<BTreeMap<Hpa, BTreeMap<u16, Vec<u8>>>>);

impl PendingBundles {
    /// Keeps the pages of a bundle.
    pub(crate) fn keep(&self, tdr: Hpa, stream: u16, plain: Vec<u8>) {
        self.0.lock().entry(tdr).or_default().insert(stream, plain);
    }

    /// Gives the pages that are done back: none where a bundle begins, whatever was kept of one that was given up.
    pub(crate) fn take(&self, tdr: Hpa, stream: u16, done: u64) -> Vec<u8> {
        let mut kept = self.0.lock();
        let mut plain = kept.get_mut(&tdr).and_then(|streams| streams.remove(&stream)).unwrap_or_default();
        plain.truncate((done * PAGE_SIZE) as usize);
        plain
    }

    /// What a snapshot holds of them.
    pub(crate) fn save(&self) -> SavedBundles {
        let kept = self.0.lock();
        let of_td = |(tdr, streams): (&Hpa, &BTreeMap<u16, Vec<u8>>)| {
            let of_stream = |(stream, plain): (&u16, &Vec<u8>)| (tdr.get(), *stream, plain.clone());
            streams.iter().map(of_stream).collect::<Vec<_>>()
        };
        kept.iter().flat_map(of_td).collect()
    }

    /// What a snapshot held.
    pub(crate) fn restore(saved: SavedBundles) -> Self {
        let bundles = Self::default();
        for (tdr, stream, plain) in saved {
            bundles.keep(Hpa::new(tdr), stream, plain);
        }
        bundles
    }

    /// Forgets those of a TD that is gone.
    pub(crate) fn forget(&self, tdr: Hpa) {
        self.0.lock().remove(&tdr);
    }

    /// A copy that goes its own way from here.
    pub(crate) fn fork(&self) -> Self {
        Self(Mutex::new(self.0.lock().clone()))
    }
}
