//! Sessions, driven without a terminal.

mod live;
mod saved;
mod server;
