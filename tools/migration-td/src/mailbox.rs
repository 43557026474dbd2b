//! How the guest `mig-td` and its host speak: one shared buffer, and a port that rings.
//!
//! The guest writes what it wants into the buffer, and the buffer's frame number (GPA without SHARED bit / 4096) to [`PORT`],
//! four bytes. The host answers in the same buffer before it lets the vCPU go on. What is awaited (an order, a word of the
//! peer) may take as long as it likes: until then the vCPU does not run.
//!
//! | bytes | written by | meaning |
//! |---|---|---|
//! | 0..4 | guest | [`Wish`] |
//! | 4..8 | guest | bytes of its body |
//! | 8..12 | host | 0: done; anything else: not |
//! | 12..16 | host | bytes of the answer's body |
//! | 16.. | both | the body: the guest's, then the host's in its place |
//!
//! All numbers are little-endian. The guest copies an answer into private memory before it looks at it. Quotes do not come this
//! way but by GetQuote.

use core::fmt;

use crate::hello::{Role, Subject};

/// The I/O port that rings.
pub const PORT: u16 = 0x520;
/// Bytes of the buffer: room for the collateral of a quote.
pub const BYTES: usize = 128 << 10;
/// Bytes before a body.
pub const HEADER_BYTES: usize = 16;
/// The longest body, bytes.
pub const MAX_BODY: usize = BYTES - HEADER_BYTES;
/// Where the host writes its part of the header.
pub const ANSWER_OFFSET: usize = 8;
/// Status of an answer.
pub const DONE: u32 = 0;

/// What the guest wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// Something to do; answered by an [`Order`].
    Order,
    /// The body brought to the peer.
    Send,
    /// The next word of the peer.
    Receive,
    /// Collateral for the quote in the body, as one JSON file.
    Collateral,
    /// The bytes of the configuration, or none.
    Configuration,
    /// The end of an order said: the body is an [`Outcome`].
    Report,
}

const WISHES: [Wish; 6] =
    [Wish::Order, Wish::Send, Wish::Receive, Wish::Collateral, Wish::Configuration, Wish::Report];

/// What the guest writes before the body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// What the migration TD wants.
    pub wish: Wish,
    /// Bytes of the body.
    pub body: usize,
}

impl Request {
    /// As it stands at the start of the buffer.
    #[must_use]
    pub fn bytes(self) -> [u8; 8] {
        // A body that would not fit in 32 bits does not fit the buffer either, and the host says so.
        let body = u32::try_from(self.body).unwrap_or(u32::MAX);
        pair([self.wish as u32, body])
    }

    /// What stands at the start of the buffer; `None` for an unknown wish or a body that does not fit.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 8]) -> Option<Self> {
        let [wish, body] = halves(bytes);
        let wish = WISHES.into_iter().find(|known| *known as u32 == wish)?;
        let body = usize::try_from(body).ok().filter(|body| *body <= MAX_BODY)?;
        Some(Self { wish, body })
    }
}

/// What the host writes before its body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reply {
    /// [`DONE`], or why not.
    pub status: u32,
    /// Bytes of the body.
    pub body: u32,
}

impl Reply {
    /// As it stands at [`ANSWER_OFFSET`].
    #[must_use]
    pub fn bytes(self) -> [u8; 8] {
        pair([self.status, self.body])
    }

    /// What stands at [`ANSWER_OFFSET`].
    #[must_use]
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        let [status, body] = halves(bytes);
        Self { status, body }
    }
}

fn pair(words: [u32; 2]) -> [u8; 8] {
    let [low, high] = words.map(u64::from);
    (low | high << 32).to_le_bytes()
}

fn halves([a, b, c, d, e, f, g, h]: [u8; 8]) -> [u32; 2] {
    [[a, b, c, d], [e, f, g, h]].map(u32::from_le_bytes)
}

/// How a migration TD reaches the TD that moves (TDH.SERVTD.BIND).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    /// The binding handle.
    pub handle: u64,
    /// TD_UUID.
    pub uuid: [u64; 4],
}

impl Target {
    /// The TD as the first word of a conversation names it.
    #[must_use]
    pub fn subject(&self) -> Subject {
        let mut subject = [0; 32];
        subject
            .iter_mut()
            .zip(self.uuid.iter().flat_map(|word| word.to_le_bytes()))
            .for_each(|(to, from)| *to = from);
        Subject(subject)
    }
}

/// What a migration TD is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// End.
    PowerOff,
    /// Hand over the keys of a session.
    HandOver {
        /// The side of the session that this migration TD is on.
        role: Role,
        /// The TD that moves, as this side's module has it.
        target: Target,
    },
}

/// Bytes of an [`Order`]: kind (0 end, 1 hand over), role (1 source, 2 destination), six zeros, handle, UUID.
pub const ORDER_BYTES: usize = 48;

