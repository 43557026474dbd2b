//! A session: a machine from its specification to its teardown. It is a TD on a machine of ours, a TD on Linux's KVM
//! ([`kvm`]), or a whole server with a host of its own ([`server`]).
//!
//! # Protocol
//! ```text
//! Machine::bring_up(spec, events)          a machine whose module is ready
//! Session::start(&machine, spec, events)   a TD that is built and measured, with its devices around it
//! session.drive(&watch)                    its vCPUs run, each on a thread, until it has ended or is stopped
//! ended.teardown()                         everything is given back, and what is to be said of the run is in a Report
//! ```
//! A TD whose machine takes turns can be saved, and go on in another process: [`saved`].
//!
//! While it is driven, any thread may pause it ([`pause`]). What happens on the way is told as [`Event`]s, and nothing in here prints: a program, a service and a test use the same
//! three steps. A machine may have several sessions, one after the other or side by side.

#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]

pub mod backend;
pub mod bell;
pub mod board;
pub mod debugger;
mod drive;
pub mod dump;
pub mod events;
pub mod inspect;
pub mod kvm;
mod machine;
pub mod metrics;
pub mod pause;
pub mod private_file;
mod report;
pub mod saved;
pub mod server;
mod session;
pub mod snapshot;
pub mod worker;

pub use drive::Happening;
pub use machine::{Event, Machine, MachineSpec};
pub use report::{Audit, Report};
pub use session::{Ended, Session, TdSpec, Watch};
