//! What far jumps and calls lead to: code, or the call gates of IA-32e mode (SDM vol. 3, "Call Gates" and "IA-32e Mode Call
//! Gates"). Gates and task switches of 32-bit protected mode are not implemented: no system that is a TD's guest sets one up.

use crate::cpu::{Cpu, Env};
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
}

/// What goes through a gate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Through {
    Jump,
    Call,
}

impl Cpu {
    /// Reads and checks what a far jump or call leads to.
    pub(super) fn far_target(
        &mut self,
        env: &mut Env<'_>,
        selector: u16,
        offset: u64,
    ) -> Result<FarTarget, Stop> {
        if is_null(selector) {
            return Err(self.general_protection(0));
        }
        let code = selector_code(selector);
        let descriptor = self.descriptor(env, selector)?;
        let attributes = descriptor.attributes();
        if !attributes.is_code_or_data() {
            return self.call_gate(env, selector, descriptor).map(FarTarget::Gate);
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

    /// Reads a 64-bit call gate, which is all that a far jump or call may find in IA-32e mode besides code.
    fn call_gate(
        &mut self,
        env: &mut Env<'_>,
        selector: u16,
        descriptor: Descriptor,
    ) -> Result<CallGate, Stop> {
        const CALL_GATE: u8 = 12;
        const LEGACY: [u8; 4] = [1, 4, 5, 9];
        let code = selector_code(selector);
        let attributes = descriptor.attributes();
        let kind = attributes.kind();
        let inner = attributes.dpl() < self.state.cpl().max((selector & 3) as u8);
        // IA-32e mode has no task switches and only 64-bit call gates.
        let exists = kind == CALL_GATE || !self.state.is_ia32e() && LEGACY.contains(&kind);
        if !exists || inner {
            return Err(self.general_protection(code));
        }
        if !attributes.present() {
            return Err(self.raise(Event::exception_with_code(vector::NP, code)));
        }
        if !self.state.is_ia32e() {
            return Err(self.unimplemented("far transfer through a gate or a TSS"));
        }
        let high = self.upper_half(env, selector, descriptor)?;
        Ok(CallGate {
            selector: (descriptor.raw >> 16) as u16,
            offset: descriptor.raw & 0xFFFF | descriptor.raw >> 32 & 0xFFFF_0000 | high << 32,
        })
    }

    /// Reads and checks the code that a call gate names: 64-bit code, at this privilege or, for a call, an inner one.
    pub(super) fn gate_code(
        &mut self,
        env: &mut Env<'_>,
        gate: &CallGate,
        by: Through,
    ) -> Result<Segment, Stop> {
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
        if !attributes.is_code() || !reaches || !attributes.long() || attributes.big() {
            return Err(self.general_protection(code));
        }
        let new_cpl = if conforming { cpl } else { attributes.dpl() };
        self.code_segment(env, descriptor, gate.selector & !3 | u16::from(new_cpl), gate.offset)
    }

    /// CALL through a gate: the frame is on the stack of the target's privilege, in words of eight bytes.
    pub(super) fn call_through(&mut self, env: &mut Env<'_>, op: &Op, gate: &CallGate) -> Step {
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
