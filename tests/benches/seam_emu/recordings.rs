//! How long all recordings take to replay.

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use seam_emu::conformance::{self, Options};
use tdvisor_test_data::vectors;
use tdvisor_tests::bench::clock::wall;
use tdvisor_tests::bench::{Bar, Report};

const KEY: &str = "replay_of_all_recordings_s";
const SECONDS: f64 = 10.0;
const BAR: Bar = Bar::AtMost(SECONDS);

/// Processor time of all threads so far, in seconds.
fn processor_time() -> f64 {
    getrusage(UsageWho::RUSAGE_SELF)
        .map_or(0.0, |usage| (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6)
}

/// The shortest of three runs: what else the machine does makes a run longer, never shorter. Where even that one
/// is too long although two cores would have had the time, the machine was busy and there is no figure.
pub fn replay(report: &mut Report) {
    let folder = match vectors::find(vectors::MODULE) {
        Ok(folder) => folder,
        Err(missing) => return report.put_or_skip(KEY, Err(missing.to_string()), BAR, String::new()),
    };
    let mut shortest = f64::INFINITY;
    let mut least_work = f64::INFINITY;
    let mut calls = 0;
    for _ in 0..3 {
        let (start, worked) = (wall(), processor_time());
        match conformance::run(std::slice::from_ref(&folder), &Options::default(), &|_| ()) {
            Ok(result) => calls = result.total().calls,
            Err(error) => return report.put_or_skip(KEY, Err(error.to_string()), BAR, String::new()),
        }
        shortest = shortest.min((wall() - start) as f64 / 1e9);
        least_work = least_work.min(processor_time() - worked);
    }
    let note = format!("{calls} calls, {least_work:.1} s of processor time ");
    let busy = shortest > SECONDS && least_work / 2.0 <= SECONDS;
    let value = if busy { Err(format!("{shortest:.1} s, no quiet run on two cores")) } else { Ok(shortest) };
    report.put_or_skip(KEY, value, BAR, note);
}
