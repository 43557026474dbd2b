//! A source that says what it should not: the destination refuses, keeps nothing, and never panics.

use td_host::migration::bundle::{Announcement, Message, SlotShape};
use td_host::migration::destination::Destination;
use td_host::migration::failure::Failure;
use td_host::migration::source::{Order, Plan, Source, Step};
use tdvisor_base::{Gfn, Level};
use tdvisor_test_data::chance::Chance;

use super::altered::altered;
use super::world::{Belongings, End, Monitor, SPARE, agree, check, frames, guest, host, hosts, reference};

/// What is done to one message of a session.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    Alter,
    Drop,
    Repeat,
    /// Swapped with the one that follows.
    Late,
}

#[test]
fn inv_62_bundles_that_are_altered_cut_repeated_or_out_of_order_are_refused_and_nothing_is_kept() {
    let [here, there] = hosts(0);
    let (from, to) = (End::new(&here), End::new(&there));
    let td = guest(&here, &from.service, Level::L2M);
    let mut monitor = Monitor::default();
    let stayed = reference(Level::L2M);
    assert_eq!(monitor.run(&td, stayed.exits / 2), None);
    let before = Belongings::of(&there);
    let mut chance = Chance::new(0x5eed_1234_5678_9abc);
    let plan = Plan { rounds: 1, order: Order::NewPagesLast };
    let mut refused = 0;
    let mut length = 12;
    for round in 0..60 {
        let wrong = [Wrong::Alter, Wrong::Alter, Wrong::Drop, Wrong::Repeat, Wrong::Late][round % 5];
        let target = round * 7 % length;
        let mut destination = Destination::new(&there, SPARE).unwrap();
        agree(&from, &td, &to, &destination);
        let mut source = Source::new(&td, SPARE, plan).unwrap();
        let (mut said, mut late, mut result) = (0, None, Ok(None));
        while result == Ok(None) {
            let Step::Say(message) = (match source.step() {
                Ok(Step::Quiet) => continue,
                other => other.unwrap(),
            }) else {
                break;
            };
            let mut messages = vec![message.clone()];
            if said == target {
                match wrong {
                    Wrong::Alter => messages = altered(&mut chance, &message).into_iter().collect(),
                    Wrong::Drop => messages.clear(),
                    Wrong::Repeat => messages.push(message.clone()),
                    Wrong::Late => late = messages.pop(),
                }
            } else {
                messages.extend(late.take());
            }
            said += 1;
            for message in &messages {
                if result == Ok(None) {
                    result = destination.take(message);
                }
            }
        }
        length = length.max(said);
        // What nothing protects may be repeated or lost without harm: shared pages are the hosts' own.
        let what = format!("round {round}: {wrong:?} of message {target}: {result:?}");
        if let Ok(Some(_)) = result {
            panic!("{what}: the TD was committed");
        }
        refused += u32::from(result.is_err());
        let token = destination.abort();
        assert!(destination.report().is_clean(), "{what}: {:?}", destination.report());
        drop(destination);
        assert_eq!(Belongings::of(&there), before, "{what}");
        check(&there, &[]);
        source.abort(token.as_ref()).unwrap_or_else(|failure| panic!("{what}: {failure}"));
        drop(source);
        check(&here, &[&td]);
    }
    assert!(refused > 40, "only {refused} sessions were refused");
    monitor.run_to_the_end(&td);
    assert_eq!(monitor.console, stayed.console);
}

#[test]
fn inv_62_what_is_announced_is_held_against_what_the_machine_has() {
    let there = host();
    let before = Belongings::of(&there);
    let slot = |first: u64, frames: u64| {
        let range = mirror_ept::GfnRange::new(Gfn::new(first), Gfn::new(first + frames));
        SlotShape::new(range, Vec::new()).unwrap()
    };
    let shapes = [
        Announcement::new(vec![slot(0, 1 << 34)], 1, Level::L4K).unwrap(),
        Announcement::new(vec![slot(0, 16), slot(8, 16)], 1, Level::L4K).unwrap(),
        Announcement::new(vec![slot(1 << 40, 16)], 1, Level::L4K).unwrap(),
        Announcement::new(vec![slot(0, 16)], 500, Level::L4K).unwrap(),
    ];
    for shape in shapes {
        let mut destination = Destination::new(&there, SPARE).unwrap();
        let refused = destination.take(&Message::Announce(shape.clone()));
        assert!(matches!(refused, Err(Failure::Peer(_) | Failure::Host(_))), "{shape:?}: {refused:?}");
        assert_eq!(destination.abort(), None);
        drop(destination);
        assert_eq!(Belongings::of(&there), before);
    }
    assert!(SlotShape::new(frames(0, 4), vec![frames(2, 4)]).is_err(), "a run leaves its slot");
}
