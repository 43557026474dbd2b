//! The 48-byte quote header and the codes it carries, as open values: an unknown code is kept and printed.

use core::fmt;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// How the attestation key signs (attestation key type, header offset 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttestationKeyType(pub u16);

impl AttestationKeyType {
    /// ECDSA with SHA-256 on curve P-256: the only type that verifiers take.
    pub const ECDSA_P256: Self = Self(2);
    /// ECDSA on curve P-384: defined by the format, refused by Intel's library.
    pub const ECDSA_P384: Self = Self(3);
}

impl fmt::Display for AttestationKeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ECDSA_P256 => f.write_str("ECDSA-P256"),
            Self::ECDSA_P384 => f.write_str("ECDSA-P384"),
            Self(other) => write!(f, "unknown attestation key type {other}"),
        }
    }
}

/// Which kind of trusted environment the quote speaks for (header offset 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TeeType(pub u32);

impl TeeType {
    /// An SGX enclave.
    pub const SGX: Self = Self(0);
    /// A trust domain.
    pub const TDX: Self = Self(0x81);
}

impl fmt::Display for TeeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::SGX => f.write_str("SGX"),
            Self::TDX => f.write_str("TDX"),
            Self(other) => write!(f, "unknown TEE type {other:#x}"),
        }
    }
}

/// QE vendor identifier of Intel's quoting enclaves: 939a7233-f79c-4ca9-940a-0db3957f0607.
pub const INTEL_QE_VENDOR_ID: [u8; 16] =
    [0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07];

/// Quote header, the same 48 bytes in versions 3, 4 and 5.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Format version: 3, 4 or 5.
    pub version: U16,
    attestation_key_type: U16,
    tee_type: U32,
    /// SVN of the quoting enclave (version 3; reserved later).
    pub qe_svn: U16,
    /// SVN of the provisioning certification enclave (version 3; reserved later).
    pub pce_svn: U16,
    /// Who made the quoting enclave.
    pub qe_vendor_id: [u8; 16],
    /// Free data of the quoting enclave; its first 16 bytes identify the QE.
    pub user_data: [u8; 20],
}

impl Header {
    /// Bytes of a header.
    pub const SIZE: usize = 48;

    /// A header as quoting enclaves of this field write it, with Intel's vendor identifier.
    #[must_use]
    pub fn new(version: u16, tee: TeeType, user_data: [u8; 20]) -> Self {
        Self {
            version: U16::new(version),
            attestation_key_type: U16::new(AttestationKeyType::ECDSA_P256.0),
            tee_type: U32::new(tee.0),
            qe_svn: U16::ZERO,
            pce_svn: U16::ZERO,
            qe_vendor_id: INTEL_QE_VENDOR_ID,
            user_data,
        }
    }

    /// How the attestation key signs.
    #[must_use]
    pub const fn attestation_key_type(&self) -> AttestationKeyType {
        AttestationKeyType(self.attestation_key_type.get())
    }

    /// Which kind of trusted environment the quote speaks for.
    #[must_use]
    pub const fn tee_type(&self) -> TeeType {
        TeeType(self.tee_type.get())
    }
}

const _: () = assert!(size_of::<Header>() == Header::SIZE);
