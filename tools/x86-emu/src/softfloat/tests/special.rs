//! NaNs, infinities, zeros and encodings that are not supported, from the tables of the SDM.

use crate::softfloat::{
    Class, Constant, Environment, Exceptions, Extended, Format, NanCompare, Relation, Rounding, Value, add,
    compare, div, maximum, minimum, mul, reciprocal, reciprocal_square_root, sqrt, sub,
};

const QUIET: u32 = 0x7FC0_0001;
const QUIET_LARGER: u32 = 0xFFC0_0002;
const SIGNALLING: u32 = 0x7F80_0001;
const DENORMAL: u32 = 1;
const ONE: u32 = 0x3F80_0000;
const INFINITY: u32 = 0x7F80_0000;
const MINUS_ZERO: u32 = 0x8000_0000;
const DEFAULT_NAN: u32 = 0xFFC0_0000;

fn sse() -> Environment {
    Environment::from_mxcsr(0x1F80)
}

fn x87() -> Environment {
    Environment::from_control_word(0x37F)
}

fn single(bits: u32) -> Value {
    Value::from_single(bits)
}

#[test]
fn sse_gives_the_first_nan_and_x87_the_larger_quiet_one() {
    let cases = [
        (QUIET, QUIET_LARGER, QUIET, QUIET_LARGER, Exceptions::NONE),
        (QUIET_LARGER, QUIET, QUIET_LARGER, QUIET_LARGER, Exceptions::NONE),
        (SIGNALLING, QUIET, SIGNALLING | 0x40_0000, QUIET, Exceptions::INVALID),
        (QUIET, SIGNALLING, QUIET, QUIET, Exceptions::INVALID),
        (ONE, SIGNALLING, SIGNALLING | 0x40_0000, SIGNALLING | 0x40_0000, Exceptions::INVALID),
        (DENORMAL, QUIET, QUIET, QUIET, Exceptions::NONE),
    ];
    for (a, b, first, larger, raised) in cases {
        for operation in [add, sub, mul, div] {
            let got = operation(single(a), single(b), Format::SINGLE, &sse());
            assert_eq!((got.value.to_single(), got.raised), (first, raised), "SSE: {a:#x}, {b:#x}");
            let got = operation(single(a), single(b), Format::EXTENDED, &x87());
            assert_eq!((got.value.to_single(), got.raised), (larger, raised), "x87: {a:#x}, {b:#x}");
        }
    }
}

#[test]
fn of_equal_significands_x87_gives_the_positive_nan() {
    let (plus, minus) = (single(QUIET), single(QUIET | MINUS_ZERO));
    for (a, b) in [(plus, minus), (minus, plus)] {
        assert!(!add(a, b, Format::EXTENDED, &x87()).value.negative);
    }
}

#[test]
fn operations_without_a_meaning_are_invalid() {
    let infinity = single(INFINITY);
    let zero = single(0);
    let one = single(ONE);
    let cases = [
        add(infinity, infinity.negated(), Format::SINGLE, &sse()),
        sub(infinity, infinity, Format::SINGLE, &sse()),
        mul(infinity, zero, Format::SINGLE, &sse()),
        div(infinity, infinity, Format::SINGLE, &sse()),
        div(zero, zero.negated(), Format::SINGLE, &sse()),
        sqrt(one.negated(), Format::SINGLE, &sse()),
        sqrt(single(DENORMAL).negated(), Format::SINGLE, &sse()),
        sqrt(infinity.negated(), Format::SINGLE, &sse()),
    ];
    for (n, got) in cases.iter().enumerate() {
        assert_eq!((got.value.to_single(), got.raised), (DEFAULT_NAN, Exceptions::INVALID), "case {n}");
    }
}

