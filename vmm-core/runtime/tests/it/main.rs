//! Sessions, driven without a terminal.

mod live;
mod server;
