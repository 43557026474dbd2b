//! TD epochs: how the module knows that no processor holds a translation any more (Intel 348549,
//! TLB tracking).
//!
//! A vCPU runs in the epoch that was current when it entered; two reference counts, by parity, say how many
//! run in the current and in the previous one. TRACK opens a new epoch once nobody runs in the one before.

use tdvisor_base::sync::Ordering;

use super::Tdcs;
use crate::fields::FieldStore;
use crate::fields::layout::tdcs;

/// Bit 63 of BEPOCH: the field holds migration state and never counts as tracked.
const MIGRATION: u64 = 1 << 63;

impl Tdcs<'_> {
    pub(crate) fn epoch(&self) -> u64 {
        self.load_u64(tdcs::TD_EPOCH)
    }

    /// Number of vCPUs that run in epochs of this parity.
    pub(crate) fn refcount(&self, epoch: u64) -> u64 {
        let word = self.refcount_word().map_or(0, |word| word.load(Ordering::Acquire));
        word >> shift(epoch) & 0xffff
    }

    /// A vCPU begins to run in an epoch.
    pub(crate) fn enter_epoch(&self, epoch: u64) {
        self.change_refcount(epoch, |count| count.wrapping_add(1));
    }

    /// A vCPU that ran in an epoch has left the guest.
    pub(crate) fn leave_epoch(&self, epoch: u64) {
        self.change_refcount(epoch, |count| count.wrapping_sub(1));
    }

    fn change_refcount(&self, epoch: u64, change: impl Fn(u64) -> u64) {
        if let Some(word) = self.refcount_word() {
            let _ = crate::lock::change(word, |old| {
                let count = change(old >> shift(epoch) & 0xffff) & 0xffff;
                Some(old & !(0xffff << shift(epoch)) | count << shift(epoch))
            });
        }
    }

    /// Whether every translation that existed when `bepoch` was stamped is gone.
    pub(crate) fn is_tracked(&self, bepoch: u64) -> bool {
        if bepoch & MIGRATION != 0 {
            return false;
        }
        let epoch = self.epoch();
        match epoch.checked_sub(bepoch) {
            Some(0) | None => false,
            Some(1) => self.refcount(bepoch) == 0,
            Some(_) => true,
        }
    }
}

const fn shift(epoch: u64) -> u32 {
    if epoch & 1 == 0 { 0 } else { 16 }
}
