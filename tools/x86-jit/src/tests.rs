//! What the compiler does by itself, without a guest's CPU. That its code computes what the interpreter computes is tested with
//! both (`x86-emu`).

use phys_memory::{Arena, KeySpace};
use tdvisor_base::{Hpa, KeyId, Pfn};
use x86_arch::{Flags, Gpr, Registers, flags};

use crate::ir::{Address, Arithmetic, Atomicity, Insn, Operand, Reg, Source, Width};
use crate::{CodeId, CodePlace, Exit, Guest, HostTlb, Miss, Right, Sse, Step, Translator, Trust, Unit};

const CODE: u64 = 0x5000;
const DATA: u64 = 0x6000;
/// The bit of RFLAGS that is always one.
const FIXED: u64 = 2;
/// Where the code is in memory.
const HERE: CodePlace = CodePlace::new(Pfn::new(CODE >> 12), KeyId::DEFAULT);

struct Machine {
    arena: Arena,
    translator: Translator,
    tlb: HostTlb,
    registers: Registers,
    flags: Flags,
    privileged: bool,
}

impl Machine {
    fn new() -> Self {
        let arena = Arena::new(2 << 20, KeySpace::SHARED_ONLY);
        arena.write(Hpa::new(CODE), KeyId::DEFAULT, &[0x90]).expect("inside the arena");
        Self {
            arena,
            translator: Translator::new().expect("memory for code"),
            tlb: HostTlb::default(),
            registers: Registers::default(),
            flags: Flags::default(),
            privileged: true,
        }
    }

    fn compile(&mut self, rip: u64, insns: &[Option<Insn>]) -> CodeId {
        let steps: Vec<Step> =
            insns.iter().zip(1..).map(|(insn, n)| Step { insn: *insn, end: 4 * n }).collect();
        let page = Pfn::new(CODE >> 12);
        let generation = self.arena.watch_code(page).expect("inside the arena");
        let unit = Unit { rip, page, generation, steps: &steps };
        self.translator.compile(&self.arena, &unit).expect("instructions with an encoding")
    }

    fn run(&mut self, id: CodeId, step: usize, budget: &mut u64) -> Option<Exit> {
        let guest = Guest {
            registers: &mut self.registers,
            flags: &mut self.flags,
            bases: [0; 2],
            privileged: self.privileged,
            sse: Sse {
                registers: &mut [0; 16],
                upper: &mut [0; 16],
                mxcsr: &mut 0x1F80,
                on: true,
                avx_on: true,
            },
            tlb: &mut self.tlb,
            view: 0,
        };
        self.translator.run(&self.arena, id, step, guest, budget).map(|(_, exit)| exit)
    }
}

const fn miss(linear: u64, right: Right) -> Option<Miss> {
    Some(Miss { linear, right })
}

fn reg(n: u8) -> Reg {
    Reg::new(n).expect("a register")
}

fn at(base: u8) -> Address {
    Address { base: Some(reg(base)), index: None, scale: 0, displacement: 0, relative: false, segment: None }
}

const fn add(to: Operand, from: Source) -> Option<Insn> {
    Some(Insn::Arithmetic {
        kind: Arithmetic::Add,
        width: Width::Qword,
        to,
        from,
        atomicity: Atomicity::Plain,
    })
}

#[test]
fn a_block_pays_for_its_instructions_and_one_that_cannot_is_not_entered() {
    let mut m = Machine::new();
    let one = add(Operand::Register(reg(12)), Source::Immediate(1));
    let id = m.compile(CODE, &[one, one, Some(Insn::Jump { to: 0 })]);
    let mut budget = 11;
    assert_eq!(m.run(id, 0, &mut budget), Some(Exit::Budget));
    assert_eq!((budget, m.registers.get(Gpr::R12), m.registers.rip()), (2, 6, CODE));
}

