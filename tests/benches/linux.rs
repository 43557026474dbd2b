//! Linux in a TD: how long a boot takes, how fast the emulated processor is, what it costs beside the guest itself.
//!
//! Every boot is a process of its own: this program started anew ([`guest`]), which does with the library what
//! `tdvisor run --kernel` does; or `qemu-system-x86_64 -accel tcg`, with the same vmlinux as an ordinary guest, the
//! same initrd, console and amount of memory. The parent reads the console through a pipe, and the process's CPU
//! time at the lines of interest.
//!
//! - From the kernel's first line on the early console to its `Run /init` line, in turns with QEMU. The ratio is of
//!   medians of CPU time (user and system, all threads), because other load on the machine does not add to it; the
//!   one of wall time is written beside it, and means little on a busy machine.
//! - Instructions per second: one boot on the deterministic machine, whose clock counts instructions, over the CPU
//!   time of the vCPU's thread. Everything that the thread does is in that time: the module and the VMM too. The
//!   firmware's share of a boot is large, because it hashes the kernel; the kernel's share has a figure of its own.
//! - Memory: the peak of the resident set of a boot whose init touches 384 of 512 MiB, beyond the guest's 512 MiB.
//!   All of these are resident: the firmware accepts them before the kernel begins, which fills them with zeros.
//! - Idleness: CPU time of the process over the seconds that init sleeps.
//!
//! Needs `target/linux` (`tools/guests/linux/build.sh`) and QEMU. Writes `target/bench/linux.json`; a figure that
//! could not be measured says why: `{"skipped": why}`.

#[path = "linux/boots.rs"]
mod boots;
#[path = "linux/guest.rs"]
mod guest;
#[path = "linux/process.rs"]
mod process;

use std::process::ExitCode;

use boots::{Files, Vmm};
use tdvisor_tests::bench::clock::median;
use tdvisor_tests::bench::{self, Bar, Report};

/// Boots of each side.
const ROUNDS: usize = 5;
/// Memory of every guest.
const MEMORY_MIB: u64 = 512;
/// What the guest touches for the memory figure.
const TOUCHED_MIB: u64 = 384;
/// How long the idle guest sleeps.
const IDLE_SECONDS: u64 = 10;

/// From the kernel's first line to init, ours against QEMU's.
fn entry_to_init(files: &Files, report: &mut Report) {
    let measured = (|| -> Result<_, String> {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (vmm, times) in [Vmm::Tdvisor, Vmm::Qemu].into_iter().zip(&mut times) {
                times.push(boots::entry_to_init(files, vmm)?);
            }
        }
        Ok(times.map(|times| {
            let cpu = median(times.iter().map(|time| time.cpu).collect());
            let wall = median(times.iter().map(|time| time.wall).collect());
            (cpu, wall)
        }))
    })();
    let ratio = |pick: fn((f64, f64)) -> f64| match &measured {
        Ok([ours, peer]) => {
            let note = format!("{:.3} s against {:.3} s", pick(*ours), pick(*peer));
            (Ok(pick(*ours) / pick(*peer)), note)
        }
        Err(why) => (Err(why.clone()), String::new()),
    };
    let (cpu, note) = ratio(|(cpu, _)| cpu);
    report.put_or_skip(
        "linux_entry_to_init_vs_qemu_tcg",
        cpu,
        Bar::AtMost(4.0),
        format!("CPU time, {note}; aim 2"),
    );
    let (wall, note) = ratio(|(_, wall)| wall);
    report.put_or_skip("linux_entry_to_init_vs_qemu_tcg_wall", wall, Bar::None, format!("wall time, {note}"));
}

/// Instructions per microsecond of the vCPU's thread.
fn mips(files: &Files, report: &mut Report) {
    let boot = boots::counted(files);
    for (which, key) in ["x86_emu_mips_over_boot", "x86_emu_mips_kernel_to_init"].into_iter().enumerate() {
        let part = boot.as_ref().map(|parts| &parts[which]).map_err(Clone::clone);
        let note = match part {
            Ok(part) => format!("{} million in {:.2} s", part.instructions / 1_000_000, part.cpu),
            Err(_) => String::new(),
        };
        report.put_or_skip(key, part.map(boots::Counted::mips), Bar::AtLeast(80.0), note);
    }
}

/// What the emulator needs beyond the memory of its guest.
fn memory(files: &Files, report: &mut Report) {
    let peaks = boots::peak_memory_mib(files);
    let bar = Bar::AtMost(MEMORY_MIB as f64 * 0.15 + 64.0);
    let note = match &peaks {
        Ok([at_entry, peak]) => {
            format!("peak {peak:.0} MiB of a guest of {MEMORY_MIB}; {at_entry:.0} when the kernel begins")
        }
        Err(_) => String::new(),
    };
    report.put_or_skip("memory_over_guest_mib", peaks.map(|[_, peak]| peak - MEMORY_MIB as f64), bar, note);
}

/// How much of a core an idle guest takes.
fn idle(files: &Files, report: &mut Report) {
    let note = format!("init sleeps for {IDLE_SECONDS} s of its time");
    report.put_or_skip("idle_guest_percent_of_a_core", boots::idle_percent(files), Bar::AtMost(5.0), note);
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((first, rest)) = arguments.split_first()
        && first == guest::ROLE
    {
        return guest::main(rest);
    }
    let files = match Files::find() {
        Ok(files) => files,
        Err(why) => {
            eprintln!("nothing can be measured: {why}");
            return ExitCode::from(2);
        }
    };
    bench::main(
        "linux",
        &[
            ("entry_to_init", &|report| entry_to_init(&files, report)),
            ("mips", &|report| mips(&files, report)),
            ("memory", &|report| memory(&files, report)),
            ("idle", &|report| idle(&files, report)),
        ],
    )
}
