//! SSE and SSE2 floating point, with the status flags of MXCSR.
//!
//! Results come from the host's IEEE 754 arithmetic, which rounds to nearest. NaN results follow the rules
//! of x86 and never the host's. Other rounding modes, DAZ and FTZ stop as unimplemented where they would
//! matter. Whether a result is inexact is decided with integers (or an error-free transformation), so the
//! status flags are exact too.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::packed::{dwords_of, from_dwords, from_qwords};
use crate::cpu::{Cpu, Env};
use crate::decode::{Decoded, operands, width};
use crate::events::{Event, vector};
use crate::flags;
use crate::op::{Handler, Op, prefix};
use crate::state::cr4;
use crate::stop::{Step, Stop};

/// Status flags of MXCSR.
mod status {
    pub(super) const INVALID: u32 = 1;
    pub(super) const DENORMAL: u32 = 1 << 1;
    pub(super) const ZERO_DIVIDE: u32 = 1 << 2;
    pub(super) const OVERFLOW: u32 = 1 << 3;
    pub(super) const UNDERFLOW: u32 = 1 << 4;
    pub(super) const INEXACT: u32 = 1 << 5;
    pub(super) const ALL: u32 = 0x3F;
}
use status::{DENORMAL, INEXACT, INVALID, OVERFLOW, UNDERFLOW, ZERO_DIVIDE};

/// RC, FTZ and DAZ.
const MODES: u32 = 0x6000 | 0x8040;
const MASK_SHIFT: u32 = 7;

/// A value as `mantissa * 2^exponent`, the mantissa odd.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Exact {
    mantissa: u128,
    exponent: i32,
}

impl Exact {
    fn new(mantissa: u128, exponent: i32) -> Self {
        if mantissa == 0 {
            return Self { mantissa: 0, exponent: 0 };
        }
        let zeros = mantissa.trailing_zeros();
        Self { mantissa: mantissa >> zeros, exponent: exponent + zeros as i32 }
    }

    fn times(self, other: Self) -> Self {
        Self::new(self.mantissa * other.mantissa, self.exponent + other.exponent)
    }
}

/// The result of an operation, the flags it raises, and whether its tininess is in doubt.
#[derive(Clone, Copy)]
struct Outcome<F> {
    value: F,
    raised: u32,
}

/// One of the two formats.
trait Float: Copy + PartialOrd + 'static {
    const ZERO: Self;
    const MIN_NORMAL: Self;
    fn is_nan(self) -> bool;
    fn is_infinite(self) -> bool;
    fn is_signalling(self) -> bool;
    fn is_denormal(self) -> bool;
    fn magnitude(self) -> Self;
    fn is_negative(self) -> bool;
    fn quiet(self) -> Self;
    fn default_nan() -> Self;
    fn exact(self) -> Exact;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    fn sqrt(self) -> Self;
}

macro_rules! float {
    ($type:ident, $bits:ident, $fraction:literal, $bias:literal, $quiet:literal) => {
        impl Float for $type {
            const ZERO: Self = 0.0;
            const MIN_NORMAL: Self = $type::MIN_POSITIVE;
            fn is_nan(self) -> bool {
                $type::is_nan(self)
            }
            fn is_infinite(self) -> bool {
                $type::is_infinite(self)
            }
            fn is_signalling(self) -> bool {
                $type::is_nan(self) && self.to_bits() & $quiet == 0
            }
            fn is_denormal(self) -> bool {
                self.is_subnormal()
            }
            fn magnitude(self) -> Self {
                self.abs()
            }
            fn is_negative(self) -> bool {
                self.is_sign_negative()
            }
            fn quiet(self) -> Self {
                $type::from_bits(self.to_bits() | $quiet)
            }
            fn default_nan() -> Self {
                // The default NaN of x86 has its sign set.
                $type::from_bits(!((1 << ($fraction - 1)) - 1))
            }
            fn exact(self) -> Exact {
                let bits = self.to_bits();
                let fraction = bits & ((1 << $fraction) - 1);
                let exponent = (self.abs().to_bits() >> $fraction) as i32;
                let (mantissa, exponent) =
                    if exponent == 0 { (fraction, 1) } else { (fraction | 1 << $fraction, exponent) };
                Exact::new(u128::from(mantissa), exponent - $bias - $fraction)
            }
            fn add(self, other: Self) -> Self {
                self + other
            }
            fn sub(self, other: Self) -> Self {
                self - other
            }
            fn mul(self, other: Self) -> Self {
                self * other
            }
            fn div(self, other: Self) -> Self {
                self / other
            }
            fn sqrt(self) -> Self {
                $type::sqrt(self)
            }
        }
    };
}
float!(f32, u32, 23, 127, 0x40_0000);
float!(f64, u64, 52, 1023, 0x8_0000_0000_0000);

