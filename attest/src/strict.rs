//! Reading text that decides about trust: what is stated twice, as another type or as `null`, and what is not known,
//! is an error that names the key. (Derived decoders take `null` for an absent option, and a list for a struct.)

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;

use serde::de::{
    Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer,
};
use serde_json::{Map, Value};

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

/// Any JSON, in which no object has a key twice.
struct Unambiguous(Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UnambiguousVisitor).map(Self)
    }
}

struct UnambiguousVisitor;

impl<'de> Visitor<'de> for UnambiguousVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Unambiguous(value)) = values.next_element()? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(A::Error::custom(format_args!("duplicate key `{name}`")));
            }
            let Unambiguous(value) = members.next_value()?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

/// Decodes any JSON in which no object has a key twice.
///
/// # Errors
/// A text that says what is wrong, and where.
pub fn value(text: &str) -> Result<Value, String> {
    let Unambiguous(value) = serde_json::from_str(text).map_err(|error| error.to_string())?;
    Ok(value)
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
    fn any_json_is_read_and_a_key_twice_is_named_at_any_depth() {
        let text = r#"{"a":[1,-1,1.5,null,true,"x",{"b":{}}]}"#;
        assert_eq!(value(text).unwrap(), serde_json::from_str::<Value>(text).unwrap());
        for text in [r#"{"a":1,"a":1}"#, r#"[{"b":{"a":1,"a":null}}]"#] {
            assert!(value(text).unwrap_err().contains("duplicate key `a`"), "{text}");
        }
        assert!(value("{} {}").is_err());
        assert!(value(&"[".repeat(1000)).is_err());
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
