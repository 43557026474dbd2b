//! Reading text that decides about trust: what is stated twice, as another type or as `null`, and what is not known,
//! is an error that names the key. (Derived decoders take `null` for an absent option, and a list for a struct.)

use alloc::string::{String, ToString};
use core::fmt;
use core::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};

/// A value that is there if its key is: `null` is an error of the type, not an absence.
pub(crate) fn stated<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// An object, and never a list of its values.
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(Members(PhantomData)).map(Self)
    }
}

/// Decodes JSON; the second text is the path of keys to what is wrong.
pub(crate) fn from_json<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, (serde_json::Error, String)> {
    let first = match serde_json::from_str(text) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    // Only what fails is read again, to learn where.
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let path = match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Err(error) if is_path(&error.path().to_string()) => error.path().to_string(),
        // A key that is twice there is found when its object ends: its name is in the message alone.
        _ => quoted(&first.to_string()).to_string(),
    };
    Err((first, path))
}

/// Whether a path leads anywhere.
fn is_path(path: &str) -> bool {
    !matches!(path, "" | "." | "?")
}

/// What a message has between back quotes.
fn quoted(message: &str) -> &str {
    message.split('`').nth(1).unwrap_or_default()
}

/// How an error at a path of keys is told: the path is left out where there is none.
pub(crate) fn at_path(message: &str, path: &str) -> String {
    if path.is_empty() || path == "." {
        message.to_string()
    } else {
        alloc::format!("{message} (key `{path}`)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Pair {
        #[serde(default, deserialize_with = "stated")]
        first: Option<u8>,
        #[serde(default, deserialize_with = "stated")]
        second: Option<Object<Inner>>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        deep: u8,
    }

    impl<T> fmt::Debug for Object<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
    }

    #[test]
    fn whatever_is_wrong_is_told_with_its_path() {
        for (text, path) in [
            (r#"{"first":null}"#, "first"),
            (r#"{"first":"1"}"#, "first"),
            (r#"{"second":[1]}"#, "second"),
            (r#"{"second":null}"#, "second"),
            (r#"{"second":{"deep":1,"deeper":2}}"#, "second.deeper"),
            (r#"{"second":{"deep":-1}}"#, "second.deep"),
            (r#"{"frist":1}"#, "frist"),
            (r#"{"first":1,"first":1}"#, "first"),
        ] {
            let (error, told) = from_json::<Object<Pair>>(text).unwrap_err();
            assert_eq!(told, path, "{text}: {error}");
        }
        assert!(from_json::<Object<Pair>>("[1, 2]").is_err());
        assert!(from_json::<Object<Pair>>("{} {}").is_err());
        let pair = from_json::<Object<Pair>>(r#"{"first":1,"second":{"deep":2}}"#).unwrap().0;
        assert_eq!((pair.first, pair.second.map(|inner| inner.0.deep)), (Some(1), Some(2)));
    }
}
