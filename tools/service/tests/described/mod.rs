//! What an OpenAPI document says of a request, compared with what came of it.

use http::Method;
use serde_json::{Map, Value};

/// The status of a path that the document does not have.
const NO_PATH: &str = "404";
/// The status of a path that has other methods.
const NO_METHOD: &str = "405";

fn is_of(template: &str, path: &str) -> bool {
    let parts = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
    let (template, path) = (parts(template), parts(path));
    let is_same = |(ours, theirs): (&String, &String)| ours.starts_with('{') || ours == theirs;
    template.len() == path.len() && template.iter().zip(&path).all(is_same)
}

fn has(operation: &Value, status: &str) -> bool {
    operation["responses"].get(status).is_some()
}

/// Why a status does not follow from the document, for a request that was understood.
pub fn problem(document: &Value, method: &Method, target: &str, status: u16) -> Option<String> {
    let path = target.split('?').next().unwrap_or_default();
    let status = status.to_string();
    let paths = document["paths"].as_object().expect("paths");
    // A path without a variable is meant before one with it.
    let mut templates: Vec<_> = paths.iter().filter(|(template, _)| is_of(template, path)).collect();
    templates.sort_by_key(|(template, _)| template.contains('{'));
    let Some((template, item)) = templates.first() else {
        return (status != NO_PATH)
            .then(|| format!("{method} {target}: {status}, of a path that is not described"));
    };
    let item: &Map<String, Value> = item.as_object().expect("methods");
    let is_described = match item.get(&method.as_str().to_ascii_lowercase()) {
        Some(operation) => has(operation, &status),
        None => status == NO_METHOD && item.values().all(|operation| has(operation, NO_METHOD)),
    };
    (!is_described).then(|| format!("{method} {template}: {status} is not described"))
}
