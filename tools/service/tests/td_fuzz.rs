//! Whatever clients of our own API send: no panic, every status and every body as the document has them for the request, every
//! error in the one form, and nothing is left.
//!
//! `TDVISOR_FUZZ_SECONDS` runs so long instead of a few rounds, `TDVISOR_FUZZ_SEED` the one round of a seed.
//!
//! A program of its own: it counts the descriptors, threads and children of its process, and other tests have some.

mod described;
mod rest;
#[expect(dead_code, reason = "nobody here looks at what a TD does")]
mod tds;

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use described::Described;
use http::Method;
use rest::{at_rest, settle};
use serde_json::{Value, json};
use tds::{LONG, Tds, hello, waiting};
use tdvisor_service::td_api::{ROUTES, Says, openapi};
use tdvisor_test_data::chance::Chance;
use tdvisor_test_data::replay::{Replay, number};

#[test]
fn worker_process() {
    tds::work();
}

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Rounds where no time is given, and steps of a round.
const ROUNDS: u64 = 4;
const STEPS: usize = 60;

/// A request, most of the time one of a route.
fn request(chance: &mut Chance) -> (Method, String, Vec<u8>) {
    let td = chance.pick(&["a", "b", "c", "c", "..", "%61", "", "A"]);
    let routes: Vec<_> = ROUTES.iter().filter(|route| route.says != Says::Events).collect();
    let route = chance.pick(&routes);
    let mut path = route.path.replace("{td}", td);
    let mut method = route.verb.method();
    match chance.below(12) {
        0 => method = chance.pick(&[Method::GET, Method::PUT, Method::POST, Method::DELETE, Method::PATCH]),
        1 => path.push_str(chance.pick(&[
            "?from=0x10&limit=3",
            "?limit=0",
            "?from=-1",
            "?",
            "?from=0xffffffffffffffffff",
            "/x",
        ])),
        2 => path.truncate(chance.index(path.len()).max(1)),
        _ => {}
    }
    let body = if route.body.is_some() { body(chance, td) } else { Vec::new() };
    (method, path, body)
}

/// A body that creates a TD, or one that is damaged.
fn body(chance: &mut Chance, td: &str) -> Vec<u8> {
    let mut request = if chance.below(2) == 0 { hello(td) } else { waiting(td) };
    match chance.below(9) {
        0 => {
            request["memory"] =
                chance.pick(&[json!(0), json!(-1), json!(u64::MAX), json!("1G"), json!(1u64 << 40)])
        }
        1 => request["vcpus"] = chance.pick(&[json!(0), json!(2), json!(65), json!(u64::MAX), Value::Null]),
        2 => {
            request["payload"] = chance.pick(&[
                json!({}),
                json!([]),
                json!({"kernel": "/dev/null"}),
                json!({"firmware": "/dev/zero"}),
            ])
        }
        3 => {
            request["disks"] =
                json!([{"path": chance.pick(&["/dev/null", "/", "relative", "/no/such/disk"])}])
        }
        5 => {
            let key = chance.pick(&["trace", "inspector", "inspectable", "dump"]);
            request[key] = chance.pick(&[json!(true), json!(true), json!("yes"), Value::Null]);
            if chance.below(2) == 0 {
                (request["inspectable"], request["dump"]) = (json!(true), json!(true));
            }
        }
        6 => {
            let key = chance.pick(&["inspectable", "deterministic", "snapshot", "network"]);
            (request["inspectable"], request["snapshot"]) = (json!(true), json!(true));
            request["deterministic"] = json!(7);
            if chance.below(3) == 0 {
                request[key] = chance.pick(&[json!(false), json!(1), json!(-1), Value::Null]);
            }
        }
        7 => {
            request["backend"] = chance.pick(&[json!("kvm"), json!("emulated"), json!("other"), Value::Null])
        }
        4 => request["inject"] = json!(chance.pick(&["chaos:1/50", "chaos:2/5", "nonsense", ""])),
        _ => {}
    }
    let mut bytes = request.to_string().into_bytes();
    if chance.below(5) == 0 {
        let at = chance.index(bytes.len());
        bytes[at] = chance.next() as u8;
    }
    bytes
}

/// Takes a step; whether it was answered by a refusal, where it was answered.
fn step(tds: &Tds, described: &Described, chance: &mut Chance) -> Option<bool> {
    let (method, path, body) = request(chance);
    if chance.below(8) == 0 {
        // A client that goes in the middle.
        let whole =
            format!("{method} {path} HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        let whole = [whole, body].concat();
        let end = chance.index(whole.len());
        let mut stream = UnixStream::connect(tds.folder.join("socket")).expect("somebody listens");
        stream.write_all(&whole[..end]).expect("it is read");
        return None;
    }
    let sent = Some(&body[..]).filter(|body| !body.is_empty());
    let reply = tds.client().ask(&method, &path, sent, LONG).expect("an answer");
    if let Some(problem) = described.problem(&method, &path, (&reply).into()) {
        panic!("{problem}: {}", String::from_utf8_lossy(&reply.body));
    }
    if reply.status.is_success() {
        return Some(false);
    }
    let sentences: Result<Vec<String>, _> = serde_json::from_slice(&reply.body);
    assert!(
        sentences.is_ok_and(|all| !all.is_empty()),
        "{method} {path}: {:?}",
        String::from_utf8_lossy(&reply.body)
    );
    Some(true)
}

#[test]
fn clients_that_send_whatever_they_like_neither_break_nor_leave_anything() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        usual(panic);
    }));
    let tds = Tds::new("fuzz");
    let before = at_rest();
    let described = Described::new(openapi(), 405);
    let end = number("TDVISOR_FUZZ_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let only = number("TDVISOR_FUZZ_SEED");
    let first = only.unwrap_or(if end.is_some() { u64::from(std::process::id()) << 32 } else { 0 });
    let (mut rounds, mut answers, mut refusals) = (0, 0u64, 0u64);
    while end.map_or(rounds < ROUNDS, |end| Instant::now() < end) && (only.is_none() || rounds == 0) {
        let seed = first + rounds;
        let _replay = Replay(seed);
        let mut chance = Chance::new(seed);
        for _ in 0..STEPS {
            if let Some(is_refusal) = step(&tds, &described, &mut chance) {
                answers += 1;
                refusals += u64::from(is_refusal);
            }
        }
        let all = tds.ask(&Method::GET, "/td/v1/tds", None).json().expect("JSON");
        for td in all["tds"].as_array().expect("TDs") {
            let name = td["name"].as_str().expect("a name");
            assert_eq!(tds.ask(&Method::DELETE, &format!("/td/v1/tds/{name}"), None).status, 204);
        }
        settle(before);
        let service = tds.ask(&Method::GET, "/td/v1/service", None).json().expect("JSON");
        assert_eq!(service["used"], json!({"memory": 0, "vcpus": 0, "key_ids": 0, "disk": 0, "trace": 0}));
        assert_eq!(std::fs::read_dir(tds.folder.join("state/tds")).expect("a folder").count(), 0);
        assert_eq!(PANICS.load(Ordering::SeqCst), 0, "a thread panicked");
        rounds += 1;
    }
    println!("td api: {rounds} rounds, {answers} answers, {refusals} refusals");
    assert!(answers > refusals && refusals > 0, "the rounds reach the API");
}
