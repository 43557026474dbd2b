//! Typed access to one JSON object, with errors that name the field.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::symbols::Number;

/// What is wrong with a line, in words.
pub type Problem = String;

/// One JSON object.
#[derive(Clone, Copy)]
pub struct Fields<'a> {
    object: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// Reads a value as an object.
    pub fn new(value: &'a Value) -> Result<Self, Problem> {
        match value {
            Value::Object(object) => Ok(Self { object }),
            _ => Err("not a JSON object".to_owned()),
        }
    }

    /// The fields in alphabetical order.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        self.object.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Refuses fields that the format does not have.
    pub fn only(self, known: &[&str]) -> Result<(), Problem> {
        match self.iter().find(|(name, _)| !known.contains(name)) {
            Some((name, _)) => Err(format!("unknown field `{name}`")),
            None => Ok(()),
        }
    }

    /// Whether the object has the field.
    pub fn has(self, name: &str) -> bool {
        self.object.contains_key(name)
    }

    /// A field that may be absent.
    pub fn optional(self, name: &str) -> Option<&'a Value> {
        self.object.get(name)
    }

    /// A field that must be present.
    pub fn required(self, name: &str) -> Result<&'a Value, Problem> {
        self.object.get(name).ok_or_else(|| format!("field `{name}` is missing"))
    }

    /// A `"0x..."` string.
    pub fn hex(self, name: &str) -> Result<u64, Problem> {
        hex(self.required(name)?).map_err(|problem| format!("field `{name}`: {problem}"))
    }

    /// A `"0x..."` string no greater than `most`.
    pub fn hex_at_most(self, name: &str, most: u64) -> Result<u64, Problem> {
        let value = self.hex(name)?;
        if value > most {
            return Err(format!("field `{name}`: {value:#x} is more than the bound {most:#x}"));
        }
        Ok(value)
    }

    /// A `"0x..."` string of this width.
    pub fn hex_as<T: TryFrom<u64>>(self, name: &str) -> Result<T, Problem> {
        let value = self.hex(name)?;
        T::try_from(value).map_err(|_| format!("field `{name}`: {value:#x} is too large"))
    }

    /// A plain JSON integer.
    pub fn count<T: TryFrom<u64>>(self, name: &str) -> Result<T, Problem> {
        let value = self.required(name)?;
        value
            .as_u64()
            .and_then(|value| T::try_from(value).ok())
            .ok_or_else(|| format!("field `{name}`: {value} is not a count in range"))
    }

    /// A JSON boolean.
    pub fn flag(self, name: &str) -> Result<bool, Problem> {
        let value = self.required(name)?;
        value.as_bool().ok_or_else(|| format!("field `{name}`: {value} is neither true nor false"))
    }

    /// A JSON string.
    pub fn text(self, name: &str) -> Result<&'a str, Problem> {
        let value = self.required(name)?;
        value.as_str().ok_or_else(|| format!("field `{name}`: {value} is not a string"))
    }

    /// A JSON string that is kept.
    pub fn shared_text(self, name: &str) -> Result<Arc<str>, Problem> {
        self.text(name).map(Arc::from)
    }

    /// A JSON array.
    pub fn list(self, name: &str) -> Result<&'a [Value], Problem> {
        list(self.required(name)?).map_err(|problem| format!("field `{name}`: {problem}"))
    }

    /// A JSON object inside this one.
    pub fn object(self, name: &str) -> Result<Fields<'a>, Problem> {
        Self::new(self.required(name)?).map_err(|problem| format!("field `{name}`: {problem}"))
    }

    /// A string of lower-case hex digits that is exactly `N` bytes.
    pub fn bytes<const N: usize>(self, name: &str) -> Result<[u8; N], Problem> {
        let bytes = self.byte_string(name)?;
        bytes.try_into().map_err(|_| format!("field `{name}`: not {N} bytes"))
    }

    /// A string of hex digits.
    pub fn byte_string(self, name: &str) -> Result<Vec<u8>, Problem> {
        byte_string(self.text(name)?).map_err(|problem| format!("field `{name}`: {problem}"))
    }
}

/// A string of hex digits.
pub fn byte_string(text: &str) -> Result<Vec<u8>, Problem> {
    if !text.len().is_multiple_of(2) {
        return Err("odd number of hex digits".to_owned());
    }
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?))
        .collect::<Option<Vec<u8>>>()
        .ok_or_else(|| "not hex digits".to_owned())
}

fn digit(ascii: u8) -> Option<u8> {
    match ascii {
        b'0'..=b'9' => Some(ascii - b'0'),
        b'a'..=b'f' => Some(ascii - b'a' + 10),
        _ => None,
    }
}

/// A `"0x..."` string: lower case, no leading zeros, at most 64 bits.
pub fn hex(value: &Value) -> Result<u64, Problem> {
    value
        .as_str()
        .and_then(|text| text.strip_prefix("0x"))
        .filter(|digits| !digits.is_empty() && digits.bytes().all(|ascii| digit(ascii).is_some()))
        .filter(|digits| *digits == "0" || !digits.starts_with('0'))
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or_else(|| format!("{value} is not a \"0x...\" number of at most 64 bits"))
}

/// A `"0x..."` string, or `"$NAME"` or `"$NAME+0x..."`.
pub fn number(value: &Value) -> Result<Number, Problem> {
    let Some(symbol) = value.as_str().and_then(|text| text.strip_prefix('$')) else {
        return hex(value).map(Number::Literal);
    };
    let (name, add) = match symbol.split_once('+') {
        Some((name, add)) => (name, hex(&Value::from(add))?),
        None => (symbol, 0),
    };
    if name.is_empty() || !name.bytes().all(|ascii| ascii.is_ascii_alphanumeric()) {
        return Err(format!("{value} names no symbol"));
    }
    Ok(Number::Symbol { name: name.into(), add })
}

/// A JSON array.
pub fn list(value: &Value) -> Result<&[Value], Problem> {
    match value {
        Value::Array(list) => Ok(list),
        _ => Err(format!("{value} is not a list")),
    }
}
