//! Random schedules of a guest and its host beside a flat model of what each page holds, on two machines between which the TD
//! moves: sessions begin at any moment, are given up after any step, or come to their end, while the guest writes and
//! memory goes.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use mirror_ept::GfnRange;
use seam_emu::guest::GuestRegisters;
use seam_emu::inject::{Chaos, FaultPlan};
use seam_emu::machine::GuestMemoryError;
use seam_emu::{GuestEnv, GuestState};
use td_host::memory::Converted;
use td_host::migration::bundle::{Answer, Message};
use td_host::migration::destination::Destination;
use td_host::migration::failure::Failure;
use td_host::migration::source::{Order, Plan, Source, Step};
use tdvisor_base::{Gpa, Level, Side};
use tdvisor_test_data::chance::Chance;
use tdvisor_test_data::replay;
use tdx_module_iface::{Gprs, Status, StatusCode, TdgLeaf};

use super::world::{Belongings, EmulatedHost, EmulatedTd, End, SPARE, agree, check, frames, guest, host};
use crate::driven::{come_back, drive, tdcalls};

/// Pages of the model, in 4 KiB from the middle of the guest's memory: the first and the last of two large ones among them.
const PAGES: [u64; 8] = [0, 1, 255, 511, 512, 513, 700, 1023];
const OPERATIONS: usize = 50;
/// One operation in this many is a session.
const SESSIONS: usize = 6;
/// A session that is to be given up is so within this many steps; it may have come to its end before.
const STEPS: usize = 48;

/// What the model knows of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Not accepted.
    Absent,
    /// Shared with the host.
    Shared,
    /// Accepted, and what its first word is.
    Private(u64),
}

fn gpa(page: usize) -> Gpa {
    frames(PAGES[page], 1).start().base()
}

/// A TD on one of two machines, and what the model knows of it.
struct Model<'s, 'h> {
    ends: [&'s End<'h>; 2],
    at: usize,
    td: EmulatedTd<'h>,
    pages: [Known; PAGES.len()],
    written: u64,
    chaos: Option<Chaos>,
    counts: Counts,
}

/// How sessions ended.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    moved: usize,
    given_up: usize,
    memory_went: usize,
    refused: usize,
}

fn accept(host: &EmulatedHost, td: &EmulatedTd<'_>, page: usize) {
    // A guest repeats what was busy.
    for _ in 0..100 {
        let rax = u64::from(TdgLeaf::MEM_PAGE_ACCEPT.0);
        let got = tdcalls(host, td, vec![Gprs { rax, rcx: gpa(page).get(), ..Gprs::ZERO }]);
        let status = Status::from_raw(got[0].rax);
        if status.code() != StatusCode::OPERAND_BUSY {
            assert_eq!(status, Status::SUCCESS, "page {page}");
            return;
        }
    }
    panic!("page {page} stays busy");
}

fn write(host: &EmulatedHost, td: &EmulatedTd<'_>, page: usize, value: u64) {
    drive(host, td, move |state: &mut GuestState, env: &GuestEnv<'_>| {
        state.enter_64_bit_mode();
        match env.write(gpa(page), &value.to_le_bytes()) {
            Ok(()) => come_back(state),
            Err(GuestMemoryError::Exit(exit)) => exit,
            Err(GuestMemoryError::Memory(fault)) => panic!("{fault:?}"),
        }
    });
}

fn read(host: &EmulatedHost, td: &EmulatedTd<'_>, pages: Vec<usize>) -> Vec<u64> {
    let values = Arc::new(Mutex::new(Vec::new()));
    let seen = values.clone();
    drive(host, td, move |state: &mut GuestState, env: &GuestEnv<'_>| {
        state.enter_64_bit_mode();
        let mut seen = seen.lock().unwrap();
        while let Some(page) = pages.get(seen.len()) {
            let mut word = [0; 8];
            match env.read(gpa(*page), &mut word) {
                Ok(()) => seen.push(u64::from_le_bytes(word)),
                Err(GuestMemoryError::Exit(exit)) => return exit,
                Err(GuestMemoryError::Memory(fault)) => panic!("{fault:?}"),
            }
        }
        come_back(state)
    });
    let values = values.lock().unwrap();
    values.clone()
}

