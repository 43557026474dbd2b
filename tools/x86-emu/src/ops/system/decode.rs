//! Which instruction is which operation, as a table.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::*;
use crate::decode::{Decoded, operands, width};
use crate::op::Handler;
use crate::ops::control_registers::{
    clts, lmsw, mov_from_cr, mov_from_dr, mov_to_cr, mov_to_cr2, mov_to_dr, smsw,
};
use crate::ops::descriptors::{
    lar, lgdt, lidt, lldt, load_far_pointer, lsl, ltr, mov_from_segment, mov_to_segment, sgdt, sidt, sldt,
    store_tr, verify,
};
use Mnemonic as M;
use Size::{Destination, Encoding, FirstRegister};

/// One instruction.
struct Row {
    mnemonic: Mnemonic,
    run: Handler,
    /// What the handler finds in [`Op::aux`].
    aux: u16,
    size: Size,
}

/// Where an instruction says how many bytes its operand has.
#[derive(Clone, Copy)]
enum Size {
    /// By its first operand, where that is a register; four otherwise.
    FirstRegister,
    /// By its destination, which is a register.
    Destination,
    /// By its encoding and prefixes.
    Encoding,
}

impl Size {
    fn bytes(self, i: &Instruction) -> usize {
        match self {
            Encoding => i.code().op_code().operand_size() as usize / 8,
            Destination => i.op0_register().size(),
            FirstRegister if i.op_count() > 0 && i.op0_kind() == OpKind::Register => width(i, 0),
            FirstRegister => 4,
        }
    }
}

const fn row(mnemonic: Mnemonic, run: Handler) -> Row {
    Row { mnemonic, run, aux: 0, size: FirstRegister }
}

impl Row {
    /// The row of a handler that several instructions share, which finds this in [`Op::aux`].
    const fn with(mut self, aux: u16) -> Self {
        self.aux = aux;
        self
    }

    const fn sized(mut self, size: Size) -> Self {
        self.size = size;
        self
    }
}

const TABLE: &[Row] = &[
    row(M::Clts, clts),
    row(M::Lmsw, lmsw),
    row(M::Smsw, smsw),
    row(M::Lss, load_far_pointer).with(Seg::Ss as u16).sized(Destination),
    row(M::Lfs, load_far_pointer).with(Seg::Fs as u16).sized(Destination),
    row(M::Lgs, load_far_pointer).with(Seg::Gs as u16).sized(Destination),
    row(M::Lds, load_far_pointer).with(Seg::Ds as u16).sized(Destination),
    row(M::Les, load_far_pointer).with(Seg::Es as u16).sized(Destination),
    row(M::Lgdt, lgdt).sized(Encoding),
    row(M::Lidt, lidt).sized(Encoding),
    row(M::Sgdt, sgdt),
    row(M::Sidt, sidt),
    row(M::Ltr, ltr),
    row(M::Lldt, lldt),
    row(M::Str, store_tr),
    row(M::Sldt, sldt),
    row(M::Lar, lar).sized(Destination),
    row(M::Lsl, lsl).sized(Destination),
    row(M::Verr, verify),
    row(M::Verw, verify).with(1),
    row(M::Invlpg, invlpg),
    row(M::Invpcid, invpcid),
    row(M::Hlt, hlt),
    row(M::Invd, invd),
    row(M::Wbinvd, wbinvd),
    row(M::Wbnoinvd, wbinvd),
    row(M::Rdmsr, rdmsr),
    row(M::Wrmsr, wrmsr),
    row(M::Cpuid, cpuid),
    row(M::Monitor, monitor),
    row(M::Mwait, mwait),
    row(M::Pconfig, pconfig),
    row(M::Pause, pause),
    row(M::Rdtsc, rdtsc),
    row(M::Rdtscp, rdtscp),
    row(M::Rdpid, rdpid),
    row(M::Rdpmc, rdpmc),
    row(M::Cli, cli),
    row(M::Sti, sti),
    row(M::Rdpkru, rdpkru),
    row(M::Wrpkru, wrpkru),
    row(M::Clac, alignment_flag),
    row(M::Stac, alignment_flag).with(1),
    row(M::Swapgs, swapgs),
    row(M::Rdfsbase, read_base).with(Seg::Fs as u16),
    row(M::Rdgsbase, read_base).with(Seg::Gs as u16),
    row(M::Wrfsbase, write_base).with(Seg::Fs as u16),
    row(M::Wrgsbase, write_base).with(Seg::Gs as u16),
    row(M::Xgetbv, xgetbv),
    row(M::Xsetbv, xsetbv),
    row(M::Rdrand, random),
    row(M::Rdseed, random),
];

/// MOV between a general register and one of another file.
fn special_mov(i: &Instruction) -> Option<(Handler, u8, u8)> {
    let register = |n| if i.op_kind(n) == OpKind::Register { i.op_register(n) } else { Register::None };
    let (to, from) = (register(0), register(1));
    let number = |r: Register| r.number() as u8;
    Some(if to.is_cr() {
        match number(to) {
            2 => (mov_to_cr2 as Handler, 2, number(from)),
            0 | 3 | 4 | 8 => (mov_to_cr as Handler, number(to), number(from)),
            _ => (undefined as Handler, 0, 0),
        }
    } else if from.is_cr() {
        (mov_from_cr as Handler, number(to), number(from))
    } else if to.is_dr() {
        (mov_to_dr as Handler, number(to), number(from))
    } else if from.is_dr() {
        (mov_from_dr as Handler, number(to), number(from))
    } else if to.is_segment_register() {
        let source = if i.op1_kind() == OpKind::Register { number(from) } else { 0 };
        (mov_to_segment as Handler, number(to), source)
    } else if from.is_segment_register() {
        let target = if i.op0_kind() == OpKind::Register { number(to) } else { 0 };
        (mov_from_segment as Handler, target, number(from))
    } else {
        return None;
    })
}

pub(in crate::ops) fn decode(i: &Instruction, long: bool) -> Option<Decoded> {
    let (mut op, size) = if i.mnemonic() == M::Mov {
        let (run, dst, src) = special_mov(i)?;
        (Op { dst, src, ..operands(i, run, long) }, FirstRegister)
    } else {
        let row = TABLE.iter().find(|row| row.mnemonic == i.mnemonic())?;
        (Op { aux: row.aux, ..operands(i, row.run, long) }, row.size)
    };
    match size.bytes(i) {
        8 => op.prefix |= prefix::SIZE64,
        2 => op.prefix |= prefix::SIZE16,
        _ => {}
    }
    Some(Decoded::plain(op))
}
