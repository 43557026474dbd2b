//! Keys that cross between two real migration TDs: guests that run on the software CPU, quote themselves through their hosts,
//! judge each other, and reach the TD that moves by TDG.SERVTD.RD and WR.

use td_host::migration::binding::bind;
use td_host::migration::destination::Destination;
use td_host::migration::source::{Plan, Source, run_both};
use tdvisor_base::Level;
use tdvisor_migration_td::Role;
use tdvisor_migration_td::mailbox::{Order, Outcome, Target};
use tdx_module_iface::tdh::Binding;

use super::mailbox::{Alter, Conduct, Pair, Setup, test_root};
use super::world::{Belongings, EmulatedHost, EmulatedTd, Monitor, SPARE, check, guest, hosts, reference};

fn order(role: Role, binding: Binding) -> Order {
    Order::HandOver { role, target: Target { handle: binding.handle, uuid: binding.target } }
}

/// What both hosts order for one session.
fn orders(
    here: &EmulatedHost,
    td: &EmulatedTd<'_>,
    destination: &Destination<'_, machine_emu::EmulatedMachine>,
    pair: &Pair<'_>,
) -> [Order; 2] {
    [
        order(
            Role::Source,
            bind(here, SPARE, td.tdr(), pair.source.td.tdr()).expect("bound when it was built"),
        ),
        order(Role::Destination, destination.bind(pair.destination.td.tdr()).expect("nothing has arrived")),
    ]
}

#[test]
fn hello_td_moves_with_keys_that_two_migration_tds_handed_over() {
    let stayed = reference(Level::L2M);
    let [here, there] = hosts(0);
    let before = [Belongings::of(&here), Belongings::of(&there)];
    let pair = Pair::new(&here, &there, Setup::honest());
    let td = guest(&here, &pair.source.td, Level::L2M);
    let mut monitor = Monitor::default();
    assert_eq!(monitor.run(&td, stayed.exits / 2), None);
    let mut destination = Destination::new(&there, SPARE).unwrap();
    // The migration TDs have ended before the session begins: their vCPUs and the guest's run on the same processor.
    pair.run(|| {
        let orders = orders(&here, &td, &destination, &pair);
        let outcomes = pair.hand_over(orders);
        assert_eq!(outcomes, [Outcome::Done; 2], "{}{}", pair.source.console(), pair.destination.console());
    });
    run_both(&mut Source::new(&td, SPARE, Plan::default()).unwrap(), &mut destination).unwrap();
    let moved = destination.finish().unwrap();
    drop(destination);
    monitor.run_to_the_end(&moved);
    assert_eq!(monitor.console, stayed.console);
    check(&here, &[&pair.source.td]);
    check(&there, &[&moved, &pair.destination.td]);
    assert!(td.teardown().is_clean() && moved.teardown().is_clean());
    pair.teardown();
    assert_eq!([Belongings::of(&here), Belongings::of(&there)], before);
}

/// The words of a conversation, in their order.
const HELLO: usize = 0;
const QUOTE: usize = 1;
const KEY: usize = 2;

/// A host that brings its migration TD something else than one word of the peer's.
fn instead(number: usize, word: impl Fn(&[Vec<u8>], Vec<u8>) -> Vec<u8> + Send + 'static) -> Conduct {
    let alter: Alter = Box::new(move |own, at, heard| if at == number { word(own, heard) } else { heard });
    Conduct { alter: Some(alter), ..Conduct::default() }
}

fn flipped(_: &[Vec<u8>], mut word: Vec<u8>) -> Vec<u8> {
    let middle = word.len() / 2;
    word[middle] ^= 0x10;
    word
}