impl Order {
    /// As a body.
    #[must_use]
    pub fn bytes(&self) -> [u8; ORDER_BYTES] {
        let words = match self {
            Self::PowerOff => [0; 6],
            Self::HandOver { role, target: Target { handle, uuid: [a, b, c, d] } } => {
                [1 | u64::from(role.byte()) << 8, *handle, *a, *b, *c, *d]
            }
        };
        let mut bytes = [0; ORDER_BYTES];
        bytes
            .iter_mut()
            .zip(words.iter().flat_map(|word| word.to_le_bytes()))
            .for_each(|(to, from)| *to = from);
        bytes
    }

    /// An order; `None` for bytes that are none.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; ORDER_BYTES] = bytes.try_into().ok()?;
        let (words, _) = bytes.as_chunks::<8>();
        let &[kind, handle, a, b, c, d] = words else { return None };
        let [handle, a, b, c, d] = [handle, a, b, c, d].map(u64::from_le_bytes);
        match kind {
            [0, 0, 0, 0, 0, 0, 0, 0] => Some(Self::PowerOff),
            [1, role, 0, 0, 0, 0, 0, 0] => {
                let role =
                    [Role::Source, Role::Destination].into_iter().find(|known| known.byte() == role)?;
                Some(Self::HandOver { role, target: Target { handle, uuid: [a, b, c, d] } })
            }
            _ => None,
        }
    }
}

/// How an order ended, as the host learns it; the guest's console says more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The keys of both directions are where they belong.
    Done,
    /// There were no random numbers.
    NoEntropy,
    /// The host did not do what it was asked for, or said something that is none.
    Host,
    /// There was no quote.
    NoQuote,
    /// The peer's first word is none, or of the wrong role, or its key is none.
    Peer,
    /// The peer's quote or its collateral is not valid.
    Quote,
    /// The peer is not whom this TD trusts, or quotes another conversation.
    Policy,
    /// The peer's key was not sealed by it in this conversation.
    NotSealed,
    /// The module refused TDG.SERVTD.RD or WR.
    Module,
    /// This TD trusts nobody: its configuration is not what was measured, or it can be debugged.
    Untrusting,
}

const OUTCOMES: [Outcome; 10] = [
    Outcome::Done,
    Outcome::NoEntropy,
    Outcome::Host,
    Outcome::NoQuote,
    Outcome::Peer,
    Outcome::Quote,
    Outcome::Policy,
    Outcome::NotSealed,
    Outcome::Module,
    Outcome::Untrusting,
];

impl Outcome {
    /// As a body: the number of the outcome in the order in which they stand here.
    #[must_use]
    pub fn bytes(self) -> [u8; 4] {
        (self as u32).to_le_bytes()
    }

    /// An outcome; `None` for bytes that are none.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let number = u32::from_le_bytes(bytes.try_into().ok()?);
        OUTCOMES.into_iter().find(|known| *known as u32 == number)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "both keys are where they belong",
            Self::NoEntropy => "there were no random numbers",
            Self::Host => "the host did not do its part",
            Self::NoQuote => "there was no quote",
            Self::Peer => "the peer's first word is none of its role",
            Self::Quote => "the peer's quote is not valid",
            Self::Policy => "the peer is not trusted, or quotes another conversation",
            Self::NotSealed => "the peer's key was not sealed in this conversation",
            Self::Module => "the module refused a key",
            Self::Untrusting => "this migration TD trusts nobody",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_side_writes_the_other_reads_and_nothing_else() {
        for wish in WISHES {
            let request = Request { wish, body: 77 };
            assert_eq!(Request::from_bytes(request.bytes()), Some(request));
        }
        assert_eq!(Request::from_bytes(pair([WISHES.len() as u32, 0])), None);
        assert_eq!(Request::from_bytes(pair([0, MAX_BODY as u32 + 1])), None);
        let reply = Reply { status: 3, body: 9 };
        assert_eq!(Reply::from_bytes(reply.bytes()), reply);
        for outcome in OUTCOMES {
            assert_eq!(Outcome::from_bytes(&outcome.bytes()), Some(outcome));
        }
        assert_eq!(Outcome::from_bytes(&[OUTCOMES.len() as u8, 0, 0, 0]), None);
        assert_eq!(Outcome::from_bytes(&[0; 3]), None);
    }

    #[test]
    fn an_order_has_a_kind_and_a_role_and_no_bit_besides() {
        let target = Target { handle: 5, uuid: [1, 2, 3, u64::MAX] };
        let orders = [Role::Source, Role::Destination].map(|role| Order::HandOver { role, target });
        for order in orders.into_iter().chain([Order::PowerOff]) {
            assert_eq!(Order::from_bytes(&order.bytes()), Some(order));
            for bit in 16..64 {
                let mut bytes = order.bytes();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Order::from_bytes(&bytes), None, "{order:?}, bit {bit}");
            }
        }
        assert_eq!(Order::from_bytes(&[0; ORDER_BYTES - 1]), None);
        let mut bytes = orders[0].bytes();
        bytes[1] = 3;
        assert_eq!(Order::from_bytes(&bytes), None);
    }
}
