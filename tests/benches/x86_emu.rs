//! Millions of instructions per second of `x86-emu` on three loops, with every check on: registers only,
//! memory through the software TLB and the keyed arena, and calls with returns.
//!
//! `cargo bench -p tdvisor-tests --bench x86_emu` prints one line per loop and writes
//! `target/bench/x86_emu.json`. The bar is 100 MIPS each; the process fails below it. Time is that of the
//! CPU where the operating system tells it, so that a busy machine does not count against the emulator.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tdvisor_base::arena::{Arena, KeySpace};
use tdvisor_base::sync::{Arc, AtomicBool};
use tdvisor_base::{Gpa, Hpa, KeyId, Level};
use x86_emu::state::{TableRegister, cr0, cr4, efer};
use x86_emu::{
    Access, Attributes, Budget, Bus, BusFault, Cpu, Exit, Gpr, InstructionExit, Seg, Segment, Translation,
};

const BAR_MIPS: f64 = 100.0;
const INSTRUCTIONS: u64 = 60_000_000;
const ROUNDS: usize = 3;
/// A private key, so that the arena checks it on every access.
const KEY: KeyId = KeyId::new(40);

const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const PD: u64 = 0x3000;
const CODE: u64 = 0x20_0000;
const DATA: u64 = 0x40_0000;
const STACK: u64 = 0x60_0000;

struct Flat(Arc<Arena>);

impl Bus for Flat {
    fn memory(&self) -> Arc<Arena> {
        self.0.clone()
    }
    fn translate(&mut self, gpa: Gpa, _: Access) -> Result<Translation, BusFault> {
        Ok(Translation {
            hpa: Hpa::new(gpa.get() & !0xFFF),
            key: KEY,
            level: Level::L2M,
            readable: true,
            writable: true,
            executable: true,
        })
    }
    fn tsc(&mut self) -> u64 {
        0
    }
    fn random(&mut self) -> Option<u64> {
        None
    }
}

/// A loop ends when RCX reaches zero, in HLT.
struct Loop {
    name: &'static str,
    instructions_per_turn: u64,
    code: &'static [u8],
}

const LOOPS: [Loop; 3] = [
    Loop {
        name: "registers",
        instructions_per_turn: 8,
        code: &[
            0x48, 0x01, 0xC8, // add rax, rcx
            0x48, 0x31, 0xC2, // xor rdx, rax
            0x48, 0xC1, 0xC2, 0x07, // rol rdx, 7
            0x48, 0x8D, 0x5C, 0x02, 0x05, // lea rbx, [rdx + rax + 5]
            0x48, 0x29, 0xDE, // sub rsi, rbx
            0x48, 0x89, 0xF7, // mov rdi, rsi
            0x48, 0xFF, 0xC9, // dec rcx
            0x75, 0xE6, // jnz
            0xF4,
        ],
    },
    Loop {
        name: "memory",
        instructions_per_turn: 8,
        code: &[
            0x49, 0x8B, 0x00, // mov rax, [r8]
            0x49, 0x03, 0x40, 0x08, // add rax, [r8 + 8]
            0x49, 0x89, 0x40, 0x10, // mov [r8 + 16], rax
            0x49, 0x01, 0x48, 0x18, // add [r8 + 24], rcx
            0x49, 0x81, 0xC0, 0x40, 0, 0, 0, // add r8, 64
            0x49, 0x81, 0xE0, 0xFF, 0xFF, 0x40, 0, // and r8, 0x40ffff
            0x48, 0xFF, 0xC9, // dec rcx
            0x75, 0xDE, // jnz
            0xF4,
        ],
    },
    Loop {
        name: "calls",
        instructions_per_turn: 7,
        code: &[
            0xE8, 0x06, 0, 0, 0, // call f
            0x48, 0xFF, 0xC9, // dec rcx
            0x75, 0xF6, // jnz
            0xF4, // hlt
            // f:
            0x53, // push rbx
            0x48, 0x01, 0xC8, // add rax, rcx
            0x5B, // pop rbx
            0xC3, // ret
        ],
    },
];

fn machine(code: &[u8]) -> (Cpu, Flat) {
    let memory = Arc::new(Arena::new(16 << 20, KeySpace { first_private: 32 }));
    for page in 0..0x800 {
        memory.clear_page(tdvisor_base::Pfn::new(page), KEY).expect("inside the arena");
    }
    let poke = |at: u64, value: u64| {
        memory.store(Hpa::new(at), KEY, value).expect("inside the arena");
    };
    poke(PML4, PDPT | 3);
    poke(PDPT, PD | 3);
    for n in 0..4 {
        poke(PD + 8 * n, n << 21 | 0x83);
    }
    memory.write(Hpa::new(CODE), KEY, code).expect("inside the arena");
    let mut cpu = Cpu::new();
    cpu.control.cr0 = cr0::PE | cr0::PG | cr0::NE | cr0::ET | cr0::WP;
    cpu.control.cr3 = PML4;
    cpu.control.cr4 = cr4::PAE | cr4::OSFXSR;
    cpu.control.efer = efer::LME | efer::LMA | efer::NXE;
    *cpu.segment_mut(Seg::Cs) = Segment::flat(8, Attributes::CODE64);
    *cpu.segment_mut(Seg::Ss) = Segment::flat(16, Attributes::DATA);
    cpu.idtr = TableRegister::default();
    cpu.set_rip(CODE);
    cpu.set_gpr(Gpr::Rsp, STACK);
    cpu.set_gpr(Gpr::R8, DATA);
    (cpu, Flat(memory))
}

/// Time that this thread has spent on a CPU (Linux: the first field of schedstat).
fn cpu_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// Million instructions per second; the best of some rounds.
fn measure(what: &Loop) -> f64 {
    let kick = AtomicBool::new(false);
    let mut best = 0f64;
    for _ in 0..ROUNDS {
        let (mut cpu, mut bus) = machine(what.code);
        let turns = INSTRUCTIONS / what.instructions_per_turn;
        cpu.set_gpr(Gpr::Rcx, turns);
        let (start, start_cpu) = (Instant::now(), cpu_time());
        let exit = cpu.run(&mut bus, Budget::UNLIMITED, &kick);
        let wall = start.elapsed();
        let spent = cpu_time().zip(start_cpu).and_then(|(now, then)| now.checked_sub(then));
        let seconds = spent.filter(|t| !t.is_zero()).unwrap_or(wall).as_secs_f64();
        assert_eq!(exit, Exit::Instruction { what: InstructionExit::Hlt, length: 1 });
        assert_eq!(cpu.retired(), turns * what.instructions_per_turn);
        best = best.max(cpu.retired() as f64 / seconds / 1e6);
    }
    best
}

/// `bench/` in the target folder that this program was built into.
fn report_path() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let target = program.ancestors().find(|p| p.ends_with("release") || p.ends_with("debug"))?.parent()?;
    Some(target.join("bench").join("x86_emu.json"))
}

fn main() -> ExitCode {
    let mut json = String::from("{\n  \"unit\": \"million instructions per second\"");
    let mut passed = true;
    for what in &LOOPS {
        let mips = measure(what);
        passed &= mips >= BAR_MIPS;
        println!("{:<10} {mips:8.1} MIPS (bar {BAR_MIPS})", what.name);
        let _ = write!(json, ",\n  \"{}\": {mips:.1}", what.name);
    }
    json.push_str("\n}\n");
    if let Some(path) = report_path() {
        let written = path.parent().map(std::fs::create_dir_all).transpose();
        if written.is_err() || std::fs::write(&path, json).is_err() {
            eprintln!("cannot write {}", path.display());
        }
    }
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
