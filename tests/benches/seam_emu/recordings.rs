//! How long all recordings take to replay.

use std::path::PathBuf;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use seam_emu::conformance::{self, Options};

use super::clock::wall;
use super::report::{Bar, Report};

const KEY: &str = "replay_of_all_recordings_s";
const SECONDS: f64 = 10.0;
const BAR: Bar = Bar::AtMost(SECONDS);

/// The folder of the module's recordings, or why there is none.
fn folder() -> Result<PathBuf, String> {
    let setting = std::env::var("TDVISOR_VECTORS").unwrap_or_default();
    let folder = match setting.as_str() {
        "none" => return Err("TDVISOR_VECTORS=none".into()),
        "" | "required" => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"),
        folder => PathBuf::from(folder),
    };
    let folder = folder.join("tdx-module");
    if folder.is_dir() { Ok(folder) } else { Err("no recordings beside the workspace".into()) }
}

/// Processor time of all threads so far, in seconds.
fn processor_time() -> f64 {
    getrusage(UsageWho::RUSAGE_SELF)
        .map_or(0.0, |usage| (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6)
}

/// The shortest of three runs: what else the machine does makes a run longer, never shorter. Where even that one
/// is too long although two cores would have had the time, the machine was busy and the figure is skipped.
pub fn replay(report: &mut Report) {
    let folder = match folder() {
        Ok(folder) => folder,
        Err(why) => return report.put_or_skip(KEY, Err(why), BAR, String::new()),
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
