//! PEM, hexadecimal and DER: the textual forms in which services hand out certificates and lists.

use alloc::vec::Vec;

use super::X509Error;
use super::asn1::Walk;
use crate::bytes::hex_into;

/// The largest DER structure that is read, in bytes. Intel's largest revocation list has about 4 KiB.
pub const MAX_DER: usize = 1 << 20;
/// The most certificates that a chain may have; Intel's have two or three.
pub const MAX_CHAIN: usize = 8;

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";

/// Value of a base64 digit; 0xff for other bytes.
const BASE64: [u8; 256] = {
    let mut table = [0xff; 256];
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut value = 0u8;
    while value < 64 {
        table[alphabet[value as usize] as usize] = value;
        value += 1;
    }
    table
};

/// Decodes base64 with white space anywhere and optional padding at the end.
pub(crate) fn base64(text: &[u8]) -> Result<Vec<u8>, X509Error> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let (mut bits, mut count, mut padding) = (0u32, 0u32, 0u32);
    let mut rest = text;
    // Whole groups of four digits first: nearly all of it.
    while let Some((group, after)) = rest.split_first_chunk::<4>() {
        let [a, b, c, d] = group.map(|byte| BASE64.get(usize::from(byte)).copied().unwrap_or(0xff));
        if a | b | c | d < 64 {
            let bits = u32::from(a) << 18 | u32::from(b) << 12 | u32::from(c) << 6 | u32::from(d);
            out.extend_from_slice(bits.to_be_bytes().get(1..).unwrap_or_default());
            rest = after;
        } else if matches!(group.first(), Some(b'\n' | b'\r' | b' ' | b'\t')) {
            rest = rest.get(1..).unwrap_or_default();
        } else {
            break;
        }
    }
    for byte in rest {
        let value = BASE64.get(usize::from(*byte)).copied().unwrap_or(0xff);
        match byte {
            _ if value < 64 && padding == 0 => {
                bits = bits << 6 | u32::from(value);
                count += 1;
                if count == 4 {
                    out.extend_from_slice(bits.to_be_bytes().get(1..).unwrap_or_default());
                    (bits, count) = (0, 0);
                }
            }
            b'=' if padding < 2 => padding += 1,
            b' ' | b'\t' | b'\r' | b'\n' => {}
            _ => return Err(X509Error::Text),
        }
    }
    // Unused bits must be zero: one structure has one text.
    match count {
        0 => {}
        2 if bits & 0xf == 0 => out.push((bits >> 4 & 0xff) as u8),
        3 if bits & 0x3 == 0 => out.extend_from_slice(&[(bits >> 10 & 0xff) as u8, (bits >> 2 & 0xff) as u8]),
        _ => return Err(X509Error::Text),
    }
    if padding != 0 && count + padding != 4 {
        return Err(X509Error::Text);
    }
    Ok(out)
}

/// Where `what`, which begins with a dash, is in `text`. Base64 has no dashes: few places are compared.
fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(rest) = text.get(from..) {
        let at = from + rest.iter().position(|byte| *byte == b'-')?;
        if text.get(at..).is_some_and(|rest| rest.starts_with(what)) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

/// A PEM block's contents and the text after it.
type Block<'a> = (Vec<u8>, &'a [u8]);

/// The next PEM block, which must be of `label`.
fn next_block<'a>(text: &'a [u8], label: &str) -> Result<Option<Block<'a>>, X509Error> {
    let Some(start) = find(text, BEGIN) else { return Ok(None) };
    let after_begin = text.get(start + BEGIN.len()..).unwrap_or_default();
    let inside = after_begin
        .strip_prefix(label.as_bytes())
        .and_then(|rest| rest.strip_prefix(DASHES))
        .ok_or(X509Error::Text)?;
    let end = find(inside, END).ok_or(X509Error::Text)?;
    let (body, tail) = inside.split_at_checked(end).ok_or(X509Error::Text)?;
    let rest = tail
        .strip_prefix(END)
        .and_then(|rest| rest.strip_prefix(label.as_bytes()))
        .and_then(|rest| rest.strip_prefix(DASHES))
        .ok_or(X509Error::Text)?;
    if body.len() > MAX_DER * 2 {
        return Err(X509Error::TooLarge);
    }
    Ok(Some((base64(body)?, rest)))
}

/// Decodes the certificates of a PEM chain, in the order of the text.
///
/// # Errors
/// Text without a certificate, broken PEM, more than [`MAX_CHAIN`] certificates.
pub fn certificates(text: &[u8]) -> Result<Vec<Vec<u8>>, X509Error> {
    let mut chain = Vec::with_capacity(3);
    let mut rest = text;
    while let Some((der, after)) = next_block(rest, "CERTIFICATE")? {
        if chain.len() == MAX_CHAIN {
            return Err(X509Error::TooLarge);
        }
        chain.push(der);
        rest = after;
    }
    if chain.is_empty() { Err(X509Error::Text) } else { Ok(chain) }
}

