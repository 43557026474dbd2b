//! Many TDs, each in a process of its own: what is answered, what is kept, and who dies with whom.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;

use http::Method;
use serde_json::{Value, json};
use tdvisor_monitor::QuoteUnavailable;
use tdvisor_service::fleet::{Fleet, FleetLimits};
use tdvisor_service::td_api::{ROUTES, Says, Verb, openapi};

use crate::described::Described;
use crate::tds::{LONG, Misdeed, Tds, hello, options, waiting};

/// Every error is an array of sentences.
fn sentences(body: &[u8]) -> Vec<String> {
    let sentences: Vec<String> = serde_json::from_slice(body).expect("an array of sentences");
    assert!(!sentences.is_empty());
    sentences
}

/// The description, by which another method is none that is allowed.
fn described() -> Described {
    Described::new(openapi(), 405)
}

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().expect("a name")).collect()
}

#[test]
fn a_td_runs_in_a_confined_process_and_says_how_it_ended_and_nothing_of_it_is_left() {
    let tds = Tds::new("hello");
    tds.run(&hello("one"));
    let events = tds.events("one");
    let names = names(&events);
    assert!(names.starts_with(&["confined", "booted"]), "{names:?}");
    assert_eq!(names.last(), Some(&"powered-off"), "{names:?}");
    assert_eq!(events[0]["seccomp"], true, "{}", events[0]);
    assert_eq!((&events[1]["backend"], &events[1]["inspectable"]), (&json!("emulated"), &json!(false)));
    let td = tds.get("one");
    assert_eq!(
        (&td["phase"], &td["inspectable"], &td["pid"]),
        (&json!("ended"), &json!(false), &Value::Null)
    );
    assert_eq!(td["confinement"], events[0]);
    let report = &td["report"];
    assert_eq!((&report["inspectable"], &report["losses"]), (&json!(false), &json!([])), "{report}");
    assert_eq!(report["ending"]["code"], 0, "{report}");
    let measured = tds.get("one/measurements");
    assert_eq!(measured["mrtd"], measured["predicted_mrtd"]);
    assert_eq!(tds.get("one/audit")["verdict"], "agreed");
    assert!(tds.get("one/seamcalls")["seamcalls"]["TDH.VP.ENTER"].as_u64() > Some(0));
    let console = tds.ask(&Method::GET, "/td/v1/tds/one/console", None).body;
    assert!(String::from_utf8_lossy(&console).contains("MRTD"));
    assert_eq!(tds.ask(&Method::DELETE, "/td/v1/tds/one", None).status, 204);
    assert_eq!(tds.ask(&Method::GET, "/td/v1/tds/one", None).status, 404);
    assert_eq!(fs::read_dir(tds.folder.join("state/tds")).expect("a folder").count(), 0);
    let service = tds.ask(&Method::GET, "/td/v1/service", None).json().expect("JSON");
    assert_eq!(service["used"], json!({"memory": 0, "vcpus": 0, "key_ids": 0, "disk": 0, "trace": 0}));
    let metrics = String::from_utf8(tds.ask(&Method::GET, "/metrics", None).body).expect("text");
    assert!(
        metrics.contains("tdvisor_seamcalls_total{leaf=\"TDH.VP.ENTER\""),
        "what it counted stays:\n{metrics}"
    );
    assert!(!metrics.contains("td=\"one\""), "{metrics}");
}

#[test]
fn a_td_is_looked_at_while_it_runs_and_its_tables_while_it_is_paused() {
    let tds = Tds::new("look");
    tds.run(&waiting("one"));
    assert_eq!(tds.put("one/boot"), 409);
    assert!(tds.get("one/exits")["vcpus"][0]["exits"].is_object());
    assert!(tds.get("one/measurements")["rtmrs"][3].is_string());
    assert_eq!(tds.get("one/quotes"), json!({"quotes": []}));
    for whole_only_at_rest in ["one/audit", "one/page-tables"] {
        let reply = tds.ask(&Method::GET, &format!("/td/v1/tds/{whole_only_at_rest}"), None);
        assert_eq!(reply.status, 409);
        assert_eq!(sentences(&reply.body), ["the TD has to be paused for this"]);
    }
    let metrics = String::from_utf8(tds.ask(&Method::GET, "/metrics", None).body).expect("text");
    assert!(metrics.contains("tdvisor_td_private_bytes{td=\"one\""), "{metrics}");
    assert!(metrics.contains("tdvisor_td_shared_bytes{td=\"one\""), "{metrics}");
    assert!(metrics.contains("tdvisor_service_tds{phase=\"running\"} 1"), "{metrics}");
    assert_eq!(tds.put("one/resume"), 409);
    assert_eq!(tds.put("one/pause"), 204);
    assert_eq!(tds.put("one/pause"), 409);
    assert_eq!(tds.get("one")["phase"], "paused");
    assert_eq!(tds.get("one/audit")["verdict"], "agreed");
    let all = tds.get("one/page-tables?limit=16384");
    assert_eq!(all["next"], Value::Null);
    let mut pieces = Vec::new();
    let mut from = 0;
    loop {
        let piece = tds.get(&format!("one/page-tables?from={from:#x}&limit=100"));
        pieces.extend(piece["entries"].as_array().expect("entries").iter().cloned());
        match piece["next"].as_u64() {
            Some(next) => from = next,
            None => break,
        }
    }
    assert_eq!(all["entries"].as_array(), Some(&pieces), "no entry is lost between two pieces");
    assert!(pieces.iter().any(|entry| entry["sept"].is_object() && entry["pamt"].is_object()));
    assert_eq!(tds.put("one/resume"), 204);
    assert_eq!(tds.put("one/stop"), 204);
    let td = tds.get("one");
    assert_eq!(
        (&td["phase"], &td["report"]["ending"]["event"]),
        (&json!("ended"), &json!("stopped")),
        "{td}"
    );
    assert_eq!(tds.put("one/boot"), 204, "it can be booted again");
    assert_eq!(tds.get("one")["report"], Value::Null);
}

