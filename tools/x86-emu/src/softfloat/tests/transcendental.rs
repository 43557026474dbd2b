//! Transcendental functions against fixed-point series in big integers.

use num_bigint::{BigInt, Sign};

use super::operands::Source;
use crate::softfloat::{
    Class, Environment, Exceptions, Extended, Format, Outcome, Rounding, Value, arctangent, cosine,
    exp2_minus_one, from_integer, log2, log2_plus_one, sine, tangent,
};

/// Fraction bits of the reference.
const BITS: u32 = 600;
const CASES: u32 = 1500;

fn env() -> Environment {
    Environment::from_control_word(0x37F)
}

fn fixed(value: &Value) -> BigInt {
    let sign = if value.negative { Sign::Minus } else { Sign::Plus };
    let magnitude = if value.is_zero() { 0 } else { value.significand };
    let shift = value.exponent - 63 + BITS as i32;
    let integer = BigInt::from_biguint(sign, magnitude.into());
    if shift >= 0 { integer << shift as u32 } else { integer >> (-shift) as u32 }
}

fn one() -> BigInt {
    BigInt::from(1) << BITS
}

fn mul(a: &BigInt, b: &BigInt) -> BigInt {
    (a * b) >> BITS
}

fn div(a: &BigInt, b: &BigInt) -> BigInt {
    (a << BITS) / b
}

/// Sums `next(term, n)` until it vanishes.
fn sum(first: BigInt, mut next: impl FnMut(&BigInt, u32) -> BigInt) -> BigInt {
    let (mut total, mut term) = (first.clone(), first);
    for n in 1.. {
        term = next(&term, n);
        if term == BigInt::ZERO || term == BigInt::from(-1) {
            break;
        }
        total += &term;
    }
    total
}

fn sin(r: &BigInt) -> BigInt {
    let square = -mul(r, r);
    sum(r.clone(), |term, n| mul(term, &square) / (2 * n * (2 * n + 1)))
}

fn cos(r: &BigInt) -> BigInt {
    let square = -mul(r, r);
    sum(one(), |term, n| mul(term, &square) / (2 * n * (2 * n - 1)))
}

fn exp(t: &BigInt) -> BigInt {
    sum(one(), |term, n| mul(term, t) / n)
}

/// `2 artanh(f)`.
fn log_of_ratio(f: &BigInt) -> BigInt {
    let square = mul(f, f);
    let mut power = f.clone();
    sum(f.clone(), |_, n| {
        power = mul(&power, &square);
        &power / (2 * n + 1)
    }) * 2
}

fn ln_2() -> BigInt {
    log_of_ratio(&(one() / 3))
}

/// Natural logarithm of a positive number: halve or double into the neighbourhood of 1.
fn ln(x: &BigInt) -> BigInt {
    let exponent = x.bits() as i64 - 1 - i64::from(BITS);
    let m = if exponent >= 0 { x >> exponent as u32 } else { x << (-exponent) as u32 };
    let f = div(&(&m - one()), &(&m + one()));
    log_of_ratio(&f) + ln_2() * exponent
}

/// By halving the angle until the series is fast.
fn atan(t: &BigInt) -> BigInt {
    let mut t = t.clone();
    for _ in 0..8 {
        let root = ((one() << BITS) + &t * &t).sqrt();
        t = div(&t, &(one() + root));
    }
    let square = -mul(&t, &t);
    let mut power = t.clone();
    sum(t, |_, n| {
        power = mul(&power, &square);
        &power / (2 * n + 1)
    }) << 8
}

/// Asserts that the result is the reference, rounded to nearest, to a 2^20th of a unit of the last place.
fn assert_close(what: &str, operands: &[Value], got: &Outcome, exact: &BigInt) {
    let value = fixed(&got.value);
    let unit = got.value.exponent - 63 + BITS as i32;
    assert!(unit > 40, "{what}: the reference has too few bits");
    let half = BigInt::from((1 << 19) + 1) << (unit - 20) as u32;
    let error = (&value - exact).magnitude().clone();
    assert!(
        error <= *half.magnitude(),
        "{what} of {operands:?}: {:?} is off by {error} of {half}",
        got.value.to_extended()
    );
    assert!(got.raised.intersects(Exceptions::PRECISION), "{what} of {operands:?}: {got:?}");
}

fn number(source: &mut Source, exponents: std::ops::Range<i32>) -> Value {
    let span = (exponents.end - exponents.start) as u64;
    let exponent = exponents.start + source.below(span) as i32;
    let significand = source.number(Format::EXTENDED).significand;
    Value::normal(source.below(2) == 0, exponent, significand)
}

/// The neighbour with the next larger magnitude.
fn next(value: Value) -> Value {
    match value.significand.checked_add(1) {
        Some(significand) => Value { significand, ..value },
        None => Value::normal(value.negative, value.exponent + 1, 1 << 63),
    }
}

