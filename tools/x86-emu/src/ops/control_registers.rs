//! MOV to and from control and debug registers, CLTS, LMSW and SMSW.

use crate::cpu::{Cpu, Env};
use crate::exits::{CrAccess, CrOperation, DrAccess, InstructionExit};
use crate::op::Op;
use crate::stop::{Step, Stop};
use x86_arch::{Width, cr0, cr4, dr6, dr7};

/// LMSW and SMSW: the four bits that LMSW can change.
const LMSW_BITS: u64 = cr0::PE | cr0::MP | cr0::EM | cr0::TS;

/// MOV to a control register: `dst` is its number, `src` the general register.
pub(super) fn mov_to_cr(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    cpu.require_supervisor()?;
    let value = cpu.state.regs.slot(op.src);
    let value = if cpu.is_long_mode() { value } else { value & 0xFFFF_FFFF };
    let intercepted = match op.dst {
        3 => cpu.controls.intercept_cr3_write,
        8 => cpu.controls.intercept_cr8_write,
        _ => false,
    };
    if intercepted {
        let operation = CrOperation::Write { value, gpr: op.src };
        let access = CrAccess { register: op.dst, operation };
        return Err(cpu.instruction_exit(InstructionExit::CrAccess(access)));
    }
    match op.dst {
        0 | 4 => cpu.write_masked(op.dst, value, op.src),
        register => cpu.commit_cr(register, value),
    }
}

pub(super) fn mov_from_cr(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    cpu.require_supervisor()?;
    let value = match op.src {
        0 => cpu.visible_cr0(),
        2 => cpu.state.control.cr2,
        3 => cpu.state.control.cr3,
        4 => cpu.visible_cr4(),
        8 if cpu.controls.intercept_cr8_read => {
            let access = CrAccess { register: 8, operation: CrOperation::Read { gpr: op.dst } };
            return Err(cpu.instruction_exit(InstructionExit::CrAccess(access)));
        }
        8 => cpu.state.control.cr8,
        _ => return Err(cpu.undefined()),
    };
    cpu.state.regs.set_slot(op.dst, if cpu.is_long_mode() { value } else { value & 0xFFFF_FFFF });
    Ok(())
}

pub(super) fn mov_to_cr2(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    cpu.require_supervisor()?;
    let value = cpu.state.regs.slot(op.src);
    cpu.state.control.cr2 = if cpu.is_long_mode() { value } else { value & 0xFFFF_FFFF };
    Ok(())
}

pub(super) fn clts(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    cpu.require_supervisor()?;
    if cpu.controls.cr0_owned & cr0::TS != 0 {
        if cpu.controls.cr0_shadow & cr0::TS != 0 {
            let access = CrAccess { register: 0, operation: CrOperation::Clts };
            return Err(cpu.instruction_exit(InstructionExit::CrAccess(access)));
        }
        return Ok(());
    }
    cpu.state.control.cr0 &= !cr0::TS;
    Ok(())
}

pub(super) fn lmsw(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.require_supervisor()?;
    let source = u64::from(cpu.target::<u16>(env, op)?);
    let visible = cpu.visible_cr0();
    // PE can be set but not cleared.
    let value = visible & !LMSW_BITS | source & LMSW_BITS | visible & cr0::PE;
    cpu.write_masked(0, value, 0)
}

pub(super) fn smsw(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.require_not_umip()?;
    let value = cpu.visible_cr0();
    if op.writes_memory() {
        return cpu.store_operand(env, op, value as u16);
    }
    match op.operand_bytes() {
        8 => cpu.state.regs.set_slot(op.dst, value),
        4 => u32::write(&mut cpu.state.regs, op.dst, value as u32),
        _ => u16::write(&mut cpu.state.regs, op.dst, value as u16),
    }
    Ok(())
}

/// DR4 and DR5 are DR6 and DR7 unless CR4.DE says otherwise.
pub(super) fn debug_register(cpu: &mut Cpu, number: u8) -> Result<u8, Stop> {
    match number {
        4 | 5 if cpu.state.control.cr4 & cr4::DE != 0 => Err(cpu.undefined()),
        4 | 5 => Ok(number + 2),
        _ => Ok(number),
    }
}

pub(super) fn intercepted_dr(cpu: &mut Cpu, register: u8, gpr: u8, write: bool) -> Step {
    if cpu.controls.intercept_dr {
        let access = DrAccess { register, gpr, write };
        return Err(cpu.instruction_exit(InstructionExit::DrAccess(access)));
    }
    Ok(())
}

pub(super) fn mov_to_dr(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    cpu.require_supervisor()?;
    let register = debug_register(cpu, op.dst)?;
    intercepted_dr(cpu, register, op.src, true)?;
    cpu.check_general_detect()?;
    let value = cpu.state.regs.slot(op.src);
    match register {
        0..=3 => {
            if let Some(slot) = cpu.state.debug.address.get_mut(register as usize) {
                *slot = value;
            }
        }
        _ if value >> 32 != 0 => return Err(cpu.general_protection(0)),
        6 => cpu.state.debug.dr6 = dr6::FIXED | value & dr6::WRITABLE,
        _ => cpu.state.debug.dr7 = dr7::FIXED | value & dr7::WRITABLE,
    }
    cpu.arm_breakpoints();
    cpu.attention = true;
    Ok(())
}

pub(super) fn mov_from_dr(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    cpu.require_supervisor()?;
    let register = debug_register(cpu, op.src)?;
    intercepted_dr(cpu, register, op.dst, false)?;
    cpu.check_general_detect()?;
    let value = match register {
        6 => cpu.state.debug.dr6,
        7 => cpu.state.debug.dr7,
        n => cpu.state.debug.address.get(n as usize).copied().unwrap_or(0),
    };
    cpu.state.regs.set_slot(op.dst, value);
    Ok(())
}
