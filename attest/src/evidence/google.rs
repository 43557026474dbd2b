//! Quotes as Google's tools for TDX guests keep them: protocol buffers whose fields are those of the quote, one by one.
//!
//! The messages are `tdx.QuoteV4` and `tdx.QuoteV5` (google/go-tdx-guest, `proto/tdx.proto`). Every field has its size in the
//! quote, so the quote's own bytes come back, and its signatures say whether they are right. A field that is not known,
//! twice there, or of another size is no such quote: nothing is guessed or passed over.

use alloc::vec::Vec;

use crate::bytes::Cursor;

const VERSION_4: u64 = 4;
const VERSION_5: u64 = 5;
/// The most fields of one message; the largest has 14, one of them four times.
const MAX_FIELDS: usize = 32;

/// What a field has: a number, or bytes.
#[derive(Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, by their numbers.
struct Message<'a>(Vec<(u64, Value<'a>)>);

fn varint(bytes: &mut Cursor<'_>) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let [byte] = *bytes.array::<1>().ok()?;
        let part = u64::from(byte & 0x7f);
        value |= part.checked_shl(shift).filter(|shifted| shifted >> shift == part)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

impl<'a> Message<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = Cursor::new(bytes);
        let mut fields = Vec::new();
        while !rest.rest().is_empty() {
            if fields.len() >= MAX_FIELDS {
                return None;
            }
            let key = varint(&mut rest)?;
            let value = match key & 7 {
                0 => Value::Number(varint(&mut rest)?),
                2 => {
                    let length = usize::try_from(varint(&mut rest)?).ok()?;
                    Value::Bytes(rest.bytes(length).ok()?)
                }
                _ => return None,
            };
            fields.push((key >> 3, value));
        }
        Some(Self(fields))
    }

    /// Takes the only field of this number, if there is one.
    fn take(&mut self, number: u64) -> Option<Option<Value<'a>>> {
        let Some(at) = self.0.iter().position(|(of, _)| *of == number) else { return Some(None) };
        let (_, value) = self.0.remove(at);
        let is_only = self.0.iter().all(|(of, _)| *of != number);
        is_only.then_some(Some(value))
    }

    /// A number; 0 is not written.
    fn number(&mut self, number: u64) -> Option<u64> {
        match self.take(number)? {
            None => Some(0),
            Some(Value::Number(value)) => Some(value),
            Some(Value::Bytes(_)) => None,
        }
    }

    /// A number as the quote has it, in so many bytes.
    fn word<const N: usize>(&mut self, number: u64, out: &mut Vec<u8>) -> Option<()> {
        let bytes = self.number(number)?.to_le_bytes();
        let (word, rest) = bytes.split_at(N);
        out.extend(word);
        rest.iter().all(|byte| *byte == 0).then_some(())
    }

    /// Bytes; none are not written.
    fn bytes(&mut self, number: u64) -> Option<&'a [u8]> {
        match self.take(number)? {
            None => Some(&[]),
            Some(Value::Bytes(bytes)) => Some(bytes),
            Some(Value::Number(_)) => None,
        }
    }

    /// Appends fields of these numbers and sizes.
    fn append(&mut self, sizes: &[(u64, usize)], out: &mut Vec<u8>) -> Option<()> {
        sizes.iter().try_for_each(|(number, size)| {
            let bytes = self.bytes(*number).filter(|bytes| bytes.len() == *size)?;
            out.extend(bytes);
            Some(())
        })
    }

    fn message(&mut self, number: u64) -> Option<Self> {
        match self.take(number)? {
            Some(Value::Bytes(bytes)) => Self::parse(bytes),
            _ => None,
        }
    }

    /// Whether no field is left that nobody asked for.
    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// The quote that a message keeps; `None` for what is no such message.
pub(super) fn quote(bytes: &[u8]) -> Option<Vec<u8>> {
    // The header is the first field of both messages, and never empty.
    const HEADER_FIELD: u8 = 1 << 3 | 2;
    if bytes.first() != Some(&HEADER_FIELD) {
        return None;
    }
    let mut message = Message::parse(bytes)?;
    let mut quote = Vec::new();
    match header(message.message(1)?, &mut quote)? {
        VERSION_4 => body(message.message(2)?, &[], &mut quote)?,
        VERSION_5 => {
            let mut descriptor = message.message(2)?;
            descriptor.word::<2>(1, &mut quote)?;
            let size = descriptor.number(2)?;
            quote.extend(u32::try_from(size).ok()?.to_le_bytes());
            let start = quote.len();
            const TD10: u64 = 584;
            let more: &[(u64, usize)] = if size == TD10 { &[] } else { &[(13, 16), (14, 48)] };
            body(descriptor.message(3)?, more, &mut quote)?;
            descriptor.end()?;
            if quote.len().checked_sub(start)? as u64 != size {
                return None;
            }
        }
        _ => return None,
    }
    let size = message.number(3)?;
    let mut signature = Vec::new();
    signed(message.message(4)?, &mut signature)?;
    if signature.len() as u64 != size {
        return None;
    }
    quote.extend(u32::try_from(size).ok()?.to_le_bytes());
    quote.extend(signature);
    quote.extend(message.bytes(5)?);
    message.end()?;
    Some(quote)
}

