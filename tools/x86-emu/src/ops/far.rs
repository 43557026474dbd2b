//! Far jumps, calls and returns, IRET, SYSCALL and SYSRET, SYSENTER and SYSEXIT.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::gates::{FarTarget, Through};
use crate::cpu::{Boundary, Cpu, Env};
use crate::decode::{Decoded, operands};
use crate::op::{Handler, Intent, Op, address, prefix};
use crate::segments::{Descriptor, is_null, selector_code};
use crate::stop::{Reason, Step, Stop};
use x86_arch::{Attributes, Event, Gpr, Seg, Segment, efer, flags, vector};

/// Flags that SYSRET takes from R11 (SDM vol. 2, SYSRET).
const SYSRET_FLAGS: u64 = 0x3C_7FD7;

impl Cpu {
    /// Checks presence, size bits and the offset, and marks the descriptor accessed.
    pub(super) fn code_segment(
        &mut self,
        env: &mut Env<'_>,
        descriptor: Descriptor,
        selector: u16,
        offset: u64,
    ) -> Result<Segment, Stop> {
        let attributes = descriptor.attributes();
        let code = selector_code(selector);
        if self.state.is_ia32e() && attributes.long() && attributes.big() {
            return Err(self.general_protection(code));
        }
        if !attributes.present() {
            return Err(self.raise(Event::exception_with_code(vector::NP, code)));
        }
        let to_long = self.state.is_ia32e() && attributes.long();
        let valid = if to_long { self.canonical(offset) } else { offset <= u64::from(descriptor.limit()) };
        if !valid {
            return Err(self.general_protection(0));
        }
        self.mark_accessed(env, descriptor)?;
        let mut segment = descriptor.segment(selector);
        segment.attributes.0 |= 1;
        Ok(segment)
    }

    pub(super) fn enter_code(&mut self, segment: Segment, offset: u64) {
        *self.state.segment_mut(Seg::Cs) = segment;
        self.state.set_rip(offset);
        self.attention = true;
        self.refresh_mode();
    }

    /// A far pointer in memory: offset, then selector.
    fn far_pointer(&mut self, env: &mut Env<'_>, op: &Op) -> Result<(u16, u64), Stop> {
        let bytes = u64::from(op.operand_bytes());
        let linear = self.linear(op, bytes + 2, Intent::Read)?;
        let offset = self.load_sized(env, linear, bytes)?;
        let selector: u16 = self.load(env, linear.wrapping_add(bytes))?;
        Ok((selector, offset))
    }

    fn load_sized(&mut self, env: &mut Env<'_>, linear: u64, bytes: u64) -> Result<u64, Stop> {
        match bytes {
            8 => self.load::<u64>(env, linear),
            4 => self.load::<u32>(env, linear).map(u64::from),
            _ => self.load::<u16>(env, linear).map(u64::from),
        }
    }

    /// The `n`-th word of this size above the stack pointer.
    fn stack_word(&mut self, env: &mut Env<'_>, bytes: u64, n: u64) -> Result<u64, Stop> {
        let offset = self.stack().wrapping_add(n * bytes);
        let linear = self.stack_linear(offset, bytes, Intent::Read)?;
        self.load_sized(env, linear, bytes)
    }

    /// Reads and checks the code descriptor that a far return or IRET goes to.
    fn return_target(&mut self, env: &mut Env<'_>, selector: u16, offset: u64) -> Result<Segment, Stop> {
        if is_null(selector) {
            return Err(self.general_protection(0));
        }
        let code = selector_code(selector);
        let descriptor = self.descriptor(env, selector)?;
        let attributes = descriptor.attributes();
        let rpl = (selector & 3) as u8;
        let conforming = attributes.kind() & 4 != 0;
        let dpl_fits = if conforming { attributes.dpl() <= rpl } else { attributes.dpl() == rpl };
        if !attributes.is_code() || rpl < self.state.cpl() || !dpl_fits {
            return Err(self.general_protection(code));
        }
        self.code_segment(env, descriptor, selector, offset)
    }