fn convert(td: &EmulatedTd<'_>, page: usize, to: Side) {
    let mut seat = td.memory().take_seat(SPARE).unwrap();
    while td.memory().convert(&mut seat, frames(PAGES[page], 1), to).unwrap() != Converted::All {}
}

impl<'h> Model<'_, 'h> {
    fn host(&self) -> &'h EmulatedHost {
        self.ends[self.at].host
    }

    /// What the guest or its host does to one page.
    fn touch(
        (host, td): (&EmulatedHost, &EmulatedTd<'_>),
        page: usize,
        known: Known,
        kind: usize,
        value: u64,
    ) -> Known {
        match (known, kind) {
            (Known::Absent, _) => {
                accept(host, td, page);
                Known::Private(0)
            }
            (Known::Shared, _) => {
                convert(td, page, Side::Private);
                Known::Absent
            }
            (Known::Private(_), 0) => {
                convert(td, page, Side::Shared);
                Known::Shared
            }
            (known @ Known::Private(_), 1) => {
                let mut seat = td.memory().take_seat(SPARE).unwrap();
                let range = GfnRange::new(frames(0, 1).start(), frames(1024, 1).start());
                td.memory().collapse(&mut seat, range).unwrap();
                known
            }
            (Known::Private(_), _) => {
                write(host, td, page, value);
                Known::Private(value)
            }
        }
    }

    /// One operation at random.
    fn step(&mut self, chance: &mut Chance) {
        if chance.index(SESSIONS) == 0 {
            return self.session(chance);
        }
        self.written += 1;
        let (page, kind) = (chance.index(PAGES.len()), chance.index(6));
        self.pages[page] = Self::touch((self.host(), &self.td), page, self.pages[page], kind, self.written);
    }

    fn set_chaos(&self, chaos: Option<Chaos>) {
        for end in self.ends {
            let machine = end.host.platform().machine();
            machine.faults().set_plan(FaultPlan { chaos, ..FaultPlan::default() });
        }
    }

    /// A session that is given up after some step, or moves the TD.
    fn session(&mut self, chance: &mut Chance) {
        let (from, to) = (self.ends[self.at], self.ends[1 - self.at]);
        let mut destination = Destination::new(to.host, SPARE).unwrap();
        agree(from, &self.td, to, &destination);
        self.set_chaos(self.chaos);
        let order = [Order::InOrder, Order::NewPagesLast][chance.index(2)];
        let plan = Plan { rounds: chance.index(4) as u32, order };
        let mut source = Source::new(&self.td, SPARE, plan).unwrap();
        let until = chance.index(STEPS);
        let mut committed = false;
        for done in 0.. {
            let runs =
                matches!(source.at(), "announced" | "before a round" | "in a round" | "before the pause");
            if runs && chance.index(3) == 0 {
                // The guest goes on, and so does what its host does to its memory.
                self.written += 1;
                let (page, kind) = (chance.index(PAGES.len()), chance.index(12));
                let place = (from.host, &self.td);
                let known = self.pages[page];
                // A merge is not what a host begins in a session.
                let kind = if kind == 1 { 2 } else { kind };
                self.pages[page] = Self::touch(place, page, known, kind, self.written);
            }
            if done >= until && !matches!(source.at(), "out of order" | "before the end" | "waiting") {
                break;
            }
            match source.step() {
                Ok(Step::Say(message)) => {
                    if done >= until && matches!(message, Message::Complete) {
                        break;
                    }
                    if let Some(answer) = destination.take(&message).unwrap() {
                        source.hear(&answer).unwrap();
                        committed = true;
                        break;
                    }
                }
                Ok(Step::Quiet) => {}
                Ok(Step::Wait) => panic!("nobody answers"),
                Err(Failure::MemoryWent) => {
                    self.counts.memory_went += 1;
                    break;
                }
                Err(failure) => panic!("{failure}"),
            }
        }
        self.counts.refused +=
            self.ends.map(|end| end.host.platform().machine().faults().log().len()).iter().sum::<usize>();
        self.set_chaos(None);
        if committed {
            drop(source);
            let moved = destination.finish().unwrap();
            assert!(std::mem::replace(&mut self.td, moved).teardown().is_clean());
            self.at = 1 - self.at;
            self.counts.moved += 1;
        } else {
            let token = destination.abort();
            source.hear(&Answer::Aborted(token)).unwrap();
            assert!(destination.report().is_clean());
            self.counts.given_up += 1;
        }
    }

    /// What the guest reads is what the model says, and all records agree.
    fn compare(&self, when: &str) {
        let private = |page: &usize| matches!(self.pages[*page], Known::Private(_));
        let pages: Vec<usize> = (0..PAGES.len()).filter(private).collect();
        let holds: Vec<Known> =
            read(self.host(), &self.td, pages.clone()).into_iter().map(Known::Private).collect();
        let expected: Vec<Known> = pages.iter().map(|page| self.pages[*page]).collect();
        assert_eq!(holds, expected, "{when}: pages {pages:?}");
        check(self.host(), &[&self.td]);
        check(self.ends[1 - self.at].host, &[]);
    }
}

