//! From the decoder's operands to the fields of an [`Op`].

use iced_x86::{Instruction, OpKind, Register};

use crate::op::{Handler, Op, address, prefix};
use x86_arch::{
    Seg,
    registers::{HIGH_BYTES, RIP, ZERO},
};

/// Which operands a two-operand instruction has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    RegReg,
    RegImm,
    RegMem,
    MemReg,
    MemImm,
}

/// The register file's number of a register.
pub(crate) fn register_index(register: Register) -> u8 {
    match register {
        Register::AH => HIGH_BYTES,
        Register::CH => HIGH_BYTES + 1,
        Register::DH => HIGH_BYTES + 2,
        Register::BH => HIGH_BYTES + 3,
        Register::None => ZERO,
        Register::RIP | Register::EIP => RIP,
        _ => register.full_register().number() as u8,
    }
}

/// Size in bytes of operand `n`.
pub(crate) fn width(i: &Instruction, n: u32) -> usize {
    match i.op_kind(n) {
        OpKind::Register => i.op_register(n).size(),
        OpKind::Memory
        | OpKind::MemorySegSI
        | OpKind::MemorySegESI
        | OpKind::MemorySegRSI
        | OpKind::MemoryESDI
        | OpKind::MemoryESEDI
        | OpKind::MemoryESRDI
        | OpKind::MemorySegDI
        | OpKind::MemorySegEDI
        | OpKind::MemorySegRDI => i.memory_size().size(),
        _ => 0,
    }
}

fn is_immediate(kind: OpKind) -> bool {
    matches!(
        kind,
        OpKind::Immediate8
            | OpKind::Immediate8_2nd
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate64
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64
    )
}

/// The form of the first two operands, if it is one of the five.
pub(crate) fn form(i: &Instruction) -> Option<Form> {
    let source = i.op_kind(1);
    match (i.op0_kind(), source) {
        (OpKind::Register, OpKind::Register) => Some(Form::RegReg),
        (OpKind::Register, OpKind::Memory) => Some(Form::RegMem),
        (OpKind::Memory, OpKind::Register) => Some(Form::MemReg),
        (OpKind::Register, kind) if is_immediate(kind) => Some(Form::RegImm),
        (OpKind::Memory, kind) if is_immediate(kind) => Some(Form::MemImm),
        _ => None,
    }
}

fn segment(register: Register) -> Seg {
    match register {
        Register::ES => Seg::Es,
        Register::CS => Seg::Cs,
        Register::SS => Seg::Ss,
        Register::FS => Seg::Fs,
        Register::GS => Seg::Gs,
        _ => Seg::Ds,
    }
}

/// Fills the address bits for an operand in this segment.
pub(crate) fn segment_bits(register: Register, long: bool) -> u8 {
    let segment = segment(register);
    let mut bits = segment as u8;
    if !long {
        bits |= address::CHECKED;
    } else if matches!(segment, Seg::Fs | Seg::Gs) {
        bits |= address::BASED;
    }
    bits
}

/// An operation with registers, immediates, memory operand and prefixes filled in: operand 0 is the
/// destination, operand 1 the source, and the last immediate goes into `imm`.
pub(crate) fn operands(i: &Instruction, run: Handler, long: bool) -> Op {
    let mut op = Op::new(run);
    for n in 0..i.op_count() {
        match i.op_kind(n) {
            OpKind::Register => match n {
                0 => op.dst = register_index(i.op_register(0)),
                1 => op.src = register_index(i.op_register(1)),
                _ => {}
            },
            OpKind::Memory => {
                memory(i, &mut op, long);
                if n == 0 {
                    op.address |= address::MEMORY_DST;
                }
            }
            kind if is_immediate(kind) => op.imm = i.immediate(n),
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
                op.imm = i.near_branch_target();
            }
            _ => {}
        }
    }
    if i.has_lock_prefix() {
        op.prefix |= prefix::LOCK;
    }
    if i.has_rep_prefix() {
        op.prefix |= prefix::REP;
    }
    if i.has_repne_prefix() {
        op.prefix |= prefix::REPNE;
    }
    op
}

fn memory(i: &Instruction, op: &mut Op, long: bool) {
    op.address = address::MEMORY | segment_bits(i.memory_segment(), long);
    let base = i.memory_base();
    op.base = register_index(base);
    op.index = register_index(i.memory_index());
    op.scale = i.memory_index_scale().trailing_zeros() as u8;
    op.disp = i.memory_displacement64();
    let sizes = [base.size(), i.memory_index().size(), i.memory_displ_size() as usize];
    let narrow = match (base, i.memory_index()) {
        (Register::None, Register::None) => !long || i.memory_displ_size() == 4,
        (Register::EIP, _) => true,
        (base, index) => matches!(base.size(), 2 | 4) || matches!(index.size(), 2 | 4),
    };
    if base == Register::RIP || base == Register::EIP {
        op.disp = i.ip_rel_memory_address();
    } else if narrow && !(long && base == Register::None && i.memory_index() == Register::None) {
        let registers = base != Register::None || i.memory_index() != Register::None;
        let looked_at = if registers { sizes.get(..2) } else { sizes.get(2..) };
        let has_16 = looked_at.is_some_and(|sizes| sizes.contains(&2));
        op.set_address_size(if has_16 { 2 } else { 4 });
    }
    if base == Register::EIP {
        op.address |= address::NARROW;
    }
}