#[test]
fn a_worker_that_opens_a_file_or_a_socket_or_starts_a_program_dies_alone_and_is_named() {
    for misdeed in [Misdeed::OpensFile, Misdeed::OpensSocket, Misdeed::Forks] {
        let tds = Tds::with(&format!("{misdeed:?}"), FleetLimits::default(), misdeed);
        tds.run(&waiting("beside"));
        let mut bad = hello("bad");
        bad["payload"]["cmdline"] = json!("quote");
        tds.run(&bad);
        let td = tds.await_end("bad");
        assert_eq!(td["phase"], "died", "{misdeed:?}: {td}");
        let reason = td["reason"].as_str().expect("a reason");
        assert!(reason.contains("SIGSYS"), "{reason}");
        assert_eq!(tds.events("bad").last().expect("an event")["event"], "worker-died");
        assert_eq!(tds.get("beside")["phase"], "running", "{misdeed:?}");
        assert_eq!(tds.put("beside/pause"), 204);
    }
    // The same guest under a worker that behaves.
    let tds = Tds::new("behaves");
    let mut good = hello("good");
    good["payload"]["cmdline"] = json!("quote");
    tds.run(&good);
    assert_eq!(tds.await_end("good")["phase"], "ended");
}

#[test]
fn quotes_that_the_service_fetches_are_the_guests_and_one_that_it_does_not_get_is_told() {
    /// REPORTTYPE.TYPE, the first byte of a TDREPORT ("TDX Module 1.5 ABI", REPORTTYPE).
    const TYPE_OF_TDX: u8 = 0x81;
    let tds = Tds::with_quotes("fetched-quotes", |report| {
        if report[0] == TYPE_OF_TDX { Ok(vec![9; 77]) } else { Err(QuoteUnavailable::BadReport) }
    });
    let mut asking = hello("one");
    asking["payload"]["cmdline"] = json!("quote");
    tds.run(&asking);
    assert_eq!(tds.await_end("one")["phase"], "ended");
    let quotes: Vec<Value> =
        tds.events("one").into_iter().filter(|event| event["event"] == "quote").collect();
    assert_eq!(quotes.len(), 1, "{quotes:?}");
    assert_eq!(quotes[0]["bytes"], 77, "{quotes:?}");
    drop(tds);

    let tds = Tds::with_quotes("no-quotes", |_| Err(QuoteUnavailable::Service));
    tds.run(&asking);
    tds.await_end("one");
    let events = tds.events("one");
    let quote = events.iter().find(|event| event["event"] == "quote").expect("it asks");
    assert_eq!(quote["error"], QuoteUnavailable::Service.to_string(), "{quote}");
}

#[test]
fn a_machine_whose_kvm_runs_no_tds_refuses_one_on_kvm_with_a_sentence_and_keeps_nothing() {
    let tds = Tds::new("no-kvm");
    let mut request = hello("one");
    request["backend"] = json!("kvm");
    let reply = tds.ask(&Method::POST, "/td/v1/tds", Some(&request));
    assert_eq!(reply.status, 400);
    let said = sentences(&reply.body);
    assert!(said[1].starts_with("backend: the KVM of this machine runs no TDs: "), "{said:?}");
    assert_eq!(tds.ask(&Method::GET, "/td/v1/tds", None).json().expect("JSON"), json!({"tds": []}));
    assert_eq!(fs::read_dir(tds.folder.join("state/tds")).expect("a folder").count(), 0);
}

