//! Sessions that come to their end.

use td_host::migration::binding::bind;
use td_host::migration::destination::Destination;
use td_host::migration::failure::Failure;
use td_host::migration::source::{Order, Plan, Source, Step, run_both};
use td_host::td::Ending;
use tdvisor_base::{Level, Side};

use super::world::{
    Belongings, End, Monitor, SPARE, agree, check, frames, guest, hosts, read_key, reference,
};

/// Plans that differ in what is sent when.
const PLANS: [Plan; 4] = [
    Plan { rounds: 8, order: Order::InOrder },
    Plan { rounds: 1, order: Order::NewPagesLast },
    Plan { rounds: 0, order: Order::InOrder },
    Plan { rounds: 0, order: Order::NewPagesLast },
];

#[test]
fn hello_td_moves_at_any_moment_of_its_life_and_ends_as_if_it_had_stayed() {
    let references = [Level::L2M, Level::L4K].map(reference);
    let exits = references[0].exits.min(references[1].exits);
    let [here, there] = hosts(0);
    let (from, to) = (End::new(&here), End::new(&there));
    let before = [Belongings::of(&here), Belongings::of(&there)];
    let moments = (0..8).map(|part| exits * part / 8).chain([exits - 1]);
    for (number, moment) in moments.enumerate() {
        let largest = [Level::L2M, Level::L4K][number % 2];
        let stayed = &references[number % 2];
        let td = guest(&here, &from.service, largest);
        let mut monitor = Monitor::default();
        assert_eq!(monitor.run(&td, moment), None, "exit {moment}");
        let measured = td.mrtd().unwrap();
        let mut destination = Destination::new(&there, SPARE).unwrap();
        agree(&from, &td, &to, &destination);
        let mut source = Source::new(&td, SPARE, PLANS[number % PLANS.len()]).unwrap();
        run_both(&mut source, &mut destination).unwrap_or_else(|failure| panic!("exit {moment}: {failure}"));
        assert!(source.progress().pages > 30, "{:?}", source.progress());
        drop(source);
        assert_eq!(td.ending(), Some(Ending::Stopped));
        let moved = destination.finish().unwrap();
        check(&here, &[]);
        check(&there, &[&moved]);
        assert_eq!(moved.mrtd().unwrap(), measured);
        assert!(td.teardown().is_clean());
        monitor.run_to_the_end(&moved);
        assert_eq!(monitor.console, stayed.console, "moved at exit {moment}");
        check(&there, &[&moved]);
        assert!(moved.teardown().is_clean());
    }
    assert_eq!([Belongings::of(&here), Belongings::of(&there)], before);
}

#[test]
fn a_td_that_moved_moves_back() {
    let stayed = reference(Level::L2M);
    let [here, there] = hosts(0);
    let (from, to) = (End::new(&here), End::new(&there));
    let td = guest(&here, &from.service, Level::L2M);
    let mut monitor = Monitor::default();
    assert_eq!(monitor.run(&td, stayed.exits / 3), None);
    let mut destination = Destination::new(&there, SPARE).unwrap();
    agree(&from, &td, &to, &destination);
    run_both(&mut Source::new(&td, SPARE, Plan::default()).unwrap(), &mut destination).unwrap();
    let moved = destination.finish().unwrap();
    assert!(td.teardown().is_clean());
    assert_eq!(monitor.run(&moved, stayed.exits / 3), None);
    let mut destination = Destination::new(&here, SPARE).unwrap();
    agree(&to, &moved, &from, &destination);
    run_both(&mut Source::new(&moved, SPARE, Plan::default()).unwrap(), &mut destination).unwrap();
    let back = destination.finish().unwrap();
    assert!(moved.teardown().is_clean());
    monitor.run_to_the_end(&back);
    assert_eq!(monitor.console, stayed.console);
    check(&here, &[&back]);
    check(&there, &[]);
}

