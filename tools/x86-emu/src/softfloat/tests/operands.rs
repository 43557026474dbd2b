//! Operands with a taste for borders, in the way of Berkeley TestFloat: exponents near the ends, near zero and near
//! those of the other operand; significands with long runs of equal bits.

use tdvisor_test_data::chance::Chance;

use crate::softfloat::environment::Tiny;
use crate::softfloat::{Environment, Exceptions, Extended, Format, Rounding, Value};

/// Cases of each operation and format.
pub(super) const CASES: u64 = 20_000;

pub(super) struct Source(Chance);

impl Source {
    pub(super) fn new(seed: u64) -> Self {
        Self(Chance::new(seed))
    }

    pub(super) fn bits(&mut self) -> u64 {
        self.0.next()
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    fn run_of_bits(&mut self) -> u64 {
        match self.below(6) {
            0 => 0,
            1 => u64::MAX >> self.below(64),
            2 => !(u64::MAX >> self.below(64)),
            3 => 1 << self.below(64),
            4 => self.bits() << self.below(64),
            _ => self.bits(),
        }
    }

    fn exponent(&mut self, bits: u32) -> u64 {
        let ones = (1u64 << bits) - 1;
        let bias = ones >> 1;
        match self.below(8) {
            0 => 0,
            1 => self.below(5).min(ones),
            2 => ones - self.below(4),
            3..=5 => (bias + self.below(160)).wrapping_sub(80) & ones,
            6 => (bias / 2 + self.below(8)) & ones,
            _ => self.bits() & ones,
        }
    }

    pub(super) fn single(&mut self) -> u32 {
        let sign = (self.bits() as u32) << 31;
        sign | (self.exponent(8) as u32) << 23 | (self.run_of_bits() >> 41) as u32
    }

    pub(super) fn double(&mut self) -> u64 {
        let sign = self.bits() << 63;
        sign | self.exponent(11) << 52 | self.run_of_bits() >> 12
    }

    /// Rarely an encoding that is not supported.
    pub(super) fn extended(&mut self) -> Extended {
        let exponent = self.exponent(15) as u16;
        let integer = if exponent != 0 && self.below(64) != 0 { 1 << 63 } else { 0 };
        let rest = self.run_of_bits() >> u64::from(exponent != 0);
        let sign = (self.bits() as u16) << 15;
        Extended { sign_exponent: sign | exponent, significand: integer | rest }
    }

    /// An operand of the format.
    pub(super) fn value(&mut self, format: Format) -> Value {
        if format == Format::SINGLE {
            Value::from_single(self.single())
        } else if format == Format::DOUBLE {
            Value::from_double(self.double())
        } else {
            Value::from_extended(self.extended())
        }
    }

    /// A finite operand that is not zero.
    pub(super) fn number(&mut self, format: Format) -> Value {
        loop {
            let value = self.value(format);
            if value.is_finite_nonzero() {
                return value;
            }
        }
    }

    /// Any rounding, often all exceptions masked; #D always is, as it would leave no result.
    pub(super) fn environment(&mut self, base: Environment) -> Environment {
        let rounding = Rounding::from_bits(self.bits() as u32);
        let masked = if self.below(3) == 0 { self.bits() as u32 } else { 0x3F };
        let tiny = if self.below(4) == 0 { Tiny::Zero } else { Tiny::Denormal };
        Environment { rounding, masked: Exceptions::from_bits(masked) | Exceptions::DENORMAL, tiny, ..base }
    }
}

/// The formats with their registers' environments, and a name for failures.
pub(super) fn formats() -> [(&'static str, Format, Environment); 5] {
    let sse = Environment::from_mxcsr(0x1F80);
    let x87 = Environment::from_control_word(0x37F);
    [
        ("single", Format::SINGLE, sse),
        ("double", Format::DOUBLE, sse),
        ("extended to 24 bits", Format::from_control_word(0x07F), x87),
        ("extended to 53 bits", Format::from_control_word(0x27F), x87),
        ("extended to 64 bits", Format::from_control_word(0x37F), x87),
    ]
}
