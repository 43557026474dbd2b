//! Speed of the emulated TDX module: what a call costs beside what memory costs, and whether two TDs on two
//! threads get in each other's way.
//!
//! Figures of one thread are CPU time, product and limit in turns, seven times, medians. Figures of two threads
//! are wall time of short bursts in which neither was taken off its core; where no such burst is found, there is
//! no figure, and the benchmark says so. Writes `target/bench/seam_emu.json`.
//!
//! - A SEAMCALL that fails its first check: what every call pays.
//! - AUG and ACCEPT of 4 KiB pages, in a pool of 64 MiB that caches do not hold, against filling two such pools
//!   with zeros, page by page in the same order. (The pair zeroes a page once.)
//! - The same pairs by two TDs on two threads, against one: with all that belongs to the second TD in another
//!   1 GiB block than the first one's, and in the same block, where every PAMT walk locks the same 1G entry.
//! - Replaying the recordings of Intel's module (`TDVISOR_VECTORS`, as for the tests).

#[path = "seam_emu/recordings.rs"]
mod recordings;
#[path = "seam_emu/rig.rs"]
mod rig;
#[path = "seam_emu/threads.rs"]
mod threads;

use std::process::ExitCode;

use rig::Rig;
use tdvisor_tests::bench::clock::{evict, interleaved, shuffled, timed};
use tdvisor_tests::bench::{self, Bar, Report};
use tdx_module_iface::{Gprs, TdhLeaf};

/// 64 MiB of 4 KiB pages.
const POOL: u64 = 1 << 14;

/// Calls that the first check of their leaf, or of the dispatcher, refuses.
fn bare(report: &mut Report) {
    const CALLS: u64 = 1 << 16;
    let rig = Rig::new(1);
    let repeat = |gprs: Gprs| {
        timed(|| {
            for _ in 0..CALLS {
                let out = rig.call(0, gprs);
                assert_ne!(out.rax, 0);
            }
        }) / CALLS as f64
    };
    let misaligned = Gprs { rax: u64::from(TdhLeaf::MEM_PAGE_AUG.0), rdx: 1, ..Gprs::ZERO };
    let reserved_bit = Gprs { rax: 1 << 63, ..Gprs::ZERO };
    let [first, dispatch] = interleaved(|which| repeat([misaligned, reserved_bit][which]));
    report.put("bare_seamcall_ns", first, Bar::AtMost(100.0), "AUG of a misaligned TDR".into());
    report.put("bare_seamcall_refused_by_dispatch_ns", dispatch, Bar::None, "a reserved bit of RAX".into());
}

/// AUG and ACCEPT of a page against zeroing twice as much, all of it cold.
fn aug_accept(report: &mut Report) {
    let rig = Rig::new(1);
    let td = rig.td(0, 0, POOL);
    let order = shuffled(POOL);
    let mut garbage = vec![0u64; 8 << 20];
    // Two pools of pages, touched once: neither side pays for memory that the operating system has yet to give.
    let mut pools = [vec![1u64; (POOL << 9) as usize], vec![1u64; (POOL << 9) as usize]];
    td.aug_and_accept(&rig, &order);
    td.remove_all(&rig, &order);
    let [pair, zero] = interleaved(|which| match which {
        0 => {
            evict(&mut garbage);
            let time = timed(|| td.aug_and_accept(&rig, &order));
            td.remove_all(&rig, &order);
            time
        }
        _ => {
            evict(&mut garbage);
            timed(|| {
                for page in &order {
                    for pool in &mut pools {
                        pool[(page << 9) as usize..][..512].fill(0);
                    }
                }
                std::hint::black_box(&mut pools);
            })
        }
    });
    let (pair, zero) = (pair / POOL as f64, zero / POOL as f64);
    let note = format!("{pair:.0} ns against {zero:.0} ns");
    report.put("aug_accept_4k_vs_zeroing_8k_cold", pair / zero, Bar::AtMost(3.0), note);
}

fn main() -> ExitCode {
    bench::main(
        "seam_emu",
        &[
            ("bare", &bare),
            ("aug_accept", &aug_accept),
            ("threads", &threads::run),
            ("replay", &recordings::replay),
        ],
    )
}