fn denormal_flag<F: Float>(a: F, b: F) -> u32 {
    if a.is_denormal() || b.is_denormal() { DENORMAL } else { 0 }
}

/// NaN operands: the first NaN made quiet; a signalling one is invalid.
fn nan_operand<F: Float>(a: F, b: F) -> Option<Outcome<F>> {
    let first = if a.is_nan() {
        a
    } else if b.is_nan() {
        b
    } else {
        return None;
    };
    let invalid = a.is_signalling() || b.is_signalling();
    Some(Outcome { value: first.quiet(), raised: if invalid { INVALID } else { 0 } })
}

/// Flags of a rounded finite operation: overflow, underflow, inexact. `None` if tininess is in doubt.
fn rounding_flags<F: Float>(value: F, inexact: bool) -> Option<u32> {
    if value.is_infinite() {
        return Some(OVERFLOW | INEXACT);
    }
    if !inexact {
        return Some(0);
    }
    // Tininess is detected after rounding to unbounded exponents, which the rounded result alone does not
    // tell at the boundary.
    if value.magnitude() == F::MIN_NORMAL {
        return None;
    }
    Some(if value.magnitude() < F::MIN_NORMAL { UNDERFLOW | INEXACT } else { INEXACT })
}

/// The rounding error of a sum is representable, and computable without error (Knuth's TwoSum).
fn sum_is_inexact<F: Float>(a: F, b: F, sum: F) -> bool {
    let b_part = sum.sub(a);
    let error = a.sub(sum.sub(b_part)).add(b.sub(b_part));
    error != F::ZERO
}

fn add<F: Float>(a: F, b: F) -> Option<Outcome<F>> {
    if let Some(nan) = nan_operand(a, b) {
        return Some(nan);
    }
    let value = a.add(b);
    if a.is_infinite() || b.is_infinite() {
        if value.is_nan() {
            return Some(Outcome { value: F::default_nan(), raised: INVALID });
        }
        return Some(Outcome { value, raised: denormal_flag(a, b) });
    }
    let inexact = !value.is_infinite() && sum_is_inexact_scaled(a, b, value);
    Some(Outcome { value, raised: denormal_flag(a, b) | rounding_flags(value, inexact)? })
}

/// Near the top of the range TwoSum's own intermediates may overflow: then compare exactly.
fn sum_is_inexact_scaled<F: Float>(a: F, b: F, sum: F) -> bool {
    let b_part = sum.sub(a);
    let a_part = sum.sub(b_part);
    if b_part.is_infinite() || a_part.is_infinite() {
        // Both operands are huge and of opposite... of equal sign: their exponents differ by at most one
        // from the sum's, so integers hold the exact sum.
        return !exact_sum_equals(a, b, sum);
    }
    sum_is_inexact(a, b, sum)
}

fn exact_sum_equals<F: Float>(a: F, b: F, sum: F) -> bool {
    let low = a.exact().exponent.min(b.exact().exponent).min(sum.exact().exponent);
    let scaled = |x: F| {
        let e = x.exact();
        let shift = (e.exponent - low) as u32;
        let magnitude = e.mantissa.checked_shl(shift).filter(|m| m >> shift == e.mantissa)?;
        let magnitude = i128::try_from(magnitude).ok()?;
        Some(if x.is_negative() { -magnitude } else { magnitude })
    };
    match (scaled(a), scaled(b), scaled(sum)) {
        (Some(a), Some(b), Some(sum)) => a.checked_add(b) == Some(sum),
        // Too far apart to be exact.
        _ => false,
    }
}

trait Negate: Float {
    fn negated(self) -> Self;
}
impl Negate for f32 {
    fn negated(self) -> Self {
        -self
    }
}
impl Negate for f64 {
    fn negated(self) -> Self {
        -self
    }
}

