//! The software processor beside QEMU's translator (TCG, `-cpu max`): the same kernel, initial RAM disk, console and
//! memory, one vCPU, in turns, five times; ratios of the medians of CPU time of each side's process. Below 1 is faster
//! than QEMU.
//!
//! What is timed lies between two lines of the guest's console (`engine/work.c`, `engine/init`):
//! - `register_loop`, `sieve`, `qsort`, `matrix`, `memcpy`: loops of a C program; `fork`: 300 processes of a shell.
//! - `boot_to_init`: from the kernel's first line to its `Run /init`; this and the loops on the kernel of `target/linux`.
//! - `distribution_boot`: a distribution's kernel from the start of the process to its power-off: the one that
//!   `tools/guests/linux/distribution.sh` brings, or that `TDVISOR_DISTRIBUTION_KERNEL` names.
//!
//! - `second_vcpu`: how much more of the register loop two vCPUs do than one, by wall time; of our side alone. `second_vcpu_share`: what
//!   part that is of what the machine's own two processors do with the same program. Processors that share a core, or that others use
//!   too, do less than twice as much: where the program itself does not reach [`IDLE_PAIR`], only the share has a bar.
//! - `resident`: the most memory that either side had resident when the distribution's kernel began init.
//!
//! The bars are the compiler's; `--engine` names another engine for our side. Writes `target/bench/engine.json`. Needs QEMU, gcc, busybox and cpio.

#[expect(dead_code, reason = "shared with the benchmark of Linux, which uses more of it")]
#[path = "linux/boots.rs"]
mod boots;
#[path = "linux/guest.rs"]
mod guest;
#[path = "linux/process.rs"]
mod process;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use boots::Files;
use process::Process;
use seam_emu::EngineKind;
use tdvisor_test_data::linux;
use tdvisor_tests::bench::clock::median;
use tdvisor_tests::bench::{self, Bar, Report};

/// Boots of each side.
const ROUNDS: usize = 5;
/// Memory of every guest.
const MEMORY_MIB: u64 = 512;
/// Of the benchmark of Linux, whose boots are shared.
const TOUCHED_MIB: u64 = 0;
/// Of the benchmark of Linux, whose boots are shared.
const IDLE_SECONDS: u64 = 0;

const CONSOLE: &str = "console=ttyS0 earlycon=uart8250,io,0x3f8,115200 panic=-1";
/// A kernel's last line.
const POWER_DOWN: &str = "Power down";
/// Of the work as a program of this machine, beside the initial RAM disk.
const WORK_EXTENSION: &str = "work";
/// Names our side's engine.
const ENGINE: &str = "--engine";

/// A figure, and its bar: at most so many times QEMU's.
struct Figure {
    key: &'static str,
    at_most: f64,
}

const BOOT: Figure = Figure { key: "boot_to_init", at_most: 0.7 };
const DISTRIBUTION: [Figure; 2] =
    [Figure { key: "distribution_boot", at_most: 1.2 }, Figure { key: "resident", at_most: 1.5 }];
/// In the order in which the guest does them.
const WORK: [Figure; 6] = [
    Figure { key: "fork", at_most: 1.2 },
    Figure { key: "register_loop", at_most: 2.0 },
    Figure { key: "sieve", at_most: 1.5 },
    Figure { key: "qsort", at_most: 1.5 },
    Figure { key: "matrix", at_most: 1.5 },
    Figure { key: "memcpy", at_most: 0.7 },
];

/// Two vCPUs do at least so many times the independent work of one.
const SECOND_VCPU: Bar = Bar::AtLeast(1.8);
/// The same bar where the two processors of the machine do less than twice the work of one: 1.8 of 2.
const SECOND_VCPU_SHARE: Bar = Bar::AtLeast(0.9);
/// What two processors do at least, times the work of one, so that they can show [`SECOND_VCPU`].
const IDLE_PAIR: f64 = 1.9;
/// vCPUs of the boot that shows it.
const PAIR: u32 = 2;

/// Who runs the guest.
#[derive(Clone, Copy)]
enum Side {
    Ours,
    Qemu,
}

