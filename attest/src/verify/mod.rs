//! Verification of quotes, decided as Intel's Quote Verification Library decides.
//!
//! Three verdicts are kept apart. [`VerifyError`] or success is the *cryptographic* verdict: structure,
//! signatures, revocation, validity in time, and that quote, platform and collateral belong together.
//! [`TcbVerdict`] is Intel's opinion about the platform's TCB; a bad status is still a successful
//! verification. What to accept is [`crate::policy`].
//!
//! [`Verifier`] keeps what it has verified, so that the second quote from a platform costs only what is
//! new: at best one signature. Time is an argument of every call; nothing here reads a clock.

mod anchor;
mod chain;
mod error;
mod known;
mod revocation;
mod sets;
mod shortfall;
mod tcb;
mod verifier;
mod window;

pub use anchor::TrustAnchor;
pub use error::{Item, VerifyError};
pub use known::VerifiedCollateral;
pub use shortfall::{Action, Component, Shortfall};
pub use tcb::{Evaluation, TcbVerdict, Unsupported};
pub use verifier::{Verification, Verifier};
pub use window::ValidityWindow;