    /// Reads and checks the stack segment that a return to `code` brings.
    fn return_stack(&mut self, env: &mut Env<'_>, selector: u16, code: &Segment) -> Result<Segment, Stop> {
        let rpl = (code.selector & 3) as u8;
        if is_null(selector) {
            let to_long = self.state.is_ia32e() && code.attributes.long();
            if !to_long || rpl == 3 || (selector & 3) as u8 != rpl {
                return Err(self.general_protection(0));
            }
            let attributes = Attributes::UNUSABLE.with_dpl(rpl);
            return Ok(Segment { selector, attributes, ..Segment::NULL });
        }
        let error = selector_code(selector);
        let descriptor = self.descriptor(env, selector)?;
        let attributes = descriptor.attributes();
        let kind = attributes.kind();
        let writable_data = attributes.is_code_or_data() && kind & 8 == 0 && kind & 2 != 0;
        if !writable_data || attributes.dpl() != rpl || (selector & 3) as u8 != rpl {
            return Err(self.general_protection(error));
        }
        if !attributes.present() {
            return Err(self.raise(Event::exception_with_code(vector::SS, error)));
        }
        self.mark_accessed(env, descriptor)?;
        let mut segment = descriptor.segment(selector);
        segment.attributes.0 |= 1;
        Ok(segment)
    }

    /// A return outwards takes segments away that the outer level may not use. Their bases stay: in 64-bit code, those of FS
    /// and GS are what the kernel's MSR writes made them.
    fn drop_inner_segments(&mut self) {
        let cpl = self.state.cpl();
        for register in [Seg::Es, Seg::Ds, Seg::Fs, Seg::Gs] {
            let attributes = self.state.segment(register).attributes;
            let conforming_code = attributes.kind() & 0xC == 0xC;
            if !attributes.unusable() && attributes.dpl() < cpl && !conforming_code {
                let base = self.state.segment(register).base;
                *self.state.segment_mut(register) = Segment { base, ..Segment::NULL };
            }
        }
    }
}

fn jmp_far(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let (selector, offset) = if op.has_memory() { cpu.far_pointer(env, op)? } else { (op.aux, op.imm) };
    let (segment, offset) = match cpu.far_target(env, selector, offset, Through::Jump)? {
        FarTarget::Code(segment, offset) => (segment, offset),
        FarTarget::Gate(gate) => (cpu.gate_code(env, &gate, Through::Jump)?, gate.offset),
    };
    cpu.enter_code(segment, offset);
    Ok(())
}

fn call_far(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let (selector, offset) = if op.has_memory() { cpu.far_pointer(env, op)? } else { (op.aux, op.imm) };
    let segment = match cpu.far_target(env, selector, offset, Through::Call)? {
        FarTarget::Code(segment, _) => segment,
        FarTarget::Gate(gate) => return cpu.call_through(env, op, &gate),
    };
    let bytes = u64::from(op.operand_bytes());
    let back = cpu.return_address(op);
    let old_code = u64::from(cpu.state.segment(Seg::Cs).selector);
    let top = cpu.stack().wrapping_sub(2 * bytes);
    let linear = cpu.stack_linear(top, 2 * bytes, Intent::Write)?;
    let mut frame = [0u8; 16];
    let size = bytes as usize;
    for (slot, word) in frame.chunks_exact_mut(size).zip([back, old_code]) {
        slot.copy_from_slice(word.to_le_bytes().get(..size).unwrap_or(&[]));
    }
    let view = cpu.view;
    cpu.write_bytes(env, linear, frame.get(..2 * size).unwrap_or(&frame), view)?;
    cpu.set_stack(top);
    cpu.enter_code(segment, offset);
    Ok(())
}

fn ret_far(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let bytes = u64::from(op.operand_bytes());
    let offset = cpu.stack_word(env, bytes, 0)?;
    let selector = cpu.stack_word(env, bytes, 1)? as u16;
    let release = op.imm & 0xFFFF;
    let code = cpu.return_target(env, selector, offset)?;
    let outward = (selector & 3) as u8 > cpu.state.cpl();
    if !outward {
        let stack = cpu.stack().wrapping_add(2 * bytes + release);
        cpu.set_stack(stack);
        cpu.enter_code(code, offset);
        return Ok(());
    }
    let above = cpu.stack().wrapping_add(2 * bytes + release);
    let linear = cpu.stack_linear(above, 2 * bytes, Intent::Read)?;
    let stack = cpu.load_sized(env, linear, bytes)?;
    let stack_selector = cpu.load_sized(env, linear.wrapping_add(bytes), bytes)? as u16;
    let segment = cpu.return_stack(env, stack_selector, &code)?;
    *cpu.state.segment_mut(Seg::Ss) = segment;
    cpu.enter_code(code, offset);
    cpu.set_stack(stack.wrapping_add(release));
    cpu.drop_inner_segments();
    cpu.refresh_mode();
    Ok(())
}

