//! Stack, branches, and the ways from one block to the next.

use core::mem::offset_of;

use super::{AND, Emitter, NOT_EQUAL, PendingLink, SideAddress, T0, T1, T2, memory::AT};
use crate::ExitKind;
use crate::asm::{Host, Rm};
use crate::context::{self, CODE_TABLE, JUMP_FOLD, JUMP_SHIFT, JUMP_TABLE, JUMPS, Jump, host_of};
use crate::ir::{Condition, Insn, Operand, Reg, Source, Width};
use crate::tlb::{ENTRY_SHIFT, Entry, PAGES, Right};
use x86_arch::flags;

const WORD_BYTES: i32 = 8;
const PLACE: i32 = offset_of!(Jump, place) as i32;
const CODE_PLACE: i32 = offset_of!(Entry, key) as i32;
const PAGE_SHIFT: u8 = 12;
const PAGE_MASK: i32 = !0xFFF;
const CODE: i32 = offset_of!(Jump, code) as i32;
const _: () = assert!(offset_of!(Jump, rip) == 0);

/// The guest's stack pointer.
const STACK: Host = match host_of(Reg::RSP) {
    Some(host) => host,
    None => panic!("the stack pointer has a register"),
};
const FRAME: Host = match host_of(Reg::RBP) {
    Some(host) => host,
    None => panic!("the frame pointer has a register"),
};

