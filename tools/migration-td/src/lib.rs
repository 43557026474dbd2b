//! What a migration TD does: it makes sure that its peer is one too, and hands over the keys of a session.
//!
//! The modules of two machines encrypt a TD that moves with keys that only they and the migration TDs see
//! (TDG.SERVTD.RD and WR). Each migration TD reads the key that its module will send with and has to bring it into the other
//! module; everything between them passes through two hosts that nobody trusts. This crate is the part of it that decides:
//! whom the key is for, and that nobody else can read it. It runs inside of the TD and knows neither channel nor module.
//!
//! # Protocol
//! ```text
//! Start ──meet(peer's Hello)──▶ Met ──trust(peer's quote)──▶ Trusted ──seal, open──▶ keys
//! ```
//! 1. *Hello*, in clear, both ways: role, a fresh nonce, an ephemeral P-256 key, and which TD it is about.
//! 2. *Quote*, both ways: REPORTDATA is SHA-384 of the role of who is quoted and of both Hellos ([`Met::report_data`]).
//!    So a quote says: this TD takes part, in this role, in this conversation, with this ephemeral key.
//! 3. Each judges the other's quote by its own [`Trust`]: the root, the TCB, the MRTD, no debugging. Whatever does not hold
//!    ends the conversation: there is no way from [`Met`] to [`Trusted`] but [`Met::trust`].
//! 4. *Key*, both ways: AES-256-GCM with a key of its own for each direction, derived from the shared secret and both Hellos
//!    (NIST SP 800-56C, one-step, SHA-384). Each key encrypts once.
//!
//! | what a host may try | why it is refused |
//! |---|---|
//! | *relay* a quote of another conversation, or of another TD | its REPORTDATA is of other Hellos |
//! | *replay* an old conversation | the nonce and the key of one side are new in each |
//! | *swap* the quotes, or reflect one | they name roles, and each side takes the other's only |
//! | put itself between the two | the quote covers both ephemeral keys; it has neither's secret |
//! | use a key for another TD | both TDs' identities are in the Hellos |
//! | alter or swap sealed keys | their tags cover direction and conversation |
//!
//! Every type is used up by its step, so that nothing is used twice.
//!
//! # What is outside
//! Certificates and collateral are parsed and verified in here, by `tdvisor-attest` with its `p256` backend; both are
//! `no_std`. What time it is nobody in a TD knows: [`Trust`] says what stands for it.
//!
//! # From a host's order to two keys
//! [`hand_over`] is the whole of it, over what [`Surroundings`] offers: a channel to the peer, quotes, and the calls of the
//! module. The guest `mig-td` (`tools/guests/mig-td`) is that with a real TD around it; its host speaks to it by [`mailbox`].

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod configuration;
mod handshake;
mod hello;
pub mod mailbox;
mod seal;
mod session;
mod trust;

pub use configuration::{Configuration, NotMeasured};
pub use handshake::{Met, Refused, Start, Trusted};
pub use hello::{BadHello, HELLO_BYTES, Hello, Role, Subject};
pub use seal::{KEY_WORDS, MigrationKey, SEALED_BYTES, Sealed};
pub use session::{Surroundings, Unfinished, hand_over};
pub use trust::{Trust, Untrusting};
