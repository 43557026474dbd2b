//! Fixed amounts of work: `tdvisor-instructions WORK ROUNDS` does one of them that often.
//!
//! `scripts/count-instructions` runs each under callgrind with two numbers of rounds; the difference is what a round
//! costs, without the way there. Instructions say what wall time on a busy machine does not: they are the same in
//! every run of one binary. What is measured is what the benchmarks measure, with their own files:
//!
//! - `interpreter_…`: a million instructions of a loop in `x86-emu`.
//! - `fault_4k`: 4096 private faults in `mirror-ept`, in shuffled order, and their removal.
//! - `seamcall_refused`: 1000 SEAMCALLs that fail their first check in `seam-emu`.
//! - `aug_accept_4k`: 1024 pages through TDH.MEM.PAGE.AUG, TDG.MEM.PAGE.ACCEPT and back.
//! - `verify_fresh`, `verify_cached_collateral`: one verification of a quote in `attest`.

#[path = "../../benches/attest/evidence.rs"]
mod evidence;
#[expect(dead_code, reason = "shared with the benchmark, which uses more of it")]
#[path = "../../benches/x86_emu/loops.rs"]
mod loops;
#[expect(dead_code, reason = "shared with the benchmark, which uses more of it")]
#[path = "../../benches/mirror_ept/ours.rs"]
mod ours;
#[path = "../../benches/seam_emu/rig.rs"]
mod rig;

use std::hint::black_box;
use std::process::ExitCode;

use evidence::{AT, Evidence};
use mirror_ept::AccessTracking;
use ours::Vcpu;
use rig::Rig;
use tdvisor_attest::collateral::Bundle;
use tdvisor_attest::verify::Verifier;
use tdx_module_iface::{Gprs, TdhLeaf};

/// Each of `pages` pages once, far apart: the order is the same in every run.
fn scattered(pages: u64) -> Vec<u64> {
    // Odd, so that it shares no factor with a power of two.
    const STRIDE: u64 = 0x9e5;
    (0..pages).map(|n| n * STRIDE % pages).collect()
}

fn interpreter(which: usize, rounds: u64) {
    const INSTRUCTIONS: u64 = 1_000_000;
    black_box(loops::LOOPS[which].load(rounds * INSTRUCTIONS).run());
}

fn fault_4k(rounds: u64) {
    const PAGES: u64 = 4096;
    let mmu = ours::mmu(100, AccessTracking::Permissions, 0);
    let order = scattered(PAGES);
    for _ in 0..rounds {
        let mut vcpu = Vcpu::new(&mmu);
        vcpu.run(&order);
        vcpu.clear(PAGES);
    }
}

fn seamcall_refused(rounds: u64) {
    const CALLS: u64 = 1000;
    let rig = Rig::new(1);
    let misaligned = Gprs { rax: u64::from(TdhLeaf::MEM_PAGE_AUG.0), rdx: 1, ..Gprs::ZERO };
    for _ in 0..rounds * CALLS {
        assert_ne!(black_box(rig.call(0, misaligned)).rax, 0);
    }
}

fn aug_accept_4k(rounds: u64) {
    const PAGES: u64 = 1024;
    let rig = Rig::new(1);
    let td = rig.td(0, 0, PAGES);
    let order = scattered(PAGES);
    for _ in 0..rounds {
        td.aug_and_accept(&rig, &order);
        td.remove_all(&rig, &order);
    }
}

fn verify_fresh(rounds: u64) {
    let evidence = Evidence::new(1);
    let anchor = evidence.anchor();
    for _ in 0..rounds {
        let bundle = Bundle::from_json(&evidence.json).expect("the bundle");
        let mut verifier = Verifier::new(anchor.clone());
        verifier.add_collateral(&bundle).expect("the collateral");
        black_box(verifier.verify(&evidence.quotes[0], AT).expect("the quote"));
    }
}

fn verify_cached_collateral(rounds: u64) {
    let evidence = Evidence::new(1);
    let mut verifier = Verifier::new(evidence.anchor());
    verifier.add_collateral(&evidence.bundle).expect("the collateral");
    for _ in 0..rounds {
        verifier.forget_platforms();
        black_box(verifier.verify(&evidence.quotes[0], AT).expect("the quote"));
    }
}

/// A piece of work, by name.
type Work = (&'static str, fn(u64));

const WORK: [Work; 8] = [
    ("interpreter_registers", |rounds| interpreter(0, rounds)),
    ("interpreter_memory", |rounds| interpreter(1, rounds)),
    ("interpreter_calls", |rounds| interpreter(2, rounds)),
    ("fault_4k", fault_4k),
    ("seamcall_refused", seamcall_refused),
    ("aug_accept_4k", aug_accept_4k),
    ("verify_fresh", verify_fresh),
    ("verify_cached_collateral", verify_cached_collateral),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [name, rounds] = arguments.as_slice()
        && let Some((_, work)) = WORK.iter().find(|(known, _)| known == name)
        && let Ok(rounds) = rounds.parse()
    {
        work(rounds);
        return ExitCode::SUCCESS;
    }
    for (name, _) in WORK {
        println!("{name}");
    }
    // A list was asked for, or what was asked for is not in it.
    if arguments.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) }
}
