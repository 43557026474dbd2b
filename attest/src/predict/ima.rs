//! Linux's integrity measurements (IMA) as events: what the running system extended RTMR2 with.
//!
//! Linux's IMA extends PCR 10, which is RTMR2 in a TD (UEFI 2.10, "Confidential Computing"), once for each line of its own
//! list, and writes none of it into the event log. The list is the file `ascii_runtime_measurements_sha384` of
//! securityfs: PCR, hash of the template data, name of the template, and its fields. A line counts for no more than its
//! hash: for the templates that are known here (`ima-ng`, `ima-sig`, `ima-buf`) the fields must have it. Lists of other
//! hashes are taken where the template is known, because then SHA-384 follows from the fields.
//!
//! Source: Linux, Documentation/security/IMA-templates.rst and ima_template_lib.c.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use super::list::{EventList, ListedEvent};
use crate::bytes::hex_into;
use crate::eventlog::{Consistency, Register};
use td_image::digest::Digest384;

/// The longest list, bytes.
pub const MAX_LIST_BYTES: usize = 64 << 20;
/// The PCR that IMA extends unless a policy says otherwise.
const PCR: &str = "10";
/// What is extended for a line whose file changed while it was measured, in place of the hash of zeros in the list.
const VIOLATION: Digest384 = Digest384([0xff; 48]);

/// Why a list cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImaError {
    /// Too long.
    Size(usize),
    /// No line at all.
    Empty,
    /// Not a line of such a list.
    Line(usize),
    /// A line of a PCR that is not IMA's.
    Pcr(usize),
    /// A hash that is not SHA-384, of a template that is not known: the kernel's list of SHA-384 has it.
    Hash(usize),
}

impl fmt::Display for ImaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size(size) => write!(f, "an IMA list of {size} bytes is too long"),
            Self::Empty => f.write_str("no IMA list: it has no line"),
            Self::Line(line) => {
                write!(f, "line {line}: no line of an IMA list (PCR, hash, template, fields of the template)")
            }
            Self::Pcr(line) => write!(f, "line {line}: not of PCR {PCR}, which is IMA's"),
            Self::Hash(line) => write!(
                f,
                "line {line}: its hash is not SHA-384, and the template is not known: use ascii_runtime_measurements_sha384"
            ),
        }
    }
}

impl core::error::Error for ImaError {}

/// Reads a list.
///
/// # Errors
/// [`ImaError`]; lines count from 1.
pub fn parse(text: &str) -> Result<EventList, ImaError> {
    if text.len() > MAX_LIST_BYTES {
        return Err(ImaError::Size(text.len()));
    }
    let lines = text.lines().enumerate().map(|(at, line)| event(at + 1, line));
    let events = lines.collect::<Result<Vec<_>, _>>()?;
    if events.is_empty() { Err(ImaError::Empty) } else { Ok(EventList { events }) }
}

fn event(number: usize, line: &str) -> Result<ListedEvent, ImaError> {
    let mut words = line.split(' ').filter(|word| !word.is_empty());
    let mut word = || words.next().ok_or(ImaError::Line(number));
    let (pcr, hash, template) = (word()?, word()?, word()?);
    if pcr.is_empty() || !pcr.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(ImaError::Line(number));
    }
    if pcr != PCR {
        return Err(ImaError::Pcr(number));
    }
    let hash = bytes(hash).ok_or(ImaError::Line(number))?;
    let fields: Vec<&str> = words.collect();
    let data = template_data(template, &fields).ok_or(ImaError::Line(number))?;
    let listed = <[u8; 48]>::try_from(hash.as_slice()).ok().map(Digest384);
    let is_violation = !hash.is_empty() && hash.iter().all(|byte| *byte == 0);
    let (digest, consistency) = match (is_violation, listed, &data) {
        // That there was a violation is what was measured, and nothing of the line.
        (true, ..) => (VIOLATION, Consistency::NotInLog),
        (false, Some(listed), Some(data)) => {
            let holds = Digest384::of(data) == listed;
            (listed, if holds { Consistency::Measured } else { Consistency::Differs })
        }
        (false, Some(listed), None) => (listed, Consistency::NotInLog),
        (false, None, Some(data)) => (Digest384::of(data), Consistency::Measured),
        (false, None, None) => return Err(ImaError::Hash(number)),
    };
    Ok(ListedEvent {
        register: Register::Rtmr2,
        digest,
        name: fields.get(1).map_or_else(|| template.to_string(), |name| String::from(*name)),
        kind: None,
        data: data.unwrap_or_default(),
        consistency,
    })
}

