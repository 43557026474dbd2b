//! One line of `--batch`, and what may stand in it.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tdvisor_attest::UnixSeconds;

use super::inputs::parse_time;

/// Keys that say nothing to the verifier: what is expected, what others said.
const REMARKS: [&str; 3] = ["expect", "peer", "note"];

/// One case, with its paths resolved.
pub(super) struct Case {
    pub(super) id: Value,
    pub(super) quote: PathBuf,
    pub(super) collateral: Vec<PathBuf>,
    pub(super) at: UnixSeconds,
    pub(super) root: Option<PathBuf>,
    pub(super) policy: Option<PathBuf>,
    pub(super) events: Option<PathBuf>,
    pub(super) event_log: Option<PathBuf>,
    pub(super) ima: Option<PathBuf>,
}

impl Case {
    /// Reads a line. Whatever is in it and not understood makes it a line that cannot be answered: what a misspelt
    /// `policy` should have asked for is not known, and the default would accept more.
    pub(super) fn parse(line: &str, folder: &Path) -> Result<Self, String> {
        let Members(mut fields) = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let id = match fields.remove("id") {
            Some(id @ (Value::String(_) | Value::Number(_))) => id,
            _ => return Err(wanted("id", "a text or a number")),
        };
        let mut path = |key: &str| match fields.remove(key) {
            None => Ok(None),
            Some(Value::String(path)) => Ok(Some(folder.join(path))),
            Some(_) => Err(wanted(key, "the path of a file")),
        };
        let (quote, root, policy) = (path("quote")?, path("root")?, path("policy")?);
        let (events, event_log, ima) = (path("events")?, path("event_log")?, path("ima")?);
        let collateral = match fields.remove("collateral") {
            Some(Value::String(path)) => Some(vec![folder.join(path)]),
            Some(Value::Array(paths)) if !paths.is_empty() => {
                paths.iter().map(|path| path.as_str().map(|path| folder.join(path))).collect()
            }
            _ => None,
        };
        let at = match fields.remove("time") {
            Some(Value::String(text)) => parse_time(&text).ok(),
            Some(Value::Number(number)) => number.as_u64().map(UnixSeconds),
            _ => None,
        };
        if let Some(unknown) = fields.keys().find(|key| !REMARKS.contains(&key.as_str())) {
            return Err(format!("unknown key `{unknown}`"));
        }
        Ok(Self {
            id,
            quote: quote.ok_or_else(|| wanted("quote", "the path of a file"))?,
            collateral: collateral
                .ok_or_else(|| wanted("collateral", "the path of a file, or a list of them"))?,
            at: at.ok_or_else(|| wanted("time", "seconds since 1970, or YYYY-MM-DDThh:mm:ssZ"))?,
            root,
            policy,
            events,
            event_log,
            ima,
        })
    }
}

fn wanted(key: &str, what: &str) -> String {
    format!("`{key}` must be there and be {what}")
}

/// The members of an object, none of them twice.
struct Members(Map<String, Value>);

impl<'de> serde::Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Members;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Map::new();
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    if members.contains_key(&key) {
                        return Err(serde::de::Error::custom(format_args!("duplicate key `{key}`")));
                    }
                    members.insert(key, value);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 9] = [
        ("id", "\"a\""),
        ("quote", "\"q\""),
        ("collateral", "[\"c\"]"),
        ("time", "0"),
        ("root", "\"r\""),
        ("policy", "\"p\""),
        ("events", "\"e\""),
        ("event_log", "\"l\""),
        ("ima", "\"i\""),
    ];

    fn line(members: &[(&str, &str)]) -> String {
        let members: Vec<String> = members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    }

    #[test]
    fn every_key_refuses_other_types_null_a_second_time_and_a_misspelling_and_is_named() {
        assert!(Case::parse(&line(&GOOD), Path::new("")).is_ok());
        let mut refused = 0;
        for (at, (key, value)) in GOOD.into_iter().enumerate() {
            let mut refuse = |members: &[(&str, &str)], name: &str| {
                let line = line(members);
                let Err(told) = Case::parse(&line, Path::new("")) else { panic!("accepted: {line}") };
                assert!(told.contains(name), "{line}: {told}");
                refused += 1;
            };
            for wrong in ["null", "true", "{}", "{\"td\":{}}", "[]", "[1]", "[null]", "1.5", "-1"] {
                // An identifier may be any number.
                if key == "id" && matches!(wrong, "1.5" | "-1") {
                    continue;
                }
                let mut members = GOOD;
                members[at].1 = wrong;
                refuse(&members, key);
            }
            for second in [value, "null"] {
                refuse(&[&GOOD[..], &[(key, second)]].concat(), key);
            }
            for misspelt in [key.to_uppercase(), format!("{key}s"), key[1..].to_string()] {
                refuse(&[&GOOD[..], &[(&misspelt, value)]].concat(), &misspelt);
            }
        }
        assert!(refused > 90, "{refused}");
    }

    #[test]
    fn remarks_may_be_anything_but_not_twice() {
        let with =
            |more: &[(&str, &str)]| Case::parse(&line(&[&GOOD[..], more].concat()), Path::new("")).is_ok();
        assert!(with(&[("expect", "{\"quote\":\"valid\"}"), ("peer", "null"), ("note", "[]")]));
        assert!(!with(&[("note", "1"), ("note", "2")]));
    }
}
