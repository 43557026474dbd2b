//! Production: `core` atomics and `spin` locks.

pub use alloc::sync::{Arc, Weak};
pub use core::hint::spin_loop;
pub use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, fence,
};
pub use spin::once::Once;

#[cfg(feature = "std")]
type Relax = YieldRelax;
#[cfg(not(feature = "std"))]
type Relax = spin::relax::Spin;

/// Waits by handing the time slice back: a lock holder may be a thread that is not running.
#[cfg(feature = "std")]
#[derive(Debug)]
pub struct YieldRelax;

#[cfg(feature = "std")]
impl spin::RelaxStrategy for YieldRelax {
    fn relax() {
        std::thread::yield_now();
    }
}

/// Mutual exclusion without poisoning.
pub type Mutex<T> = spin::mutex::Mutex<T, Relax>;
/// Guard of a [`Mutex`].
pub type MutexGuard<'a, T> = spin::mutex::MutexGuard<'a, T, Relax>;
/// A readers-writer lock without poisoning. Not for fault paths: its word is shared by all readers.
pub type RwLock<T> = spin::rwlock::RwLock<T, Relax>;
/// Shared guard of a [`RwLock`].
pub type RwLockReadGuard<'a, T> = spin::rwlock::RwLockReadGuard<'a, T>;
/// Exclusive guard of a [`RwLock`].
pub type RwLockWriteGuard<'a, T> = spin::rwlock::RwLockWriteGuard<'a, T, Relax>;

/// A place where a model checker may switch threads; nothing in production.
#[inline(always)]
pub fn preemption_point() {}

/// Lets another thread run, where there is a scheduler to ask.
pub fn yield_now() {
    #[cfg(feature = "std")]
    std::thread::yield_now();
    #[cfg(not(feature = "std"))]
    core::hint::spin_loop();
}