/// Appends the header; its version.
fn header(mut header: Message<'_>, out: &mut Vec<u8>) -> Option<u64> {
    let version = header.number(1)?;
    out.extend(u16::try_from(version).ok()?.to_le_bytes());
    header.word::<2>(2, out)?;
    header.word::<4>(3, out)?;
    // PCE SVN stands before QE SVN there.
    header.append(&[(5, 2), (4, 2), (6, 16), (7, 20)], out)?;
    header.end()?;
    Some(version)
}

fn body(mut body: Message<'_>, more: &[(u64, usize)], out: &mut Vec<u8>) -> Option<()> {
    const RTMRS: u64 = 11;
    let fields = [(1, 16), (2, 48), (3, 48), (4, 8), (5, 8), (6, 8), (7, 48), (8, 48), (9, 48), (10, 48)];
    body.append(&fields, out)?;
    let (rtmrs, rest): (Vec<_>, Vec<_>) = body.0.into_iter().partition(|(number, _)| *number == RTMRS);
    body.0 = rest;
    if rtmrs.len() != 4 {
        return None;
    }
    for (_, rtmr) in rtmrs {
        match rtmr {
            Value::Bytes(bytes) if bytes.len() == 48 => out.extend(bytes),
            _ => return None,
        }
    }
    body.append(&[(12, 64)], out)?;
    body.append(more, out)?;
    body.end()
}

fn signed(mut signed: Message<'_>, out: &mut Vec<u8>) -> Option<()> {
    signed.append(&[(1, 64), (2, 64)], out)?;
    let mut certification = signed.message(3)?;
    signed.end()?;
    certification.word::<2>(1, out)?;
    let size = certification.number(2)?;
    let mut inner = Vec::new();
    let mut data = certification.message(3)?;
    certification.end()?;
    enclave(data.message(1)?, &mut inner)?;
    data.append(&[(2, 64)], &mut inner)?;
    let mut authentication = data.message(3)?;
    let length = authentication.number(1)?;
    inner.extend(u16::try_from(length).ok()?.to_le_bytes());
    let bytes = authentication.bytes(2).filter(|bytes| bytes.len() as u64 == length)?;
    inner.extend(bytes);
    authentication.end()?;
    let mut chain = data.message(4)?;
    chain.word::<2>(1, &mut inner)?;
    let length = chain.number(2)?;
    inner.extend(u32::try_from(length).ok()?.to_le_bytes());
    inner.extend(chain.bytes(3).filter(|bytes| bytes.len() as u64 == length)?);
    chain.end()?;
    data.end()?;
    if inner.len() as u64 != size {
        return None;
    }
    out.extend(u32::try_from(size).ok()?.to_le_bytes());
    out.extend(inner);
    Some(())
}

