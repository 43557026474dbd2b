//! The child's part: one boot, as `tdvisor run --kernel` does it, console on stdout.
//!
//! On the deterministic machine the boot ends with a line of numbers: instructions that the guest retired (its
//! virtual clock moves a fixed number of ticks with each, and jumps only while nobody executes), and nanoseconds
//! of CPU time of the vCPU's thread, which has none while the guest sleeps; first of the whole boot, then from
//! the kernel's first line to init.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use machine_emu::trace::Trace;
use machine_emu::{EmulatedMachine, Hardware, Pace as MachinePace};
use nix::time::{ClockId, clock_gettime};
use seam_emu::guest::{GuestCpu, GuestState, VmExit};
use seam_emu::{CpuGuest, EngineKind, GuestEnv};
use td_host::Host;
use td_host::td::config::TdConfig;
use td_host::td::{Ending, Td};
use tdvisor_base::Gpa;
use tdvisor_guest_images::BOOT_SHIM;
use tdvisor_monitor::{Monitor, RunsOn};
use tdvisor_runtime::board::boot_files::{BootFiles, LinuxFiles};
use tdvisor_runtime::board::{Board, BoardSpec, Transport};

use crate::MEMORY_MIB;
use crate::boots::{FIRST_LINE, Files, INIT_LINE};

/// The first argument of a child.
pub const ROLE: &str = "boot-as-td";
/// What stands before the numbers.
pub const COUNTED: &str = "counted:";

/// The machine's pace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    Real,
    /// Virtual time; counts instructions.
    Deterministic,
}

const DETERMINISTIC: &str = "deterministic";

/// This program, to boot these files in a TD of so many processors that have this engine.
pub fn command(
    pace: Pace,
    (engine, vcpus): (EngineKind, u32),
    files: &Files,
    cmdline: &str,
) -> Result<Command, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    let pace = if pace == Pace::Deterministic { DETERMINISTIC } else { "real" };
    command
        .args([ROLE, pace, engine.name(), &vcpus.to_string()])
        .arg(&files.vmlinux)
        .arg(&files.initrd)
        .arg(cmdline);
    Ok(command)
}

/// Boots what the arguments say.
pub fn main(arguments: &[String]) -> ExitCode {
    let [pace, engine, vcpus, kernel, initrd, cmdline] = arguments else { return ExitCode::from(2) };
    let (Ok(engine), Ok(vcpus)) = (engine.parse(), vcpus.parse()) else { return ExitCode::from(2) };
    let pace = if pace == DETERMINISTIC { Pace::Deterministic } else { Pace::Real };
    match boot(pace, (engine, vcpus), kernel.as_ref(), initrd.as_ref(), cmdline) {
        Ok(Ending::PoweredOff { code: 0 }) => ExitCode::SUCCESS,
        Ok(ending) => {
            println!("the TD ended otherwise: {ending}");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("no boot: {error}");
            ExitCode::FAILURE
        }
    }
}

