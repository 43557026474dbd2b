//! Carries an input out and notes what it reached.
//!
//! A guest's operations follow its TDH.VP.ENTER. Operations of the host that stand among them are carried out by
//! the other processor while the guest runs; there a second guest may run, and no third.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Barrier, OnceLock};
use std::thread;

use seam_emu::fidelity;
use seam_emu::guest::{GuestRegisters, gpr};
use seam_emu::{
    CpuGuest, EngineKind, GuestCpu, GuestEnv, GuestState, Machine, PconfigMode, RdseedMode, VmExit,
};
use tdvisor_base::{Gpa, Hpa, KeyId, Level};
use tdvisor_test_data::chance::mix;
use tdx_module_iface::exit::{ExitReason, ExitReasonField};
use tdx_module_iface::{Gprs, Reg, Status, StatusCode, TdgLeaf, TdhLeaf};
use x86_arch::{Access, Activity, Gpr, Interruptibility};

use super::input::{Input, Kind, Op};
use super::operands::Operands;
use super::world::{CODE, MAPPED, PML4, World};

const ARGUMENTS: [Reg; 6] = [Reg::Rcx, Reg::Rdx, Reg::R8, Reg::R9, Reg::R10, Reg::R11];
/// Instructions that a guest executes before the host's timer takes it off.
const QUANTUM: u64 = 2000;
/// Steps of TDH.SYS.TDMR.INIT that one operation makes beforehand.
const TDMR_STEPS: usize = 64;
/// MSRs that exits are about.
const MSRS: [u32; 16] = [
    0x10,
    0x1b,
    0x48,
    0x10a,
    0x174,
    0x176,
    0x1a0,
    0x277,
    0x6e0,
    0x808,
    0x80b,
    0x83f,
    0xda0,
    0xc000_0080,
    0xc000_0082,
    0xc000_0100,
];
const PLANS: [&str; 6] = [
    "chaos:7/5",
    "*#3=irq",
    "TDH.MEM.RANGE.BLOCK#1=OPERAND_BUSY:SEPT_TREE",
    "TDG.MEM.PAGE.ACCEPT#1=OPERAND_BUSY:RCX",
    "TDH.VP.ENTER#2=irq",
    "TDH.MEM.SEPT.ADD#1..2=irq",
];

/// What one input did.
pub struct Outcome {
    /// Hashes of (what, status, operand) and the like.
    pub features: BTreeSet<u64>,
    /// What does not add up afterwards.
    pub findings: Vec<String>,
}

/// Carries an input out alone.
pub fn play(input: &Input) -> Outcome {
    let world = super::world::world(input.world);
    let machine = world.machine();
    let play = Play::new(&machine, world, &input.ops, None);
    play.run();
    let mut features = play.features.into_inner();
    for violation in machine.violations() {
        let text = format!("{violation:?}");
        features.insert(mix(text.bytes().take(12).fold(7, |hash, byte| mix(hash ^ u64::from(byte)))));
    }
    let mut findings: Vec<String> = play.unlisted.into_inner().into_iter().collect();
    findings.extend(after(&machine));
    Outcome { features, findings }
}

/// Carries two inputs out at once, one on each processor, in the world of the first.
pub fn play_together(first: &Input, second: &Input) -> Vec<String> {
    let world = super::world::world(first.world);
    let machine = world.machine();
    let start = Barrier::new(2);
    let on = |lp: usize, input: &Input| {
        let play = Play::new(&machine, world, &input.ops, Some(lp));
        start.wait();
        play.run();
    };
    thread::scope(|scope| {
        let other = scope.spawn(|| on(1, second));
        on(0, first);
        other.join().unwrap();
    });
    after(&machine)
}

/// What is wrong with a machine at rest.
fn after(machine: &Machine) -> Vec<String> {
    machine.audit().iter().map(ToString::to_string).collect()
}

struct Play<'w> {
    machine: &'w Machine,
    world: &'w World,
    ops: &'w [Op],
    /// The processor that this thread is, if there is another thread.
    only: Option<usize>,
    next: Cell<usize>,
    features: RefCell<BTreeSet<u64>>,
    last: Cell<Gprs>,
    cpus: [RefCell<Option<CpuGuest>>; 2],
    /// Calls return what a plan says.
    fails_on_demand: Cell<bool>,
    /// Codes that the fidelity table does not know of their leaf.
    unlisted: RefCell<BTreeSet<String>>,
    /// One input is replayed, and somebody wants to see what it does.
    trace: bool,
}

