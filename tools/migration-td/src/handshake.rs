//! The conversation, one type for each of its states.

use core::fmt;

use p256::elliptic_curve::sec1::ToSec1Point;
use p256::{PublicKey, SecretKey};
use sha2::{Digest, Sha384};
use tdvisor_attest::collateral::Bundle;
use tdvisor_attest::policy::PolicyVerdict;
use tdvisor_attest::verify::VerifyError;
use zeroize::{Zeroize, Zeroizing};

use crate::hello::{Hello, NONCE, Role, Subject};
use crate::seal::{DirectionKey, MigrationKey, Sealed, open, seal};
use crate::trust::Trust;

/// Distinguishes what is hashed here from whatever else is.
const CONVERSATION: &[u8] = b"tdvisor migration: conversation 1";
const REPORT: &[u8] = b"tdvisor migration: report 1";
const KEY: &[u8] = b"tdvisor migration: key 1";

/// Random numbers to draw until one is a P-256 key: all but one in 2^32 are.
const DRAWS: u32 = 16;

/// Why there is no trust.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refused {
    /// There are no random numbers.
    NoEntropy,
    /// The peer plays the same role, or sends back what it was sent.
    Reflected,
    /// The peer's key is none.
    BadKey,
    /// The peer's quote is not valid.
    Quote(VerifyError),
    /// The peer is not whom the policy wants, or quotes another conversation.
    Policy(PolicyVerdict),
    /// A sealed key was not sealed by this peer, in this conversation.
    NotSealed,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEntropy => f.write_str("there are no random numbers"),
            Self::Reflected => f.write_str("the peer plays the same role, or sends back what it was sent"),
            Self::BadKey => f.write_str("the peer's ephemeral key is none"),
            Self::Quote(error) => write!(f, "the peer's quote is not valid: {error}"),
            Self::Policy(verdict) => write!(f, "the peer is not trusted: {}", verdict.reason()),
            Self::NotSealed => f.write_str("the key was not sealed by this peer in this conversation"),
        }
    }
}

impl core::error::Error for Refused {}

/// A conversation that has not begun.
pub struct Start {
    role: Role,
    secret: SecretKey,
    hello: Hello,
}

impl fmt::Debug for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Start").field("role", &self.role).finish_non_exhaustive()
    }
}

impl Start {
    /// A conversation in a role about a TD. `random` fills a buffer with random bytes and says whether it could.
    ///
    /// # Errors
    /// [`Refused::NoEntropy`].
    pub fn new(
        role: Role,
        subject: Subject,
        mut random: impl FnMut(&mut [u8]) -> bool,
    ) -> Result<Self, Refused> {
        let mut nonce = [0; NONCE];
        if !random(&mut nonce) {
            return Err(Refused::NoEntropy);
        }
        let mut scalar = Zeroizing::new([0; 32]);
        for _ in 0..DRAWS {
            if !random(scalar.as_mut()) {
                return Err(Refused::NoEntropy);
            }
            let Ok(secret) = SecretKey::from_slice(scalar.as_ref()) else { continue };
            let point = secret.public_key().to_sec1_point(false);
            let hello = Hello::new(role, nonce, subject, point.as_bytes()).ok_or(Refused::BadKey)?;
            return Ok(Self { role, secret, hello });
        }
        Err(Refused::NoEntropy)
    }

    /// What the peer is to get.
    pub const fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Takes the peer's first word.
    ///
    /// # Errors
    /// [`Refused::Reflected`], [`Refused::BadKey`].
    pub fn meet(self, peer: &Hello) -> Result<Met, Refused> {
        if peer.role() != self.role.other() || peer.key() == self.hello.key() {
            return Err(Refused::Reflected);
        }
        let peer_key = PublicKey::from_sec1_bytes(peer.key()).map_err(|_| Refused::BadKey)?;
        let (source, destination) = match self.role {
            Role::Source => (&self.hello, peer),
            Role::Destination => (peer, &self.hello),
        };
        let conversation = Sha384::new()
            .chain_update(CONVERSATION)
            .chain_update(source.bytes())
            .chain_update(destination.bytes())
            .finalize()
            .into();
        Ok(Met { role: self.role, secret: self.secret, peer_key, conversation })
    }
}

/// Two sides that have heard each other, and know nothing of each other.
pub struct Met {
    role: Role,
    secret: SecretKey,
    peer_key: PublicKey,
    conversation: [u8; 48],
}

impl fmt::Debug for Met {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Met").field("role", &self.role).finish_non_exhaustive()
    }
}

impl Met {
    /// REPORTDATA of the quote that shows the peer who speaks here: 48 bytes, the rest is zero.
    pub fn report_data(&self) -> [u8; 64] {
        let mut data = [0; 64];
        data.iter_mut().zip(self.report_data_of(self.role)).for_each(|(to, from)| *to = from);
        data
    }

    fn report_data_of(&self, role: Role) -> [u8; 48] {
        Sha384::new()
            .chain_update(REPORT)
            .chain_update([role.byte()])
            .chain_update(self.conversation)
            .finalize()
            .into()
    }

    /// Judges the peer by its quote, with collateral from wherever.
    ///
    /// # Errors
    /// [`Refused::Quote`], [`Refused::Policy`]. The conversation is over then.
    pub fn trust(self, quote: &[u8], collateral: &Bundle, trust: &Trust) -> Result<Trusted, Refused> {
        let Self { role, ref secret, ref peer_key, conversation } = self;
        trust.judge(quote, &self.report_data_of(role.other()), collateral)?;
        let shared = p256::ecdh::diffie_hellman(secret.to_nonzero_scalar(), peer_key.as_affine());
        let key_of = |from: Role| {
            // One step of SP 800-56C: counter, secret, what the key is for.
            let mut hash: [u8; 48] = Sha384::new()
                .chain_update(1u32.to_be_bytes())
                .chain_update(shared.raw_secret_bytes())
                .chain_update(KEY)
                .chain_update([from.byte()])
                .chain_update(conversation)
                .finalize()
                .into();
            let mut key = [0; 32];
            key.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
            hash.zeroize();
            DirectionKey::new(key)
        };
        Ok(Trusted { role, conversation, outgoing: Some(key_of(role)), incoming: Some(key_of(role.other())) })
    }
}

/// The peer is whom the policy wants.
pub struct Trusted {
    role: Role,
    conversation: [u8; 48],
    outgoing: Option<DirectionKey>,
    incoming: Option<DirectionKey>,
}

impl fmt::Debug for Trusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trusted").field("role", &self.role).finish_non_exhaustive()
    }
}

impl Trusted {
    /// Seals the key that this side's module will send with, once; `None` after that.
    pub fn seal(&mut self, key: &MigrationKey) -> Option<Sealed> {
        seal(self.outgoing.take()?, self.role, &self.conversation, key)
    }

    /// Opens the key that the peer's module will send with, once: after a wrong one the conversation is over.
    ///
    /// # Errors
    /// [`Refused::NotSealed`].
    pub fn open(&mut self, sealed: &Sealed) -> Result<MigrationKey, Refused> {
        let key = self.incoming.take().ok_or(Refused::NotSealed)?;
        open(key, self.role.other(), &self.conversation, sealed).ok_or(Refused::NotSealed)
    }
}
