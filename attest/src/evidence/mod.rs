//! Evidence in the forms in which people have it.
//!
//! Quotes and TDREPORTs travel as they are, as hexadecimal or base64 text with line breaks, in the buffer of the
//! guest's driver, as JSON arrays of bytes, as protocol buffers of Google's tools, and inside the evidence JSON of Trustee,
//! dstack and others; event logs beside them. [`open`] and [`open_log`] unwrap all of these. What comes out is exactly the bytes that were put in: they
//! are verified elsewhere, and nothing is taken on trust here.
//!
//! Everything is bounded: the size of a file, how deep forms lie in each other, how deep JSON nests.

mod google;
mod hcl;
mod json;
mod text;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

pub use hcl::{HclError, HclReport, RuntimeData};

use crate::eventlog::{EventLog, LogError};
use crate::predict::list;
use crate::report::TdReport;

/// The largest evidence that is read, in bytes.
pub const MAX_EVIDENCE: usize = 16 << 20;
/// How deep forms may lie in each other: base64 of JSON with a text that is hexadecimal.
const MAX_FORMS: usize = 4;
/// Versions of quotes that there are or may be: what has another first word is none.
const QUOTE_VERSIONS: core::ops::RangeInclusive<u16> = 2..=15;
/// Bytes of a quote's header; nothing shorter is one.
const QUOTE_HEADER: usize = 48;

/// The form that evidence came in, from the outside in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// Hexadecimal text.
    Hex,
    /// Base64 or base64url text.
    Base64,
    /// The buffer of the guest's quote driver (`struct tdx_quote_buf`).
    QuoteBuffer,
    /// A JSON array of bytes.
    ByteArray,
    /// A member of a JSON object, or a JSON text.
    Json,
    /// An Azure HCL report.
    Hcl,
    /// A protocol buffer of Google's tools (`tdx.QuoteV4`, `tdx.QuoteV5`).
    Protobuf,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hex => "hexadecimal",
            Self::Base64 => "base64",
            Self::QuoteBuffer => "tdx_quote_buf",
            Self::ByteArray => "byte array",
            Self::Json => "JSON",
            Self::Hcl => "HCL report",
            Self::Protobuf => "protobuf",
        })
    }
}

/// Evidence, unwrapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// A quote, or what begins like one.
    Quote(Vec<u8>),
    /// A TDREPORT (1024 bytes).
    Report(Vec<u8>),
    /// An Azure HCL report, whole: [`HclReport::parse`] reads it.
    Hcl(Vec<u8>),
}

/// Evidence and the forms that it was wrapped in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The evidence.
    pub evidence: Evidence,
    /// The forms that the evidence had, the outermost first; empty for plain bytes.
    pub forms: Vec<Form>,
}

/// Why there is no evidence in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EvidenceError {
    /// Larger than evidence is.
    TooLarge,
    /// Not a quote, a TDREPORT, or any form of them.
    NotAQuote,
    /// JSON that cannot be read: the text says where.
    Json(String),
    /// JSON without a member that is a quote.
    NoMember,
    /// JSON with two different quotes: which is meant would be a guess.
    TwoQuotes,
    /// The quote driver's buffer says that the quote failed.
    QuoteStatus(u64),
    /// An HCL report that is none.
    Hcl(HclError),
    /// Not an event log in any form.
    NotALog(LogError),
    /// Not a list of events.
    List(list::ListError),
    /// JSON without a member that is an event log.
    NoLog,
}

impl fmt::Display for EvidenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str("larger than any evidence"),
            Self::NotAQuote => f.write_str(
                "not a quote: neither its bytes nor hexadecimal, base64, a quote buffer or evidence JSON of them",
            ),
            Self::Json(error) => write!(f, "not a quote: JSON that cannot be read: {error}"),
            Self::NoMember => f.write_str("not a quote: JSON without a member that is one"),
            Self::TwoQuotes => f.write_str("two different quotes in one file"),
            Self::QuoteStatus(status) => {
                write!(f, "not a quote: the quote buffer has status {status:#x}, so no quote was made")
            }
            Self::Hcl(error) => write!(f, "not an HCL report: {error}"),
            Self::NotALog(error) => error.fmt(f),
            Self::List(error) => error.fmt(f),
            Self::NoLog => f.write_str("no event log: JSON without a member that is one"),
        }
    }
}

impl core::error::Error for EvidenceError {}

/// Unwraps a quote, a TDREPORT or an HCL report.
///
/// # Errors
/// [`EvidenceError`]; a quote that is damaged is still given out, and its verification says what is wrong.
pub fn open(bytes: &[u8]) -> Result<Opened, EvidenceError> {
    if bytes.len() > MAX_EVIDENCE {
        return Err(EvidenceError::TooLarge);
    }
    let mut forms = Vec::new();
    let evidence = unwrap(bytes, &mut forms)?;
    Ok(Opened { evidence, forms })
}

