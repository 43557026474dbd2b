//! Under shuttle: seeded random schedules of whole scenarios.
//!
//! [`AtomicU64`] is the production atomic with a scheduling point before each operation, because page
//! tables live in arena memory, where only a plain 64-bit word fits. shuttle explores interleavings of
//! sequentially consistent operations, so the production atomic is as strong as its own.

pub use core::sync::atomic::fence;
pub use shuttle::hint::spin_loop;
pub use shuttle::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicUsize};
pub use shuttle::sync::{Arc, Weak};
pub use shuttle::thread::yield_now;

use core::sync::atomic::Ordering;

/// Guard of a [`Mutex`].
pub type MutexGuard<'a, T> = shuttle::sync::MutexGuard<'a, T>;
/// Shared guard of a [`RwLock`].
pub type RwLockReadGuard<'a, T> = shuttle::sync::RwLockReadGuard<'a, T>;
/// Exclusive guard of a [`RwLock`].
pub type RwLockWriteGuard<'a, T> = shuttle::sync::RwLockWriteGuard<'a, T>;

/// Lets shuttle switch threads here.
pub fn preemption_point() {
    shuttle::thread::yield_now();
}

/// A 64-bit atomic with shuttle's scheduling points.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct AtomicU64(core::sync::atomic::AtomicU64);

impl AtomicU64 {
    /// An atomic holding `value`.
    pub const fn new(value: u64) -> Self {
        Self(core::sync::atomic::AtomicU64::new(value))
    }

    /// Reads the word.
    pub fn load(&self, order: Ordering) -> u64 {
        preemption_point();
        self.0.load(order)
    }

    /// Writes the word.
    pub fn store(&self, value: u64, order: Ordering) {
        preemption_point();
        self.0.store(value, order);
    }

    /// Exchanges the word.
    pub fn swap(&self, value: u64, order: Ordering) -> u64 {
        preemption_point();
        self.0.swap(value, order)
    }

    /// Replaces `current` by `new`.
    ///
    /// # Errors
    /// The value found, where it was not `current`.
    pub fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        preemption_point();
        self.0.compare_exchange(current, new, success, failure)
    }

    /// Stores `new` where the value is `current`; the model has no spurious failures.
    ///
    /// # Errors
    /// The value found, where it was not `current`.
    pub fn compare_exchange_weak(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        self.compare_exchange(current, new, success, failure)
    }

    /// Adds, returning the old value.
    pub fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        preemption_point();
        self.0.fetch_add(value, order)
    }

    /// Subtracts, returning the old value.
    pub fn fetch_sub(&self, value: u64, order: Ordering) -> u64 {
        preemption_point();
        self.0.fetch_sub(value, order)
    }

    /// Bitwise and, returning the old value.
    pub fn fetch_and(&self, value: u64, order: Ordering) -> u64 {
        preemption_point();
        self.0.fetch_and(value, order)
    }

    /// Bitwise or, returning the old value.
    pub fn fetch_or(&self, value: u64, order: Ordering) -> u64 {
        preemption_point();
        self.0.fetch_or(value, order)
    }

    /// Maximum, returning the old value.
    pub fn fetch_max(&self, value: u64, order: Ordering) -> u64 {
        preemption_point();
        self.0.fetch_max(value, order)
    }
}

/// shuttle's mutex with the production signature.
#[derive(Debug, Default)]
pub struct Mutex<T>(shuttle::sync::Mutex<T>);

impl<T> Mutex<T> {
    /// A mutex holding `value`.
    pub const fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The lock, if nobody holds it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().ok()
    }
}

/// shuttle's readers-writer lock with the production signature.
#[derive(Debug, Default)]
pub struct RwLock<T>(shuttle::sync::RwLock<T>);

impl<T> RwLock<T> {
    /// A lock holding `value`.
    pub const fn new(value: T) -> Self {
        Self(shuttle::sync::RwLock::new(value))
    }

    /// Waits for a shared guard.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits for the exclusive guard.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
