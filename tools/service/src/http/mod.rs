//! HTTP/1.1 on a UNIX socket, with descriptors beside the bytes; or on a TCP port under TLS, for whoever knows a token.
//!
//! # Protocol
//! A connection carries requests one after the other and is kept; a client may send the next request before it has read
//! an answer. Descriptors (`SCM_RIGHTS`) belong to the request with whose bytes they came. Heads have names in title case,
//! `Content-Length` before the body, and neither of them where there is no body; a status line has a number and a space, and no
//! reason. Clients of Cloud Hypervisor look for exactly that. A request that cannot be understood is answered and ends its connection.
//!
//! # Who may ask
//! At a UNIX socket its owner, or its group, and the superuser ([`Access`]): by the file's mode and by the credentials of the
//! process that connected. At a TCP port whoever sends `Authorization: Bearer` with the token ([`Remote`]), which is compared in
//! constant time and before the body of the request is read; all others get 401. There is no TCP without both.
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
mod listener;
mod message;
mod places;
mod server;
mod stream;
mod token;

pub use client::{Client, Reply};
pub use incoming::{BODY_MAX, FDS_MAX, HEAD_MAX, HEADERS_MAX};
pub use listener::{Access, Remote};
pub(crate) use message::sentences;
pub use message::{Allow, Answer, Peer, Request, Response, Source};
pub use server::{Limits, Running, Server, Service};
pub use token::{Token, read_secret};
