//! FST, FIST, FISTTP and FBSTP.

use iced_x86::{MemorySize, Mnemonic};

use super::stack::{Fault, Pops, Stack, fault, pop, status};
use super::to_register;
use crate::cpu::{Cpu, Env};
use crate::op::{Handler, Op};
use crate::softfloat::{
    Environment, Exceptions, Format, Integer, Rounding, Value, convert, to_integer, to_packed_decimal,
};
use crate::stop::Step;

/// `aux`: the instruction pops.
const POPS: u16 = 1;
/// `aux`: FISTTP.
const TRUNCATES: u16 = 1 << 1;

fn pops(op: &Op) -> Pops {
    if op.aux & POPS != 0 { Pops::Once } else { Pops::Nothing }
}

/// What is to be stored.
struct Image {
    bits: u128,
    raised: Exceptions,
    rounded_up: bool,
}

/// An operand's format in memory.
trait Target: 'static {
    const SIZE: Size;
    fn image(value: Value, op: &Op, env: &Environment) -> Image;
    /// What an empty register stores.
    fn indefinite() -> u128;
}

/// Bytes of an operand.
enum Size {
    Word,
    Dword,
    Qword,
    Tbyte,
}

struct ToSingle;
struct ToDouble;
struct ToInteger<const BITS: u32>;
struct ToPacked;

/// FST does not report denormal operands; with an unmasked overflow or underflow it does not report that the result,
/// which is not stored, is inexact (SDM vol. 1, 8.5.6).
fn rounded(value: Value, format: Format, env: &Environment) -> (Value, Exceptions, bool) {
    let outcome = convert(value.as_normal(), format, env);
    if stops(outcome.raised, env) {
        return (Value::INDEFINITE, outcome.raised & !Exceptions::PRECISION, false);
    }
    (outcome.value, outcome.raised, outcome.rounded_up)
}

impl Target for ToSingle {
    const SIZE: Size = Size::Dword;
    fn image(value: Value, _: &Op, env: &Environment) -> Image {
        let (value, raised, rounded_up) = rounded(value, Format::SINGLE, env);
        Image { bits: value.to_single().into(), raised, rounded_up }
    }
    fn indefinite() -> u128 {
        Value::INDEFINITE.to_single().into()
    }
}

impl Target for ToDouble {
    const SIZE: Size = Size::Qword;
    fn image(value: Value, _: &Op, env: &Environment) -> Image {
        let (value, raised, rounded_up) = rounded(value, Format::DOUBLE, env);
        Image { bits: value.to_double().into(), raised, rounded_up }
    }
    fn indefinite() -> u128 {
        Value::INDEFINITE.to_double().into()
    }
}

impl<const BITS: u32> ToInteger<BITS> {
    const INTEGER: Integer = match BITS {
        16 => Integer::Bits16,
        32 => Integer::Bits32,
        _ => Integer::Bits64,
    };
}

impl<const BITS: u32> Target for ToInteger<BITS> {
    const SIZE: Size = match BITS {
        16 => Size::Word,
        32 => Size::Dword,
        _ => Size::Qword,
    };
    fn image(value: Value, op: &Op, env: &Environment) -> Image {
        let rounding = if op.aux & TRUNCATES != 0 { Rounding::Truncate } else { env.rounding };
        let result = to_integer(value, Self::INTEGER, rounding, env);
        Image { bits: result.value as u128, raised: result.raised, rounded_up: result.rounded_up }
    }
    fn indefinite() -> u128 {
        Self::INTEGER.indefinite() as u128
    }
}

impl Target for ToPacked {
    const SIZE: Size = Size::Tbyte;
    fn image(value: Value, _: &Op, env: &Environment) -> Image {
        let (bits, raised, rounded_up) = to_packed_decimal(value, env);
        Image { bits, raised, rounded_up }
    }
    fn indefinite() -> u128 {
        crate::softfloat::PACKED_INDEFINITE
    }
}

/// Whether an exception keeps the operand from being stored: every unmasked one but #P.
fn stops(raised: Exceptions, env: &Environment) -> bool {
    raised.intersects(!env.masked & !Exceptions::PRECISION)
}