/// IRET ends NMI blocking even where it raises an exception, but not where the bus refuses it: then it is
/// simply tried again.
fn iret(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let result = interrupt_return(cpu, env, op);
    if result.is_ok() || matches!(cpu.stop, Reason::Exception(_) | Reason::NonCanonical) {
        cpu.state.interruptibility.nmi_blocked = false;
    }
    result
}

fn interrupt_return(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let bytes = u64::from(op.operand_bytes());
    if cpu.state.flags.rest() & flags::NT != 0 {
        if cpu.state.is_ia32e() {
            return Err(cpu.general_protection(0));
        }
        return Err(cpu.return_task(env));
    }
    let offset = cpu.stack_word(env, bytes, 0)?;
    let selector = cpu.stack_word(env, bytes, 1)? as u16;
    let image = cpu.stack_word(env, bytes, 2)?;
    if !cpu.state.is_ia32e() && image & flags::VM != 0 && cpu.state.cpl() == 0 {
        return Err(cpu.unimplemented("virtual-8086 mode"));
    }
    let code = cpu.return_target(env, selector, offset)?;
    let outward = (selector & 3) as u8 > cpu.state.cpl();
    let with_stack = outward || cpu.is_long_mode();
    let mut stack = cpu.stack().wrapping_add(3 * bytes);
    let mut stack_segment = None;
    if with_stack {
        stack = cpu.stack_word(env, bytes, 3)?;
        let selector = cpu.stack_word(env, bytes, 4)? as u16;
        stack_segment = Some(cpu.return_stack(env, selector, &code)?);
    }
    // IOPL and IF are governed by the privilege that IRET runs at.
    cpu.load_flags(image, bytes as u8, true);
    if let Some(segment) = stack_segment {
        *cpu.state.segment_mut(Seg::Ss) = segment;
    }
    let was_long = cpu.is_long_mode();
    cpu.enter_code(code, offset);
    // A return to a 16-bit stack loads SP only; the rest of RSP is the inner level's.
    if cpu.stack_mask != 0xFFFF && was_long && bytes == 8 || cpu.is_long_mode() {
        cpu.state.regs.set(Gpr::Rsp, stack);
    } else {
        cpu.set_stack(stack);
    }
    if outward {
        cpu.drop_inner_segments();
    }
    cpu.refresh_mode();
    cpu.boundary = Boundary::KeepsResumeFlag;
    Ok(())
}

fn syscall(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    if cpu.state.control.efer & efer::SCE == 0 || !cpu.is_long_mode() {
        return Err(cpu.undefined());
    }
    let back = cpu.state.rip().wrapping_add(op.end());
    cpu.state.regs.set(Gpr::Rcx, back);
    cpu.state.regs.set(Gpr::R11, cpu.state.flags.get() & !flags::RF);
    let kept = cpu.state.flags.get() & !cpu.state.msrs.fmask & !flags::RF;
    cpu.state.flags.set(kept);
    let selector = (cpu.state.msrs.star >> 32) as u16 & !3;
    *cpu.state.segment_mut(Seg::Ss) = Segment::flat(selector.wrapping_add(8), Attributes::DATA);
    let target = cpu.state.msrs.lstar;
    cpu.enter_code(Segment::flat(selector, Attributes::CODE64), target);
    cpu.step_by_itself();
    Ok(())
}

fn sysret(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    if cpu.state.control.efer & efer::SCE == 0 || !cpu.is_long_mode() {
        return Err(cpu.undefined());
    }
    if cpu.state.cpl() != 0 {
        return Err(cpu.general_protection(0));
    }
    let target = cpu.state.regs.get(Gpr::Rcx);
    let base = (cpu.state.msrs.star >> 48) as u16;
    let (code, target) = if op.prefix & prefix::SIZE64 != 0 {
        if !cpu.canonical(target) {
            return Err(cpu.general_protection(0));
        }
        let selector = base.wrapping_add(16) | 3;
        (Segment::flat(selector, Attributes::CODE64.with_dpl(3)), target)
    } else {
        (Segment::flat(base | 3, Attributes::CODE32.with_dpl(3)), target & 0xFFFF_FFFF)
    };
    let stack = Segment::flat(base.wrapping_add(8) | 3, Attributes::DATA.with_dpl(3));
    cpu.state.flags.set(cpu.state.regs.get(Gpr::R11) & SYSRET_FLAGS);
    *cpu.state.segment_mut(Seg::Ss) = stack;
    cpu.enter_code(code, target);
    cpu.step_by_itself();
    Ok(())
}