const SIDES: [Side; 2] = [Side::Ours, Side::Qemu];

/// One boot: its figures, CPU time in seconds or memory in MiB, and what its work came to.
struct Run {
    values: Vec<f64>,
    result: String,
}

/// A kernel with the initial RAM disk of this benchmark.
struct Boot<'a> {
    kernel: &'a Path,
    initrd: &'a Path,
    engine: EngineKind,
    /// Of our side.
    vcpus: u32,
}

impl Boot<'_> {
    fn start(&self, side: Side, parameters: &str) -> Result<Process, String> {
        let cmdline = format!("{CONSOLE} {parameters}");
        let mut command = match side {
            Side::Ours => {
                let files = Files { vmlinux: self.kernel.into(), initrd: self.initrd.into() };
                guest::command(guest::Pace::Real, (self.engine, self.vcpus), &files, &cmdline)?
            }
            Side::Qemu => {
                let mut qemu = Command::new("qemu-system-x86_64");
                qemu.args(["-accel", "tcg", "-cpu", "max", "-smp", "1", "-nodefaults", "-display", "none"]);
                qemu.args(["-no-reboot", "-serial", "stdio", "-m", &format!("{MEMORY_MIB}M")]);
                qemu.arg("-kernel").arg(self.kernel).arg("-initrd").arg(self.initrd);
                qemu.args(["-append", &cmdline]);
                qemu
            }
        };
        Process::start(&mut command)
    }

    /// From the kernel's first line to init, and each piece of work.
    fn work(&self, side: Side) -> Result<Run, String> {
        let mut process = self.start(side, "engine=all")?;
        let (_, entry) = process.wait_for(boots::FIRST_LINE)?;
        let (_, init) = process.wait_for(boots::INIT_LINE)?;
        let mut values = vec![init.since(entry).cpu];
        for piece in &WORK {
            let (_, begin) = process.wait_for(&format!("engine: begin {}", piece.key))?;
            let (_, end) = process.wait_for(&format!("engine: end {}", piece.key))?;
            values.push(end.since(begin).cpu);
        }
        let (result, _) = process.wait_for("engine: result")?;
        Ok(Run { values, result })
    }

    /// From the process's start to the kernel's power-off, and the memory that it took.
    fn to_power_off(&self, side: Side) -> Result<Run, String> {
        let mut process = self.start(side, "engine=boot")?;
        process.wait_for(boots::INIT_LINE)?;
        let resident = process.peak_memory_mib()?;
        let (_, end) = process.wait_for(POWER_DOWN)?;
        Ok(Run { values: vec![end.cpu, resident], result: String::new() })
    }
}

/// How many times the work of one processor two do in the same time.
fn scaling(mut process: Process) -> Result<f64, String> {
    let mut wall = |piece: &str| {
        let (_, begin) = process.wait_for(&format!("engine: begin {piece}"))?;
        let (_, end) = process.wait_for(&format!("engine: end {piece}"))?;
        Ok::<f64, String>(end.since(begin).wall)
    };
    let (alone, together) = (wall("alone")?, wall("together")?);
    Ok(f64::from(PAIR) * alone / together)
}

/// Our two vCPUs, and the machine's two processors, in turns: the medians of how they scale.
fn second_processor(boot: &Boot<'_>) -> Result<(f64, f64), String> {
    let program = boot.initrd.with_extension(WORK_EXTENSION);
    let (mut ours, mut machine) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(scaling(boot.start(Side::Ours, "engine=scaling")?)?);
        machine.push(scaling(Process::start(Command::new(&program).arg("scaling"))?)?);
    }
    Ok((median(ours), median(machine)))
}

