//! The host image: its form, and how it runs on an emulated server.

mod image;
mod server;
