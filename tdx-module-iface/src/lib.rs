//! The ABI of the Intel TDX module, as data.
//!
//! Three layers, each usable without the next:
//! 1. **data**: [`leaf`] numbers, [`status`] codes, byte layouts ([`td_params`], [`tdmr`], [`report`], ...),
//!    the Secure-EPT entry ([`sept`]), [`metadata`] fields, exit information ([`exit`]) and GHCI numbers
//!    ([`ghci`]);
//! 2. **calls**: [`regs::SeamCall`], implemented by whatever can execute the instruction, and one typed
//!    wrapper per leaf in [`tdh`];
//! 3. **the instruction**: `hw`, behind the feature of that name; the only `unsafe` in the crate.
//!
//! Facts are those of TDX module 1.5.01 unless an item says otherwise. The crate is `no_std` and allocates
//! nothing. Codes that come from outside are open enumerations: an unknown value is kept and prints.

#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]
#![no_std]

#[cfg(test)]
extern crate std;

pub mod exit;
pub mod explain;
pub mod ghci;
pub mod handles;
#[cfg(any(feature = "hw", test))]
pub mod hw;
pub mod leaf;
pub mod lifecycle;
pub mod metadata;
pub mod op_state;
pub mod outcome;
pub mod regs;
pub mod release;
pub mod report;
pub mod sept;
pub mod status;
pub mod td_params;
pub mod tdg;
pub mod tdh;
pub mod tdmr;
pub mod tdsysinfo;
pub mod ve_info;

pub use handles::{GpaLevel, KeyedHpa, Tdr, Tdvpr};
pub use leaf::{LeafWord, TdgLeaf, TdhLeaf};
pub use outcome::{Retry, SeamError};
pub use regs::{Gprs, Reg, SeamCall, SeamCallFault};
pub use release::Release;
pub use sept::SeptInfo;
pub use status::{Operand, Status, StatusCode};
