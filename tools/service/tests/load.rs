//! Many TDs at once, and one after the other: nothing of them is left.
//!
//! A program of its own: it counts the descriptors, threads and children of its process, and other tests have some.

mod rest;
#[expect(dead_code, reason = "nothing here asks for more than TDs that run to their end")]
mod tds;

use std::time::{Duration, Instant};

use http::Method;
use rest::{at_rest, settle};
use tds::{Tds, hello};

#[test]
fn worker_process() {
    tds::work();
}

/// Creates, boots, awaits and deletes a TD; how long creating and booting took.
fn live(tds: &Tds, name: &str) -> Duration {
    let begin = Instant::now();
    tds.run(&hello(name));
    let took = begin.elapsed();
    let td = tds.await_end(name);
    let report = &td["report"];
    assert_eq!(
        (&report["ending"]["code"], report["losses"].as_array().map(Vec::len)),
        (&0.into(), Some(0)),
        "{td}"
    );
    assert_eq!(report["audit"]["verdict"], "agreed", "{td}");
    assert_eq!(tds.ask(&Method::DELETE, &format!("/td/v1/tds/{name}"), None).status, 204);
    took
}

fn nothing_is_left(clients: usize, at_once: usize, in_a_row: usize) {
    let tds = Tds::new("load");
    live(&tds, "first");
    let before = at_rest();
    let mut took: Vec<Duration> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..clients)
            .map(|client| {
                let tds = &tds;
                scope.spawn(move || -> Vec<Duration> {
                    let mine: Vec<String> = (client..at_once)
                        .step_by(clients)
                        .map(|number| format!("at-once-{number}"))
                        .collect();
                    let begun = mine.iter().map(|name| {
                        let begin = Instant::now();
                        tds.run(&hello(name));
                        begin.elapsed()
                    });
                    let took = begun.collect();
                    for name in &mine {
                        assert_eq!(tds.await_end(name)["phase"], "ended");
                        assert_eq!(tds.ask(&Method::DELETE, &format!("/td/v1/tds/{name}"), None).status, 204);
                    }
                    took
                })
            })
            .collect();
        clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
    });
    took.extend((0..in_a_row).map(|number| live(&tds, &format!("row-{number}"))));
    took.sort();
    let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
    println!("create and boot of {} TDs: half within {:?}, p99 {:?}", took.len(), at(50), at(99));
    settle(before);
    assert_eq!(std::fs::read_dir(tds.folder.join("state/tds")).expect("a folder").count(), 0);
    let service = tds.ask(&Method::GET, "/td/v1/service", None).json().expect("JSON");
    assert_eq!(
        service["used"],
        serde_json::json!({"memory": 0, "vcpus": 0, "key_ids": 0, "disk": 0, "trace": 0})
    );
}

#[test]
fn tds_at_once_and_in_a_row_leave_nothing() {
    nothing_is_left(2, 4, 8);
}

#[test]
#[ignore = "needs minutes: nightly"]
fn nightly_32_tds_at_once_by_8_clients_and_1000_in_a_row_leave_nothing() {
    nothing_is_left(8, 32, 1000);
}
