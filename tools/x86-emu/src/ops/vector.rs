//! The forms that a vector instruction has, and what they do with registers and operands.
//!
//! Most instructions exist as legacy SSE, as VEX with 128 bits and as VEX with 256 bits. A handler is written once, over a
//! [`Form`]:
//! - legacy: the destination is the first source; bits above 127 of it stay; operands in memory are aligned to 16 bytes;
//! - VEX: the first source is a register of its own; what lies above the result is cleared; operands in memory are of any
//!   alignment.
//!
//! The bits that decide are those of the encoding (SDM vol. 2, "Instruction Exception Specification").

use iced_x86::{EncodingKind, Instruction, OpKind};

use crate::cpu::{Cpu, Env};
use crate::decode::{operands, register_index};
use crate::memory::FromBytes;
use crate::op::{Handler, Intent, Op};
use crate::paging::Want;
use crate::stop::{Step, Stop};
use x86_arch::{ControlRegisters, Event, cr0, cr4, registers::ZERO, vector, xcr0};

/// A YMM register: bits 127:0, bits 255:128.
pub(super) type Vector = [u128; 2];

/// A form, at compile time.
pub(super) trait Form: 'static {
    /// Encoded with VEX.
    const VEX: bool;
    /// Works on 256 bits.
    const WIDE: bool;
}

/// Legacy SSE.
pub(super) struct Legacy;
/// VEX with 128 bits, or a scalar.
pub(super) struct Vex128;
/// VEX with 256 bits.
pub(super) struct Vex256;

impl Form for Legacy {
    const VEX: bool = false;
    const WIDE: bool = false;
}
impl Form for Vex128 {
    const VEX: bool = true;
    const WIDE: bool = false;
}
impl Form for Vex256 {
    const VEX: bool = true;
    const WIDE: bool = true;
}

/// A form, of an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    Legacy,
    Vex128,
    Vex256,
}

impl Shape {
    /// The form of an instruction; `None` for encodings that are neither legacy nor VEX.
    pub(super) fn of(i: &Instruction) -> Option<Self> {
        let code = i.code().op_code();
        match code.encoding() {
            EncodingKind::Legacy => Some(Self::Legacy),
            EncodingKind::VEX if code.l() == 0 || code.is_lig() => Some(Self::Vex128),
            EncodingKind::VEX => Some(Self::Vex256),
            _ => None,
        }
    }
}

/// Picks the instance of a generic handler for a form; the form is the last of its parameters.
macro_rules! by_form {
    ($shape:expr, $handler:ident $(, $extra:tt)*) => {
        match $shape {
            $crate::ops::vector::Shape::Legacy => {
                $handler::<$($extra,)* $crate::ops::vector::Legacy> as $crate::op::Handler
            }
            $crate::ops::vector::Shape::Vex128 => $handler::<$($extra,)* $crate::ops::vector::Vex128>,
            $crate::ops::vector::Shape::Vex256 => $handler::<$($extra,)* $crate::ops::vector::Vex256>,
        }
    };
}
pub(super) use by_form;

/// What `half` makes of the low and the high half; the upper half is zero where the form has none.
#[inline(always)]
pub(super) fn halves<F: Form>(mut half: impl FnMut(usize) -> u128) -> Vector {
    [half(0), if F::WIDE { half(1) } else { 0 }]
}

/// A vector instruction with its operands: `dst`; `third`, the first source; and `src` or memory, the second. A fourth register is
/// in `imm`. Where there is one source it is both; in a legacy encoding the first source is the destination.
pub(super) fn vector_operands(i: &Instruction, run: Handler, long: bool) -> Op {
    let mut op = operands(i, run, long);
    op.third = op.dst;
    if i.code().op_code().encoding() != EncodingKind::VEX {
        return op;
    }
    op.third = op.src;
    let is_register = |n: u32| n < i.op_count() && i.op_kind(n) == OpKind::Register;
    if is_register(1) && i.op_count() > 2 {
        match i.op_kind(2) {
            OpKind::Register => op.src = register_index(i.op_register(2)),
            OpKind::Memory => {}
            _ => return op,
        }
        op.third = register_index(i.op_register(1));
    }
    if is_register(3) {
        op.imm = register_index(i.op_register(3)).into();
    }
    if i.memory_index().is_vector_register() {
        op.index = ZERO;
        op.src = register_index(i.memory_index());
        op.third = register_index(i.op_register(2));
    }
    op
}

