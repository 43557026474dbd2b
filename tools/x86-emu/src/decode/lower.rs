//! From decoded instructions to the data that a compiler takes.

use std::is_x86_feature_detected;

use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, Register};
use x86_jit::ir::{
    Address, Arithmetic, Atomicity, Bit, BitField, BitOffset, Condition, Count, Fence, Fetch, Insn, Operand,
    Reg, Scan, Segment, Shift, SignExtension, Source, Unary, Width,
};

use super::lower_vector;
use super::operands::{register_index, width};
use x86_arch::registers::HIGH_BYTES;

/// What a 64-bit instruction of a block does, decoded as if the block began at address zero; `None` where that is left to the
/// interpreter.
pub(crate) fn lower(i: &Instruction) -> Option<Insn> {
    if i.has_rep_prefix() || i.has_repne_prefix() {
        return None;
    }
    if i.has_lock_prefix() || i.mnemonic() == Mnemonic::Xchg && i.op0_kind() == OpKind::Memory {
        return locked(i);
    }
    moves(i)
        .or_else(|| arithmetic(i))
        .or_else(|| transfers(i))
        .or_else(|| fetches(i))
        .or_else(|| bit_field(i))
        .or_else(|| system(i))
        .or_else(|| lower_vector::lower(i))
}

fn reg(register: Register) -> Option<Reg> {
    let number = register_index(register);
    (register.is_gpr() && number < HIGH_BYTES).then(|| Reg::new(number)).flatten()
}

fn size(i: &Instruction, n: u32) -> Option<Width> {
    Width::from_bytes(width(i, n))
}

pub(super) fn address(i: &Instruction) -> Option<Address> {
    let (base, index) = (i.memory_base(), i.memory_index());
    let wide = |register: Register| register == Register::None || register.size() == 8;
    if !wide(base) || !wide(index) || index.is_vector_register() {
        return None;
    }
    let none = base == Register::None && index == Register::None;
    if none && i.memory_displ_size() < 4 {
        return None;
    }
    let segment = match i.memory_segment() {
        Register::FS => Some(Segment::Fs),
        Register::GS => Some(Segment::Gs),
        _ => None,
    };
    let optional = |register| if register == Register::None { Some(None) } else { reg(register).map(Some) };
    let (relative, base) = match base {
        Register::RIP => (true, None),
        base => (false, optional(base)?),
    };
    Some(Address {
        base,
        index: optional(index)?,
        scale: i.memory_index_scale().trailing_zeros() as u8,
        displacement: if relative { i.ip_rel_memory_address() } else { i.memory_displacement64() },
        relative,
        segment,
    })
}

pub(super) fn operand(i: &Instruction, n: u32) -> Option<Operand> {
    match i.op_kind(n) {
        OpKind::Register => reg(i.op_register(n)).map(Operand::Register),
        OpKind::Memory => address(i).map(Operand::Memory),
        _ => None,
    }
}

pub(super) fn register(i: &Instruction, n: u32) -> Option<Reg> {
    (i.op_kind(n) == OpKind::Register).then(|| reg(i.op_register(n))).flatten()
}

fn is_immediate(i: &Instruction, n: u32) -> bool {
    matches!(
        i.op_kind(n),
        OpKind::Immediate8
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate64
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64
    )
}

fn source(i: &Instruction, n: u32) -> Option<Source> {
    match i.op_kind(n) {
        OpKind::Register => reg(i.op_register(n)).map(Source::Register),
        OpKind::Memory => address(i).map(Source::Memory),
        _ => is_immediate(i, n).then(|| Source::Immediate(i.immediate(n))),
    }
}

fn condition(i: &Instruction) -> Option<Condition> {
    // iced numbers conditions as the opcodes do, counting from 1.
    Condition::new((i.condition_code() as u8).checked_sub(1)?)
}

/// Locked operations on memory.
fn locked(i: &Instruction) -> Option<Insn> {
    if i.op0_kind() != OpKind::Memory {
        return None;
    }
    fetches(i).or_else(|| match arithmetic(i)? {
        insn @ (Insn::Arithmetic { .. } | Insn::Unary { .. } | Insn::Bit { .. }) => Some(insn),
        _ => None,
    })
}

