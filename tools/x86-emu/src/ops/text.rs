//! PCMPISTRI, PCMPISTRM, PCMPESTRI and PCMPESTRM (SSE4.2), which C libraries pick when CPUID offers them
//! (SDM vol. 2, "Imm8 Control Byte Operation for PCMPxSTRx").

use iced_x86::{Instruction, Mnemonic};

use super::vector::{Form, Shape, by_form};
use crate::cpu::{Cpu, Env};
use crate::decode::{Decoded, operands, width};
use crate::op::{Op, prefix};
use crate::stop::Step;
use x86_arch::flags;

const RAX: u8 = 0;
const RCX: u8 = 1;
const RDX: u8 = 2;

/// Bits of `aux`: lengths are in registers; the result is a mask in XMM0.
const EXPLICIT: u16 = 1;
const MASK: u16 = 2;

/// Up to sixteen elements, of which the first `valid` count.
struct Text {
    elements: [i32; 16],
    valid: usize,
}

/// Reads elements as the two low bits of the control byte say.
fn elements(value: u128, control: u8) -> [i32; 16] {
    std::array::from_fn(|n| {
        let byte = (value >> (8 * n as u32)) as u8;
        let word = (value >> (16 * (n as u32 & 7))) as u16;
        match control & 3 {
            0 => i32::from(byte),
            1 => i32::from(word),
            2 => i32::from(byte as i8),
            _ => i32::from(word as i16),
        }
    })
}

/// One bit per element of `b`.
fn aggregate(a: &Text, b: &Text, control: u8, count: usize) -> u32 {
    let valid = |text: &Text, n: usize| n < text.valid;
    let holds = |j: usize| match control >> 2 & 3 {
        0 => (0..a.valid).any(|i| valid(b, j) && a.elements[i] == b.elements[j]),
        1 => (0..count / 2).any(|pair| {
            let (low, high) = (2 * pair, 2 * pair + 1);
            let inside = (a.elements[low]..=a.elements[high]).contains(&b.elements[j]);
            valid(a, high) && valid(b, j) && inside
        }),
        2 => match (valid(a, j), valid(b, j)) {
            (true, true) => a.elements[j] == b.elements[j],
            (a, b) => a == b,
        },
        _ => (0..count - j).all(|i| !valid(a, i) || valid(b, j + i) && a.elements[i] == b.elements[j + i]),
    };
    (0..count).map(|j| u32::from(holds(j)) << j).sum()
}

/// A length given in a register: its magnitude, at most the number of elements.
fn length(value: u64, wide: bool, count: usize) -> usize {
    let magnitude =
        if wide { (value as i64).unsigned_abs() } else { u64::from((value as i32).unsigned_abs()) };
    magnitude.min(count as u64) as usize
}

fn compare<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let control = op.imm as u8;
    let count = if control & 1 == 0 { 16 } else { 8 };
    let first = elements(cpu.xmm(op.dst), control);
    let source: u128 = if op.has_memory() { cpu.load_operand(env, op)? } else { cpu.xmm(op.src) };
    let second = elements(source, control);
    let until_zero = |text: &[i32; 16]| text.iter().take(count).position(|e| *e == 0).unwrap_or(count);
    let (in_first, in_second) = if op.aux & EXPLICIT != 0 {
        let wide = op.prefix & prefix::SIZE64 != 0;
        (length(cpu.state.regs.slot(RAX), wide, count), length(cpu.state.regs.slot(RDX), wide, count))
    } else {
        (until_zero(&first), until_zero(&second))
    };
    let a = Text { elements: first, valid: in_first };
    let b = Text { elements: second, valid: in_second };
    let all = u32::MAX >> (32 - count);
    let plain = aggregate(&a, &b, control, count);
    let result = match control >> 4 & 3 {
        1 => plain ^ all,
        3 => plain ^ ((1u32 << b.valid) - 1),
        _ => plain,
    };
    let set = |on: bool, flag: u64| if on { flag } else { 0 };
    let new_flags = set(result != 0, flags::CF)
        | set(b.valid < count, flags::ZF)
        | set(a.valid < count, flags::SF)
        | set(result & 1 != 0, flags::OF);
    cpu.state.flags.replace(flags::ARITHMETIC, new_flags);
    let last_or_spread = control & 0x40 != 0;
    if op.aux & MASK == 0 {
        let index = match (result, last_or_spread) {
            (0, _) => count as u32,
            (_, false) => result.trailing_zeros(),
            (_, true) => 31 - result.leading_zeros(),
        };
        cpu.state.regs.set_slot(RCX, u64::from(index));
    } else if last_or_spread {
        let bits = 128 / count as u32;
        let element = (1u128 << bits) - 1;
        let spread = |n: usize| if result >> n & 1 != 0 { element << (bits * n as u32) } else { 0 };
        cpu.finish_in::<F>(0, [(0..count).fold(0, |mask, n| mask | spread(n)), 0]);
    } else {
        cpu.finish_in::<F>(0, [u128::from(result), 0]);
    }
    Ok(())
}

pub(super) fn decode(i: &Instruction, long: bool) -> Option<Decoded> {
    let (aux, wide) = match i.mnemonic() {
        Mnemonic::Pcmpistri | Mnemonic::Vpcmpistri => (0, false),
        Mnemonic::Pcmpistrm | Mnemonic::Vpcmpistrm => (MASK, false),
        Mnemonic::Pcmpestri | Mnemonic::Vpcmpestri => (EXPLICIT, false),
        Mnemonic::Pcmpestrm | Mnemonic::Vpcmpestrm => (EXPLICIT | MASK, false),
        Mnemonic::Pcmpestri64 | Mnemonic::Vpcmpestri64 => (EXPLICIT, true),
        Mnemonic::Pcmpestrm64 | Mnemonic::Vpcmpestrm64 => (EXPLICIT | MASK, true),
        _ => return None,
    };
    if width(i, 1) != 16 {
        return None;
    }
    let mut op = operands(i, by_form!(Shape::of(i)?, compare), long);
    op.aux = aux;
    if wide {
        op.prefix |= prefix::SIZE64;
    }
    Some(Decoded::plain(op))
}
