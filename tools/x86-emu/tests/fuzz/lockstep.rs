//! Both engines in step: random programs of loops, calls and memory, run in slices of odd lengths; after every slice registers,
//! flags, retired instructions and exits are the same, and at the end memory is.
//!
//! A fixed number of programs by default; `TDVISOR_FUZZ_SECONDS` runs for so long, from a seed of its own. A failure prints the seed
//! of its program; `X86_EMU_SEED` replays a run from there.

use std::convert::Infallible;
use std::time::{Duration, Instant, SystemTime};

use phys_memory::{Arena, KeySpace};
use tdvisor_base::sync::{Arc, AtomicBool};
use tdvisor_base::{Hpa, KeyId};
use tdvisor_test_data::chance::Chance;
use tdvisor_test_data::replay::number;
use x86_arch::{Attributes, Gpr, Seg, Segment, TableRegister, cr0, cr4, efer};
use x86_emu::{Budget, Compiler, Cpu, Engine, Exit, FlatBus, Interpreter};

const KEY: KeyId = KeyId::new(40);
const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const PD: u64 = 0x3000;
const PT: u64 = 0x4000;
const IDT: u64 = 0x5000;
const GDT: u64 = 0x6000;
const HANDLERS: u64 = 0x7000;
const CODE: u64 = 0x1_0000;
const CODE_PAGES: u64 = 3;
const DATA: u64 = 0x4_0000;
const DATA_PAGES: u64 = 8;
const STACK: u64 = 0x6_0000;
const MEMORY: u64 = 2 << 20;
/// Programs, where no time is given.
const PROGRAMS: u64 = 150;
/// Slices of one program.
const SLICES: u64 = 60;

/// A register that programs may do anything with: not RSP, not R15, which counts turns, and not RBX, which points at data.
fn scratch(rng: &mut Chance) -> u8 {
    [0, 1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14][rng.below(13) as usize]
}

/// `[rbx + disp32]` or `[rbx + index * scale + disp32]` behind an opcode, with `reg` as the other operand.
fn memory_operand(rng: &mut Chance, opcode: &[u8], reg: u8, wide: bool) -> Vec<u8> {
    let index = scratch(rng);
    let indexed = rng.below(4) == 0;
    let rex = 0x40 | u8::from(wide) << 3 | reg >> 3 << 2 | if indexed { index >> 3 << 1 } else { 0 };
    // Now and then beyond what is mapped, across pages, or into the code.
    let displacement = match rng.below(24) {
        0 => CODE.wrapping_sub(DATA).wrapping_add(rng.below(4096 * CODE_PAGES)),
        1 => 4096 * DATA_PAGES + rng.below(64),
        2 => 4096 * rng.below(DATA_PAGES) + 4096 - rng.below(8),
        _ => rng.below(4096 * DATA_PAGES - 16),
    } as u32;
    let mut code = vec![rex];
    code.extend_from_slice(opcode);
    if indexed {
        code.extend([0x84 | (reg & 7) << 3, (rng.below(4) as u8) << 6 | (index & 7) << 3 | 3]);
    } else {
        code.push(0x83 | (reg & 7) << 3);
    }
    code.extend(displacement.to_le_bytes());
    code
}

fn two_registers(opcode: &[u8], reg: u8, rm: u8, wide: bool) -> Vec<u8> {
    let mut code = vec![0x40 | u8::from(wide) << 3 | reg >> 3 << 2 | rm >> 3];
    code.extend_from_slice(opcode);
    code.push(0xC0 | (reg & 7) << 3 | rm & 7);
    code
}

/// An instruction of BMI1 or BMI2 on registers.
fn bit_field(rng: &mut Chance, reg: u8, rm: u8, wide: bool) -> Vec<u8> {
    let second = scratch(rng);
    // Prefix, map, opcode: shifts, BEXTR, PDEP, PEXT, BZHI, ANDN, MULX, the lowest bit, RORX.
    let (prefix, map, opcode) = [
        (1, 2, 0xF7),
        (2, 2, 0xF7),
        (3, 2, 0xF7),
        (0, 2, 0xF7),
        (3, 2, 0xF5),
        (2, 2, 0xF5),
        (0, 2, 0xF5),
        (0, 2, 0xF2),
        (3, 2, 0xF6),
        (0, 2, 0xF3),
        (3, 3, 0xF0),
    ][rng.below(11) as usize];
    let reg = if opcode == 0xF3 { 1 + rng.below(3) as u8 } else { reg };
    let second = if opcode == 0xF0 { 0 } else { second };
    let extensions = (reg >> 3) << 7 | (rm >> 3) << 5;
    let mut code = vec![
        0xC4,
        extensions ^ 0xE0 | map,
        u8::from(wide) << 7 | second << 3 ^ 0x78 | prefix,
        opcode,
        0xC0 | (reg & 7) << 3 | rm & 7,
    ];
    if opcode == 0xF0 {
        code.push(rng.byte());
    }
    code
}

