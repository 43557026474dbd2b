//! TDs that are saved, and go on in another process.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};
use tdvisor_service::fleet::{Fleet, FleetLimits};

use crate::tds::{Misdeed, Tds, hello, options};

/// TDs that may end before they are saved, until one is a failure.
const ATTEMPTS: usize = 50;

/// As asked for, and it may be saved.
fn saveable(mut request: Value) -> Value {
    request["inspectable"] = json!(true);
    request["deterministic"] = json!(7);
    request["snapshot"] = json!(true);
    request
}

/// A guest that runs until somebody ends it.
fn spinning(name: &str) -> Value {
    json!({"name": name, "memory": 64 << 20, "payload": {"firmware": "fault-td", "cmdline": "spin"}})
}

fn console(tds: &Tds, name: &str) -> Vec<u8> {
    tds.ask(&Method::GET, &format!("/td/v1/tds/{name}/console"), None).body
}

/// The status and what is said.
fn said(tds: &Tds, path: &str) -> (u16, String) {
    let reply = tds.ask(&Method::PUT, &format!("/td/v1/tds/{path}"), None);
    (reply.status.as_u16(), String::from_utf8_lossy(&reply.body).into_owned())
}

/// SEAMCALLs of a TD by leaf, but for those by which every worker asks once for the TD's MRTD.
fn calls(td: &Value) -> Value {
    let mut calls = td["report"]["seamcalls"].clone();
    calls.as_object_mut().expect("leaves").remove("TDH.MNG.RD").expect("MRTD was read");
    calls
}

/// Saves a TD; gives the bytes of its snapshot.
#[track_caller]
fn save(tds: &Tds, name: &str) -> u64 {
    let (status, said) = said(tds, &format!("{name}/save"));
    assert_eq!(status, 200, "{said}");
    let said: Value = serde_json::from_str(&said).expect("JSON");
    said["bytes"].as_u64().expect("a number")
}

#[test]
fn a_td_that_was_saved_and_goes_on_ends_as_the_one_that_never_was() {
    let tds = Tds::new("saved");
    tds.run(&saveable(hello("whole")));
    let whole = tds.await_end("whole");
    assert_eq!(whole["report"]["ending"]["event"], "powered-off", "{whole}");
    assert_eq!((&whole["saved"], &whole["report"]["snapshot"]), (&Value::Null, &Value::Null));

    // A guest may be quicker than a request.
    let is_saved = |name: &String| {
        tds.run(&saveable(hello(name)));
        let (status, said) = said(&tds, &format!("{name}/save"));
        assert!(
            status == 200 || said.contains("is not saved: it has to run") || said.contains("does not run"),
            "{said}"
        );
        status == 200
    };
    let name = (0..ATTEMPTS).map(|attempt| format!("parts-{attempt}")).find(is_saved).expect("one is saved");
    let parts = tds.get(&name);
    assert_eq!((&parts["phase"], &parts["pid"]), (&json!("ended"), &Value::Null));
    assert_eq!(parts["report"]["ending"]["event"], "saved", "{parts}");
    assert_eq!(parts["report"]["audit"]["verdict"], "agreed", "{parts}");
    let file = tds.folder.join("state/tds").join(&name).join("snapshot");
    let data = fs::metadata(&file).expect("a snapshot");
    assert_eq!((&parts["saved"], data.permissions().mode() & 0o777), (&json!(data.len()), 0o600));
    let spoken = console(&tds, &name);
    for time in ["once", "and again from the same snapshot"] {
        assert_eq!(tds.put(&format!("{name}/restore")), 204, "{time}");
        let parts = tds.await_end(&name);
        let rest = console(&tds, &name);
        assert_eq!([&spoken[..], &rest].concat(), console(&tds, "whole"), "{time}");
        for fact in ["ending", "measurements", "audit", "losses"] {
            assert_eq!(parts["report"][fact], whole["report"][fact], "{time}: {fact}");
        }
        assert_eq!(calls(&parts), calls(&whole), "{time}");
    }
    let events = tds.events(&name);
    let names: Vec<&str> = events.iter().filter_map(|event| event["event"].as_str()).collect();
    assert!(names.starts_with(&["confined", "booted"]) && names.contains(&"saved"), "{names:?}");
    let restored = names.windows(3).filter(|names| *names == ["confined", "restored", "booted"]);
    assert_eq!(restored.count(), 2, "{names:?}");
    assert_eq!(tds.ask(&Method::DELETE, &format!("/td/v1/tds/{name}"), None).status, 204);
    assert!(!file.exists());
}