#[test]
fn hosts_that_relay_replay_swap_or_alter_get_no_key_across() {
    let [here, there] = hosts(0);
    let pair = Pair::new(&here, &there, Setup::honest());
    let td = guest(&here, &pair.source.td, Level::L2M);
    let destination = Destination::new(&there, SPARE).unwrap();
    let hand_over = || pair.hand_over(orders(&here, &td, &destination, &pair));
    pair.run(|| {
        // A good conversation, whose words hosts use later on.
        assert_eq!(hand_over(), [Outcome::Done; 2]);
        let old = pair.source.conduct.lock().unwrap().said.clone();
        let [first, quote, key] = [HELLO, QUOTE, KEY].map(|number| old[number].clone());
        let tries = [
            ("its first word is reflected", instead(HELLO, |own, _| own[HELLO].clone()), Outcome::Peer),
            ("an old first word is replayed", instead(HELLO, move |_, _| first.clone()), Outcome::Policy),
            ("an old quote is relayed", instead(QUOTE, move |_, _| quote.clone()), Outcome::Policy),
            ("its own quote comes back", instead(QUOTE, |own, _| own[QUOTE].clone()), Outcome::Policy),
            ("a quote is altered", instead(QUOTE, flipped), Outcome::Quote),
            ("an old key is replayed", instead(KEY, move |_, _| key.clone()), Outcome::NotSealed),
            ("a key is altered", instead(KEY, flipped), Outcome::NotSealed),
            ("there are no quotes", Conduct { no_quotes: true, ..Conduct::default() }, Outcome::NoQuote),
            (
                "the collateral is none",
                Conduct { collateral: Some("[".repeat(100_000)), ..Conduct::default() },
                Outcome::Quote,
            ),
        ];
        for (what, conduct, expected) in tries {
            *pair.destination.conduct.lock().unwrap() = conduct;
            let [source, destination] = hand_over();
            assert_eq!(destination, expected, "{what}: {source}; {}", pair.destination.console());
        }
        // Nothing of that stays: the two still trust each other.
        *pair.destination.conduct.lock().unwrap() = Conduct::default();
        assert_eq!(hand_over(), [Outcome::Done; 2]);
    });
    check(&here, &[&td, &pair.source.td]);
    check(&there, &[&pair.destination.td]);
}

#[test]
fn migration_tds_that_are_configured_otherwise_trust_nobody_and_no_session_begins() {
    let none = || [Vec::new(), Vec::new()];
    let one = || [test_root(17), test_root(17)];
    let setups = [
        // Nothing is measured: it is Intel's root that counts, and both quotes are of the test root.
        (Setup { measured: none(), handed_over: none() }, Outcome::Quote),
        // A test root that is handed over, but not measured.
        (Setup { measured: none(), handed_over: one() }, Outcome::Untrusting),
        // Another configuration than the measured one, and none.
        (Setup { measured: [test_root(18), test_root(18)], handed_over: one() }, Outcome::Untrusting),
        (Setup { measured: one(), handed_over: none() }, Outcome::Untrusting),
        // Two that are configured differently are not of one kind.
        (
            Setup { measured: [test_root(17), test_root(16)], handed_over: [test_root(17), test_root(16)] },
            Outcome::Policy,
        ),
        // The collateral is from before the floor.
        (
            Setup { measured: [test_root(18), test_root(18)], handed_over: [test_root(18), test_root(18)] },
            Outcome::Policy,
        ),
    ];
    for (number, (setup, expected)) in setups.into_iter().enumerate() {
        let [here, there] = hosts(0);
        let pair = Pair::new(&here, &there, setup);
        let td = guest(&here, &pair.source.td, Level::L2M);
        let mut destination = Destination::new(&there, SPARE).unwrap();
        pair.run(|| {
            let outcomes = pair.hand_over(orders(&here, &td, &destination, &pair));
            assert!(outcomes.contains(&expected), "setup {number}: {outcomes:?}");
            assert!(!outcomes.contains(&Outcome::Done), "setup {number}: {outcomes:?}");
        });
        // Without a key the modules do not begin, and the TD stays what it was.
        assert!(run_both(&mut Source::new(&td, SPARE, Plan::default()).unwrap(), &mut destination).is_err());
        Monitor::default().run_to_the_end(&td);
    }
}
