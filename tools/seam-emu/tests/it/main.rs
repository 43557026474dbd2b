//! The emulated module from outside, call by call.

#![cfg(not(shuttle))]
#![expect(clippy::unwrap_used, reason = "a test stops where its host fails")]

mod accepting;
mod concurrency;
mod dynamic_pamt;
mod host_mistakes;
mod l2;
mod linux_calls;
mod metadata;
mod secrets;
mod service_tds;
mod stepping;
mod vcpu;