fn sub<F: Negate>(a: F, b: F) -> Option<Outcome<F>> {
    if let Some(nan) = nan_operand(a, b) {
        return Some(nan);
    }
    add(a, b.negated())
}

fn mul<F: Float>(a: F, b: F) -> Option<Outcome<F>> {
    if let Some(nan) = nan_operand(a, b) {
        return Some(nan);
    }
    let value = a.mul(b);
    if value.is_nan() {
        return Some(Outcome { value: F::default_nan(), raised: INVALID });
    }
    let denormal = denormal_flag(a, b);
    if a.is_infinite() || b.is_infinite() {
        return Some(Outcome { value, raised: denormal });
    }
    let inexact = !value.is_infinite() && a.exact().times(b.exact()) != value.exact();
    Some(Outcome { value, raised: denormal | rounding_flags(value, inexact)? })
}

fn div<F: Float>(a: F, b: F) -> Option<Outcome<F>> {
    if let Some(nan) = nan_operand(a, b) {
        return Some(nan);
    }
    let value = a.div(b);
    if value.is_nan() {
        return Some(Outcome { value: F::default_nan(), raised: INVALID });
    }
    if a.is_infinite() {
        return Some(Outcome { value, raised: denormal_flag(a, b) });
    }
    if b == F::ZERO {
        return Some(Outcome { value, raised: ZERO_DIVIDE });
    }
    let denormal = denormal_flag(a, b);
    if b.is_infinite() {
        return Some(Outcome { value, raised: denormal });
    }
    let inexact = !value.is_infinite() && value.exact().times(b.exact()) != a.exact();
    Some(Outcome { value, raised: denormal | rounding_flags(value, inexact)? })
}

fn sqrt<F: Float>(_: F, b: F) -> Option<Outcome<F>> {
    if let Some(nan) = nan_operand(b, b) {
        return Some(nan);
    }
    if b.is_negative() && b != F::ZERO {
        return Some(Outcome { value: F::default_nan(), raised: INVALID });
    }
    let value = b.sqrt();
    let inexact = !value.is_infinite() && value.exact().times(value.exact()) != b.exact();
    Some(Outcome { value, raised: denormal_flag(b, b) | if inexact { INEXACT } else { 0 } })
}

