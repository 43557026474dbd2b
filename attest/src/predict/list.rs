//! Events that a running system lists itself, because run-time extensions write no CCEL entries.
//!
//! JSON: an array of objects with `digest` (96 hexadecimal digits), `imr` or `register` (a number from 0, or
//! "RTMR3") and, where it has one, `event` or `name`. dstack's lists have `event_type` and `event_payload`
//! (hexadecimal) as well, and may have the events of the boot too. A key that is not one of these, twice there, `null` or
//! of another type is an error, and so is an event without a register: nothing is guessed.
//!
//! Where type and payload are given, the digest must be theirs by the rules of the type: what an application says it
//! extended is worth no more than that ([`EventList::contradictions`]).

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::Deserialize;

use super::{Expectation, Part, Prediction};
use crate::bytes::hex_into;
use crate::eventlog::{Consistency, EventType, LogBuilder, Register};
use crate::strict::{self, Object, stated};
use td_image::digest::Digest384;

/// Longest list, bytes.
pub const MAX_LIST_BYTES: usize = 16 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    digest: String,
    #[serde(alias = "imr")]
    register: Index,
    #[serde(alias = "event", default, deserialize_with = "stated")]
    name: Option<String>,
    #[serde(default, deserialize_with = "stated")]
    event_type: Option<u32>,
    #[serde(default, deserialize_with = "stated")]
    event_payload: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Index {
    Number(u32),
    Name(String),
}

/// Why a list cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListError {
    /// Too long.
    Size(usize),
    /// Not a JSON array of such objects.
    Json(String),
    /// A digest that is none.
    Digest {
        /// Position in the array, from 0.
        line: usize,
    },
    /// A register that cannot be extended.
    Register {
        /// Position in the array, from 0.
        line: usize,
    },
    /// A payload that is not hexadecimal, or that has no type by whose rules it would be measured.
    Payload {
        /// Position in the array, from 0.
        line: usize,
    },
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size(size) => write!(f, "an event list of {size} bytes is too long"),
            Self::Json(error) => write!(f, "not an event list: {error}"),
            Self::Digest { line } => write!(f, "event {line}: {}", td_image::digest::NotADigest),
            Self::Register { line } => write!(f, "event {line}: no register from RTMR0 to RTMR3"),
            Self::Payload { line } => {
                write!(f, "event {line}: `event_payload` must be hexadecimal and have an `event_type`")
            }
        }
    }
}

impl core::error::Error for ListError {}

/// One event of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedEvent {
    /// The register that it extended.
    pub register: Register,
    /// What the event extended the register with.
    pub digest: Digest384,
    /// What the event is called.
    pub name: String,
    /// The event's type, where the list has types.
    pub kind: Option<EventType>,
    /// The event's data as a log has them: for dstack's run-time events, name and payload with a colon between; for
    /// IMA's, the data of the template.
    pub data: Vec<u8>,
    pub(super) consistency: Consistency,
}

/// A list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventList {
    /// The events, in the order of the list.
    pub events: Vec<ListedEvent>,
}

/// Reads a list.
///
/// # Errors
/// [`ListError`].
pub fn parse(text: &str) -> Result<EventList, ListError> {
    if text.len() > MAX_LIST_BYTES {
        return Err(ListError::Size(text.len()));
    }
    let lines: Vec<Object<Line>> = strict::from_json(text)
        .map_err(|(error, path)| ListError::Json(strict::at_path(&error.to_string(), &path)))?;
    let events = lines.into_iter().enumerate().map(|(number, Object(line))| line.event(number));
    Ok(EventList { events: events.collect::<Result<_, _>>()? })
}

impl Line {
    fn event(self, line: usize) -> Result<ListedEvent, ListError> {
        let register = match self.register {
            Index::Number(number) => {
                usize::try_from(number).ok().and_then(|number| Register::RTMRS.get(number)).copied()
            }
            Index::Name(name) => {
                Register::RTMRS.into_iter().find(|register| register.to_string().eq_ignore_ascii_case(&name))
            }
        };
        let name = self.name.filter(|name| !name.is_empty());
        let kind = self.event_type.map(EventType);
        let payload = self.event_payload.map_or(Some(Vec::new()), |text| {
            let mut bytes = alloc::vec![0; text.len() / 2];
            (kind.is_some() && hex_into(text.as_bytes(), &mut bytes)).then_some(bytes)
        });
        let payload = payload.ok_or(ListError::Payload { line })?;
        let data = match kind {
            Some(EventType::DSTACK_RUNTIME) => {
                let name = name.as_deref().unwrap_or_default();
                [name.as_bytes(), b":", &payload].concat()
            }
            Some(_) => payload,
            None => name.as_deref().unwrap_or_default().as_bytes().to_vec(),
        };
        let digest = self.digest.parse().map_err(|_| ListError::Digest { line })?;
        let consistency = kind.map_or(Consistency::NotInLog, |kind| Consistency::of(kind, &data, &digest));
        Ok(ListedEvent {
            register: register.ok_or(ListError::Register { line })?,
            digest,
            consistency,
            name: name.unwrap_or_else(|| alloc::format!("{line}")),
            kind,
            data,
        })
    }
}