/// Whether software has switched AVX on; CR0.TS may still keep it from running.
#[inline(always)]
pub(crate) const fn has_avx_on(control: &ControlRegisters) -> bool {
    const STATE: u64 = xcr0::SSE | xcr0::AVX;
    control.cr0 & cr0::PE != 0 && control.cr4 & cr4::OSXSAVE != 0 && control.xcr0 & STATE == STATE
}

impl Cpu {
    /// Whether VEX instructions on vector registers may run.
    #[inline(always)]
    pub(super) fn check_avx(&mut self) -> Step {
        let control = &self.state.control;
        if !has_avx_on(control) {
            return Err(self.undefined());
        }
        if control.cr0 & cr0::TS != 0 {
            return Err(self.raise(Event::exception(vector::NM)));
        }
        Ok(())
    }

    /// Whether an instruction of the form may run.
    #[inline(always)]
    pub(super) fn begin<F: Form>(&mut self) -> Step {
        if F::VEX { self.check_avx() } else { self.check_sse() }
    }

    #[inline(always)]
    pub(super) fn vector(&self, index: u8) -> Vector {
        [self.xmm(index), self.state.simd.ymm_high[(index & 15) as usize]]
    }

    #[inline(always)]
    pub(super) fn set_vector(&mut self, index: u8, [low, high]: Vector) {
        self.set_xmm(index, low);
        self.state.simd.ymm_high[(index & 15) as usize] = high;
    }

    /// A register as the form has it.
    #[inline(always)]
    pub(super) fn register<F: Form>(&self, index: u8) -> Vector {
        if F::WIDE { self.vector(index) } else { [self.xmm(index), 0] }
    }

    /// The first source.
    #[inline(always)]
    pub(super) fn first<F: Form>(&self, op: &Op) -> Vector {
        self.register::<F>(if F::VEX { op.third } else { op.dst })
    }

    /// The second source: register, or memory, which legacy encodings want aligned.
    #[inline(always)]
    pub(super) fn second<F: Form>(&mut self, env: &mut Env<'_>, op: &Op) -> Result<Vector, Stop> {
        if !F::VEX {
            return Ok([self.source128(env, op)?, 0]);
        }
        if !op.has_memory() {
            return Ok(self.register::<F>(op.src));
        }
        self.load_vector::<F>(env, op)
    }

    /// The low half of the second source: as many bytes of memory.
    pub(super) fn half_of_second<F: Form>(&mut self, env: &mut Env<'_>, op: &Op) -> Result<u128, Stop> {
        if F::WIDE { self.low_of_second(env, op) } else { Ok(self.source64(env, op)?.into()) }
    }

    /// The low 16 bytes of the second source: as many bytes of memory, of any alignment.
    pub(super) fn low_of_second(&mut self, env: &mut Env<'_>, op: &Op) -> Result<u128, Stop> {
        if op.has_memory() { self.load_operand(env, op) } else { Ok(self.xmm(op.src)) }
    }

    /// The memory operand, of any alignment.
    #[inline(always)]
    pub(super) fn load_vector<F: Form>(&mut self, env: &mut Env<'_>, op: &Op) -> Result<Vector, Stop> {
        if !F::WIDE {
            return Ok([self.load_operand(env, op)?, 0]);
        }
        let linear = self.linear(op, 32, Intent::Read)?;
        self.load256(env, linear)
    }

