//! The Secure EPT as software may know it: entry bits, states, and what the module reports about an entry.
//!
//! Only the module writes Secure-EPT pages. A host sees an entry through [`SeptInfo`] (RCX and RDX of the
//! memory leaves); the raw layout ([`SeptEntry`]) is for the emulated module and its audit.

pub mod allow;
mod entry;
mod info;
mod state;

pub use allow::SeptStates;
pub use entry::{SeptEntry, memory_type};
pub use info::SeptInfo;
pub use state::{L2SeptState, SeptState, SeptStateId};