/// SYSENTER in IA-32e mode enters 64-bit code, otherwise 32-bit code. It leaves TF alone: a step over it arrives at
/// the kernel's first instruction.
fn sysenter(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    let selector = cpu.state.msrs.sysenter_cs as u16 & !3;
    if selector == 0 {
        return Err(cpu.general_protection(0));
    }
    cpu.state.flags.set_rest(cpu.state.flags.rest() & !(flags::VM | flags::IF | flags::RF));
    let (code, mask) =
        if cpu.state.is_ia32e() { (Attributes::CODE64, u64::MAX) } else { (Attributes::CODE32, 0xFFFF_FFFF) };
    let (stack, target) = (cpu.state.msrs.sysenter_esp & mask, cpu.state.msrs.sysenter_eip & mask);
    *cpu.state.segment_mut(Seg::Ss) = Segment::flat(selector.wrapping_add(8), Attributes::DATA);
    cpu.state.regs.set(Gpr::Rsp, stack);
    cpu.enter_code(Segment::flat(selector, code), target);
    Ok(())
}

/// SYSEXIT: RDX is the target, RCX the stack. The operand size chooses between 64-bit and 32-bit user code.
fn sysexit(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    let base = cpu.state.msrs.sysenter_cs as u16;
    if base & !3 == 0 || cpu.state.cpl() != 0 {
        return Err(cpu.general_protection(0));
    }
    let (target, stack) = (cpu.state.regs.get(Gpr::Rdx), cpu.state.regs.get(Gpr::Rcx));
    let wide = op.prefix & prefix::SIZE64 != 0;
    if wide && !(cpu.canonical(target) && cpu.canonical(stack)) {
        return Err(cpu.general_protection(0));
    }
    let (offset, code, mask) =
        if wide { (32, Attributes::CODE64, u64::MAX) } else { (16, Attributes::CODE32, 0xFFFF_FFFF) };
    let selector = base.wrapping_add(offset) | 3;
    *cpu.state.segment_mut(Seg::Ss) = Segment::flat(selector.wrapping_add(8), Attributes::DATA.with_dpl(3));
    cpu.state.regs.set(Gpr::Rsp, stack & mask);
    cpu.enter_code(Segment::flat(selector, code.with_dpl(3)), target & mask);
    Ok(())
}

pub(super) fn decode(i: &Instruction, long: bool) -> Option<Decoded> {
    use Mnemonic as M;
    let pointer = matches!(i.op0_kind(), OpKind::FarBranch16 | OpKind::FarBranch32);
    let run: Handler = match i.mnemonic() {
        M::Jmp if pointer || i.is_jmp_far_indirect() => jmp_far,
        M::Call if pointer || i.is_call_far_indirect() => call_far,
        M::Retf => ret_far,
        M::Iret | M::Iretd | M::Iretq => iret,
        M::Syscall => syscall,
        M::Sysret | M::Sysretq => sysret,
        M::Sysenter => sysenter,
        M::Sysexit | M::Sysexitq => sysexit,
        _ => return None,
    };
    let mut op = operands(i, run, long);
    if pointer {
        op.aux = i.far_branch_selector();
        op.imm = if i.op0_kind() == OpKind::FarBranch16 {
            u64::from(i.far_branch16())
        } else {
            u64::from(i.far_branch32())
        };
    }
    if !op.has_memory() {
        op.address = op.address & !address::SEGMENT | Seg::Ss as u8;
    }
    let bytes = match i.mnemonic() {
        M::Sysretq | M::Sysexitq | M::Iretq => 8,
        M::Iret => 2,
        M::Sysret | M::Iretd => 4,
        _ if i.op0_kind() == OpKind::FarBranch16 => 2,
        _ if pointer => 4,
        M::Retf => i.code().op_code().operand_size() / 8,
        _ if i.op_count() == 1 => i.memory_size().size() as u32 - 2,
        _ => 4,
    };
    match bytes {
        8 => op.prefix |= prefix::SIZE64,
        2 => op.prefix |= prefix::SIZE16,
        _ => {}
    }
    Some(Decoded::branch(op))
}