#[test]
fn an_access_to_a_page_that_nobody_offered_changes_nothing_and_says_where_it_was() {
    let mut m = Machine::new();
    let id = m.compile(
        CODE,
        &[
            add(Operand::Register(reg(0)), Source::Immediate(7)),
            add(Operand::Memory(at(13)), Source::Register(reg(0))),
            None,
        ],
    );
    m.registers.set(Gpr::R13, DATA + 0xFF8);
    let mut budget = 100;
    let exit = m.run(id, 0, &mut budget);
    assert_eq!(exit, Some(Exit::Interpret { step: 1, miss: miss(DATA + 0xFF8, Right::Write) }));
    assert_eq!((m.registers.get(Gpr::Rax), budget), (7, 97));
    m.arena.store(Hpa::new(DATA), KeyId::DEFAULT, 0u64).expect("inside the arena");
    m.tlb.fill(0, DATA, Right::Write, &m.arena, Hpa::new(DATA), KeyId::DEFAULT);
    // The page itself is there now, and beyond its end nothing is.
    assert_eq!(m.run(id, 0, &mut budget), Some(Exit::Interpret { step: 2, miss: None }));
    assert_eq!(m.arena.load::<u64>(Hpa::new(DATA + 0xFF8), KeyId::DEFAULT), Ok(14));
    m.registers.set(Gpr::R13, DATA + 0xFF9);
    let exit = m.run(id, 0, &mut budget);
    assert_eq!(exit, Some(Exit::Interpret { step: 1, miss: miss(DATA + 0xFF9, Right::Write) }));
}

#[test]
fn a_page_that_got_another_key_is_not_accessed() {
    let mut m = Machine::new();
    let id = m.compile(CODE, &[add(Operand::Register(reg(0)), Source::Memory(at(3))), None]);
    m.arena.store(Hpa::new(DATA), KeyId::DEFAULT, 5u64).expect("inside the arena");
    m.tlb.fill(0, DATA, Right::Read, &m.arena, Hpa::new(DATA), KeyId::DEFAULT);
    m.registers.set(Gpr::Rbx, DATA);
    let mut budget = 100;
    assert_eq!(m.run(id, 0, &mut budget), Some(Exit::Interpret { step: 1, miss: None }));
    m.arena.clear_page(Pfn::new(DATA >> 12), KeyId::new(9)).expect("inside the arena");
    assert_eq!(m.run(id, 0, &mut budget), Some(Exit::Interpret { step: 0, miss: miss(DATA, Right::Read) }));
}

#[test]
fn code_whose_page_was_written_is_left_until_somebody_has_looked() {
    let mut m = Machine::new();
    let target = m.compile(CODE + 0x100, &[add(Operand::Register(reg(2)), Source::Immediate(1)), None]);
    let id = m.compile(CODE, &[Some(Insn::Jump { to: 0x100 })]);
    let mut budget = 100;
    let Some(Exit::Leave { rip, from }) = m.run(id, 0, &mut budget) else { panic!("nothing is linked yet") };
    assert_eq!(rip, CODE + 0x100);
    m.translator.link(from, target, Trust::Lasting);
    assert_eq!(m.run(id, 0, &mut budget), Some(Exit::Interpret { step: 1, miss: None }));
    m.arena.store(Hpa::new(CODE + 8), KeyId::DEFAULT, 1u8).expect("inside the arena");
    assert!(matches!(m.run(id, 0, &mut budget), Some(Exit::Leave { rip: CODE, .. })));
    let generation = m.arena.watch_code(Pfn::new(CODE >> 12)).expect("inside the arena");
    m.translator.renew(id, generation);
    assert!(matches!(m.run(id, 0, &mut budget), Some(Exit::Leave { rip, .. }) if rip == CODE + 0x100));
    m.translator.renew(target, generation);
    assert_eq!(m.run(id, 0, &mut budget), Some(Exit::Interpret { step: 1, miss: None }));
    assert_eq!(m.registers.get(Gpr::Rdx), 2);
}

#[test]
fn a_store_into_watched_code_is_told_or_left_to_the_owner() {
    let mut m = Machine::new();
    let id = m.compile(CODE, &[add(Operand::Memory(at(3)), Source::Immediate(1)), None]);
    m.tlb.fill(0, CODE, Right::Write, &m.arena, Hpa::new(CODE), KeyId::DEFAULT);
    m.registers.set(Gpr::Rbx, CODE + 64);
    let mut budget = 100;
    assert_eq!(
        m.run(id, 0, &mut budget),
        Some(Exit::Interpret { step: 0, miss: miss(CODE + 64, Right::Write) })
    );
}