    /// 32 bytes.
    #[inline(always)]
    fn load256(&mut self, env: &mut Env<'_>, linear: u64) -> Result<Vector, Stop> {
        let quick = (self.quick_load(env, linear), self.quick_load(env, linear.wrapping_add(16)));
        if let (Some(low), Some(high)) = quick {
            return Ok([low, high]);
        }
        let mut bytes = [0; 32];
        let view = self.view;
        self.read_bytes(env, linear, &mut bytes, Want::Read, view)?;
        let (low, high) = bytes.split_at(16);
        let half = |bytes: &[u8]| bytes.try_into().map_or(0, u128::from_le_bytes);
        Ok([half(low), half(high)])
    }

    /// Writes the memory operand, of any alignment.
    #[inline(always)]
    pub(super) fn store_vector<F: Form>(&mut self, env: &mut Env<'_>, op: &Op, value: Vector) -> Step {
        if !F::WIDE {
            return self.store_operand(env, op, value[0]);
        }
        let linear = self.linear(op, 32, Intent::Write)?;
        self.store256(env, linear, value)
    }

    /// 32 bytes: where they lie in two pages nothing is written unless both can be.
    #[inline(always)]
    fn store256(&mut self, env: &mut Env<'_>, linear: u64, [low, high]: Vector) -> Step {
        if linear & 0xFFF <= 0x1000 - 32
            && self.quick_store(env, linear, low)
            && self.quick_store(env, linear.wrapping_add(16), high)
        {
            return Ok(());
        }
        let mut bytes = [0; 32];
        let (first, second) = bytes.split_at_mut(16);
        first.copy_from_slice(&low.to_le_bytes());
        second.copy_from_slice(&high.to_le_bytes());
        let view = self.view;
        self.write_bytes(env, linear, &bytes, view)
    }

    /// The memory operand of a form that wants it aligned to its size, moved.
    pub(super) fn load_aligned<F: Form>(&mut self, env: &mut Env<'_>, op: &Op) -> Result<Vector, Stop> {
        let linear = self.aligned_linear::<F>(op, Intent::Read)?;
        if F::WIDE { self.load256(env, linear) } else { Ok([self.load(env, linear)?, 0]) }
    }

    /// Writes a memory operand that has to be aligned to its size.
    pub(super) fn store_aligned<F: Form>(&mut self, env: &mut Env<'_>, op: &Op, value: Vector) -> Step {
        let linear = self.aligned_linear::<F>(op, Intent::Write)?;
        if F::WIDE { self.store256(env, linear, value) } else { self.store(env, linear, value[0]) }
    }

    fn aligned_linear<F: Form>(&mut self, op: &Op, intent: Intent) -> Result<u64, Stop> {
        let bytes = if F::WIDE { 32 } else { 16 };
        let linear = self.linear(op, bytes, intent)?;
        if linear & (bytes - 1) != 0 {
            return Err(self.general_protection(0));
        }
        Ok(linear)
    }

    /// Writes the destination register.
    #[inline(always)]
    pub(super) fn finish<F: Form>(&mut self, op: &Op, value: Vector) {
        self.finish_in::<F>(op.dst, value);
    }

    /// Writes a register as the form does.
    #[inline(always)]
    pub(super) fn finish_in<F: Form>(&mut self, index: u8, [low, high]: Vector) {
        self.set_xmm(index, low);
        if F::VEX {
            self.state.simd.ymm_high[(index & 15) as usize] = if F::WIDE { high } else { 0 };
        }
    }

    /// The second source of an instruction that takes one element: memory of its size, or the low bits of a register.
    pub(super) fn element<W: FromBytes>(&mut self, env: &mut Env<'_>, op: &Op) -> Result<W, Stop> {
        if op.has_memory() { self.load_operand(env, op) } else { Ok(W::from_low_bytes(self.xmm(op.src))) }
    }
}