/// Runs one schedule.
fn run(seed: u64, largest: Level, chaos: Option<Chaos>) -> Counts {
    let hosts = [host(), host()];
    let ends = [End::new(&hosts[0]), End::new(&hosts[1])];
    let before = [Belongings::of(&hosts[0]), Belongings::of(&hosts[1])];
    let td = guest(&hosts[0], &ends[0].service, largest);
    let mut chance = Chance::new(seed);
    let mut model = Model {
        ends: [&ends[0], &ends[1]],
        at: 0,
        td,
        pages: [Known::Absent; PAGES.len()],
        written: 0,
        chaos,
        counts: Counts::default(),
    };
    for operation in 0..OPERATIONS {
        model.step(&mut chance);
        model.compare(&format!("seed {seed}, {largest}, operation {operation}"));
    }
    let counts = model.counts;
    assert!(model.td.teardown().is_clean(), "seed {seed}");
    assert_eq!([Belongings::of(&hosts[0]), Belongings::of(&hosts[1])], before, "seed {seed}");
    counts
}

/// Runs many schedules and says what they came to, or the one that the environment names.
fn run_all(seeds: Range<u64>, chaos: impl Fn(u64) -> Option<Chaos>) -> Option<Counts> {
    let mut sum = Counts::default();
    for seed in replay::seeds(seeds) {
        let counts = run(seed, [Level::L2M, Level::L4K][seed as usize % 2], chaos(seed));
        sum.moved += counts.moved;
        sum.given_up += counts.given_up;
        sum.memory_went += counts.memory_went;
        sum.refused += counts.refused;
    }
    println!("{sum:?}");
    if replay::one_seed().is_some() {
        return None;
    }
    // Schedules that never come to what they are about would agree with anything.
    assert!(sum.moved > 5 && sum.given_up > 5 && sum.memory_went > 0, "{sum:?}");
    Some(sum)
}

#[test]
fn inv_65_a_td_that_moves_or_stays_holds_what_a_flat_model_says_under_any_schedule() {
    run_all(1..7, |_| None);
}

#[test]
fn inv_65_transient_refusals_of_both_modules_change_nothing_that_pages_hold() {
    let sum = run_all(11..15, |seed| Some(Chaos { seed, one_in: 5 }));
    assert!(sum.as_ref().is_none_or(|sum| sum.refused > 40), "{sum:?}");
}
