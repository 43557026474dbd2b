//! The header of a packet (section 5.10.6 of the specification): 44 bytes, little-endian.
//!
//! | bytes | | bytes | |
//! |---|---|---|---|
//! | 0 | source CID (u64) | 28 | type (u16): 1 stream |
//! | 8 | destination CID (u64) | 30 | operation (u16) |
//! | 16 | source port (u32) | 32 | flags (u32), of a shutdown |
//! | 20 | destination port (u32) | 36 | buffer space of the sender (u32) |
//! | 24 | bytes of data behind the header (u32) | 40 | bytes that the sender has forwarded (u32) |

use super::super::Broken;
use super::super::chain::Reader;

/// Bytes of a header.
pub(super) const HEADER_BYTES: usize = 44;

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

/// A header.
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
        let mut bytes = [0; HEADER_BYTES];
        reader.read(&mut bytes)?;
        let mut rest = &bytes[..];
        let mut field = |count: usize| {
            let (field, behind) = rest.split_at_checked(count).unwrap_or_default();
            rest = behind;
            field.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte))
        };
        Ok(Self {
            source_cid: field(8),
            destination_cid: field(8),
            source_port: field(4) as u32,
            destination_port: field(4) as u32,
            length: field(4) as u32,
            socket_type: field(2) as u16,
            operation: Operation::from_code(field(2) as u16),
            flags: field(4) as u32,
            buffer_space: field(4) as u32,
            forwarded: field(4) as u32,
        })
    }

    pub(super) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let fields: [&[u8]; 10] = [
            &self.source_cid.to_le_bytes(),
            &self.destination_cid.to_le_bytes(),
            &self.source_port.to_le_bytes(),
            &self.destination_port.to_le_bytes(),
            &self.length.to_le_bytes(),
            &self.socket_type.to_le_bytes(),
            &self.operation.code().to_le_bytes(),
            &self.flags.to_le_bytes(),
            &self.buffer_space.to_le_bytes(),
            &self.forwarded.to_le_bytes(),
        ];
        for (to, from) in bytes.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        bytes
    }
}