/// MIN and MAX give the second operand unless the first is strictly better; any NaN is invalid.
fn min<F: Float>(a: F, b: F) -> Option<Outcome<F>> {
    Some(Outcome { value: if a < b { a } else { b }, raised: compare_flags(a, b, Quiet::Signals) })
}
fn max<F: Float>(a: F, b: F) -> Option<Outcome<F>> {
    Some(Outcome { value: if a > b { a } else { b }, raised: compare_flags(a, b, Quiet::Signals) })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quiet {
    /// Only signalling NaNs are invalid.
    Passes,
    /// Every NaN is.
    Signals,
}

fn compare_flags<F: Float>(a: F, b: F, quiet: Quiet) -> u32 {
    let nan = a.is_nan() || b.is_nan();
    if a.is_signalling() || b.is_signalling() || nan && quiet == Quiet::Signals {
        return INVALID;
    }
    if nan { 0 } else { denormal_flag(a, b) }
}

/// The eight predicates of CMPPS and its kin.
fn predicate<F: Float>(a: F, b: F, which: u8) -> (bool, u32) {
    let nan = a.is_nan() || b.is_nan();
    let holds = match which & 3 {
        0 => a == b,
        1 => a < b,
        2 => a <= b,
        _ => nan,
    };
    let quiet = if matches!(which & 3, 1 | 2) { Quiet::Signals } else { Quiet::Passes };
    (holds != (which & 4 != 0), compare_flags(a, b, quiet))
}

impl Cpu {
    /// Adds status flags to MXCSR, or raises #XM for one that is not masked.
    fn raise_status(&mut self, raised: u32) -> Step {
        self.simd.mxcsr |= raised & status::ALL;
        if raised & !(self.simd.mxcsr >> MASK_SHIFT) & status::ALL != 0 {
            if self.control.cr4 & cr4::OSXMMEXCPT == 0 {
                return Err(self.undefined());
            }
            return Err(self.raise(Event::exception(vector::XM)));
        }
        Ok(())
    }

    fn check_float(&mut self) -> Step {
        self.check_sse()?;
        if self.simd.mxcsr & MODES != 0 {
            return Err(self.unimplemented("rounding, DAZ or FTZ other than the reset state of MXCSR"));
        }
        Ok(())
    }
}

type Binary<F> = fn(F, F) -> Option<Outcome<F>>;

const ARITHMETIC32: [Binary<f32>; 7] = [add, sub, mul, div, min, max, sqrt];
const ARITHMETIC64: [Binary<f64>; 7] = [add, sub, mul, div, min, max, sqrt];

fn scalar32(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let b = f32::from_bits(cpu.source32(env, op)?);
    let old = cpu.xmm(op.dst);
    let r = apply(cpu, &ARITHMETIC32, op.aux, f32::from_bits(old as u32), b)?;
    cpu.raise_status(r.raised)?;
    cpu.set_xmm(op.dst, old & !0xFFFF_FFFF | u128::from(r.value.to_bits()));
    Ok(())
}
fn scalar64(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let b = f64::from_bits(cpu.source64(env, op)?);
    let old = cpu.xmm(op.dst);
    let r = apply(cpu, &ARITHMETIC64, op.aux, f64::from_bits(old as u64), b)?;
    cpu.raise_status(r.raised)?;
    cpu.set_xmm(op.dst, from_qwords(r.value.to_bits(), (old >> 64) as u64));
    Ok(())
}
fn apply<F: Float>(cpu: &mut Cpu, table: &[Binary<F>], which: u16, a: F, b: F) -> Result<Outcome<F>, Stop> {
    let outcome = table.get(which as usize).and_then(|f| f(a, b));
    outcome.ok_or_else(|| cpu.unimplemented("a result at the border of underflow"))
}
fn packed32(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let (a, b) = (dwords_of(cpu.xmm(op.dst)), dwords_of(cpu.source128(env, op)?));
    let mut result = [0u32; 4];
    let mut raised = 0;
    for ((slot, a), b) in result.iter_mut().zip(a).zip(b) {
        let r = apply(cpu, &ARITHMETIC32, op.aux, f32::from_bits(a), f32::from_bits(b))?;
        raised |= r.raised;
        *slot = r.value.to_bits();
    }
    cpu.raise_status(raised)?;
    cpu.set_xmm(op.dst, from_dwords(result));
    Ok(())
}
fn qwords(value: u128) -> [u64; 2] {
    [value as u64, (value >> 64) as u64]
}
fn packed64(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let (a, b) = (qwords(cpu.xmm(op.dst)), qwords(cpu.source128(env, op)?));
    let mut result = [0u64; 2];
    let mut raised = 0;
    for ((slot, a), b) in result.iter_mut().zip(a).zip(b) {
        let r = apply(cpu, &ARITHMETIC64, op.aux, f64::from_bits(a), f64::from_bits(b))?;
        raised |= r.raised;
        *slot = r.value.to_bits();
    }
    cpu.raise_status(raised)?;
    let [low, high] = result;
    cpu.set_xmm(op.dst, from_qwords(low, high));
    Ok(())
}

fn compare_scalar32(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let b = f32::from_bits(cpu.source32(env, op)?);
    let old = cpu.xmm(op.dst);
    let (holds, raised) = predicate(f32::from_bits(old as u32), b, op.imm as u8);
    cpu.raise_status(raised)?;
    cpu.set_xmm(op.dst, old & !0xFFFF_FFFF | if holds { 0xFFFF_FFFF } else { 0 });
    Ok(())
}
fn compare_scalar64(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let b = f64::from_bits(cpu.source64(env, op)?);
    let old = cpu.xmm(op.dst);
    let (holds, raised) = predicate(f64::from_bits(old as u64), b, op.imm as u8);
    cpu.raise_status(raised)?;
    cpu.set_xmm(op.dst, from_qwords(if holds { u64::MAX } else { 0 }, (old >> 64) as u64));
    Ok(())
}
fn compare_packed32(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let (a, b) = (dwords_of(cpu.xmm(op.dst)), dwords_of(cpu.source128(env, op)?));
    let mut raised = 0;
    let mut result = [0u32; 4];
    for ((slot, a), b) in result.iter_mut().zip(a).zip(b) {
        let (holds, flags) = predicate(f32::from_bits(a), f32::from_bits(b), op.imm as u8);
        raised |= flags;
        *slot = if holds { u32::MAX } else { 0 };
    }
    cpu.raise_status(raised)?;
    cpu.set_xmm(op.dst, from_dwords(result));
    Ok(())
}
fn compare_packed64(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let (a, b) = (qwords(cpu.xmm(op.dst)), qwords(cpu.source128(env, op)?));
    let mut raised = 0;
    let mut result = [0u64; 2];
    for ((slot, a), b) in result.iter_mut().zip(a).zip(b) {
        let (holds, flags) = predicate(f64::from_bits(a), f64::from_bits(b), op.imm as u8);
        raised |= flags;
        *slot = if holds { u64::MAX } else { 0 };
    }
    cpu.raise_status(raised)?;
    let [low, high] = result;
    cpu.set_xmm(op.dst, from_qwords(low, high));
    Ok(())
}

/// COMISS and its kin: `aux` is 1 for the unordered forms.
fn set_compare_flags<F: Float>(cpu: &mut Cpu, a: F, b: F, unordered: u16) -> Step {
    let quiet = if unordered == 1 { Quiet::Passes } else { Quiet::Signals };
    cpu.raise_status(compare_flags(a, b, quiet))?;
    let value = if a.is_nan() || b.is_nan() {
        flags::ZF | flags::PF | flags::CF
    } else if a < b {
        flags::CF
    } else if a == b {
        flags::ZF
    } else {
        0
    };
    cpu.flags.replace(flags::ARITHMETIC, value);
    Ok(())
}
fn comis32(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let b = f32::from_bits(cpu.source32(env, op)?);
    let a = f32::from_bits(cpu.xmm(op.dst) as u32);
    set_compare_flags(cpu, a, b, op.aux)
}
fn comis64(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let b = f64::from_bits(cpu.source64(env, op)?);
    let a = f64::from_bits(cpu.xmm(op.dst) as u64);
    set_compare_flags(cpu, a, b, op.aux)
}

/// The integer source of CVTSI2SS and CVTSI2SD.
fn integer_source(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<i64, Stop> {
    Ok(if op.operand_bytes() == 8 {
        cpu.source::<u64>(env, op)? as i64
    } else {
        i64::from(cpu.source::<u32>(env, op)? as i32)
    })
}
fn inexact_if(yes: bool) -> u32 {
    if yes { INEXACT } else { 0 }
}
fn integer_to_32(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let value = integer_source(cpu, env, op)?;
    let result = value as f32;
    cpu.raise_status(inexact_if(result as i128 != i128::from(value)))?;
    let kept = cpu.xmm(op.dst) & !0xFFFF_FFFF;
    cpu.set_xmm(op.dst, kept | u128::from(result.to_bits()));
    Ok(())
}
fn integer_to_64(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let value = integer_source(cpu, env, op)?;
    let result = value as f64;
    cpu.raise_status(inexact_if(result as i128 != i128::from(value)))?;
    let high = (cpu.xmm(op.dst) >> 64) as u64;
    cpu.set_xmm(op.dst, from_qwords(result.to_bits(), high));
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rounding {
    Nearest,
    Truncate,
}

/// Converts to a signed integer of this many bits; out of range is the "integer indefinite" value.
fn to_integer(value: f64, bits: u32, rounding: Rounding) -> (i64, u32) {
    let rounded = if rounding == Rounding::Nearest { value.round_ties_even() } else { value.trunc() };
    let limit = 2f64.powi(bits as i32 - 1);
    if value.is_nan() || rounded < -limit || rounded >= limit {
        return (i64::MIN >> (64 - bits), INVALID);
    }
    (rounded as i64, inexact_if(rounded != value))
}

/// `aux` 0 rounds, 1 truncates.
fn rounding(op: &Op) -> Rounding {
    if op.aux == 1 { Rounding::Truncate } else { Rounding::Nearest }
}
fn finish_integer(cpu: &mut Cpu, op: &Op, value: f64) -> Step {
    let wide = op.operand_bytes() == 8;
    let (result, raised) = to_integer(value, if wide { 64 } else { 32 }, rounding(op));
    cpu.raise_status(raised)?;
    cpu.regs.set_slot(op.dst, if wide { result as u64 } else { u64::from(result as u32) });
    Ok(())
}
fn integer_from_32(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let value = f32::from_bits(cpu.source32(env, op)?);
    finish_integer(cpu, op, f64::from(value))
}
fn integer_from_64(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let value = f64::from_bits(cpu.source64(env, op)?);
    finish_integer(cpu, op, value)
}

/// Widens; NaN payloads move up.
fn widen(value: f32) -> Outcome<f64> {
    if value.is_nan() {
        let bits = value.quiet().to_bits();
        let sign = u64::from(bits >> 31) << 63;
        let wide = sign | 0x7FF << 52 | u64::from(bits & 0x7F_FFFF) << 29;
        let raised = if value.is_signalling() { INVALID } else { 0 };
        return Outcome { value: f64::from_bits(wide), raised };
    }
    Outcome { value: f64::from(value), raised: denormal_flag(value, value) }
}
/// Narrows; NaN payloads lose their low bits.
fn narrow(value: f64) -> Option<Outcome<f32>> {
    if value.is_nan() {
        let bits = value.quiet().to_bits();
        let sign = (bits >> 63) as u32;
        let slim = sign << 31 | 0xFF << 23 | (bits >> 29) as u32 & 0x7F_FFFF;
        let raised = if value.is_signalling() { INVALID } else { 0 };
        return Some(Outcome { value: f32::from_bits(slim), raised });
    }
    let result = value as f32;
    let denormal = denormal_flag(value, value);
    if value.is_infinite() {
        return Some(Outcome { value: result, raised: denormal });
    }
    let inexact = f64::from(result) != value;
    Some(Outcome { value: result, raised: denormal | rounding_flags(result, inexact)? })
}
fn narrow_or_stop(cpu: &mut Cpu, bits: u64) -> Result<Outcome<f32>, Stop> {
    narrow(f64::from_bits(bits)).ok_or_else(|| cpu.unimplemented("a result at the border of underflow"))
}
fn cvtss2sd(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let r = widen(f32::from_bits(cpu.source32(env, op)?));
    cpu.raise_status(r.raised)?;
    let high = (cpu.xmm(op.dst) >> 64) as u64;
    cpu.set_xmm(op.dst, from_qwords(r.value.to_bits(), high));
    Ok(())
}
fn cvtsd2ss(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let bits = cpu.source64(env, op)?;
    let r = narrow_or_stop(cpu, bits)?;
    cpu.raise_status(r.raised)?;
    let kept = cpu.xmm(op.dst) & !0xFFFF_FFFF;
    cpu.set_xmm(op.dst, kept | u128::from(r.value.to_bits()));
    Ok(())
}
fn cvtps2pd(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let source = cpu.source64(env, op)?;
    let low = widen(f32::from_bits(source as u32));
    let high = widen(f32::from_bits((source >> 32) as u32));
    cpu.raise_status(low.raised | high.raised)?;
    cpu.set_xmm(op.dst, from_qwords(low.value.to_bits(), high.value.to_bits()));
    Ok(())
}
fn cvtpd2ps(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let [low, high] = qwords(cpu.source128(env, op)?);
    let low = narrow_or_stop(cpu, low)?;
    let high = narrow_or_stop(cpu, high)?;
    cpu.raise_status(low.raised | high.raised)?;
    cpu.set_xmm(op.dst, from_dwords([low.value.to_bits(), high.value.to_bits(), 0, 0]));
    Ok(())
}
fn cvtdq2ps(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let source = dwords_of(cpu.source128(env, op)?);
    let exact = source.iter().all(|d| (*d as i32 as f32) as i64 == i64::from(*d as i32));
    cpu.raise_status(inexact_if(!exact))?;
    cpu.set_xmm(op.dst, from_dwords(source.map(|d| (d as i32 as f32).to_bits())));
    Ok(())
}
fn cvtdq2pd(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    let source = cpu.source64(env, op)?;
    let low = f64::from(source as i32).to_bits();
    let high = f64::from((source >> 32) as i32).to_bits();
    cpu.set_xmm(op.dst, from_qwords(low, high));
    Ok(())
}
fn ps_to_dq(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let source = dwords_of(cpu.source128(env, op)?);
    let converted = source.map(|d| to_integer(f64::from(f32::from_bits(d)), 32, rounding(op)));
    cpu.raise_status(converted.iter().fold(0, |all, c| all | c.1))?;
    cpu.set_xmm(op.dst, from_dwords(converted.map(|c| c.0 as u32)));
    Ok(())
}
fn pd_to_dq(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let source = qwords(cpu.source128(env, op)?);
    let converted = source.map(|q| to_integer(f64::from_bits(q), 32, rounding(op)));
    cpu.raise_status(converted.iter().fold(0, |all, c| all | c.1))?;
    let [low, high] = converted.map(|c| c.0 as u32);
    cpu.set_xmm(op.dst, from_dwords([low, high, 0, 0]));
    Ok(())
}

pub(super) fn decode(i: &Instruction, long: bool) -> Option<Decoded> {
    use Mnemonic as M;
    let mmx = |n: u32| i.op_kind(n) == OpKind::Register && i.op_register(n).is_mm();
    if (0..i.op_count()).any(mmx) || super::string::string_operands(i).is_some() {
        return None;
    }
    let arithmetic: Option<(Handler, u16)> = match i.mnemonic() {
        M::Addss => Some((scalar32, 0)),
        M::Subss => Some((scalar32, 1)),
        M::Mulss => Some((scalar32, 2)),
        M::Divss => Some((scalar32, 3)),
        M::Minss => Some((scalar32, 4)),
        M::Maxss => Some((scalar32, 5)),
        M::Sqrtss => Some((scalar32, 6)),
        M::Addsd => Some((scalar64, 0)),
        M::Subsd => Some((scalar64, 1)),
        M::Mulsd => Some((scalar64, 2)),
        M::Divsd => Some((scalar64, 3)),
        M::Minsd => Some((scalar64, 4)),
        M::Maxsd => Some((scalar64, 5)),
        M::Sqrtsd => Some((scalar64, 6)),
        M::Addps => Some((packed32, 0)),
        M::Subps => Some((packed32, 1)),
        M::Mulps => Some((packed32, 2)),
        M::Divps => Some((packed32, 3)),
        M::Minps => Some((packed32, 4)),
        M::Maxps => Some((packed32, 5)),
        M::Sqrtps => Some((packed32, 6)),
        M::Addpd => Some((packed64, 0)),
        M::Subpd => Some((packed64, 1)),
        M::Mulpd => Some((packed64, 2)),
        M::Divpd => Some((packed64, 3)),
        M::Minpd => Some((packed64, 4)),
        M::Maxpd => Some((packed64, 5)),
        M::Sqrtpd => Some((packed64, 6)),
        M::Comiss => Some((comis32, 0)),
        M::Ucomiss => Some((comis32, 1)),
        M::Comisd => Some((comis64, 0)),
        M::Ucomisd => Some((comis64, 1)),
        M::Cmpss => Some((compare_scalar32, 0)),
        M::Cmpsd => Some((compare_scalar64, 0)),
        M::Cmpps => Some((compare_packed32, 0)),
        M::Cmppd => Some((compare_packed64, 0)),
        M::Cvtsi2ss => Some((integer_to_32, 0)),
        M::Cvtsi2sd => Some((integer_to_64, 0)),
        M::Cvtss2si => Some((integer_from_32, 0)),
        M::Cvttss2si => Some((integer_from_32, 1)),
        M::Cvtsd2si => Some((integer_from_64, 0)),
        M::Cvttsd2si => Some((integer_from_64, 1)),
        M::Cvtss2sd => Some((cvtss2sd, 0)),
        M::Cvtsd2ss => Some((cvtsd2ss, 0)),
        M::Cvtps2pd => Some((cvtps2pd, 0)),
        M::Cvtpd2ps => Some((cvtpd2ps, 0)),
        M::Cvtdq2ps => Some((cvtdq2ps, 0)),
        M::Cvtdq2pd => Some((cvtdq2pd, 0)),
        M::Cvtps2dq => Some((ps_to_dq, 0)),
        M::Cvttps2dq => Some((ps_to_dq, 1)),
        M::Cvtpd2dq => Some((pd_to_dq, 0)),
        M::Cvttpd2dq => Some((pd_to_dq, 1)),
        _ => None,
    };
    let (run, aux) = arithmetic?;
    let mut op = operands(i, run, long);
    op.aux = aux;
    let general = match i.mnemonic() {
        M::Cvtsi2ss | M::Cvtsi2sd => Some(1),
        M::Cvtss2si | M::Cvttss2si | M::Cvtsd2si | M::Cvttsd2si => Some(0),
        _ => None,
    };
    if general.is_some_and(|n| width(i, n) == 8) {
        op.prefix |= prefix::SIZE64;
    }
    Some(Decoded::plain(op))
}
