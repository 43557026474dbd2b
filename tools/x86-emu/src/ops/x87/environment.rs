//! FNSTENV, FLDENV, FNSAVE and FRSTOR in their protected-mode formats (SDM vol. 1, figures 8-9 and 8-11), which
//! 64-bit mode has too.

use iced_x86::{MemorySize, Mnemonic};
use x86_arch::X87State;

use super::TBYTE;
use super::control::{control_word, initialise};
use super::stack::Stack;
use crate::cpu::{Cpu, Env};
use crate::op::{Handler, Intent, Op};
use crate::paging::Want;
use crate::softfloat::{Class, Extended, Value};
use crate::stop::Step;

/// Seven fields, of two or four bytes.
const FIELDS: usize = 7;
const REGISTERS: usize = 8 * TBYTE;
const LARGEST: usize = 4 * FIELDS + REGISTERS;
/// What the reserved upper halves of the 32-bit format read as.
const RESERVED: u32 = 0xFFFF_0000;

/// `aux`: bytes of a field.
fn field_bytes(op: &Op) -> usize {
    usize::from(op.aux)
}

/// The tag word: two bits for each physical register.
fn tag_word(x87: &X87State) -> u16 {
    const EMPTY: u16 = 3;
    (0u8..8).fold(0, |word, n| {
        let bits = x87.registers.get(usize::from(n)).copied().unwrap_or(0);
        let tag = if x87.tags >> n & 1 == 0 {
            EMPTY
        } else {
            let extended = Extended::from_bits(bits);
            match Value::from_extended(extended).class {
                Class::Normal => 0,
                Class::Zero => 1,
                _ => 2,
            }
        };
        word | tag << (2 * n)
    })
}

fn environment(x87: &X87State) -> [u32; FIELDS] {
    let above = |word: u16| u32::from(word) | RESERVED;
    [
        above(x87.control),
        above(x87.status),
        above(tag_word(x87)),
        x87.instruction as u32,
        // The selectors are zero; the 16-bit format has no room for the opcode.
        u32::from(x87.opcode) << 16,
        x87.data as u32,
        above(0),
    ]
}

/// The image of the environment, and of the registers behind it.
fn image(x87: &X87State, bytes: usize) -> [u8; LARGEST] {
    let mut image = [0u8; LARGEST];
    let fields = image.chunks_exact_mut(bytes).zip(environment(x87));
    for (slot, field) in fields {
        for (byte, value) in slot.iter_mut().zip(field.to_le_bytes()) {
            *byte = value;
        }
    }
    let registers = image.get_mut(FIELDS * bytes..).unwrap_or(&mut []);
    for (slot, n) in registers.chunks_exact_mut(TBYTE).zip(0..8) {
        for (byte, value) in slot.iter_mut().zip(x87.st(n).to_le_bytes()) {
            *byte = value;
        }
    }
    image
}

fn load_environment(x87: &mut X87State, image: &[u8], bytes: usize) {
    let mut fields = [0u32; FIELDS];
    for (field, slot) in fields.iter_mut().zip(image.chunks_exact(bytes)) {
        *field = slot.iter().rev().fold(0, |all, byte| all << 8 | u32::from(*byte));
    }
    let [control, status, tags, instruction, opcode, data, _] = fields;
    const EMPTY: u32 = 3;
    *x87 = X87State {
        control: control_word(control as u16),
        status: status as u16,
        tags: (0..8).fold(0, |all, n| all | u8::from(tags >> (2 * n) & 3 != EMPTY) << n),
        opcode: if bytes == 4 { (opcode >> 16) as u16 & 0x7FF } else { 0 },
        instruction: instruction.into(),
        data: data.into(),
        registers: x87.registers,
    };
    x87.refresh_summary();
}

fn store(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, size: usize) -> Step {
    let image = image(&cpu.state.simd.x87, field_bytes(op));
    let linear = cpu.linear(op, size as u64, Intent::Write)?;
    let view = cpu.view;
    cpu.write_bytes(env, linear, image.get(..size).unwrap_or(&image), view)
}

fn load(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, size: usize) -> Result<[u8; LARGEST], crate::stop::Stop> {
    let linear = cpu.linear(op, size as u64, Intent::Read)?;
    let mut image = [0u8; LARGEST];
    let view = cpu.view;
    if let Some(part) = image.get_mut(..size) {
        cpu.read_bytes(env, linear, part, Want::Read, view)?;
    }
    Ok(image)
}

/// FNSTENV masks all exceptions once they are stored.
fn fnstenv(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    const MASKS: u16 = 0x3F;
    cpu.check_fpu()?;
    store(cpu, env, op, FIELDS * field_bytes(op))?;
    cpu.state.simd.x87.control |= MASKS;
    cpu.state.simd.x87.refresh_summary();
    Ok(())
}

fn fnsave(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_fpu()?;
    store(cpu, env, op, FIELDS * field_bytes(op) + REGISTERS)?;
    initialise(&mut cpu.state.simd.x87);
    Ok(())
}

fn fldenv(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin_x87()?;
    let image = load(cpu, env, op, FIELDS * field_bytes(op))?;
    load_environment(&mut cpu.state.simd.x87, &image, field_bytes(op));
    Ok(())
}

fn frstor(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin_x87()?;
    let bytes = field_bytes(op);
    let image = load(cpu, env, op, FIELDS * bytes + REGISTERS)?;
    let x87 = &mut cpu.state.simd.x87;
    load_environment(x87, &image, bytes);
    let registers = image.get(FIELDS * bytes..).unwrap_or(&[]);
    for (slot, n) in registers.chunks_exact(TBYTE).zip(0..8) {
        x87.set_st(n, slot.iter().rev().fold(0, |all, byte| all << 8 | u128::from(*byte)));
    }
    Ok(())
}

pub(super) fn find(mnemonic: Mnemonic, size: Option<MemorySize>) -> Option<(Handler, u16)> {
    use Mnemonic as M;
    let bytes = match size? {
        MemorySize::FpuEnv14 | MemorySize::FpuState94 => 2,
        MemorySize::FpuEnv28 | MemorySize::FpuState108 => 4,
        _ => return None,
    };
    let run: Handler = match mnemonic {
        M::Fnstenv => fnstenv,
        M::Fldenv => fldenv,
        M::Fnsave => fnsave,
        M::Frstor => frstor,
        _ => return None,
    };
    Some((run, bytes))
}
