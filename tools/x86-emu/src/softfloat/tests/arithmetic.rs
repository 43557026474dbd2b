//! Rounding operations against exact numbers.

use num_bigint::{BigInt, Sign};

use super::operands::{CASES, Source, formats};
use super::reference::{Exact, one, same};
use crate::softfloat::remainder::Remainder;
use crate::softfloat::{
    Environment, Exceptions, Format, Outcome, Quotient, Reduction, Value, add, div, mul, remainder, scale,
    sqrt, sub,
};

/// What an operation has to give, besides #D for its operands.
fn assert_expected(
    what: &str,
    operands: &[Value],
    env: &Environment,
    format: Format,
    exact: &Exact,
    got: &Outcome,
) {
    if exact.is_zero() {
        assert!(got.value.is_zero() && !got.rounded_up, "{what} of {operands:?} with {env:?}: {got:?}");
        return;
    }
    let (value, raised, up) = exact.expected(format, env);
    let raised = raised | Exceptions::DENORMAL.when(operands.iter().any(Value::is_denormal));
    assert!(
        same(&value, &got.value) && (raised, up) == (got.raised, got.rounded_up),
        "{what} of {operands:?} with {env:?}\n expected {value:?} {raised:?} up: {up}\n      got {got:?}"
    );
}

type Binary = fn(Value, Value, Format, &Environment) -> Outcome;

fn binary(name: &str, operation: Binary, exact: impl Fn(&Exact, &Exact) -> Exact) {
    for (kind, format, base) in formats() {
        let mut source = Source::new(format.precision.into());
        for _ in 0..CASES {
            let (a, b) = (source.number(format), source.number(format));
            let env = source.environment(base);
            let wanted = exact(&Exact::of(&a), &Exact::of(&b));
            let got = operation(a, b, format, &env);
            assert_expected(&format!("{name} {kind}"), &[a, b], &env, format, &wanted, &got);
        }
    }
}

#[test]
fn sums_are_exact_sums_rounded_once() {
    binary("add", add, Exact::add);
}

#[test]
fn differences_are_exact_differences_rounded_once() {
    binary("sub", sub, |a, b| a.add(&b.mul(&Exact::integer(-1))));
}

#[test]
fn products_are_exact_products_rounded_once() {
    binary("mul", mul, Exact::mul);
}

#[test]
fn quotients_are_exact_quotients_rounded_once() {
    binary("div", div, Exact::div);
}

#[test]
fn roots_are_exact_roots_rounded_once() {
    for (kind, format, base) in formats() {
        let mut source = Source::new(format.precision.into());
        for _ in 0..CASES / 4 {
            let a = source.number(format).magnitude();
            let env = source.environment(base);
            let got = sqrt(a, format, &env);
            assert_expected(&format!("sqrt {kind}"), &[a], &env, format, &Exact::of(&a).sqrt(), &got);
        }
    }
}

#[test]
fn scaling_multiplies_by_a_power_of_two() {
    let mut source = Source::new(1);
    for _ in 0..CASES {
        let a = source.number(Format::EXTENDED);
        let power = source.below(70_000) as i64 - 35_000;
        let env = source.environment(Environment::from_control_word(0x37F));
        let env = Environment { tiny: crate::softfloat::environment::Tiny::Denormal, ..env };
        let exact = Exact { exponent: Exact::of(&a).exponent + power, ..Exact::of(&a) };
        let by = crate::softfloat::from_integer(power, Format::EXTENDED, &env).value;
        let got = scale(a, by, &env);
        if !got.value.is_finite_nonzero() {
            // Beyond what a wrapped exponent can hold: inexact, whatever it is.
            assert!(got.raised.intersects(Exceptions::PRECISION), "{a:?} {power} {env:?}: {got:?}");
            continue;
        }
        assert_expected("scale", &[a], &env, Format::EXTENDED, &exact, &got);
    }
}

/// The reduction as SDM vol. 2 words it: complete below an exponent difference of 64, by 32 to 63 bits otherwise.
fn remainder_of(how: Quotient, seed: u64) {
    let mut source = Source::new(seed);
    for _ in 0..CASES {
        let (a, b) = (source.number(Format::EXTENDED), source.number(Format::EXTENDED));
        let env = source.environment(Environment::from_control_word(0x37F));
        let env = Environment { tiny: crate::softfloat::environment::Tiny::Denormal, ..env };
        let (dividend, divisor) = (Exact::of(&a), Exact::of(&b));
        let Remainder { outcome, quotient } = remainder(a, b, how, &env);
        let distance = i64::from(a.exponent - b.exponent);
        if distance >= 64 {
            let bits = distance & 31 | 32;
            let unit = Exact { exponent: divisor.exponent + distance - bits, ..divisor };
            assert_eq!(quotient, Reduction::Partial, "{a:?} by {b:?}");
            assert_expected(
                "partial",
                &[a, b],
                &env,
                Format::EXTENDED,
                &dividend.divide_with_rest(&unit).1,
                &outcome,
            );
            continue;
        }
        let (mut whole, mut rest) = dividend.divide_with_rest(&divisor);
        if how == Quotient::Nearest {
            // Of the neighbours, the one with the smaller rest; of equals the even one.
            let step = if a.negative == b.negative { 1 } else { -1 };
            let sign = BigInt::from(step);
            let other = rest.add(&divisor.mul(&Exact::integer(-step)));
            let smaller = |x: &Exact, y: &Exact| {
                let difference = x.mul(x).add(&y.mul(y).mul(&Exact::integer(-1)));
                difference.numerator.sign()
            };
            let closer = smaller(&other, &rest);
            if closer == Sign::Minus || closer == Sign::NoSign && whole.bit(0) {
                (whole, rest) = (whole + sign, other);
            }
        }
        let low = (whole.magnitude() % 8u32).to_u32_digits().first().copied().unwrap_or(0);
        assert_eq!(quotient, Reduction::Complete(low as u8), "{a:?} by {b:?}");
        assert_eq!(rest.denominator, one());
        assert_expected("remainder", &[a, b], &env, Format::EXTENDED, &rest, &outcome);
        assert!(!rest.is_zero() || outcome.value.negative == a.negative, "a zero has the dividend's sign");
    }
}

#[test]
fn fprem_leaves_an_exact_remainder_of_the_truncated_quotient() {
    remainder_of(Quotient::Truncated, 7);
}

#[test]
fn fprem1_leaves_an_exact_remainder_of_the_nearest_quotient() {
    remainder_of(Quotient::Nearest, 8);
}
