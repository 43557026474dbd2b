//! Collateral of quotes over HTTP: [`fetch`] asks Intel's service or a cache of it (PCCS) for what a quote needs, [`cache`]
//! keeps the answers until they expire, [`serve`] hands collateral on as a PCCS does.
//!
//! Nothing that a service says is taken on trust: an answer must be of what was asked for, be signed by the root that is
//! trusted, and not have expired, or it is named as the fault, and not kept. Sizes have bounds, and one deadline holds for
//! everything that a quote needs.

pub mod answer;
pub mod cache;
mod client;
pub mod fetch;
mod names;
pub mod serve;
pub mod store;

pub use client::{Client, ClientError, TlsRoots};