fn to_memory<T: Target>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin_x87()?;
    let modes = cpu.state.simd.x87.environment();
    let image = cpu.state.simd.x87.value(0).map(|value| T::image(value, op, &modes));
    let raised = image.as_ref().map_or(Exceptions::INVALID, |image| image.raised);
    if !stops(raised, &modes) {
        // The store comes first: a fault there leaves the registers as they are.
        let bits = image.as_ref().map_or_else(T::indefinite, |image| image.bits);
        match T::SIZE {
            Size::Word => cpu.store_operand(env, op, bits as u16)?,
            Size::Dword => cpu.store_operand(env, op, bits as u32)?,
            Size::Qword => cpu.store_operand(env, op, bits as u64)?,
            Size::Tbyte => cpu.store_tbyte(env, op, bits)?,
        }
    }
    let x87 = &mut cpu.state.simd.x87;
    match image {
        Some(image) => x87.set_conditions(status::C1, if image.rounded_up { status::C1 } else { 0 }),
        None => drop(fault(x87, Fault::Underflow)),
    }
    if !stops(raised, &modes) {
        pop(x87, pops(op));
    }
    cpu.finish_x87(env, op, raised);
    Ok(())
}

/// FSTP m80: no conversion, so nothing but an empty register is invalid.
fn fstp_tbyte(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin_x87()?;
    let modes = cpu.state.simd.x87.environment();
    let bits = cpu.state.simd.x87.bits(0);
    let raised = Exceptions::INVALID.when(bits.is_none());
    if !stops(raised, &modes) {
        cpu.store_tbyte(env, op, bits.unwrap_or(to_register(Value::INDEFINITE.to_extended())))?;
    }
    let x87 = &mut cpu.state.simd.x87;
    x87.set_conditions(status::C1, 0);
    if bits.is_none() {
        fault(x87, Fault::Underflow);
    }
    if !stops(raised, &modes) {
        x87.pop();
    }
    cpu.finish_x87(env, op, raised);
    Ok(())
}

fn to_register_form(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin_x87()?;
    let x87 = &mut cpu.state.simd.x87;
    let target = super::stack::Target { register: op.dst, pops: pops(op) };
    let raised = match x87.bits(0) {
        Some(bits) => {
            x87.set_conditions(status::C1, 0);
            x87.fill(op.dst, bits);
            pop(x87, pops(op));
            Exceptions::NONE
        }
        None => super::stack::underflow(x87, target),
    };
    cpu.finish_x87(env, op, raised);
    Ok(())
}

/// FSTPNCE: as FSTP, but an empty register is no fault and is not copied.
fn fstpnce(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin_x87()?;
    let x87 = &mut cpu.state.simd.x87;
    if let Some(bits) = x87.bits(0) {
        x87.fill(op.dst, bits);
    }
    x87.pop();
    cpu.finish_x87(env, op, Exceptions::NONE);
    Ok(())
}

pub(super) fn find(mnemonic: Mnemonic, size: Option<MemorySize>) -> Option<(Handler, u16)> {
    use MemorySize as S;
    use Mnemonic as M;
    let aux = match mnemonic {
        M::Fst | M::Fist => 0,
        M::Fstp | M::Fistp | M::Fbstp => POPS,
        M::Fisttp => POPS | TRUNCATES,
        M::Fstpnce => return Some((fstpnce, 0)),
        _ => return None,
    };
    let run: Handler = match (mnemonic, size) {
        (M::Fbstp, _) => to_memory::<ToPacked>,
        (_, None) => to_register_form,
        (_, Some(S::Float32)) => to_memory::<ToSingle>,
        (_, Some(S::Float64)) => to_memory::<ToDouble>,
        (_, Some(S::Float80)) => fstp_tbyte,
        (_, Some(S::Int16)) => to_memory::<ToInteger<16>>,
        (_, Some(S::Int32)) => to_memory::<ToInteger<32>>,
        (_, Some(S::Int64)) => to_memory::<ToInteger<64>>,
        _ => return None,
    };
    Some((run, aux))
}