/// One instruction that goes on behind itself.
fn instruction(rng: &mut Chance) -> Vec<u8> {
    let (reg, rm, wide) = (scratch(rng), scratch(rng), rng.below(2) == 0);
    let byte = rng.below(5) == 0;
    let opcode = |even: u8| [even | u8::from(!byte)];
    let kind = rng.below(8) as u8;
    let condition = rng.below(16) as u8;
    let word = |mut code: Vec<u8>, prefix: bool| {
        if prefix {
            code.insert(0, 0x66);
        }
        code
    };
    match rng.below(49) {
        0..=4 => two_registers(&opcode(kind << 3), reg, rm, wide),
        5 | 6 => memory_operand(rng, &opcode(kind << 3), reg, wide),
        7 | 8 => memory_operand(rng, &opcode(kind << 3 | 2), reg, wide),
        9 => {
            let mut code = two_registers(&[0x83], kind, rm, wide);
            code.push(rng.byte());
            word(code, rng.below(6) == 0)
        }
        10 => {
            let mut code = two_registers(&[0x81], kind, rm, wide);
            code.extend((rng.next() as u32).to_le_bytes());
            code
        }
        11..=13 => memory_operand(rng, &opcode(0x8A), reg, wide),
        14 | 15 => memory_operand(rng, &opcode(0x88), reg, wide),
        16 => two_registers(&opcode(0x88), reg, rm, wide),
        17 => memory_operand(rng, &[0x8D], reg, wide),
        18 => two_registers(&opcode(0xFE), kind & 1, rm, wide),
        19 => two_registers(&opcode(0xF6), 2 | kind & 1, rm, wide),
        20 => memory_operand(rng, &opcode(0xFE), kind & 1, wide),
        21 | 22 => {
            let shift = [0, 1, 4, 5, 7, 4, 2, 3][kind as usize];
            let mut code = two_registers(&opcode(0xC0), shift, rm, wide);
            code.push(rng.byte());
            code
        }
        23 => two_registers(&opcode(0xD2), [0, 1, 4, 5, 7, 4, 2, 3][kind as usize], rm, wide),
        24 => two_registers(&[0x0F, 0xAF], reg, rm, wide),
        25 => two_registers(&opcode(0xF6), 4 | kind & 3, rm, wide),
        26 => two_registers(&[0x0F, 0x40 | condition], reg, rm, wide),
        27 => two_registers(&[0x0F, 0x90 | condition], 0, rm, false),
        28 => two_registers(&[0x0F, [0xB6, 0xB7, 0xBE, 0xBF][(kind & 3) as usize]], reg, rm, wide),
        29 => memory_operand(rng, &[0x0F, [0xB6, 0xB7, 0xBE, 0xBF][(kind & 3) as usize]], reg, wide),
        30 => {
            let mut code = two_registers(&[0x0F, 0xBA], 4 | kind & 3, rm, wide);
            code.push(rng.byte());
            code
        }
        31 => vec![[0x98, 0x99, 0xF8, 0xF9, 0xF5, 0x90, 0x9F, 0x9E][kind as usize]],
        32 => two_registers(&[0x87], reg, rm, wide),
        33 => {
            // Locked: arithmetic, XADD, CMPXCHG, XCHG.
            let opcode: &[u8] = match kind {
                0 => &[0x0F, 0xC1],
                1 => &[0x0F, 0xB1],
                2 => &[0x87],
                3 => &[0x11],
                _ => &[0x01],
            };
            let mut code = memory_operand(rng, opcode, reg, wide);
            code.insert(0, 0xF0);
            code
        }
        34 | 35 => {
            // SSE, between registers and with memory: moves, logic, integers, arithmetic of doubles.
            let (prefix, opcode) = [
                (0x66, 0x6F),
                (0x66, 0xEF),
                (0x66, 0xFE),
                (0xF3, 0x6F),
                (0xF3, 0x7F),
                (0xF2, 0x10),
                (0xF2, 0x58),
                (0xF2, 0x59),
            ][kind as usize];
            let mut code = if rng.below(2) == 0 {
                two_registers(&[0x0F, opcode], reg, rm, false)
            } else {
                memory_operand(rng, &[0x0F, opcode], reg, false)
            };
            code.insert(0, prefix);
            code
        }
        36 => {
            // MOVQ from and to a general register.
            let mut code = two_registers(&[0x0F, [0x6E, 0x7E][(kind & 1) as usize]], reg, rm, true);
            code.insert(0, 0x66);
            code
        }
        37 => {
            // CVTSI2SD, CVTTSD2SI, UCOMISD.
            let (prefix, opcode) = [(0xF2, 0x2A), (0xF2, 0x2C), (0x66, 0x2E)][(kind % 3) as usize];
            let mut code = two_registers(&[0x0F, opcode], reg, rm, wide);
            code.insert(0, prefix);
            code
        }
        38 => {
            // Through GS, whose base is where the data are.
            let mut code = vec![0x65, 0x40 | u8::from(wide) << 3 | reg >> 3 << 2, 0x8B];
            code.extend([0x04 | (reg & 7) << 3, 0x25]);
            code.extend((rng.below(4096) as u32).to_le_bytes());
            code
        }
        39 => {
            // BT and its kin of a bit in memory, locked now and then.
            let mut code = memory_operand(rng, &[0x0F, 0xBA], 4 | kind & 3, wide);
            code.push(rng.byte());
            if kind & 3 != 0 && rng.below(2) == 0 {
                code.insert(0, 0xF0);
            }
            code
        }
        40 => {
            // A bit by a register; in memory it lies around the operand, mostly far away.
            let opcode = [0x0F, 0xA3 | (kind & 3) << 3];
            if rng.below(3) == 0 {
                memory_operand(rng, &opcode, reg, wide)
            } else {
                two_registers(&opcode, reg, rm, wide)
            }
        }
        41 => {
            // BSF, BSR, TZCNT, LZCNT, POPCNT.
            let opcode = [0x0F, [0xBC, 0xBD, 0xB8][(kind % 3) as usize]];
            let mut code = if rng.below(2) == 0 {
                two_registers(&opcode, reg, rm, wide)
            } else {
                memory_operand(rng, &opcode, reg, wide)
            };
            if kind % 3 == 2 || rng.below(2) == 0 {
                code.insert(0, 0xF3);
            }
            code
        }
        // AH, CH, DH.
        42 => vec![0x80, 0xC4 | kind << 3 | (rng.below(3) as u8), rng.byte()],
        43 => memory_operand(rng, &[0x0F, 0x90 | condition], 0, false),
        44 => match kind {
            // MOV of CR3 to itself, INVLPG, CLFLUSH, PUSHF, CLI, CLD, MFENCE.
            0 | 1 => vec![0x0F, 0x20, 0xD8, 0x0F, 0x22, 0xD8],
            2 => memory_operand(rng, &[0x0F, 0x01], 7, false),
            3 => memory_operand(rng, &[0x0F, 0xAE], 7, false),
            4 => vec![0x9C, 0x58],
            5 => vec![0xFA],
            6 => vec![0xFC],
            _ => vec![0x0F, 0xAE, 0xF0],
        },
        45 => {
            // PUSH of memory, and POP.
            let mut code = memory_operand(rng, &[0xFF], 6, false);
            code.extend([0x40 | rm >> 3, 0x58 | rm & 7]);
            code
        }
        46 => match kind {
            0..=2 => memory_operand(rng, &[0x0F, 0xB1], reg, wide),
            3 | 4 => memory_operand(rng, &[0x0F, 0xC1], reg, wide),
            // CMPXCHG16B
            _ => memory_operand(rng, &[0x0F, 0xC7], 1, true),
        },
        47 => bit_field(rng, reg, rm, wide),
        48 => {
            // SHLD, SHRD by an immediate or CL.
            let mut code =
                two_registers(&[0x0F, [0xA4, 0xA5, 0xAC, 0xAD][(kind & 3) as usize]], reg, rm, wide);
            if kind & 1 == 0 {
                code.push(rng.byte());
            }
            code
        }
        _ => {
            // push and pop
            let mut code = vec![0x40 | reg >> 3, 0x50 | reg & 7];
            code.extend([0x40 | rm >> 3, 0x58 | rm & 7]);
            code
        }
    }
}

