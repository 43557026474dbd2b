//! Whether a value is what a schema of an OpenAPI document says, for the words that our schemas have.

use regex_lite::Regex;
use serde_json::{Map, Value};

/// Schemas inside of schemas that are followed: ours end far before.
const DEEPEST: usize = 64;
/// Words that say nothing of a value, or nothing that is looked at here.
const IDLE: [&str; 4] = ["$ref", "default", "description", "format"];

/// Where a value is not what a schema of the document says.
pub fn mismatch(document: &Value, value: &Value, schema: &Value, at: &str) -> Option<String> {
    Place { document, at, depth: 0 }.mismatch(value, schema)
}

/// A place in the value.
#[derive(Clone, Copy)]
struct Place<'p> {
    document: &'p Value,
    at: &'p str,
    depth: usize,
}

impl Place<'_> {
    fn says(&self, value: &Value, what: &str) -> Option<String> {
        Some(format!("{} is {value}, {what}", self.at))
    }

    /// The same place, with another schema.
    fn deeper(self) -> Self {
        assert!(self.depth < DEEPEST, "{}: the schemas do not end", self.at);
        Self { depth: self.depth + 1, ..self }
    }

    fn mismatch(self, value: &Value, schema: &Value) -> Option<String> {
        if let Some(name) = schema["$ref"].as_str() {
            let schema = self.document.pointer(name.trim_start_matches('#')).expect("a schema that is there");
            return self.deeper().mismatch(value, schema);
        }
        if value.is_null() && schema["nullable"] == true {
            return None;
        }
        schema
            .as_object()
            .expect("a schema")
            .iter()
            .find_map(|(word, says)| self.breaks(value, schema, word, says))
    }

    fn fits(self, value: &Value, schema: &Value) -> bool {
        self.deeper().mismatch(value, schema).is_none()
    }

    /// How a value breaks one word of its schema.
    fn breaks(self, value: &Value, schema: &Value, word: &str, says: &Value) -> Option<String> {
        let list = || says.as_array().expect("a list");
        let fitting = || list().iter().filter(|part| self.fits(value, part)).count();
        let when = |is_broken: bool, what: &str| is_broken.then(|| self.says(value, what)).flatten();
        let bound = || says.as_f64().expect("a number");
        let characters = value.as_str().map(|text| text.chars().count() as f64);
        match word {
            "type" => when(!is_of(value, says), "of another type"),
            "enum" => when(!list().contains(value), "none of its values"),
            "const" => when(value != says, "another value"),
            "minimum" => when(value.as_f64().is_some_and(|number| number < bound()), "less than its minimum"),
            "maximum" => when(value.as_f64().is_some_and(|number| number > bound()), "more than its maximum"),
            "multipleOf" => {
                let of = says.as_u64().expect("a whole number");
                when(value.as_u64().is_some_and(|number| number % of != 0), "no multiple")
            }
            "minLength" => when(characters.is_some_and(|count| count < bound()), "too short"),
            "maxLength" => when(characters.is_some_and(|count| count > bound()), "too long"),
            "minItems" => {
                when(value.as_array().is_some_and(|items| (items.len() as f64) < bound()), "too short")
            }
            "pattern" => {
                let pattern =
                    Regex::new(says.as_str().expect("a pattern")).expect("a pattern that can be read");
                when(value.as_str().is_some_and(|text| !pattern.is_match(text)), "not of its pattern")
            }
            "allOf" => list().iter().find_map(|part| self.deeper().mismatch(value, part)),
            "anyOf" => when(fitting() == 0, "which none of its schemas describe"),
            "oneOf" => {
                let count = fitting();
                when(count != 1, &format!("which {count} of its schemas describe"))
            }
            "if" if self.fits(value, says) => self.deeper().mismatch(value, &schema["then"]),
            "if" | "then" | "nullable" => None,
            "required" => {
                let object = value.as_object()?;
                let missing =
                    list().iter().filter_map(Value::as_str).find(|key| !object.contains_key(*key))?;
                Some(format!("{} has no {missing}", self.at))
            }
            "properties" => {
                let known = |key: &String| says.get(key);
                self.of_keys(value.as_object()?, known)
            }
            "additionalProperties" => {
                let more = |key: &String| schema["properties"].get(key).is_none().then_some(says);
                self.of_keys(value.as_object()?, more)
            }
            "items" => value.as_array()?.iter().zip(0..).find_map(|(item, index)| {
                let at = format!("{}[{index}]", self.at);
                Place { at: &at, ..self.deeper() }.mismatch(item, says)
            }),
            idle if IDLE.contains(&idle) => None,
            other => panic!("{}: the word {other} of a schema", self.at),
        }
    }

    /// The first key whose value is not what its schema, if it has one, says.
    fn of_keys<'s>(
        self,
        object: &Map<String, Value>,
        schema_of: impl Fn(&String) -> Option<&'s Value>,
    ) -> Option<String> {
        object.iter().find_map(|(key, value)| {
            let at = format!("{}.{key}", self.at);
            match schema_of(key)? {
                Value::Bool(true) => None,
                Value::Bool(false) => Some(format!("{at} is not described")),
                schema => Place { at: &at, ..self.deeper() }.mismatch(value, schema),
            }
        })
    }
}

/// Whether a value is of a type, or of one of some types. A whole number is written without a fraction.
fn is_of(value: &Value, types: &Value) -> bool {
    match types {
        Value::Array(types) => types.iter().any(|one| is_of(value, one)),
        Value::String(name) => match name.as_str() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_u64() || value.is_i64(),
            "number" => value.is_number(),
            "null" => value.is_null(),
            other => panic!("the type {other}"),
        },
        other => panic!("the type {other}"),
    }
}
