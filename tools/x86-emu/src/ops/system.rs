//! Privileged and system instructions.

mod decode;

pub(super) use decode::decode;

use crate::cpu::{Cpu, Env};
use crate::exits::{CrAccess, CrOperation, InstructionExit};
use crate::op::{Intent, Op, address, prefix};
use crate::stop::{Step, Stop};
use x86_arch::{Gpr, Seg, Segment, Shadow, Width, cr4, flags};

const RAX: u8 = 0;
const RCX: u8 = 1;
const RDX: u8 = 2;

/// PAUSE instructions after which the thread offers its processor to others. A lock that is soon free is taken
/// before; a yield costs as much as some hundred instructions.
const PAUSES_PER_YIELD: u32 = 64;

impl Cpu {
    pub(super) fn require_supervisor(&mut self) -> Step {
        if self.state.cpl() == 0 { Ok(()) } else { Err(self.general_protection(0)) }
    }

    /// UMIP keeps descriptor-table addresses and CR0 from user code.
    pub(super) fn require_not_umip(&mut self) -> Step {
        if self.state.control.cr4 & cr4::UMIP != 0 && self.state.cpl() != 0 {
            return Err(self.general_protection(0));
        }
        Ok(())
    }

    pub(super) fn require_long_mode(&mut self) -> Step {
        if self.is_long_mode() { Ok(()) } else { Err(self.undefined()) }
    }

    pub(super) fn commit_cr(&mut self, register: u8, value: u64) -> Step {
        self.write_cr(register, value).map_err(|event| self.raise(event))
    }

    /// Writes CR0 or CR4 under the owner's masks.
    pub(super) fn write_masked(&mut self, register: u8, value: u64, gpr: u8) -> Step {
        let (owned, shadow, current) = if register == 0 {
            (self.controls.cr0_owned, self.controls.cr0_shadow, self.state.control.cr0)
        } else {
            (self.controls.cr4_owned, self.controls.cr4_shadow, self.state.control.cr4)
        };
        if (value ^ shadow) & owned != 0 {
            let operation = CrOperation::Write { value, gpr };
            return Err(self.instruction_exit(InstructionExit::CrAccess(CrAccess { register, operation })));
        }
        self.commit_cr(register, value & !owned | current & owned)
    }

    pub(super) fn set_pair(&mut self, value: u64) {
        self.state.regs.set_slot(RAX, value & 0xFFFF_FFFF);
        self.state.regs.set_slot(RDX, value >> 32);
    }

    pub(super) fn pair(&self) -> u64 {
        self.state.regs.slot(RAX) & 0xFFFF_FFFF | self.state.regs.slot(RDX) << 32
    }
}

fn invlpg(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    cpu.require_supervisor()?;
    let offset = cpu.effective(op);
    let linear = if op.address & address::SLOW != 0 && cpu.is_long_mode() {
        cpu.linear_in(op, offset, 1, Intent::Read)?
    } else {
        offset
    };
    cpu.tlb.flush_linear_page(linear);
    cpu.attention = true;
    Ok(())
}

/// INVPCID. Everything is dropped whatever the type: more than asked for is always allowed.
fn invpcid(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.require_supervisor()?;
    let kind = cpu.state.regs.slot(op.dst);
    let descriptor: u128 = cpu.load_operand(env, op)?;
    let pcid = descriptor as u64;
    let linear = (descriptor >> 64) as u64;
    let names_pcid = kind < 2;
    let bad = kind > 3
        || pcid >> 12 != 0
        || names_pcid && pcid != 0 && cpu.state.control.cr4 & cr4::PCIDE == 0
        || kind == 0 && !cpu.canonical(linear);
    if bad {
        return Err(cpu.general_protection(0));
    }
    cpu.tlb.flush_linear();
    cpu.attention = true;
    Ok(())
}