/// The template's data: every field behind its length. `None` within for templates that are not known; `None` for fields
/// that are none of the template.
fn template_data(template: &str, fields: &[&str]) -> Option<Option<Vec<u8>>> {
    let (digest, name, last) = match (template, fields) {
        ("ima-ng", [digest, name]) => (*digest, *name, None),
        ("ima-sig" | "ima-buf", [digest, name]) => (*digest, *name, Some(Vec::new())),
        ("ima-sig" | "ima-buf", [digest, name, last]) => (*digest, *name, Some(bytes(last)?)),
        ("ima-ng" | "ima-sig" | "ima-buf", _) => return None,
        _ => return Some(None),
    };
    let (algorithm, value) = digest.split_once(':')?;
    let mut hashed = algorithm.as_bytes().to_vec();
    hashed.extend(b":\0");
    hashed.extend(bytes(value)?);
    let mut named = name.as_bytes().to_vec();
    named.push(0);
    let mut data = Vec::new();
    for field in [Some(hashed), Some(named), last].into_iter().flatten() {
        data.extend(u32::try_from(field.len()).ok()?.to_le_bytes());
        data.extend(field);
    }
    Some(Some(data))
}

fn bytes(hexadecimal: &str) -> Option<Vec<u8>> {
    let mut bytes = alloc::vec![0; hexadecimal.len() / 2];
    (!bytes.is_empty() && hex_into(hexadecimal.as_bytes(), &mut bytes)).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    /// A line with the hash that the kernel computes: `d-ng` and `n-ng`, each behind its length.
    fn line(digest: u8, name: &str) -> String {
        let field = |bytes: &[u8]| [&(bytes.len() as u32).to_le_bytes()[..], bytes].concat();
        let value = [digest; 32];
        let hashed = [&b"sha256:\0"[..], &value].concat();
        let data = [field(&hashed), field(&[name.as_bytes(), &[0]].concat())].concat();
        format!("10 {} ima-ng sha256:{} {name}", Digest384::of(&data), crate::Hex(&value))
    }

    #[test]
    fn a_line_extends_rtmr2_with_the_hash_of_its_template() {
        let text = format!("{}\n{}\n", line(1, "boot_aggregate"), line(2, "/usr/bin/bash"));
        let list = parse(&text).unwrap();
        let names: Vec<&str> = list.events.iter().map(|event| event.name.as_str()).collect();
        assert_eq!(names, ["boot_aggregate", "/usr/bin/bash"]);
        assert!(list.events.iter().all(|event| event.register == Register::Rtmr2));
        assert_eq!(list.contradictions().next(), None);
        // The same list by SHA-1, from which SHA-384 follows.
        let digest = list.events[1].digest;
        let by_sha1 = text.replace(&digest.to_string(), &"ab".repeat(20));
        assert_eq!(parse(&by_sha1).unwrap().events[1].digest, digest);
    }

    #[test]
    fn every_altered_character_of_a_line_is_told_or_refused() {
        let good = line(3, "/usr/bin/bash");
        let digest = parse(&good).unwrap().events[0].digest;
        let mut told = 0;
        for at in 0..good.len() {
            let mut forged = good.clone().into_bytes();
            forged[at] ^= 1;
            let forged = String::from_utf8(forged).unwrap();
            match parse(&forged) {
                Ok(list) => {
                    let is_told = list.contradictions().next().is_some();
                    let is_marked = list.events[0].consistency() == Consistency::NotInLog;
                    assert!(is_told || is_marked || list.events[0].digest != digest, "{forged}");
                }
                Err(_) => assert!(!forged.is_empty()),
            }
            told += 1;
        }
        assert_eq!(told, good.len());
    }

    #[test]
    fn a_violation_is_extended_as_ones_and_what_is_no_list_is_refused() {
        let violation = format!("10 {} ima-ng sha256:{} /etc/x", "00".repeat(48), "00".repeat(32));
        assert_eq!(parse(&violation).unwrap().events[0].digest, VIOLATION);
        let unknown = |hash: &str| format!("10 {hash} ima-modsig a b c d");
        assert_eq!(parse(&unknown(&"ab".repeat(48))).unwrap().contradictions().next(), None);
        assert_eq!(parse(&unknown(&"ab".repeat(20))), Err(ImaError::Hash(1)));
        for (wrong, error) in [
            ("", ImaError::Empty),
            ("text", ImaError::Line(1)),
            ("x y z", ImaError::Line(1)),
            ("10 00zz ima-ng sha256:00 x", ImaError::Line(1)),
            ("10 abcd ima-ng sha256:00", ImaError::Line(1)),
            ("10 abcd ima-ng sha256 x", ImaError::Line(1)),
            ("14 abcd ima-ng sha256:00 x", ImaError::Pcr(1)),
        ] {
            assert_eq!(parse(wrong), Err(error), "{wrong}");
        }
    }
}
