//! From the instructions of a block to host code.
//!
//! # Rules
//! - RAX, RCX, RDX, RBX, RSI, RDI, R8 and R9 of the guest are themselves, RSP is R10, RBP is R11; the other six live in the
//!   [context](crate::context). R12 to R14 are scratch, R15 is the budget, RBP the context.
//! - A block begins with its flags in the context. Inside, flags stay in the host's until something else needs those; they are
//!   saved only where a later instruction, or whoever may see the state there, needs them.
//! - An instruction is left either before it changed anything or when it is complete; every way out finds registers in
//!   their places and the flags saved.
//! - What the manuals leave undefined is made what the interpreter makes of it: AF by a mask beside the saved flags, and the flags
//!   of multiplications by computing them.

mod avx;
mod bit_fields;
mod bits;
mod branch;
mod double_shift;
mod flags;
mod integer;
mod memory;
mod vector;

use phys_memory::Window;

use crate::asm::{Asm, Host, Label, Rm};
use crate::context::{self, BUDGET, host_of};
use crate::ir::{FlagUse, Insn, Reg, Width};
use crate::{ExitKind, Step, Unit};
use flags::FlagState;

/// Scratch: the address of an access, or a value.
const T0: Host = Host::R12;
/// Scratch: the entry of an access in the TLB; kept until the access is over.
const T1: Host = Host::R13;
/// Scratch, also of flags.
const T2: Host = Host::R14;

/// A way out to an address known now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) target: u64,
    /// Where the address to jump to is kept, and what it is as long as nobody linked the two: offsets into the code.
    pub(crate) slot: Option<(u32, u32)>,
}

/// Code that is not at its place yet.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) bytes: Vec<u8>,
    /// Where to go on at each instruction, if the one before was done elsewhere.
    pub(crate) resume: Vec<Option<u32>>,
    pub(crate) links: Vec<Link>,
    /// Where the generation of the code's page is kept.
    pub(crate) generation: u32,
}

/// A way out in the middle, written behind everything else.
struct Side {
    label: Label,
    kind: ExitKind,
    op: usize,
    /// The access's address is still a linear one, has become a host address, or there is none.
    address: SideAddress,
    /// Where the guest goes on.
    rip: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SideAddress {
    None,
    Linear,
    Host,
}

struct PendingLink {
    target: u64,
    slot: Option<Label>,
    stub: Label,
}

struct Emitter<'a> {
    asm: Asm,
    unit: &'a Unit<'a>,
    page: Window,
    /// Names the code in its ways out.
    code: u32,
    /// By instruction: its flags before it are needed.
    live: Vec<bool>,
    flags: FlagState,
    sides: Vec<Side>,
    links: Vec<PendingLink>,
    enables: Vec<vector::Enable>,
    /// SSE is known to be on from here to where somebody else does an instruction.
    sse_checked: bool,
    avx_checked: bool,
    /// Behind the check of the page's generation.
    again: Label,
}

/// Compiles a block; `None` if something in it has no encoding here.
pub(crate) fn compile(unit: &Unit<'_>, page: Window, code: u32) -> Option<Compiled> {
    let mut asm = Asm::default();
    let again = asm.label();
    let steps: Vec<Step> = unit
        .steps
        .iter()
        .map(|step| Step { insn: step.insn.filter(Insn::is_supported), end: step.end })
        .collect();
    let unit = &Unit { steps: &steps, ..*unit };
    let emitter = Emitter {
        asm,
        unit,
        page,
        code,
        live: live(unit),
        flags: FlagState::SAVED,
        sides: Vec::new(),
        links: Vec::new(),
        enables: Vec::new(),
        sse_checked: false,
        avx_checked: false,
        again,
    };
    emitter.block()
}

/// Before which instructions the flags are needed: by a later one, or because the state there can be seen.
fn live(unit: &Unit<'_>) -> Vec<bool> {
    let mut live = vec![true; unit.steps.len() + 1];
    let mut needed = true;
    for (n, step) in unit.steps.iter().enumerate().rev() {
        needed = match &step.insn {
            None => true,
            Some(insn) => match insn.flags() {
                FlagUse::Reads => true,
                FlagUse::Sets => insn.may_stop(),
                FlagUse::Changes => needed || insn.may_stop() || matches!(insn, Insn::Arithmetic { .. }),
                FlagUse::None => needed || insn.may_stop(),
            },
        };
        if let Some(slot) = live.get_mut(n) {
            *slot = needed;
        }
    }
    live
}