fn privileged_exit(cpu: &mut Cpu, what: InstructionExit) -> Step {
    cpu.require_supervisor()?;
    Err(cpu.instruction_exit(what))
}
fn hlt(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    privileged_exit(cpu, InstructionExit::Hlt)
}
fn invd(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    privileged_exit(cpu, InstructionExit::Invd)
}
fn wbinvd(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    privileged_exit(cpu, InstructionExit::Wbinvd)
}
fn rdmsr(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    let index = cpu.state.regs.slot(RCX) as u32;
    privileged_exit(cpu, InstructionExit::Rdmsr { index })
}
fn wrmsr(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    let index = cpu.state.regs.slot(RCX) as u32;
    let value = cpu.pair();
    privileged_exit(cpu, InstructionExit::Wrmsr { index, value })
}
fn cpuid(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    Err(cpu.instruction_exit(InstructionExit::Cpuid))
}
fn monitor(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    if cpu.state.cpl() != 0 {
        return Err(cpu.undefined());
    }
    Err(cpu.instruction_exit(InstructionExit::Monitor))
}
fn mwait(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    if cpu.state.cpl() != 0 {
        return Err(cpu.undefined());
    }
    Err(cpu.instruction_exit(InstructionExit::Mwait))
}
fn pconfig(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    privileged_exit(cpu, InstructionExit::Pconfig)
}
fn pause(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    if cpu.controls.intercept_pause {
        return Err(cpu.instruction_exit(InstructionExit::Pause));
    }
    // A spinning CPU waits for another one, which may be waiting for this thread's processor.
    cpu.pauses = cpu.pauses.wrapping_add(1);
    if cpu.pauses.is_multiple_of(PAUSES_PER_YIELD) {
        tdvisor_base::sync::yield_now();
    } else {
        core::hint::spin_loop();
    }
    Ok(())
}

fn check_tsc(cpu: &mut Cpu) -> Step {
    if cpu.state.control.cr4 & cr4::TSD != 0 && cpu.state.cpl() != 0 {
        return Err(cpu.general_protection(0));
    }
    Ok(())
}
fn rdtsc(cpu: &mut Cpu, env: &mut Env<'_>, _: &Op) -> Step {
    check_tsc(cpu)?;
    let now = env.bus.tsc();
    cpu.set_pair(now);
    Ok(())
}
fn rdtscp(cpu: &mut Cpu, env: &mut Env<'_>, _: &Op) -> Step {
    check_tsc(cpu)?;
    let now = env.bus.tsc();
    cpu.set_pair(now);
    cpu.state.regs.set_slot(RCX, cpu.state.msrs.tsc_aux & 0xFFFF_FFFF);
    Ok(())
}
fn rdpid(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    cpu.state.regs.set_slot(op.dst, cpu.state.msrs.tsc_aux & 0xFFFF_FFFF);
    Ok(())
}
/// Without CR4.PKE the two instructions are undefined; ECX must be zero (SDM vol. 2).
fn check_pkru(cpu: &mut Cpu) -> Step {
    if cpu.state.control.cr4 & cr4::PKE == 0 {
        return Err(cpu.undefined());
    }
    if cpu.state.regs.slot(RCX) as u32 != 0 {
        return Err(cpu.general_protection(0));
    }
    Ok(())
}
fn rdpkru(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    check_pkru(cpu)?;
    cpu.set_pair(u64::from(cpu.state.pkru));
    Ok(())
}
fn wrpkru(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    check_pkru(cpu)?;
    if cpu.state.regs.slot(RDX) as u32 != 0 {
        return Err(cpu.general_protection(0));
    }
    cpu.write_pkru(cpu.state.regs.slot(RAX) as u32);
    Ok(())
}
fn rdpmc(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    if cpu.state.control.cr4 & cr4::PCE == 0 && cpu.state.cpl() != 0 {
        return Err(cpu.general_protection(0));
    }
    let index = cpu.state.regs.slot(RCX) as u32;
    Err(cpu.instruction_exit(InstructionExit::Rdpmc { index }))
}

