//! Sessions that are given up after every step, by either side.

use seam_emu::inject::{Chaos, FaultPlan};
use td_host::migration::bundle::{Answer, Message};
use td_host::migration::destination::Destination;
use td_host::migration::failure::Failure;
use td_host::migration::source::{Order, Plan, Source, Step, run_both};
use tdvisor_base::{Level, Side};

use super::world::{Belongings, End, Monitor, SPARE, agree, check, frames, guest, hosts, reference};

/// How far a session came before it was given up.
enum Came {
    /// After so many steps.
    To(&'static str),
    /// To its end.
    Through,
}

#[test]
fn inv_61_a_session_given_up_after_any_step_leaves_the_source_with_all_it_had() {
    for order in [Order::InOrder, Order::NewPagesLast] {
        let stayed = reference(Level::L2M);
        let [here, there] = hosts(0);
        let (from, to) = (End::new(&here), End::new(&there));
        let td = guest(&here, &from.service, Level::L2M);
        let mut monitor = Monitor::default();
        assert_eq!(monitor.run(&td, stayed.exits / 4), None);
        let plan = Plan { rounds: 2, order };
        let before = Belongings::of(&there);
        let (mut steps, mut names) = (0, Vec::new());
        loop {
            let mut destination = Destination::new(&there, SPARE).unwrap();
            agree(&from, &td, &to, &destination);
            let mut source = Source::new(&td, SPARE, plan).unwrap();
            let came = give_up_after(steps, &mut source, &mut destination);
            drop(source);
            match came {
                Came::To(name) => {
                    names.push(name);
                    check(&here, &[&td]);
                    check(&there, &[]);
                    assert!(destination.report().is_clean());
                    drop(destination);
                    assert_eq!(Belongings::of(&there), before, "given up after {steps} steps: {name}");
                    // It runs on in between.
                    assert_eq!(monitor.run(&td, 1), None);
                }
                Came::Through => {
                    let moved = destination.finish().unwrap();
                    monitor.run_to_the_end(&moved);
                    check(&there, &[&moved]);
                    assert!(moved.teardown().is_clean());
                    break;
                }
            }
            steps += 1;
        }
        assert_eq!(monitor.console, stayed.console, "{order:?}");
        assert!(td.teardown().is_clean());
        assert_eq!(Belongings::of(&there), before);
        names.dedup();
        // A sweep that never comes to a step would agree with anything.
        for name in ["announced", "in a round", "paused", "before a vCPU's state", "out of order", "waiting"]
        {
            assert!(names.contains(&name), "{name}: {names:?}");
        }
        assert!(steps > 15, "{steps} steps");
        println!("{order:?}: given up after each of {steps} steps");
    }
}

#[test]
fn inv_60_a_td_that_may_run_elsewhere_runs_here_only_with_the_others_token() {
    let [here, there] = hosts(0);
    let (from, to) = (End::new(&here), End::new(&there));
    let td = guest(&here, &from.service, Level::L2M);
    let mut destination = Destination::new(&there, SPARE).unwrap();
    agree(&from, &td, &to, &destination);
    let mut source = Source::new(&td, SPARE, Plan { rounds: 0, ..Plan::default() }).unwrap();
    while source.at() != "waiting" {
        // The last word is lost on the way.
        if let Step::Say(message) = source.step().unwrap()
            && !matches!(message, Message::Complete)
        {
            assert_eq!(destination.take(&message), Ok(None));
        }
    }
    assert_eq!(source.abort(None), Err(Failure::NeedsToken));
    // Whoever takes a page away does not end this session any more.
    let mut seat = td.memory().take_seat(SPARE).unwrap();
    let converted = td.memory().convert(&mut seat, frames(0, 1), Side::Shared);
    assert!(matches!(converted, Err(td_host::Error::Caller(_))), "{converted:?}");
    drop(seat);
    assert_eq!(td.memory().attribute(frames(0, 1).start()), Some(Side::Private));
    let token = destination.abort().expect("the session had begun");
    source.abort(Some(&token)).unwrap();
    drop(source);
    Monitor::default().run_to_the_end(&td);
    check(&here, &[&td]);
    check(&there, &[]);
}

#[test]
fn inv_61_a_session_survives_transient_refusals_on_both_sides() {
    let stayed = reference(Level::L2M);
    let mut refused = 0;
    for seed in 1..=5 {
        let [here, there] = hosts(0);
        let (from, to) = (End::new(&here), End::new(&there));
        let td = guest(&here, &from.service, Level::L2M);
        let mut monitor = Monitor::default();
        assert_eq!(monitor.run(&td, stayed.exits * seed / 7), None);
        let mut destination = Destination::new(&there, SPARE).unwrap();
        agree(&from, &td, &to, &destination);
        for host in [&here, &there] {
            let plan = FaultPlan { chaos: Some(Chaos { seed, one_in: 2 }), ..FaultPlan::default() };
            host.platform().machine().faults().set_plan(plan);
        }
        let plan = Plan { rounds: 2, order: Order::NewPagesLast };
        run_both(&mut Source::new(&td, SPARE, plan).unwrap(), &mut destination)
            .unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
        for host in [&here, &there] {
            refused += host.platform().machine().faults().log().len();
            host.platform().machine().faults().set_plan(FaultPlan::default());
        }
        let moved = destination.finish().unwrap();
        check(&there, &[&moved]);
        monitor.run_to_the_end(&moved);
        assert_eq!(monitor.console, stayed.console, "seed {seed}");
        assert!(moved.teardown().is_clean());
        assert!(td.teardown().is_clean());
        check(&here, &[]);
    }
    assert!(refused > 40, "only {refused} calls were refused");
}

/// Does so many steps, then gives up on both sides; or comes to the end.
fn give_up_after(
    steps: u64,
    source: &mut Source<'_, '_, machine_emu::EmulatedMachine>,
    destination: &mut Destination<'_, machine_emu::EmulatedMachine>,
) -> Came {
    for done in 0..steps {
        match source.step().unwrap() {
            Step::Say(message) => {
                if done + 1 == steps && matches!(message, Message::Complete) {
                    // It never gets there: the destination gives up before it hears it.
                    break;
                }
                if let Some(answer) = destination.take(&message).unwrap() {
                    source.hear(&answer).unwrap();
                    return Came::Through;
                }
            }
            Step::Quiet => {}
            Step::Wait => panic!("nobody answers"),
        }
    }
    let name = source.at();
    let over = matches!(name, "out of order" | "before the end" | "waiting");
    if over {
        // The destination might run it: without its word nothing goes on here, and a made-up word is none.
        assert_eq!(source.abort(None), Err(Failure::NeedsToken));
        assert_eq!(source.hear(&Answer::Aborted(None)), Err(Failure::NeedsToken));
        assert!(matches!(source.abort(Some(&[7; 48])), Err(Failure::Host(_))));
    }
    let token = destination.abort();
    source.hear(&Answer::Aborted(token)).unwrap_or_else(|failure| panic!("{name}: {failure}"));
    Came::To(name)
}
