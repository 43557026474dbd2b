//! Floating-point instructions of SSE, AVX, FMA and F16C, with every setting of MXCSR. The arithmetic is in
//! [`crate::softfloat`]; here are the lanes, the exceptions and a short cut through the host's arithmetic.

mod arithmetic;
mod compare;
mod convert;
mod convert_mmx;
mod fused;
mod half;
mod round;

pub(super) use compare::relation_flags;

use iced_x86::{Instruction, Mnemonic};

use super::vector::{Shape, vector_operands};
use crate::cpu::{Cpu, Env};
use crate::decode::{Decoded, width};
use crate::op::{Handler, Op, prefix};
use crate::softfloat::{Environment, Exceptions, Format, Outcome, Value};
use crate::stop::{Step, Stop};
use x86_arch::{Event, cr4, vector};

/// The format of a lane.
trait Element: Copy + 'static {
    /// The host's type of the format.
    type Host: Host;
    const FORMAT: Format;
    const BITS: u32;
    fn from_lane(value: u128, lane: u32) -> Self;
    fn to_bits(self) -> u64;
    fn value(self) -> Value;
    fn from_value(value: Value) -> Self;
    fn to_host(self) -> Self::Host;
    fn from_host(host: Self::Host) -> Self;
    /// The scalar source operand.
    fn source(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<Self, Stop>;
}

/// Arithmetic of the host: to nearest, as IEEE 754 says.
trait Host:
    Copy
    + PartialOrd
    + core::ops::Add<Output = Self>
    + core::ops::Sub<Output = Self>
    + core::ops::Mul<Output = Self>
    + core::ops::Div<Output = Self>
    + core::ops::Neg<Output = Self>
{
    fn square_root(self) -> Self;
    /// `self * factor + addend`, rounded once.
    fn fused(self, factor: Self, addend: Self) -> Self;
    /// A normal number or zero: raises nothing as an operand.
    fn is_plain(self) -> bool;
    /// Above the smallest normal number, so that it has neither overflowed nor been tiny.
    fn is_settled(self) -> bool;
}

macro_rules! element {
    ($bits:ident, $host:ident, $format:ident, $from:ident, $to:ident, $source:ident) => {
        impl Element for $bits {
            type Host = $host;
            const FORMAT: Format = Format::$format;
            const BITS: u32 = $bits::BITS;
            fn from_lane(value: u128, lane: u32) -> Self {
                (value >> (lane * Self::BITS)) as $bits
            }
            fn to_bits(self) -> u64 {
                u64::from(self)
            }
            fn value(self) -> Value {
                Value::$from(self)
            }
            fn from_value(value: Value) -> Self {
                value.$to()
            }
            fn to_host(self) -> $host {
                $host::from_bits(self)
            }
            fn from_host(host: $host) -> Self {
                host.to_bits()
            }
            fn source(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<Self, Stop> {
                cpu.$source(env, op)
            }
        }
        impl Host for $host {
            fn square_root(self) -> Self {
                self.sqrt()
            }
            fn fused(self, factor: Self, addend: Self) -> Self {
                self.mul_add(factor, addend)
            }
            fn is_plain(self) -> bool {
                self.is_normal() || self == 0.0
            }
            fn is_settled(self) -> bool {
                self.abs() > $host::MIN_POSITIVE && self.is_finite()
            }
        }
    };
}
element!(u32, f32, SINGLE, from_single, to_single, source32);
element!(u64, f64, DOUBLE, from_double, to_double, source64);

/// Replaces the lowest lane.
fn with_low<E: Element>(old: u128, low: E) -> u128 {
    old >> E::BITS << E::BITS | u128::from(low.to_bits())
}

/// Makes a register of lanes.
fn from_lanes<E: Element>(mut lane: impl FnMut(u32) -> E) -> u128 {
    (0..128 / E::BITS).fold(0, |all, n| all | u128::from(lane(n).to_bits()) << (n * E::BITS))
}

/// Collects what the lanes of an instruction raise.
#[derive(Default)]
struct Raised(Exceptions);

impl Raised {
    /// Takes a lane's value, and its exceptions.
    fn lane<E: Element>(&mut self, outcome: Outcome) -> E {
        self.0 |= outcome.raised;
        E::from_value(outcome.value)
    }
}

impl Cpu {
    fn sse_environment(&self) -> Environment {
        Environment::from_mxcsr(self.state.simd.mxcsr)
    }

    /// Adds exceptions to MXCSR, or raises #XM for one that is not masked.
    ///
    /// An unmasked exception that is found before the operation keeps what rounding would raise from being reported, in
    /// all lanes (SDM vol. 1, 11.5.3).
    fn report(&mut self, raised: Exceptions) -> Step {
        let masked = self.sse_environment().masked;
        let raised = if raised.intersects(Exceptions::BEFORE & !masked) {
            raised & Exceptions::BEFORE
        } else {
            raised
        };
        self.state.simd.mxcsr |= u32::from(raised.bits());
        if !raised.intersects(!masked) {
            return Ok(());
        }
        if self.state.control.cr4 & cr4::OSXMMEXCPT == 0 {
            return Err(self.undefined());
        }
        Err(self.raise(Event::exception(vector::XM)))
    }

    /// Whether nothing but an inexact result, which is recorded already, could be reported: then the host's arithmetic
    /// is as good as ours for numbers in the middle of the range.
    #[inline(always)]
    fn may_use_host(&self) -> bool {
        const MODES_AND_MASKS: u32 = 0xFFC0;
        const DEFAULT: u32 = 0x1F80;
        const PE: u32 = 1 << 5;
        self.state.simd.mxcsr & (MODES_AND_MASKS | PE) == DEFAULT | PE
    }
}

/// The handler of a mnemonic, and its `aux`.
fn handler(mnemonic: Mnemonic, shape: Shape) -> Option<(Handler, u16)> {
    arithmetic::handler(mnemonic, shape)
        .or_else(|| round::handler(mnemonic, shape))
        .map(|handler| (handler, 0))
        .or_else(|| compare::handler(mnemonic, shape))
        .or_else(|| convert::handler(mnemonic, shape))
        .or_else(|| fused::handler(mnemonic, shape))
        .or_else(|| half::handler(mnemonic, shape))
        .or_else(|| convert_mmx::handler(mnemonic))
}

pub(super) fn decode(i: &Instruction, long: bool) -> Option<Decoded> {
    use Mnemonic as M;
    if super::string::string_operands(i).is_some() {
        return None;
    }
    let (run, aux) = handler(i.mnemonic(), Shape::of(i)?)?;
    let mut op = vector_operands(i, run, long);
    op.aux = aux;
    let general = match i.mnemonic() {
        M::Cvtsi2ss | M::Cvtsi2sd => Some(1),
        M::Vcvtsi2ss | M::Vcvtsi2sd => Some(2),
        M::Cvtss2si | M::Cvttss2si | M::Cvtsd2si | M::Cvttsd2si => Some(0),
        M::Vcvtss2si | M::Vcvttss2si | M::Vcvtsd2si | M::Vcvttsd2si => Some(0),
        _ => None,
    };
    if general.is_some_and(|n| width(i, n) == 8) {
        op.prefix |= prefix::SIZE64;
    }
    Some(Decoded::plain(op))
}
