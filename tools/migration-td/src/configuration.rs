//! The measured configuration of a migration TD: whose root it trusts, and from when on.
//!
//! A migration TD reads it from its host, which nobody trusts, and holds it against its own MRCONFIGID: SHA-384 of these
//! bytes. So the configuration is part of the identity that quotes and the hash of a binding (SERVTD_HASH) carry: a peer with
//! another one is another TD. With MRCONFIGID zero there is none: Intel's root, and [`BUILT_IN_FLOOR`]. *A test root is
//! therefore trusted only where the identity of both migration TDs says so.*
//!
//! | bytes | meaning |
//! |---|---|
//! | 0..8 | `TDVMIGC1` |
//! | 8..12 | least evaluation number of collateral, not zero |
//! | 12.. | root certificate, DER or PEM; empty: Intel's |

use alloc::vec::Vec;
use core::fmt;

use sha2::{Digest, Sha384};
use tdvisor_attest::report::TdInfo;

const MAGIC: [u8; 8] = *b"TDVMIGC1";
/// The least evaluation number where no configuration says one. Intel only raises it; who knows a later one configures that.
const BUILT_IN_FLOOR: u32 = 17;

/// What a migration TD was configured with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Configuration {
    least_evaluation_number: u32,
    root: Option<Vec<u8>>,
}

/// Bytes that are not the configuration of this TD.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotMeasured {
    /// The bytes do not hash to MRCONFIGID.
    Hash,
    /// The bytes are no configuration.
    Form,
}

impl fmt::Display for NotMeasured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hash => "the configuration is not the one that MRCONFIGID measures",
            Self::Form => "the measured configuration is none",
        })
    }
}

impl core::error::Error for NotMeasured {}

impl Configuration {
    /// The bytes of a configuration with another root, for whoever starts migration TDs. Their SHA-384 is MRCONFIGID.
    #[must_use]
    pub fn encode(least_evaluation_number: u32, root: &[u8]) -> Vec<u8> {
        let number = least_evaluation_number.to_le_bytes();
        MAGIC.iter().chain(&number).chain(root).copied().collect()
    }

    /// The MRCONFIGID of a migration TD with a configuration.
    #[must_use]
    pub fn mr_config_id(bytes: &[u8]) -> [u8; 48] {
        Sha384::digest(bytes).into()
    }

    /// The configuration of the TD that this is, from bytes that its host gave.
    ///
    /// # Errors
    /// [`NotMeasured`]. A TD without MRCONFIGID takes no bytes but none.
    pub fn measured(bytes: &[u8], own: &TdInfo) -> Result<Self, NotMeasured> {
        if own.mr_config_id == [0; 48] {
            let built_in = Self { least_evaluation_number: BUILT_IN_FLOOR, root: None };
            return if bytes.is_empty() { Ok(built_in) } else { Err(NotMeasured::Hash) };
        }
        if Self::mr_config_id(bytes) != own.mr_config_id {
            return Err(NotMeasured::Hash);
        }
        let (number, root) =
            bytes.strip_prefix(&MAGIC).and_then(<[u8]>::split_first_chunk).ok_or(NotMeasured::Form)?;
        let least_evaluation_number = u32::from_le_bytes(*number);
        if least_evaluation_number == 0 {
            return Err(NotMeasured::Form);
        }
        let root = (!root.is_empty()).then(|| root.to_vec());
        Ok(Self { least_evaluation_number, root })
    }

    pub(crate) const fn least_evaluation_number(&self) -> u32 {
        self.least_evaluation_number
    }

    /// The root that stands in Intel's place.
    pub(crate) fn root(&self) -> Option<&[u8]> {
        self.root.as_deref()
    }
}
