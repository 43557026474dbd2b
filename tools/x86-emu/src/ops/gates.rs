//! What far jumps and calls lead to: code, call gates, and tasks outside IA-32e mode (SDM vol. 3, "Call Gates", "IA-32e Mode
//! Call Gates" and "Task Switching").

use super::inner_stack::FrameWidth;
use crate::cpu::{Cpu, Env};
use crate::exits::TaskSwitchBy;
use crate::op::Op;
use crate::segments::{Descriptor, is_null, selector_code};
use crate::stop::{Step, Stop};
use x86_arch::{Attributes, Event, Gpr, Seg, Segment, vector};

/// What a far jump or call leads to.
pub(super) enum FarTarget {
    /// Code at the present privilege, and the offset in it.
    Code(Segment, u64),
    Gate(CallGate),
}

pub(super) struct CallGate {
    selector: u16,
    pub(super) offset: u64,
    frame: Frame,
}

/// What a call gate puts on the stack.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Frame {
    /// Words of eight bytes, in IA-32e mode.
    Quadwords,
    /// Words of this width, and so many parameters of the caller's stack if the privilege changes.
    Legacy { width: FrameWidth, parameters: u8 },
}

/// What goes through a gate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Through {
    Jump,
    Call,
}

impl Through {
    const fn switches_task(self) -> TaskSwitchBy {
        match self {
            Self::Jump => TaskSwitchBy::Jump,
            Self::Call => TaskSwitchBy::Call,
        }
    }
}

impl Cpu {
    /// Reads and checks what a far jump or call leads to.
    pub(super) fn far_target(
        &mut self,
        env: &mut Env<'_>,
        selector: u16,
        offset: u64,
        by: Through,
    ) -> Result<FarTarget, Stop> {
        if is_null(selector) {
            return Err(self.general_protection(0));
        }
        let code = selector_code(selector);
        let descriptor = self.descriptor(env, selector)?;
        let attributes = descriptor.attributes();
        if !attributes.is_code_or_data() {
            return self.gate_or_task(env, selector, descriptor, by).map(FarTarget::Gate);
        }
        let cpl = self.state.cpl();
        let conforming = attributes.kind() & 4 != 0;
        let allowed = if conforming {
            attributes.dpl() <= cpl
        } else {
            (selector & 3) as u8 <= cpl && attributes.dpl() == cpl
        };
        if !attributes.is_code() || !allowed {
            return Err(self.general_protection(code));
        }
        let selector = selector & !3 | u16::from(cpl);
        self.code_segment(env, descriptor, selector, offset).map(|segment| FarTarget::Code(segment, offset))
    }

    /// Reads a call gate. Outside IA-32e mode there may be a TSS or a task gate in its place, which lead to another task.
    fn gate_or_task(
        &mut self,
        env: &mut Env<'_>,
        selector: u16,
        descriptor: Descriptor,
        by: Through,
    ) -> Result<CallGate, Stop> {
        const TSS: [u8; 2] = [1, 9];
        const CALL_GATE_16: u8 = 4;
        const TASK_GATE: u8 = 5;
        const CALL_GATE: u8 = 12;
        let code = selector_code(selector);
        let attributes = descriptor.attributes();
        let kind = attributes.kind();
        let inner = attributes.dpl() < self.state.cpl().max((selector & 3) as u8);
        // IA-32e mode has no task switches and only 64-bit call gates.
        let is_legacy = kind == CALL_GATE_16 || kind == TASK_GATE || TSS.contains(&kind);
        let exists = kind == CALL_GATE || !self.state.is_ia32e() && is_legacy;
        if !exists || inner {
            return Err(self.general_protection(code));
        }
        if TSS.contains(&kind) {
            return Err(self.switch_task(env, selector, by.switches_task()));
        }
        if !attributes.present() {
            return Err(self.raise(Event::exception_with_code(vector::NP, code)));
        }
        let target = (descriptor.raw >> 16) as u16;
        if kind == TASK_GATE {
            return Err(self.switch_task(env, target, by.switches_task()));
        }
        let low = descriptor.raw & 0xFFFF;
        let middle = descriptor.raw >> 32 & 0xFFFF_0000;
        if self.state.is_ia32e() {
            let high = self.upper_half(env, selector, descriptor)?;
            let offset = low | middle | high << 32;
            return Ok(CallGate { selector: target, offset, frame: Frame::Quadwords });
        }
        let (width, offset) = if kind == CALL_GATE_16 {
            (FrameWidth::Word, low)
        } else {
            (FrameWidth::Doubleword, low | middle)
        };
        let parameters = (descriptor.raw >> 32 & 0x1F) as u8;
        Ok(CallGate { selector: target, offset, frame: Frame::Legacy { width, parameters } })
    }

