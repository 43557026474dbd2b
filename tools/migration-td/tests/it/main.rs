//! What a migration TD does, from outside: its conversation with a peer, and whom it takes for one.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod conversation;
mod twins;
