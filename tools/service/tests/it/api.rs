//! The endpoints: what each answers in each state, and what a body may be.

use std::io::Write as _;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixStream};

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tdvisor_service::api::{BodyKind, ENDPOINTS, openapi};
use tdvisor_service::config::TdPolicy;
use tdvisor_service::http::Reply;
use tdvisor_service::vm::{ExitReason, Facts, WhenOff};

use crate::described::Described;
use crate::eventually;
use crate::place::{LONG, Place, hello, waiting_guest};

/// The states in which an endpoint is asked.
const STATES: [&str; 4] = ["none", "Created", "Running", "Paused"];

/// What each endpoint answers in each of them.
const ANSWERS: &[(&str, [u16; 4])] = &[
    ("vmm.ping", [200, 200, 200, 200]),
    ("vm.create", [204, 500, 500, 500]),
    ("vm.boot", [404, 204, 500, 500]),
    ("vm.info", [404, 200, 200, 200]),
    ("vm.counters", [500, 500, 200, 200]),
    ("vm.pause", [500, 500, 204, 500]),
    ("vm.resume", [500, 500, 500, 204]),
    ("vm.shutdown", [500, 500, 204, 204]),
    ("vm.reboot", [404, 404, 204, 204]),
    ("vm.delete", [204, 204, 204, 204]),
    ("vm.power-button", [500, 500, 500, 500]),
    ("vm.nmi", [500, 500, 500, 500]),
    ("vm.add-disk", [404, 204, 500, 500]),
    ("vm.add-net", [404, 204, 500, 500]),
    ("vm.add-fs", [404, 204, 500, 500]),
    ("vm.add-vsock", [404, 204, 500, 500]),
    ("vm.remove-device", [404, 404, 404, 404]),
    ("vm.resize", [404, 204, 500, 500]),
    ("vmm.shutdown", [204, 204, 204, 204]),
];

/// A body that the endpoint takes.
fn body_of(endpoint: &str) -> Option<Value> {
    Some(match endpoint {
        "vm.create" => waiting_guest(),
        "vm.add-disk" => json!({"path": "disk.img"}),
        "vm.add-net" => json!({"user": true}),
        "vm.add-fs" => json!({"tag": "t", "dir": "folder"}),
        "vm.add-vsock" => json!({"socket": "v.sock"}),
        "vm.remove-device" => json!({"id": "nobody"}),
        "vm.resize" => json!({"desired_ram": 128 << 20}),
        _ => return None,
    })
}

fn bring(place: &Place, state: &str) {
    if place.state() == state {
        return;
    }
    assert_eq!(place.put("vm.delete", None), 204);
    if state != "none" {
        assert_eq!(place.put("vm.create", Some(&waiting_guest())), 204);
    }
    if matches!(state, "Running" | "Paused") {
        assert_eq!(place.put("vm.boot", None), 204);
    }
    if state == "Paused" {
        assert_eq!(place.put("vm.pause", None), 204);
    }
    assert_eq!(place.state(), state);
}

/// The description, by which another method is a bad request.
fn described() -> Described {
    Described::new(openapi(), 400)
}

/// Fails unless an answer follows from the description.
#[track_caller]
fn follows(described: &Described, method: &Method, endpoint: &str, reply: &Reply) {
    let target = format!("/api/v1/{endpoint}");
    assert_eq!(described.problem(method, &target, reply.into()), None);
}

/// Every error is an array of sentences.
fn sentences(body: &[u8]) -> Vec<String> {
    let sentences: Vec<String> = serde_json::from_slice(body).expect("an array of sentences");
    assert!(!sentences.is_empty());
    sentences
}

#[test]
fn every_endpoint_answers_in_every_state_as_cloud_hypervisor_does_and_as_its_description_says() {
    let names: Vec<&str> = ANSWERS.iter().map(|(name, _)| *name).collect();
    assert!(ENDPOINTS.iter().all(|endpoint| names.contains(&endpoint.name)), "an endpoint without a row");
    let described = described();
    let mut place = Place::new("table");
    for (name, answers) in ANSWERS {
        let endpoint =
            ENDPOINTS.iter().find(|endpoint| endpoint.name == *name).expect("a row without an endpoint");
        let method = endpoint.method();
        for (state, expected) in STATES.iter().zip(answers) {
            // It ends the process: that is the last row.
            if *name == "vmm.shutdown" && *state != "Paused" {
                continue;
            }
            bring(&place, state);
            let reply = place.ask(&method, name, body_of(name).as_ref());
            assert_eq!(
                reply.status,
                *expected,
                "{name} in {state}: {}",
                String::from_utf8_lossy(&reply.body)
            );
            follows(&described, &method, name, &reply);
            match reply.status {
                StatusCode::NO_CONTENT => assert!(reply.body.is_empty()),
                StatusCode::OK => assert!(reply.json().expect("JSON").is_object()),
                _ => assert!(!sentences(&reply.body).is_empty()),
            }
        }
    }
    assert!(matches!(place.finish(), ExitReason::Asked));
}