impl<'w> Play<'w> {
    fn new(machine: &'w Machine, world: &'w World, ops: &'w [Op], only: Option<usize>) -> Self {
        Self {
            machine,
            world,
            ops,
            only,
            next: Cell::new(0),
            features: RefCell::default(),
            last: Cell::new(Gprs::ZERO),
            cpus: Default::default(),
            fails_on_demand: Cell::new(false),
            unlisted: RefCell::default(),
            trace: std::env::var_os("TDVISOR_FUZZ_INPUT").is_some(),
        }
    }

    fn run(&self) {
        while let Some(op) = self.take() {
            self.host(op, None);
        }
    }

    fn take(&self) -> Option<&'w Op> {
        let op = self.ops.get(self.next.get());
        self.next.set(self.next.get() + 1);
        op
    }

    fn note(&self, what: u64, leaf: u64, value: u64) {
        self.features.borrow_mut().insert(mix(what << 56 ^ leaf << 40 ^ mix(value)));
    }

    /// Which code, and of which operand; the reason of an exit.
    fn note_status(&self, what: u64, leaf: u64, rax: u64) {
        let details =
            if Status::from_raw(rax).code() == StatusCode::SUCCESS { rax & 0xffff } else { rax & 0xff };
        self.note(what, leaf, rax >> 32 << 32 | details);
    }

    /// What a leaf returned, which the fidelity table has to list.
    fn check_listed(&self, leaf: Option<&'static str>, rax: u64) {
        /// Dispatch gives these for every leaf; without entries (dynamic PAMT) every page is refused.
        const ANY: [StatusCode; 4] = [
            StatusCode::OPERAND_INVALID,
            StatusCode::SYS_NOT_READY,
            StatusCode::SYS_SHUTDOWN,
            StatusCode::MISSING_PAMT_PAGE_PAIR,
        ];
        static TABLE: OnceLock<BTreeMap<&'static str, BTreeSet<StatusCode>>> = OnceLock::new();
        let table =
            TABLE.get_or_init(|| fidelity::TABLE.iter().map(|row| (row.leaf, row.all_codes())).collect());
        let code = Status::from_raw(rax).code();
        let listed = leaf.and_then(|leaf| table.get(leaf)).is_some_and(|codes| codes.contains(&code));
        if !listed && !ANY.contains(&code) && !self.fails_on_demand.get() {
            let leaf = leaf.unwrap_or("an unknown leaf");
            self.unlisted.borrow_mut().insert(format!("{leaf} returned {code}, which its row does not list"));
        }
    }

    fn operands(&self) -> Operands<'w> {
        Operands { world: self.world, last: self.last.get() }
    }

    /// One operation of the host; `running` is the processor on which a guest runs meanwhile.
    fn host(&self, op: &Op, running: Option<usize>) {
        let lp = self.only.unwrap_or(running.map_or(usize::from(op.byte(1) & 1), |lp| 1 - lp));
        let operands = self.operands();
        if self.trace && op.kind() != Kind::Seamcall {
            println!("{lp}: {:?} {:x?}", op.kind(), op.0);
        }
        match op.kind() {
            Kind::Seamcall => self.seamcall(op, lp, running),
            Kind::HostWrite => {
                let at = operands.hpa(op.byte(1), op.byte(2));
                let data = op.word(4).to_le_bytes();
                let len = usize::from(op.byte(3) & 7) + 1;
                let _ = self.machine.host_write(Hpa::new(at & !7), &data[..len]);
            }
            Kind::HostClear => {
                let at = operands.hpa(op.byte(1), op.byte(2)) & !0xfff;
                let _ = self.machine.movdir64b_clear(Hpa::new(at));
            }
            Kind::HostFlush => match op.byte(1) & 3 {
                0 => self.machine.invept(lp),
                1 => self.machine.wbinvd(lp),
                2 => self.machine.flush_guest_translations(),
                _ => {
                    let at = Hpa::new(operands.hpa(op.byte(2), op.byte(3)));
                    self.machine.note_host_page_freed(at.frame(), Level::L4K);
                }
            },
            Kind::Interrupt => {
                self.machine.set_interrupt_pending(usize::from(op.byte(1) & 1), op.byte(2) & 1 != 0)
            }
            Kind::Hardware => match op.byte(1) & 3 {
                0 => self
                    .machine
                    .set_rdseed_mode([RdseedMode::Ok, RdseedMode::NoEntropy][usize::from(op.byte(2) & 1)]),
                1 => {
                    let modes = [PconfigMode::Ok, PconfigMode::EntropyError, PconfigMode::DeviceBusy];
                    self.machine.set_pconfig_mode(modes[usize::from(op.byte(2)) % 3]);
                }
                _ => self.machine.advance_tsc(op.word(4)),
            },
            Kind::Faults => {
                let plan = PLANS.get(usize::from(op.byte(1)) % 8).copied().unwrap_or("");
                self.machine.faults().set_plan(plan.parse().unwrap_or_default());
                self.fails_on_demand.set(true);
            }
            // Nobody is there to do what guests do.
            Kind::Tdcall | Kind::Leave | Kind::Access | Kind::Exit | Kind::Code => {}
        }
    }

    fn seamcall(&self, op: &Op, lp: usize, running: Option<usize>) {
        let leaf = TdhLeaf::ALL.get(usize::from(op.byte(2)) % (TdhLeaf::ALL.len() + 1)).copied();
        let leaf = leaf.unwrap_or(TdhLeaf(999));
        let operands = self.operands();
        let mut gprs = Gprs { rax: u64::from(leaf.0) | u64::from(op.byte(3) & 3) << 16, ..Gprs::ZERO };
        if op.byte(3) & 0x80 != 0 {
            gprs.rax |= 1 << (24 + op.byte(3) % 40);
        }
        for (index, reg) in ARGUMENTS.into_iter().enumerate() {
            let (select, number) = (op.byte(4 + 2 * index), op.byte(5 + 2 * index));
            gprs.set(reg, operands.host(leaf, reg, select, number, self.machine));
        }
        (gprs.r12, gprs.r13) = (gprs.r9, gprs.r10);
        if leaf == TdhLeaf::VP_ENTER && op.byte(1) & 0x80 != 0 {
            gprs.rcx |= 1 << (52 + (op.byte(1) >> 6 & 1));
        }
        let mut guest =
            Guest { play: self, lp, may_nest: running.is_none() && self.only.is_none(), tdcall: None };
        let Some(processor) = self.machine.lp(lp) else { return };
        // Most of a module's bring-up is this call, again and again.
        if leaf == TdhLeaf::SYS_TDMR_INIT {
            for _ in 0..TDMR_STEPS {
                let _ = processor.seamcall_with(&mut gprs.clone(), &mut guest);
            }
        }
        let given = gprs;
        if processor.seamcall_with(&mut gprs, &mut guest).is_ok() {
            if self.trace {
                println!("{lp}: {leaf} {given:x?}\n  -> {:?} {gprs:x?}", Status::from_raw(gprs.rax));
            }
            self.note_status(1, u64::from(leaf.0), gprs.rax);
            self.check_listed(leaf.name(), gprs.rax);
            let code = gprs.rax >> 32;
            match leaf {
                TdhLeaf::MEM_SEPT_RD => self.note(2, gprs.rdx & 0xffff, 0),
                // Which kind of field, and which level.
                TdhLeaf::MNG_RD | TdhLeaf::MNG_WR | TdhLeaf::VP_RD | TdhLeaf::VP_WR | TdhLeaf::SYS_RD => {
                    self.note(6, u64::from(leaf.0), given.rdx >> 56 | code << 8);
                }
                _ if leaf.name().is_some_and(|name| name.starts_with("TDH.MEM.")) => {
                    self.note(7, u64::from(leaf.0), given.rcx & 7 | code << 8);
                }
                _ => {}
            }
            self.last.set(gprs);
        }
    }
}