#[test]
fn a_td_on_kvm_is_never_inspectable_and_one_that_cannot_be_built_is_as_it_was_created() {
    let tds = Tds::with_kvm("kvm");
    let mut request = hello("one");
    request["backend"] = json!("kvm");
    for key in ["trace", "inspector", "inspectable", "dump", "gdb"] {
        let mut more = request.clone();
        more[key] = json!(true);
        let reply = tds.ask(&Method::POST, "/td/v1/tds", Some(&more));
        assert_eq!(reply.status, 400, "{key}");
        let said = sentences(&reply.body);
        assert!(said[1].starts_with(&format!("{key}: only the emulated machine")), "{said:?}");
    }
    // Whether this machine has KVM or not: there is no such image.
    request["payload"]["firmware"] = json!(tds.folder.join("no-image"));
    tds.create(&request);
    let reply = tds.ask(&Method::PUT, "/td/v1/tds/one/boot", None);
    assert_eq!(reply.status, 400, "{:?}", sentences(&reply.body));
    let td = tds.get("one");
    assert_eq!(
        (&td["phase"], &td["backend"], &td["inspectable"]),
        (&json!("created"), &json!("kvm"), &json!(false))
    );
    assert_eq!(
        (&td["pid"], &td["report"], &td["reason"]),
        (&Value::Null, &Value::Null, &Value::Null),
        "{td}"
    );
    for only_emulated in ["seamcalls", "audit", "page-tables"] {
        let reply = tds.ask(&Method::GET, &format!("/td/v1/tds/one/{only_emulated}"), None);
        assert_eq!(reply.status, 409, "{only_emulated}");
        assert!(sentences(&reply.body)[0].starts_with("KVM runs the TD: "), "{:?}", sentences(&reply.body));
    }
    let service = tds.ask(&Method::GET, "/td/v1/service", None).json().expect("JSON");
    assert_eq!(service["used"]["key_ids"], 0, "{service}");
}

#[test]
fn a_td_that_wants_more_than_there_is_is_refused_and_what_is_given_back_can_be_had() {
    let limits = FleetLimits {
        td_memory: 128 << 20,
        td_vcpus: 2,
        memory: 100 << 20,
        key_ids: 1,
        disk: 2 << 20,
        td_disk: 1 << 20,
        ..FleetLimits::default()
    };
    let tds = Tds::with("limits", limits, Misdeed::None);
    let post = |request: &Value| tds.ask(&Method::POST, "/td/v1/tds", Some(request));
    for (key, value) in [("memory", json!(256 << 20)), ("vcpus", json!(3))] {
        let mut request = hello("more");
        request[key] = value;
        let reply = post(&request);
        assert_eq!(reply.status, 422, "{key}: {:?}", sentences(&reply.body));
    }
    tds.run(&waiting("one"));
    tds.create(&waiting("two"));
    let reply = post(&waiting("three"));
    assert_eq!(reply.status, 429);
    assert!(sentences(&reply.body)[0].contains("state directory"));
    assert_eq!(post(&waiting("one")).status, 409);
    let reply = tds.ask(&Method::PUT, "/td/v1/tds/two/boot", None);
    assert_eq!((reply.status.as_u16(), tds.get("two")["phase"].clone()), (429, json!("created")));
    assert!(sentences(&reply.body)[0].contains("bytes of memory"), "{:?}", sentences(&reply.body));
    assert_eq!(tds.put("one/stop"), 204);
    assert_eq!(tds.put("two/boot"), 204);
}

/// All lines of a TD's trace, in pieces.
fn lines_of_trace(tds: &Tds, name: &str) -> Vec<Value> {
    let mut bytes = Vec::new();
    loop {
        let path = format!("/td/v1/tds/{name}/trace?from={}&limit=65536", bytes.len());
        let reply = tds.ask(&Method::GET, &path, None);
        assert_eq!(reply.status, 200);
        if reply.body.is_empty() {
            break;
        }
        bytes.extend(reply.body);
    }
    let lines = std::str::from_utf8(&bytes).expect("text").lines();
    lines.map(|line| serde_json::from_str(line).expect("whole lines of JSON")).collect()
}

