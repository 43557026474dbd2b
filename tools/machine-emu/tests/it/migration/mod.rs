//! TDs that move from one emulated machine to another, in one process.

mod altered;
mod hostile;
mod mailbox;
mod mig_td;
mod model;
mod moving;
mod pages;
mod sweep;
mod world;
mod writer;
