//! The software CPU beside what it is compared with: the host's processor, and the decoder's list of encodings.

#[path = "../support/compare.rs"]
mod compare;
#[path = "../support/emulated.rs"]
mod emulated;
#[path = "../support/generate.rs"]
mod generate;
#[path = "../native/mod.rs"]
mod native;

mod advertised;
mod differential;
