//! TDATTRIBUTES as a value: open bits that print their names.

use core::fmt;

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::attributes as bits;

/// TDATTRIBUTES of a TD (TDX module ABI specification, TD attributes table).
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(transparent)]
pub struct TdAttributes(U64);

impl TdAttributes {
    /// The TD can be debugged by its host: nothing it holds is secret.
    pub const DEBUG: u64 = bits::DEBUG;
    /// The TD is under debug in any way: DEBUG, profiling, or a bit of the group that is not defined yet.
    pub const TUD: u64 = 0xff;
    /// Defence against single stepping by counting instructions.
    pub const ICSSD: u64 = bits::ICSSD;
    /// The TD may be a target of an extended service TD binding.
    pub const SERVTD_EXT: u64 = bits::SERVTD_EXT;
    /// Linear address separation.
    pub const LASS: u64 = bits::LASS;
    /// EPT violations on private pages do not become #VE in the guest.
    pub const SEPT_VE_DISABLE: u64 = bits::SEPT_VE_DISABLE;
    /// The TD may be migrated by a migration TD.
    pub const MIGRATABLE: u64 = bits::MIGRATABLE;
    /// Protection keys for supervisor pages.
    pub const PKS: u64 = bits::PKS;
    /// Key locker.
    pub const KL: u64 = bits::KL;
    /// The TD attests other TDs (TDX provisioning agent).
    pub const TPA: u64 = bits::TPA;
    /// Performance monitoring.
    pub const PERFMON: u64 = bits::PERFMON;

    /// Every bit that may be set: those named here, and 18 to 22, which the ABI specification gives to the TD's
    /// creator without a meaning for others.
    pub const DEFINED: u64 = Self::TUD
        | Self::ICSSD
        | Self::SERVTD_EXT
        | 0x1f << 18
        | Self::LASS
        | Self::SEPT_VE_DISABLE
        | Self::MIGRATABLE
        | Self::PKS
        | Self::KL
        | Self::TPA
        | Self::PERFMON;

    /// Wraps raw bits.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(U64::new(bits))
    }

    /// The raw bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0.get()
    }

    /// Whether every bit of `mask` is set.
    #[must_use]
    pub const fn contains(self, mask: u64) -> bool {
        self.bits() & mask == mask
    }
}

const NAMED: [(u64, &str); 10] = [
    (TdAttributes::DEBUG, "DEBUG"),
    (TdAttributes::ICSSD, "ICSSD"),
    (TdAttributes::SERVTD_EXT, "SERVTD_EXT"),
    (TdAttributes::LASS, "LASS"),
    (TdAttributes::SEPT_VE_DISABLE, "SEPT_VE_DISABLE"),
    (TdAttributes::MIGRATABLE, "MIGRATABLE"),
    (TdAttributes::PKS, "PKS"),
    (TdAttributes::KL, "KL"),
    (TdAttributes::TPA, "TPA"),
    (TdAttributes::PERFMON, "PERFMON"),
];

impl fmt::Display for TdAttributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.bits())?;
        NAMED.iter().filter(|(bit, _)| self.contains(*bit)).try_for_each(|(_, name)| write!(f, " {name}"))
    }
}

impl fmt::Debug for TdAttributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