fn atomicity(i: &Instruction) -> Atomicity {
    if i.has_lock_prefix() { Atomicity::Locked } else { Atomicity::Plain }
}

/// Operations on memory that give back what was there, locked or not.
fn fetches(i: &Instruction) -> Option<Insn> {
    if i.op0_kind() != OpKind::Memory {
        return None;
    }
    let fetch = |kind| {
        let (at, register) = (address(i)?, register(i, 1)?);
        Some(Insn::Fetch { kind, width: size(i, 0)?, at, register, atomicity: atomicity(i) })
    };
    match i.mnemonic() {
        Mnemonic::Xchg => fetch(Fetch::Exchange),
        Mnemonic::Xadd => fetch(Fetch::Add),
        Mnemonic::Cmpxchg => fetch(Fetch::Compare),
        Mnemonic::Cmpxchg16b => Some(Insn::ExchangeWide { at: address(i)?, atomicity: atomicity(i) }),
        _ => None,
    }
}

fn moves(i: &Instruction) -> Option<Insn> {
    use Mnemonic as M;
    Some(match i.mnemonic() {
        M::Nop
        | M::Endbr64
        | M::Prefetcht0
        | M::Prefetcht1
        | M::Prefetcht2
        | M::Prefetchnta
        | M::Prefetchw => Insn::Nothing,
        M::Mov => Insn::Move { width: size(i, 0)?, to: operand(i, 0)?, from: source(i, 1)? },
        M::Movzx | M::Movsx | M::Movsxd => Insn::Extend {
            signed: i.mnemonic() != M::Movzx,
            from_width: size(i, 1)?,
            from: operand(i, 1)?,
            width: size(i, 0)?,
            to: register(i, 0)?,
        },
        M::Lea => {
            let address = Address { segment: None, ..address(i)? };
            Insn::LoadAddress { width: size(i, 0)?, to: register(i, 0)?, address }
        }
        M::Xchg => Insn::Exchange { width: size(i, 0)?, a: register(i, 0)?, b: register(i, 1)? },
        M::Bswap => Insn::SwapBytes { width: size(i, 0)?, of: register(i, 0)? },
        M::Cbw => Insn::SignExtend { kind: SignExtension::Within, width: Width::Word },
        M::Cwde => Insn::SignExtend { kind: SignExtension::Within, width: Width::Dword },
        M::Cdqe => Insn::SignExtend { kind: SignExtension::Within, width: Width::Qword },
        M::Cwd => Insn::SignExtend { kind: SignExtension::Across, width: Width::Word },
        M::Cdq => Insn::SignExtend { kind: SignExtension::Across, width: Width::Dword },
        M::Cqo => Insn::SignExtend { kind: SignExtension::Across, width: Width::Qword },
        _ if i.flow_control() != FlowControl::Next => return None,
        // SETcc and CMOVcc.
        _ => match i.op_count() {
            1 => Insn::Set { condition: condition(i)?, to: operand(i, 0)? },
            2 => Insn::ConditionalMove {
                condition: condition(i)?,
                width: size(i, 0)?,
                to: register(i, 0)?,
                from: operand(i, 1)?,
            },
            _ => return None,
        },
    })
}