#[test]
fn encodings_that_are_not_supported_are_invalid_and_give_the_default_nan() {
    let unnormal = Extended { sign_exponent: 0x3FFF, significand: 1 << 62 };
    let pseudo_infinity = Extended { sign_exponent: 0x7FFF, significand: 0 };
    let pseudo_nan = Extended { sign_exponent: 0x7FFF, significand: 1 << 62 };
    for bits in [unnormal, pseudo_infinity, pseudo_nan] {
        let operand = Value::from_extended(bits);
        assert_eq!(operand.class, Class::Unsupported);
        for got in [
            add(operand, Value::ONE, Format::EXTENDED, &x87()),
            mul(single(SIGNALLING), operand, Format::EXTENDED, &x87()),
            sqrt(operand, Format::EXTENDED, &x87()),
        ] {
            assert_eq!((got.value, got.raised), (Value::INDEFINITE, Exceptions::INVALID), "{bits:?}");
        }
        let (relation, raised) = compare(operand, Value::ONE, NanCompare::Quiet, &x87());
        assert_eq!((relation, raised), (Relation::Unordered, Exceptions::INVALID));
    }
}

#[test]
fn a_pseudo_denormal_counts_as_denormal_and_has_its_value() {
    let operand = Value::from_extended(Extended { sign_exponent: 0, significand: 1 << 63 });
    let got = mul(operand, Value::ONE, Format::EXTENDED, &x87());
    assert_eq!(got.raised, Exceptions::DENORMAL);
    assert_eq!(got.value.to_extended(), Extended { sign_exponent: 1, significand: 1 << 63 });
}

#[test]
fn division_by_zero_reports_nothing_else() {
    let got = div(single(DENORMAL), single(MINUS_ZERO), Format::SINGLE, &sse());
    assert_eq!((got.value.to_single(), got.raised), (INFINITY | MINUS_ZERO, Exceptions::ZERO_DIVIDE));
}

#[test]
fn an_exact_zero_has_the_sign_that_rounding_gives_it() {
    let one = single(ONE);
    for (rounding, negative) in [(Rounding::Nearest, false), (Rounding::Down, true), (Rounding::Up, false)] {
        let env = Environment { rounding, ..sse() };
        assert_eq!(sub(one, one, Format::SINGLE, &env).value, Value::zero(negative), "{rounding:?}");
        let zeros = add(single(MINUS_ZERO), single(MINUS_ZERO), Format::SINGLE, &env);
        assert_eq!(zeros.value, Value::zero(true), "{rounding:?}");
    }
}

#[test]
fn daz_makes_zeros_of_denormal_operands_and_reports_nothing() {
    let env = Environment::from_mxcsr(0x1FC0);
    let got = add(single(DENORMAL | MINUS_ZERO), single(MINUS_ZERO), Format::SINGLE, &env);
    assert_eq!((got.value, got.raised), (Value::zero(true), Exceptions::NONE));
    let (relation, raised) = compare(single(DENORMAL), single(0), NanCompare::Signalling, &env);
    assert_eq!((relation, raised), (Relation::Equal, Exceptions::NONE));
    let got = div(single(ONE), single(DENORMAL), Format::SINGLE, &env);
    assert_eq!((got.value.to_single(), got.raised), (INFINITY, Exceptions::ZERO_DIVIDE));
}

#[test]
fn an_unmasked_denormal_operand_hides_what_rounding_would_raise() {
    let env = Environment::from_mxcsr(0x1F80 & !0x100);
    let got = mul(single(DENORMAL), single(0x3F00_0000), Format::SINGLE, &env);
    assert_eq!(got.raised, Exceptions::DENORMAL);
}

#[test]
fn minimum_and_maximum_give_the_second_operand_unless_the_first_is_better() {
    let cases = [
        (0, MINUS_ZERO, MINUS_ZERO, MINUS_ZERO, Exceptions::NONE),
        (MINUS_ZERO, 0, 0, 0, Exceptions::NONE),
        (ONE, QUIET, QUIET, QUIET, Exceptions::INVALID),
        (SIGNALLING, ONE, ONE, ONE, Exceptions::INVALID),
        (ONE, SIGNALLING, SIGNALLING, SIGNALLING, Exceptions::INVALID),
        (ONE, INFINITY, ONE, INFINITY, Exceptions::NONE),
        (DENORMAL, ONE, DENORMAL, ONE, Exceptions::DENORMAL),
    ];
    for (a, b, least, greatest, raised) in cases {
        let got = minimum(single(a), single(b), &sse());
        assert_eq!((got.value.to_single(), got.raised), (least, raised), "min {a:#x} {b:#x}");
        let got = maximum(single(a), single(b), &sse());
        assert_eq!((got.value.to_single(), got.raised), (greatest, raised), "max {a:#x} {b:#x}");
    }
}

