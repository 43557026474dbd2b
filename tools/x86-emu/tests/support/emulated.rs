//! The emulated side: the same code and data at the same linear addresses, at CPL 3 under page tables.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use phys_memory::{Arena, KeySpace};
use tdvisor_base::sync::{Arc, AtomicBool};
use tdvisor_base::{Hpa, KeyId};
use x86_arch::{Attributes, Gpr, Seg, Segment, TableRegister, cr0, cr4, efer, xcr0};
use x86_emu::{Budget, Compiler, Cpu, Engine, Exit, FlatBus, InstructionExit, Interpreter, Unimplemented};

use crate::native::{CODE, DATA, DATA_BYTES, SNIPPET, State};

const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const PD: u64 = 0x3000;
const CODE_TABLE: u64 = 0x4000;
const DATA_TABLE: u64 = 0x5000;
const SYSTEM_TABLE: u64 = 0x6000;
const IDT: u64 = 0x8000;
const GDT: u64 = 0x9000;
const TSS: u64 = 0xA000;
const KERNEL_STACK: u64 = 0xC000;
const HANDLERS: u64 = 0xC000;
const CODE_PAGE: u64 = 0x1_0000;
const DATA_PAGES: u64 = 0x2_0000;
/// Linear address of the system pages.
const SYSTEM: u64 = 0x1000_0000;
const VMCALL: [u8; 3] = [0x0F, 0x01, 0xC1];

/// How a snippet ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// At its end.
    Normal,
    /// In the handler of this exception.
    Exception(u8),
    /// The emulator says that it does not do this.
    Unimplemented(Unimplemented),
}

/// Both engines, each with a machine of its own. What they come to is compared: there is no flag and no register in which they
/// may differ.
pub struct Emulated {
    interpreted: Machine<Interpreter>,
    compiled: Machine<Compiler>,
}

impl Emulated {
    pub fn new() -> Self {
        Self {
            interpreted: Machine::new(Interpreter::new()),
            compiled: Machine::new(Compiler::eager().expect("memory for code")),
        }
    }

    /// Runs a snippet of at most `budget` instructions; gives the state at its end or at its fault.
    pub fn run(
        &mut self,
        snippet: &[u8],
        before: &State,
        data: &mut [u8; DATA_BYTES],
        budget: u64,
    ) -> (State, End) {
        let initial = Box::new(*data);
        let expected = self.interpreted.run(snippet, before, data, budget);
        // The first time compiled code finds no page that it may access by itself.
        for time in ["first", "second"] {
            let mut theirs = initial.clone();
            let got = self.compiled.run(snippet, before, &mut theirs, budget);
            assert_eq!(got, expected, "{snippet:02x?} compiled, the {time} time, from {before:x?}");
            assert!(*theirs == *data, "{snippet:02x?} compiled, the {time} time, leaves other memory");
            let (compiled, interpreted) = (&self.compiled.cpu, &self.interpreted.cpu);
            assert!(compiled.state == interpreted.state, "{snippet:02x?}: {:x?}", compiled.state);
        }
        expected
    }
}

struct Machine<E> {
    cpu: Cpu,
    engine: E,
    bus: FlatBus,
}

impl<E: Engine> Machine<E> {
    fn new(engine: E) -> Self {
        let memory = Arc::new(Arena::new(2 << 20, KeySpace::SHARED_ONLY));
        let this = Self { cpu: Cpu::new(), engine, bus: FlatBus::new(memory) };
        this.poke(PML4, PDPT | 7);
        this.poke(PDPT, PD | 7);
        let table = |linear: u64| PD + 8 * (linear >> 21);
        this.poke(table(CODE), CODE_TABLE | 7);
        this.poke(table(DATA), DATA_TABLE | 7);
        this.poke(table(SYSTEM), SYSTEM_TABLE | 3);
        this.poke(CODE_TABLE + 8 * (CODE >> 12 & 511), CODE_PAGE | 7);
        for n in 0..DATA_BYTES as u64 / 4096 {
            this.poke(DATA_TABLE + 8 * (DATA >> 12 & 511) + 8 * n, (DATA_PAGES + 4096 * n) | 7);
        }
        for n in 0..16 {
            this.poke(SYSTEM_TABLE + 8 * n, n << 12 | 3);
        }
        this.poke(GDT + 8, 0x00AF_9B00_0000_FFFF);
        this.poke(TSS + 4, SYSTEM + KERNEL_STACK);
        for vector in 0..32u64 {
            let target = SYSTEM + HANDLERS + vector;
            this.poke(IDT + 16 * vector, target & 0xFFFF | 8 << 16 | 0xEE00 << 32 | (target >> 16) << 48);
            this.write(HANDLERS + vector, &[0xF4]);
        }
        this
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.bus.memory.write(Hpa::new(at), KeyId::DEFAULT, bytes).expect("inside the arena");
    }

