//! Loops for the software CPU, and a flat machine that runs them with every check on: registers only, memory through
//! the software TLB and the keyed arena, and calls with returns.

use phys_memory::{Arena, KeySpace};
use tdvisor_base::sync::{Arc, AtomicBool};
use tdvisor_base::{Hpa, KeyId, Level};
use x86_arch::{Attributes, Gpr, Seg, Segment, TableRegister, cr0, cr4, efer};
use x86_emu::{Budget, Cpu, Engine, Exit, FlatBus, InstructionExit, Interpreter};

/// A private key, so that the arena checks it on every access.
const KEY: KeyId = KeyId::new(40);

const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const PD: u64 = 0x3000;
const CODE: u64 = 0x20_0000;
const DATA: u64 = 0x40_0000;
const STACK: u64 = 0x60_0000;

/// A loop ends when RCX reaches zero, in HLT.
pub struct Loop {
    pub name: &'static str,
    instructions_per_turn: u64,
    code: &'static [u8],
}

/// A loop with its machine, ready to run once.
pub struct Loaded {
    cpu: Cpu,
    engine: Interpreter,
    bus: FlatBus,
    instructions: u64,
}

impl Loop {
    /// A machine on which the loop takes about this many instructions.
    pub fn load(&self, instructions: u64) -> Loaded {
        let (mut cpu, bus) = machine(self.code);
        let turns = instructions / self.instructions_per_turn;
        cpu.state.set_gpr(Gpr::Rcx, turns);
        Loaded { cpu, engine: Interpreter::new(), bus, instructions: turns * self.instructions_per_turn }
    }
}

impl Loaded {
    /// Runs to the end; how many instructions that took.
    pub fn run(&mut self) -> u64 {
        let kick = AtomicBool::new(false);
        let exit = self.engine.run(&mut self.cpu, &mut self.bus, Budget::UNLIMITED, &kick);
        assert_eq!(exit, Exit::Instruction { what: InstructionExit::Hlt, length: 1 });
        assert_eq!(self.cpu.retired(), self.instructions);
        self.instructions
    }
}

pub const LOOPS: [Loop; 3] = [
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

fn machine(code: &[u8]) -> (Cpu, FlatBus) {
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
    cpu.state.control.cr0 = cr0::PE | cr0::PG | cr0::NE | cr0::ET | cr0::WP;
    cpu.state.control.cr3 = PML4;
    cpu.state.control.cr4 = cr4::PAE | cr4::OSFXSR;
    cpu.state.control.efer = efer::LME | efer::LMA | efer::NXE;
    *cpu.state.segment_mut(Seg::Cs) = Segment::flat(8, Attributes::CODE64);
    *cpu.state.segment_mut(Seg::Ss) = Segment::flat(16, Attributes::DATA);
    cpu.state.idtr = TableRegister::default();
    cpu.state.set_rip(CODE);
    cpu.state.set_gpr(Gpr::Rsp, STACK);
    cpu.state.set_gpr(Gpr::R8, DATA);
    (cpu, FlatBus::new(memory).with_key(KEY).with_pages(Level::L2M))
}
