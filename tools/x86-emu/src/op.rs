//! One pre-decoded operation, and how its memory operand becomes a linear address.

use crate::cpu::{Cpu, Env};
use crate::memory::FromBytes;
use crate::stop::{Step, Stop};
use x86_arch::{Seg, Width, registers::ZERO};

/// Performs an operation. The last operation of a block sets RIP itself.
pub(crate) type Handler = fn(&mut Cpu, &mut Env<'_>, &Op) -> Step;

/// What the fields of an operation mean is between its decoder and its handler; these are the customs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Op {
    pub(crate) run: Handler,
    /// Immediate, sign-extended as the instruction says.
    pub(crate) imm: u64,
    /// Displacement; relative to the block's start for RIP-relative operands.
    pub(crate) disp: u64,
    /// Offset of the instruction in its block.
    pub(crate) off: u16,
    /// Handler's own: an index into a table of functions.
    pub(crate) aux: u16,
    /// Length of the instruction.
    pub(crate) len: u8,
    /// Destination register.
    pub(crate) dst: u8,
    /// Source register.
    pub(crate) src: u8,
    /// The first of two source registers, where a vector instruction has two; its destination where it has one.
    pub(crate) third: u8,
    pub(crate) base: u8,
    pub(crate) index: u8,
    /// log2 of the index scale.
    pub(crate) scale: u8,
    /// See [`address`].
    pub(crate) address: u8,
    /// See [`prefix`].
    pub(crate) prefix: u8,
}

/// Bits of [`Op::address`].
pub(crate) mod address {
    /// The segment register of the memory operand.
    pub(crate) const SEGMENT: u8 = 7;
    /// The base of that segment counts (FS and GS, or any outside 64-bit mode).
    pub(crate) const BASED: u8 = 1 << 3;
    /// The effective address is 32 bits wide, or 16 with [`super::prefix::ADDRESS16`].
    pub(crate) const NARROW: u8 = 1 << 4;
    /// Code outside 64-bit mode: limits and types are checked.
    pub(crate) const CHECKED: u8 = 1 << 5;
    /// The address needs more than base + index + displacement.
    pub(crate) const SLOW: u8 = BASED | NARROW | CHECKED;
    /// There is a memory operand.
    pub(crate) const MEMORY: u8 = 1 << 6;
    /// The memory operand is the destination.
    pub(crate) const MEMORY_DST: u8 = 1 << 7;
}

/// Bits of [`Op::prefix`].
pub(crate) mod prefix {
    pub(crate) const LOCK: u8 = 1;
    pub(crate) const REP: u8 = 1 << 1;
    pub(crate) const REPNE: u8 = 1 << 2;
    /// Effective operand size 16.
    pub(crate) const SIZE16: u8 = 1 << 3;
    /// Effective operand size 64.
    pub(crate) const SIZE64: u8 = 1 << 4;
    /// The effective address is 16 bits wide: [`super::address::NARROW`] is set too.
    pub(crate) const ADDRESS16: u8 = 1 << 5;
}

impl Op {
    /// An operation without operands.
    pub(crate) fn new(run: Handler) -> Self {
        Self {
            run,
            imm: 0,
            disp: 0,
            off: 0,
            aux: 0,
            len: 0,
            dst: 0,
            src: 0,
            third: 0,
            base: ZERO,
            index: ZERO,
            scale: 0,
            address: Seg::Ds as u8,
            prefix: 0,
        }
    }

    /// Offset of the next instruction in the block.
    #[inline(always)]
    pub(crate) fn end(&self) -> u64 {
        u64::from(self.off) + u64::from(self.len)
    }

    #[inline(always)]
    pub(crate) fn has_memory(&self) -> bool {
        self.address & address::MEMORY != 0
    }

    #[inline(always)]
    pub(crate) fn writes_memory(&self) -> bool {
        self.address & address::MEMORY_DST != 0
    }

    #[inline(always)]
    pub(crate) fn locked(&self) -> bool {
        self.prefix & prefix::LOCK != 0
    }

    pub(crate) fn segment(&self) -> Seg {
        Seg::from_index(self.address & address::SEGMENT).unwrap_or(Seg::Ds)
    }

    /// The bits of an effective address.
    #[inline(always)]
    pub(crate) fn address_mask(&self) -> u64 {
        if self.address & address::NARROW == 0 {
            u64::MAX
        } else if self.prefix & prefix::ADDRESS16 == 0 {
            0xFFFF_FFFF
        } else {
            0xFFFF
        }
    }

    /// Says how many bytes the effective address has.
    pub(crate) fn set_address_size(&mut self, bytes: usize) {
        if bytes < 8 {
            self.address |= address::NARROW;
        }
        if bytes == 2 {
            self.prefix |= prefix::ADDRESS16;
        }
    }

    /// Operand size in bytes, where it is 16, 32 or 64 bits.
    pub(crate) fn operand_bytes(&self) -> u8 {
        if self.prefix & prefix::SIZE64 != 0 {
            8
        } else if self.prefix & prefix::SIZE16 != 0 {
            2
        } else {
            4
        }
    }
}

impl Cpu {
    /// Base + index + displacement, as wide as registers are.
    #[inline(always)]
    pub(crate) fn sum(&self, op: &Op) -> u64 {
        self.state
            .regs
            .slot(op.base)
            .wrapping_add(self.state.regs.slot(op.index) << (op.scale & 3))
            .wrapping_add(op.disp)
    }

