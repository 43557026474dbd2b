//! Random schedules over two TDs with two vCPUs each, against a flat reference map.
//!
//! The TDs share a host, and with it 2 MiB ranges of memory. One operation follows the other: faults, ACCEPTs
//! and accesses by the guests (interrupted or not), conversions, holes, splits, merges, prefaults, reclaiming of
//! tables, aging, dirty logging, and the removal of the whole slot. After each, what it touched is what the
//! reference says; at rest points every frame is, and `audit()` holds. What is mapped and accepted is asked of
//! the module itself (TDH.MEM.SEPT.RD); contents are read by the guests.
//!
//! # Replaying
//! A failure is shrunk to a short schedule, which is printed with its seed. `TDVISOR_MODEL_SEED` runs that one
//! schedule, `TDVISOR_MODEL_STEPS` gives it another length.

mod operation;
mod reference;
mod shrink;
mod subject;

use std::cell::RefCell;
use std::collections::BTreeMap;

use self::operation::{Step, schedule};
use self::subject::Subject;
use crate::memory::{Belongings, host, td_with_vcpus};
use seam_emu::inject::{Chaos, FaultPlan};
use td_host::platform::LpId;
use tdvisor_base::Level;
use tdvisor_test_data::replay;

/// Operations of one schedule.
const STEPS: u64 = 2_500;
/// Operations between two rest points.
const BETWEEN_RESTS: usize = 500;

/// What a schedule runs on.
#[derive(Clone, Copy, Debug)]
struct Setting {
    /// The largest page of each TD.
    largest: [Level; 2],
    /// One call of the module in this many fails.
    chaos: Option<u64>,
}

/// Runs one schedule; panics where something is not as the reference says. Gives the calls of the module.
fn run(setting: Setting, seed: u64, steps: &[Step]) -> BTreeMap<String, u64> {
    let host = host(448 << 20);
    let before = Belongings::of(&host);
    let tds = setting.largest.map(|largest| td_with_vcpus(&host, 0, largest, 2));
    let mut subjects = [0, 1].map(|i| {
        let seat =
            tds[i].memory().take_seat(LpId(3 + i as u32)).expect("an unused processor and a free seat");
        Subject::new(&host, &tds[i], seat)
    });
    if let Some(one_in) = setting.chaos {
        let plan = FaultPlan { chaos: Some(Chaos { seed, one_in }), ..FaultPlan::default() };
        host.platform().machine().faults().set_plan(plan);
    }
    for piece in steps.chunks(BETWEEN_RESTS) {
        for step in piece {
            subjects[step.td].step(step.operation);
        }
        subjects.iter_mut().for_each(Subject::rest);
    }
    drop(subjects);
    assert_eq!(host.platform().machine().audit(), [], "the module's own records");
    for td in tds {
        let report = td.teardown();
        assert!(report.is_clean(), "teardown: {report:?}");
    }
    assert_eq!(Belongings::of(&host), before, "pages or key ids were lost");
    assert_eq!(host.platform().violations(), []);
    host.platform().trace().calls()
}

/// Runs many schedules, or the one that the environment names.
fn run_all(setting: Setting, seeds: std::ops::Range<u64>) {
    let steps = replay::number("TDVISOR_MODEL_STEPS").unwrap_or(STEPS);
    let seeds = replay::seeds(seeds);
    let calls = RefCell::new(BTreeMap::new());
    for seed in seeds {
        shrink::check(seed, &schedule(seed, steps), |steps| {
            *calls.borrow_mut() = run(setting, seed, steps);
        });
    }
    // Schedules that never come to what they are about would agree with anything.
    for leaf in ["PAGE.DEMOTE", "PAGE.PROMOTE", "SEPT.REMOVE", "PAGE.REMOVE", "RANGE.UNBLOCK"] {
        let name = format!("TDH.MEM.{leaf}");
        let enough = steps < STEPS || setting.largest.contains(&Level::L4K);
        assert!(enough || calls.borrow().contains_key(&name), "the last schedule never came to {name}");
    }
}

#[test]
fn inv_47_two_tds_do_what_the_flat_reference_does() {
    run_all(Setting { largest: [Level::L2M, Level::L2M], chaos: None }, 0..32);
}

#[test]
fn inv_47_a_td_of_small_pages_and_one_of_huge_pages_do_what_the_flat_reference_does() {
    run_all(Setting { largest: [Level::L4K, Level::L2M], chaos: None }, 100..104);
}

#[test]
fn inv_47_transient_refusals_of_the_module_change_no_outcome() {
    run_all(Setting { largest: [Level::L2M, Level::L2M], chaos: Some(40) }, 200..206);
}

#[test]
fn a_schedule_that_fails_is_shrunk_to_the_operations_that_matter() {
    let steps = schedule(7, 300);
    // As if the second interrupt of the schedule were fatal, once a hole had been punched before it.
    let fails = |steps: &[Step]| {
        let hole = steps.iter().position(Step::is_hole);
        hole.is_some_and(|hole| steps[hole..].iter().filter(|step| step.is_interrupted()).count() >= 2)
    };
    assert!(fails(&steps));
    let shrunk = shrink::shrink(&steps, fails);
    assert_eq!(shrunk.len(), 3, "{shrunk:?}");
    assert!(fails(&shrunk));
}