/// A program: blocks that branch to each other and end, after many turns, in HLT.
fn program(rng: &mut Chance) -> Vec<u8> {
    let blocks = 2 + rng.below(8) as usize;
    let mut code = Vec::new();
    let mut begins = Vec::new();
    let mut branches: Vec<(usize, usize)> = Vec::new();
    for n in 0..blocks {
        begins.push(code.len());
        for _ in 0..1 + rng.below(14) {
            code.extend(instruction(rng));
        }
        let to = rng.below(blocks as u64) as usize;
        match rng.below(5) {
            // dec r15; jz to the end
            0 | 1 => {
                code.extend([0x49, 0xFF, 0xCF, 0x0F, 0x84]);
                branches.push((code.len(), blocks));
                code.extend([0; 4]);
                code.push(0xE9);
                branches.push((code.len(), to));
            }
            2 => {
                code.extend([0x0F, 0x80 | rng.below(16) as u8]);
                branches.push((code.len(), to));
            }
            // call to the epilogue, which returns
            3 => {
                code.push(0xE8);
                branches.push((code.len(), blocks + 1));
            }
            _ => {
                // lea rax, [rip + to]; jmp rax
                code.extend([0x49, 0xFF, 0xCF, 0x0F, 0x84]);
                branches.push((code.len(), blocks));
                code.extend([0; 4]);
                code.extend([0x48, 0x8D, 0x05]);
                branches.push((code.len(), to));
                code.extend([0; 4]);
                code.extend([0xFF, 0xE0]);
                if n % 3 == 0 {
                    code.resize(code.len().next_multiple_of(4096) + rng.below(32) as usize, 0x90);
                }
                continue;
            }
        }
        code.extend([0; 4]);
    }
    // dec r15; jnz to the beginning; hlt
    code.extend([0x49, 0xFF, 0xCF, 0x0F, 0x85]);
    branches.push((code.len(), 0));
    code.extend([0; 4]);
    begins.push(code.len());
    code.push(0xF4);
    begins.push(code.len());
    code.extend(instruction(rng));
    code.push(0xC3);
    for (at, to) in branches {
        let distance = begins[to].wrapping_sub(at + 4) as u32;
        code[at..at + 4].copy_from_slice(&distance.to_le_bytes());
    }
    code
}