impl ListedEvent {
    /// Whether the digest is a hash of what the list says.
    #[must_use]
    pub const fn consistency(&self) -> Consistency {
        self.consistency
    }
}

impl EventList {
    /// The positions and names of events that are not what was measured.
    pub fn contradictions(&self) -> impl Iterator<Item = (usize, &str)> {
        let differs = |event: &&ListedEvent| event.consistency() == Consistency::Differs;
        let events = self.events.iter().enumerate();
        events.filter(move |(_, event)| differs(event)).map(|(line, event)| (line, event.name.as_str()))
    }

    /// The extensions that the list accounts for.
    #[must_use]
    pub fn prediction(&self) -> Prediction {
        let mut prediction = Prediction::default();
        for event in &self.events {
            let part = Part::Runtime(event.name.clone());
            prediction.push(event.register, part, Expectation::Exactly(event.digest));
        }
        prediction
    }

    /// The list as an event log of its own: what it has of a boot can be shown and replayed like one.
    #[must_use]
    pub fn to_log(&self) -> Vec<u8> {
        let mut log = LogBuilder::new();
        for event in &self.events {
            log.push(
                event.register,
                event.kind.unwrap_or(EventType::COMPACT_HASH),
                &event.digest,
                &event.data,
            );
        }
        log.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str =
        "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";

    fn line(members: &str) -> String {
        alloc::format!("[{{{}}}]", members.replace("DIGEST", DIGEST))
    }

    #[test]
    fn nothing_in_a_list_is_guessed_or_passed_over() {
        for good in [
            r#""digest":"DIGEST","imr":3"#,
            r#""digest":"DIGEST","register":"rtmr2","name":"x""#,
            r#""digest":"DIGEST","imr":0,"event":"x","event_type":4,"event_payload":"00""#,
        ] {
            assert!(parse(&line(good)).is_ok(), "{good}");
        }
        for (wrong, key) in [
            (r#""digest":"DIGEST""#, "register"),
            (r#""digest":"DIGEST","imr":null"#, "imr"),
            (r#""digest":"DIGEST","imr":4"#, "register"),
            (r#""digest":"DIGEST","imr":-1"#, "imr"),
            (r#""digest":"DIGEST","imr":3.0"#, "imr"),
            (r#""digest":"DIGEST","register":"MRTD""#, "register"),
            (r#""digest":"DIGEST","imr":3,"register":3"#, "register"),
            (r#""digest":"DIGEST","imr":3,"event":null"#, "event"),
            (r#""digest":"DIGEST","imr":3,"event":1"#, "event"),
            (r#""digest":"DIGEST","imr":3,"event":"a","name":"b""#, "name"),
            (r#""digest":"DIGEST","imr":3,"digest":"DIGEST""#, "digest"),
            (r#""digest":"DIGEST","imr":3,"payload":"00""#, "payload"),
            (r#""digest":"DIGEST","imr":3,"event_payload":"00""#, "event_payload"),
            (r#""digest":"DIGEST","imr":3,"event_type":1,"event_payload":"0""#, "event_payload"),
            (r#""digest":"DIGEST","imr":3,"event_type":"1""#, "event_type"),
            (r#""imr":3"#, "digest"),
            (r#""digest":"00","imr":3"#, "SHA-384"),
        ] {
            let told = parse(&line(wrong)).unwrap_err().to_string();
            assert!(told.contains(key), "{wrong}: {told}");
        }
        for no_list in ["{}", "[[]]", "null", "[null]", "", "[] []"] {
            assert!(parse(no_list).is_err(), "{no_list}");
        }
    }

    #[test]
    fn a_run_time_event_is_its_type_name_and_payload_to_the_last_bit() {
        let digest = |name: &str, payload: &[u8]| {
            Digest384::of(&[&0x0800_0001u32.to_le_bytes()[..], b":", name.as_bytes(), b":", payload].concat())
        };
        let list = |kind: u32, name: &str, payload: &[u8], digest: Digest384| {
            let payload = crate::Hex(payload);
            let text = alloc::format!(
                r#"[{{"imr":3,"event_type":{kind},"digest":"{digest}","event":"{name}","event_payload":"{payload}"}}]"#
            );
            parse(&text).unwrap()
        };
        let good = digest("app-id", &[0xaa; 20]);
        assert_eq!(list(0x0800_0001, "app-id", &[0xaa; 20], good).contradictions().next(), None);
        let mut told = 0;
        for bit in 0..160 {
            let mut payload = [0xaa; 20];
            payload[bit / 8] ^= 1 << (bit % 8);
            let found = list(0x0800_0001, "app-id", &payload, good);
            assert_eq!(found.contradictions().next(), Some((0, "app-id")), "bit {bit}");
            told += 1;
        }
        for (name, payload) in
            [("app-ie", &[0xaa; 20][..]), ("app-id", &[0xaa; 19]), ("app-id", &[]), ("", &[])]
        {
            assert!(list(0x0800_0001, name, payload, good).contradictions().next().is_some(), "{name}");
            told += 1;
        }
        assert_eq!(told, 164);
    }
}