/// The operand less the nearest multiple of Intel's pi/2, and the multiple modulo 4.
fn reduced(x: &Value) -> (BigInt, u32) {
    let half_pi = BigInt::from(0x3_243F_6A88_85A3_08D3_u128) << (BITS - 65);
    let x = fixed(&x.magnitude());
    let twice: BigInt = (&x << 1u32) / &half_pi + 1;
    let quotient: BigInt = twice >> 1u32;
    let quadrant = (&quotient % 4u32).to_u32_digits().1.first().copied().unwrap_or(0);
    (x - quotient * half_pi, quadrant)
}

#[test]
fn sines_and_cosines_are_those_of_the_operand_reduced_by_66_bit_pi() {
    let mut source = Source::new(1);
    for _ in 0..CASES {
        let x = number(&mut source, -60..63);
        let (r, quadrant) = reduced(&x);
        let (s, c) = (sin(&r), cos(&r));
        let (mut sine_wanted, cosine_wanted) = match quadrant {
            0 => (s, c),
            1 => (c, -s),
            2 => (-s, -c),
            _ => (-c, s),
        };
        let tangent_wanted = div(&sine_wanted, &cosine_wanted);
        let tangent_wanted = if x.negative { -tangent_wanted } else { tangent_wanted };
        if x.negative {
            sine_wanted = -sine_wanted;
        }
        assert_close("sin", &[x], &sine(x, &env()).expect("in range"), &sine_wanted);
        assert_close("cos", &[x], &cosine(x, &env()).expect("in range"), &cosine_wanted);
        assert_close("tan", &[x], &tangent(x, &env()).expect("in range"), &tangent_wanted);
    }
}

#[test]
fn the_sine_of_pi_shows_the_66_bits() {
    // FSIN of the double nearest to pi gives 1.2246063538223773e-16 on Intel's processors; the sine is ...799e-16.
    let pi = Value::from_double(std::f64::consts::PI.to_bits());
    let got = sine(pi, &env()).expect("in range");
    let double = crate::softfloat::convert(got.value, Format::DOUBLE, &env()).value.to_double();
    assert_eq!(f64::from_bits(double), 1.224_606_353_822_377_3e-16);
}

#[test]
fn arctangents_have_the_angle_of_every_quadrant() {
    let mut source = Source::new(2);
    let pi: BigInt = atan(&one()) << 2;
    for _ in 0..CASES {
        let (y, x) = (number(&mut source, -30..30), number(&mut source, -30..30));
        let ratio = div(&fixed(&y.magnitude()), &fixed(&x.magnitude()));
        let acute = atan(&ratio);
        let angle = if x.negative { &pi - acute } else { acute };
        let angle = if y.negative { -angle } else { angle };
        assert_close("atan", &[y, x], &arctangent(y, x, &env()), &angle);
    }
}

#[test]
fn powers_of_two_less_one_keep_their_precision_near_zero() {
    let mut source = Source::new(3);
    let ln_2 = ln_2();
    for _ in 0..CASES {
        let x = number(&mut source, -100..0);
        let wanted = exp(&mul(&fixed(&x), &ln_2)) - one();
        assert_close("2^x - 1", &[x], &exp2_minus_one(x, &env()), &wanted);
    }
}

#[test]
fn logarithms_keep_their_precision_near_one() {
    let mut source = Source::new(4);
    let ln_2 = ln_2();
    for _ in 0..CASES {
        let y = number(&mut source, -20..20);
        let mut x = number(&mut source, -100..100).magnitude();
        if source.below(2) == 0 {
            // Near 1.
            let bits = source.bits() >> source.below(64) >> 1;
            x = if source.below(2) == 0 {
                Value::normal(false, 0, 1 << 63 | bits)
            } else {
                Value::normal(false, -1, u64::MAX - bits)
            };
        }
        if x == Value::ONE {
            continue;
        }
        if x.significand << 1 != 0 {
            let wanted = mul(&fixed(&y), &div(&ln(&fixed(&x)), &ln_2));
            assert_close("y log2 x", &[y, x], &log2(y, x, &env()), &wanted);
        }
        let x = number(&mut source, -100..-2);
        let wanted = mul(&fixed(&y), &div(&ln(&(fixed(&x) + one())), &ln_2));
        assert_close("y log2 (x + 1)", &[y, x], &log2_plus_one(y, x, &env()), &wanted);
    }
}

#[test]
fn logarithms_of_powers_of_two_are_exact() {
    for exponent in [-16382, -64, -1, 1, 2, 100, 16383] {
        let x = Value::normal(false, exponent, 1 << 63);
        let got = log2(Value::ONE, x, &env());
        let wanted = from_integer(i64::from(exponent), Format::EXTENDED, &env());
        assert_eq!((got.value, got.raised), (wanted.value, Exceptions::NONE), "{exponent}");
    }
}