fn arithmetic(i: &Instruction) -> Option<Insn> {
    use Mnemonic as M;
    let atomicity = atomicity(i);
    let two = |kind| {
        if let Some(of) = high_byte(i) {
            let value = is_immediate(i, 1).then(|| i.immediate(1) as u8)?;
            return Some(Insn::HighByte { kind, of, value });
        }
        let (to, from) = (operand(i, 0)?, source(i, 1)?);
        Some(Insn::Arithmetic { kind, width: size(i, 0)?, to, from, atomicity })
    };
    let one = |kind| Some(Insn::Unary { kind, width: size(i, 0)?, to: operand(i, 0)?, atomicity });
    match i.mnemonic() {
        M::Add => two(Arithmetic::Add),
        M::Or => two(Arithmetic::Or),
        M::Adc => two(Arithmetic::Adc),
        M::Sbb => two(Arithmetic::Sbb),
        M::And => two(Arithmetic::And),
        M::Sub => two(Arithmetic::Sub),
        M::Xor => two(Arithmetic::Xor),
        M::Cmp => two(Arithmetic::Cmp),
        M::Test => two(Arithmetic::Test),
        M::Inc => one(Unary::Increment),
        M::Dec => one(Unary::Decrement),
        M::Neg => one(Unary::Negate),
        M::Not => one(Unary::Not),
        M::Shl | M::Sal => shift(i, Shift::Shl),
        M::Shr => shift(i, Shift::Shr),
        M::Sar => shift(i, Shift::Sar),
        M::Shld => double_shift(i, Shift::Shl),
        M::Shrd => double_shift(i, Shift::Shr),
        M::Rol => shift(i, Shift::Rol),
        M::Ror => shift(i, Shift::Ror),
        M::Imul if i.op_count() == 1 => {
            Some(Insn::MultiplyWide { signed: true, width: size(i, 0)?, by: operand(i, 0)? })
        }
        M::Imul => {
            let by = (i.op_count() == 3).then(|| i.immediate(2) as i32);
            Some(Insn::Multiply { width: size(i, 0)?, to: register(i, 0)?, from: operand(i, 1)?, by })
        }
        M::Mul => Some(Insn::MultiplyWide { signed: false, width: size(i, 0)?, by: operand(i, 0)? }),
        M::Div => Some(Insn::Divide { signed: false, width: size(i, 0)?, by: operand(i, 0)? }),
        M::Idiv => Some(Insn::Divide { signed: true, width: size(i, 0)?, by: operand(i, 0)? }),
        M::Bt => bit(i, Bit::Test),
        M::Bts => bit(i, Bit::Set),
        M::Btr => bit(i, Bit::Reset),
        M::Btc => bit(i, Bit::Complement),
        M::Bsf => scan(i, Scan::Forward),
        M::Bsr => scan(i, Scan::Reverse),
        M::Tzcnt if is_x86_feature_detected!("bmi1") => scan(i, Scan::TrailingZeros),
        M::Lzcnt if is_x86_feature_detected!("lzcnt") => scan(i, Scan::LeadingZeros),
        M::Popcnt if is_x86_feature_detected!("popcnt") => scan(i, Scan::Population),
        _ => None,
    }
}

fn bit(i: &Instruction, kind: Bit) -> Option<Insn> {
    let bit = if is_immediate(i, 1) {
        BitOffset::Immediate(i.immediate8())
    } else {
        BitOffset::Register(register(i, 1)?)
    };
    Some(Insn::Bit { kind, width: size(i, 0)?, of: operand(i, 0)?, bit, atomicity: atomicity(i) })
}

fn scan(i: &Instruction, kind: Scan) -> Option<Insn> {
    Some(Insn::Scan { kind, width: size(i, 0)?, to: register(i, 0)?, from: operand(i, 1)? })
}