/// The guest of one TDH.VP.ENTER.
struct Guest<'p, 'w> {
    play: &'p Play<'w>,
    lp: usize,
    may_nest: bool,
    /// The TDCALL under way, and where it was issued.
    tdcall: Option<(TdgLeaf, u64)>,
}

impl GuestCpu for Guest<'_, '_> {
    fn run(&mut self, state: &mut GuestState, env: &GuestEnv<'_>) -> VmExit {
        if let Some((leaf, rip)) = self.tdcall.take()
            && state.rip() != rip
        {
            self.play.note_status(3, u64::from(leaf.0), state.regs[Gpr::Rax]);
            self.play.check_listed(leaf.name(), state.regs[Gpr::Rax]);
        }
        if let Some(event) = state.event {
            self.play.note(4, u64::from(event.vector), event.kind as u64);
        }
        let exit = self.turn(state, env);
        if self.play.trace {
            println!("  {}: guest at {:#x}: {exit:x?}", self.lp, state.rip());
        }
        if exit.reason.basic() != ExitReason::TDCALL {
            self.play.note(5, u64::from(exit.reason.0), u64::from(exit.suppress_ve));
        }
        exit
    }

    fn flush_translations(&mut self, only: Option<Gpa>) {
        if let Some(slot) = self.play.cpus.get(self.lp)
            && let Some(cpu) = slot.borrow_mut().as_mut()
        {
            cpu.flush_translations(only);
        }
    }
}