fn unwrap(bytes: &[u8], forms: &mut Vec<Form>) -> Result<Evidence, EvidenceError> {
    if forms.len() > MAX_FORMS {
        return Err(EvidenceError::NotAQuote);
    }
    if bytes.len() == TdReport::SIZE && TdReport::from_bytes(bytes).is_ok() {
        return Ok(Evidence::Report(bytes.to_vec()));
    }
    if bytes.starts_with(hcl::SIGNATURE) {
        HclReport::parse(bytes).map_err(EvidenceError::Hcl)?;
        forms.push(Form::Hcl);
        return Ok(Evidence::Hcl(bytes.to_vec()));
    }
    if let Some(buffer) = quote_buffer(bytes) {
        forms.push(Form::QuoteBuffer);
        return unwrap(buffer?, forms);
    }
    if begins_like_a_quote(bytes) {
        return Ok(Evidence::Quote(bytes.to_vec()));
    }
    if let Some(quote) = google::quote(bytes) {
        forms.push(Form::Protobuf);
        return unwrap(&quote, forms);
    }
    let text = core::str::from_utf8(bytes).map_err(|_| EvidenceError::NotAQuote)?;
    let text =
        text.trim_start_matches('\u{feff}').trim_matches(|char: char| char.is_whitespace() || char == '\0');
    if text.starts_with(['{', '[', '"']) {
        return json::quote(text, forms);
    }
    let decoded = [(Form::Hex, text::hex(text)), (Form::Base64, text::base64(text))];
    for (form, decoded) in decoded {
        let Some(decoded) = decoded.filter(|decoded| !decoded.is_empty()) else { continue };
        let before = forms.len();
        forms.push(form);
        match unwrap(&decoded, forms) {
            Err(EvidenceError::NotAQuote) => forms.truncate(before),
            found => return found,
        }
    }
    Err(EvidenceError::NotAQuote)
}

/// Whether bytes begin with a quote's header, known or of a version to come: verification says what is wrong with it.
fn begins_like_a_quote(bytes: &[u8]) -> bool {
    let Some([v0, v1, k0, k1, t0, t1, t2, t3]) = bytes.first_chunk::<8>() else { return false };
    let version = u16::from_le_bytes([*v0, *v1]);
    let key = u16::from_le_bytes([*k0, *k1]);
    let tee = u32::from_le_bytes([*t0, *t1, *t2, *t3]);
    bytes.len() >= QUOTE_HEADER && QUOTE_VERSIONS.contains(&version) && key <= 15 && matches!(tee, 0 | 0x81)
}

/// What a `struct tdx_quote_buf` holds: version 1 and status (8 bytes each), length in and out (4 each), data.
fn quote_buffer(bytes: &[u8]) -> Option<Result<&[u8], EvidenceError>> {
    let word = |at: usize| bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes);
    let length = |at: usize| bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes);
    let (version, status, length) = (word(0)?, word(8)?, length(20)?);
    if version != 1 {
        return None;
    }
    if status != 0 {
        return Some(Err(EvidenceError::QuoteStatus(status)));
    }
    let data = bytes.get(24..)?;
    let data = usize::try_from(length).ok().and_then(|length| data.get(..length));
    Some(data.ok_or(EvidenceError::NotAQuote))
}

/// An event log, unwrapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedLog {
    /// The log's area.
    pub area: Vec<u8>,
    /// The list that it was made from, if it was one.
    pub list: Option<list::EventList>,
}

/// Unwraps an event log: an area as CCEL points to it, a list of events, either as text, or the evidence JSON that has
/// one.
///
/// # Errors
/// [`EvidenceError`].
pub fn open_log(bytes: &[u8]) -> Result<OpenedLog, EvidenceError> {
    if bytes.len() > MAX_EVIDENCE {
        return Err(EvidenceError::TooLarge);
    }
    let error = match EventLog::parse(bytes) {
        Ok(_) => return Ok(OpenedLog { area: bytes.to_vec(), list: None }),
        Err(error) => error,
    };
    let Ok(text) = core::str::from_utf8(bytes) else { return Err(EvidenceError::NotALog(error)) };
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.starts_with(['{', '[']) {
        return json::log(text);
    }
    for decoded in [text::hex(text), text::base64(text)].into_iter().flatten() {
        match EventLog::parse(&decoded) {
            Ok(_) => return Ok(OpenedLog { area: decoded, list: None }),
            // What is a log of another kind is said to be that.
            Err(error @ (LogError::OfPcrs(_) | LogError::NoSha384)) => {
                return Err(EvidenceError::NotALog(error));
            }
            Err(_) => {}
        }
    }
    Err(EvidenceError::NotALog(error))
}

#[cfg(all(test, feature = "issue"))]
mod tests;
