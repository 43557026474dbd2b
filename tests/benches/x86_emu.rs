//! Millions of instructions per second of `x86-emu` on three loops, with every check on: registers only,
//! memory through the software TLB and the keyed arena, and calls with returns.
//!
//! The bar is 100 MIPS each. Time is CPU time of the thread, so that a busy machine does not count against the
//! emulator; the best of three runs counts. Writes `target/bench/x86_emu.json`.

#[path = "x86_emu/loops.rs"]
mod loops;

use std::process::ExitCode;

use loops::{LOOPS, Loop};
use tdvisor_tests::bench::clock::timed;
use tdvisor_tests::bench::{self, Bar, Report};

const INSTRUCTIONS: u64 = 60_000_000;
const RUNS: usize = 3;
const MIPS: Bar = Bar::AtLeast(100.0);

/// Million instructions per second of one run.
fn mips(what: &Loop) -> f64 {
    let mut loaded = what.load(INSTRUCTIONS);
    let mut retired = 0;
    let nanoseconds = timed(|| retired = loaded.run());
    retired as f64 / nanoseconds * 1e3
}

fn loops(report: &mut Report) {
    for what in &LOOPS {
        let best = (0..RUNS).map(|_| mips(what)).fold(0.0, f64::max);
        report.put(what.name, best, MIPS, "million instructions per second".into());
    }
}

fn main() -> ExitCode {
    bench::main("x86_emu", &[("loops", &loops)])
}
