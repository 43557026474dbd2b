//! Privileged and system instructions.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::width::Width;
use crate::cpu::{Cpu, Env};
use crate::decode::{Decoded, operands, width};
use crate::exits::{CrAccess, CrOperation, DrAccess, InstructionExit};
use crate::flags;
use crate::op::{Handler, Intent, Op, address, prefix};
use crate::segments::{Descriptor, is_null};
use crate::state::{Gpr, Seg, Segment, Shadow, TableRegister, cr0, cr4};
use crate::stop::{Step, Stop};

const RAX: u8 = 0;
const RCX: u8 = 1;
const RDX: u8 = 2;

/// LMSW and SMSW: the four bits that LMSW can change.
const LMSW_BITS: u64 = cr0::PE | cr0::MP | cr0::EM | cr0::TS;

impl Cpu {
    fn require_supervisor(&mut self) -> Step {
        if self.cpl() == 0 { Ok(()) } else { Err(self.general_protection(0)) }
    }

    /// UMIP keeps descriptor-table addresses and CR0 from user code.
    fn require_not_umip(&mut self) -> Step {
        if self.control.cr4 & cr4::UMIP != 0 && self.cpl() != 0 {
            return Err(self.general_protection(0));
        }
        Ok(())
    }

    fn require_long_mode(&mut self) -> Step {
        if self.is_long_mode() { Ok(()) } else { Err(self.undefined()) }
    }

    fn commit_cr(&mut self, register: u8, value: u64) -> Step {
        self.write_cr(register, value).map_err(|event| self.raise(event))
    }

    /// Writes CR0 or CR4 under the owner's masks.
    fn write_masked(&mut self, register: u8, value: u64, gpr: u8) -> Step {
        let (owned, shadow, current) = if register == 0 {
            (self.controls.cr0_owned, self.controls.cr0_shadow, self.control.cr0)
        } else {
            (self.controls.cr4_owned, self.controls.cr4_shadow, self.control.cr4)
        };
        if (value ^ shadow) & owned != 0 {
            let operation = CrOperation::Write { value, gpr };
            return Err(self.instruction_exit(InstructionExit::CrAccess(CrAccess { register, operation })));
        }
        self.commit_cr(register, value & !owned | current & owned)
    }

    fn set_pair(&mut self, value: u64) {
        self.regs.set_slot(RAX, value & 0xFFFF_FFFF);
        self.regs.set_slot(RDX, value >> 32);
    }

    fn pair(&self) -> u64 {
        self.regs.slot(RAX) & 0xFFFF_FFFF | self.regs.slot(RDX) << 32
    }
}

