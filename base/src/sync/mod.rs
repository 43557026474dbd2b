//! The one door to locks and atomics.
//!
//! Every crate of the workspace takes its locks, atomics, `Arc` and spin hints from here, so that a model
//! checker can take all of them over at once:
//!
//! | build | locks and atomics | what it is for |
//! |---|---|---|
//! | ordinary | `core::sync::atomic`, `spin` | production; with `std` a waiting lock yields its time slice |
//! | `--cfg loom` | `loom` | exhaustive exploration of small protocols |
//! | `--cfg shuttle` | `shuttle` | seeded random schedules of whole scenarios |
//!
//! A caller may use what all three offer: `Mutex::{new, lock, try_lock}` and `RwLock::{new, read, write}`
//! without poisoning, and the atomics named here. [`preemption_point`] marks a place where another thread
//! may run between two accesses to memory that no facade type wraps (arena pages).

#[cfg(loom)]
mod loom_facade;
#[cfg(not(any(loom, shuttle)))]
mod native;
#[cfg(shuttle)]
mod shuttle_facade;

#[cfg(loom)]
pub use loom_facade::*;
#[cfg(not(any(loom, shuttle)))]
pub use native::*;
#[cfg(shuttle)]
pub use shuttle_facade::*;

pub use core::sync::atomic::Ordering;

/// Waits between two attempts at something: spins briefly at first, then offers the processor.
pub fn pause(attempt: u32) {
    /// Attempts that spin.
    const SPINNING: u32 = 16;
    if attempt < SPINNING {
        spin_loop();
    } else {
        yield_now();
    }
}