#[test]
fn indirect_branches_go_where_they_were_offered_to_as_long_as_the_page_is_known_to_be_there() {
    let mut m = Machine::new();
    let target = m.compile(CODE + 0x40, &[add(Operand::Register(reg(2)), Source::Immediate(1)), None]);
    let id = m.compile(CODE, &[Some(Insn::JumpIndirect { to: Operand::Register(reg(14)) })]);
    m.registers.set(Gpr::R14, CODE + 0x40);
    let mut budget = 100;
    assert_eq!(m.run(id, 0, &mut budget), Some(Exit::Interpret { step: 0, miss: None }));
    m.translator.offer(target, HERE, Trust::Lasting);
    m.tlb.fill_code(0, CODE, CodePlace::new(HERE.page(), KeyId::new(9)));
    assert_eq!(m.run(id, 0, &mut budget), Some(Exit::Interpret { step: 0, miss: None }));
    m.translator.offer(target, HERE, Trust::ForNow);
    m.tlb.fill_code(1, CODE, HERE);
    assert_eq!(m.run(id, 0, &mut budget), Some(Exit::Interpret { step: 0, miss: None }), "of another view");
    m.tlb.fill_code(0, CODE, HERE);
    assert_eq!(m.run(id, 0, &mut budget), Some(Exit::Interpret { step: 1, miss: None }));
    assert_eq!(m.registers.get(Gpr::Rdx), 1);
    m.translator.withdraw();
    assert_eq!(m.run(id, 0, &mut budget), Some(Exit::Interpret { step: 0, miss: None }));
}

#[test]
fn another_arena_finds_no_code_and_no_pages() {
    let mut m = Machine::new();
    let id = m.compile(CODE, &[add(Operand::Register(reg(2)), Source::Immediate(1)), None]);
    let mut budget = 100;
    assert!(m.run(id, 0, &mut budget).is_some());
    m.arena = Arena::new(2 << 20, KeySpace::SHARED_ONLY);
    assert_eq!(m.run(id, 0, &mut budget), None);
}

#[test]
fn code_that_fills_its_memory_goes_and_its_names_with_it() {
    let mut m = Machine::new();
    let insns = [add(Operand::Memory(at(13)), Source::Register(reg(14))); 100];
    let first = m.compile(CODE, &insns);
    while m.translator.is_kept(first) {
        m.compile(CODE, &insns);
    }
    let mut budget = 1000;
    assert_eq!(m.run(first, 0, &mut budget), None);
    let again = m.compile(CODE, &insns);
    assert!(m.run(again, 0, &mut budget).is_some());
}

#[test]
fn the_first_store_to_a_page_is_the_owners() {
    let mut m = Machine::new();
    let id = m.compile(CODE, &[add(Operand::Memory(at(3)), Source::Immediate(1)), None]);
    // The chunk is there; the page was never written.
    m.tlb.fill(0, DATA, Right::Write, &m.arena, Hpa::new(DATA), KeyId::DEFAULT);
    m.registers.set(Gpr::Rbx, DATA);
    let mut budget = 100;
    let left = Exit::Interpret { step: 0, miss: miss(DATA, Right::Write) };
    assert_eq!(m.run(id, 0, &mut budget), Some(left));
    m.arena.store(Hpa::new(DATA), KeyId::DEFAULT, 5u8).expect("inside the arena");
    assert_eq!(m.run(id, 0, &mut budget), Some(Exit::Interpret { step: 1, miss: None }));
    assert_eq!(m.arena.load(Hpa::new(DATA), KeyId::DEFAULT), Ok(6u8));
}

#[test]
fn interrupts_are_disabled_where_the_guest_may_and_pushed_with_the_other_flags() {
    let mut m = Machine::new();
    m.arena.store(Hpa::new(DATA), KeyId::DEFAULT, 0u64).expect("inside the arena");
    m.tlb.fill(0, DATA, Right::Write, &m.arena, Hpa::new(DATA), KeyId::DEFAULT);
    let id = m.compile(CODE, &[Some(Insn::PushFlags), Some(Insn::ClearInterrupts), None]);
    let before = flags::IF | flags::CF | flags::OF | flags::AC;
    m.flags.set(before);
    m.registers.set(Gpr::Rsp, DATA + 8);
    let mut budget = 100;
    assert_eq!(m.run(id, 0, &mut budget), Some(Exit::Interpret { step: 2, miss: None }));
    assert_eq!(m.flags.get(), before & !flags::IF | FIXED);
    assert_eq!(m.registers.get(Gpr::Rsp), DATA);
    assert_eq!(m.arena.load::<u64>(Hpa::new(DATA), KeyId::DEFAULT), Ok(before | FIXED));
    m.privileged = false;
    m.registers.set(Gpr::Rsp, DATA + 8);
    assert_eq!(m.run(id, 0, &mut budget), Some(Exit::Interpret { step: 1, miss: None }));
}
