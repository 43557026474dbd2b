//! The MBMD: the 48 bytes that head a migration bundle.

use tdvisor_base::Hpa;
use tdx_module_iface::{Operand, StatusCode};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian as le};

use super::gcm::{GcmKey, IV_BYTES, TAG_BYTES};
use super::operands::read_host;
use crate::host::steps::shared_hpa;
use crate::host::{Call, Step, invalid, plain};

/// Bytes of an MBMD.
pub(crate) const BYTES: u16 = 48;
/// Bytes that its tag covers.
const COVERED: usize = 32;
/// Alignment of the buffer that holds one.
const ALIGN: u64 = 128;

/// What a bundle holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum BundleKind {
    ImmutableState = 0,
    TdState = 1,
    VcpuState = 2,
    Memory = 16,
    EpochToken = 32,
    AbortToken = 33,
}

impl BundleKind {
    /// Whether the number of the stream is left out of what the tag covers.
    const fn hides_stream(self) -> bool {
        matches!(self, Self::VcpuState | Self::Memory | Self::AbortToken)
    }
}

/// A number of a bundle's run: the low half of its initialisation vector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    pub(crate) counter: u64,
    pub(crate) stream: u16,
}

impl Run {
    /// Counter, stream, zero.
    pub(crate) fn iv(self) -> [u8; IV_BYTES] {
        let mut iv = [0; IV_BYTES];
        let bytes = self.counter.to_le_bytes().into_iter().chain(self.stream.to_le_bytes());
        for (to, from) in iv.iter_mut().zip(bytes) {
            *to = from;
        }
        iv
    }
}

/// An MBMD.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Mbmd {
    pub(crate) size: le::U16,
    pub(crate) version: le::U16,
    pub(crate) stream: le::U16,
    pub(crate) kind: u8,
    pub(crate) reserved: u8,
    /// Number of the bundle on its stream.
    pub(crate) counter: le::U32,
    pub(crate) epoch: le::U32,
    pub(crate) iv_counter: le::U64,
    /// What only bundles of this kind say.
    pub(crate) details: le::U64,
    pub(crate) tag: [u8; TAG_BYTES],
}

impl Mbmd {
    /// One of this kind, without a place yet.
    pub(crate) fn new(kind: BundleKind, version: u16, details: u64) -> Self {
        let mut header = Self::new_zeroed();
        header.size = BYTES.into();
        header.version = version.into();
        header.kind = kind as u8;
        header.details = details.into();
        header
    }

    /// Whether size, version, stream, kind and reserved byte are those of a bundle of this kind and stream.
    pub(crate) fn is_of(&self, kind: BundleKind, version: u16, stream: u16) -> bool {
        self.size.get() == BYTES
            && self.version.get() == version
            && self.stream.get() == stream
            && self.kind == kind as u8
            && self.reserved == 0
    }

    /// The run that its tag belongs to.
    pub(crate) fn run(&self) -> Run {
        Run { counter: self.iv_counter.get(), stream: self.stream.get() }
    }

    /// The bytes of the MBMD that its tag covers beside pages.
    pub(crate) fn covered(&self, kind: BundleKind) -> [u8; COVERED] {
        let mut copy = *self;
        copy.iv_counter = 0.into();
        if kind.hides_stream() {
            copy.stream = 0.into();
        }
        let mut bytes = [0; COVERED];
        for (to, from) in bytes.iter_mut().zip(copy.as_bytes()) {
            *to = *from;
        }
        bytes
    }

    /// The tag of one that has no pages in its run.
    pub(crate) fn lone_tag(&self, kind: BundleKind, key: &GcmKey) -> [u8; TAG_BYTES] {
        key.tag(self.run().iv(), &self.covered(kind), &[])
    }

    /// Whether its tag is right, where it has no pages in its run.
    ///
    /// # Errors
    /// INCORRECT_MBMD_MAC.
    pub(crate) fn check_lone_tag(&self, kind: BundleKind, key: &GcmKey) -> Step {
        if self.tag == self.lone_tag(kind, key) { Ok(()) } else { Err(plain(StatusCode::INCORRECT_MBMD_MAC)) }
    }
}

/// The buffer of an MBMD, as R8 names it: its size in bits 63:52.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MbmdBuffer(u64);

impl MbmdBuffer {
    const ADDRESS: u64 = (1 << 52) - 1;

    /// Checks R8: size, then address.
    pub(crate) fn new(call: &Call<'_>, r8: u64) -> Step<Self> {
        if r8 >> 52 < u64::from(BYTES) {
            return Err(invalid(Operand::R8));
        }
        let pa = r8 & Self::ADDRESS;
        shared_hpa(call, pa, ALIGN, Operand::R8)?;
        Ok(Self(pa))
    }

    /// Reads the MBMD.
    pub(crate) fn read(self, call: &Call<'_>) -> Mbmd {
        let bytes: [u8; BYTES as usize] = read_host(call, self.0);
        zerocopy::transmute!(bytes)
    }

    /// Writes an MBMD.
    pub(crate) fn write(self, call: &Call<'_>, header: &Mbmd) {
        // Where no memory answers, the write is swallowed.
        let _ = call.machine.host_write(Hpa::new(self.0), header.as_bytes());
    }
}
