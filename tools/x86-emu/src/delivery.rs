//! Delivery of events through the IDT (SDM vol. 3, "Interrupt and Exception Handling").
//!
//! # Protocol
//! - Everything is read and checked, then the whole frame is written, then registers change; a fault on
//!   the way leaves the CPU as it was.
//! - A second exception on the way is combined with the first: serial, #DF or shutdown.
//! - A bus fault on the way ends the run with the event under delivery in `idt_vectoring`.

use crate::bus::Refused;
use crate::cpu::{Cpu, Env};
use crate::exits::{Exit, RefusedAccess, Shutdown, TaskSwitchBy};
use crate::ops::inner_stack::FrameWidth;
use crate::segments::{is_null, selector_code};
use crate::stop::{Reason, Step, Stop};
use crate::tlb::View;
use x86_arch::{Activity, Attributes, Event, EventKind, Seg, Segment, Shadow, dr7, flags, vector};

/// Error-code bits: the event came from outside the program; the index names an IDT gate.
const EXT: u32 = 1;
const IDT: u32 = 2;

struct Gate {
    selector: u16,
    offset: u64,
    stack_table: u8,
    /// Interrupt gates clear IF, trap gates do not.
    masks_interrupts: bool,
    /// Of the frame, outside IA-32e mode.
    width: FrameWidth,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Leads {
    ToCode,
    ToTask,
}

struct Target {
    segment: Segment,
    cpl: u8,
}

/// The EXT bit of error codes that arise during the delivery of an event.
pub(crate) const fn ext(event: &Event) -> u32 {
    if event.is_software() { 0 } else { EXT }
}

/// Faults are pushed with RF set, so that the instruction restarts past its breakpoint.
const fn is_fault(event: &Event) -> bool {
    event.is_exception() && !matches!(event.vector, vector::DB | vector::BP | vector::OF | vector::DF)
}

impl Cpu {
    /// Delivers an event and whatever follows from its delivery.
    pub(crate) fn deliver(&mut self, env: &mut Env<'_>, event: Event) -> Result<(), Exit<Refused>> {
        let first = event;
        let mut event = event;
        loop {
            let met = self.met;
            let delivered = self.deliver_once(env, &event);
            // The frame of a handler meets no breakpoint.
            self.met = met;
            let Err(_) = delivered else {
                self.state.interruptibility.shadow = Shadow::None;
                // A trap that is due behind HLT wakes the CPU as well as one that comes later.
                if self.state.activity == Activity::Halted {
                    self.state.activity = Activity::Active;
                }
                if event.kind == EventKind::Nmi {
                    self.state.interruptibility.nmi_blocked = true;
                }
                if event.vector == vector::DB && !event.is_software() {
                    self.state.debug.dr7 &= !dr7::GD;
                }
                return Ok(());
            };
            let second = match core::mem::take(&mut self.stop) {
                Reason::Exception(second) => second,
                Reason::NonCanonical => Event::exception_with_code(vector::GP, ext(&event)),
                Reason::Refused(access) => {
                    return Err(Exit::Refused(RefusedAccess { idt_vectoring: Some(event), ..access }));
                }
                Reason::Unimplemented(what) => {
                    return Err(Exit::Unimplemented(Box::new(crate::decode::describe(self, env, what))));
                }
                // A task switch.
                Reason::Instruction(what) => {
                    return Err(Exit::Instruction { what, length: event.instruction_length });
                }
                Reason::None | Reason::StopPoint(_) | Reason::Continue => {
                    return Ok(());
                }
            };
            if second.vector == vector::PF {
                self.state.control.cr2 = self.pending_cr2;
            }
            match event.followed_by(second) {
                Some(next) => event = next,
                None => {
                    self.state.activity = Activity::Shutdown;
                    let at = crate::decode::describe(self, env, "");
                    self.shutdown = Some(Box::new(Shutdown {
                        first,
                        last: second,
                        rip: self.state.rip(),
                        cr2: self.state.control.cr2,
                        instruction: at.text(),
                        bytes: at.bytes,
                    }));
                    return Err(Exit::TripleFault);
                }
            }
        }
    }

    fn deliver_once(&mut self, env: &mut Env<'_>, event: &Event) -> Step {
        let gate = self.gate(env, event)?;
        let target = self.gate_target(env, &gate, event)?;
        if self.state.is_ia32e() {
            self.enter_handler64(env, event, &gate, &target)
        } else {
            self.enter_handler32(env, event, &gate, &target)
        }
    }

