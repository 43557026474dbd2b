//! The description of the API, from the table of routes.

use serde_json::{Map, Value, json};

use super::number;
use super::routes::{ROUTES, Route, Says, methods};
use super::schemas::schemas;

/// Statuses of whatever is no request of a route: of the socket's protocol, of the request's form, and of a method that the path
/// does not have.
pub(super) const OF_ANY_REQUEST: [u16; 7] = [400, 401, 405, 408, 413, 417, 431];

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

/// What an error means, wherever it comes from.
fn meaning(status: u16) -> &'static str {
    match status {
        400 => "The request, or the TD that it asks for, cannot be",
        401 => "The client of a TCP port does not know the token",
        404 => "There is no such TD",
        405 => "The path has no such method",
        408 => "The bytes of the request did not come in time",
        409 => "The TD is in another phase, or the name is taken",
        413 => "The body is too large",
        417 => "What the request expects cannot be had",
        422 => "One TD may not have so much",
        429 => "So much is not left for now",
        431 => "The head of the request is too large",
        500 => "The host failed",
        502 => "The TD's worker died meanwhile",
        503 => "The service ends",
        _ => "The TD was busy for too long",
    }
}

fn parameters(route: &Route) -> Vec<Value> {
    let td = route
        .path
        .contains("{td}")
        .then(|| json!({"name": "td", "in": "path", "required": true, "schema": reference("Name")}));
    let number = |name: &&str| {
        let schema = json!({"type": "string", "pattern": number::pattern(),
            "description": "64 bits, in decimal digits or in hexadecimal ones after 0x"});
        json!({"name": name, "in": "query", "required": false, "schema": schema})
    };
    td.into_iter().chain(route.query.iter().map(number)).collect()
}

/// What can be asked of a TD that was made: its name is in the answer.
fn links() -> Value {
    let of_td = ROUTES.iter().filter(|route| route.path.contains("{td}"));
    let link = |route: &Route| {
        let method = route.verb.method().as_str().to_ascii_lowercase();
        // A pointer into this document, in a URI.
        let path = route.path.replace('/', "~1").replace('{', "%7B").replace('}', "%7D");
        let name = format!("{method}{}", route.path.rsplit_once("{td}").map_or("", |(_, rest)| rest))
            .replace('/', "-");
        (
            name,
            json!({"operationRef": format!("#/paths/{path}/{method}"), "parameters": {"td": "$response.body#/name"}}),
        )
    };
    Value::Object(of_td.map(link).collect())
}

fn operation(route: &Route) -> Value {
    let (status, content) = match route.says {
        Says::Nothing => ("204", None),
        Says::Made(schema) => ("201", Some(("application/json", reference(schema)))),
        Says::Json(schema) => ("200", Some(("application/json", reference(schema)))),
        Says::Text(kind) => ("200", Some((kind, json!({"type": "string"})))),
        Says::Events => ("200", Some(("text/event-stream", json!({"type": "string"})))),
    };
    let mut responses = Map::new();
    let mut good = json!({"description": "Done"});
    if let Some((kind, schema)) = content {
        good["content"] = json!({kind: {"schema": schema}});
    }
    if matches!(route.says, Says::Made(_)) {
        good["links"] = links();
    }
    responses.insert(status.to_owned(), good);
    for status in OF_ANY_REQUEST.iter().chain(route.errors) {
        let content = json!({"application/json": {"schema": reference("Error")}});
        let mut error = json!({"description": meaning(*status), "content": content});
        if *status == 405 {
            error["headers"] = json!({"Allow": {"description": "The methods that the path has", "required": true,
                "schema": {"type": "string", "enum": [methods(route.path).to_string()]}}});
        }
        responses.insert(status.to_string(), error);
    }
    let mut operation =
        json!({"summary": route.summary, "parameters": parameters(route), "responses": responses});
    if let Some(schema) = route.body {
        let content = json!({"application/json": {"schema": reference(schema)}});
        operation["requestBody"] = json!({"required": true, "content": content});
    }
    operation
}

/// The OpenAPI document.
#[must_use]
pub fn openapi() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let item = paths.entry(route.path).or_insert_with(|| json!({}));
        item[route.verb.method().as_str().to_ascii_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "tdvisor serve",
            "description": "TDs, each in a process of its own. Every error is an array of sentences, the outermost first. \
                No answer has what a TD holds, but for the dump of one that was asked for as inspectable and with a dump; a snapshot stays with the service. A path that is not one of these is answered with 404.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "http://localhost"}],
        "paths": paths,
        // Nothing at a UNIX socket, the token at a TCP port.
        "security": [{}, {"token": []}],
        "components": {
            "schemas": schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
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
    fn the_answer_with_a_new_td_names_every_operation_that_asks_for_a_td() {
        let document = openapi();
        let links = document["paths"]["/td/v1/tds"]["post"]["responses"]["201"]["links"].as_object().unwrap();
        for link in links.values() {
            let pointer = link["operationRef"].as_str().unwrap().strip_prefix('#').unwrap();
            let pointer = pointer.replace("%7B", "{").replace("%7D", "}");
            let operation = document.pointer(&pointer).unwrap_or_else(|| panic!("{pointer}"));
            assert_eq!(operation["parameters"][0]["name"], "td", "{pointer}");
            assert_eq!(link["parameters"], json!({"td": "$response.body#/name"}), "{pointer}");
        }
        assert_eq!(links.len(), ROUTES.iter().filter(|route| route.path.contains("{td}")).count());
    }

    #[test]
    fn the_document_in_the_repository_is_the_one_that_is_served() {
        let written = concat!(env!("CARGO_MANIFEST_DIR"), "/td-v1.openapi.json");
        let served = openapi();
        if std::env::var_os("TDVISOR_WRITE").is_some() {
            std::fs::write(written, format!("{served:#}\n")).unwrap();
        }
        // The order of keys says nothing, and depends on what else serde_json is built for.
        let kept: Value =
            serde_json::from_str(&std::fs::read_to_string(written).unwrap_or_default()).unwrap_or_default();
        assert!(kept == served, "TDVISOR_WRITE=1 writes tools/service/td-v1.openapi.json anew");
    }
}
