//! Random schedules of faults and conversions, against a flat reference map.
//!
//! Two TDs on one host, whose pages and tables share 2 MiB ranges of memory, take turns. After each operation
//! the frames that it touched are what the reference says; at rest points all frames are, and `audit()`
//! holds. What the module maps is asked of the module itself (TDH.MEM.SEPT.RD).
//!
//! `TDVISOR_MODEL_SEED` chooses another schedule, `TDVISOR_MODEL_STEPS` another length. A failure prints both.

mod memory;
#[path = "model/random.rs"]
mod random;
#[path = "model/reference.rs"]
mod reference;
#[path = "model/schedule.rs"]
mod schedule;

use memory::{Belongings, frames, host, td};
use random::{Random, Replay, from_environment};
use reference::Reference;
use schedule::Subject;
use seam_emu::inject::{Chaos, FaultPlan};
use tdvisor_base::Level;
use vmm_core::platform::LpId;

/// Frames of each TD that schedules work on: eight huge pages, so that operations meet.
const FRAMES: u64 = 8 * 512;
const BYTES: u64 = FRAMES * 4096;

/// Operations between two rest points.
const BETWEEN_RESTS: u64 = 500;

fn run(default_seed: u64, default_steps: u64, largest: [Level; 2], chaos: Option<u64>) {
    let seed = from_environment("TDVISOR_MODEL_SEED").unwrap_or(default_seed);
    let steps = from_environment("TDVISOR_MODEL_STEPS").unwrap_or(default_steps);
    let mut replay = Replay { seed, step: 0 };
    let host = host(384 << 20);
    let before = Belongings::of(&host);
    let tds = largest.map(|largest| td(&host, BYTES, largest));
    if let Some(one_in) = chaos {
        let plan = FaultPlan { chaos: Some(Chaos { seed, one_in }), ..FaultPlan::default() };
        host.platform().machine().faults().set_plan(plan);
    }
    let mut random = Random::new(seed);
    {
        let mut lp = 2;
        let mut subjects = tds.each_ref().map(|td| {
            lp += 1;
            let seat = td.memory().take_seat(LpId(lp)).expect("an unused processor and a free seat");
            let largest = largest[lp as usize - 3];
            Subject { td, seat, reference: Reference::new(frames(0, FRAMES), largest) }
        });
        for step in 0..steps {
            replay.step = step;
            let turn = random.below(2) as usize;
            subjects[turn].step(&mut random);
            if step % BETWEEN_RESTS == BETWEEN_RESTS - 1 {
                subjects.iter_mut().for_each(Subject::rest);
            }
        }
        subjects.iter_mut().for_each(Subject::rest);
    }
    for td in tds {
        let report = td.teardown();
        assert!(report.is_clean(), "teardown: {report:?}");
    }
    assert_eq!(Belongings::of(&host), before, "pages or key ids were lost");
    assert_eq!(host.platform().violations(), []);
    let calls = host.platform().trace().calls();
    for leaf in ["TDH.MEM.PAGE.DEMOTE", "TDH.MEM.SEPT.REMOVE", "TDH.MEM.PAGE.REMOVE"] {
        let enough = !largest.contains(&Level::L2M) || steps < 1000;
        assert!(enough || calls.contains_key(leaf), "the schedule never came to {leaf}");
    }
}

#[test]
fn two_tds_do_what_the_flat_reference_does() {
    run(1, 100_000, [Level::L2M, Level::L2M], None);
}

#[test]
fn a_td_of_small_pages_and_one_of_huge_pages_do_what_the_flat_reference_does() {
    run(2, 5_000, [Level::L4K, Level::L2M], None);
}

#[test]
fn transient_refusals_of_the_module_change_no_outcome() {
    run(3, 10_000, [Level::L2M, Level::L2M], Some(40));
}
