//! The protocol by which the owner of host memory takes pages away while faults install them.
//!
//! # Protocol
//! 1. A fault takes a [`Snapshot`] *before* it resolves its page.
//! 2. Whoever takes pages away opens a [`Window`] over their range under [`Exclusive`], removes the
//!    mappings, changes the host's side, and closes the window under [`Exclusive`].
//! 3. Under [`Shared`] the fault asks whether its snapshot still counts: not while a window over its frame
//!    is open, and not if any window was closed since the snapshot. Then it starts again from 1.
//!
//! So what is installed was resolved when nothing was being taken away (37). Windows are values that are
//! used up by closing them, so they pair (38). Nothing here waits: a fault that must retry says so and its
//! caller decides, which is what lets a memory slot be deleted while a fault retries (34).

use core::fmt;

use tdvisor_base::Gfn;
use tdvisor_base::sync::{AtomicU64, Ordering};

use crate::lock::{Exclusive, Shared};
use crate::range::GfnRange;

/// What the world looked like before a page was resolved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Snapshot(u64);

/// An open invalidation.
#[derive(Debug)]
#[must_use = "an open window keeps faults in its range from ever succeeding; close it"]
pub struct Window(GfnRange);

impl Window {
    /// The frames it covers.
    pub const fn range(&self) -> GfnRange {
        self.0
    }
}

/// Sequence number and open windows of one MMU.
pub struct Notifier {
    sequence: AtomicU64,
    open: AtomicU64,
    /// The union of all windows since the last time none was open.
    start: AtomicU64,
    end: AtomicU64,
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifier").field("open", &self.open_windows()).finish_non_exhaustive()
    }
}

impl Notifier {
    pub(crate) fn new() -> Self {
        Self {
            sequence: AtomicU64::new(0),
            open: AtomicU64::new(0),
            start: AtomicU64::new(0),
            end: AtomicU64::new(0),
        }
    }

    /// To be taken before a page is resolved.
    #[inline]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.sequence.load(Ordering::Acquire))
    }

    /// Announces that pages of `range` are about to be taken away. Remove their mappings next, in the same
    /// exclusive section.
    pub fn begin(&self, _guard: &mut Exclusive<'_>, range: GfnRange) -> Window {
        let open = self.open.load(Ordering::Relaxed);
        let known = if open == 0 { range } else { self.union().union(range) };
        self.start.store(known.start().get(), Ordering::Relaxed);
        self.end.store(known.end().get(), Ordering::Relaxed);
        self.open.store(open + 1, Ordering::Relaxed);
        Window(range)
    }

    /// The pages are gone: resolutions from before count no longer, new ones do.
    pub fn end(&self, _guard: &mut Exclusive<'_>, window: Window) {
        let Window(_) = window;
        self.sequence.store(self.sequence.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        self.open.store(self.open.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
    }

    /// Windows that are open. The set of memory slots must not change while there are any (38).
    pub fn open_windows(&self) -> u64 {
        self.open.load(Ordering::Acquire)
    }

    /// Whether a page that was resolved after `snapshot` may be installed at `gfn` now.
    #[inline]
    pub fn still_counts(&self, _guard: &Shared<'_>, snapshot: Snapshot, gfn: Gfn) -> bool {
        if self.sequence.load(Ordering::Acquire) != snapshot.0 {
            return false;
        }
        self.open.load(Ordering::Relaxed) == 0 || !self.union().contains(gfn)
    }

    fn union(&self) -> GfnRange {
        let (start, end) = (self.start.load(Ordering::Relaxed), self.end.load(Ordering::Relaxed));
        GfnRange::new(Gfn::new(start), Gfn::new(end))
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::lock::{Core, Participant};
    use tdvisor_base::sync::Arc;

    fn range(start: u64, end: u64) -> GfnRange {
        GfnRange::new(Gfn::new(start), Gfn::new(end))
    }

    #[test]
    fn inv_37_a_page_resolved_before_or_during_a_window_is_not_installed() {
        let core = Arc::new(Core::new(1).unwrap());
        let mut me = Participant::join(&core).unwrap();
        let notifier = Notifier::new();
        let before = notifier.snapshot();
        assert!(notifier.still_counts(&me.shared(), before, Gfn::new(5)));
        let window = notifier.begin(&mut me.exclusive(), range(4, 8));
        let during = notifier.snapshot();
        assert!(!notifier.still_counts(&me.shared(), during, Gfn::new(5)));
        assert!(notifier.still_counts(&me.shared(), during, Gfn::new(8)), "other frames are not disturbed");
        notifier.end(&mut me.exclusive(), window);
        assert!(!notifier.still_counts(&me.shared(), before, Gfn::new(5)));
        assert!(!notifier.still_counts(&me.shared(), during, Gfn::new(5)));
        assert!(notifier.still_counts(&me.shared(), notifier.snapshot(), Gfn::new(5)));
    }

    #[test]
    fn inv_38_overlapping_windows_cover_their_union_until_all_are_closed() {
        let core = Arc::new(Core::new(1).unwrap());
        let mut me = Participant::join(&core).unwrap();
        let notifier = Notifier::new();
        let first = notifier.begin(&mut me.exclusive(), range(0, 2));
        let second = notifier.begin(&mut me.exclusive(), range(10, 12));
        assert_eq!(notifier.open_windows(), 2);
        notifier.end(&mut me.exclusive(), first);
        let now = notifier.snapshot();
        assert!(!notifier.still_counts(&me.shared(), now, Gfn::new(11)), "the second is still open");
        notifier.end(&mut me.exclusive(), second);
        assert_eq!(notifier.open_windows(), 0);
        assert!(notifier.still_counts(&me.shared(), notifier.snapshot(), Gfn::new(11)));
    }
}
