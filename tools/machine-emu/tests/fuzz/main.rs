//! Random bundles for the destination of a migration: of sessions that are right but for what is altered, lost, repeated or
//! put elsewhere. It refuses, keeps nothing, and does not panic; the source goes on.
//!
//! Each session has a seed, which a failure names. `TDVISOR_FUZZ_SECONDS` makes the search that long; otherwise it is short.
//! `TDVISOR_FUZZ_SEED` is the first seed, and with no seconds the only one.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../it/migration/altered.rs"]
mod altered;
#[path = "../driven/mod.rs"]
mod driven;
#[path = "../it/migration/world.rs"]
#[expect(dead_code, reason = "the tests of migration use the rest")]
mod world;

use std::time::{Duration, Instant};

use td_host::migration::bundle::{Message, SharedPage, SharedPages};
use td_host::migration::destination::Destination;
use td_host::migration::source::{Order, Plan, Source, Step};
use tdvisor_base::{Gfn, Level};
use tdvisor_test_data::chance::Chance;
use tdvisor_test_data::replay::number;

use altered::altered;
use world::{
    Belongings, EmulatedHost, EmulatedTd, End, Monitor, SPARE, agree, check, guest, host, reference,
};

/// Messages by which a destination begins: what the TD is, and what of it never changes.
const BEGINNING: u32 = 2;
/// Sessions of a short search.
const SHORT: u64 = 12;

/// What becomes of one message on its way: nothing, one message, or several.
fn on_the_way(chance: &mut Chance, message: &Message, earlier: &[Message]) -> Vec<Message> {
    match chance.index(6) {
        0 => Vec::new(),
        1 => vec![message.clone(), message.clone()],
        2 => {
            let old = earlier.get(chance.index(earlier.len())).unwrap_or(message);
            vec![old.clone(), message.clone()]
        }
        _ => match message {
            // Where shared pages go is the source's word alone.
            Message::Shared(pages) => {
                let mut pages: Vec<SharedPage> = pages.pages().to_vec();
                let at = chance.index(pages.len());
                pages[at].gfn = Gfn::new(1 << chance.index(40));
                vec![Message::Shared(SharedPages::new(pages).unwrap())]
            }
            Message::Vcpu(bundle) if chance.index(2) == 0 => {
                let mut bundle = bundle.clone();
                bundle.host.posted[chance.index(4)] ^= 1 << chance.index(64);
                vec![Message::Vcpu(bundle)]
            }
            message => altered(chance, message).into_iter().collect(),
        },
    }
}

/// Two machines with a TD on one of them.
struct Setting<'s, 'h> {
    here: &'h EmulatedHost,
    there: &'h EmulatedHost,
    from: &'s End<'h>,
    to: &'s End<'h>,
    td: &'s EmulatedTd<'h>,
    before: Belongings,
}

impl Setting<'_, '_> {
    /// One session, which never gets to its end.
    fn session(&self, seed: u64) -> Refused {
        let mut chance = Chance::new(seed);
        let order = [Order::InOrder, Order::NewPagesLast][chance.index(2)];
        let plan = Plan { rounds: chance.index(3) as u32, order };
        let one_in = 2 + chance.index(12);
        let mut destination = Destination::new(self.there, SPARE).unwrap();
        agree(self.from, self.td, self.to, &destination);
        let mut source = Source::new(self.td, SPARE, plan).unwrap();
        let (mut earlier, mut refused) = (Vec::new(), Refused::No);
        // A destination that never began cannot prove that it will not run the TD: behind a beginning that is lost the next message
        // arrives, and is refused, before the source depends on a proof.
        let (mut said, mut taken) = (0, 0);
        'session: loop {
            let message = match source.step().unwrap_or_else(|failure| panic!("seed {seed}: {failure}")) {
                Step::Say(Message::Complete) | Step::Wait => break,
                Step::Say(message) => message,
                Step::Quiet => continue,
            };
            let beginning_lost = taken < said.min(BEGINNING);
            said += 1;
            let arriving = match chance.index(one_in) {
                0 if !beginning_lost => on_the_way(&mut chance, &message, &earlier),
                _ => vec![message.clone()],
            };
            for message in &arriving {
                match destination.take(message) {
                    Ok(None) => taken += 1,
                    Ok(Some(answer)) => panic!("seed {seed}: {answer:?} although nobody said that it is all"),
                    Err(_) => {
                        refused = Refused::Yes;
                        break 'session;
                    }
                }
            }
            if earlier.len() < 64 {
                earlier.push(message);
            }
        }
        let token = destination.abort();
        assert!(destination.report().is_clean(), "seed {seed}: {:?}", destination.report());
        drop(destination);
        assert_eq!(Belongings::of(self.there), self.before, "seed {seed}");
        source.abort(token.as_ref()).unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
        refused
    }
}

#[derive(PartialEq)]
enum Refused {
    Yes,
    No,
}

#[test]
fn whatever_another_machine_sends_is_refused_or_harmless_and_nothing_of_it_is_kept() {
    let (here, there) = (host(), host());
    let (from, to) = (End::new(&here), End::new(&there));
    let td = guest(&here, &from.service, Level::L2M);
    let mut monitor = Monitor::default();
    let stayed = reference(Level::L2M);
    assert_eq!(monitor.run(&td, stayed.exits / 2), None);
    let before = Belongings::of(&there);
    let setting = Setting { here: &here, there: &there, from: &from, to: &to, td: &td, before };

    let until = number("TDVISOR_FUZZ_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let first = number("TDVISOR_FUZZ_SEED");
    let (mut seed, mut sessions, mut refused) = (first.unwrap_or(1), 0, 0);
    loop {
        refused += u64::from(setting.session(seed) == Refused::Yes);
        sessions += 1;
        let goes_on = match (until, first) {
            (Some(until), _) => Instant::now() < until,
            (None, Some(_)) => false,
            (None, None) => sessions < SHORT,
        };
        if !goes_on {
            break;
        }
        seed += 1;
    }
    check(setting.there, &[]);
    check(setting.here, &[&td]);
    println!("{sessions} sessions, {refused} of them refused, up to seed {seed}");
    assert!(first.is_some() || refused * 3 > sessions, "only {refused} of {sessions} sessions were refused");
    monitor.run_to_the_end(&td);
    assert_eq!(monitor.console, stayed.console);
}