/// BMI1 and BMI2, where the host has them.
fn bit_field(i: &Instruction) -> Option<Insn> {
    use Mnemonic as M;
    let kind = match i.mnemonic() {
        M::Andn => BitField::Andn,
        M::Bextr => BitField::Bextr,
        M::Bzhi => BitField::Bzhi,
        M::Blsr => BitField::Blsr,
        M::Blsmsk => BitField::Blsmsk,
        M::Blsi => BitField::Blsi,
        M::Pdep => BitField::Pdep,
        M::Pext => BitField::Pext,
        M::Sarx => BitField::Sarx,
        M::Shlx => BitField::Shlx,
        M::Shrx => BitField::Shrx,
        M::Rorx => {
            is_x86_feature_detected!("bmi2").then_some(())?;
            let (width, to) = (size(i, 0)?, register(i, 0)?);
            return Some(Insn::RotateRight { width, to, from: operand(i, 1)?, count: i.immediate8() });
        }
        _ => return None,
    };
    (is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2")).then_some(())?;
    let (from, other) = match kind {
        // The operand that may be memory is the last one.
        BitField::Andn | BitField::Pdep | BitField::Pext => (operand(i, 2)?, register(i, 1)?),
        BitField::Blsr | BitField::Blsmsk | BitField::Blsi => (operand(i, 1)?, register(i, 0)?),
        _ => (operand(i, 1)?, register(i, 2)?),
    };
    Some(Insn::BitField { kind, width: size(i, 0)?, to: register(i, 0)?, from, other })
}

/// The register of whose second byte the first operand is.
fn high_byte(i: &Instruction) -> Option<Reg> {
    let register = i.op_register(0);
    let number = register_index(register);
    let is_one = i.op0_kind() == OpKind::Register && register.is_gpr8() && number >= HIGH_BYTES;
    is_one.then(|| Reg::new(number - HIGH_BYTES)).flatten()
}

/// What a kernel does to flags, lines and the order of accesses.
fn system(i: &Instruction) -> Option<Insn> {
    use Mnemonic as M;
    Some(match i.mnemonic() {
        M::Lfence => Insn::Fence { kind: Fence::Lfence },
        M::Mfence => Insn::Fence { kind: Fence::Mfence },
        M::Sfence => Insn::Fence { kind: Fence::Sfence },
        M::Clflush | M::Clflushopt | M::Clwb => Insn::Touch { address: address(i)? },
        M::Pushfq => Insn::PushFlags,
        M::Cli => Insn::ClearInterrupts,
        M::Cld => Insn::ClearDirection,
        _ => return None,
    })
}

/// Shifts that move something, and not all there is.
fn shift(i: &Instruction, kind: Shift) -> Option<Insn> {
    let width = size(i, 0)?;
    Some(Insn::Shift { kind, width, to: register(i, 0)?, count: count(i, 1, width)? })
}

fn double_shift(i: &Instruction, kind: Shift) -> Option<Insn> {
    let width = size(i, 0)?;
    let (to, from) = (register(i, 0)?, register(i, 1)?);
    Some(Insn::ShiftDouble { kind, width, to, from, count: count(i, 2, width)? })
}

/// Operand `n` as the count of a shift.
fn count(i: &Instruction, n: u32, width: Width) -> Option<Count> {
    if i.op_kind(n) == OpKind::Register {
        return Some(Count::Cl);
    }
    let count = i.immediate8() & if width == Width::Qword { 63 } else { 31 };
    (count != 0 && count < 8 * width.bytes()).then_some(Count::Immediate(count))
}

fn transfers(i: &Instruction) -> Option<Insn> {
    use Mnemonic as M;
    let native = i.stack_pointer_increment().unsigned_abs() == 8;
    let direct = i.op0_kind() == OpKind::NearBranch64;
    Some(match i.mnemonic() {
        M::Push if native => Insn::Push { from: source(i, 0)? },
        M::Pop if native => Insn::Pop { to: register(i, 0)? },
        M::Leave if i.code().op_code().operand_size() == 64 => Insn::Leave,
        M::Jmp if direct => Insn::Jump { to: i.near_branch_target() },
        M::Call if direct => Insn::Call { to: i.near_branch_target() },
        M::Jmp if i.is_jmp_near_indirect() && width(i, 0) == 8 => Insn::JumpIndirect { to: operand(i, 0)? },
        M::Call if i.is_call_near_indirect() && width(i, 0) == 8 => Insn::CallIndirect { to: operand(i, 0)? },
        M::Ret => {
            let drop = if i.op_count() == 1 { i.immediate16() } else { 0 };
            if i.stack_pointer_increment() != 8 + i32::from(drop) {
                return None;
            }
            Insn::Return { drop }
        }
        _ if direct && i.is_jcc_short_or_near() => {
            Insn::JumpIf { condition: condition(i)?, to: i.near_branch_target() }
        }
        _ => return None,
    })
}