fn boot(
    pace: Pace,
    (engine, vcpus): (EngineKind, u32),
    kernel: &Path,
    initrd: &Path,
    cmdline: &str,
) -> Result<Ending, Box<dyn Error>> {
    let config = TdConfig { memory: MEMORY_MIB << 20, vcpus, ..TdConfig::default() };
    let machine_pace = match pace {
        Pace::Real => MachinePace::Real,
        Pace::Deterministic => MachinePace::Deterministic { seed: 1 },
    };
    let machine = EmulatedMachine::with_hardware(
        &Hardware { engine, ..Hardware::default() },
        config.memory,
        config.vcpus,
        machine_pace,
        Trace::counting(),
    );
    let ticks = Arc::new(AtomicU64::new(0));
    if pace == Pace::Deterministic {
        let emulated = machine.machine();
        for lp in 0..emulated.num_lps() {
            emulated.set_guest_cpu(
                lp,
                Box::new(Counting { cpu: CpuGuest::with_engine(engine), ticks: ticks.clone() }),
            );
        }
    }
    let ticks_per_instruction = machine.machine().config().tsc_ticks_per_instruction;
    let host = Host::bring_up(machine, |_| {})?;
    let files = LinuxFiles {
        kernel: std::fs::read(kernel)?.into(),
        initrd: Some(std::fs::read(initrd)?.into()),
        command_line: cmdline.to_owned(),
    };
    let samples: Samples = Arc::default();
    let console = Watched { line: Vec::new(), ticks: ticks.clone(), samples: samples.clone() };
    let spec = BoardSpec {
        pace: machine_pace,
        now: Box::new(|| 0),
        memory: config.memory,
        vcpus: config.vcpus,
        boot: BootFiles::Shim(files),
        virtio: Vec::new(),
        transport: Transport::Mmio,
    };
    let Board { devices, input: _input, second_input: _ } = Board::new(console, std::io::sink(), spec)?;
    let td = Td::build(&host, &config, BOOT_SHIM.image, |_| {})?;
    let monitor = Monitor::new(devices, None);
    let nanoseconds = std::thread::scope(|scope| {
        let (monitor, td) = (&monitor, &td);
        let threads: Vec<_> = (0..vcpus)
            .map(|index| {
                scope.spawn(move || {
                    let before = thread_cpu();
                    monitor.run_vcpu(td, index, &RunsOn);
                    thread_cpu() - before
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|vcpu| vcpu.join())
            .sum::<Result<u64, _>>()
            .map_err(|_| "a vCPU's thread panicked")
    })?;
    if pace == Pace::Deterministic {
        let samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
        let [Some(first), Some(init)] = *samples else { return Err("the console lacks a line".into()) };
        let instructions = |ticks: u64| ticks / ticks_per_instruction;
        println!(
            "\n{COUNTED} {} {nanoseconds} {} {}",
            instructions(ticks.load(Ordering::Relaxed)),
            instructions(init.ticks - first.ticks),
            init.nanoseconds - first.nanoseconds,
        );
    }
    let ending = td.ending().unwrap_or(Ending::Stopped);
    td.teardown();
    Ok(ending)
}

/// What had been counted when a line appeared.
#[derive(Clone, Copy)]
struct Sample {
    ticks: u64,
    nanoseconds: u64,
}

/// At the kernel's first line, and at init.
type Samples = Arc<Mutex<[Option<Sample>; 2]>>;

/// The console: stdout, with an eye on two lines. The vCPU's own thread writes to it.
struct Watched {
    line: Vec<u8>,
    ticks: Arc<AtomicU64>,
    samples: Samples,
}

impl Write for Watched {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        for byte in bytes {
            self.line.push(*byte);
            if *byte == b'\n' {
                let line = String::from_utf8_lossy(&self.line);
                if let Some(which) = [FIRST_LINE, INIT_LINE].iter().position(|text| line.contains(text)) {
                    let ticks = self.ticks.load(Ordering::Relaxed);
                    let sample = Sample { ticks, nanoseconds: thread_cpu() };
                    let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
                    samples[which].get_or_insert(sample);
                }
                self.line.clear();
            }
        }
        std::io::stdout().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stdout().flush()
    }
}

/// CPU time of this thread, in ns.
fn thread_cpu() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    time.map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

/// The processor of every guest, with a look at the clock before and after.
struct Counting {
    cpu: CpuGuest,
    ticks: Arc<AtomicU64>,
}

impl GuestCpu for Counting {
    fn run(&mut self, state: &mut GuestState, env: &GuestEnv<'_>) -> VmExit {
        let before = env.host_tsc();
        let exit = self.cpu.run(state, env);
        self.ticks.fetch_add(env.host_tsc() - before, Ordering::Relaxed);
        exit
    }

    fn flush_translations(&mut self, only: Option<Gpa>) {
        self.cpu.flush_translations(only);
    }
}
