//! x87, MMX, SSE and AVX state.

/// MXCSR after reset: all exceptions masked, round to nearest.
pub const MXCSR_RESET: u32 = 0x1F80;
/// The x87 control word after FNINIT: all exceptions masked, extended precision, round to nearest.
pub const FCW_RESET: u16 = 0x37F;

/// An 80-bit register lies in the low bits of 128.
const REGISTER_BITS: u128 = (1 << 80) - 1;

/// x87 state; the MMX registers are the significands of its registers. Processors with TDX save no selectors of the
/// last instruction and its operand (CPUID.7.0:EBX\[13\]), so there are none here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct X87State {
    /// Control word.
    pub control: u16,
    /// Status word. Bits 13:11 are TOP, the physical number of ST0.
    pub status: u16,
    /// Tags as FXSAVE abridges them: one bit per *physical* register, 1 = not empty. The two-bit tags of FSTENV follow
    /// from these and from the values.
    pub tags: u8,
    /// Opcode of the last instruction that was not a control instruction, eleven bits.
    pub opcode: u16,
    /// The address of the last instruction that was not a control instruction (FIP).
    pub instruction: u64,
    /// Address of the memory operand of the last instruction that was not a control instruction (FDP).
    pub data: u64,
    /// R0 to R7, the *physical* registers: significand in bits 63:0, sign and exponent in 79:64, the rest zero.
    pub registers: [u128; 8],
}

impl Default for X87State {
    /// As FNINIT leaves it, with empty registers that hold zero.
    fn default() -> Self {
        Self { control: FCW_RESET, status: 0, tags: 0, opcode: 0, instruction: 0, data: 0, registers: [0; 8] }
    }
}

impl X87State {
    /// The physical number of ST0.
    pub const fn top(&self) -> u8 {
        (self.status >> 11 & 7) as u8
    }

    /// Makes another physical register ST0; the number is taken modulo 8.
    pub const fn set_top(&mut self, top: u8) {
        self.status = self.status & !(7 << 11) | ((top & 7) as u16) << 11;
    }

    /// The physical number of ST(n).
    pub const fn physical(&self, n: u8) -> u8 {
        self.top().wrapping_add(n) & 7
    }

    /// ST(n), whether it is empty or not.
    pub const fn st(&self, n: u8) -> u128 {
        self.registers[self.physical(n) as usize]
    }

    /// Puts 80 bits into ST(n); its tag stays.
    pub const fn set_st(&mut self, n: u8, value: u128) {
        self.registers[self.physical(n) as usize] = value & REGISTER_BITS;
    }
}

/// x87, SSE and AVX state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SimdState {
    /// x87 and MMX.
    pub x87: X87State,
    /// SSE control and status.
    pub mxcsr: u32,
    /// XMM0 to XMM15: the lower halves of YMM0 to YMM15.
    pub xmm: [u128; 16],
    /// Bits 255:128 of YMM0 to YMM15, the state component AVX. SSE instructions keep them.
    pub ymm_high: [u128; 16],
}

impl Default for SimdState {
    fn default() -> Self {
        Self { x87: X87State::default(), mxcsr: MXCSR_RESET, xmm: [0; 16], ymm_high: [0; 16] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stack_is_a_window_on_the_physical_registers() {
        let mut x87 = X87State::default();
        x87.set_top(6);
        x87.set_st(3, u128::MAX);
        assert_eq!(x87.registers[1], REGISTER_BITS);
        assert_eq!((x87.st(3), x87.top(), x87.status), (REGISTER_BITS, 6, 6 << 11));
    }
}
