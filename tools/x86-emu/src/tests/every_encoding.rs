//! Every encoding that the decoder knows is run once, in every mode and privilege that a guest has: it does something, faults or
//! exits, and never ends in "not implemented".

use crate::cpu::CodeMode;
use crate::decode::{MAX_INSTRUCTION, forms};
use crate::exits::Exit;
use crate::testing::{KERNEL_CODE, KERNEL_DATA, Machine, USER_CODE, USER_DATA, layout};
use phys_memory::{Arena, MemoryFault};
use tdvisor_base::{Hpa, KeyId};
use tdvisor_test_data::chance::Chance;
use x86_arch::{Access, Attributes, CpuState, Gpr, Seg, Segment, TableRegister, cr0, cr4, flags};

/// Where a 16-bit stack begins.
const STACK16: u64 = 0x5_8000;
/// Everything below the code: page tables, GDT, IDT, TSS.
const SYSTEM: std::ops::Range<u64> = 0x1000..0x8000;

/// One way to run code.
#[derive(Clone, Copy, Debug)]
struct Place {
    processor: Processor,
    mode: CodeMode,
    cpl: u8,
}

/// What is around the code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Processor {
    Ia32e,
    /// 32-bit protected mode without paging, in which a TD begins.
    Protected,
}

const PLACES: [Place; 6] = [
    Place { processor: Processor::Ia32e, mode: CodeMode::Code64, cpl: 3 },
    Place { processor: Processor::Ia32e, mode: CodeMode::Code32, cpl: 3 },
    Place { processor: Processor::Ia32e, mode: CodeMode::Code16, cpl: 3 },
    Place { processor: Processor::Ia32e, mode: CodeMode::Code64, cpl: 0 },
    Place { processor: Processor::Protected, mode: CodeMode::Code32, cpl: 3 },
    Place { processor: Processor::Protected, mode: CodeMode::Code16, cpl: 3 },
];

/// Descriptors that random selectors find, behind flat segments: gates for calls and tasks, and tasks.
const DESCRIPTORS: [u64; 7] = [
    0x0002_EC01_0018_0000,
    0x0000_E402_0080_0000,
    0x0000_E500_0070_0000,
    0x0000_E500_0013_0000,
    0x0000_E900_8000_0067,
    0x0000_E100_8000_002B,
    // The handlers' code, for 16-bit offsets.
    0x0040_9B02_0000_FFFF,
];

impl Place {
    fn machine(self) -> Machine {
        let mut m = match self.processor {
            Processor::Ia32e => Machine::long(),
            Processor::Protected => Machine::protected(),
        };
        // No process finds a device among its pages.
        m.bus.refused = [Access::Read, Access::Write, Access::Execute].map(|a| (layout::DEVICE, a)).to_vec();
        // Nor does it change what handles its faults, where no paging keeps it from that.
        m.bus.refused.push((layout::HANDLERS, Access::Write));
        match self.processor {
            Processor::Ia32e => (0..=255).for_each(|vector| m.gate(vector, 0)),
            Processor::Protected => protected(&mut m),
        }
        if self.cpl == 3 && self.processor == Processor::Ia32e {
            m.make_user();
            // A process does not write its own page tables.
            for page in (SYSTEM.start >> 12..SYSTEM.end >> 12).chain([layout::HANDLERS >> 12]) {
                let at = layout::PT + 8 * page;
                m.poke(at, m.peek(at) & !4);
            }
        }
        let state = &mut m.cpu.state;
        state.control.cr0 |= cr0::AM;
        state.control.cr4 |= cr4::OSXSAVE | cr4::FSGSBASE | cr4::PVI | cr4::PGE;
        state.control.xcr0 = 7;
        let (code, data) = if self.cpl == 3 { (USER_CODE, USER_DATA) } else { (KERNEL_CODE, KERNEL_DATA) };
        let data = Segment::flat(data, Attributes::DATA.with_dpl(self.cpl));
        for register in [Seg::Ds, Seg::Es, Seg::Fs, Seg::Gs, Seg::Ss] {
            *state.segment_mut(register) = data;
        }
        let (kind, base, limit) = match self.mode {
            CodeMode::Code64 => (Attributes::CODE64, 0, u32::MAX),
            CodeMode::Code32 => (Attributes::CODE32, 0, u32::MAX),
            CodeMode::Code16 => (Attributes(0x9B), layout::CODE, 0xFFFF),
        };
        *state.segment_mut(Seg::Cs) =
            Segment { selector: code, base, limit, attributes: kind.with_dpl(self.cpl) };
        state.set_rip(layout::CODE - base);
        state.set_gpr(Gpr::Rsp, layout::STACK - 64);
        if self.mode == CodeMode::Code16 {
            let attributes = Attributes(0x93).with_dpl(self.cpl);
            *state.segment_mut(Seg::Ss) = Segment { base: STACK16, limit: 0xFFFF, attributes, ..data };
            state.set_gpr(Gpr::Rsp, 0x4000);
        }
        m
    }
}

