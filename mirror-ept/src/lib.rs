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

pub mod external;
pub mod lock;
pub mod range;
pub mod table;

pub use external::{Blocking, External, HookError};
pub use lock::{Exclusive, LevelCounts, Participant, Rcu, Shared, Statistics};
pub use range::{GfnRange, Position};
pub use table::{ENTRIES, ExternalPage, NoMemory, Returned, Table, TablePages, TableRef};