struct Machine<E> {
    cpu: Cpu,
    engine: E,
    bus: FlatBus,
}

impl<E: Engine> Machine<E> {
    fn new(engine: E, seed: u64) -> Self {
        let memory = Arc::new(Arena::new(MEMORY, KeySpace { first_private: 32 }));
        for page in 0..MEMORY >> 12 {
            memory.clear_page(tdvisor_base::Pfn::new(page), KEY).expect("inside the arena");
        }
        let this = Self { cpu: Cpu::new(), engine, bus: FlatBus::new(memory).with_key(KEY) };
        this.lay_out(seed)
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.bus.memory.write(Hpa::new(at), KEY, bytes).expect("inside the arena");
    }

    fn lay_out(mut self, seed: u64) -> Self {
        let mut rng = Chance::new(seed);
        let poke = |at: u64, value: u64| self.write(at, &value.to_le_bytes());
        poke(PML4, PDPT | 3);
        poke(PDPT, PD | 3);
        poke(PD, PT | 3);
        for n in 0..MEMORY >> 12 {
            // Behind the data nothing is mapped.
            let mapped = !((DATA >> 12) + DATA_PAGES..(STACK >> 12) - 1).contains(&n);
            poke(PT + 8 * n, n << 12 | if mapped { 3 } else { 0 });
        }
        poke(GDT + 8, 0x00AF_9B00_0000_FFFF);
        for vector in 0..32 {
            let target = HANDLERS + 16 * vector;
            poke(IDT + 16 * vector, target & 0xFFFF | 8 << 16 | 0x8E00 << 32 | (target & 0xFFFF_0000) << 32);
            poke(IDT + 16 * vector + 8, target >> 32);
            self.write(target, &[0xF4]);
        }
        for n in 0..4096 * DATA_PAGES / 8 {
            poke(DATA + 8 * n, rng.next());
        }
        self.write(CODE, &program(&mut rng));
        let state = &mut self.cpu.state;
        state.control.cr0 = cr0::PE | cr0::PG | cr0::NE | cr0::ET | cr0::WP;
        state.control.cr3 = PML4;
        state.control.cr4 = cr4::PAE | cr4::OSFXSR;
        state.control.efer = efer::LME | efer::LMA | efer::NXE;
        *state.segment_mut(Seg::Cs) = Segment::flat(8, Attributes::CODE64);
        state.segment_mut(Seg::Gs).base = DATA;
        state.gdtr = TableRegister { base: GDT, limit: 15 };
        state.idtr = TableRegister { base: IDT, limit: 0x1FF };
        for register in Gpr::ALL {
            state.set_gpr(register, rng.next() >> rng.below(64));
        }
        state.set_gpr(Gpr::Rbx, DATA);
        state.set_gpr(Gpr::Rsp, STACK);
        state.set_gpr(Gpr::R15, 20 + rng.below(2000));
        state.set_rip(CODE);
        self
    }