    /// Reads and checks the code that a call gate names, at this privilege or, for a call, an inner one. In IA-32e mode it is
    /// 64-bit code.
    fn gate_descriptor(
        &mut self,
        env: &mut Env<'_>,
        gate: &CallGate,
        by: Through,
    ) -> Result<(Descriptor, u8), Stop> {
        if is_null(gate.selector) {
            return Err(self.general_protection(0));
        }
        let code = selector_code(gate.selector);
        let descriptor = self.descriptor(env, gate.selector)?;
        let attributes = descriptor.attributes();
        let cpl = self.state.cpl();
        let conforming = attributes.kind() & 4 != 0;
        let reaches = match by {
            Through::Jump if !conforming => attributes.dpl() == cpl,
            _ => attributes.dpl() <= cpl,
        };
        let fits = !self.state.is_ia32e() || attributes.long() && !attributes.big();
        if !attributes.is_code() || !reaches || !fits {
            return Err(self.general_protection(code));
        }
        if !attributes.present() {
            return Err(self.raise(Event::exception_with_code(vector::NP, code)));
        }
        Ok((descriptor, if conforming { cpl } else { attributes.dpl() }))
    }

    /// The code that a call gate leads a jump to.
    pub(super) fn gate_code(
        &mut self,
        env: &mut Env<'_>,
        gate: &CallGate,
        by: Through,
    ) -> Result<Segment, Stop> {
        let (descriptor, new_cpl) = self.gate_descriptor(env, gate, by)?;
        self.code_segment(env, descriptor, gate.selector & !3 | u16::from(new_cpl), gate.offset)
    }

    /// CALL through a gate: the frame is on the stack of the target's privilege.
    pub(super) fn call_through(&mut self, env: &mut Env<'_>, op: &Op, gate: &CallGate) -> Step {
        match gate.frame {
            Frame::Quadwords => self.call_through_64(env, op, gate),
            Frame::Legacy { width, parameters } => self.call_through_32(env, op, gate, width, parameters),
        }
    }

    /// Outside IA-32e mode a call inwards brings parameters along.
    fn call_through_32(
        &mut self,
        env: &mut Env<'_>,
        op: &Op,
        gate: &CallGate,
        width: FrameWidth,
        parameters: u8,
    ) -> Step {
        /// What the field in a gate can say.
        const PARAMETERS_MAX: usize = 31;
        let (descriptor, inner) = self.gate_descriptor(env, gate, Through::Call)?;
        let inward = inner < self.state.cpl();
        let back = [self.return_address(op) as u32, self.state.segment(Seg::Cs).selector.into()];
        let mut words = [0u32; 4 + PARAMETERS_MAX];
        let count = if inward { 4 + usize::from(parameters) } else { back.len() };
        let stack = if inward { self.inner_stack(env, inner, 0)? } else { self.same_stack(0) };
        let segment =
            self.code_segment(env, descriptor, gate.selector & !3 | u16::from(inner), gate.offset)?;
        let words = words.get_mut(..count).unwrap_or(&mut []);
        if let Some((first, rest)) = words.split_at_mut_checked(back.len()) {
            first.copy_from_slice(&back);
            if let Some((copied, outer)) = rest.split_at_mut_checked(usize::from(parameters))
                && inward
            {
                self.stack_words(env, width, copied)?;
                let pointer = self.state.gpr(Gpr::Rsp) as u32;
                outer.copy_from_slice(&[pointer, self.state.segment(Seg::Ss).selector.into()]);
            }
        }
        let top = self.write_frame(env, &stack, width, words)?;
        self.enter_stack(&stack, top);
        self.enter_code(segment, gate.offset);
        Ok(())
    }

    /// In IA-32e mode words have eight bytes.
    fn call_through_64(&mut self, env: &mut Env<'_>, op: &Op, gate: &CallGate) -> Step {
        let segment = self.gate_code(env, gate, Through::Call)?;
        let inner = (segment.selector & 3) as u8;
        let inward = inner < self.state.cpl();
        let stack = self.state.gpr(Gpr::Rsp);
        let top = if inward { self.tss_stack(env, inner, 0)? } else { stack };
        let words = [
            self.return_address(op),
            u64::from(self.state.segment(Seg::Cs).selector),
            stack,
            u64::from(self.state.segment(Seg::Ss).selector),
        ];
        let words = if inward { &words[..] } else { words.get(..2).unwrap_or(&words) };
        let mut frame = [0u8; 32];
        for (slot, word) in frame.chunks_exact_mut(8).zip(words) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        let bytes = 8 * words.len();
        let top = top.wrapping_sub(bytes as u64);
        if !self.canonical(top) {
            return Err(self.raise(Event::exception_with_code(vector::SS, 0)));
        }
        let view = if inward { self.system_view() } else { self.view };
        self.write_bytes(env, top, frame.get(..bytes).unwrap_or(&frame), view)?;
        if inward {
            let attributes = Attributes::UNUSABLE.with_dpl(inner);
            *self.state.segment_mut(Seg::Ss) =
                Segment { selector: inner.into(), attributes, ..Segment::NULL };
        }
        self.state.regs.set(Gpr::Rsp, top);
        self.enter_code(segment, gate.offset);
        Ok(())
    }
}
