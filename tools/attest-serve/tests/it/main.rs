//! The verification service, from outside.

#[path = "../client/mod.rs"]
mod client;
mod messages;
mod service;