#[test]
fn a_td_of_two_vcpus_in_virtual_time_stands_still_goes_on_and_is_saved() {
    let tds = Tds::new("turns");
    let mut request = saveable(spinning("two"));
    request["vcpus"] = json!(2);
    tds.run(&request);
    assert_eq!(tds.put("two/pause"), 204);
    assert_eq!(tds.get("two/audit")["verdict"], "agreed");
    let (status, words) = said(&tds, "two/save");
    assert_eq!(status, 409, "{words}");
    assert!(words.contains("is not saved: it has to run"), "{words}");
    assert_eq!(tds.put("two/resume"), 204);
    save(&tds, "two");
    assert_eq!(tds.put("two/restore"), 204);
    assert_eq!(tds.put("two/restore"), 409, "it runs");
    assert_eq!(tds.put("two/stop"), 204);
    assert_eq!(tds.put("two/restore"), 204, "a snapshot can be gone on from as often as one likes");
}

#[test]
fn a_snapshot_outlives_the_service_and_one_that_is_damaged_is_refused() {
    let tds = Tds::new("kept-snapshot");
    tds.run(&saveable(spinning("one")));
    assert_eq!(tds.put("one/restore"), 409, "it runs");
    let bytes = save(&tds, "one");
    let state = tds.folder.join("state");
    // Another service, with the state of the first.
    let later = tds.folder.join("later");
    fs::create_dir_all(later.join("tds/one")).expect("a folder");
    for file in ["td.json", "console", "snapshot"] {
        fs::copy(state.join("tds/one").join(file), later.join("tds/one").join(file)).expect("a file of a TD");
    }
    let fleet = Fleet::open(options(later.clone(), FleetLimits::default(), Misdeed::None)).expect("a state");
    assert_eq!(fleet.describe("one").expect("a TD")["saved"], bytes);
    drop(Arc::new(fleet));

    let file = state.join("tds/one/snapshot");
    let mut damaged = fs::read(&file).expect("a snapshot");
    let (mut before, spoken) = (tds.get("one"), console(&tds, "one"));
    // That is of the last worker.
    before["confinement"] = Value::Null;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&file, damaged).expect("written");
    let (status, words) = said(&tds, "one/restore");
    assert_eq!(status, 500, "{words}");
    assert!(words.contains("the snapshot: "), "{words}");
    assert_eq!(tds.get("one"), before, "all is as it was");
    assert_eq!(console(&tds, "one"), spoken);
    assert_eq!(tds.put("one/boot"), 204, "it can be booted all the same");
}

#[test]
fn only_a_td_that_was_asked_for_with_snapshots_is_saved_and_only_a_saved_one_restored() {
    let tds = Tds::new("not-saved");
    tds.create(&saveable(spinning("never")));
    for (path, words) in
        [("never/save", "a TD that is created does not run"), ("never/restore", "the TD has not been saved")]
    {
        let (status, said) = said(&tds, path);
        assert_eq!(status, 409, "{path}: {said}");
        assert!(said.contains(words), "{path}: {said}");
    }
    let mut plain = saveable(spinning("plain"));
    plain["snapshot"] = json!(false);
    tds.run(&plain);
    for path in ["plain/save", "plain/restore"] {
        let (status, said) = said(&tds, path);
        assert_eq!(status, 409, "{path}: {said}");
    }
    assert_eq!(tds.get("plain")["phase"], "running");
    for (key, value) in
        [("inspectable", json!(false)), ("deterministic", Value::Null), ("network", json!(true))]
    {
        let mut request = saveable(spinning("no"));
        request[key] = value;
        let reply = tds.ask(&Method::POST, "/td/v1/tds", Some(&request));
        assert_eq!(reply.status, 400, "{key}");
    }
}
