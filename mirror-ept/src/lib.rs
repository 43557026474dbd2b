//! Page tables for confidential guests.
//!
//! A guest has a *direct* tree, which hardware walks, for memory it shares with the host; and a *mirror*
//! tree in ordinary memory for its private memory, whose changes reach the *external* table, which only its
//! owner may touch, through hooks. This crate owns both trees: faults, removal, split, collapse, aging,
//! dirty logging, the lock over all of it and the audit that compares mirror and external table.
//!
//! It knows nothing about who owns the external table. `LOCKING.md` says who may do what under which guard.
//!
//! | room | holds |
//! |---|---|
//! | [`table`] | entries and tables: their words, where their memory comes from, how they are walked, when they are freed |
//! | [`lock`] | the guards, invalidation windows, what was read before a guard was taken |
//! | [`external`] | the hooks, and the order of removal as types |
//! | [`fault`] | getting one page mapped, under the shared guard |
//! | [`ops`] | everything else that changes mappings, and the audit |
//! | [`saved`] | state as numbers, for a snapshot |
//! | [`shadow`] | nested paging: complete and tested, but *not used by the product yet* |

#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;
#[cfg(all(test, not(feature = "std")))]
extern crate std;

mod error;
pub mod external;
pub mod fault;
pub mod lock;
mod mmu;
pub mod ops;
pub mod range;
pub mod saved;
pub mod shadow;
pub mod table;

pub use lock::{notifier, stale};
use ops::emptied;
pub use ops::{age, arrive, audit, collapse, dirty, dismantle, list, map_range, root, split, transfer, zap};
use table::{cache, find, once, reclaim, slab, spte, walk};

pub use age::Age;
pub use arrive::ArrivingLeaf;
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
pub use ops::saved::{NotAtRest, Restoring};
pub use range::{GfnRange, Position};
pub use root::InvalidRoot;
pub use saved::{BadNumbers, Numbers, Reader};
pub use split::SplitOutcome;
pub use spte::{Access, AccessTracking};
pub use table::{ENTRIES, ExternalPage, NoMemory, Returned, Table, TablePages, TableRef};
pub use transfer::{Advance, MovingLeaf, Standing, StandingCounts};
pub use zap::{Filter, ZapCount, Zapped};