fn enclave(mut report: Message<'_>, out: &mut Vec<u8>) -> Option<()> {
    report.append(&[(1, 16)], out)?;
    report.word::<4>(2, out)?;
    report.append(&[(3, 28), (4, 16), (5, 32), (6, 32), (7, 32), (8, 96)], out)?;
    report.word::<2>(9, out)?;
    report.word::<2>(10, out)?;
    report.append(&[(11, 60), (12, 64)], out)?;
    report.end()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn number(number: u8, mut value: u64, out: &mut Vec<u8>) {
        if value == 0 {
            return;
        }
        out.push(number << 3);
        while value > 0x7f {
            out.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        out.push((value & 0x7f) as u8);
    }

    /// A field of bytes; none are not written.
    fn bytes(field: u8, value: &[u8], out: &mut Vec<u8>) {
        if !value.is_empty() {
            embedded(field, value, out);
        }
    }

    /// A message in a message, which is written also where it has no field.
    fn embedded(field: u8, value: &[u8], out: &mut Vec<u8>) {
        let mut key = Vec::new();
        number(field, 1, &mut key);
        out.push(key[0] | 2);
        let mut length = Vec::new();
        number(0, value.len() as u64, &mut length);
        // A length of 0 is written.
        out.extend(length.get(1..).filter(|length| !length.is_empty()).unwrap_or(&[0]));
        out.extend(value);
    }

    /// Fields of these numbers and sizes, one after the other.
    fn split(fields: &[(u8, usize)], value: &[u8], out: &mut Vec<u8>) -> usize {
        let mut at = 0;
        for (field, size) in fields {
            bytes(*field, &value[at..at + size], out);
            at += size;
        }
        at
    }

    fn u16_at(quote: &[u8], at: usize) -> u64 {
        u64::from(u16::from_le_bytes([quote[at], quote[at + 1]]))
    }

    fn u32_at(quote: &[u8], at: usize) -> u64 {
        u64::from(u32::from_le_bytes(*quote[at..].first_chunk().unwrap()))
    }

    /// A quote of a TD as Google's tools write it; `None` where their messages have no such quote.
    pub(in crate::evidence) fn message(quote: &[u8]) -> Option<Vec<u8>> {
        let (version, tee) = (u16_at(quote, 0), u32_at(quote, 4));
        let size = match version {
            4 if tee == 0x81 => 584,
            5 if matches!(u16_at(quote, 48), 2 | 3) => u32_at(quote, 50) as usize,
            _ => return None,
        };
        let mut header = Vec::new();
        number(1, version, &mut header);
        number(2, u16_at(quote, 2), &mut header);
        number(3, tee, &mut header);
        split(&[(5, 2), (4, 2), (6, 16), (7, 20)], &quote[8..48], &mut header);
        let start = if version == 5 { 54 } else { 48 };
        let mut body = Vec::new();
        let measured =
            [(1, 16), (2, 48), (3, 48), (4, 8), (5, 8), (6, 8), (7, 48), (8, 48), (9, 48), (10, 48)];
        let rest = [(11, 48), (11, 48), (11, 48), (11, 48), (12, 64)];
        let mut all = [&measured[..], &rest].concat();
        if size == 648 {
            all.extend([(13, 16), (14, 48)]);
        }
        split(&all, &quote[start..], &mut body);
        let (mut out, at) = (Vec::new(), start + size);
        bytes(1, &header, &mut out);
        if version == 5 {
            let mut descriptor = Vec::new();
            number(1, u16_at(quote, 48), &mut descriptor);
            number(2, size as u64, &mut descriptor);
            bytes(3, &body, &mut descriptor);
            bytes(2, &descriptor, &mut out);
        } else {
            bytes(2, &body, &mut out);
        }
        let length = u32_at(quote, at) as usize;
        number(3, length as u64, &mut out);
        let signature = &quote[at + 4..at + 4 + length];
        let mut signed = Vec::new();
        split(&[(1, 64), (2, 64)], signature, &mut signed);
        let mut certification = Vec::new();
        number(1, u16_at(signature, 128), &mut certification);
        number(2, u32_at(signature, 130), &mut certification);
        let inner = &signature[134..];
        let mut report = Vec::new();
        bytes(1, &inner[..16], &mut report);
        number(2, u32_at(inner, 16), &mut report);
        split(&[(3, 28), (4, 16), (5, 32), (6, 32), (7, 32), (8, 96)], &inner[20..], &mut report);
        number(9, u16_at(inner, 256), &mut report);
        number(10, u16_at(inner, 258), &mut report);
        split(&[(11, 60), (12, 64)], &inner[260..], &mut report);
        let mut data = Vec::new();
        bytes(1, &report, &mut data);
        bytes(2, &inner[384..448], &mut data);
        let auth = u16_at(inner, 448) as usize;
        let mut authentication = Vec::new();
        number(1, auth as u64, &mut authentication);
        bytes(2, &inner[450..450 + auth], &mut authentication);
        embedded(3, &authentication, &mut data);
        let chain_at = 450 + auth;
        let mut chain = Vec::new();
        number(1, u16_at(inner, chain_at), &mut chain);
        number(2, u32_at(inner, chain_at + 2), &mut chain);
        bytes(3, &inner[chain_at + 6..], &mut chain);
        bytes(4, &chain, &mut data);
        bytes(3, &data, &mut certification);
        bytes(3, &certification, &mut signed);
        bytes(4, &signed, &mut out);
        bytes(5, &quote[at + 4 + length..], &mut out);
        Some(out)
    }

    #[test]
    fn a_message_that_is_cut_or_has_a_field_more_is_no_quote() {
        let quote = crate::evidence::tests::quotes().into_iter().find_map(|quote| message(&quote)).unwrap();
        assert!(super::quote(&quote).is_some());
        for length in 0..quote.len() {
            assert!(super::quote(&quote[..length]).is_none(), "{length}");
        }
        for more in [&[0x30, 1][..], &[0x18, 1], &[0x32, 0], &[0x35, 0, 0, 0, 0], &[0x0a, 0]] {
            assert!(super::quote(&[&quote[..], more].concat()).is_none(), "{more:?}");
        }
    }

    #[test]
    fn no_other_bit_of_a_message_gives_the_same_quote() {
        let message = crate::evidence::tests::quotes().into_iter().find_map(|quote| message(&quote)).unwrap();
        let quote = super::quote(&message).unwrap();
        for at in 0..message.len() {
            let mut changed = message.clone();
            changed[at] ^= 1 << (at % 8);
            assert_ne!(super::quote(&changed).as_ref(), Some(&quote), "byte {at}");
        }
    }
}