#[test]
fn a_method_or_a_path_that_an_endpoint_does_not_have_is_refused() {
    let place = Place::new("methods");
    let described = described();
    for endpoint in ENDPOINTS {
        for method in [Method::GET, Method::PUT, Method::POST, Method::DELETE, Method::PATCH] {
            if method != endpoint.method() {
                let reply = place.ask(&method, endpoint.name, None);
                assert_eq!(reply.status, 400, "{method} {}", endpoint.name);
                follows(&described, &method, endpoint.name, &reply);
                sentences(&reply.body);
            }
        }
    }
    for path in
        ["/", "/api/v1", "/api/v1/", "/api/v1/vm", "/api/v2/vmm.ping", "/api/v1/vmm.ping/", "/vmm.ping"]
    {
        let reply = place.client().ask(&Method::GET, path, None, LONG).expect("an answer");
        assert_eq!(reply.status, 404, "{path}");
        assert_eq!(described.problem(&Method::GET, path, (&reply).into()), None);
        assert!(sentences(&reply.body)[0].contains(path));
    }
}

#[test]
fn a_body_that_an_endpoint_does_not_take_is_refused_and_says_where() {
    let place = Place::new("bodies");
    let described = described();
    let put = |name: &str, body: &[u8]| {
        place.client().ask(&Method::PUT, &format!("/api/v1/{name}"), Some(body), LONG).expect("an answer")
    };
    let deep = [b"{\"x\": ".to_vec(), b"[".repeat(100_000), b"]".repeat(100_000), b"}".to_vec()].concat();
    let bodies: [(&[u8], &str); 12] = [
        (b"{", "EOF"),
        (b"null", "null"),
        (b"[]", "struct"),
        (b"\"x\"", "string"),
        (b"{} {}", "trailing"),
        (b"\xff\xfe", "expected"),
        (b"{\"memory\": {\"size\": -1}}", "memory.size"),
        (b"{\"memory\": {\"size\": 1e3}}", "memory.size"),
        (b"{\"memory\": {}}", "memory"),
        (b"{\"disks\": [{\"path\": \"a\"}, {\"readonly\": 1}]}", "disks[1].readonly"),
        (b"{\"console\": {\"mode\": \"off\"}}", "console.mode"),
        (&deep, "recursion"),
    ];
    for (body, words) in bodies {
        let reply = put("vm.create", body);
        let said = sentences(&reply.body).join(": ");
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        assert_eq!(reply.status, 400, "{shown}: {said}");
        follows(&described, &Method::PUT, "vm.create", &reply);
        assert!(said.contains(words), "{shown}: {said}");
    }
    for endpoint in ENDPOINTS.iter().filter(|endpoint| endpoint.method() == Method::PUT) {
        let reply = match endpoint.body {
            BodyKind::None => put(endpoint.name, b"{}"),
            BodyKind::Json(_) => place.ask(&Method::PUT, endpoint.name, None),
        };
        assert_eq!(reply.status, 400, "{}", endpoint.name);
        follows(&described, &Method::PUT, endpoint.name, &reply);
        sentences(&reply.body);
    }
    assert_eq!(place.state(), "none", "nothing of it was kept");
}

#[test]
fn a_configuration_that_cannot_be_had_names_its_key_and_two_of_one_name_are_a_conflict() {
    let place = Place::new("keys");
    let mut config = waiting_guest();
    config["iommu"] = json!(true);
    let reply = place.ask(&Method::PUT, "vm.create", Some(&config));
    assert_eq!(reply.status, 400);
    assert_eq!(sentences(&reply.body).last().map(String::as_str), Some("iommu: not supported"));
    assert_eq!(place.put("vm.create", Some(&waiting_guest())), 204);
    let disk = json!({"path": "a.img", "id": "root"});
    assert_eq!(place.put("vm.add-disk", Some(&disk)), 204);
    assert_eq!(place.put("vm.add-disk", Some(&json!({"path": "b.img", "id": "root"}))), 409);
    assert_eq!(place.put("vm.add-disk", Some(&json!({"path": "a.img"}))), 409);
    assert_eq!(place.put("vm.remove-device", Some(&json!({"id": "root"}))), 204);
    assert_eq!(place.put("vm.remove-device", Some(&json!({"id": "root"}))), 404);
    assert_eq!(place.put("vm.add-disk", Some(&disk)), 204);
    // Nobody looks for the file before the VM is booted.
    let reply = place.ask(&Method::PUT, "vm.boot", None);
    assert_eq!(reply.status, 500);
    assert!(sentences(&reply.body).join(": ").contains("disks[0].path: "), "{:?}", sentences(&reply.body));
    assert_eq!(place.state(), "Created");
}

