//! What both descriptions have to be, for their tests.

use std::collections::BTreeSet;

use serde_json::Value;

/// Every schema that something refers to.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(name)) = object.get("$ref") {
                found.insert(name.rsplit('/').next().unwrap_or_default().to_owned());
            }
            object.values().for_each(|value| references(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

/// Fails unless the schemas of an OpenAPI document are those that it refers to.
#[track_caller]
pub fn every_schema_is_used(document: &Value) {
    let mut used = BTreeSet::new();
    references(document, &mut used);
    let there: BTreeSet<String> =
        document["components"]["schemas"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(used, there);
}
