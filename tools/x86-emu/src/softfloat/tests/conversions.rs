//! Conversions against exact numbers.

use num_bigint::BigUint;

use super::operands::{CASES, Source, formats};
use super::reference::{Exact, same};
use crate::softfloat::{
    Environment, Exceptions, Extended, Format, Integer, Rounding, Value, convert, from_integer,
    from_packed_decimal, round_to_integral, to_integer, to_packed_decimal,
};

#[test]
fn encodings_survive_being_taken_apart() {
    let mut source = Source::new(2);
    for _ in 0..CASES {
        let (single, double, extended) = (source.single(), source.double(), source.extended());
        assert_eq!(Value::from_single(single).to_single(), single, "{single:#x}");
        assert_eq!(Value::from_double(double).to_double(), double, "{double:#x}");
        let back = Value::from_extended(extended).to_extended();
        let exponent = extended.sign_exponent & 0x7FFF;
        let unsupported = exponent != 0 && extended.significand >> 63 == 0;
        let pseudo_denormal = exponent == 0 && extended.significand >> 63 != 0;
        if pseudo_denormal {
            let normal = Extended { sign_exponent: extended.sign_exponent | 1, ..extended };
            assert_eq!(back, normal, "a pseudo-denormal is the normal number of the same value");
        } else if !unsupported {
            assert_eq!(back, extended);
        }
    }
}

#[test]
fn conversions_between_formats_round_once() {
    for (from, source_format, base) in formats() {
        for (to, format, _) in formats() {
            let mut source = Source::new(3);
            for _ in 0..CASES / 8 {
                let a = source.number(source_format);
                let env = source.environment(base);
                let got = convert(a, format, &env);
                let (value, raised, up) = Exact::of(&a).expected(format, &env);
                let raised = raised | Exceptions::DENORMAL.when(a.is_denormal());
                assert!(
                    same(&value, &got.value) && (raised, up) == (got.raised, got.rounded_up),
                    "{from} {a:?} to {to} with {env:?}\n expected {value:?} {raised:?} {up}\n      got {got:?}"
                );
            }
        }
    }
}

#[test]
fn integers_convert_to_the_nearest_that_rounding_allows() {
    for (to, format, base) in formats() {
        let mut source = Source::new(4);
        for _ in 0..CASES / 4 {
            let a = (source.bits() as i64) >> source.below(64);
            let env = source.environment(base);
            let got = from_integer(a, format, &env);
            if a == 0 {
                assert_eq!(got.value, Value::zero(false));
                continue;
            }
            let (value, raised, up) = Exact::integer(a).expected(format, &env);
            assert!(
                same(&value, &got.value) && (raised, up) == (got.raised, got.rounded_up),
                "{a} to {to} with {env:?}: expected {value:?} {raised:?} {up}, got {got:?}"
            );
        }
    }
}

/// The rounded integer of a value as the reference has it.
fn integer_of(a: &Value, rounding: Rounding) -> (BigUint, bool, bool) {
    Exact::of(a).rounded_to(0, rounding)
}

#[test]
fn conversions_to_integers_round_or_are_invalid() {
    for (from, format, base) in formats() {
        let mut source = Source::new(5);
        for _ in 0..CASES / 4 {
            let a = source.number(format);
            let env = source.environment(base);
            if a.exponent > 200 || a.exponent < -200 {
                continue;
            }
            let (whole, inexact, up) = integer_of(&a, env.rounding);
            for (size, bits) in [(Integer::Bits16, 16u32), (Integer::Bits32, 32), (Integer::Bits64, 64)] {
                let got = to_integer(a, size, env.rounding, &env);
                let limit = BigUint::from(1u32) << (bits - 1);
                let fits = if a.negative { whole <= limit } else { whole < limit };
                if !fits {
                    assert_eq!(
                        (got.value, got.raised),
                        (size.indefinite(), Exceptions::INVALID),
                        "{from} {a:?} to {bits}"
                    );
                    continue;
                }
                let magnitude = whole.to_u64_digits().first().copied().unwrap_or(0);
                let value = if a.negative { magnitude.wrapping_neg() } else { magnitude } as i64;
                let raised = Exceptions::PRECISION.when(inexact);
                assert_eq!(
                    (got.value, got.raised, got.rounded_up),
                    (value, raised, up),
                    "{from} {a:?} {env:?} to {bits}"
                );
            }
        }
    }
}

#[test]
fn integral_values_are_rounded_integers_in_the_same_format() {
    for (from, format, base) in formats() {
        let mut source = Source::new(6);
        for _ in 0..CASES / 4 {
            let a = source.number(format);
            let env = source.environment(base);
            let got = round_to_integral(a, env.rounding, &env);
            if a.exponent >= 63 {
                assert!(same(&got.value, &a), "{a:?} is integral: {got:?}");
                continue;
            }
            let (whole, inexact, up) = integer_of(&a, env.rounding);
            let magnitude = whole.to_u64_digits().first().copied().unwrap_or(0);
            let raised = Exceptions::PRECISION.when(inexact) | Exceptions::DENORMAL.when(a.is_denormal());
            assert_eq!((got.raised, got.rounded_up), (raised, up), "{from} {a:?} {env:?}");
            assert_eq!(got.value.negative, a.negative, "the sign stays, at zero too");
            let back = to_integer(got.value.magnitude(), Integer::Bits64, Rounding::Truncate, &env);
            assert!(back.value as u64 == magnitude, "{from} {a:?} {env:?}: {got:?}");
        }
    }
}

#[test]
fn packed_decimals_have_eighteen_digits() {
    let mut source = Source::new(9);
    let env = Environment::from_control_word(0x37F);
    for _ in 0..CASES / 4 {
        let integer = (source.bits() as i64) >> source.below(64);
        let value = from_integer(integer, Format::EXTENDED, &env).value;
        let (packed, raised, _) = to_packed_decimal(value, &env);
        if integer.unsigned_abs() >= 1_000_000_000_000_000_000 {
            assert_eq!((packed, raised), (0xFFFF_C000_0000_0000_0000, Exceptions::INVALID), "{integer}");
            continue;
        }
        let text = format!("{:018}", integer.unsigned_abs());
        let expected = u128::from_str_radix(&text, 16).expect("decimal digits");
        let sign = if integer < 0 { 0x80 << 72 } else { 0 };
        assert_eq!((packed, raised), (expected | sign, Exceptions::NONE), "{integer}");
        assert_eq!(from_packed_decimal(packed).to_extended(), value.to_extended(), "{integer}");
    }
}