#[test]
fn a_td_that_is_traced_keeps_its_calls_up_to_a_limit_and_says_when_no_more_are_kept() {
    let mut request = hello("one");
    request["trace"] = json!(true);
    let tds = Tds::new("trace");
    tds.run(&request);
    let td = tds.await_end("one");
    let nothing = json!({"bytes_beyond_its_limit": 0, "bytes_not_written": 0, "failed": null});
    assert_eq!(td["report"]["trace"], nothing);
    let calls = lines_of_trace(&tds, "one");
    let counted: u64 =
        td["report"]["seamcalls"].as_object().expect("counts").values().filter_map(Value::as_u64).sum();
    assert_eq!(calls.len() as u64, counted, "every call is there");
    assert!(calls.iter().zip(0u64..).all(|(call, number)| call["n"] == number));

    let limits = FleetLimits { td_trace: 100_000, trace: 150_000, ..FleetLimits::default() };
    let tds = Tds::with("trace-full", limits, Misdeed::None);
    tds.run(&request);
    let td = tds.await_end("one");
    assert_eq!((&td["phase"], &td["report"]["ending"]["code"]), (&json!("ended"), &json!(0)), "it runs on");
    assert!(names(&tds.events("one")).contains(&"trace-full"));
    assert!(td["report"]["trace"]["bytes_beyond_its_limit"].as_u64() > Some(0), "{td}");
    let kept = lines_of_trace(&tds, "one");
    // Of this run: where a vCPU is interrupted, which is a call, differs from the one before.
    assert!(kept.len() < calls.len(), "{} of about {} calls", kept.len(), calls.len());
    assert!(
        kept.iter().zip(0u64..).all(|(call, number)| call["n"] == number),
        "what is kept is the beginning"
    );
    let file = fs::metadata(tds.folder.join("state/tds/one/trace")).expect("a file");
    assert!((90_000..=100_000).contains(&file.len()), "{} bytes", file.len());
    request["name"] = json!("two");
    let reply = tds.ask(&Method::POST, "/td/v1/tds", Some(&request));
    assert_eq!(reply.status, 429);
    assert!(sentences(&reply.body)[0].contains("traces"), "{:?}", sentences(&reply.body));
    assert_eq!(tds.ask(&Method::DELETE, "/td/v1/tds/one", None).status, 204);
    tds.create(&request);
}

/// Asks a debugger, and gives what its answer is made of.
fn ask_gdb(stream: &mut UnixStream, packet: &str) -> String {
    let sum = packet.bytes().fold(0u8, u8::wrapping_add);
    stream.write_all(format!("${packet}#{sum:02x}").as_bytes()).expect("the debugger reads");
    let mut byte = [0];
    let mut text = String::new();
    while !text.ends_with('#') {
        stream.read_exact(&mut byte).expect("the debugger answers");
        text.push(byte[0].into());
    }
    stream.read_exact(&mut [0; 2]).expect("a checksum");
    // Whoever said its last word does not wait for this.
    let _ = stream.write_all(b"+");
    text.rsplit('$').next().expect("a packet").trim_end_matches('#').to_owned()
}

#[test]
fn a_td_that_was_asked_for_inspectable_and_with_gdb_is_debugged_in_its_confined_worker() {
    let tds = Tds::new("gdb");
    let mut request = hello("one");
    request["gdb"] = json!(true);
    let reply = tds.ask(&Method::POST, "/td/v1/tds", Some(&request));
    assert_eq!(reply.status, 400, "a debugger sees what the TD holds");
    assert!(sentences(&reply.body)[1].contains("inspectable"), "{:?}", sentences(&reply.body));
    request["inspectable"] = json!(true);
    for boot in 0..2 {
        if boot == 0 {
            tds.create(&request);
        }
        assert_eq!(tds.put("one/boot"), 204);
        let td = tds.get("one");
        assert_eq!((&td["inspectable"], &td["confinement"]["seccomp"]), (&json!(true), &json!(true)));
        let socket = td["gdb"].as_str().expect("a socket");
        assert_eq!(fs::metadata(socket).expect("it is there").permissions().mode() & 0o777, 0o600);
        let mut gdb = UnixStream::connect(socket).expect("it listens");
        gdb.set_read_timeout(Some(LONG)).expect("a socket");
        assert!(ask_gdb(&mut gdb, "?").starts_with("T05"), "the TD stands before its first instruction");
        assert!(ask_gdb(&mut gdb, "vCont;s:1").starts_with("T05"));
        assert!(ask_gdb(&mut gdb, "mfffffff0,10").chars().any(|digit| digit != '0'), "what the TD holds");
        assert_eq!(ask_gdb(&mut gdb, "D"), "OK");
        drop(gdb);
        let td = tds.await_end("one");
        assert_eq!((&td["phase"], &td["report"]["inspectable"]), (&json!("ended"), &json!(true)), "{td}");
        assert_eq!(td["report"]["ending"]["code"], 0);
        assert_eq!(
            tds.events("one").iter().find(|event| event["event"] == "booted").expect("it ran")["inspectable"],
            true
        );
        assert_eq!(td["gdb"], Value::Null);
        assert!(!tds.folder.join("state/tds/one/gdb").exists(), "its socket is gone with it");
    }
    // One that waits for gdb ends when it is told to.
    assert_eq!(tds.put("one/boot"), 204);
    assert_eq!(tds.put("one/stop"), 204);
}

