//! The boots that are measured.

use std::path::PathBuf;
use std::process::Command;

use seam_emu::EngineKind;
use tdvisor_test_data::linux;

use crate::guest;
use crate::process::{Moment, Process};
use crate::{IDLE_SECONDS, MEMORY_MIB, TOUCHED_MIB};

/// The kernel's first line on the early console.
pub const FIRST_LINE: &str = "Linux version";
/// The kernel's last line before init.
pub const INIT_LINE: &str = "Run /init";
/// Both consoles of every boot; the early one shows the kernel's first lines when they are written.
const CONSOLE: &str = "console=ttyS0 earlycon=uart8250,io,0x3f8,115200 panic=-1";

/// Kernel and initrd, where they should be.
pub struct Files {
    pub vmlinux: PathBuf,
    pub initrd: PathBuf,
}

impl Files {
    pub fn find() -> Result<Self, String> {
        let file = |name| linux::find(name).map_err(|missing| missing.to_string());
        Ok(Self { vmlinux: file("vmlinux")?, initrd: file("initrd")? })
    }
}

/// Who boots the kernel.
#[derive(Clone, Copy)]
pub enum Vmm {
    Tdvisor,
    Qemu,
}

impl Vmm {
    fn command(self, files: &Files, switches: &str) -> Result<Command, String> {
        let cmdline = format!("{CONSOLE} {switches}");
        match self {
            Self::Tdvisor => guest::command(guest::Pace::Real, (EngineKind::default(), 1), files, &cmdline),
            Self::Qemu => {
                let mut qemu = Command::new("qemu-system-x86_64");
                qemu.args(["-accel", "tcg", "-smp", "1", "-nodefaults", "-display", "none", "-no-reboot"]);
                qemu.args(["-serial", "stdio", "-m", &format!("{MEMORY_MIB}M")]);
                qemu.arg("-kernel").arg(&files.vmlinux).arg("-initrd").arg(&files.initrd);
                qemu.args(["-append", &cmdline]);
                Ok(qemu)
            }
        }
    }
}

/// From the kernel's first line to the start of init.
pub fn entry_to_init(files: &Files, vmm: Vmm) -> Result<Moment, String> {
    let mut process = Process::start(&mut vmm.command(files, "tdvisor.steps=none")?)?;
    let (_, entry) = process.wait_for(FIRST_LINE)?;
    let (_, init) = process.wait_for(INIT_LINE)?;
    Ok(init.since(entry))
}

/// What a boot took, counted inside.
pub struct Counted {
    pub instructions: u64,
    /// Of the vCPU's thread, in seconds.
    pub cpu: f64,
}

impl Counted {
    pub fn mips(&self) -> f64 {
        self.instructions as f64 / self.cpu / 1e6
    }
}

/// A boot on the machine that counts instructions: all of it from the firmware to power-off, and the part from the
/// kernel's first line to init.
pub fn counted(files: &Files) -> Result<[Counted; 2], String> {
    let cmdline = format!("{CONSOLE} tdvisor.steps=none");
    let mut process = Process::start(&mut guest::command(
        guest::Pace::Deterministic,
        (EngineKind::default(), 1),
        files,
        &cmdline,
    )?)?;
    let (line, _) = process.wait_for(guest::COUNTED)?;
    let numbers = line.split_once(guest::COUNTED).map_or("", |(_, numbers)| numbers);
    let numbers: Result<Vec<u64>, _> = numbers.split_whitespace().map(str::parse).collect();
    let counted = |instructions, ns: u64| Counted { instructions, cpu: ns.max(1) as f64 / 1e9 };
    match numbers.as_deref() {
        Ok([all, all_ns, kernel, kernel_ns]) => Ok([counted(*all, *all_ns), counted(*kernel, *kernel_ns)]),
        _ => Err(format!("not a count: {line}")),
    }
}

/// Peak memory of a boot whose init touches most of its memory: when the kernel begins, and in the end.
pub fn peak_memory_mib(files: &Files) -> Result<[f64; 2], String> {
    let switches = format!("tdvisor.steps=memory tdvisor.memory={TOUCHED_MIB}");
    let mut process = Process::start(&mut Vmm::Tdvisor.command(files, &switches)?)?;
    process.wait_for(FIRST_LINE)?;
    let at_entry = process.peak_memory_mib()?;
    let (line, _) = process.wait_for("tdvisor-init: memory ")?;
    if !line.contains("memory ok") {
        return Err(line);
    }
    Ok([at_entry, process.peak_memory_mib()?])
}

/// CPU time of the process while init sleeps, as a share of that time.
pub fn idle_percent(files: &Files) -> Result<f64, String> {
    let switches = format!("tdvisor.steps=sleep tdvisor.sleep={IDLE_SECONDS}");
    let mut process = Process::start(&mut Vmm::Tdvisor.command(files, &switches)?)?;
    let (line, begin) = process.wait_for("tdvisor-init: sleep ")?;
    if !line.contains("sleep begins") {
        return Err(line);
    }
    let (_, end) = process.wait_for("tdvisor-init: sleep ok")?;
    let slept = end.since(begin);
    Ok(slept.cpu / slept.wall * 100.0)
}
