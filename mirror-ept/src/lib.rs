//! Page tables for confidential guests.
//!
//! A guest has a *direct* tree, which hardware walks, for memory it shares with the host; and a *mirror*
//! tree in ordinary memory for its private memory, whose changes reach the *external* table, which only its
//! owner may touch, through hooks. This crate owns both trees: faults, removal, split, collapse, aging,
//! dirty logging, the lock over all of it and the audit that compares mirror and external table.
//!
//! It knows nothing about who owns the external table. See [`external`] for the hooks, [`table`] for the
//! memory that tables need, [`lock`] for the guards, and `LOCKING.md` for who may do what under which.

#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;
#[cfg(all(test, not(feature = "std")))]
extern crate std;

pub mod age;
pub mod audit;
mod cache;
pub mod collapse;
pub mod dirty;
pub mod dismantle;
mod emptied;
mod error;
pub mod external;
pub mod fault;
mod find;
pub mod lock;
pub mod map_range;
mod mmu;
pub mod notifier;
mod once;
pub mod range;
mod reclaim;
pub mod root;
pub mod shadow;
mod slab;
pub mod split;
mod spte;
pub mod stale;
pub mod table;
mod undo;
mod walk;
pub mod zap;

pub use age::Age;
pub use audit::{AuditReport, ExternalEntry, ExternalView, Role, Violation};
pub use cache::{Reserve, TableCache};
pub use collapse::Collapsed;
pub use dirty::{DirtyLog, EagerSplit};
pub use dismantle::Dismantled;
pub use error::{Death, MmuError, Step};
pub use external::{Blocking, External, HookError};
pub use fault::{Backing, Fault, FaultOutcome, Retry, Target};
pub use lock::{Exclusive, LevelCounts, Participant, Rcu, Shared, Statistics};
pub use map_range::MappedRange;
pub use mmu::{Config, Mmu};
pub use range::{GfnRange, Position};
pub use root::InvalidRoot;
pub use split::SplitOutcome;
pub use spte::{Access, AccessTracking};
pub use table::{ENTRIES, ExternalPage, NoMemory, Returned, Table, TablePages, TableRef};
pub use zap::{Filter, ZapCount, Zapped};
