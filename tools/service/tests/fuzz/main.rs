//! The API against clients that send whatever they like: bodies, orders of calls, half requests, connections that are dropped,
//! descriptors of any kind.
//!
//! A round is some steps of one client against one VMM, which lives through all rounds. A fixed number of rounds by default;
//! `TDVISOR_FUZZ_SECONDS` makes it run that long. A round that fails prints its seed; `TDVISOR_FUZZ_SEED` runs that one alone.
//!
//! What holds in every round: no panic on any thread; every answer has the documented form, and that to a whole request the status
//! and the schema that its description has; afterwards no descriptor and no
//! thread is left, and a VM can be created as ever.
//!
//! A program of its own: it counts the descriptors and threads of its process, and other tests have some.

mod client;
#[path = "../described/mod.rs"]
mod described;
#[expect(dead_code, reason = "the fuzzer has requests of its own")]
#[path = "../place/mod.rs"]
mod place;
#[path = "../rest/mod.rs"]
mod rest;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use client::Step;
use described::Described;
use http::Method;
use place::{Place, waiting_guest};
use rest::{at_rest, settle};
use tdvisor_service::api::openapi;
use tdvisor_service::config::TdPolicy;
use tdvisor_service::vm::WhenOff;
use tdvisor_test_data::chance::Chance;
use tdvisor_test_data::replay::{Replay, number};

/// Rounds where there is no time.
const ROUNDS: u64 = 12;
/// Steps of a round.
const STEPS: u64 = 60;
/// Far more than an answer takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Panics of all threads.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// What a run did.
#[derive(Default)]
struct Count {
    steps: u64,
    answers: u64,
    refusals: u64,
    boots: u64,
}

fn round(place: &Place, described: &Described, seed: u64, count: &mut Count) {
    let _replay = Replay(seed);
    let mut chance = Chance::new(seed);
    for _ in 0..STEPS {
        let step = Step::any(&mut chance);
        count.steps += 1;
        for answer in step.take(place, &mut chance) {
            count.answers += 1;
            count.refusals += u64::from(answer.is_refusal());
            count.boots += u64::from(answer.is_of_boot());
            answer.check();
            if step.is_one_request() {
                answer.check_against(described);
            }
        }
        assert_eq!(PANICS.load(Ordering::SeqCst), 0, "a thread panicked");
    }
    assert_eq!(place.put("vm.delete", None), 204);
}

#[test]
fn clients_that_send_whatever_they_like_neither_break_nor_leave_anything() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        usual(panic);
    }));
    let place = Place::with("fuzz", WhenOff::Stay, TdPolicy::Always);
    client::lay_out(&place.folder);
    // What is made once, and kept.
    assert_eq!(place.put("vm.create", Some(&waiting_guest())), 204);
    assert_eq!(place.put("vm.boot", None), 204);
    assert_eq!(place.put("vm.delete", None), 204);
    let before = at_rest();
    let seconds = number("TDVISOR_FUZZ_SECONDS");
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let only = number("TDVISOR_FUZZ_SEED");
    // Other runs see other seeds where there is time for more.
    let first = only.unwrap_or(if seconds.is_some() { u64::from(std::process::id()) << 32 } else { 0 });
    let described = Described::new(openapi(), 400);
    let mut count = Count::default();
    let mut rounds = 0;
    while end.map_or(rounds < ROUNDS, |end| Instant::now() < end) && (only.is_none() || rounds == 0) {
        round(&place, &described, first + rounds, &mut count);
        settle(before);
        assert_eq!(place.state(), "none");
        rounds += 1;
    }
    let Count { steps, answers, refusals, boots } = count;
    println!("api: {rounds} rounds, {steps} steps, {answers} answers, {refusals} refusals, {boots} boots");
    assert!(answers > rounds && refusals > 0, "the rounds reach the API");
    assert!(place.client().ask(&Method::GET, "/api/v1/vmm.ping", None, PATIENCE).is_ok());
}