/// MOV to a control register: `dst` is its number, `src` the general register.
fn mov_to_cr(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    cpu.require_supervisor()?;
    let value = cpu.regs.slot(op.src);
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

fn mov_from_cr(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    cpu.require_supervisor()?;
    let value = match op.src {
        0 => cpu.visible_cr0(),
        2 => cpu.control.cr2,
        3 => cpu.control.cr3,
        4 => cpu.visible_cr4(),
        8 if cpu.controls.intercept_cr8_read => {
            let access = CrAccess { register: 8, operation: CrOperation::Read { gpr: op.dst } };
            return Err(cpu.instruction_exit(InstructionExit::CrAccess(access)));
        }
        8 => cpu.control.cr8,
        _ => return Err(cpu.undefined()),
    };
    cpu.regs.set_slot(op.dst, if cpu.is_long_mode() { value } else { value & 0xFFFF_FFFF });
    Ok(())
}

fn mov_to_cr2(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    cpu.require_supervisor()?;
    let value = cpu.regs.slot(op.src);
    cpu.control.cr2 = if cpu.is_long_mode() { value } else { value & 0xFFFF_FFFF };
    Ok(())
}

fn clts(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    cpu.require_supervisor()?;
    if cpu.controls.cr0_owned & cr0::TS != 0 {
        if cpu.controls.cr0_shadow & cr0::TS != 0 {
            let access = CrAccess { register: 0, operation: CrOperation::Clts };
            return Err(cpu.instruction_exit(InstructionExit::CrAccess(access)));
        }
        return Ok(());
    }
    cpu.control.cr0 &= !cr0::TS;
    Ok(())
}

fn lmsw(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.require_supervisor()?;
    let source = u64::from(cpu.target::<u16>(env, op)?);
    let visible = cpu.visible_cr0();
    // PE can be set but not cleared.
    let value = visible & !LMSW_BITS | source & LMSW_BITS | visible & cr0::PE;
    cpu.write_masked(0, value, 0)
}

fn smsw(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.require_not_umip()?;
    let value = cpu.visible_cr0();
    if op.writes_memory() {
        return cpu.store_operand(env, op, value as u16);
    }
    match op.operand_bytes() {
        8 => cpu.regs.set_slot(op.dst, value),
        4 => u32::write(&mut cpu.regs, op.dst, value as u32),
        _ => u16::write(&mut cpu.regs, op.dst, value as u16),
    }
    Ok(())
}

/// DR4 and DR5 are DR6 and DR7 unless CR4.DE says otherwise.
fn debug_register(cpu: &mut Cpu, number: u8) -> Result<u8, Stop> {
    match number {
        4 | 5 if cpu.control.cr4 & cr4::DE != 0 => Err(cpu.undefined()),
        4 | 5 => Ok(number + 2),
        _ => Ok(number),
    }
}

fn intercepted_dr(cpu: &mut Cpu, register: u8, gpr: u8, write: bool) -> Step {
    if cpu.controls.intercept_dr {
        let access = DrAccess { register, gpr, write };
        return Err(cpu.instruction_exit(InstructionExit::DrAccess(access)));
    }
    Ok(())
}

fn mov_to_dr(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    const ENABLES: u64 = 0xFF | 1 << 13;
    cpu.require_supervisor()?;
    let register = debug_register(cpu, op.dst)?;
    intercepted_dr(cpu, register, op.src, true)?;
    let value = cpu.regs.slot(op.src);
    match register {
        0..=3 => {
            if let Some(slot) = cpu.debug.address.get_mut(register as usize) {
                *slot = value;
            }
        }
        _ if value >> 32 != 0 => return Err(cpu.general_protection(0)),
        6 => cpu.debug.dr6 = 0xFFFF_0FF0 | value & 0xE00F,
        _ if value & ENABLES != 0 => return Err(cpu.unimplemented("hardware breakpoints")),
        _ => cpu.debug.dr7 = value & 0xFFFF_0300 | 0x400,
    }
    Ok(())
}

fn mov_from_dr(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    cpu.require_supervisor()?;
    let register = debug_register(cpu, op.src)?;
    intercepted_dr(cpu, register, op.dst, false)?;
    let value = match register {
        6 => cpu.debug.dr6,
        7 => cpu.debug.dr7,
        n => cpu.debug.address.get(n as usize).copied().unwrap_or(0),
    };
    cpu.regs.set_slot(op.dst, value);
    Ok(())
}

/// MOV to a segment register: `dst` is its number.
fn mov_to_segment(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let selector: u16 = cpu.source(env, op)?;
    match Seg::from_index(op.dst) {
        None | Some(Seg::Cs) => Err(cpu.undefined()),
        Some(segment) => {
            cpu.load_data_segment(env, segment, selector)?;
            if segment == Seg::Ss {
                cpu.interruptibility.shadow = Shadow::MovSs;
            }
            cpu.attention = true;
            Ok(())
        }
    }
}

fn mov_from_segment(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let selector = Seg::from_index(op.src).map_or(0, |s| cpu.segment(s).selector);
    store_selector(cpu, env, op, selector)
}

/// Memory takes 16 bits; a wider register is zero-extended.
fn store_selector(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, selector: u16) -> Step {
    if op.writes_memory() {
        return cpu.store_operand(env, op, selector);
    }
    if op.operand_bytes() == 2 {
        u16::write(&mut cpu.regs, op.dst, selector);
    } else {
        cpu.regs.set_slot(op.dst, u64::from(selector));
    }
    Ok(())
}

/// LSS, LFS, LGS, LDS and LES: `aux` is the segment.
fn load_far_pointer(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let bytes = u64::from(op.operand_bytes());
    let linear = cpu.linear(op, bytes + 2, Intent::Read)?;
    let offset = match bytes {
        8 => cpu.load::<u64>(env, linear)?,
        4 => u64::from(cpu.load::<u32>(env, linear)?),
        _ => u64::from(cpu.load::<u16>(env, linear)?),
    };
    let selector: u16 = cpu.load(env, linear.wrapping_add(bytes))?;
    let Some(segment) = Seg::from_index(op.aux as u8) else { return Err(cpu.undefined()) };
    cpu.load_data_segment(env, segment, selector)?;
    if bytes == 2 {
        u16::write(&mut cpu.regs, op.dst, offset as u16);
    } else {
        cpu.regs.set_slot(op.dst, offset);
    }
    if segment == Seg::Ss {
        cpu.attention = true;
    }
    Ok(())
}

fn load_table(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<TableRegister, Stop> {
    cpu.require_supervisor()?;
    let linear = cpu.linear(op, 10, Intent::Read)?;
    let limit: u16 = cpu.load(env, linear)?;
    let base = if cpu.is_long_mode() {
        cpu.load::<u64>(env, linear.wrapping_add(2))?
    } else {
        let base = u64::from(cpu.load::<u32>(env, linear.wrapping_add(2))?);
        if op.operand_bytes() == 2 { base & 0xFF_FFFF } else { base }
    };
    if cpu.is_long_mode() && !cpu.canonical(base) {
        return Err(cpu.general_protection(0));
    }
    Ok(TableRegister { base, limit })
}
fn lgdt(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.gdtr = load_table(cpu, env, op)?;
    Ok(())
}
fn lidt(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.idtr = load_table(cpu, env, op)?;
    Ok(())
}
fn store_table(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, table: TableRegister) -> Step {
    cpu.require_not_umip()?;
    let bytes = if cpu.is_long_mode() { 10 } else { 6 };
    let linear = cpu.linear(op, bytes as u64, Intent::Write)?;
    let mut image = [0u8; 10];
    let (limit, base) = image.split_at_mut(2);
    limit.copy_from_slice(&table.limit.to_le_bytes());
    base.copy_from_slice(&table.base.to_le_bytes());
    let view = cpu.view;
    cpu.write_bytes(env, linear, image.get(..bytes).unwrap_or(&image), view)
}
fn sgdt(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    store_table(cpu, env, op, cpu.gdtr)
}
fn sidt(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    store_table(cpu, env, op, cpu.idtr)
}
fn ltr(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.require_supervisor()?;
    let selector = cpu.target::<u16>(env, op)?;
    cpu.load_task_register(env, selector)
}
fn lldt(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.require_supervisor()?;
    let selector = cpu.target::<u16>(env, op)?;
    cpu.load_ldt_register(env, selector)
}
fn store_tr(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.require_not_umip()?;
    store_selector(cpu, env, op, cpu.tr.selector)
}
fn sldt(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.require_not_umip()?;
    store_selector(cpu, env, op, cpu.ldtr.selector)
}

/// Which descriptors LAR and LSL see in IA-32e mode, by system type.
fn visible_descriptor(
    cpu: &mut Cpu,
    env: &mut Env<'_>,
    selector: u16,
    systems: &[u8],
) -> Result<Option<Descriptor>, Stop> {
    if is_null(selector) {
        return Ok(None);
    }
    let descriptor = match cpu.descriptor(env, selector) {
        Ok(descriptor) => descriptor,
        // Outside the table is an answer, not a fault.
        Err(_) if matches!(cpu.stop, crate::stop::Reason::Exception(e) if e.vector == crate::events::vector::GP) =>
        {
            cpu.stop = crate::stop::Reason::None;
            return Ok(None);
        }
        Err(stop) => return Err(stop),
    };
    let attributes = descriptor.attributes();
    if !attributes.is_code_or_data() && !systems.contains(&attributes.kind()) {
        return Ok(None);
    }
    let conforming_code = attributes.is_code() && attributes.kind() & 4 != 0;
    let allowed = conforming_code || cpu.cpl().max((selector & 3) as u8) <= attributes.dpl();
    Ok(allowed.then_some(descriptor))
}
fn write_answer(cpu: &mut Cpu, op: &Op, answer: Option<u32>) {
    if let Some(value) = answer {
        if op.operand_bytes() == 2 {
            u16::write(&mut cpu.regs, op.dst, value as u16);
        } else {
            cpu.regs.set_slot(op.dst, u64::from(value));
        }
    }
    cpu.flags.set_zf(answer.is_some());
}
fn lar(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let selector: u16 = cpu.source(env, op)?;
    let systems: &[u8] = if cpu.is_ia32e() { &[2, 9, 11, 12] } else { &[1, 2, 3, 4, 5, 9, 11, 12] };
    let found = visible_descriptor(cpu, env, selector, systems)?;
    write_answer(cpu, op, found.map(|d| (d.raw >> 32) as u32 & 0x00FF_FF00));
    Ok(())
}
fn lsl(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let selector: u16 = cpu.source(env, op)?;
    let systems: &[u8] = if cpu.is_ia32e() { &[2, 9, 11] } else { &[1, 2, 3, 9, 11] };
    let found = visible_descriptor(cpu, env, selector, systems)?;
    write_answer(cpu, op, found.map(Descriptor::limit));
    Ok(())
}
/// VERR and VERW: `aux` is 1 for writing.
fn verify(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let selector: u16 = cpu.target(env, op)?;
    let found = visible_descriptor(cpu, env, selector, &[])?;
    let allowed = found.is_some_and(|d| {
        let kind = d.attributes().kind();
        let code = kind & 8 != 0;
        if op.aux == 1 { !code && kind & 2 != 0 } else { !code || kind & 2 != 0 }
    });
    cpu.flags.set_zf(allowed);
    Ok(())
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
    let kind = cpu.regs.slot(op.dst);
    let descriptor: u128 = cpu.load_operand(env, op)?;
    let pcid = descriptor as u64;
    let linear = (descriptor >> 64) as u64;
    let names_pcid = kind < 2;
    let bad = kind > 3
        || pcid >> 12 != 0
        || names_pcid && pcid != 0 && cpu.control.cr4 & cr4::PCIDE == 0
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
    let index = cpu.regs.slot(RCX) as u32;
    privileged_exit(cpu, InstructionExit::Rdmsr { index })
}
fn wrmsr(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    let index = cpu.regs.slot(RCX) as u32;
    let value = cpu.pair();
    privileged_exit(cpu, InstructionExit::Wrmsr { index, value })
}
fn cpuid(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    Err(cpu.instruction_exit(InstructionExit::Cpuid))
}
fn monitor(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    if cpu.cpl() != 0 {
        return Err(cpu.undefined());
    }
    Err(cpu.instruction_exit(InstructionExit::Monitor))
}
fn mwait(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    if cpu.cpl() != 0 {
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
    core::hint::spin_loop();
    Ok(())
}

fn check_tsc(cpu: &mut Cpu) -> Step {
    if cpu.control.cr4 & cr4::TSD != 0 && cpu.cpl() != 0 {
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
    cpu.regs.set_slot(RCX, cpu.msrs.tsc_aux & 0xFFFF_FFFF);
    Ok(())
}
fn rdpid(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    cpu.regs.set_slot(op.dst, cpu.msrs.tsc_aux & 0xFFFF_FFFF);
    Ok(())
}
fn rdpmc(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    if cpu.control.cr4 & cr4::PCE == 0 && cpu.cpl() != 0 {
        return Err(cpu.general_protection(0));
    }
    let index = cpu.regs.slot(RCX) as u32;
    Err(cpu.instruction_exit(InstructionExit::Rdpmc { index }))
}

fn cli(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    check_iopl(cpu)?;
    cpu.flags.set_rest(cpu.flags.rest() & !flags::IF);
    Ok(())
}
fn sti(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    check_iopl(cpu)?;
    let rest = cpu.flags.rest();
    if rest & flags::IF == 0 {
        cpu.flags.set_rest(rest | flags::IF);
        cpu.interruptibility.shadow = Shadow::Sti;
        cpu.attention = true;
    }
    Ok(())
}
fn check_iopl(cpu: &mut Cpu) -> Step {
    if u64::from(cpu.cpl()) > (cpu.flags.rest() & flags::IOPL) >> 12 {
        return Err(cpu.general_protection(0));
    }
    Ok(())
}
/// CLAC and STAC: `aux` is 1 to set.
fn alignment_flag(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    if cpu.cpl() != 0 {
        return Err(cpu.undefined());
    }
    let rest = cpu.flags.rest();
    cpu.flags.set_rest(if op.aux == 1 { rest | flags::AC } else { rest & !flags::AC });
    cpu.refresh_mode();
    Ok(())
}

fn swapgs(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    cpu.require_long_mode()?;
    cpu.require_supervisor()?;
    let base = cpu.msrs.kernel_gs_base;
    cpu.msrs.kernel_gs_base = cpu.segment(Seg::Gs).base;
    cpu.segment_mut(Seg::Gs).base = base;
    Ok(())
}
fn check_fsgsbase(cpu: &mut Cpu) -> Step {
    if cpu.control.cr4 & cr4::FSGSBASE == 0 || !cpu.is_long_mode() {
        return Err(cpu.undefined());
    }
    Ok(())
}
/// RDFSBASE and RDGSBASE: `aux` is the segment.
fn read_base(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    check_fsgsbase(cpu)?;
    let base = Seg::from_index(op.aux as u8).map_or(0, |s| cpu.segment(s).base);
    let wide = op.operand_bytes() == 8;
    cpu.regs.set_slot(op.dst, if wide { base } else { base & 0xFFFF_FFFF });
    Ok(())
}
fn write_base(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    check_fsgsbase(cpu)?;
    let value = cpu.regs.slot(op.dst);
    let value = if op.operand_bytes() == 8 { value } else { value & 0xFFFF_FFFF };
    if !cpu.canonical(value) {
        return Err(cpu.general_protection(0));
    }
    if let Some(segment) = Seg::from_index(op.aux as u8) {
        *cpu.segment_mut(segment) = Segment { base: value, ..*cpu.segment(segment) };
    }
    Ok(())
}

fn xgetbv(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    if cpu.control.cr4 & cr4::OSXSAVE == 0 {
        return Err(cpu.undefined());
    }
    match cpu.regs.slot(RCX) as u32 {
        0 => {
            let value = cpu.control.xcr0;
            cpu.set_pair(value);
            Ok(())
        }
        1 => {
            let value = cpu.control.xcr0 & super::extended_state::in_use(&cpu.simd);
            cpu.set_pair(value);
            Ok(())
        }
        _ => Err(cpu.general_protection(0)),
    }
}
fn xsetbv(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    if cpu.control.cr4 & cr4::OSXSAVE == 0 {
        return Err(cpu.undefined());
    }
    let index = cpu.regs.slot(RCX) as u32;
    let value = cpu.pair();
    privileged_exit(cpu, InstructionExit::Xsetbv { index, value })
}

/// RDRAND and RDSEED: CF says whether a number was ready; the other flags are cleared.
fn random(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let word = env.bus.random();
    let value = word.unwrap_or(0);
    match op.operand_bytes() {
        8 => cpu.regs.set_slot(op.dst, value),
        4 => u32::write(&mut cpu.regs, op.dst, value as u32),
        _ => u16::write(&mut cpu.regs, op.dst, value as u16),
    }
    cpu.flags.replace(flags::ARITHMETIC, u64::from(word.is_some()) * flags::CF);
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
