//! The RustCrypto backend: pure Rust, for targets that `ring` does not reach.

use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{Signature as EcdsaSignature, VerifyingKey};
use sha2::{Digest, Sha256};

use super::{Crypto, PublicKey, Signature};

/// Verification with RustCrypto's `p256` and `sha2`.
#[derive(Clone, Copy, Debug, Default)]
pub struct RustCrypto;

impl Crypto for RustCrypto {
    fn sha256(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(part);
        }
        hash.finalize().into()
    }

    fn verify(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
        let Ok(key) = VerifyingKey::from_sec1_bytes(&key.to_sec1()) else { return false };
        let Ok(signature) = EcdsaSignature::from_slice(&signature.0) else { return false };
        key.verify(message, &signature).is_ok()
    }
}
