//! A small machine for the tests of this crate: flat memory, an identity second stage, and code assembled
//! from bytes.

use phys_memory::{Arena, KeySpace};
use tdvisor_base::sync::{Arc, AtomicBool};
use tdvisor_base::{Gpa, Hpa, KeyId, Level};

use crate::bus::{Answer, Bus, Translation};
use crate::cpu::{Budget, Cpu};
use crate::engine::{AnyEngine, Engine, EngineKind};
use crate::exits::Exit;
use x86_arch::{Access, Attributes, Gpr, Seg, Segment, TableRegister, cr0, cr4, efer};

/// Where the machine of a test keeps things, guest-physical and (identity) linear.
pub(crate) mod layout {
    pub(crate) const PML4: u64 = 0x1000;
    pub(crate) const PDPT: u64 = 0x2000;
    pub(crate) const PD: u64 = 0x3000;
    /// Maps the first 2 MiB in 4 KiB pages.
    pub(crate) const PT: u64 = 0x4000;
    pub(crate) const GDT: u64 = 0x5000;
    pub(crate) const IDT: u64 = 0x6000;
    pub(crate) const TSS: u64 = 0x7000;
    pub(crate) const CODE: u64 = 0x1_0000;
    pub(crate) const HANDLERS: u64 = 0x2_0000;
    pub(crate) const DATA: u64 = 0x4_0000;
    /// A page in which a device answers; see the bus of the tests.
    pub(crate) const DEVICE: u64 = 0x7_0000;
    /// Top of the stack.
    pub(crate) const STACK: u64 = 0x6_0000;
}

pub(crate) const KERNEL_CODE: u16 = 0x08;
pub(crate) const KERNEL_DATA: u16 = 0x10;
pub(crate) const USER_DATA: u16 = 0x2B;
pub(crate) const USER_CODE: u16 = 0x33;
pub(crate) const TSS_SELECTOR: u16 = 0x40;

/// An identity bus that refuses what a test tells it to.
pub(crate) struct TestBus {
    pub(crate) memory: Arc<Arena>,
    /// Pages to refuse, and the access that is refused.
    pub(crate) refused: Vec<(u64, Access)>,
    pub(crate) asked: Vec<(Gpa, Access)>,
    /// What the device at [`layout::DEVICE`] was asked for: where, what, how many bytes.
    pub(crate) device: Vec<(Gpa, Access, usize)>,
    pub(crate) device_refuses: bool,
}

/// Why [`TestBus`] refuses: the test said so, or there is no memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NotToday;

impl Bus for TestBus {
    type Refusal = NotToday;

    fn memory(&self) -> Arc<Arena> {
        self.memory.clone()
    }

    fn translate(&mut self, gpa: Gpa, access: Access) -> Result<Answer, NotToday> {
        self.asked.push((gpa, access));
        let page = gpa.get() & !0xFFF;
        let refuses = |wanted: Access| {
            self.refused
                .iter()
                .any(|(p, a)| *p == page && (*a == wanted || wanted.is_write() && a.is_write()))
        };
        if refuses(access) || gpa.get() >= self.memory.bytes() {
            return Err(NotToday);
        }
        if page == layout::DEVICE {
            return Ok(Answer::Device);
        }
        Ok(Answer::Memory(Translation {
            hpa: Hpa::new(page),
            key: KeyId::DEFAULT,
            level: Level::L4K,
            readable: !refuses(Access::Read),
            writable: !refuses(Access::Write),
            executable: !refuses(Access::Execute),
        }))
    }

    fn load(&mut self, gpa: Gpa, data: &mut [u8]) -> Result<(), NotToday> {
        self.device.push((gpa, Access::Read, data.len()));
        if self.device_refuses {
            return Err(NotToday);
        }
        for (n, byte) in (0u8..).zip(data) {
            *byte = 0xD0 + n;
        }
        Ok(())
    }

    fn store(&mut self, gpa: Gpa, data: &[u8]) -> Result<(), NotToday> {
        self.device.push((gpa, Access::Write, data.len()));
        if self.device_refuses { Err(NotToday) } else { Ok(()) }
    }

    fn tsc(&mut self) -> u64 {
        0x1_2345_6789
    }

    fn random(&mut self) -> Option<u64> {
        None
    }
}

/// The engine that `X86_EMU_ENGINE` names, the interpreter if it names none. A compiler compiles everything that it meets.
fn engine() -> AnyEngine {
    let name = std::env::var("X86_EMU_ENGINE").unwrap_or_else(|_| "interpreter".into());
    let kind: EngineKind = name.parse().expect("X86_EMU_ENGINE names an engine");
    kind.eager().expect("memory for code")
}

/// A CPU and its machine.
pub(crate) struct Machine {
    pub(crate) cpu: Cpu,
    pub(crate) engine: AnyEngine,
    pub(crate) bus: TestBus,
    pub(crate) kick: Arc<AtomicBool>,
}

impl Machine {
    fn with_memory() -> Self {
        let memory = Arc::new(Arena::new(8 << 20, KeySpace::SHARED_ONLY));
        Self {
            cpu: Cpu::new(),
            engine: engine(),
            bus: TestBus {
                memory,
                refused: Vec::new(),
                asked: Vec::new(),
                device: Vec::new(),
                device_refuses: false,
            },
            kick: Arc::new(AtomicBool::new(false)),
        }
    }

    /// 32-bit flat protected mode with paging off, RIP at the code.
    pub(crate) fn protected() -> Self {
        let mut machine = Self::with_memory();
        machine.write_tables();
        machine.cpu.state.set_rip(layout::CODE);
        machine.cpu.state.set_gpr(Gpr::Rsp, layout::STACK);
        machine.cpu.state.gdtr = TableRegister { base: layout::GDT, limit: 0x4F };
        machine
    }