/// The data in a page of the inspector.
fn data_of(page: &[u8]) -> Value {
    let page = String::from_utf8_lossy(page);
    let (_, rest) =
        page.split_once(r#"<script type="application/json" id="data">"#).expect("the page has data");
    serde_json::from_str(rest.split_once("</script>").expect("an end").0).expect("JSON")
}

#[test]
fn the_inspector_shows_a_td_that_was_asked_for_with_it_while_it_is_paused_and_how_it_ended() {
    let tds = Tds::new("inspector");
    let page = |name: &str| tds.ask(&Method::GET, &format!("/td/v1/tds/{name}/inspector"), None);
    tds.run(&waiting("without"));
    assert_eq!(page("without").status, 409, "nobody recorded its calls");
    let mut request = waiting("waits");
    request["inspector"] = json!(true);
    tds.run(&request);
    assert_eq!(sentences(&page("waits").body), ["the TD has to be paused for this"]);
    assert_eq!(tds.put("waits/pause"), 204);
    for _ in 0..2 {
        let data = data_of(&page("waits").body);
        assert_eq!((&data["ending"]["died"], &data["ending"]["gpa"]), (&json!(false), &Value::Null));
        assert!(data["ending"]["text"].as_str().expect("words").contains("paused"));
        assert_eq!(data["entries"].as_array().map(Vec::len), {
            let all = tds.get("waits/page-tables?limit=16384");
            all["entries"].as_array().map(Vec::len)
        });
        assert!(
            data["calls"].as_array().expect("calls").iter().any(|call| call["leaf"] == "TDH.MEM.PAGE.ADD")
        );
    }
    let mut request = waiting("dies");
    request["payload"]["cmdline"] = json!("unaccepted");
    request["inspector"] = json!(true);
    tds.run(&request);
    let td = tds.await_end("dies");
    let reply = page("dies");
    assert_eq!(td["report"]["inspector"], json!({"bytes": reply.body.len()}), "{td}");
    let data = data_of(&reply.body);
    assert_eq!(data["ending"]["died"], true);
    assert!(data["ending"]["gpa"].is_u64(), "the page that it died of");
    let limits = FleetLimits { td_trace: 1000, ..FleetLimits::default() };
    let tds = Tds::with("inspector-small", limits, Misdeed::None);
    tds.run(&request);
    let td = tds.await_end("dies");
    assert!(
        td["report"]["inspector"]["failed"].is_string(),
        "there is no room for it, and it ends all the same: {td}"
    );
    assert_eq!(tds.ask(&Method::GET, "/td/v1/tds/dies/inspector", None).status, 409);
}

/// All of a TD's dump, in pieces.
fn dump_of(tds: &Tds, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let path = format!("/td/v1/tds/{name}/dump?from={}", bytes.len());
        let reply = tds.ask(&Method::GET, &path, None);
        assert_eq!(reply.status, 200, "{:?}", String::from_utf8_lossy(&reply.body));
        if reply.body.is_empty() {
            return bytes;
        }
        bytes.extend(reply.body);
    }
}

#[test]
fn what_a_td_holds_is_written_down_only_if_it_was_asked_for_inspectable_and_with_a_dump() {
    let tds = Tds::new("dump");
    let get = |name: &str| tds.ask(&Method::GET, &format!("/td/v1/tds/{name}/dump"), None).status;
    let mut request = waiting("one");
    request["dump"] = json!(true);
    let reply = tds.ask(&Method::POST, "/td/v1/tds", Some(&request));
    assert_eq!(reply.status, 400);
    assert!(sentences(&reply.body)[1].contains("inspectable"), "{:?}", sentences(&reply.body));
    request["dump"] = json!(false);
    request["inspectable"] = json!(true);
    request["name"] = json!("not-asked");
    tds.run(&request);
    assert_eq!(tds.put("not-asked/pause"), 204);
    assert_eq!((tds.put("not-asked/dump"), get("not-asked").as_u16()), (409, 409));
    assert_eq!(tds.ask(&Method::DELETE, "/td/v1/tds/not-asked", None).status, 204);
    (request["dump"], request["name"]) = (json!(true), json!("one"));
    tds.run(&request);
    assert_eq!((tds.put("one/dump"), get("one").as_u16()), (409, 409), "it runs, and was not dumped");
    assert_eq!(tds.put("one/pause"), 204);
    let reply = tds.ask(&Method::PUT, "/td/v1/tds/one/dump", None);
    let said = reply.json().expect("JSON");
    assert_eq!(described().problem(&Method::PUT, "/td/v1/tds/one/dump", (&reply).into()), None);
    let dump = dump_of(&tds, "one");
    assert_eq!(json!(dump.len()), said["bytes"]);
    assert!(
        said["memory"].as_u64() > Some(100 << 10) && said["memory"].as_u64() < said["bytes"].as_u64(),
        "{said}"
    );
    assert_eq!(&dump[..4], b"\x7fELF");
    let windows = windows_of_the_image();
    let held =
        windows.iter().filter(|window| dump.windows(window.len()).any(|other| other == &window[..])).count();
    assert!(held > windows.len() / 10, "it has what the TD holds: {held} of {} windows", windows.len());
    let file = fs::metadata(tds.folder.join("state/tds/one/dump")).expect("a file");
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    assert_eq!(tds.put("one/stop"), 204);
    let events = tds.events("one");
    assert_eq!(names(&events).iter().filter(|name| **name == "dumped").count(), 2, "and once at its end");
    assert_eq!(events.iter().find(|event| event["event"] == "booted").expect("it ran")["inspectable"], true);
    let td = tds.get("one");
    assert_eq!(td["report"]["dump"]["bytes"], json!(dump_of(&tds, "one").len()), "{td}");
    assert_eq!(tds.put("one/dump"), 409, "it has ended");
    assert_eq!(tds.put("one/boot"), 204);
    assert_eq!(get("one"), 409, "what it held before is gone");

    let limits = FleetLimits { disk: 100 << 20, ..FleetLimits::default() };
    let tds = Tds::with("dump-room", limits, Misdeed::None);
    let reply = tds.ask(&Method::POST, "/td/v1/tds", Some(&request));
    assert_eq!(reply.status, 422, "there is no room for all that it may hold");
}