#[test]
fn what_a_vm_is_comes_back_with_its_defaults() {
    let place = Place::new("echo");
    let mut config = waiting_guest();
    config["a_key_of_tomorrow"] = json!({"x": 1});
    config["net"] = json!([{"user": true, "fds": [7]}]);
    assert_eq!(place.put("vm.create", Some(&config)), 204);
    let info = place.get("vm.info").json().unwrap();
    assert_eq!(info["state"], "Created");
    assert_eq!(info["memory_actual_size"], 64 << 20);
    let config = &info["config"];
    assert_eq!(config["cpus"], json!({"boot_vcpus": 1, "max_vcpus": 1, "max_phys_bits": 46}));
    assert_eq!(config["serial"], json!({"mode": "Null"}));
    assert_eq!(config["net"][0]["id"], "_net0");
    assert_eq!((&config["net"][0]["fds"], &config["a_key_of_tomorrow"]), (&Value::Null, &Value::Null));
}

#[test]
fn a_guest_runs_says_what_it_says_and_the_process_ends_with_it() {
    let mut place = Place::new("hello");
    let console = place.folder.join("console");
    let mut config = hello();
    config["serial"] = json!({"mode": "File", "file": console});
    assert_eq!(place.put("vm.create", Some(&config)), 204);
    assert_eq!(place.put("vm.boot", None), 204);
    let ExitReason::GuestEnded(end) = place.finish() else { panic!("the guest ends first") };
    let Facts::Emulated(report) = end.facts else { panic!("of the emulated machine") };
    assert_eq!(report.ending, td_host::td::Ending::PoweredOff { code: 0 });
    assert_eq!(report.mrtd, Some(end.predicted.0));
    assert!(report.losses().is_empty(), "{:?}", report.losses());
    let said = std::fs::read_to_string(&console).expect("the console's file");
    assert!(said.contains("MRTD"), "{said}");
}

#[test]
fn a_process_that_is_told_to_stay_boots_the_same_vm_again() {
    let place = Place::with("stay", WhenOff::Stay, TdPolicy::Always);
    let mut config = hello();
    config["platform"] = json!({"tdx": false});
    assert_eq!(place.put("vm.create", Some(&config)), 204);
    for _ in 0..2 {
        assert_eq!(place.put("vm.boot", None), 204);
        while place.state() == "Running" {}
        assert_eq!(place.state(), "Shutdown");
    }
    assert_eq!(place.put("vm.shutdown", None), 500);
    assert!(!place.exit.is_set());
}

#[test]
fn a_vm_is_rebooted_with_its_card_and_counts_anew() {
    let place = Place::new("reboot");
    assert_eq!(place.put("vm.create", Some(&waiting_guest())), 204);
    let (near, far) = UnixDatagram::pair().unwrap();
    let body = json!({"mac": "02:00:00:00:00:01", "fds": [-1]}).to_string();
    let path = "/api/v1/vm.add-net";
    let reply = place.client().ask_with_fds(&Method::PUT, path, Some(body.as_bytes()), &[near.as_fd()], LONG);
    assert_eq!(reply.unwrap().status, 204);
    drop(near);
    assert_eq!(place.put("vm.boot", None), 204);
    let calls =
        |place: &Place| place.get("vm.counters").json().unwrap()["_seamcalls"]["TDH.MNG.INIT"].clone();
    assert_eq!(calls(&place), 1);
    assert_eq!(place.put("vm.reboot", None), 204);
    assert_eq!(calls(&place), 1, "another machine");
    let counters = place.get("vm.counters").json().unwrap();
    assert_eq!(counters["_net0"], json!({"rx_bytes": 0, "rx_frames": 0, "tx_bytes": 0, "tx_frames": 0}));
    assert_eq!(place.put("vm.delete", None), 204);
    eventually("nobody holds the other end any more", || far.send(b"a frame").is_err());
}

#[test]
fn descriptors_that_no_card_can_have_are_refused() {
    let place = Place::new("descriptors");
    assert_eq!(place.put("vm.create", Some(&waiting_guest())), 204);
    let (stream, _other) = UnixStream::pair().unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    for fds in [vec![stream.as_fd()], vec![file.as_fd()], vec![stream.as_fd(), file.as_fd()], vec![]] {
        let reply = place.client().ask_with_fds(&Method::PUT, "/api/v1/vm.add-net", Some(b"{}"), &fds, LONG);
        let reply = reply.unwrap();
        assert_eq!(reply.status, 400);
        assert!(sentences(&reply.body).join(": ").contains("net.fds: "));
    }
    assert_eq!(place.get("vm.info").json().unwrap()["config"]["net"], Value::Null);
}

#[test]
fn a_client_that_goes_in_the_middle_of_a_request_leaves_nothing() {
    let place = Place::new("half");
    let config = waiting_guest().to_string();
    let whole = format!("PUT /api/v1/vm.create HTTP/1.1\r\nContent-Length: {}\r\n\r\n{config}", config.len());
    for end in (0..whole.len()).step_by(7) {
        let mut stream = UnixStream::connect(place.socket()).unwrap();
        stream.write_all(&whole.as_bytes()[..end]).unwrap();
    }
    assert_eq!(place.state(), "none");
    assert_eq!(place.put("vm.create", Some(&waiting_guest())), 204);
}