/// 32-bit and 16-bit gates for all vectors by turns, every eighth to a task, and a TSS.
fn protected(m: &mut Machine) {
    for vector in 0..=255 {
        let at = layout::HANDLERS + 16 * vector;
        let kind = match vector % 8 {
            7 => 0xE5,
            n if n % 2 == 0 => 0xEE,
            _ => 0xE6,
        };
        let selector = match kind {
            0xE5 => 0x70,
            0xE6 => 0x80,
            _ => 0x18,
        };
        m.poke(layout::IDT + 8 * vector, at & 0xFFFF | selector << 16 | kind << 40 | at >> 16 << 48);
        m.write(at, &[0xF4]);
    }
    for (n, descriptor) in (0..).zip(DESCRIPTORS) {
        m.poke(layout::GDT + 0x50 + 8 * n, descriptor);
    }
    m.poke(layout::TSS + 4, 0x5_0000 | u64::from(KERNEL_DATA) << 32);
    let state = &mut m.cpu.state;
    state.gdtr.limit = 0x87;
    state.idtr = TableRegister { base: layout::IDT, limit: 0x7FF };
    let attributes = Attributes::BUSY_TSS;
    state.tr = Segment { selector: 0x40, base: layout::TSS, limit: 0x67, attributes };
}

/// Puts memory and state back before every instruction.
struct Rerun {
    m: Machine,
    state: CpuState,
    system: Vec<u8>,
}

impl Rerun {
    fn new(place: Place) -> Self {
        let m = place.machine();
        let mut system = vec![0; (SYSTEM.end - SYSTEM.start) as usize];
        read(&m.bus.memory, SYSTEM.start, &mut system).expect("inside the arena");
        Self { state: m.cpu.state.clone(), m, system }
    }

    /// What running these bytes ends in, if that is a limit of this crate.
    fn limit(&mut self, bytes: &[u8], prepare: impl Fn(&mut CpuState)) -> Option<String> {
        self.m.write(SYSTEM.start, &self.system);
        self.m.code(bytes);
        self.m.cpu.state.clone_from(&self.state);
        prepare(&mut self.m.cpu.state);
        self.m.cpu.tlb.flush_all();
        match self.m.run_for(2) {
            Exit::Unimplemented(what) => Some(what.to_string()),
            _ => None,
        }
    }
}

fn read(memory: &Arena, at: u64, out: &mut [u8]) -> Result<(), MemoryFault> {
    memory.read(Hpa::new(at), KeyId::DEFAULT, out)
}

fn registers(state: &mut CpuState, value: u64) {
    for register in Gpr::ALL.into_iter().filter(|r| *r != Gpr::Rsp) {
        state.set_gpr(register, value);
    }
}

#[test]
fn every_encoding_runs_in_every_mode() {
    for place in PLACES {
        let mut rerun = Rerun::new(place);
        let forms = forms(place.mode);
        let mut limits = Vec::new();
        for bytes in &forms {
            for value in [layout::DATA, 3, 0x53, 0x70, u64::MAX] {
                limits.extend(rerun.limit(bytes, |state| registers(state, value)));
            }
        }
        assert!(
            limits.is_empty(),
            "{place:?}: {} of {} forms: {:#?}",
            limits.len(),
            forms.len(),
            &limits[..limits.len().min(20)]
        );
    }
}

#[test]
fn random_bytes_with_random_registers_run_in_every_mode() {
    for (place, seed) in PLACES.into_iter().zip(1..) {
        let mut rerun = Rerun::new(place);
        let mut chance = Chance::new(seed);
        for case in 0..20_000 {
            let words = [chance.next(), chance.next()];
            let mut bytes = [0; MAX_INSTRUCTION + 1];
            for (to, from) in bytes.chunks_exact_mut(8).zip(words) {
                to.copy_from_slice(&from.to_le_bytes());
            }
            let wild = chance.next();
            let limit = rerun.limit(&bytes, |state| {
                for (n, register) in (0..).zip(Gpr::ALL) {
                    // Small numbers, addresses of data, and anything.
                    let value = match wild >> (2 * n) & 3 {
                        0 => wild >> 59,
                        1 => layout::DATA + (wild & 0xFF8),
                        2 => wild,
                        _ => continue,
                    };
                    state.set_gpr(register, value);
                }
                state.flags.set(wild & (flags::ARITHMETIC | flags::DF | flags::TF | flags::AC | flags::NT));
            });
            assert_eq!(limit, None, "{place:?}, seed {seed}, case {case}: {bytes:02x?}");
        }
    }
}
