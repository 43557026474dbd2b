//! Addition, subtraction, multiplication, both in one, division and square root.

use super::environment::{Denormals, Environment, NanRule, Rounding};
use super::exceptions::Exceptions;
use super::format::Format;
use super::round::{Outcome, round};
use super::value::{Class, Value};
use super::wide::Wide;

/// Operands that are numbers, with what they raise; or the outcome that NaNs and unsupported encodings have.
pub(super) fn operands<const N: usize>(
    operands: [Value; N],
    env: &Environment,
) -> Result<([Value; N], Exceptions), Outcome> {
    if operands.iter().any(|o| o.class == Class::Unsupported) {
        return Err(Outcome::invalid());
    }
    if operands.iter().any(Value::is_nan) {
        return Err(nan(&operands, env));
    }
    let numbers = operands.map(|o| without_denormal(o, env));
    let raised = Exceptions::DENORMAL.when(numbers.iter().any(Value::is_denormal));
    Ok((numbers, raised))
}

/// The operand as DAZ has it.
pub(super) fn without_denormal(operand: Value, env: &Environment) -> Value {
    if operand.is_denormal() && env.denormals == Denormals::Zero {
        return Value::zero(operand.negative);
    }
    operand
}

/// What an operation with NaNs among its operands gives (SDM vol. 1, table 4-7).
fn nan(operands: &[Value], env: &Environment) -> Outcome {
    let signalling = operands.iter().any(|o| o.class == Class::SignallingNan);
    let nans = operands.iter().filter(|o| o.is_nan());
    let chosen = match env.nans {
        NanRule::First => nans.copied().next(),
        NanRule::LargerSignificand => nans
            .copied()
            // The first of equals loses to a positive one.
            .max_by_key(|o| (o.class == Class::QuietNan, o.significand, !o.negative)),
    };
    let value = chosen.map_or(Value::INDEFINITE, Value::quieted);
    Outcome::exact(value, Exceptions::INVALID.when(signalling))
}

/// `a + b`.
pub(crate) fn add(a: Value, b: Value, format: Format, env: &Environment) -> Outcome {
    let ([a, b], raised) = match operands([a, b], env) {
        Ok(numbers) => numbers,
        Err(outcome) => return outcome,
    };
    match (a.is_infinite(), b.is_infinite()) {
        (true, true) if a.negative != b.negative => return Outcome::invalid(),
        (true, _) => return Outcome::exact(a, raised),
        (_, true) => return Outcome::exact(b, raised),
        _ => {}
    }
    let sum = Wide::from_value(a).add(Wide::from_value(b));
    if sum.is_zero() {
        // Of zeros of one sign, or of opposite numbers.
        let negative = if a.is_zero() && b.is_zero() && a.negative == b.negative {
            a.negative
        } else {
            env.rounding == Rounding::Down
        };
        return Outcome::exact(Value::zero(negative), raised);
    }
    round(sum, format, env, raised)
}

/// `a - b`.
pub(crate) fn sub(a: Value, b: Value, format: Format, env: &Environment) -> Outcome {
    // A NaN keeps its sign.
    add(a, if b.is_nan() { b } else { b.negated() }, format, env)
}

/// `a * b`.
pub(crate) fn mul(a: Value, b: Value, format: Format, env: &Environment) -> Outcome {
    let ([a, b], raised) = match operands([a, b], env) {
        Ok(numbers) => numbers,
        Err(outcome) => return outcome,
    };
    let negative = a.negative != b.negative;
    if a.is_infinite() || b.is_infinite() {
        if a.is_zero() || b.is_zero() {
            return Outcome::invalid();
        }
        return Outcome::exact(Value::infinity(negative), raised);
    }
    if a.is_zero() || b.is_zero() {
        return Outcome::exact(Value::zero(negative), raised);
    }
    let product = u128::from(a.significand) * u128::from(b.significand);
    round(Wide::new(negative, a.exponent + b.exponent + 1, product), format, env, raised)
}

/// `a * b + c`, rounded once.
///
/// The product of two significands of 53 bits and a third that is added leave room in 128 bits: where bits fall off in the
/// addition, the result has its first 53 far above them.
pub(crate) fn fused_multiply_add(a: Value, b: Value, c: Value, format: Format, env: &Environment) -> Outcome {
    let ([a, b, c], raised) = match operands([a, b, c], env) {
        Ok(numbers) => numbers,
        Err(outcome) => return outcome,
    };
    let negative = a.negative != b.negative;
    if a.is_infinite() || b.is_infinite() {
        if a.is_zero() || b.is_zero() || c.is_infinite() && c.negative != negative {
            return Outcome::invalid();
        }
        return Outcome::exact(Value::infinity(negative), raised);
    }
    if c.is_infinite() {
        return Outcome::exact(c, raised);
    }
    let product = if a.is_zero() || b.is_zero() {
        Wide { negative, ..Wide::ZERO }
    } else {
        let significand = u128::from(a.significand) * u128::from(b.significand);
        Wide::new(negative, a.exponent + b.exponent + 1, significand)
    };
    let sum = product.add(Wide::from_value(c));
    if sum.is_zero() {
        let negative = if product.is_zero() && c.is_zero() && negative == c.negative {
            negative
        } else {
            env.rounding == Rounding::Down
        };
        return Outcome::exact(Value::zero(negative), raised);
    }
    round(sum, format, env, raised)
}

/// `a / b`.
pub(crate) fn div(a: Value, b: Value, format: Format, env: &Environment) -> Outcome {
    let ([a, b], raised) = match operands([a, b], env) {
        Ok(numbers) => numbers,
        Err(outcome) => return outcome,
    };
    let negative = a.negative != b.negative;
    match (a.class, b.class) {
        (Class::Infinity, Class::Infinity) | (Class::Zero, Class::Zero) => return Outcome::invalid(),
        (Class::Infinity, _) => return Outcome::exact(Value::infinity(negative), raised),
        (_, Class::Infinity) => return Outcome::exact(Value::zero(negative), raised),
        (_, Class::Zero) => return Outcome::exact(Value::infinity(negative), Exceptions::ZERO_DIVIDE),
        (Class::Zero, _) => return Outcome::exact(Value::zero(negative), raised),
        _ => {}
    }
    let divisor = u128::from(b.significand);
    let dividend = u128::from(a.significand) << 63;
    let (high, rest) = (dividend / divisor, dividend % divisor);
    let (low, rest) = ((rest << 64) / divisor, (rest << 64) % divisor);
    let quotient = high << 64 | low | u128::from(rest != 0);
    round(Wide::new(negative, a.exponent - b.exponent, quotient), format, env, raised)
}

/// The square root.
pub(crate) fn sqrt(a: Value, format: Format, env: &Environment) -> Outcome {
    let ([a], raised) = match operands([a], env) {
        Ok(numbers) => numbers,
        Err(outcome) => return outcome,
    };
    if a.is_zero() {
        return Outcome::exact(a, raised);
    }
    if a.negative {
        return Outcome::invalid();
    }
    if a.is_infinite() {
        return Outcome::exact(a, raised);
    }
    // An even exponent, and as many bits that the root has 64.
    let odd = a.exponent & 1;
    let radicand = u128::from(a.significand) << (63 + odd as u32);
    let root = radicand.isqrt();
    let rest = radicand - root * root;
    // The root continues with a one if the rest exceeds it; it never ends there.
    let next = u128::from(rest > root) << 63;
    let wide = root << 64 | next | u128::from(rest != 0);
    round(Wide::new(false, (a.exponent - odd) / 2, wide), format, env, raised)
}