/// The medians of what both sides took, in turns; figure by figure, ours and QEMU's. Both must come to the same.
fn in_turns(measure: impl Fn(Side) -> Result<Run, String>) -> Result<Vec<[f64; 2]>, String> {
    let mut rounds = [Vec::new(), Vec::new()];
    let mut expected = None;
    for _ in 0..ROUNDS {
        for (side, rounds) in SIDES.into_iter().zip(&mut rounds) {
            let run = measure(side)?;
            let expected = expected.get_or_insert_with(|| run.result.clone());
            if *expected != run.result {
                return Err(format!("'{}' on one side, '{expected}' on the other", run.result));
            }
            rounds.push(run.values);
        }
    }
    let [ours, qemu] = rounds;
    let figures = ours.first().map_or(0, Vec::len);
    let median_of =
        |rounds: &[Vec<f64>], figure: usize| median(rounds.iter().map(|round| round[figure]).collect());
    Ok((0..figures).map(|figure| [median_of(&ours, figure), median_of(&qemu, figure)]).collect())
}

fn put(report: &mut Report, figures: &[&Figure], measured: Result<Vec<[f64; 2]>, String>) {
    for (index, figure) in figures.iter().enumerate() {
        let (value, note) = match &measured {
            Ok(medians) => {
                let [ours, qemu] = medians[index];
                (Ok(ours / qemu), format!("{ours:.2} against {qemu:.2}"))
            }
            Err(why) => (Err(why.clone()), String::new()),
        };
        report.put_or_skip(figure.key, value, Bar::AtMost(figure.at_most), note);
    }
}

/// The initial RAM disk, built anew in the folder of this program.
fn initrd() -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let initrd = program.with_file_name("engine-initrd");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/engine/build.sh");
    let built = Command::new(script).arg(&initrd).output().map_err(|error| format!("{script}: {error}"))?;
    if built.status.success() { Ok(initrd) } else { Err(String::from_utf8_lossy(&built.stderr).into_owned()) }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((first, rest)) = arguments.split_first()
        && first == guest::ROLE
    {
        return guest::main(rest);
    }
    let named = arguments.iter().skip_while(|argument| *argument != ENGINE).nth(1);
    let engine = match named.map_or(Ok(EngineKind::Compiler), |name| name.parse()) {
        Ok(engine) => engine,
        Err(unknown) => {
            eprintln!("{ENGINE}: {unknown}");
            return ExitCode::from(2);
        }
    };
    let initrd = initrd();
    let work = |report: &mut Report| {
        let measured = (|| {
            let kernel = linux::find("vmlinux").map_err(|missing| missing.to_string())?;
            let boot =
                Boot { kernel: &kernel, initrd: initrd.as_deref().map_err(Clone::clone)?, engine, vcpus: 1 };
            in_turns(|side| boot.work(side))
        })();
        let figures: Vec<&Figure> = std::iter::once(&BOOT).chain(&WORK).collect();
        put(report, &figures, measured);
    };
    let scaling = |report: &mut Report| {
        let measured = (|| {
            let kernel = linux::find("vmlinux").map_err(|missing| missing.to_string())?;
            let initrd = initrd.as_deref().map_err(Clone::clone)?;
            let boot = Boot { kernel: &kernel, initrd, engine, vcpus: PAIR };
            second_processor(&boot)
        })();
        let note = measured
            .as_ref()
            .map_or(String::new(), |(_, machine)| format!("the machine's own: {machine:.2}"));
        let whole = measured.clone().and_then(|(ours, machine)| match machine >= IDLE_PAIR {
            true => Ok(ours),
            false => Err(format!(
                "{ours:.2}, on two processors that do {machine:.2} times the work of one by themselves"
            )),
        });
        report.put_or_skip("second_vcpu", whole, SECOND_VCPU, note.clone());
        let share = measured.map(|(ours, machine)| ours / machine);
        report.put_or_skip("second_vcpu_share", share, SECOND_VCPU_SHARE, note);
    };
    let distribution = |report: &mut Report| {
        let measured = (|| {
            let kernel = linux::find_distribution_kernel().map_err(|missing| missing.to_string())?;
            let boot =
                Boot { kernel: &kernel, initrd: initrd.as_deref().map_err(Clone::clone)?, engine, vcpus: 1 };
            in_turns(|side| boot.to_power_off(side))
        })();
        put(report, &DISTRIBUTION.each_ref(), measured);
    };
    bench::main("engine", &[("work", &work), ("scaling", &scaling), ("distribution", &distribution)])
}
