//! The two primitives that verification needs, behind one trait with two backends.
//!
//! `ring` is fast and hosted; `p256` (RustCrypto) builds everywhere. Both must reach the same verdict on
//! every input: a test runs all vectors and all issued quotes through both.

#[cfg(feature = "p256")]
mod rustcrypto;
#[cfg(feature = "ring")]
mod with_ring;

use core::fmt;

#[cfg(feature = "p256")]
pub use rustcrypto::RustCrypto;
#[cfg(feature = "ring")]
pub use with_ring::Ring;

/// A P-256 public key, x‖y big-endian; not yet known to be on the curve.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey(pub [u8; 64]);

/// An ECDSA signature, r‖s big-endian; not yet known to be in range.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", crate::Hex(&self.0))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({})", crate::Hex(&self.0))
    }
}

impl PublicKey {
    /// The uncompressed point encoding of SEC 1.
    #[must_use]
    pub fn to_sec1(&self) -> [u8; 65] {
        let mut point = [4; 65];
        if let Some(coordinates) = point.get_mut(1..) {
            coordinates.copy_from_slice(&self.0);
        }
        point
    }
}

/// What a crypto backend does.
pub trait Crypto {
    /// SHA-256 over the concatenation of `parts`.
    fn sha256(&self, parts: &[&[u8]]) -> [u8; 32];

    /// Whether `signature` is `key`'s ECDSA signature over the SHA-256 of `message`.
    ///
    /// Keys off the curve and signatures out of range are not signatures: `false`.
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool;
}

/// The backend that a build verifies with unless told otherwise: `ring` where it is, else RustCrypto.
#[cfg(feature = "ring")]
pub type DefaultCrypto = Ring;
/// The backend that a build verifies with unless told otherwise: `ring` where it is, else RustCrypto.
#[cfg(all(feature = "p256", not(feature = "ring")))]
pub type DefaultCrypto = RustCrypto;
