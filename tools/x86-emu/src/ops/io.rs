//! Port I/O: the permission checks here, the access itself by the owner.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::string::{string_address, string_operands};
use crate::cpu::{Cpu, Env};
use crate::decode::{Decoded, operands};
use crate::exits::{InstructionExit, Io, IoDirection, StringIo};
use crate::op::{Intent, Op, address, prefix};
use crate::stop::{Step, Stop};
use x86_arch::{Seg, flags};

const RAX: u8 = 0;
const RCX: u8 = 1;
const RDX: u8 = 2;
const RSI: u8 = 6;
const RDI: u8 = 7;
/// The port is an immediate.
const IMMEDIATE: u8 = 1;

impl Cpu {
    /// IOPL, or the I/O permission bitmap of the TSS (SDM vol. 1, "I/O Port Addressing").
    fn check_port(&mut self, env: &mut Env<'_>, port: u16, size: u8) -> Step {
        let iopl = (self.state.flags.rest() & flags::IOPL) >> 12;
        if u64::from(self.state.cpl()) <= iopl {
            return Ok(());
        }
        const MAP_BASE: u32 = 102;
        if self.state.tr.attributes.unusable() || self.state.tr.limit < MAP_BASE + 1 {
            return Err(self.general_protection(0));
        }
        let base: u16 = self.load_system(env, self.state.tr.base.wrapping_add(u64::from(MAP_BASE)))?;
        let at = u32::from(base) + u32::from(port / 8);
        if at + 1 > self.state.tr.limit {
            return Err(self.general_protection(0));
        }
        let bits: u16 = self.load_system(env, self.state.tr.base.wrapping_add(u64::from(at)))?;
        let wanted = ((1u16 << size) - 1) << (port % 8);
        if bits & wanted != 0 { Err(self.general_protection(0)) } else { Ok(()) }
    }

    fn port(&self, op: &Op) -> u16 {
        if op.dst == IMMEDIATE { op.imm as u8 as u16 } else { self.state.regs.slot(RDX) as u16 }
    }
}

/// IN and OUT: `aux` is the size, `dst` whether the port is an immediate, `src` 1 for OUT.
fn in_out(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let port = cpu.port(op);
    let size = op.aux as u8;
    cpu.check_port(env, port, size)?;
    let out = op.src == 1;
    let mask = u32::MAX >> (32 - 8 * u32::from(size));
    let exit = Io {
        port,
        size,
        direction: if out { IoDirection::Out } else { IoDirection::In },
        value: if out { cpu.state.regs.slot(RAX) as u32 & mask } else { 0 },
        immediate: op.dst == IMMEDIATE,
        string: None,
    };
    cpu.meet_port(port, size);
    Err(cpu.instruction_exit(InstructionExit::Io(exit)))
}

fn ins_outs(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let port = cpu.port(op);
    let size = op.aux as u8;
    let mask = op.address_mask();
    let rep = op.prefix & (prefix::REP | prefix::REPNE) != 0;
    if rep && cpu.state.regs.slot(RCX) & mask == 0 {
        return Ok(());
    }
    cpu.check_port(env, port, size)?;
    let out = op.src == 1;
    let linear: Result<u64, Stop> = if out {
        cpu.linear_in(op, cpu.state.regs.slot(RSI) & mask, u64::from(size), Intent::Read)
    } else if op.address & address::CHECKED != 0 {
        cpu.checked_linear(Seg::Es, cpu.state.regs.slot(RDI) & mask, u64::from(size), Intent::Write)
    } else {
        Ok(cpu.state.regs.slot(RDI) & mask)
    };
    let exit = Io {
        port,
        size,
        direction: if out { IoDirection::Out } else { IoDirection::In },
        value: 0,
        immediate: false,
        string: Some(StringIo { rep, address: linear?, index_mask: mask }),
    };
    cpu.meet_port(port, size);
    Err(cpu.instruction_exit(InstructionExit::Io(exit)))
}

pub(super) fn decode(i: &Instruction, long: bool) -> Option<Decoded> {
    use Mnemonic as M;
    let (out, string) = match i.mnemonic() {
        M::In => (false, false),
        M::Out => (true, false),
        M::Insb | M::Insw | M::Insd => (false, true),
        M::Outsb | M::Outsw | M::Outsd => (true, true),
        _ => return None,
    };
    let mut op = operands(i, if string { ins_outs } else { in_out }, long);
    op.dst = 0;
    op.src = u8::from(out);
    if string {
        let (size, kind) = string_operands(i)?;
        op.aux = size as u16;
        string_address(i, kind, long, &mut op);
    } else {
        let (port, data) = if out { (0, 1) } else { (1, 0) };
        op.aux = i.op_register(data).size() as u16;
        if i.op_kind(port) == OpKind::Immediate8 {
            op.dst = IMMEDIATE;
        }
    }
    Some(Decoded::plain(op))
}
