//! Virtio devices against guests that write whatever they like into rings, tables, buffers and registers.
//!
//! Each device has a target. A round is a device, a driver that mostly does right, and a second processor that writes into
//! the same memory: step by step in a replayable order, or on a thread of its own while the device reads. A host that brings
//! input at any time is part of each.
//!
//! A fixed number of rounds by default; `TDVISOR_FUZZ_SECONDS` makes each target run that long. A round that fails prints
//! its seed; `TDVISOR_FUZZ_SEED` runs that one alone. Races are not replayed exactly: their seed gives what each side did.
//!
//! What holds in every round: no panic; one access moves a bounded number of bytes; nothing outside of what the guest shares
//! is touched; after a reset the device answers as ever.

mod guest;
mod hosts;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use guest::{Guest, STOPPED};
use hosts::{Brings, DEVICES, Target};
use tdvisor_test_data::chance::Chance;
use tdvisor_test_data::replay::{Replay, number};

/// Rounds of a target that is not timed.
const ROUNDS: u64 = 60;
/// Steps of a round.
const STEPS: u64 = 400;
/// Bytes that one access moves at most: for each place of each of three queues a chain of buffers, and what they hold.
const MOVED_MAX: u64 = 3 * 128 * (128 * 16 + (16 << 20));

/// Rounds of one device until its time is over.
fn fuzz(target: &Target) {
    let seconds = number("TDVISOR_FUZZ_SECONDS");
    if let Some(seed) = number("TDVISOR_FUZZ_SEED") {
        round(target, seed);
        return;
    }
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    // Other runs see other seeds where there is time for more.
    let first = if seconds.is_some() { u64::from(std::process::id()) << 32 } else { 0 };
    let (mut rounds, mut answered) = (0, 0);
    while end.map_or(rounds < ROUNDS, |end| Instant::now() < end) {
        answered += round(target, first + rounds);
        rounds += 1;
    }
    println!("{}: {rounds} rounds, {answered} requests answered", target.name);
    assert!(answered > rounds, "the rounds reach the device: {answered} answers in {rounds} rounds");
}

/// One round; how many requests were answered.
fn round(target: &Target, seed: u64) -> u64 {
    let _replay = Replay(seed);
    let mut chance = Chance::new(seed);
    let (device, mut brings) = (target.make)(seed);
    let mut guest = Guest::new(device);
    guest.start();
    if chance.one_in(3) {
        raced(&mut guest, &mut brings, &mut chance, target)
    } else {
        steps(&mut guest, &mut brings, &mut chance, target)
    }
    let answered = guest.answered();
    guest.start();
    (target.request)(&mut guest, &mut Chance::new(1), Straight::Yes);
    brings();
    guest.attend();
    assert!(guest.answered() > answered, "{}: after a reset the device answers as ever", target.name);
    guest.answered()
}

/// Whether a request is bent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Straight {
    /// The request is as a driver makes it.
    Yes,
    /// Something may be wrong with it.
    No,
}

/// One step after the other.
fn steps(guest: &mut Guest, brings: &mut Brings, chance: &mut Chance, target: &Target) {
    for _ in 0..STEPS {
        guest.memory.take_moved();
        match chance.below(12) {
            0..4 => (target.request)(guest, chance, Straight::No),
            4 => guest.scribble(chance),
            5 => guest.write_any_register(chance),
            6 => guest.describe_anything(chance),
            7 => guest.offer_anything(chance),
            8 => brings(),
            9 => guest.attend(),
            _ => guest.notify(chance.below(4) as u32),
        }
        let moved = guest.memory.take_moved();
        assert!(moved <= MOVED_MAX, "{}: {moved} bytes at one step", target.name);
        if guest.status() & STOPPED != 0 && chance.one_in(3) || chance.one_in(60) {
            guest.start();
        }
    }
}

/// A second processor writes all the time.
fn raced(guest: &mut Guest, brings: &mut Brings, chance: &mut Chance, target: &Target) {
    let done = AtomicBool::new(false);
    let memory = guest.memory.clone();
    let mut of_other = Chance::new(chance.next());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                memory.scribble(&mut of_other);
            }
        });
        for _ in 0..STEPS / 4 {
            (target.request)(guest, chance, Straight::No);
            guest.notify(chance.below(4) as u32);
            if chance.one_in(4) {
                brings();
                guest.attend();
            }
            if guest.status() & STOPPED != 0 {
                guest.start();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

fn target(name: &str) -> &'static Target {
    DEVICES.iter().find(|target| target.name == name).expect("there is such a device")
}

#[test]
fn a_disk_survives_any_guest() {
    fuzz(target("blk"));
}

#[test]
fn random_bytes_survive_any_guest() {
    fuzz(target("rng"));
}

#[test]
fn a_console_survives_any_guest() {
    fuzz(target("console"));
}

#[test]
fn sockets_survive_any_guest() {
    fuzz(target("vsock"));
}

#[test]
fn a_network_card_survives_any_guest() {
    fuzz(target("net"));
}

#[test]
fn a_folder_survives_any_guest() {
    fuzz(target("fs"));
}
