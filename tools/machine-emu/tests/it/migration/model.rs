//! Random schedules of a guest and its host beside a flat model of what each page holds, on two machines between which the TD
//! moves: sessions begin at any moment, are given up after any step, or come to their end, while the guest writes and
//! memory goes. Beside it, on either machine, may be a TD with L2 VMs, which stays and has a model of its own: no TD that moves
//! has any, by the module's rule.

use std::ops::Range;

use machine_emu::Hardware;
use seam_emu::features::FeatureSet;
use seam_emu::inject::{Chaos, FaultPlan};
use td_host::migration::bundle::{Answer, Message};
use td_host::migration::destination::Destination;
use td_host::migration::failure::Failure;
use td_host::migration::source::{Order, Plan, Source, Step};
use td_host::td::Td;
use td_host::td::config::TdConfig;
use tdvisor_base::Level;
use tdvisor_test_data::chance::Chance;
use tdvisor_test_data::replay;

use super::pages::{Known, PAGES, read, touch};
use super::world::{Belongings, EmulatedHost, EmulatedTd, End, SPARE, agree, check, guest, hosts_with};
use crate::partitioning::model::{AliasModel, VMS};

const OPERATIONS: usize = 50;
/// One operation in this many is a session.
const SESSIONS: usize = 6;
/// A session that is to be given up is so within this many steps; it may have come to its end before.
const STEPS: usize = 48;

/// A TD on one of two machines, and what the model knows of it.
struct Model<'s, 'h> {
    ends: [&'s End<'h>; 2],
    at: usize,
    td: EmulatedTd<'h>,
    pages: [Known; PAGES.len()],
    written: u64,
    chaos: Option<Chaos>,
    counts: Counts,
    neighbours: Vec<AliasModel<'s, 'h>>,
}

/// How sessions ended.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    moved: usize,
    given_up: usize,
    memory_went: usize,
    refused: usize,
}

/// One of the TDs that stay goes on, if there are any.
fn go_on(neighbours: &mut [AliasModel<'_, '_>], chance: &mut Chance) {
    if !neighbours.is_empty() {
        let which = chance.index(neighbours.len());
        neighbours[which].step(chance);
    }
}

impl<'h> Model<'_, 'h> {
    fn host(&self) -> &'h EmulatedHost {
        self.ends[self.at].host
    }

    /// One operation at random.
    fn step(&mut self, chance: &mut Chance) {
        go_on(&mut self.neighbours, chance);
        if chance.index(SESSIONS) == 0 {
            return self.session(chance);
        }
        self.written += 1;
        let (page, kind) = (chance.index(PAGES.len()), chance.index(6));
        self.pages[page] = touch((self.host(), &self.td), page, self.pages[page], kind, self.written);
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
            if chance.index(4) == 0 {
                go_on(&mut self.neighbours, chance);
            }
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
                self.pages[page] = touch(place, page, known, kind, self.written);
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
        for neighbour in &self.neighbours {
            neighbour.compare(when);
        }
    }
}

/// Who is beside the TD that moves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nobody,
    /// A TD with L2 VMs, on each machine.
    Partitioned,
}

/// Runs one schedule.
fn run(seed: u64, largest: Level, chaos: Option<Chaos>, beside: Beside) -> Counts {
    let hosts = hosts_with(
        seed,
        Hardware {
            engine: seam_emu::testing::engine(),
            features: FeatureSet::Partitioned,
            ..Hardware::default()
        },
    );
    let ends = [End::new(&hosts[0]), End::new(&hosts[1])];
    let stay: Vec<_> = match beside {
        Beside::Nobody => Vec::new(),
        Beside::Partitioned => hosts.iter().map(|host| (host, partitioned(host, largest))).collect(),
    };
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
        neighbours: stay.iter().map(|(host, td)| AliasModel::new(host, td)).collect(),
    };
    for operation in 0..OPERATIONS {
        model.step(&mut chance);
        model.compare(&format!("seed {seed}, {largest}, operation {operation}"));
    }
    let counts = model.counts;
    assert!(model.td.teardown().is_clean(), "seed {seed}");
    drop(model.neighbours);
    if beside == Beside::Nobody {
        assert_eq!([Belongings::of(&hosts[0]), Belongings::of(&hosts[1])], before, "seed {seed}");
    }
    for (host, td) in stay {
        check(host, &[&td]);
        assert!(td.teardown().is_clean(), "seed {seed}");
    }
    counts
}

/// A TD with L2 VMs.
fn partitioned(host: &EmulatedHost, largest_page: Level) -> EmulatedTd<'_> {
    let config = TdConfig { memory: 24 << 20, l2_vms: VMS as u8, largest_page, ..TdConfig::default() };
    Td::build(host, &config, tdvisor_guest_images::L1_VMM.image, |_| {}).unwrap()
}

/// Runs many schedules and says what they came to, or the one that the environment names.
fn run_all(seeds: Range<u64>, chaos: impl Fn(u64) -> Option<Chaos>, beside: Beside) -> Option<Counts> {
    let mut sum = Counts::default();
    for seed in replay::seeds(seeds) {
        let counts = run(seed, [Level::L2M, Level::L4K][seed as usize % 2], chaos(seed), beside);
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
    run_all(1..7, |_| None, Beside::Nobody);
}

#[test]
fn inv_65_transient_refusals_of_both_modules_change_nothing_that_pages_hold() {
    let sum = run_all(11..15, |seed| Some(Chaos { seed, one_in: 5 }), Beside::Nobody);
    assert!(sum.as_ref().is_none_or(|sum| sum.refused > 40), "{sum:?}");
}

#[test]
fn inv_65_a_td_that_moves_and_tds_with_l2_vms_beside_it_hold_what_their_models_say() {
    run_all(21..25, |_| None, Beside::Partitioned);
}

#[test]
fn inv_65_transient_refusals_change_nothing_where_tds_with_l2_vms_are_beside_one_that_moves() {
    let sum = run_all(31..35, |seed| Some(Chaos { seed, one_in: 5 }), Beside::Partitioned);
    assert!(sum.as_ref().is_none_or(|sum| sum.refused > 40), "{sum:?}");
}