#[test]
fn neighbours_keep_their_order() {
    let mut source = Source::new(5);
    let rising = |name: &str, f: &dyn Fn(Value) -> Value, x: Value| {
        let (a, b) = if x.negative { (next(x), x) } else { (x, next(x)) };
        let (a, b) = (fixed(&f(a)), fixed(&f(b)));
        assert!(a <= b, "{name} falls at {x:?}");
    };
    for _ in 0..4 * CASES {
        let small = number(&mut source, -70..0);
        rising("sin", &|x| sine(x, &env()).expect("in range").value, small);
        rising("tan", &|x| tangent(x, &env()).expect("in range").value, small);
        rising("2^x - 1", &|x| exp2_minus_one(x, &env()).value, small);
        rising("log2(x + 1)", &|x| log2_plus_one(Value::ONE, x, &env()).value, number(&mut source, -70..-2));
        let any = number(&mut source, -40..40);
        rising("atan", &|x| arctangent(x, Value::ONE, &env()).value, any);
        rising("log2", &|x| log2(Value::ONE, x, &env()).value, any.magnitude());
    }
}

#[test]
fn directed_rounding_encloses_the_result() {
    let mut source = Source::new(6);
    for _ in 0..CASES {
        let x = number(&mut source, -60..60);
        let with = |rounding| {
            let env = Environment { rounding, ..env() };
            fixed(&sine(x, &env).expect("in range").value)
        };
        assert!(with(Rounding::Down) < with(Rounding::Up), "{x:?}");
    }
}

#[test]
fn special_operands_have_the_results_of_the_manual() {
    let zero = Value::zero(false);
    let infinity = Value::infinity(false);
    let minus = Value::negated;
    let one = Value::ONE;
    let two = Value::normal(false, 1, 1 << 63);
    let half = Value::normal(false, -1, 1 << 63);
    let ok = |value: Value| (value, Exceptions::NONE);
    let invalid = (Value::INDEFINITE, Exceptions::INVALID);
    let divided = |value: Value| (value, Exceptions::ZERO_DIVIDE);
    let of = |o: Outcome| (o.value, o.raised);
    let rows = [
        (of(exp2_minus_one(zero, &env())), ok(zero)),
        (of(exp2_minus_one(minus(zero), &env())), ok(minus(zero))),
        (of(exp2_minus_one(one, &env())), ok(one)),
        (of(exp2_minus_one(minus(one), &env())), ok(minus(half))),
        (of(log2(one, zero, &env())), divided(minus(infinity))),
        (of(log2(minus(one), zero, &env())), divided(infinity)),
        (of(log2(zero, zero, &env())), invalid),
        (of(log2(infinity, zero, &env())), ok(minus(infinity))),
        (of(log2(one, minus(one), &env())), invalid),
        (of(log2(infinity, one, &env())), invalid),
        (of(log2(minus(one), one, &env())), ok(minus(zero))),
        (of(log2(zero, infinity, &env())), invalid),
        (of(log2(minus(one), infinity, &env())), ok(minus(infinity))),
        (of(log2(infinity, half, &env())), ok(minus(infinity))),
        (of(log2(zero, half, &env())), ok(minus(zero))),
        (of(log2_plus_one(infinity, zero, &env())), invalid),
        (of(log2_plus_one(minus(one), zero, &env())), ok(minus(zero))),
        (of(log2_plus_one(one, minus(infinity), &env())), invalid),
        (of(arctangent(zero, one, &env())), ok(zero)),
        (of(arctangent(minus(zero), zero, &env())), ok(minus(zero))),
        (of(arctangent(one, infinity, &env())), ok(zero)),
        (of(log2(two, two, &env())), ok(two)),
    ];
    for (n, (got, wanted)) in rows.iter().enumerate() {
        assert_eq!(got, wanted, "row {n}");
    }
    for function in [sine, cosine, tangent] {
        assert_eq!(function(infinity, &env()).map(of), Some(invalid));
        assert_eq!(function(Value::normal(true, 63, 1 << 63), &env()), None, "out of range");
    }
    assert_eq!(sine(minus(zero), &env()).map(of), Some(ok(minus(zero))));
    assert_eq!(tangent(zero, &env()).map(of), Some(ok(zero)));
    assert_eq!(cosine(minus(zero), &env()).map(of), Some(ok(one)));
}

#[test]
fn arctangents_of_special_operands_are_parts_of_pi() {
    let zero = Value::zero(false);
    let infinity = Value::infinity(false);
    let one = Value::ONE;
    let rows = [
        (zero, zero.negated(), 0x4000, 0xC90F_DAA2_2168_C235),
        (zero, one.negated(), 0x4000, 0xC90F_DAA2_2168_C235),
        (one, infinity.negated(), 0x4000, 0xC90F_DAA2_2168_C235),
        (one, zero, 0x3FFF, 0xC90F_DAA2_2168_C235),
        (infinity, one, 0x3FFF, 0xC90F_DAA2_2168_C235),
        (infinity, infinity, 0x3FFE, 0xC90F_DAA2_2168_C235),
        (infinity, infinity.negated(), 0x4000, 0x96CB_E3F9_990E_91A8),
    ];
    for (y, x, sign_exponent, significand) in rows {
        let got = arctangent(y, x, &env());
        assert_eq!(got.value.to_extended(), Extended { sign_exponent, significand }, "{y:?} {x:?}");
        assert_eq!(got.raised, Exceptions::PRECISION);
        let got = arctangent(y.negated(), x, &env());
        assert!(got.value.negative && got.value.class == Class::Normal);
    }
}
