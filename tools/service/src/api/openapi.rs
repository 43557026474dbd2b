//! The description of the API, from the table of endpoints.

use serde_json::{Map, Value, json};

use super::endpoint::{BodyKind, ENDPOINTS, Endpoint, SaysKind};
use super::schemas::schemas;
use super::{API_VERSION, ROOT};
use crate::http::Allow;

/// Statuses of whatever is no request of an endpoint: of the socket's protocol, and of the endpoint's form.
const OF_ANY_REQUEST: [u16; 5] = [400, 408, 413, 417, 431];

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn content(schema: &Value) -> Value {
    json!({"application/json": {"schema": schema}})
}

/// What an error means, wherever it comes from.
fn meaning(status: u16) -> &'static str {
    match status {
        400 => "The request or what it asks for cannot be, or the endpoint has another method",
        404 => "There is no VM, or no such device",
        408 => "The bytes of the request did not come in time",
        409 => "Two devices have one name, or two disks one file",
        413 => "The body is too large",
        417 => "What the request expects cannot be had",
        431 => "The head of the request is too large",
        _ => "The VM is in another state, cannot be started, or does not have this",
    }
}

fn operation(endpoint: &Endpoint) -> Value {
    let mut responses = Map::new();
    match endpoint.says {
        SaysKind::Nothing => responses.insert("204".to_owned(), json!({"description": "Done"})),
        SaysKind::Json(schema) => {
            let says = json!({"description": "What was asked for", "content": content(&reference(schema))});
            responses.insert("200".to_owned(), says)
        }
    };
    for status in OF_ANY_REQUEST.iter().chain(endpoint.errors) {
        let mut error = json!({"description": meaning(*status), "content": content(&reference("Error"))});
        if *status == 400 {
            let only = Allow(vec![endpoint.method()]).to_string();
            error["headers"] = json!({"Allow": {"description": "The endpoint's method, where it was asked by another one",
                "schema": {"type": "string", "enum": [only]}}});
        }
        responses.insert(status.to_string(), error);
    }
    let mut operation = json!({
        "summary": endpoint.summary,
        "operationId": endpoint.name,
        "responses": responses,
    });
    if let (BodyKind::Json(schema), Some(operation)) = (endpoint.body, operation.as_object_mut()) {
        let body = json!({"required": true, "content": content(&reference(schema))});
        operation.insert("requestBody".to_owned(), body);
    }
    operation
}

/// The OpenAPI document.
#[must_use]
pub fn openapi() -> Value {
    let paths: Map<String, Value> = ENDPOINTS
        .iter()
        .map(|endpoint| {
            let method = endpoint.method().as_str().to_ascii_lowercase();
            (format!("/{}", endpoint.name), json!({method: operation(endpoint)}))
        })
        .collect();
    json!({
        "openapi": "3.0.1",
        "info": {
            "title": "tdvisor vmm",
            "description": format!(
                "A TD behind a part of Cloud Hypervisor's REST API ({API_VERSION}), over HTTP/1.1 on a UNIX socket. \
                 Keys that Cloud Hypervisor does not have are ignored; keys of it that a TD here does not have are \
                 refused where they ask for something, and the error names them, as it does where keys do not fit together: \
                 a schema says what each may be by itself. A request that is no HTTP/1.1 \
                 request, is too large or comes too slowly is answered with 400, 408, 413, 417 or 431 and ends its \
                 connection; a method that an endpoint does not have is answered with 400, as there, and `Allow`, and a path \
                 that is none of these with 404. Every error is an array of sentences."
            ),
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": format!("http://localhost{}", ROOT.trim_end_matches('/'))}],
        "paths": paths,
        "components": {"schemas": schemas()},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::described::every_schema_is_used;

    #[test]
    fn every_schema_is_there_and_used() {
        every_schema_is_used(&openapi());
    }

    #[test]
    fn every_endpoint_has_one_method_and_each_of_its_statuses_once() {
        for (path, item) in openapi()["paths"].as_object().unwrap() {
            let item = item.as_object().unwrap();
            assert_eq!(item.len(), 1, "{path}");
            let operation = item.values().next().unwrap();
            let endpoint = ENDPOINTS.iter().find(|endpoint| path[1..] == *endpoint.name).unwrap();
            let responses = operation["responses"].as_object().unwrap();
            assert_eq!(responses.len(), 1 + OF_ANY_REQUEST.len() + endpoint.errors.len(), "{path}");
        }
    }
}