#[test]
fn two_tds_move_at_once_and_in_turns() {
    let stayed = reference(Level::L2M);
    let [here, there] = hosts(0);
    let (from, to) = (End::new(&here), End::new(&there));
    let tds = [0, 1].map(|_| guest(&here, &from.service, Level::L2M));
    let mut monitors = [Monitor::default(), Monitor::default()];
    let mut destinations = [0, 1].map(|_| Destination::new(&there, SPARE).unwrap());
    for number in 0..2 {
        assert_eq!(monitors[number].run(&tds[number], stayed.exits * (number as u64 + 1) / 3), None);
        agree(&from, &tds[number], &to, &destinations[number]);
    }
    let mut sources = [0, 1].map(|number| Source::new(&tds[number], SPARE, PLANS[number]).unwrap());
    let mut moving = [true, true];
    while moving.contains(&true) {
        for number in 0..2 {
            if !moving[number] {
                continue;
            }
            if let Step::Say(message) = sources[number].step().unwrap()
                && let Some(answer) = destinations[number].take(&message).unwrap()
            {
                sources[number].hear(&answer).unwrap();
                moving[number] = false;
            }
        }
    }
    drop(sources);
    let moved = destinations.map(|mut end| end.finish().unwrap());
    check(&there, &[&moved[0], &moved[1]]);
    for (monitor, td) in monitors.iter_mut().zip(&moved) {
        monitor.run_to_the_end(td);
        assert_eq!(monitor.console, stayed.console);
    }
    for td in tds.into_iter().chain(moved) {
        assert!(td.teardown().is_clean());
    }
}

#[test]
fn memory_that_goes_while_it_is_sent_ends_the_session_and_nothing_else() {
    let stayed = reference(Level::L2M);
    let [here, there] = hosts(0);
    let (from, to) = (End::new(&here), End::new(&there));
    let td = guest(&here, &from.service, Level::L2M);
    let mut monitor = Monitor::default();
    assert_eq!(monitor.run(&td, stayed.exits / 2), None);
    // Before the first list, between two, and after the last of the first round.
    for steps in [1, 2, 3, 4, 5, 9] {
        let mut destination = Destination::new(&there, SPARE).unwrap();
        agree(&from, &td, &to, &destination);
        let mut source = Source::new(&td, SPARE, Plan::default()).unwrap();
        for _ in 0..steps {
            if let Step::Say(message) = source.step().unwrap() {
                assert_eq!(destination.take(&message), Ok(None));
            }
        }
        let mut seat = td.memory().take_seat(SPARE).unwrap();
        let converted = td.memory().convert(&mut seat, frames(0, 3), Side::Shared);
        assert!(converted.is_ok(), "{converted:?} after {steps} steps");
        drop(seat);
        assert_eq!(source.step().unwrap_err(), Failure::MemoryWent, "after {steps} steps");
        destination.abort();
        source.abort(None).unwrap();
        check(&here, &[&td]);
        let mut seat = td.memory().take_seat(SPARE).unwrap();
        let converted = td.memory().convert(&mut seat, frames(0, 3), Side::Private);
        assert!(converted.is_ok(), "{converted:?} after {steps} steps");
    }
    monitor.run_to_the_end(&td);
    assert_eq!(monitor.console, stayed.console);
    check(&here, &[&td]);
}

#[test]
fn two_machines_have_keys_of_their_own_and_the_same_run_has_the_same() {
    let keys = |run: u64| {
        hosts(run).map(|host| {
            let end = End::new(&host);
            let td = guest(&host, &end.service, Level::L2M);
            let binding = bind(&host, SPARE, td.tdr(), end.service.tdr()).unwrap();
            read_key(&host, &end.service, &binding)
        })
    };
    let [here, there] = keys(1);
    assert_ne!(here, there);
    assert_eq!(keys(1), [here, there]);
    assert!(!keys(2).contains(&here));
}
