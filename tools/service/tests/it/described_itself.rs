//! The comparison of answers with their description finds what differs.

use http::Method;
use serde_json::json;

use crate::described::{Described, Said, mismatch};

fn described() -> Described {
    let text = |kind: serde_json::Value| json!({"content": {"application/json": {"schema": kind}}});
    let mut refusal = text(json!({"type": "array", "items": {"type": "string"}, "minItems": 1}));
    refusal["headers"] = json!({"Allow": {"schema": {"type": "string", "enum": ["GET"]}}});
    let document = json!({
        "servers": [{"url": "http://localhost/root"}],
        "paths": {
            "/a": {"get": {"responses": {
                "200": text(json!({"$ref": "#/components/schemas/A"})),
                "204": {"description": "nothing"},
                "400": refusal,
            }}},
            "/{name}/b": {"put": {"responses": {"204": {"description": "nothing"}, "400": {"description": "x"}}}},
        },
        "components": {"schemas": {"A": {
            "type": "object", "required": ["n"], "additionalProperties": false,
            "properties": {
                "n": {"type": "integer", "minimum": 1, "maximum": 3},
                "word": {"type": ["string", "null"], "enum": ["x", null]},
                "maybe": {"allOf": [{"type": "boolean"}], "nullable": true},
                "counts": {"type": "object", "additionalProperties": {"type": "integer"}},
            },
        }}},
    });
    Described::new(document, 400)
}

#[test]
fn what_follows_from_a_description_has_no_problem() {
    let described = described();
    for (method, target, status, body) in [
        (Method::GET, "/root/a", 200, r#"{"n": 3, "word": null, "maybe": null, "counts": {"x": 1}}"#),
        (Method::GET, "/root/a?x=1", 204, ""),
        (Method::GET, "/root/a", 400, r#"["no"]"#),
        (Method::PUT, "/root/any/b", 204, ""),
        (Method::GET, "/root/c", 404, "whatever"),
        (Method::GET, "/a", 404, "whatever"),
    ] {
        let said = Said { status, allow: None, body: body.as_bytes() };
        assert_eq!(described.problem(&method, target, said), None, "{method} {target}");
    }
}

#[test]
fn an_answer_to_a_method_that_a_path_does_not_have_names_those_that_it_has_and_no_other_does() {
    let described = described();
    for (method, target, allow, has_problem) in [
        (Method::PUT, "/root/a", Some("GET"), false),
        (Method::PUT, "/root/a", Some("GET, PUT"), true),
        (Method::PUT, "/root/a", None, true),
        (Method::GET, "/root/a", Some("GET"), true),
        (Method::GET, "/root/any/b", Some("PUT"), true),
    ] {
        let said = Said { status: 400, allow, body: br#"["no"]"# };
        let problem = described.problem(&method, target, said);
        assert_eq!(problem.is_some(), has_problem, "{method} {target}, {allow:?}: {problem:?}");
    }
}

#[test]
fn a_status_or_a_body_that_is_not_described_is_named() {
    let described = described();
    for (method, target, status, body, words) in [
        (Method::GET, "/root/a", 500, "", "500 is not described"),
        (Method::GET, "/root/a", 204, "x", "a body, where none"),
        (Method::GET, "/root/a", 200, "x", "no JSON"),
        (Method::GET, "/root/a", 200, "{}", "has no n"),
        (Method::GET, "/root/a", 200, r#"{"n": 0}"#, "less than its minimum"),
        (Method::GET, "/root/a", 200, r#"{"n": 4}"#, "more than its maximum"),
        (Method::GET, "/root/a", 200, r#"{"n": 1.5}"#, "of another type"),
        (Method::GET, "/root/a", 200, r#"{"n": 1, "word": "y"}"#, "none of its values"),
        (Method::GET, "/root/a", 200, r#"{"n": 1, "maybe": 1}"#, "of another type"),
        (Method::GET, "/root/a", 200, r#"{"n": 1, "counts": {"x": "y"}}"#, "the body.counts.x"),
        (Method::GET, "/root/a", 200, r#"{"n": 1, "more": 1}"#, "more is not described"),
        (Method::GET, "/root/a", 400, "[]", "too short"),
        (Method::GET, "/root/a", 400, "[1]", "the body[0]"),
        (Method::PUT, "/root/a", 405, "", "a method that the path does not have"),
        (Method::GET, "/root/c", 400, "", "a path that is not described"),
    ] {
        let said = Said { status, allow: None, body: body.as_bytes() };
        let problem = described.problem(&method, target, said).unwrap_or_default();
        assert!(problem.contains(words), "{method} {target} {status} {body}: {problem:?}");
    }
}

#[test]
fn each_word_of_a_schema_is_looked_at() {
    let needs =
        json!({"if": {"required": ["a"], "properties": {"a": {"const": true}}}, "then": {"required": ["b"]}});
    for (schema, good, bad, words) in [
        (json!({"const": 1}), json!(1), json!(2), "another value"),
        (json!({"multipleOf": 4}), json!(8), json!(6), "no multiple"),
        (json!({"minLength": 2}), json!("éé"), json!("é"), "too short"),
        (json!({"maxLength": 2}), json!("éé"), json!("ééé"), "too long"),
        (json!({"pattern": "^[a-c]{2}$"}), json!("ab"), json!("abc"), "not of its pattern"),
        (json!({"allOf": [{"minimum": 1}, {"maximum": 3}]}), json!(3), json!(4), "more than its maximum"),
        (json!({"anyOf": [{"type": "null"}, {"const": 1}]}), json!(null), json!(2), "none of its schemas"),
        (json!({"oneOf": [{"minimum": 1}, {"minimum": 3}]}), json!(2), json!(3), "2 of its schemas"),
        (json!({"items": {"type": "null"}}), json!([null]), json!([null, 1]), "the value[1]"),
        (needs.clone(), json!({"a": true, "b": 1}), json!({"a": true}), "has no b"),
        (needs.clone(), json!({"a": false}), json!({"a": true, "c": 1}), "has no b"),
        (needs, json!({}), json!({"a": true, "c": 1}), "has no b"),
    ] {
        assert_eq!(mismatch(&json!({}), &good, &schema, "the value"), None, "{schema}");
        let problem = mismatch(&json!({}), &bad, &schema, "the value").unwrap_or_default();
        assert!(problem.contains(words), "{schema}, {bad}: {problem:?}");
    }
}

#[test]
#[should_panic(expected = "the word uniqueItems of a schema")]
fn a_word_of_a_schema_that_nobody_looks_at_is_no_schema_that_all_fits() {
    mismatch(&json!({}), &json!([]), &json!({"uniqueItems": true}), "the value");
}
