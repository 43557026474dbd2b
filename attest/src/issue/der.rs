//! A small DER writer: enough for certificates and revocation lists of this PKI.

use alloc::vec::Vec;

use crate::UnixSeconds;

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
pub(super) const ENUMERATED: u8 = 0x0a;
pub(super) const UTF8_STRING: u8 = 0x0c;
pub(super) const UTC_TIME: u8 = 0x17;
pub(super) const GENERALIZED_TIME: u8 = 0x18;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// One element.
pub(super) fn tlv(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(contents.len() + 6);
    out.push(tag);
    let len = contents.len();
    if let Ok(short @ ..0x80) = u8::try_from(len) {
        out.push(short);
    } else {
        let bytes = len.to_be_bytes();
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let bytes = bytes.get(zeros..).unwrap_or_default();
        out.push(0x80 | u8::try_from(bytes.len()).unwrap_or(0x7f));
        out.extend_from_slice(bytes);
    }
    out.extend_from_slice(contents);
    out
}

/// A SEQUENCE of elements.
pub(super) fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(SEQUENCE, &parts.concat())
}

/// A non-negative INTEGER from its big-endian magnitude.
pub(super) fn unsigned(magnitude: &[u8]) -> Vec<u8> {
    let zeros = magnitude.iter().take_while(|byte| **byte == 0).count();
    let magnitude = magnitude.get(zeros..).unwrap_or_default();
    let mut contents = Vec::with_capacity(magnitude.len() + 1);
    if magnitude.first().is_none_or(|first| first & 0x80 != 0) {
        contents.push(0);
    }
    contents.extend_from_slice(magnitude);
    tlv(INTEGER, &contents)
}

/// A small INTEGER.
pub(super) fn number(value: u32) -> Vec<u8> {
    unsigned(&value.to_be_bytes())
}

/// BOOLEAN.
pub(super) fn boolean(value: bool) -> Vec<u8> {
    tlv(0x01, &[if value { 0xff } else { 0 }])
}

/// A BIT STRING without unused bits.
pub(super) fn bits(contents: &[u8]) -> Vec<u8> {
    tlv(BIT_STRING, &[&[0], contents].concat())
}

/// A date as RFC 5280 wants it: UTCTime to 2049, GeneralizedTime after.
pub(super) fn time(date: UnixSeconds) -> Vec<u8> {
    let text: Vec<u8> = alloc::format!("{date}").bytes().filter(u8::is_ascii_digit).chain([b'Z']).collect();
    match text.split_at_checked(2) {
        Some((century, rest)) if century == b"20" && rest < &b"5"[..] => tlv(UTC_TIME, rest),
        Some((century, rest)) if century == b"19" => tlv(UTC_TIME, rest),
        _ => tlv(GENERALIZED_TIME, &text),
    }
}