    fn poke(&self, at: u64, value: u64) {
        self.write(at, &value.to_le_bytes());
    }

    fn peek(&self, at: u64) -> u64 {
        self.bus.memory.load(Hpa::new(at), KeyId::DEFAULT).expect("inside the arena")
    }

    fn run(
        &mut self,
        snippet: &[u8],
        before: &State,
        data: &mut [u8; DATA_BYTES],
        budget: u64,
    ) -> (State, End) {
        let at = CODE_PAGE + (SNIPPET - CODE);
        self.write(at, snippet);
        self.write(at + snippet.len() as u64, &VMCALL);
        self.write(DATA_PAGES, data);
        self.prepare(before);
        let kick = AtomicBool::new(false);
        let exit = self.engine.run(&mut self.cpu, &mut self.bus, Budget(budget), &kick);
        self.bus.memory.read(Hpa::new(DATA_PAGES), KeyId::DEFAULT, data).expect("inside the arena");
        let cpu = &self.cpu;
        let mut after = State {
            gpr: Gpr::ALL.map(|r| cpu.state.gpr(r)),
            flags: cpu.state.flags.get(),
            xmm: cpu.state.simd.xmm,
            ymm_high: cpu.state.simd.ymm_high,
            mxcsr: cpu.state.simd.mxcsr,
            fcw: cpu.state.simd.x87.control,
            fsw: cpu.state.simd.x87.status,
            ftw: cpu.state.simd.x87.tags,
            st: std::array::from_fn(|n| cpu.state.simd.x87.st(n as u8)),
        };
        let end = match exit {
            Exit::Instruction { what: InstructionExit::Vmcall, .. }
                if cpu.state.rip() == SNIPPET + snippet.len() as u64 =>
            {
                End::Normal
            }
            Exit::Instruction { what: InstructionExit::Hlt, .. } => {
                after.flags = self.peek(KERNEL_STACK - 24);
                after.gpr[4] = self.peek(KERNEL_STACK - 16);
                End::Exception((cpu.state.rip() - SYSTEM - HANDLERS) as u8)
            }
            Exit::Unimplemented(what) => End::Unimplemented(*what),
            other => panic!("{other:?} at {:#x}", cpu.state.rip()),
        };
        (after, end)
    }

    fn prepare(&mut self, before: &State) {
        let cpu = &mut self.cpu;
        cpu.state.control.cr0 = cr0::PE | cr0::PG | cr0::NE | cr0::ET | cr0::WP | cr0::MP;
        cpu.state.control.cr3 = PML4;
        cpu.state.control.cr4 = cr4::PAE | cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::OSXSAVE;
        cpu.state.control.xcr0 = xcr0::X87 | xcr0::SSE | xcr0::AVX;
        cpu.state.control.efer = efer::LME | efer::LMA | efer::NXE | efer::SCE;
        *cpu.state.segment_mut(Seg::Cs) = Segment::flat(0x33, Attributes::CODE64.with_dpl(3));
        *cpu.state.segment_mut(Seg::Ss) = Segment::flat(0x2B, Attributes::DATA.with_dpl(3));
        for register in [Seg::Ds, Seg::Es, Seg::Fs, Seg::Gs] {
            *cpu.state.segment_mut(register) = Segment::NULL;
        }
        cpu.state.gdtr = TableRegister { base: SYSTEM + GDT, limit: 15 };
        cpu.state.idtr = TableRegister { base: SYSTEM + IDT, limit: 0x1FF };
        cpu.state.tr =
            Segment { selector: 0x40, base: SYSTEM + TSS, limit: 0x67, attributes: Attributes::BUSY_TSS };
        for (register, value) in Gpr::ALL.into_iter().zip(before.gpr) {
            cpu.state.set_gpr(register, value);
        }
        cpu.state.flags.set(before.flags | 0x200);
        cpu.state.simd.xmm = before.xmm;
        cpu.state.simd.ymm_high = before.ymm_high;
        cpu.state.simd.mxcsr = before.mxcsr;
        cpu.state.simd.x87.control = before.fcw;
        cpu.state.simd.x87.status = before.fsw;
        cpu.state.simd.x87.tags = before.ftw;
        for (n, st) in (0..).zip(before.st) {
            cpu.state.simd.x87.set_st(n, st);
        }
        cpu.state.set_rip(SNIPPET);
    }
}