impl Emitter<'_> {
    fn block(mut self) -> Option<Compiled> {
        let generation = self.asm.label();
        let stale = self.link(self.unit.rip, true);
        let entry = self.page.word().as_ptr().expose_provenance() as u64;
        self.asm.constant(T0, entry);
        self.asm.load(Width::Dword, T0, Rm::Base(T0, Window::GENERATION_OFFSET as i32));
        self.asm.op(Width::Dword, 0x3A, T0, Rm::Rip(generation));
        let good = self.asm.label();
        self.asm.jump_if(EQUAL, good);
        self.follow(stale);
        self.asm.bind(good);
        self.asm.bind(self.again);
        self.asm.group1(Width::Qword, SUB, Rm::Reg(BUDGET), self.unit.steps.len() as i32);
        let exhausted = self.side(ExitKind::Budget, 0, SideAddress::None, None);
        self.asm.jump_if(LESS, exhausted);

        let mut resume = vec![None; self.unit.steps.len()];
        let mut resumes = Vec::new();
        let mut ended = false;
        for (n, step) in self.unit.steps.iter().enumerate() {
            match &step.insn {
                Some(insn) => {
                    if self.live(n) && insn.may_stop() {
                        self.save_flags();
                    }
                    self.instruction(n, insn)?;
                    ended = insn.ends_block();
                }
                None => {
                    self.save_flags();
                    self.leave(ExitKind::Interpret, n);
                    self.flags = FlagState::SAVED;
                    self.sse_checked = false;
                    self.avx_checked = false;
                    ended = n + 1 == self.unit.steps.len();
                }
            }
            // The owner does what is not compiled without coming here.
            let next = self.unit.steps.get(n + 1).is_some_and(|step| step.insn.is_some());
            if !ended && next && step.insn.as_ref().is_none_or(Insn::may_stop) {
                let here = self.asm.here();
                resumes.push((n + 1, here, self.flags.in_host()));
            }
        }
        if !ended {
            self.save_flags();
            let end = self.unit.steps.last()?.end;
            self.chain(self.unit.rip.wrapping_add(u64::from(end)));
        }
        for (n, here, in_host) in resumes {
            let label = if in_host {
                let stub = self.asm.here();
                self.restore_flags();
                self.asm.jump(here);
                stub
            } else {
                here
            };
            if let Some(slot) = resume.get_mut(n) {
                *slot = Some(label);
            }
        }
        self.write_enables();
        self.write_sides();
        self.finish(generation, &resume)
    }

    fn finish(mut self, generation: Label, resume: &[Option<Label>]) -> Option<Compiled> {
        for n in 0..self.links.len() {
            let stub = self.links.get(n)?.stub;
            self.asm.bind(stub);
            self.leave(ExitKind::Link, n);
        }
        self.asm.align(8);
        self.asm.bind(generation);
        self.asm.raw(&u64::from(self.unit.generation).to_le_bytes());
        for n in 0..self.links.len() {
            if let Some(slot) = self.links.get(n)?.slot {
                self.asm.bind(slot);
                self.asm.raw(&[0; 8]);
            }
        }
        let place = |asm: &Asm, label| asm.offset(label);
        let resume = resume.iter().map(|label| label.and_then(|label| place(&self.asm, label))).collect();
        let mut links = Vec::new();
        for link in &self.links {
            let slot = match link.slot {
                Some(slot) => Some((place(&self.asm, slot)?, place(&self.asm, link.stub)?)),
                None => None,
            };
            links.push(Link { target: link.target, slot });
        }
        let generation = place(&self.asm, generation)?;
        Some(Compiled { bytes: self.asm.finish()?, resume, links, generation })
    }

    fn live(&self, n: usize) -> bool {
        self.live.get(n).copied().unwrap_or(true)
    }

    /// Goes back to the owner, with a word that says why.
    fn leave(&mut self, kind: ExitKind, op: usize) {
        self.asm.constant(T0, crate::exit_word(kind, op as u32, self.code));
        self.asm.ret();
    }

    fn side(&mut self, kind: ExitKind, op: usize, address: SideAddress, rip: Option<u64>) -> Label {
        let label = self.asm.label();
        self.sides.push(Side { label, kind, op, address, rip });
        label
    }

    fn write_sides(&mut self) {
        for side in core::mem::take(&mut self.sides) {
            self.asm.bind(side.label);
            if side.kind == ExitKind::Budget {
                self.asm.group1(Width::Qword, ADD, Rm::Reg(BUDGET), self.unit.steps.len() as i32);
            }
            if side.address == SideAddress::Host {
                self.asm.op(Width::Qword, 0x2A, T0, Rm::Base(T1, memory::ADDEND));
            }
            if side.address != SideAddress::None {
                self.asm.store(Width::Qword, context::LINEAR, T0);
            }
            if let Some(rip) = side.rip {
                self.asm.constant(T2, rip);
                self.asm.store(Width::Qword, context::RIP, T2);
            }
            self.leave(side.kind, side.op);
        }
    }

    /// A guest register's value, in its own place or in `scratch`.
    fn get(&mut self, reg: Reg, scratch: Host) -> Host {
        host_of(reg).unwrap_or_else(|| {
            self.asm.load(Width::Qword, scratch, context::register(reg));
            scratch
        })
    }

    /// Where a result for a guest register goes: its own place, or `scratch`, which holds the old value where only a part
    /// is replaced.
    fn target(&mut self, reg: Reg, scratch: Host, width: Width) -> Host {
        match width {
            Width::Byte | Width::Word => self.get(reg, scratch),
            Width::Dword | Width::Qword => host_of(reg).unwrap_or(scratch),
        }
    }

    /// Puts a result at its place that [`Self::target`] or [`Self::get`] found.
    fn put(&mut self, reg: Reg, from: Host) {
        if host_of(reg).is_none() {
            self.asm.store(Width::Qword, context::register(reg), from);
        }
    }

    /// Replaces a guest register by 32 or 64 bits of a host register.
    fn set(&mut self, reg: Reg, width: Width, from: Host) {
        let to = match width {
            Width::Qword => host_of(reg).unwrap_or(from),
            // The source keeps its upper half.
            _ => host_of(reg).unwrap_or(T2),
        };
        if width == Width::Qword {
            self.asm.copy(to, from);
        } else {
            self.asm.load(width, to, Rm::Reg(from));
        }
        self.put(reg, to);
    }
}

/// Numbers of group-1 operations in ModRM.
const ADD: u8 = 0;
const AND: u8 = 4;
const SUB: u8 = 5;
const CMP: u8 = 7;

/// Numbers of conditions.
const ABOVE_OR_EQUAL: u8 = 3;
const EQUAL: u8 = 4;
const NOT_EQUAL: u8 = 5;
const BELOW_OR_EQUAL: u8 = 6;
const LESS: u8 = 12;