#[test]
fn where_a_td_was_that_died_is_said_of_one_that_may_be_looked_into_and_of_no_other() {
    let tds = Tds::new("where");
    for (name, inspectable) in [("kept", false), ("inspectable", true)] {
        let mut request = waiting(name);
        request["payload"]["cmdline"] = json!("triple-fault");
        request["inspectable"] = json!(inspectable);
        tds.run(&request);
        let report = tds.await_end(name)["report"].clone();
        assert_eq!(report["ending"]["event"], "died", "{report}");
        let exits: Vec<&str> = report["last_exits"]["1"]
            .as_array()
            .expect("exits of the processor")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        assert!(
            !exits.is_empty() && exits.iter().all(|exit| exit.contains(" at 0x") == inspectable),
            "{exits:?}"
        );
        let shutdown = report["shutdowns"][0].as_str().expect("a triple fault");
        assert_eq!(shutdown.contains("0x"), inspectable, "{shutdown}");
        assert!(report["last_calls"].as_array().is_some_and(|calls| !calls.is_empty()));
    }
}

#[test]
fn a_worker_is_confined_as_the_kernel_says_and_not_only_as_it_says_itself() {
    let tds = Tds::new("confined");
    tds.run(&waiting("one"));
    let td = tds.get("one");
    let proc = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", td["pid"])).expect("it lives");
    let status = proc("status");
    let has = |key: &str, value: &str| {
        let line =
            status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("no {key}"));
        assert_eq!(line.trim(), value, "{key}");
    };
    // Mode 2 is a filter.
    has("Seccomp:", "2");
    has("NoNewPrivs:", "1");
    let limits = proc("limits");
    let limit = |name: &str| -> Option<u64> {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).expect("a limit");
        line.split_whitespace().next().and_then(|soft| soft.parse().ok())
    };
    assert_eq!((limit("Max core file size"), limit("Max open files")), (Some(0), Some(256)));
    assert!(limit("Max address space").is_some() && limit("Max file size").is_some(), "{limits}");
    let confinement = &td["confinement"];
    assert_eq!((&confinement["seccomp"], &confinement["no_new_privs"]), (&json!(true), &json!(true)));
    assert!(["full", "partial", "none"].map(Value::from).contains(&confinement["landlock"]), "{confinement}");
}

#[test]
fn a_console_takes_what_one_td_may_fill_and_the_td_runs_on() {
    let limits = FleetLimits { td_disk: 100, ..FleetLimits::default() };
    let tds = Tds::with("console-full", limits, Misdeed::None);
    tds.run(&hello("one"));
    let td = tds.await_end("one");
    assert_eq!((&td["phase"], &td["report"]["ending"]["code"]), (&json!("ended"), &json!(0)), "{td}");
    assert_eq!(names(&tds.events("one")).iter().filter(|name| **name == "console-full").count(), 1);
    assert_eq!(tds.ask(&Method::GET, "/td/v1/tds/one/console", None).body.len(), 100);
}

