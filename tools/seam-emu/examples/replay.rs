//! Replays recordings of Intel's module on the emulated one: `replay PATH...`, as `tdvisor conformance` does, without a
//! terminal. `scripts/count-instructions --replays` counts what it costs.

use std::path::PathBuf;
use std::process::ExitCode;

use seam_emu::conformance::{self, Options};

fn main() -> ExitCode {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let report = match conformance::run(&paths, &Options::default(), &|_| ()) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("replay: {error}");
            return ExitCode::from(2);
        }
    };
    let total = report.total();
    println!("{} of {} calls agree", total.agreeing, total.calls);
    if report.agrees() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
