//! Privileged and system instructions.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::control_registers::{
    clts, lmsw, mov_from_cr, mov_from_dr, mov_to_cr, mov_to_cr2, mov_to_dr, smsw,
};
use super::descriptors::{
    lar, lgdt, lidt, lldt, load_far_pointer, lsl, ltr, mov_from_segment, mov_to_segment, sgdt, sidt, sldt,
    store_tr, verify,
};
use crate::cpu::{Cpu, Env};
use crate::decode::{Decoded, operands, width};
use crate::exits::{CrAccess, CrOperation, InstructionExit};
use crate::op::{Handler, Intent, Op, address, prefix};
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

fn undefined(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    Err(cpu.undefined())
}

pub(super) fn decode(i: &Instruction, long: bool) -> Option<Decoded> {
    use Mnemonic as M;
    let mut aux = 0;
    let mut with_aux = |value: u16, handler: Handler| {
        aux = value;
        handler
    };
    let run: Handler = match i.mnemonic() {
        M::Mov => special_mov(i)?.0,
        M::Clts => clts,
        M::Lmsw => lmsw,
        M::Smsw => smsw,
        M::Lss => with_aux(Seg::Ss as u16, load_far_pointer),
        M::Lfs => with_aux(Seg::Fs as u16, load_far_pointer),
        M::Lgs => with_aux(Seg::Gs as u16, load_far_pointer),
        M::Lds => with_aux(Seg::Ds as u16, load_far_pointer),
        M::Les => with_aux(Seg::Es as u16, load_far_pointer),
        M::Lgdt => lgdt,
        M::Lidt => lidt,
        M::Sgdt => sgdt,
        M::Sidt => sidt,
        M::Ltr => ltr,
        M::Lldt => lldt,
        M::Str => store_tr,
        M::Sldt => sldt,
        M::Lar => lar,
        M::Lsl => lsl,
        M::Verr => verify,
        M::Verw => with_aux(1, verify),
        M::Invlpg => invlpg,
        M::Invpcid => invpcid,
        M::Hlt => hlt,
        M::Invd => invd,
        M::Wbinvd | M::Wbnoinvd => wbinvd,
        M::Rdmsr => rdmsr,
        M::Wrmsr => wrmsr,
        M::Cpuid => cpuid,
        M::Monitor => monitor,
        M::Mwait => mwait,
        M::Pconfig => pconfig,
        M::Pause => pause,
        M::Rdtsc => rdtsc,
        M::Rdtscp => rdtscp,
        M::Rdpid => rdpid,
        M::Rdpmc => rdpmc,
        M::Cli => cli,
        M::Sti => sti,
        M::Rdpkru => rdpkru,
        M::Wrpkru => wrpkru,
        M::Clac => alignment_flag,
        M::Stac => with_aux(1, alignment_flag),
        M::Swapgs => swapgs,
        M::Rdfsbase => with_aux(Seg::Fs as u16, read_base),
        M::Rdgsbase => with_aux(Seg::Gs as u16, read_base),
        M::Wrfsbase => with_aux(Seg::Fs as u16, write_base),
        M::Wrgsbase => with_aux(Seg::Gs as u16, write_base),
        M::Xgetbv => xgetbv,
        M::Xsetbv => xsetbv,
        M::Rdrand | M::Rdseed => random,
        _ => return None,
    };
    let mut op = operands(i, run, long);
    op.aux = aux;
    if let Some((_, dst, src)) = special_mov(i).filter(|_| i.mnemonic() == M::Mov) {
        op.dst = dst;
        op.src = src;
    }
    let bytes = match i.mnemonic() {
        M::Lgdt | M::Lidt => i.code().op_code().operand_size() as usize / 8,
        M::Lss | M::Lfs | M::Lgs | M::Lds | M::Les | M::Lar | M::Lsl => i.op0_register().size(),
        _ if i.op_count() > 0 && i.op0_kind() == OpKind::Register => width(i, 0),
        _ => 4,
    };
    match bytes {
        8 => op.prefix |= prefix::SIZE64,
        2 => op.prefix |= prefix::SIZE16,
        _ => {}
    }
    Some(Decoded::plain(op))
}

/// Keeps the names of the accumulator pair in one place.
const _: () = assert!(RAX == Gpr::Rax as u8 && RCX == Gpr::Rcx as u8 && RDX == Gpr::Rdx as u8);