    fn slice(&mut self, budget: u64) -> Exit<Infallible> {
        self.engine.run(&mut self.cpu, &mut self.bus, Budget(budget), &AtomicBool::new(false))
    }

    fn memory(&self) -> Vec<u8> {
        let mut all = vec![0; MEMORY as usize];
        self.bus.memory.read(Hpa::new(0), KEY, &mut all).expect("inside the arena");
        all
    }
}

/// A program behind these slices, on both engines.
fn replay(seed: u64, slices: &[u64]) -> (Machine<Interpreter>, Machine<Compiler>) {
    let mut interpreted = Machine::new(Interpreter::new(), seed);
    let mut compiled = Machine::new(Compiler::eager().expect("memory for code"), seed);
    for budget in slices {
        interpreted.slice(*budget);
        compiled.slice(*budget);
    }
    (interpreted, compiled)
}

/// Finds how much of the last slice it takes until the engines differ, and says what was there.
fn explain(seed: u64, slices: &[u64]) -> String {
    let Some((last, before)) = slices.split_last() else { return String::new() };
    let (mut same, mut differs) = (0, *last);
    let run = |budget| replay(seed, &[before, &[budget]].concat());
    while differs - same > 1 {
        let middle = same + (differs - same) / 2;
        let (interpreted, compiled) = run(middle);
        if interpreted.cpu.state == compiled.cpu.state { same = middle } else { differs = middle }
    }
    let (at, _) = run(same);
    let (interpreted, compiled) = run(differs);
    let (begin, _) = run(0);
    let mut bytes = [0; 128];
    let _ = begin.bus.memory.read(Hpa::new(begin.cpu.state.rip()), KEY, &mut bytes);
    let show = |cpu: &Cpu| format!("{:x?} {:#x}", cpu.state.regs, cpu.state.flags.get());
    format!(
        "slices {before:?} lead to the code {bytes:02x?}\nwith    {}\nwhere the engines part behind {differs} more, before which there is\n            {}\ncompiled    {}\ninterpreted {}",
        show(&begin.cpu),
        show(&at.cpu),
        show(&compiled.cpu),
        show(&interpreted.cpu)
    )
}

/// Runs one program on both engines; how many instructions it had.
fn in_step(seed: u64, compiler: Compiler) -> u64 {
    let mut interpreted = Machine::new(Interpreter::new(), seed);
    let mut compiled = Machine::new(compiler, seed);
    let mut rng = Chance::new(!seed);
    let mut slices = Vec::new();
    for slice in 0..SLICES {
        let most = [3, 50, 1000, 20_000][rng.below(4) as usize];
        let budget = 1 + rng.below(most);
        slices.push(budget);
        let (expected, got) = (interpreted.slice(budget), compiled.slice(budget));
        assert_eq!(got, expected, "program {seed:#x}, slice {slice}: the exits differ");
        let (a, b) = (&compiled.cpu.state, &interpreted.cpu.state);
        assert!(a == b, "program {seed:#x}, slice {slice}: the states differ;\n{}", explain(seed, &slices));
        assert_eq!(
            compiled.cpu.retired(),
            interpreted.cpu.retired(),
            "program {seed:#x}, slice {slice}: instructions retired"
        );
        if expected != Exit::BudgetExhausted {
            break;
        }
    }
    let differs = compiled.memory().iter().zip(interpreted.memory()).position(|(a, b)| *a != b);
    assert_eq!(differs, None, "program {seed:#x}: memory differs there");
    interpreted.cpu.retired()
}

#[test]
fn random_programs_do_the_same_on_both_engines() {
    let seconds = number("TDVISOR_FUZZ_SECONDS");
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64);
    let first = number("X86_EMU_SEED").unwrap_or(if seconds.is_some() { now } else { 1 });
    let mut rng = Chance::new(first);
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let (mut programs, mut instructions) = (0, 0);
    while end.map_or(programs < PROGRAMS, |end| Instant::now() < end) {
        let compiler = if programs % 2 == 0 { Compiler::eager() } else { Compiler::new() };
        instructions += in_step(rng.next(), compiler.expect("memory for code"));
        programs += 1;
    }
    println!("{programs} programs, {instructions} instructions");
    assert!(instructions > 500 * programs, "{instructions} instructions in {programs} programs: too few");
}