impl Guest<'_, '_> {
    fn turn(&mut self, state: &mut GuestState, env: &GuestEnv<'_>) -> VmExit {
        loop {
            let Some(op) = self.play.take() else { return VmExit::plain(ExitReason::EXTERNAL_INTERRUPT) };
            match op.kind() {
                Kind::Code => return self.code(op, state, env),
                Kind::Leave | Kind::Tdcall | Kind::Exit | Kind::Access => {
                    state.event = None;
                    if let Some(exit) = self.scripted(op, state, env) {
                        return exit;
                    }
                }
                _ if self.may_nest => self.play.host(op, Some(self.lp)),
                _ => {}
            }
        }
    }

    fn scripted(&mut self, op: &Op, state: &mut GuestState, env: &GuestEnv<'_>) -> Option<VmExit> {
        state.set_rip(state.rip().wrapping_add(u64::from(op.byte(1) & 3) * 16));
        let operands = self.play.operands();
        match op.kind() {
            Kind::Tdcall => {
                if op.byte(1) & 0x40 == 0 {
                    state.enter_64_bit_mode();
                }
                let leaf = TdgLeaf::ALL.get(usize::from(op.byte(2)) % (TdgLeaf::ALL.len() + 1)).copied();
                let leaf = leaf.unwrap_or(TdgLeaf(999));
                state.regs[Gpr::Rax] = u64::from(leaf.0) | u64::from(op.byte(3) >> 6) << 16;
                for (index, reg) in ARGUMENTS.into_iter().enumerate() {
                    let (select, number) = (op.byte(4 + 2 * index), op.byte(5 + 2 * index));
                    state.set_gpr(gpr(reg), operands.guest(leaf, reg, select, number));
                }
                self.tdcall = Some((leaf, state.rip()));
                Some(VmExit::tdcall())
            }
            Kind::Access => self.access(op, Gpa::new(operands.gpa(op.byte(2), op.byte(3))), env),
            Kind::Exit => Some(self.exit(op, state)),
            _ => Some(VmExit::plain(ExitReason::EXTERNAL_INTERRUPT)),
        }
    }

    fn access(&self, op: &Op, gpa: Gpa, env: &GuestEnv<'_>) -> Option<VmExit> {
        let gpa = gpa.wrapping_add(u64::from(op.byte(5)) * 16);
        let mut bytes = [op.byte(6); 64];
        let result = match op.byte(4) % 3 {
            0 => env.read(gpa, &mut bytes),
            1 => env.write(gpa, &bytes),
            _ => env.translate(gpa, Access::Execute).map(drop).map_err(Into::into),
        };
        match result {
            Ok(()) => None,
            Err(seam_emu::machine::GuestMemoryError::Exit(exit)) => Some(exit),
            Err(seam_emu::machine::GuestMemoryError::Memory(_)) => {
                let mut exit = VmExit::plain(ExitReason::EXCEPTION_NMI);
                exit.interruption_info = 0x8000_0312;
                Some(exit)
            }
        }
    }

