//! Guests that nobody here wrote: what each of them does as a TD, cell by cell of the README's table.
//!
//! Kernels, boot loaders and a root file system are brought by the scripts of `tools/guests`; `scripts/nightly guests` runs those
//! and then these tests. Each compares what it sees with the README's cells, so that the table cannot say what is not so; with
//! `TDVISOR_RECORD_GUESTS=1` it writes what it sees into the README instead.
//!
//! A program of its own: nobody else runs it, and its tests take turns.

#[path = "../cli/mod.rs"]
mod cli;
mod disks;
mod kernels;
mod login;
mod machine;
mod system;
mod table;
