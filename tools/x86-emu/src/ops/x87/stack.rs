//! The register stack, the condition codes and the exceptions, on the state alone.

use x86_arch::X87State;

use crate::softfloat::{Environment, Exceptions, Extended, Format, Outcome, Value};

/// Bits of the status word.
pub(in crate::ops) mod status {
    /// A stack fault, where IE is set.
    pub(in crate::ops) const SF: u16 = 1 << 6;
    /// An exception that is not masked.
    pub(in crate::ops) const ES: u16 = 1 << 7;
    pub(in crate::ops) const C0: u16 = 1 << 8;
    pub(in crate::ops) const C1: u16 = 1 << 9;
    pub(in crate::ops) const C2: u16 = 1 << 10;
    pub(in crate::ops) const C3: u16 = 1 << 14;
    /// Busy: what ES says.
    pub(in crate::ops) const B: u16 = 1 << 15;
    pub(in crate::ops) const CONDITIONS: u16 = C0 | C1 | C2 | C3;
}
use status::{B, C1, CONDITIONS, ES, SF};

/// The two directions of a stack fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// A register that was to be filled is not empty.
    Overflow,
    /// A register that was to be read is empty.
    Underflow,
}

/// Where a result goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Target {
    pub(super) register: u8,
    pub(super) pops: Pops,
}

/// How often an instruction pops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pops {
    Nothing,
    Once,
    Twice,
}

/// What instructions do with the state.
pub(in crate::ops) trait Stack {
    fn environment(&self) -> Environment;
    /// Where FADD and its kin round.
    fn rounded_format(&self) -> Format;
    fn is_pending(&self) -> bool;
    fn is_empty(&self, st: u8) -> bool;
    /// ST(n), if it is not empty.
    fn value(&self, st: u8) -> Option<Value>;
    fn bits(&self, st: u8) -> Option<u128>;
    /// Fills ST(n).
    fn fill(&mut self, st: u8, bits: u128);
    fn fill_value(&mut self, st: u8, value: Value);
    fn free(&mut self, st: u8);
    fn push(&mut self, bits: u128);
    fn pop(&mut self);
    fn set_conditions(&mut self, which: u16, value: u16);
    /// Adds exceptions; ES and B follow. Whether one of these is not masked.
    fn report(&mut self, raised: Exceptions) -> bool;
    /// Makes ES and B what the flags and the masks say.
    fn refresh_summary(&mut self);
}

impl Stack for X87State {
    fn environment(&self) -> Environment {
        Environment::from_control_word(self.control)
    }

    fn rounded_format(&self) -> Format {
        Format::from_control_word(self.control)
    }

    fn is_pending(&self) -> bool {
        self.status & ES != 0
    }

    fn is_empty(&self, st: u8) -> bool {
        self.tags >> self.physical(st) & 1 == 0
    }

    fn value(&self, st: u8) -> Option<Value> {
        self.bits(st).map(|bits| Value::from_extended(Extended::from_bits(bits)))
    }

    fn bits(&self, st: u8) -> Option<u128> {
        (!self.is_empty(st)).then(|| self.st(st))
    }

    fn fill(&mut self, st: u8, bits: u128) {
        self.set_st(st, bits);
        self.tags |= 1 << self.physical(st);
    }

    fn fill_value(&mut self, st: u8, value: Value) {
        self.fill(st, value.to_extended().to_bits());
    }

    fn free(&mut self, st: u8) {
        self.tags &= !(1 << self.physical(st));
    }

    fn push(&mut self, bits: u128) {
        self.set_top(self.top().wrapping_sub(1));
        self.fill(0, bits);
    }

    fn pop(&mut self) {
        self.free(0);
        self.set_top(self.top().wrapping_add(1));
    }

    fn set_conditions(&mut self, which: u16, value: u16) {
        debug_assert!(which & !CONDITIONS == 0 && value & !which == 0, "only condition codes");
        self.status = self.status & !which | value;
    }

    fn report(&mut self, raised: Exceptions) -> bool {
        self.status |= u16::from(raised.bits());
        let unmasked = raised.intersects(!self.environment().masked);
        if unmasked {
            self.status |= ES | B;
        }
        unmasked
    }

    fn refresh_summary(&mut self) {
        let pending = Exceptions::from_bits(self.status.into()).intersects(!self.environment().masked);
        self.status = self.status & !(ES | B) | if pending { ES | B } else { 0 };
    }
}

/// Whether an exception leaves the registers as they are.
pub(super) fn stops(x87: &X87State, raised: Exceptions) -> bool {
    raised.intersects(Exceptions::BEFORE & !x87.environment().masked)
}

/// Records a stack fault; the caller gives the masked response if [`stops`] allows.
pub(super) fn fault(x87: &mut X87State, which: Fault) -> Exceptions {
    x87.status |= SF;
    x87.set_conditions(C1, if which == Fault::Overflow { C1 } else { 0 });
    Exceptions::INVALID
}

pub(super) fn pop(x87: &mut X87State, pops: Pops) {
    match pops {
        Pops::Nothing => {}
        Pops::Once => x87.pop(),
        Pops::Twice => {
            x87.pop();
            x87.pop();
        }
    }
}

/// Writes a result, C1 and the stack as the outcome and the masks say; gives what was raised.
pub(super) fn complete(x87: &mut X87State, target: Target, outcome: Outcome) -> Exceptions {
    x87.set_conditions(C1, if outcome.rounded_up { C1 } else { 0 });
    if !stops(x87, outcome.raised) {
        x87.fill_value(target.register, outcome.value);
        pop(x87, target.pops);
    }
    outcome.raised
}

/// An operand was missing: the result is the indefinite value, if #I is masked.
pub(super) fn underflow(x87: &mut X87State, target: Target) -> Exceptions {
    let raised = fault(x87, Fault::Underflow);
    if !stops(x87, raised) {
        x87.fill_value(target.register, Value::INDEFINITE);
        pop(x87, target.pops);
    }
    raised
}

/// Pushes a value, or what a full stack gives instead.
pub(super) fn push(x87: &mut X87State, bits: u128) -> Exceptions {
    // ST(7) is what becomes ST(0).
    if !x87.is_empty(7) {
        let raised = fault(x87, Fault::Overflow);
        if !stops(x87, raised) {
            x87.push(Value::INDEFINITE.to_extended().to_bits());
        }
        return raised;
    }
    x87.set_conditions(C1, 0);
    x87.push(bits);
    Exceptions::NONE
}
