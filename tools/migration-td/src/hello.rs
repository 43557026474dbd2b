//! The first word of each side.
//!
//! | bytes | meaning |
//! |---|---|
//! | 0 | version, 1 |
//! | 1 | role: 1 source, 2 destination |
//! | 2..34 | nonce |
//! | 34..66 | TD_UUID of the TD that moves, as the sender's module has it |
//! | 66..131 | ephemeral P-256 key, uncompressed (SEC 1) |

use core::fmt;

/// Bytes of a [`Hello`].
pub const HELLO_BYTES: usize = 2 + NONCE + SUBJECT + KEY;

pub(crate) const NONCE: usize = 32;
const SUBJECT: usize = 32;
const KEY: usize = 65;
const VERSION: u8 = 1;

/// Which side of a session a migration TD is on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The TD leaves its machine.
    Source,
    /// The TD comes to its machine.
    Destination,
}

impl Role {
    pub(crate) const fn byte(self) -> u8 {
        match self {
            Self::Source => 1,
            Self::Destination => 2,
        }
    }

    /// The role of the other side.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Source => Self::Destination,
            Self::Destination => Self::Source,
        }
    }
}

/// The TD that moves, as one side's module names it: TD_UUID.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subject(pub [u8; SUBJECT]);

/// The first word of one side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello([u8; HELLO_BYTES]);

/// Bytes that are no [`Hello`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadHello;

impl fmt::Display for BadHello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the peer's first word is none")
    }
}

impl core::error::Error for BadHello {}

impl Hello {
    pub(crate) fn new(role: Role, nonce: [u8; NONCE], subject: Subject, key: &[u8]) -> Option<Self> {
        let mut bytes = [0; HELLO_BYTES];
        let (head, tail) = bytes.split_at_mut_checked(HELLO_BYTES - KEY)?;
        let parts = [VERSION, role.byte()].into_iter().chain(nonce).chain(subject.0);
        head.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
        (key.len() == KEY).then(|| tail.copy_from_slice(key))?;
        Some(Self(bytes))
    }

    /// The first word of a peer.
    ///
    /// # Errors
    /// [`BadHello`] for another length, version or role. The key is looked at later.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadHello> {
        let hello = Self(bytes.try_into().map_err(|_| BadHello)?);
        let known = [Role::Source, Role::Destination].map(Role::byte);
        let [version, role, ..] = hello.0;
        if version == VERSION && known.contains(&role) { Ok(hello) } else { Err(BadHello) }
    }

    /// The bytes of the message.
    pub const fn bytes(&self) -> &[u8; HELLO_BYTES] {
        &self.0
    }

    pub(crate) fn role(&self) -> Role {
        let [_, role, ..] = self.0;
        if role == Role::Source.byte() { Role::Source } else { Role::Destination }
    }

    pub(crate) fn key(&self) -> &[u8] {
        self.0.get(HELLO_BYTES - KEY..).unwrap_or_default()
    }
}
