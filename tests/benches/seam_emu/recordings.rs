//! How long all recordings take to replay.

use std::path::PathBuf;

use seam_emu::conformance::{self, Options};

use super::clock::wall;
use super::report::{Bar, Report};

const KEY: &str = "replay_of_all_recordings_s";
const BAR: Bar = Bar::AtMost(10.0);

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

/// The shortest of three runs: what else the machine does makes a run longer, never shorter.
pub fn replay(report: &mut Report) {
    let folder = match folder() {
        Ok(folder) => folder,
        Err(why) => return report.put_or_skip(KEY, Err(why), BAR, String::new()),
    };
    let mut shortest = f64::INFINITY;
    let mut calls = 0;
    for _ in 0..3 {
        let start = wall();
        match conformance::run(std::slice::from_ref(&folder), &Options::default(), &|_| ()) {
            Ok(result) => calls = result.total().calls,
            Err(error) => return report.put_or_skip(KEY, Err(error.to_string()), BAR, String::new()),
        }
        shortest = shortest.min((wall() - start) as f64 / 1e9);
    }
    report.put(KEY, shortest, BAR, format!("{calls} calls"));
}