    fn gate(&mut self, env: &mut Env<'_>, event: &Event) -> Result<Gate, Stop> {
        let ia32e = self.state.is_ia32e();
        let size: u32 = if ia32e { 16 } else { 8 };
        let code = u32::from(event.vector) << 3 | IDT | ext(event);
        let at = u32::from(event.vector) * size;
        if at + size - 1 > u32::from(self.state.idtr.limit) {
            return Err(self.general_protection(code));
        }
        let linear = self.table_linear(self.state.idtr.base.wrapping_add(u64::from(at)));
        let low: u64 = self.load_system(env, linear)?;
        let high: u64 = if ia32e { self.load_system(env, linear.wrapping_add(8))? } else { 0 };
        let (leads, masks_interrupts, width) = match low >> 40 & 0x1F {
            14 => (Leads::ToCode, true, FrameWidth::Doubleword),
            15 => (Leads::ToCode, false, FrameWidth::Doubleword),
            6 if !ia32e => (Leads::ToCode, true, FrameWidth::Word),
            7 if !ia32e => (Leads::ToCode, false, FrameWidth::Word),
            5 if !ia32e => (Leads::ToTask, false, FrameWidth::Doubleword),
            _ => return Err(self.general_protection(code)),
        };
        let dpl = (low >> 45 & 3) as u8;
        if event.is_software() && dpl < self.state.cpl() {
            return Err(self.general_protection(code));
        }
        if low >> 47 & 1 == 0 {
            return Err(self.raise(Event::exception_with_code(vector::NP, code)));
        }
        let selector = (low >> 16) as u16;
        if leads == Leads::ToTask {
            return Err(self.switch_task(env, selector, TaskSwitchBy::Gate(*event)));
        }
        let upper = match width {
            FrameWidth::Word => 0,
            FrameWidth::Doubleword => low >> 32 & 0xFFFF_0000,
        };
        Ok(Gate {
            selector,
            offset: low & 0xFFFF | upper | high << 32,
            stack_table: (low >> 32 & 7) as u8,
            masks_interrupts,
            width,
        })
    }

    fn gate_target(&mut self, env: &mut Env<'_>, gate: &Gate, event: &Event) -> Result<Target, Stop> {
        let ext = ext(event);
        if is_null(gate.selector) {
            return Err(self.general_protection(ext));
        }
        let code = selector_code(gate.selector) | ext;
        let descriptor = match self.descriptor(env, gate.selector) {
            Ok(descriptor) => descriptor,
            Err(stop) => {
                if let Reason::Exception(Event { vector: vector::GP, error_code, .. }) = &mut self.stop {
                    *error_code = Some(code);
                }
                return Err(stop);
            }
        };
        let attributes = descriptor.attributes();
        let cpl = self.state.cpl();
        if !attributes.is_code() || attributes.dpl() > cpl {
            return Err(self.general_protection(code));
        }
        if self.state.is_ia32e() && (!attributes.long() || attributes.big()) {
            return Err(self.general_protection(code));
        }
        if !attributes.present() {
            return Err(self.raise(Event::exception_with_code(vector::NP, code)));
        }
        self.mark_accessed(env, descriptor)?;
        let conforming = attributes.kind() & 4 != 0;
        let new_cpl = if conforming { cpl } else { attributes.dpl() };
        let mut segment = descriptor.segment(gate.selector & !3 | u16::from(new_cpl));
        segment.attributes.0 |= 1;
        Ok(Target { segment, cpl: new_cpl })
    }

    /// The stack pointer that the 64-bit TSS has for a privilege. `ext` is the EXT bit of the error codes of what goes
    /// wrong.
    pub(crate) fn tss_stack(&mut self, env: &mut Env<'_>, cpl: u8, ext: u32) -> Result<u64, Stop> {
        self.tss_word(env, 4 + 8 * u32::from(cpl), ext)
    }

    fn tss_word(&mut self, env: &mut Env<'_>, offset: u32, ext: u32) -> Result<u64, Stop> {
        if offset + 7 > self.state.tr.limit || self.state.tr.attributes.unusable() {
            let code = selector_code(self.state.tr.selector) | ext;
            return Err(self.raise(Event::exception_with_code(vector::TS, code)));
        }
        let linear = self.state.tr.base.wrapping_add(u64::from(offset));
        let stack = self.load_system(env, linear)?;
        if !self.canonical(stack) {
            return Err(self.raise(Event::exception_with_code(vector::SS, ext)));
        }
        Ok(stack)
    }

