//! Messages of Intel's quote generation service (QGS), protocol 1.x: how a VMM asks for a real quote.
//!
//! ```text
//! header    major u16 · minor u16 · type u32 · size u32 (whole message) · error code u32
//! request   header · report size u32 · id list size u32 · report · id list
//! response  header · selected id size u32 · quote size u32 · id · quote
//! ```
//!
//! Integers are little-endian. On a socket each message follows its length as a big-endian u32. Everything
//! that a peer sends is bounded by [`MAX_MESSAGE`] before it is allocated for.

use alloc::vec::Vec;
use core::fmt;

use crate::bytes::{Cursor, Truncated};

/// The largest message, in bytes. Quotes have 5 to 8 KiB.
pub const MAX_MESSAGE: usize = 128 * 1024;
/// Major version of the protocol.
pub const MAJOR: u16 = 1;
/// Minor version that requests are written in.
pub const MINOR: u16 = 0;
const HEADER: usize = 16;
const GET_QUOTE_REQUEST: u32 = 0;
const GET_QUOTE_RESPONSE: u32 = 1;

/// Why a message is not of this protocol, or the service gave no quote.
#[derive(Debug)]
#[non_exhaustive]
pub enum QgsError {
    /// The message ends early.
    Truncated(Truncated),
    /// The declared sizes do not agree with the message's.
    Size,
    /// Larger than [`MAX_MESSAGE`].
    TooLarge(usize),
    /// The message has another major version.
    Version(u16),
    /// The message is of another type than was expected.
    Type(u32),
    /// The service answered with an error code of its own.
    Service(u32),
    /// The service answered with an empty quote.
    Empty,
    /// The connection failed.
    #[cfg(feature = "std")]
    Io(std::io::Error),
}

impl From<Truncated> for QgsError {
    fn from(truncated: Truncated) -> Self {
        Self::Truncated(truncated)
    }
}

#[cfg(feature = "std")]
impl From<std::io::Error> for QgsError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for QgsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated(_) => f.write_str("the message ends early"),
            Self::Size => f.write_str("the sizes in the message do not agree"),
            Self::TooLarge(size) => write!(f, "a message of {size} bytes is too large"),
            Self::Version(major) => write!(f, "protocol version {major} is not supported"),
            Self::Type(kind) => write!(f, "unexpected message type {kind}"),
            Self::Service(code) => write!(f, "the quote generation service answered with error {code:#x}"),
            Self::Empty => f.write_str("the quote generation service answered without a quote"),
            #[cfg(feature = "std")]
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for QgsError {}

/// A request for a quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetQuote<'a> {
    /// The TDREPORT.
    pub report: &'a [u8],
    /// Identifiers of attestation keys that the caller would take; usually none.
    pub ids: &'a [u8],
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted<'a> {
    /// Identifier of the attestation key that was used; may be empty.
    pub id: &'a [u8],
    /// The quote.
    pub quote: &'a [u8],
}

/// Writes a message of two variable parts, each with its size.
fn encode(kind: u32, error: u32, first: &[u8], second: &[u8]) -> Result<Vec<u8>, QgsError> {
    let size = HEADER.saturating_add(8).saturating_add(first.len()).saturating_add(second.len());
    if size > MAX_MESSAGE {
        return Err(QgsError::TooLarge(size));
    }
    // All of these fit: the sum does.
    let mut message = Vec::with_capacity(size);
    message.extend_from_slice(&MAJOR.to_le_bytes());
    message.extend_from_slice(&MINOR.to_le_bytes());
    message.extend_from_slice(&kind.to_le_bytes());
    message.extend_from_slice(&crate::length32(size).to_le_bytes());
    message.extend_from_slice(&error.to_le_bytes());
    message.extend_from_slice(&crate::length32(first.len()).to_le_bytes());
    message.extend_from_slice(&crate::length32(second.len()).to_le_bytes());
    message.extend_from_slice(first);
    message.extend_from_slice(second);
    Ok(message)
}

/// Reads a message of two variable parts.
fn decode(message: &[u8], wanted: u32) -> Result<(&[u8], &[u8]), QgsError> {
    if message.len() > MAX_MESSAGE {
        return Err(QgsError::TooLarge(message.len()));
    }
    let mut cursor = Cursor::new(message);
    let major = cursor.u16()?;
    let _minor = cursor.u16()?;
    let kind = cursor.u32()?;
    let size = cursor.u32()?;
    let error = cursor.u32()?;
    if major != MAJOR {
        return Err(QgsError::Version(major));
    }
    if kind != wanted {
        return Err(QgsError::Type(kind));
    }
    if usize::try_from(size).ok() != Some(message.len()) {
        return Err(QgsError::Size);
    }
    if error != 0 {
        return Err(QgsError::Service(error));
    }
    let first = cursor.u32()?;
    let second = cursor.u32()?;
    let len = |size: u32| usize::try_from(size).unwrap_or(usize::MAX);
    let first = cursor.bytes(len(first))?;
    let second = cursor.bytes(len(second))?;
    if cursor.rest().is_empty() { Ok((first, second)) } else { Err(QgsError::Size) }
}

impl<'a> GetQuote<'a> {
    /// The request as a message, without its frame.
    ///
    /// # Errors
    /// Parts that are too large.
    pub fn encode(&self) -> Result<Vec<u8>, QgsError> {
        // The sizes come in the order report, ids; so do the parts.
        encode(GET_QUOTE_REQUEST, 0, self.report, self.ids)
    }

    /// Reads a request.
    ///
    /// # Errors
    /// Bytes that are no request of this protocol.
    pub fn decode(message: &'a [u8]) -> Result<Self, QgsError> {
        decode(message, GET_QUOTE_REQUEST).map(|(report, ids)| Self { report, ids })
    }
}