    /// 64-bit mode, CPL 0, the first 2 MiB identity-mapped for the supervisor in 4 KiB pages, RIP at the code.
    pub(crate) fn long() -> Self {
        let mut machine = Self::with_memory();
        machine.write_tables();
        let cpu = &mut machine.cpu;
        cpu.state.control.cr0 = cr0::PE | cr0::PG | cr0::NE | cr0::ET | cr0::WP | cr0::MP;
        cpu.state.control.cr3 = layout::PML4;
        cpu.state.control.cr4 = cr4::PAE | cr4::OSFXSR | cr4::OSXMMEXCPT;
        cpu.state.control.efer = efer::LME | efer::LMA | efer::NXE | efer::SCE;
        *cpu.state.segment_mut(Seg::Cs) = Segment::flat(KERNEL_CODE, Attributes::CODE64);
        *cpu.state.segment_mut(Seg::Ss) = Segment::flat(KERNEL_DATA, Attributes::DATA);
        cpu.state.gdtr = TableRegister { base: layout::GDT, limit: 0x4F };
        cpu.state.idtr = TableRegister { base: layout::IDT, limit: 0xFFF };
        cpu.state.tr = Segment {
            selector: TSS_SELECTOR,
            base: layout::TSS,
            limit: 0xFF,
            attributes: Attributes::BUSY_TSS,
        };
        cpu.state.set_rip(layout::CODE);
        cpu.state.set_gpr(Gpr::Rsp, layout::STACK);
        machine
    }

    /// Makes all pages user pages and continues at CPL 3.
    pub(crate) fn make_user(&mut self) {
        for n in 0..512 {
            let at = layout::PT + 8 * n;
            self.poke(at, self.peek(at) | 4);
        }
        for table in [layout::PML4, layout::PDPT, layout::PD] {
            self.poke(table, self.peek(table) | 4);
        }
        *self.cpu.state.segment_mut(Seg::Cs) = Segment::flat(USER_CODE, Attributes::CODE64.with_dpl(3));
        *self.cpu.state.segment_mut(Seg::Ss) = Segment::flat(USER_DATA, Attributes::DATA.with_dpl(3));
        self.cpu.tlb.flush_all();
    }

    fn write_tables(&mut self) {
        self.poke(layout::PML4, layout::PDPT | 3);
        self.poke(layout::PDPT, layout::PD | 3);
        self.poke(layout::PD, layout::PT | 3);
        for n in 0..512 {
            self.poke(layout::PT + 8 * n, n << 12 | 3);
        }
        let descriptors: [u64; 10] = [
            0,
            0x00AF_9B00_0000_FFFF,
            0x00CF_9300_0000_FFFF,
            0x00CF_9B00_0000_FFFF,
            0x00CF_FB00_0000_FFFF,
            0x00CF_F300_0000_FFFF,
            0x00AF_FB00_0000_FFFF,
            0,
            0x0000_8900_7000_00FF,
            0,
        ];
        for (n, descriptor) in (0u64..).zip(descriptors) {
            self.poke(layout::GDT + 8 * n, descriptor);
        }
        // RSP0, RSP1, RSP2, IST1.
        self.poke(layout::TSS + 4, 0x5_0000);
        self.poke(layout::TSS + 12, 0x5_1000);
        self.poke(layout::TSS + 20, 0x5_2000);
        self.poke(layout::TSS + 0x24, 0x5_4000);
    }

    /// An interrupt gate to `layout::HANDLERS + 16 * vector`, where HLT is put.
    pub(crate) fn gate(&mut self, vector: u8, options: u64) {
        let target = layout::HANDLERS + 16 * u64::from(vector);
        let low = target & 0xFFFF
            | u64::from(KERNEL_CODE) << 16
            | 0x8E00 << 32
            | (target & 0xFFFF_0000) << 32
            | options;
        self.poke(layout::IDT + 16 * u64::from(vector), low);
        self.poke(layout::IDT + 16 * u64::from(vector) + 8, target >> 32);
        self.write(target, &[0xF4]);
    }

    pub(crate) fn write(&self, at: u64, bytes: &[u8]) {
        self.bus.memory.write(Hpa::new(at), KeyId::DEFAULT, bytes).unwrap();
    }

    pub(crate) fn code(&self, bytes: &[u8]) {
        self.write(layout::CODE, bytes);
    }

    pub(crate) fn poke(&self, at: u64, value: u64) {
        self.write(at, &value.to_le_bytes());
    }

    pub(crate) fn peek(&self, at: u64) -> u64 {
        self.bus.memory.load(Hpa::new(at), KeyId::DEFAULT).unwrap()
    }

    pub(crate) fn run(&mut self) -> Exit<NotToday> {
        self.run_for(100_000)
    }

    pub(crate) fn run_for(&mut self, instructions: u64) -> Exit<NotToday> {
        self.engine.run(&mut self.cpu, &mut self.bus, Budget(instructions), &self.kick)
    }

    /// Runs and expects HLT.
    pub(crate) fn run_to_hlt(&mut self) {
        let exit = self.run();
        assert_eq!(
            exit,
            Exit::Instruction { what: crate::InstructionExit::Hlt, length: 1 },
            "stopped at {:#x}",
            self.cpu.state.rip()
        );
    }

    /// Expects that the handler of a vector runs next, and steps into its HLT.
    pub(crate) fn expect_handler(&mut self, vector: u8) {
        self.run_to_hlt();
        assert_eq!(
            self.cpu.state.rip(),
            layout::HANDLERS + 16 * u64::from(vector),
            "the handler of {vector}"
        );
    }
}