/// Decodes a certificate chain from PEM, or from DER certificates one after the other (Intel's sample
/// quotes carry their chains so). Closing NULs are passed over.
///
/// # Errors
/// Bytes that are neither, more than [`MAX_CHAIN`] certificates.
pub fn chain(bytes: &[u8]) -> Result<Vec<Vec<u8>>, X509Error> {
    if !looks_like_der(bytes) {
        return certificates(bytes);
    }
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    // A certificate may itself end in zeros: what follows the last one decides.
    let mut walk = Walk::new(bytes)?;
    let mut chain = Vec::with_capacity(3);
    while walk.offset()? < end {
        if chain.len() == MAX_CHAIN {
            return Err(X509Error::TooLarge);
        }
        chain.push(walk.next()?.whole.to_vec());
    }
    Ok(chain)
}

/// Whether `bytes` could be DER of a certificate or list: a SEQUENCE with a long length.
#[must_use]
pub fn looks_like_der(bytes: &[u8]) -> bool {
    matches!(bytes, [0x30, 0x80..=0xff, ..])
}

fn single(bytes: &[u8], label: &str) -> Result<Vec<u8>, X509Error> {
    if bytes.len() > MAX_DER * 3 {
        return Err(X509Error::TooLarge);
    }
    if looks_like_der(bytes) {
        return Ok(bytes.to_vec());
    }
    let text = bytes.trim_ascii();
    if let Some((der, _)) = next_block(text, label)? {
        return Ok(der);
    }
    if text.len().is_multiple_of(2) {
        let mut der = alloc::vec![0; text.len() / 2];
        if hex_into(text, &mut der) {
            return Ok(der);
        }
    }
    // Base64 without its PEM armour, as JSON responses of caches carry it.
    match base64(text) {
        Ok(der) if looks_like_der(&der) => Ok(der),
        _ => Err(X509Error::Text),
    }
}

/// A revocation list as DER, from DER, PEM, hexadecimal or bare base64.
///
/// # Errors
/// Bytes that are none of these.
pub fn revocation_list(bytes: &[u8]) -> Result<Vec<u8>, X509Error> {
    single(bytes, "X509 CRL")
}

/// A certificate as DER, from DER, PEM, hexadecimal or bare base64.
///
/// # Errors
/// Bytes that are none of these.
pub fn certificate(bytes: &[u8]) -> Result<Vec<u8>, X509Error> {
    single(bytes, "CERTIFICATE")
}

/// A private key in PKCS #8, DER or PEM.
///
/// # Errors
/// Bytes that are neither.
pub fn private_key(bytes: &[u8]) -> Result<Vec<u8>, X509Error> {
    single(bytes, "PRIVATE KEY")
}

/// Writes DER as PEM with 64 characters in a line.
pub fn write(label: &str, der: &[u8], out: &mut alloc::string::String) {
    out.push_str("-----BEGIN ");
    out.push_str(label);
    out.push_str("-----\n");
    for line in der.chunks(48) {
        write_base64(line, out);
        out.push('\n');
    }
    out.push_str("-----END ");
    out.push_str(label);
    out.push_str("-----\n");
}

/// Writes bytes as base64 with padding.
pub(crate) fn write_base64(bytes: &[u8], out: &mut alloc::string::String) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |bits: u32| ALPHABET.get(bits as usize & 63).copied().unwrap_or(b'=') as char;
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        out.push(digit(bits >> 18));
        out.push(digit(bits >> 12));
        out.push(if group.len() > 1 { digit(bits >> 6) } else { '=' });
        out.push(if group.len() > 2 { digit(bits) } else { '=' });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_takes_every_tail_and_refuses_what_is_not_base64() {
        assert_eq!(base64(b"TWFu\nTWE=\n"), Ok(b"ManMa".to_vec()));
        assert_eq!(base64(b"TQ=="), Ok(b"M".to_vec()));
        assert_eq!(base64(b"TWE"), Ok(b"Ma".to_vec()));
        assert_eq!(base64(b"TW\n Fu"), Ok(b"Man".to_vec()));
        for wrong in [&b"T"[..], b"T===", b"TW=u", b"TWFu=", b"TW*u", b"TR==", b"TWF="] {
            assert_eq!(base64(wrong), Err(X509Error::Text), "{wrong:?}");
        }
    }

    #[test]
    fn a_chain_of_der_certificates_is_split_and_closing_zeros_are_passed_over() {
        let certificate = [&[0x30u8, 0x82, 0x01, 0x00][..], &[7; 256]].concat();
        let bytes = [&certificate[..], &certificate, &[0, 0]].concat();
        assert_eq!(chain(&bytes), Ok(vec![certificate.clone(), certificate.clone()]));
        assert_eq!(chain(&bytes[..300]), Err(X509Error::Der));
        assert_eq!(chain(&certificate.repeat(9)), Err(X509Error::TooLarge));
    }

    #[test]
    fn a_list_is_the_same_from_der_hexadecimal_pem_and_base64() {
        let der = [&[0x30u8, 0x82, 0x01, 0x00][..], &[7; 256]].concat();
        let hex: alloc::string::String = alloc::format!("{}\n", crate::Hex(&der));
        let mut pem = alloc::string::String::new();
        write("X509 CRL", &der, &mut pem);
        let bare: alloc::string::String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        for form in [&der[..], hex.as_bytes(), pem.as_bytes(), bare.as_bytes()] {
            assert_eq!(revocation_list(form).as_deref(), Ok(&der[..]));
        }
        assert_eq!(revocation_list(b"nothing"), Err(X509Error::Text));
    }
}
