//! A value that is published once and read by everybody afterwards.
//!
//! Under loom and shuttle the publication is an atomic of the model, so that orders are explored; the value
//! itself then needs no model, because nobody reads it before the publication.

#[cfg(any(loom, shuttle))]
use tdvisor_base::sync::{AtomicU32, Ordering};

#[derive(Debug)]
pub(crate) struct Once<T> {
    #[cfg(not(any(loom, shuttle)))]
    cell: tdvisor_base::sync::Once<T>,
    #[cfg(any(loom, shuttle))]
    published: AtomicU32,
    #[cfg(any(loom, shuttle))]
    cell: std::sync::OnceLock<T>,
}

impl<T> Once<T> {
    pub(crate) fn new() -> Self {
        Self {
            #[cfg(not(any(loom, shuttle)))]
            cell: tdvisor_base::sync::Once::new(),
            #[cfg(any(loom, shuttle))]
            published: AtomicU32::new(0),
            #[cfg(any(loom, shuttle))]
            cell: std::sync::OnceLock::new(),
        }
    }

    /// The value, where it is published.
    #[inline(always)]
    pub(crate) fn get(&self) -> Option<&T> {
        #[cfg(any(loom, shuttle))]
        if self.published.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.cell.get()
    }

    /// Publishes a value; the first one stays.
    pub(crate) fn publish(&self, value: T) -> &T {
        #[cfg(not(any(loom, shuttle)))]
        return self.cell.call_once(|| value);
        #[cfg(any(loom, shuttle))]
        {
            let value = self.cell.get_or_init(|| value);
            self.published.store(1, Ordering::Release);
            value
        }
    }
}
