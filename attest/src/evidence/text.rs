//! Bytes as text.

use alloc::vec::Vec;

use crate::bytes::hex_into;
use crate::x509::pem;

/// Hexadecimal digits of either case with any white space, and perhaps `0x` before them.
pub(super) fn hex(text: &str) -> Option<Vec<u8>> {
    let text = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let mut bytes = alloc::vec![0; digits.len() / 2];
    hex_into(&digits, &mut bytes).then_some(bytes)
}

/// Base64 or base64url with any white space, and with its padding or without.
pub(super) fn base64(text: &str) -> Option<Vec<u8>> {
    let standard: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            other => other,
        })
        .collect();
    pem::base64(&standard).ok()
}