impl<'a> Quoted<'a> {
    /// The answer as a message, without its frame.
    ///
    /// # Errors
    /// Parts that are too large.
    pub fn encode(&self) -> Result<Vec<u8>, QgsError> {
        encode(GET_QUOTE_RESPONSE, 0, self.id, self.quote)
    }

    /// An answer without a quote: why there is none.
    ///
    /// # Errors
    /// None in practice: the message is small.
    pub fn refusal(code: u32) -> Result<Vec<u8>, QgsError> {
        encode(GET_QUOTE_RESPONSE, code, &[], &[])
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// Bytes that are no answer of this protocol, and answers without a quote.
    pub fn decode(message: &'a [u8]) -> Result<Self, QgsError> {
        let (id, quote) = decode(message, GET_QUOTE_RESPONSE)?;
        if quote.is_empty() { Err(QgsError::Empty) } else { Ok(Self { id, quote }) }
    }
}

/// Messages on a byte stream.
#[cfg(feature = "std")]
pub mod stream {
    use std::io::{Read, Write};

    use alloc::vec::Vec;

    use super::{GetQuote, MAX_MESSAGE, QgsError, Quoted};

    /// Writes one message after its length.
    ///
    /// # Errors
    /// Messages that are too large, and failures of the stream.
    pub fn write(stream: &mut impl Write, message: &[u8]) -> Result<(), QgsError> {
        if message.len() > MAX_MESSAGE {
            return Err(QgsError::TooLarge(message.len()));
        }
        stream.write_all(&crate::length32(message.len()).to_be_bytes())?;
        stream.write_all(message)?;
        stream.flush()?;
        Ok(())
    }

    /// Reads one message; its length is checked before anything is allocated.
    ///
    /// # Errors
    /// Messages that are too large, and failures of the stream.
    pub fn read(stream: &mut impl Read) -> Result<Vec<u8>, QgsError> {
        let mut len = [0; 4];
        stream.read_exact(&mut len)?;
        let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
        if len > MAX_MESSAGE {
            return Err(QgsError::TooLarge(len));
        }
        let mut message = alloc::vec![0; len];
        stream.read_exact(&mut message)?;
        Ok(message)
    }

    /// Asks the service at the other end of `stream` for a quote of `report`.
    ///
    /// # Errors
    /// What the service or the stream refuses.
    pub fn get_quote(stream: &mut (impl Read + Write), report: &[u8]) -> Result<Vec<u8>, QgsError> {
        write(stream, &GetQuote { report, ids: &[] }.encode()?)?;
        let answer = read(stream)?;
        Quoted::decode(&answer).map(|quoted| quoted.quote.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_bytes_that_intels_service_reads() {
        let message = GetQuote { report: &[0xaa; 4], ids: &[0xbb; 2] }.encode().unwrap();
        let expected = [
            &[1, 0, 0, 0][..],
            &[0, 0, 0, 0],
            &[30, 0, 0, 0],
            &[0, 0, 0, 0],
            &[4, 0, 0, 0],
            &[2, 0, 0, 0],
            &[0xaa; 4],
            &[0xbb; 2],
        ]
        .concat();
        assert_eq!(message, expected);
        assert_eq!(GetQuote::decode(&message).unwrap(), GetQuote { report: &[0xaa; 4], ids: &[0xbb; 2] });
    }

    #[test]
    fn answers_of_any_broken_form_are_errors() {
        let whole = Quoted { id: &[1], quote: &[2; 100] }.encode().unwrap();
        assert_eq!(Quoted::decode(&whole).unwrap(), Quoted { id: &[1], quote: &[2; 100] });
        for len in 0..whole.len() {
            assert!(Quoted::decode(&whole[..len]).is_err(), "{len} bytes");
        }
        for at in 0..24 {
            let mut wrong = whole.clone();
            wrong[at] ^= 0xff;
            // The minor version does not matter.
            assert_eq!(Quoted::decode(&wrong).is_ok(), (2..4).contains(&at), "byte {at}");
        }
        assert!(matches!(Quoted::decode(&Quoted::refusal(0x12).unwrap()), Err(QgsError::Service(0x12))));
        let empty = Quoted { id: &[], quote: &[] }.encode().unwrap();
        assert!(matches!(Quoted::decode(&empty), Err(QgsError::Empty)));
        assert!(matches!(Quoted { id: &[], quote: &[0; MAX_MESSAGE] }.encode(), Err(QgsError::TooLarge(_))));
    }

    #[cfg(all(unix, feature = "std"))]
    #[test]
    fn a_quote_comes_from_a_peer_on_a_unix_socket_and_a_huge_answer_is_refused() {
        use std::os::unix::net::UnixStream;

        let (mut vmm, mut service) = UnixStream::pair().unwrap();
        let peer = std::thread::spawn(move || {
            let request = stream::read(&mut service).unwrap();
            let report = GetQuote::decode(&request).unwrap().report.to_vec();
            let quote = [b"quote of ".as_slice(), &report[..4]].concat();
            let answer = Quoted { id: &[], quote: &quote }.encode().unwrap();
            stream::write(&mut service, &answer).unwrap();
            // The second answer claims to be larger than any.
            stream::read(&mut service).unwrap();
            std::io::Write::write_all(&mut service, &u32::MAX.to_be_bytes()).unwrap();
        });
        assert_eq!(stream::get_quote(&mut vmm, &[b'r'; 1024]).unwrap(), b"quote of rrrr");
        assert!(matches!(stream::get_quote(&mut vmm, &[0; 1024]), Err(QgsError::TooLarge(_))));
        peer.join().unwrap();
    }
}