#[test]
fn constants_are_rounded_as_the_control_word_says() {
    let rows = [
        (Constant::Log2Of10, 0x4000, 0xD49A_784B_CD1B_8AFE_u64, 0xD49A_784B_CD1B_8AFF),
        (Constant::Log2OfE, 0x3FFF, 0xB8AA_3B29_5C17_F0BB, 0xB8AA_3B29_5C17_F0BC),
        (Constant::Pi, 0x4000, 0xC90F_DAA2_2168_C234, 0xC90F_DAA2_2168_C235),
        (Constant::Log10Of2, 0x3FFD, 0x9A20_9A84_FBCF_F798, 0x9A20_9A84_FBCF_F799),
        (Constant::LnOf2, 0x3FFE, 0xB172_17F7_D1CF_79AB, 0xB172_17F7_D1CF_79AC),
    ];
    for (constant, sign_exponent, low, high) in rows {
        let load = |rounding| constant.load(rounding).to_extended();
        assert_eq!(load(Rounding::Down), Extended { sign_exponent, significand: low });
        assert_eq!(load(Rounding::Truncate), Extended { sign_exponent, significand: low });
        assert_eq!(load(Rounding::Up), Extended { sign_exponent, significand: high });
        let nearest = if constant == Constant::Log2Of10 { low } else { high };
        assert_eq!(load(Rounding::Nearest), Extended { sign_exponent, significand: nearest });
    }
    assert_eq!(Constant::One.load(Rounding::Up), Value::ONE);
    assert_eq!(Constant::Zero.load(Rounding::Down), Value::zero(false));
}

#[test]
fn estimates_are_within_one_and_a_half_parts_in_4096() {
    for bits in (0x0080_0000..0x7F80_0000u32).step_by(0x0001_2345) {
        let exact = f64::from(f32::from_bits(bits));
        let r = f64::from(f32::from_bits(reciprocal(single(bits)).to_single()));
        let tiny = 1.0 / exact < f64::from(f32::MIN_POSITIVE) * (1.0 + 1.0 / 2048.0);
        assert!(tiny && r == 0.0 || (r * exact - 1.0).abs() <= 1.5 / 4096.0, "1 / {exact}: {r}");
        let r = f64::from(f32::from_bits(reciprocal_square_root(single(bits)).to_single()));
        assert!((r * exact.sqrt() - 1.0).abs() <= 1.5 / 4096.0, "1 / sqrt {exact}: {r}");
    }
}

#[test]
fn estimates_of_special_operands_are_those_of_the_manual() {
    let rows = [
        (0, INFINITY, INFINITY),
        (MINUS_ZERO, INFINITY | MINUS_ZERO, INFINITY | MINUS_ZERO),
        (DENORMAL | MINUS_ZERO, INFINITY | MINUS_ZERO, INFINITY | MINUS_ZERO),
        (INFINITY, 0, 0),
        (INFINITY | MINUS_ZERO, MINUS_ZERO, DEFAULT_NAN),
        (ONE | MINUS_ZERO, ONE | MINUS_ZERO, DEFAULT_NAN),
        (SIGNALLING, SIGNALLING | 0x40_0000, SIGNALLING | 0x40_0000),
        // Between 1.11111111110100000000000B * 2^125 and 1.00000000000110000000001B * 2^126.
        (0x7E7F_E800, 0x0080_1000, 0x1FC0_0000),
        (0x7E80_0C01, 0, 0x1F7F_F000),
    ];
    for (a, r, root) in rows {
        if !(0x7E00_0000..=0x7F00_0000).contains(&a) {
            assert_eq!(reciprocal_square_root(single(a)).to_single(), root, "rsqrt {a:#x}");
        }
        assert_eq!(reciprocal(single(a)).to_single(), r, "rcp {a:#x}");
    }
}