impl Emitter<'_> {
    /// Instructions of this file; `None` for others.
    pub(super) fn transfer(&mut self, n: usize, insn: &Insn) -> Option<()> {
        let end = self.unit.rip.wrapping_add(u64::from(self.unit.steps.get(n)?.end));
        match *insn {
            Insn::Push { from } => {
                self.push(n, from)?;
                self.after_store(n, None);
            }
            Insn::PushFlags => {
                self.push_flags(n);
                self.after_store(n, None);
            }
            Insn::Pop { to } => {
                self.top_of_stack(n);
                self.move_stack(WORD_BYTES);
                self.set(to, Width::Qword, T0);
            }
            Insn::Leave => {
                self.asm.copy(T0, FRAME);
                self.access_at(n, WORD_BYTES as u8, Right::Read);
                self.asm.load(Width::Qword, T0, AT);
                self.asm.lea(Width::Qword, STACK, Rm::Base(FRAME, WORD_BYTES));
                self.asm.copy(FRAME, T0);
            }
            Insn::Jump { to } => {
                self.save_flags();
                self.chain(self.unit.rip.wrapping_add(to));
            }
            Insn::JumpIf { condition, to } => self.jump_if(condition, end, self.unit.rip.wrapping_add(to)),
            Insn::Call { to } => {
                let to = self.unit.rip.wrapping_add(to);
                self.push_constant(n, end);
                self.after_store(n, Some(to));
                self.chain(to);
            }
            Insn::JumpIndirect { to } => {
                self.branch_target(n, to)?;
                self.look_up(n);
                self.asm.jump_through(Rm::Base(T1, CODE));
            }
            Insn::CallIndirect { to } => {
                self.branch_target(n, to)?;
                self.asm.store(Width::Qword, context::RIP, T0);
                self.look_up(n);
                self.asm.load(Width::Qword, T2, Rm::Base(T1, CODE));
                self.asm.store(Width::Qword, context::TARGET, T2);
                self.push_constant(n, end);
                self.after_store(n, None);
                self.asm.jump_through(context::TARGET);
            }
            Insn::Return { drop } => {
                self.top_of_stack(n);
                self.look_up(n);
                self.move_stack(WORD_BYTES + i32::from(drop));
                self.asm.jump_through(Rm::Base(T1, CODE));
            }
            _ => return None,
        }
        Some(())
    }

    /// Moves the stack pointer; keeps the flags.
    fn move_stack(&mut self, bytes: i32) {
        self.asm.lea(Width::Qword, STACK, Rm::Base(STACK, bytes));
    }

    fn top_of_stack(&mut self, n: usize) {
        self.asm.copy(T0, STACK);
        self.access_at(n, WORD_BYTES as u8, Right::Read);
        self.asm.load(Width::Qword, T0, AT);
    }

    /// The flags are saved: PUSHF reads them.
    fn push_flags(&mut self, n: usize) {
        self.asm.lea(Width::Qword, T0, Rm::Base(STACK, -WORD_BYTES));
        self.access_at(n, WORD_BYTES as u8, Right::Write);
        self.asm.op_full(Width::Dword, &[0x0F, 0xB6], T2.0, context::LOW_FLAGS); // movzx
        self.asm.op(Width::Byte, 0x22, T2, context::FLAGS_MASK);
        self.asm.store(Width::Byte, context::LOW_FLAGS, T2);
        self.asm.op_full(Width::Dword, &[0x0F, 0xB6], T2.0, context::OVERFLOW);
        self.asm.group1(Width::Dword, AND, Rm::Reg(T2), 1);
        self.shift(T2, SHL, flags::OF.trailing_zeros() as u8);
        self.asm.op(Width::Byte, 0x0A, T2, context::LOW_FLAGS); // or
        self.asm.op(Width::Qword, 0x0A, T2, context::REST);
        self.asm.group1(Width::Qword, AND, Rm::Reg(T2), !((flags::RF | flags::VM) as i32));
        self.asm.store(Width::Qword, AT, T2);
        self.move_stack(-WORD_BYTES);
    }

    fn push(&mut self, n: usize, from: Source) -> Option<()> {
        if let Source::Memory(address) = from {
            self.access(n, &address, WORD_BYTES as u8, Right::Read)?;
            self.asm.load(Width::Qword, T2, AT);
            self.asm.store(Width::Qword, context::TARGET, T2);
        }
        self.asm.lea(Width::Qword, T0, Rm::Base(STACK, -WORD_BYTES));
        self.access_at(n, WORD_BYTES as u8, Right::Write);
        match from {
            Source::Register(reg) => self.store_register(Width::Qword, reg),
            Source::Immediate(value) => {
                let value = i32::try_from(value as i64).ok()?;
                self.asm.op_full(Width::Qword, &[0xC7], 0, AT);
                self.asm.immediate(Width::Qword, value);
            }
            Source::Memory(_) => {
                self.asm.load(Width::Qword, T2, context::TARGET);
                self.asm.store(Width::Qword, AT, T2);
            }
        }
        self.move_stack(-WORD_BYTES);
        Some(())
    }

    fn push_constant(&mut self, n: usize, value: u64) {
        self.asm.lea(Width::Qword, T0, Rm::Base(STACK, -WORD_BYTES));
        self.access_at(n, WORD_BYTES as u8, Right::Write);
        self.asm.constant(T2, value);
        self.asm.store(Width::Qword, AT, T2);
        self.move_stack(-WORD_BYTES);
    }

    /// The target of an indirect branch, in `T0`.
    fn branch_target(&mut self, n: usize, to: Operand) -> Option<()> {
        match to {
            Operand::Register(reg) => {
                let from = self.get(reg, T0);
                self.asm.copy(T0, from);
            }
            Operand::Memory(address) => {
                self.access(n, &address, WORD_BYTES as u8, Right::Read)?;
                self.asm.load(Width::Qword, T0, AT);
            }
        }
        Some(())
    }

    fn jump_if(&mut self, condition: Condition, end: u64, to: u64) {
        self.save_flags();
        let decided = self.decide(condition);
        if to == self.unit.rip {
            self.asm.jump_if(decided, self.again);
            self.chain(end);
            return;
        }
        let taken = self.asm.label();
        self.asm.jump_if(decided, taken);
        self.chain(end);
        self.asm.bind(taken);
        self.chain(to);
    }

    /// Goes on with another block, with the flags saved.
    pub(super) fn chain(&mut self, target: u64) {
        if target == self.unit.rip {
            self.asm.jump(self.again);
            return;
        }
        // The page of this block is where it is, as long as this code runs; what other pages are has to be asked.
        let same_page = (target ^ self.unit.rip) >> 12 == 0;
        let link = self.link(target, same_page);
        if same_page {
            self.follow(link);
        } else {
            self.look_up_constant(target, link);
        }
    }

    /// A new way out to `target`.
    pub(super) fn link(&mut self, target: u64, with_slot: bool) -> usize {
        let slot = with_slot.then(|| self.asm.label());
        let stub = self.asm.label();
        self.links.push(PendingLink { target, slot, stub });
        self.links.len() - 1
    }

    /// Goes where a link leads by now.
    pub(super) fn follow(&mut self, link: usize) {
        let Some(link) = self.links.get(link) else { return };
        match link.slot {
            Some(slot) => self.asm.jump_through(Rm::Rip(slot)),
            None => self.asm.jump(link.stub),
        }
    }

    /// Finds the jump-table entry of the address in `T0`, which goes: `T1`. Leaves at instruction `n` if there is none.
    fn look_up(&mut self, n: usize) {
        let missing = self.side(ExitKind::Interpret, n, SideAddress::None, None);
        self.clobber_flags();
        self.asm.copy(T1, T0);
        self.shift(T1, SHR, JUMP_FOLD);
        self.asm.op(Width::Qword, 0x32, T1, Rm::Reg(T0)); // xor
        self.asm.group1(Width::Dword, AND, Rm::Reg(T1), JUMPS as i32 - 1);
        self.shift(T1, SHL, JUMP_SHIFT);
        self.asm.op(Width::Qword, 0x02, T1, JUMP_TABLE);
        self.asm.op(Width::Qword, 0x3A, T0, Rm::Base(T1, 0));
        self.asm.jump_if(NOT_EQUAL, missing);
        self.asm.copy(T2, T0);
        self.shift(T2, SHR, PAGE_SHIFT - ENTRY_SHIFT as u8);
        self.asm.group1(Width::Dword, AND, Rm::Reg(T2), ((PAGES - 1) << ENTRY_SHIFT) as i32);
        self.asm.op(Width::Qword, 0x02, T2, CODE_TABLE);
        self.asm.group1(Width::Qword, AND, Rm::Reg(T0), PAGE_MASK);
        self.asm.op(Width::Qword, 0x3A, T0, Rm::Base(T2, 0));
        self.asm.jump_if(NOT_EQUAL, missing);
        self.asm.load(Width::Qword, T2, Rm::Base(T2, CODE_PLACE));
        self.asm.op(Width::Qword, 0x3A, T2, Rm::Base(T1, PLACE));
        self.asm.jump_if(NOT_EQUAL, missing);
    }

    fn look_up_constant(&mut self, target: u64, link: usize) {
        let Some(missing) = self.links.get(link).map(|link| link.stub) else { return };
        let entry = (Jump::index(target) << JUMP_SHIFT) as i32;
        self.clobber_flags();
        self.asm.constant(T0, target);
        self.asm.load(Width::Qword, T1, JUMP_TABLE);
        self.asm.op(Width::Qword, 0x3A, T0, Rm::Base(T1, entry));
        self.asm.jump_if(NOT_EQUAL, missing);
        let page = (((target >> PAGE_SHIFT) as usize % PAGES) << ENTRY_SHIFT) as i32;
        self.asm.load(Width::Qword, T2, CODE_TABLE);
        self.asm.constant(T0, target & !0xFFF);
        self.asm.op(Width::Qword, 0x3A, T0, Rm::Base(T2, page));
        self.asm.jump_if(NOT_EQUAL, missing);
        self.asm.load(Width::Qword, T2, Rm::Base(T2, page + CODE_PLACE));
        self.asm.op(Width::Qword, 0x3A, T2, Rm::Base(T1, entry + PLACE));
        self.asm.jump_if(NOT_EQUAL, missing);
        self.asm.jump_through(Rm::Base(T1, entry + CODE));
    }

    fn shift(&mut self, reg: Host, number: u8, count: u8) {
        self.asm.op_full(Width::Qword, &[0xC1], number, Rm::Reg(reg));
        self.asm.raw(&[count]);
    }
}

const SHL: u8 = 4;
const SHR: u8 = 5;