    /// The flags to push.
    fn pushed_flags(&self, event: &Event) -> u64 {
        let image = self.state.flags.get();
        if is_fault(event) { image | flags::RF } else { image }
    }

    fn return_rip(&self, event: &Event) -> u64 {
        match event.kind {
            EventKind::SoftwareInterrupt
            | EventKind::SoftwareException
            | EventKind::PrivilegedSoftwareException => {
                let next = self.state.rip().wrapping_add(u64::from(event.instruction_length));
                if self.is_long_mode() { next } else { next & 0xFFFF_FFFF }
            }
            _ => self.state.rip(),
        }
    }

    fn enter_handler64(&mut self, env: &mut Env<'_>, event: &Event, gate: &Gate, target: &Target) -> Step {
        let inward = target.cpl != self.state.cpl();
        // All of RSP, also from a narrower stack.
        let old_stack = self.state.gpr(x86_arch::Gpr::Rsp);
        let stack = if gate.stack_table != 0 {
            self.tss_word(env, 0x24 + 8 * (u32::from(gate.stack_table) - 1), ext(event))?
        } else if inward {
            self.tss_stack(env, target.cpl, ext(event))?
        } else {
            old_stack
        };
        if !self.canonical(gate.offset) {
            return Err(self.general_protection(ext(event)));
        }
        let error = event.error_code.map(u64::from);
        let words = [
            error.unwrap_or(0),
            self.return_rip(event),
            u64::from(self.state.segment(Seg::Cs).selector),
            self.pushed_flags(event),
            old_stack,
            u64::from(self.state.segment(Seg::Ss).selector),
        ];
        let words = if error.is_some() { &words[..] } else { words.get(1..).unwrap_or(&[]) };
        let mut frame = [0u8; 48];
        for (slot, word) in frame.chunks_exact_mut(8).zip(words) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        let bytes = words.len() * 8;
        let top = (stack & !15).wrapping_sub(bytes as u64);
        if !self.canonical(top) {
            return Err(self.raise(Event::exception_with_code(vector::SS, ext(event))));
        }
        let view = if target.cpl == 3 { View::User } else { self.data_view() };
        self.write_bytes(env, top, frame.get(..bytes).unwrap_or(&frame), view)?;

        if inward {
            *self.state.segment_mut(Seg::Ss) = Segment {
                selector: u16::from(target.cpl),
                attributes: Attributes::UNUSABLE.with_dpl(target.cpl),
                ..Segment::NULL
            };
        }
        self.state.regs.set(x86_arch::Gpr::Rsp, top);
        self.finish_entry(gate, target);
        Ok(())
    }

    fn enter_handler32(&mut self, env: &mut Env<'_>, event: &Event, gate: &Gate, target: &Target) -> Step {
        let inward = target.cpl != self.state.cpl();
        let ext = ext(event);
        let stack = if inward { self.inner_stack(env, target.cpl, ext)? } else { self.same_stack(ext) };
        let error = event.error_code;
        let words = [
            error.unwrap_or(0),
            self.return_rip(event) as u32,
            self.state.segment(Seg::Cs).selector.into(),
            self.pushed_flags(event) as u32,
            self.state.gpr(x86_arch::Gpr::Rsp) as u32,
            self.state.segment(Seg::Ss).selector.into(),
        ];
        let end = if inward { words.len() } else { words.len() - 2 };
        let words = words.get(usize::from(error.is_none())..end).unwrap_or(&[]);
        let top = self.write_frame(env, &stack, gate.width, words)?;
        if gate.offset & 0xFFFF_FFFF > u64::from(target.segment.limit) {
            return Err(self.general_protection(ext));
        }
        self.enter_stack(&stack, top);
        self.finish_entry(gate, target);
        Ok(())
    }

    /// The view of stack pushes at CPL below 3: explicit accesses, which RFLAGS.AC exempts from SMAP. In
    /// compatibility and user mode AC belongs to user code and does not count.
    fn data_view(&self) -> View {
        if self.state.cpl() == 3 { self.system_view() } else { self.view }
    }

    fn finish_entry(&mut self, gate: &Gate, target: &Target) {
        let offset = if self.state.is_ia32e() { gate.offset } else { gate.offset & 0xFFFF_FFFF };
        *self.state.segment_mut(Seg::Cs) = target.segment;
        self.state.set_rip(offset);
        let mut rest = self.state.flags.rest() & !(flags::TF | flags::NT | flags::RF | flags::VM);
        if gate.masks_interrupts {
            rest &= !flags::IF;
        }
        self.state.flags.set_rest(rest);
        self.refresh_mode();
    }
}
