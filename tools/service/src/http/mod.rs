//! HTTP/1.1 on a UNIX socket, with descriptors beside the bytes.
//!
//! # Protocol
//! A connection carries requests one after the other and is kept; a client may send the next request before it has read
//! an answer. Descriptors (`SCM_RIGHTS`) belong to the request with whose bytes they came. Heads have names in title case,
//! `Content-Length` before the body, and neither of them where there is no body: clients of Cloud Hypervisor look for
//! exactly that. A request that cannot be understood is answered and ends its connection.
//!
//! # Why no larger library
//! hyper reads ahead, so that nobody can say whose descriptors came with a read that had the bytes of two requests, and it
//! answers what it cannot parse itself, without a body. Heads are parsed by `httparse`, which is hyper's own parser.
//!
//! # Bounds
//! [`Limits`]: connections, bytes of a head and of a body, descriptors, and time. A request has one deadline from its first
//! byte on. When all places are taken, the connection that has been idle longest makes room.

mod client;
mod connection;
mod incoming;
mod message;
mod places;
mod server;

pub use client::{Client, Reply};
pub use incoming::{BODY_MAX, FDS_MAX, HEAD_MAX, HEADERS_MAX};
pub use message::{Answer, Peer, Request, Response, Source};
pub use server::{Access, Limits, Running, Server, Service};
