//! The local APIC of a host processor, in x2APIC mode and locked there (SDM volume 3, "Advanced Programmable
//! Interrupt Controller"; IA32_XAPIC_DISABLE_STATUS bit 0).
//!
//! # Protocol
//! The APIC is a value: messages go in by [`LocalApic::accept`] and [`LocalApic::accept_nmi`], time by
//! [`LocalApic::tick`], the processor's own accesses by [`LocalApic::read`] and [`LocalApic::write`]; out come the
//! vector that the processor would be interrupted with ([`LocalApic::deliverable`]) and what a write asks of others
//! ([`Effect`]). Nothing in it waits, and it knows no other processor.
//!
//! A vector goes IRR → ISR when the processor acknowledges it ([`LocalApic::acknowledge`]) and leaves ISR at EOI.
//! TDs make one difference: a vector may be acknowledged by the TDX module when a TD exits, and the host then
//! handles it in software; that is the same acknowledgement.
//!
//! # Invariants
//! - A vector below 16 is never in IRR or ISR.
//! - [`LocalApic::deliverable`] is always of a higher priority class than everything in ISR and than TPR.
//! - While software has the APIC disabled, nothing new enters IRR, and every LVT entry is masked.

mod command;
#[cfg(test)]
mod explored;
mod registers;
mod saved;
#[cfg(test)]
mod tests;
mod vectors;

pub use command::{Delivery, Ipi};
pub use registers::{MSR_FIRST, MSR_LAST, MSR_TSC_DEADLINE};
pub(crate) use saved::SavedApic;
pub use vectors::VectorSet;

use tdvisor_vm::apic_timer::Timer;

/// The lowest vector that an interrupt can have.
const FIRST_VECTOR: u8 = 16;

const SOFTWARE_ENABLED: u32 = 1 << 8;
const LVT_MASKED: u32 = 1 << 16;
/// CMCI, thermal, performance counters, LINT0, LINT1, error; the timer's is in [`Timer`].
const LVTS: usize = 6;

/// How a line's interrupt ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Once for each message.
    Edge,
    /// Until its source is told of the end of the interrupt.
    Level,
}

/// What a register write asks of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// An interrupt to send.
    Send(Ipi),
    /// A level-triggered interrupt with this vector was handled: its I/O APIC may look at the line again.
    EndOfInterrupt(u8),
}

/// One processor's local APIC.
#[derive(Clone, Debug)]
pub struct LocalApic {
    id: u32,
    tpr: u8,
    svr: u32,
    irr: VectorSet,
    isr: VectorSet,
    tmr: VectorSet,
    nmi: bool,
    /// Errors since the last write of ESR, and what that write made readable.
    errors: u32,
    esr: u32,
    icr: u64,
    lvt: [u32; LVTS],
    timer: Timer,
}

impl LocalApic {
    /// The APIC of a processor after reset and after firmware has chosen x2APIC mode. `tsc_hz` is the frequency of
    /// the time-stamp counter.
    pub const fn new(id: u32, tsc_hz: u64) -> Self {
        const NONE: VectorSet = VectorSet::EMPTY;
        Self {
            id,
            tpr: 0,
            svr: 0xff,
            irr: NONE,
            isr: NONE,
            tmr: NONE,
            nmi: false,
            errors: 0,
            esr: 0,
            icr: 0,
            lvt: [LVT_MASKED; LVTS],
            timer: Timer::new(tsc_hz),
        }
    }

    /// The x2APIC id.
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// A message with a vector has come.
    pub const fn accept(&mut self, vector: u8, trigger: Trigger) {
        if vector < FIRST_VECTOR {
            self.errors |= registers::ESR_RECEIVED_ILLEGAL_VECTOR;
            return;
        }
        if !self.is_enabled() {
            return;
        }
        self.irr.insert(vector);
        match trigger {
            Trigger::Edge => self.tmr.remove(vector),
            Trigger::Level => self.tmr.insert(vector),
        }
    }

    /// A non-maskable interrupt has come. Two of them before the processor takes one are one.
    pub const fn accept_nmi(&mut self) {
        self.nmi = true;
    }

    /// Whether a non-maskable interrupt waits.
    pub const fn nmi_waits(&self) -> bool {
        self.nmi
    }

    /// The processor takes the non-maskable interrupt, if one waits.
    pub const fn take_nmi(&mut self) -> bool {
        core::mem::replace(&mut self.nmi, false)
    }

    /// The vector that the processor would be interrupted with now, if its RFLAGS.IF allows any.
    pub const fn deliverable(&self) -> Option<u8> {
        match self.irr.highest() {
            Some(vector) if vector >> 4 > self.ppr() >> 4 => Some(vector),
            _ => None,
        }
    }

    /// The processor is interrupted: the vector goes from IRR to ISR.
    pub const fn acknowledge(&mut self) -> Option<u8> {
        let deliverable = self.deliverable();
        if let Some(vector) = deliverable {
            self.irr.remove(vector);
            self.isr.insert(vector);
        }
        deliverable
    }

    /// Takes `vector` if it is the one that would be delivered, without making it an interrupt in service: what a
    /// processor in a guest does with its posted-interrupt notification vector.
    pub const fn take_notification(&mut self, vector: u8) -> bool {
        let taken = matches!(self.deliverable(), Some(highest) if highest == vector);
        if taken {
            self.irr.remove(vector);
        }
        taken
    }

    /// The time is `now`, in ticks of the time-stamp counter: a timer that is due sends its interrupt.
    pub const fn tick(&mut self, now: u64) {
        if let Some(vector) = self.timer.expire(now) {
            self.accept(vector, Trigger::Edge);
        }
    }

    /// When the timer is due next, in ticks of the time-stamp counter.
    pub const fn deadline(&self) -> Option<u64> {
        self.timer.deadline()
    }

    /// Task-priority register, of which the processor's CR8 is bits 7:4.
    pub const fn task_priority(&self) -> u8 {
        self.tpr
    }

    /// MOV to CR8: TPR becomes that class, with sub-class 0.
    pub const fn set_priority_class(&mut self, class: u8) {
        self.tpr = class << 4;
    }

    /// Processor priority: the higher of TPR and of what is in service.
    const fn ppr(&self) -> u8 {
        let in_service = match self.isr.highest() {
            Some(vector) => vector & 0xf0,
            None => 0,
        };
        if self.tpr & 0xf0 >= in_service { self.tpr } else { in_service }
    }

    /// End of interrupt: the highest vector leaves ISR.
    const fn end_of_interrupt(&mut self) -> Effect {
        let Some(vector) = self.isr.highest() else { return Effect::None };
        self.isr.remove(vector);
        if self.tmr.contains(vector) { Effect::EndOfInterrupt(vector) } else { Effect::None }
    }

    /// Whether software has enabled the APIC (SVR bit 8).
    const fn is_enabled(&self) -> bool {
        self.svr & SOFTWARE_ENABLED != 0
    }
}
