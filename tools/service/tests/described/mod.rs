//! What an OpenAPI document says of a request, compared with what came of it: the status, and the schema of the body.

mod schema;

use http::Method;
use serde_json::{Map, Value};
use tdvisor_service::http::Reply;

pub use schema::mismatch;

/// The status of a path that the document does not have.
const NO_PATH: u16 = 404;

/// An answer.
#[derive(Clone, Copy)]
pub struct Said<'a> {
    pub status: u16,
    /// The field `Allow`.
    pub allow: Option<&'a str>,
    pub body: &'a [u8],
}

impl<'a> From<&'a Reply> for Said<'a> {
    fn from(reply: &'a Reply) -> Self {
        Self { status: reply.status.as_u16(), allow: reply.allow.as_deref(), body: &reply.body }
    }
}

/// Whether the answer of this status is described with these methods.
fn allows(responses: &Value, status: u16, methods: Option<&str>) -> bool {
    let described = &responses[status.to_string()]["headers"]["Allow"]["schema"]["enum"];
    methods.is_some_and(|methods| described.as_array().is_some_and(|all| all.contains(&methods.into())))
}

/// A document, and what is below and beside it.
pub struct Described {
    document: Value,
    /// What stands in front of the document's paths.
    root: String,
    /// The status of a path that has other methods.
    no_method: u16,
}

fn is_of(template: &str, path: &str) -> bool {
    let parts = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
    let (template, path) = (parts(template), parts(path));
    let is_same = |(ours, theirs): (&String, &String)| ours.starts_with('{') || ours == theirs;
    template.len() == path.len() && template.iter().zip(&path).all(is_same)
}

impl Described {
    /// A document whose paths are below those of its first server.
    pub fn new(document: Value, no_method: u16) -> Self {
        let server = document["servers"][0]["url"].as_str().expect("a server");
        let behind_host = server.splitn(4, '/').nth(3).unwrap_or_default();
        let root = if behind_host.is_empty() { String::new() } else { format!("/{behind_host}") };
        Self { document, root, no_method }
    }

    /// Why an answer does not follow from the document, for a request that was understood.
    pub fn problem(&self, method: &Method, target: &str, said: Said<'_>) -> Option<String> {
        let Said { status, allow, body } = said;
        let target = target.split('?').next().unwrap_or_default();
        let asked = format!("{method} {target}: {status}");
        let paths = self.document["paths"].as_object().expect("paths");
        let path = target.strip_prefix(&self.root).unwrap_or_default();
        // A path without a variable is meant before one with it.
        let mut templates: Vec<_> = paths.iter().filter(|(template, _)| is_of(template, path)).collect();
        templates.sort_by_key(|(template, _)| template.contains('{'));
        let Some((_, item)) = templates.first() else {
            return (status != NO_PATH).then(|| format!("{asked}, of a path that is not described"));
        };
        let item: &Map<String, Value> = item.as_object().expect("methods");
        let responses: Vec<&Value> = match item.get(&method.as_str().to_ascii_lowercase()) {
            Some(_) if allow.is_some() => {
                return Some(format!("{asked}, with other methods than this, which the path has"));
            }
            Some(operation) => vec![&operation["responses"]],
            None if status == self.no_method => {
                item.values().map(|operation| &operation["responses"]).collect()
            }
            None => return Some(format!("{asked}, of a method that the path does not have")),
        };
        let has_method = item.contains_key(&method.as_str().to_ascii_lowercase());
        if !has_method && !responses.iter().all(|responses| allows(responses, status, allow)) {
            return Some(format!("{asked}, with the methods {allow:?}"));
        }
        responses.iter().find_map(|responses| {
            let Some(response) = responses.get(status.to_string()) else {
                return Some(format!("{asked} is not described"));
            };
            self.problem_of_body(response, body).map(|problem| format!("{asked}: {problem}"))
        })
    }

    fn problem_of_body(&self, response: &Value, body: &[u8]) -> Option<String> {
        let Some(content) = response["content"].as_object() else {
            return (!body.is_empty()).then(|| "a body, where none is described".to_owned());
        };
        // Bytes and text have no form.
        let schema = content.get("application/json").map(|content| &content["schema"])?;
        match serde_json::from_slice::<Value>(body) {
            Ok(value) => mismatch(&self.document, &value, schema, "the body"),
            Err(error) => Some(format!("no JSON: {error}")),
        }
    }
}