fn cli(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    let flag = interrupt_flag(cpu)?;
    cpu.state.flags.set_rest(cpu.state.flags.rest() & !flag);
    Ok(())
}
fn sti(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    let flag = interrupt_flag(cpu)?;
    let rest = cpu.state.flags.rest();
    if flag == flags::VIF {
        if rest & flags::VIP != 0 {
            return Err(cpu.general_protection(0));
        }
        cpu.state.flags.set_rest(rest | flags::VIF);
        return Ok(());
    }
    if rest & flags::IF == 0 {
        cpu.state.flags.set_rest(rest | flags::IF);
        cpu.state.interruptibility.shadow = Shadow::Sti;
        cpu.attention = true;
    }
    Ok(())
}
/// The flag that CLI and STI change: IF, or VIF for user code under CR4.PVI (SDM vol. 2, CLI and STI).
fn interrupt_flag(cpu: &mut Cpu) -> Result<u64, Stop> {
    let cpl = cpu.state.cpl();
    if u64::from(cpl) <= (cpu.state.flags.rest() & flags::IOPL) >> 12 {
        Ok(flags::IF)
    } else if cpl == 3 && cpu.state.control.cr4 & cr4::PVI != 0 {
        Ok(flags::VIF)
    } else {
        Err(cpu.general_protection(0))
    }
}
/// CLAC and STAC: `aux` is 1 to set.
fn alignment_flag(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    if cpu.state.cpl() != 0 {
        return Err(cpu.undefined());
    }
    let rest = cpu.state.flags.rest();
    cpu.state.flags.set_rest(if op.aux == 1 { rest | flags::AC } else { rest & !flags::AC });
    cpu.refresh_mode();
    Ok(())
}

fn swapgs(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    cpu.require_long_mode()?;
    cpu.require_supervisor()?;
    let base = cpu.state.msrs.kernel_gs_base;
    cpu.state.msrs.kernel_gs_base = cpu.state.segment(Seg::Gs).base;
    cpu.state.segment_mut(Seg::Gs).base = base;
    Ok(())
}
fn check_fsgsbase(cpu: &mut Cpu) -> Step {
    if cpu.state.control.cr4 & cr4::FSGSBASE == 0 || !cpu.is_long_mode() {
        return Err(cpu.undefined());
    }
    Ok(())
}
/// RDFSBASE and RDGSBASE: `aux` is the segment.
fn read_base(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    check_fsgsbase(cpu)?;
    let base = Seg::from_index(op.aux as u8).map_or(0, |s| cpu.state.segment(s).base);
    let wide = op.operand_bytes() == 8;
    cpu.state.regs.set_slot(op.dst, if wide { base } else { base & 0xFFFF_FFFF });
    Ok(())
}
fn write_base(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    check_fsgsbase(cpu)?;
    let value = cpu.state.regs.slot(op.dst);
    let value = if op.operand_bytes() == 8 { value } else { value & 0xFFFF_FFFF };
    if !cpu.canonical(value) {
        return Err(cpu.general_protection(0));
    }
    if let Some(segment) = Seg::from_index(op.aux as u8) {
        *cpu.state.segment_mut(segment) = Segment { base: value, ..*cpu.state.segment(segment) };
    }
    Ok(())
}

fn xgetbv(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    if cpu.state.control.cr4 & cr4::OSXSAVE == 0 {
        return Err(cpu.undefined());
    }
    match cpu.state.regs.slot(RCX) as u32 {
        0 => {
            let value = cpu.state.control.xcr0;
            cpu.set_pair(value);
            Ok(())
        }
        1 => {
            let value = cpu.state.control.xcr0 & super::extended_state::in_use(&cpu.state);
            cpu.set_pair(value);
            Ok(())
        }
        _ => Err(cpu.general_protection(0)),
    }
}
fn xsetbv(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    if cpu.state.control.cr4 & cr4::OSXSAVE == 0 {
        return Err(cpu.undefined());
    }
    let index = cpu.state.regs.slot(RCX) as u32;
    let value = cpu.pair();
    privileged_exit(cpu, InstructionExit::Xsetbv { index, value })
}

/// RDRAND and RDSEED: CF says whether a number was ready; the other flags are cleared.
fn random(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let word = env.bus.random();
    let value = word.unwrap_or(0);
    match op.operand_bytes() {
        8 => cpu.state.regs.set_slot(op.dst, value),
        4 => u32::write(&mut cpu.state.regs, op.dst, value as u32),
        _ => u16::write(&mut cpu.state.regs, op.dst, value as u16),
    }
    cpu.state.flags.replace(flags::ARITHMETIC, u64::from(word.is_some()) * flags::CF);
    Ok(())
}

fn undefined(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    Err(cpu.undefined())
}

/// Keeps the names of the accumulator pair in one place.
const _: () = assert!(RAX == Gpr::Rax as u8 && RCX == Gpr::Rcx as u8 && RDX == Gpr::Rdx as u8);
