//! The header of a packet (section 5.10.6 of the specification): 44 bytes, little-endian.
//!
//! | bytes | | bytes | |
//! |---|---|---|---|
//! | 0 | source CID (u64) | 28 | type (u16): 1 stream |
//! | 8 | destination CID (u64) | 30 | operation (u16) |
//! | 16 | source port (u32) | 32 | flags (u32), of a shutdown |
//! | 20 | destination port (u32) | 36 | buffer space of the sender (u32) |
//! | 24 | bytes of data behind the header (u32) | 40 | bytes that the sender has forwarded (u32) |

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::super::Broken;
use super::super::chain::Reader;

/// Bytes of a header.
pub(super) const HEADER_BYTES: usize = size_of::<Layout>();

/// The type of socket that is served.
pub(super) const TYPE_STREAM: u16 = 1;

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// Asks for a connection.
    Request,
    /// Grants it.
    Response,
    /// There is no such connection, or there will be none.
    Reset,
    /// The sender will not send, or not receive, any more.
    Shutdown,
    /// Data.
    Data,
    /// Nothing but the sender's credit.
    CreditUpdate,
    /// Asks for the receiver's credit.
    CreditRequest,
    /// Something else.
    Other(u16),
}

impl Operation {
    const fn from_code(code: u16) -> Self {
        match code {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Reset,
            4 => Self::Shutdown,
            5 => Self::Data,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            other => Self::Other(other),
        }
    }

    const fn code(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Reset => 3,
            Self::Shutdown => 4,
            Self::Data => 5,
            Self::CreditUpdate => 6,
            Self::CreditRequest => 7,
            Self::Other(code) => code,
        }
    }
}

/// Flags of a shutdown.
pub(super) mod shutdown {
    /// The sender will not receive any more.
    pub(in super::super) const RECEIVE: u32 = 1 << 0;
    /// The sender will not send any more.
    pub(in super::super) const SEND: u32 = 1 << 1;
}

/// A header as it lies in memory.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Layout {
    source_cid: U64,
    destination_cid: U64,
    source_port: U32,
    destination_port: U32,
    length: U32,
    socket_type: U16,
    operation: U16,
    flags: U32,
    buffer_space: U32,
    forwarded: U32,
}

const _: () = assert!(HEADER_BYTES == 44);

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) source_cid: u64,
    pub(super) destination_cid: u64,
    pub(super) source_port: u32,
    pub(super) destination_port: u32,
    pub(super) length: u32,
    pub(super) socket_type: u16,
    pub(super) operation: Operation,
    pub(super) flags: u32,
    pub(super) buffer_space: u32,
    pub(super) forwarded: u32,
}

impl Header {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Broken> {
        let layout: Layout = reader.read_one()?;
        Ok(Self {
            source_cid: layout.source_cid.get(),
            destination_cid: layout.destination_cid.get(),
            source_port: layout.source_port.get(),
            destination_port: layout.destination_port.get(),
            length: layout.length.get(),
            socket_type: layout.socket_type.get(),
            operation: Operation::from_code(layout.operation.get()),
            flags: layout.flags.get(),
            buffer_space: layout.buffer_space.get(),
            forwarded: layout.forwarded.get(),
        })
    }

    pub(super) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        zerocopy::transmute!(Layout {
            source_cid: self.source_cid.into(),
            destination_cid: self.destination_cid.into(),
            source_port: self.source_port.into(),
            destination_port: self.destination_port.into(),
            length: self.length.into(),
            socket_type: self.socket_type.into(),
            operation: self.operation.code().into(),
            flags: self.flags.into(),
            buffer_space: self.buffer_space.into(),
            forwarded: self.forwarded.into(),
        })
    }
}