    /// The effective address of the memory operand.
    #[inline(always)]
    pub(crate) fn effective(&self, op: &Op) -> u64 {
        self.sum(op) & op.address_mask()
    }

    /// The linear address of the memory operand, where it is base + index + displacement.
    #[inline(always)]
    fn flat(&self, op: &Op) -> Option<u64> {
        (op.address & address::SLOW == 0).then_some(self.sum(op))
    }

    /// The linear address of the memory operand.
    #[inline(always)]
    pub(crate) fn linear(&mut self, op: &Op, bytes: u64, write: Intent) -> Result<u64, Stop> {
        if let Some(linear) = self.flat(op) {
            return Ok(linear);
        }
        let offset = self.effective(op);
        self.linear_in(op, offset, bytes, write)
    }

    /// The linear address of an offset into the operand's segment.
    #[inline(never)]
    pub(crate) fn linear_in(
        &mut self,
        op: &Op,
        offset: u64,
        bytes: u64,
        intent: Intent,
    ) -> Result<u64, Stop> {
        if op.address & address::CHECKED != 0 {
            return self.checked_linear(op.segment(), offset, bytes, intent);
        }
        if op.address & address::BASED != 0 {
            return Ok(self.state.segment(op.segment()).base.wrapping_add(offset));
        }
        Ok(offset)
    }

    /// The memory operand, where nothing stands in the way; nothing is changed otherwise.
    #[inline(always)]
    pub(crate) fn quick_load_operand<W: FromBytes>(&self, env: &Env<'_>, op: &Op) -> Option<W> {
        self.quick_load(env, self.flat(op)?)
    }

    #[inline(always)]
    pub(crate) fn load_operand<W: FromBytes>(&mut self, env: &mut Env<'_>, op: &Op) -> Result<W, Stop> {
        match self.quick_load_operand(env, op) {
            Some(value) => Ok(value),
            None => self.load_operand_slow(env, op),
        }
    }

    #[inline(never)]
    pub(crate) fn load_operand_slow<W: FromBytes>(&mut self, env: &mut Env<'_>, op: &Op) -> Result<W, Stop> {
        let linear = self.linear(op, size_of::<W>() as u64, Intent::Read)?;
        self.load(env, linear)
    }

    #[inline(always)]
    pub(crate) fn store_operand<W: FromBytes>(&mut self, env: &mut Env<'_>, op: &Op, value: W) -> Step {
        if let Some(linear) = self.flat(op)
            && self.quick_store(env, linear, value)
        {
            return Ok(());
        }
        self.store_operand_slow(env, op, value)
    }

    #[inline(never)]
    fn store_operand_slow<W: FromBytes>(&mut self, env: &mut Env<'_>, op: &Op, value: W) -> Step {
        let linear = self.linear(op, size_of::<W>() as u64, Intent::Write)?;
        self.store(env, linear, value)
    }

    /// The source operand: memory, or register `src`.
    #[inline(always)]
    pub(crate) fn source<W: Width + FromBytes>(&mut self, env: &mut Env<'_>, op: &Op) -> Result<W, Stop> {
        if op.has_memory() { self.load_operand(env, op) } else { Ok(W::read(&self.state.regs, op.src)) }
    }

    /// The destination operand as a source: memory, or register `dst`.
    #[inline(always)]
    pub(crate) fn target<W: Width + FromBytes>(&mut self, env: &mut Env<'_>, op: &Op) -> Result<W, Stop> {
        if op.writes_memory() { self.load_operand(env, op) } else { Ok(W::read(&self.state.regs, op.dst)) }
    }

    /// Writes the destination operand: memory, or register `dst`.
    #[inline(always)]
    pub(crate) fn write_target<W: Width + FromBytes>(
        &mut self,
        env: &mut Env<'_>,
        op: &Op,
        value: W,
    ) -> Step {
        if op.writes_memory() {
            self.store_operand(env, op, value)
        } else {
            W::write(&mut self.state.regs, op.dst, value);
            Ok(())
        }
    }

    /// Replaces the destination operand by a function of it and of the flags, locked if the prefix says so.
    #[inline(always)]
    pub(crate) fn update<W: Width + FromBytes>(
        &mut self,
        env: &mut Env<'_>,
        op: &Op,
        f: impl FnMut(&mut x86_arch::flags::Flags, W) -> W,
    ) -> Step {
        if op.writes_memory() {
            let linear = self.linear(op, W::BYTES, Intent::Write)?;
            if op.locked() { self.modify_locked(env, linear, f) } else { self.modify(env, linear, f) }
        } else {
            self.update_register(op, f);
            Ok(())
        }
    }

    /// As [`Self::update`], where the destination is known to be a register.
    #[inline(always)]
    pub(crate) fn update_register<W: Width>(
        &mut self,
        op: &Op,
        mut f: impl FnMut(&mut x86_arch::flags::Flags, W) -> W,
    ) {
        let old = W::read(&self.state.regs, op.dst);
        let new = f(&mut self.state.flags, old);
        W::write(&mut self.state.regs, op.dst, new);
    }
}

/// What the operand is used for, where segment types are checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Intent {
    Read,
    Write,
}
