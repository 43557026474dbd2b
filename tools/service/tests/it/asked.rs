//! What a TD may be asked for with: the description says of each request what the service does with it.

use serde_json::{Map, Value, json};
use tdvisor_service::td_api::openapi;
use tdvisor_service::worker::TdRequest;

use crate::described::mismatch;

/// Whether the service would keep a TD that is asked for so.
fn is_had(request: &Value) -> Result<(), String> {
    let read: TdRequest = serde_json::from_value(request.clone()).map_err(|error| error.to_string())?;
    read.check().map(|_| ()).map_err(|error| error.to_string())
}

/// The requests of the description.
struct Requests(Value);

impl Requests {
    fn new() -> Self {
        Self(openapi())
    }

    /// Fails unless the description and the service agree on a request; whether it is had.
    #[track_caller]
    fn agree(&self, request: &Value) -> bool {
        let schema = &self.0["components"]["schemas"]["TdRequest"];
        let (described, had) = (mismatch(&self.0, request, schema, "the request"), is_had(request));
        assert_eq!(described.is_none(), had.is_ok(), "{request}: described {described:?}, and had {had:?}");
        had.is_ok()
    }
}

/// Every object with one of its values, or none, for each key.
fn all_of(keys: &[(&str, &[Value])]) -> Vec<Value> {
    let mut all = vec![Map::new()];
    for (key, values) in keys {
        let with = |object: &Map<String, Value>, value: &Value| {
            let mut object = object.clone();
            object.insert((*key).to_owned(), value.clone());
            object
        };
        let more: Vec<_> =
            all.iter().flat_map(|one| values.iter().map(move |value| with(one, value))).collect();
        all.extend(more);
    }
    all.into_iter().map(Value::Object).collect()
}

#[test]
fn the_description_has_the_payloads_that_are_had_and_no_others() {
    let requests = Requests::new();
    let all = all_of(&[
        (
            "firmware",
            &[Value::Null, json!("hello-td"), json!("boot-shim"), json!("/f"), json!("f"), json!("")],
        ),
        ("kernel", &[Value::Null, json!("/k"), json!("k")]),
        ("initramfs", &[Value::Null, json!("/i"), json!("i")]),
        (
            "cmdline",
            &[
                Value::Null,
                json!(""),
                json!("c".repeat(128)),
                json!("c".repeat(129)),
                json!("c".repeat(2047)),
                json!("c".repeat(2048)),
                json!("é\u{7f}"),
                json!("\u{1}\n\u{7f}"),
                json!("\0"),
            ],
        ),
        ("mrconfigid", &[Value::Null, json!("5a".repeat(48)), json!("")]),
        ("more", &[Value::Null]),
    ]);
    let had = all.iter().filter(|payload| requests.agree(&json!({"payload": payload}))).count();
    assert!(had > 100 && all.len() - had > 1000, "{had} of {} are had", all.len());
}

#[test]
fn the_description_has_the_keys_of_a_request_that_go_together() {
    let requests = Requests::new();
    let flags = [json!(false), json!(true), Value::Null];
    let booleans = [json!(false), json!(true)];
    let seeds = [json!(7), Value::Null];
    let on_kvm = all_of(&[
        ("backend", &[json!("kvm"), json!("emulated"), json!("other")]),
        ("inspectable", &booleans),
        ("dump", &booleans),
        ("gdb", &booleans),
        ("trace", &booleans),
        ("inspector", &booleans),
        ("inject", &[json!("chaos:1/2"), Value::Null]),
        ("deterministic", &seeds),
    ]);
    let saved = all_of(&[
        ("snapshot", &flags),
        ("inspectable", &booleans),
        ("gdb", &booleans),
        ("deterministic", &seeds),
        ("network", &booleans),
        ("vcpus", &[json!(1), json!(2)]),
        ("disks", &[json!([]), json!([{"path": "/d"}])]),
        ("inject", &[json!("chaos:1/2"), Value::Null]),
    ]);
    let mut all = all_of(&[("inspectable", &flags), ("dump", &flags), ("gdb", &flags), ("trace", &flags)]);
    all.extend(on_kvm);
    all.extend(saved);
    assert!(!requests.agree(
        &json!({"payload": {"kernel": "/k"}, "inspectable": true, "deterministic": 7, "snapshot": true})
    ));
    let had = |request: &&Value| {
        let mut request = (*request).clone();
        request["payload"] = json!({"firmware": "hello-td"});
        requests.agree(&request)
    };
    let count = all.iter().filter(had).count();
    assert!(count > 10 && all.len() - count > 100, "{count} of {} are had", all.len());
}

#[test]
fn the_description_bounds_the_keys_of_a_request_as_the_service_does() {
    let requests = Requests::new();
    let max = 64u64 << 30;
    for (key, had, refused) in [
        (
            "name",
            vec![Value::Null, json!("a"), json!("0-"), json!("a".repeat(40))],
            vec![json!(""), json!("-"), json!("A"), json!("a".repeat(41)), json!(1)],
        ),
        ("vcpus", vec![json!(1), json!(64)], vec![json!(0), json!(65), json!(-1), json!("1"), Value::Null]),
        (
            "memory",
            vec![json!(4096), json!(max)],
            vec![json!(0), json!(4095), json!(4097), json!(max + 4096), Value::Null],
        ),
        ("network", vec![json!(true)], vec![json!(1), Value::Null]),
        ("inspector", vec![json!(true)], vec![json!("true"), Value::Null]),
        ("inject", vec![Value::Null, json!(""), json!("chaos:1/2")], vec![json!(1)]),
        ("payload", vec![], vec![Value::Null, json!([]), json!({}), json!("hello-td")]),
        (
            "disks",
            vec![
                json!([]),
                json!([{"path": "/d", "readonly": true, "serial": " ~"}]),
                json!([{"path": "/d", "serial": null}]),
            ],
            vec![
                Value::Null,
                json!({}),
                json!([{}]),
                json!([null]),
                json!([{"path": "d"}]),
                json!([{"path": "/d", "serial": ""}]),
                json!([{"path": "/d", "serial": "s".repeat(21)}]),
                json!([{"path": "/d", "serial": "\t"}]),
                json!([{"path": "/d", "readonly": null}]),
                json!([{"path": "/d", "more": 1}]),
            ],
        ),
        ("more", vec![], vec![Value::Null]),
    ] {
        for (values, is_good) in [(had, true), (refused, false)] {
            for value in values {
                let mut request = json!({"payload": {"firmware": "hello-td"}});
                request[key] = value;
                assert_eq!(requests.agree(&request), is_good, "{request}");
            }
        }
    }
}

#[test]
fn what_a_schema_cannot_say_is_refused_with_a_sentence_that_names_the_key() {
    for (request, words) in [
        (
            json!({"payload": {"kernel": "/k", "cmdline": "é".repeat(2047)}}),
            "payload.cmdline: at most 2047 bytes",
        ),
        (json!({"payload": {"firmware": "hello-td"}, "inject": "nonsense"}), "inject: "),
        (
            json!({"payload": {"firmware": "hello-td"}, "disks": [{"path": "/d"}, {"path": "/d"}]}),
            "two disks have the path '/d'",
        ),
        (json!({"payload": {"firmware": "hello-td"}, "vcpus": 2.0}), "2.0"),
    ] {
        let said = is_had(&request).expect_err("it is refused");
        assert!(said.contains(words), "{request}: {said}");
    }
}