#[test]
fn a_sum_that_is_used_up_is_named_and_refuses_the_next_td() {
    let two = FleetLimits::default();
    for (limits, words) in [
        (FleetLimits { key_ids: 1, ..two }, "key ids"),
        (FleetLimits { vcpus: 1, ..two }, "vCPUs"),
        (FleetLimits { memory: 100 << 20, ..two }, "bytes of memory"),
    ] {
        let tds = Tds::with("sum", limits, Misdeed::None);
        tds.run(&waiting("one"));
        tds.create(&waiting("two"));
        let reply = tds.ask(&Method::PUT, "/td/v1/tds/two/boot", None);
        assert_eq!(reply.status, 429, "{words}");
        assert!(sentences(&reply.body)[0].contains(words), "{words}: {:?}", sentences(&reply.body));
        assert_eq!(tds.put("one/stop"), 204);
        assert_eq!(tds.put("two/boot"), 204, "{words}: what was given back can be had");
    }
}

#[test]
fn a_td_that_ends_before_its_worker_has_answered_was_booted() {
    let tds = Tds::new("quick");
    let worker = |says: &str| {
        let script = format!("read order; printf '%s\\n' '{says}' >&0");
        let state = tds.folder.join(format!("quick-{}", says.len()));
        let mut options = options(state, FleetLimits::default(), Misdeed::None);
        options.worker = ("/bin/sh".into(), vec!["-c".into(), script.into()]);
        let fleet = Fleet::open(options).expect("a state directory");
        fleet.create(serde_json::from_value(hello("one")).expect("a request")).expect("it is created");
        let booted = fleet.boot("one", std::time::Instant::now() + LONG).is_ok();
        (booted, fleet.describe("one").expect("it is there")["phase"].clone())
    };
    let ended = r#"{"say":"ended","report":{},"metrics":""}"#;
    assert_eq!(worker(ended), (true, json!("ended")));
    assert_eq!(worker(r#"{"say":"event","event":{"event":"confined"}}"#), (false, json!("created")));
}

#[test]
fn a_td_that_cannot_be_started_says_why_and_can_be_started_later() {
    let tds = Tds::new("missing");
    let disk = tds.folder.join("disk.img");
    let mut request = hello("one");
    request["disks"] = json!([{"path": disk}]);
    tds.create(&request);
    let reply = tds.ask(&Method::PUT, "/td/v1/tds/one/boot", None);
    assert_eq!(reply.status, 400, "{:?}", sentences(&reply.body));
    assert!(sentences(&reply.body)[0].contains("disks[0].path"), "{:?}", sentences(&reply.body));
    assert_eq!(tds.get("one")["phase"], "created");
    assert_eq!(tds.ask(&Method::DELETE, "/td/v1/tds/one", None).status, 204);
}

#[test]
fn a_service_that_starts_again_finds_what_there_was_and_names_what_died_with_it() {
    let tds = Tds::new("again");
    tds.run(&waiting("ran"));
    tds.create(&waiting("created"));
    tds.run(&hello("ended"));
    let ended = tds.await_end("ended");
    // What a service that is killed now leaves behind.
    let left = tds.folder.join("left");
    for name in ["ran", "created", "ended"] {
        let (from, to) = (tds.folder.join("state/tds").join(name), left.join("tds").join(name));
        fs::create_dir_all(&to).expect("a folder");
        for file in ["td.json", "console"] {
            fs::copy(from.join(file), to.join(file)).expect("a file that is there");
        }
    }
    fs::create_dir_all(left.join("tds/.new-half")).expect("a folder");
    let again =
        Fleet::open(options(left.clone(), FleetLimits::default(), Misdeed::None)).expect("it is taken");
    let describe = |name: &str| again.describe(name).expect("it is there");
    assert_eq!(describe("created")["phase"], "created");
    assert_eq!(describe("ended")["report"], ended["report"]);
    let ran = describe("ran");
    assert_eq!((&ran["phase"], &ran["reason"]), (&json!("died"), &json!("the service ended while it ran")));
    assert!(again.describe("half").is_err() && !left.join("tds/.new-half").exists());
}

#[test]
fn what_is_no_request_is_refused_in_the_one_form_with_a_status_that_is_described() {
    let tds = Tds::new("form");
    tds.create(&waiting("one"));
    let described = described();
    let body = json!({});
    for (method, path, body, status) in [
        (Method::GET, "/", None, 404),
        (Method::GET, "/td/v1", None, 404),
        (Method::GET, "/td/v1/tds/", None, 404),
        (Method::GET, "/td/v1/tds/nobody", None, 404),
        (Method::GET, "/td/v1/tds/../one", None, 404),
        (Method::PATCH, "/td/v1/tds", None, 405),
        (Method::POST, "/td/v1/tds", None, 400),
        (Method::POST, "/td/v1/tds", Some(&body), 400),
        (Method::PUT, "/td/v1/tds/one/boot", Some(&body), 400),
        (Method::PUT, "/td/v1/tds/nobody/boot", None, 404),
        (Method::PUT, "/td/v1/tds/one/stop", None, 409),
        (Method::PUT, "/td/v1/tds/one/pause", None, 409),
        (Method::GET, "/td/v1/tds/one/exits", None, 409),
        (Method::GET, "/td/v1/tds/one/trace", None, 409),
        (Method::GET, "/td/v1/tds/nobody/trace", None, 404),
        (Method::DELETE, "/td/v1/tds/one/trace", None, 405),
        (Method::GET, "/td/v1/tds/one/page-tables?from=x", None, 400),
        (Method::GET, "/td/v1/tds/one/page-tables?to=1", None, 400),
        (Method::GET, "/td/v1/tds/one?x=1", None, 400),
    ] {
        let reply = tds.ask(&method, path, body);
        assert_eq!(reply.status, status, "{method} {path}: {:?}", sentences(&reply.body));
        sentences(&reply.body);
        assert_eq!(described.problem(&method, path, (&reply).into()), None);
    }
}

#[test]
fn every_resource_of_a_td_in_every_phase_has_the_form_that_is_described() {
    let tds = Tds::new("schemas");
    let described = described();
    let mut request = waiting("one");
    request["disks"] = json!([]);
    tds.create(&request);
    let mut good = BTreeSet::new();
    for (order, phase) in
        [(None, "created"), (Some("boot"), "running"), (Some("pause"), "paused"), (Some("stop"), "ended")]
    {
        if let Some(order) = order {
            assert_eq!(tds.put(&format!("one/{order}")), 204);
        }
        assert_eq!(tds.get("one")["phase"], phase);
        for route in ROUTES.iter().filter(|route| route.verb == Verb::Get && route.says != Says::Events) {
            let path = route.path.replace("{td}", "one");
            let reply = tds.ask(&Method::GET, &path, None);
            let status = reply.status.as_u16();
            assert_eq!(described.problem(&Method::GET, &path, (&reply).into()), None, "{phase}");
            if status == 200 {
                good.insert(route.path);
            }
        }
    }
    let never: Vec<_> = ROUTES
        .iter()
        .filter(|route| route.verb == Verb::Get && route.says != Says::Events && !good.contains(route.path))
        .map(|route| route.path)
        .collect();
    assert_eq!(never, OF_TDS_THAT_ASK, "each of the others was had in some phase");
}

/// Resources of TDs that were asked for with them.
const OF_TDS_THAT_ASK: [&str; 3] =
    ["/td/v1/tds/{td}/inspector", "/td/v1/tds/{td}/dump", "/td/v1/tds/{td}/trace"];

/// Bytes of the image that a window of is looked for, and how far windows are apart.
const WINDOW: usize = 24;
const STRIDE: usize = 512;

/// Windows of what the TD holds: pieces of its image, as they are, in hexadecimal and in base64 at each alignment.
fn windows_of_the_image() -> Vec<Vec<u8>> {
    use base64::Engine as _;
    let image =
        tdvisor_guest_images::GUESTS.iter().find(|guest| guest.name == "fault-td").expect("built in").image;
    let mut windows = Vec::new();
    for window in image.windows(WINDOW).step_by(STRIDE) {
        let distinct: BTreeSet<u8> = window.iter().copied().collect();
        // Zeros and the like are everywhere.
        if distinct.len() < WINDOW / 2 {
            continue;
        }
        windows.push(window.to_vec());
        windows.push(window.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect());
        for skip in 0..3 {
            let encoded = base64::engine::general_purpose::STANDARD_NO_PAD.encode(&window[skip..skip + 21]);
            windows.push(encoded.into_bytes());
        }
    }
    assert!(windows.len() > 50, "{} windows", windows.len());
    windows
}

#[test]
fn no_answer_has_what_a_td_holds() {
    let tds = Tds::new("secrets");
    let mut request = waiting("one");
    (request["trace"], request["inspector"]) = (json!(true), json!(true));
    tds.run(&request);
    assert_eq!(tds.put("one/pause"), 204);
    let windows = windows_of_the_image();
    let mut looked_at = 0;
    for phase in ["paused", "ended"] {
        assert_eq!(tds.get("one")["phase"], phase);
        for route in ROUTES.iter().filter(|route| route.verb == Verb::Get && route.says != Says::Events) {
            let mut path = route.path.replace("{td}", "one");
            if !route.query.is_empty() {
                path.push_str("?limit=16384");
            }
            let body = tds.ask(&Method::GET, &path, None).body;
            looked_at += body.len();
            for window in &windows {
                let found = body.windows(window.len()).any(|other| other == window);
                assert!(!found, "{path} of a TD that is {phase} has {}", String::from_utf8_lossy(window));
            }
        }
        if phase == "paused" {
            assert_eq!(tds.put("one/stop"), 204);
        }
    }
    let events = json!(tds.events("one")).to_string();
    assert!(
        windows.iter().all(|window| !events.as_bytes().windows(window.len()).any(|other| other == window))
    );
    assert!(looked_at > 10_000, "{looked_at} bytes of answers");
}
