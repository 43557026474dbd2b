//! Constants with 128 significant bits, rounded to the nearest.

use super::environment::{Environment, Rounding};
use super::exceptions::Exceptions;
use super::format::Format;
use super::round::round;
use super::value::Value;
use super::wide::Wide;

const fn positive(exponent: i32, significand: u128) -> Wide {
    Wide { negative: false, exponent, significand }
}

pub(super) const PI: Wide = positive(1, 0xC90F_DAA2_2168_C234_C4C6_628B_80DC_1CD1);
pub(super) const LN_2: Wide = positive(-1, 0xB172_17F7_D1CF_79AB_C9E3_B398_03F2_F6AF);
/// 1 / ln 2.
pub(super) const LOG2_E: Wide = positive(0, 0xB8AA_3B29_5C17_F0BB_BE87_FED0_691D_3E89);
const LOG2_10: Wide = positive(1, 0xD49A_784B_CD1B_8AFE_492B_F6FF_4DAF_DB4D);
const LOG10_2: Wide = positive(-2, 0x9A20_9A84_FBCF_F798_8F89_59AC_0B7C_9178);

/// The arctangents of 1/16 to 16/16.
pub(super) const ARCTANGENTS: [Wide; 16] = [
    positive(-5, 0xFFAA_DDB9_67EF_4E36_CB27_92DC_0E2E_0D51),
    positive(-4, 0xFEAD_D4D5_617B_6E32_C897_989F_3E88_8EF8),
    positive(-3, 0xBDCB_DA5E_72D8_1134_7B0B_4F88_1C9C_7488),
    positive(-3, 0xFADB_AFC9_6406_EB15_6DC7_9EF5_F7A2_17E6),
    positive(-2, 0x9B13_B9B8_3F5E_5E69_C5AB_B498_D27A_F328),
    positive(-2, 0xB7B0_CA0F_26F7_8473_8AA3_2122_DCFE_4483),
    positive(-2, 0xD327_761E_611F_E5B6_427C_95E9_001E_7136),
    positive(-2, 0xED63_382B_0DDA_7B45_6FE4_45EC_BC3A_8D03),
    positive(-1, 0x832B_F4A6_D986_7E2A_4B6A_09CB_61A5_15C1),
    positive(-1, 0x8F00_5D5E_F7F5_9F9B_5C83_5E16_65C4_3748),
    positive(-1, 0x9A2F_80E6_71BD_DA20_4226_F8E2_204F_F3BD),
    positive(-1, 0xA4BC_7D19_34F7_0924_19A8_7F2A_457D_AC9F),
    positive(-1, 0xAEAC_4C38_B4D8_C080_1472_5E2F_3E52_070A),
    positive(-1, 0xB805_3E2B_C231_9E73_CB2D_A552_10A4_443D),
    positive(-1, 0xC0CE_85B8_AC52_6640_89DD_62C4_6E92_FA25),
    positive(-1, 0xC90F_DAA2_2168_C234_C4C6_628B_80DC_1CD1),
];

/// The numerator of the first entry of [`LOGARITHMS`].
pub(super) const FIRST_LOGARITHM: u32 = 11;
/// The logarithms to base 2 of 11/16 to 23/16.
pub(super) const LOGARITHMS: [Wide; 13] = [
    positive(-1, 0x8A62_B07F_3457_C407_0507_99BE_AAAB_2941).negated(),
    positive(-2, 0xD47F_CB8C_0852_F0C0_BFE9_DBEB_F2E8_A45E).negated(),
    positive(-2, 0x995F_F71B_8773_432D_124B_C6F1_ACF9_5DC4).negated(),
    positive(-3, 0xC544_C055_FDE9_9333_54DB_F16F_B069_5EE3).negated(),
    positive(-4, 0xBEB0_24B6_7DDA_6339_DA28_8FC6_15A7_27DC).negated(),
    Wide::ZERO,
    positive(-4, 0xB31F_B7D6_4898_B3E6_629C_130A_22BA_D61E),
    positive(-3, 0xAE00_D1CF_DEB4_3CFD_0058_9050_345D_6E89),
    positive(-3, 0xFDE0_B5C8_1340_511D_46CC_C53C_2779_AF92),
    positive(-2, 0xA4D3_C25E_68DC_57F2_495F_B7FA_6D7E_DA67),
    positive(-2, 0xC8DD_D448_F8B8_45A5_95A8_2B5C_34E2_AC31),
    positive(-2, 0xEB3A_9F01_9750_77F1_F5F0_CC82_AAA9_AD7E),
    positive(-1, 0x8608_2806_B1D5_32C4_12BA_94DB_12EF_0AA8),
];

/// What FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2 and FLDZ load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Constant {
    One,
    Log2Of10,
    Log2OfE,
    Pi,
    Log10Of2,
    LnOf2,
    Zero,
}

impl Constant {
    /// The constant rounded to 64 bits as the rounding control says; loading it raises nothing.
    pub(crate) fn load(self, rounding: Rounding) -> Value {
        let wide = match self {
            Self::One => Wide::ONE,
            Self::Log2Of10 => LOG2_10,
            Self::Log2OfE => LOG2_E,
            Self::Pi => PI,
            Self::Log10Of2 => LOG10_2,
            Self::LnOf2 => LN_2,
            Self::Zero => Wide::ZERO,
        };
        let env = Environment { rounding, ..Environment::from_control_word(0x37F) };
        round(wide, Format::EXTENDED, &env, Exceptions::NONE).value
    }
}