    fn exit(&self, op: &Op, state: &mut GuestState) -> VmExit {
        let common = [0u8, 1, 2, 7, 8, 10, 12, 18, 28, 30, 31, 32, 40, 48, 49, 52, 54, 55];
        let reason = match op.byte(2) {
            number @ 0..=90 => number,
            number => common[usize::from(number) % common.len()],
        };
        let operands = self.play.operands();
        let mut exit =
            VmExit::instruction(ExitReason(u16::from(reason)), u32::from(op.byte(3) & 15), op.word(8));
        exit.gpa = Gpa::new(operands.gpa(op.byte(4), op.byte(5)));
        exit.suppress_ve = op.byte(6) & 1 == 0;
        exit.instruction_info = op.word(8) as u32;
        if op.byte(6) & 2 != 0 {
            exit.interruption_info = 0x8000_0000 | u32::from(op.byte(7)) | u32::from(op.byte(3) >> 5) << 8;
        }
        if op.byte(6) & 4 != 0 {
            exit.idt_vectoring_info = 0x8000_0000 | u32::from(op.byte(7)) | u32::from(op.byte(6) >> 5) << 8;
        }
        if op.byte(6) & 0x18 == 0x18 && op.byte(7) < 16 {
            exit.reason = ExitReasonField(exit.reason.0 | ExitReasonField::ENTRY_FAILURE);
        }
        match exit.reason.basic() {
            ExitReason::RDMSR | ExitReason::WRMSR => {
                state.regs[Gpr::Rcx] = u64::from(MSRS[usize::from(op.byte(3) >> 4)]);
                (state.regs[Gpr::Rax], state.regs[Gpr::Rdx]) = (op.word(8) & 0xffff_ffff, op.word(8) >> 32);
            }
            ExitReason::CPUID => {
                let leaf = u64::from(op.byte(7) & 0x3f) | u64::from(op.byte(7) >> 7) << 31;
                (state.regs[Gpr::Rax], state.regs[Gpr::Rcx]) = (leaf, u64::from(op.byte(8) & 7));
            }
            _ => state.regs[Gpr::Rax] = op.word(8),
        }
        if op.byte(6) & 0x20 != 0 {
            state.flags.set(state.flags.get() | 1 << 9);
        }
        exit
    }

    /// Puts instructions at their place in the first TD's code page, and executes from there.
    fn code(&self, op: &Op, state: &mut GuestState, env: &GuestEnv<'_>) -> VmExit {
        let place = u64::from(op.byte(1) & 0x3f) * 14;
        if let Some((page, key)) = self.play.world.code {
            // Under the TD's key, as if the guest itself had written it; refused where the page is no longer its.
            let at = page.wrapping_add(place);
            let _ = self.play.machine.memory().write(at, KeyId::new(key as u16), &op.0[2..]);
        }
        match op.byte(1) >> 6 {
            0 => long_mode(state, CODE + place),
            1 => state.set_rip(CODE + place),
            _ => {}
        }
        let Some(slot) = self.play.cpus.get(self.lp) else {
            return VmExit::plain(ExitReason::EXTERNAL_INTERRUPT);
        };
        let mut slot = slot.borrow_mut();
        self.play.machine.set_quantum(self.lp, Some(QUANTUM));
        // Both engines: one on each processor.
        let kind = EngineKind::ALL[self.lp % EngineKind::ALL.len()];
        let cpu = slot.get_or_insert_with(|| CpuGuest::from(kind.eager().expect("memory for code")));
        cpu.run(state, env)
    }
}

/// 64-bit mode at CPL 0 with the identity page tables.
fn long_mode(state: &mut GuestState, rip: u64) {
    state.enter_64_bit_mode();
    state.control.cr0 = 0x8000_0033;
    state.control.cr3 = PML4;
    state.control.cr4 = 0x4_2660;
    state.control.efer = 0xd01;
    state.set_rip(rip);
    state.regs[Gpr::Rsp] = MAPPED + 0x2800;
    (state.activity, state.interruptibility) = (Activity::Active, Interruptibility::default());
}
