//! Segment registers, descriptor-table registers, and instructions that look at descriptors.

use crate::cpu::{Cpu, Env};
use crate::op::{Intent, Op};
use crate::segments::{Descriptor, is_null};
use crate::stop::{Step, Stop};
use x86_arch::{Seg, Shadow, TableRegister, Width};

/// MOV to a segment register: `dst` is its number.
pub(super) fn mov_to_segment(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let selector: u16 = cpu.source(env, op)?;
    match Seg::from_index(op.dst) {
        None | Some(Seg::Cs) => Err(cpu.undefined()),
        Some(segment) => {
            cpu.load_data_segment(env, segment, selector)?;
            if segment == Seg::Ss {
                cpu.state.interruptibility.shadow = Shadow::MovSs;
            }
            cpu.attention = true;
            Ok(())
        }
    }
}

pub(super) fn mov_from_segment(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let selector = Seg::from_index(op.src).map_or(0, |s| cpu.state.segment(s).selector);
    store_selector(cpu, env, op, selector)
}

/// Memory takes 16 bits; a wider register is zero-extended.
pub(super) fn store_selector(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, selector: u16) -> Step {
    if op.writes_memory() {
        return cpu.store_operand(env, op, selector);
    }
    if op.operand_bytes() == 2 {
        u16::write(&mut cpu.state.regs, op.dst, selector);
    } else {
        cpu.state.regs.set_slot(op.dst, u64::from(selector));
    }
    Ok(())
}

/// LSS, LFS, LGS, LDS and LES: `aux` is the segment.
pub(super) fn load_far_pointer(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
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
        u16::write(&mut cpu.state.regs, op.dst, offset as u16);
    } else {
        cpu.state.regs.set_slot(op.dst, offset);
    }
    if segment == Seg::Ss {
        cpu.attention = true;
    }
    Ok(())
}

pub(super) fn load_table(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<TableRegister, Stop> {
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
pub(super) fn lgdt(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.state.gdtr = load_table(cpu, env, op)?;
    Ok(())
}
pub(super) fn lidt(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.state.idtr = load_table(cpu, env, op)?;
    Ok(())
}
pub(super) fn store_table(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, table: TableRegister) -> Step {
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
pub(super) fn sgdt(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    store_table(cpu, env, op, cpu.state.gdtr)
}
pub(super) fn sidt(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    store_table(cpu, env, op, cpu.state.idtr)
}
pub(super) fn ltr(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.require_supervisor()?;
    let selector = cpu.target::<u16>(env, op)?;
    cpu.load_task_register(env, selector)
}
pub(super) fn lldt(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.require_supervisor()?;
    let selector = cpu.target::<u16>(env, op)?;
    cpu.load_ldt_register(env, selector)
}
pub(super) fn store_tr(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.require_not_umip()?;
    store_selector(cpu, env, op, cpu.state.tr.selector)
}
pub(super) fn sldt(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.require_not_umip()?;
    store_selector(cpu, env, op, cpu.state.ldtr.selector)
}

/// Which descriptors LAR and LSL see in IA-32e mode, by system type.
pub(super) fn visible_descriptor(
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
        Err(_) if matches!(cpu.stop, crate::stop::Reason::Exception(e) if e.vector == x86_arch::vector::GP) =>
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
    let allowed = conforming_code || cpu.state.cpl().max((selector & 3) as u8) <= attributes.dpl();
    Ok(allowed.then_some(descriptor))
}
pub(super) fn write_answer(cpu: &mut Cpu, op: &Op, answer: Option<u32>) {
    if let Some(value) = answer {
        if op.operand_bytes() == 2 {
            u16::write(&mut cpu.state.regs, op.dst, value as u16);
        } else {
            cpu.state.regs.set_slot(op.dst, u64::from(value));
        }
    }
    cpu.state.flags.set_zf(answer.is_some());
}
pub(super) fn lar(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let selector: u16 = cpu.source(env, op)?;
    let systems: &[u8] = if cpu.state.is_ia32e() { &[2, 9, 11, 12] } else { &[1, 2, 3, 4, 5, 9, 11, 12] };
    let found = visible_descriptor(cpu, env, selector, systems)?;
    write_answer(cpu, op, found.map(|d| (d.raw >> 32) as u32 & 0x00FF_FF00));
    Ok(())
}
pub(super) fn lsl(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let selector: u16 = cpu.source(env, op)?;
    let systems: &[u8] = if cpu.state.is_ia32e() { &[2, 9, 11] } else { &[1, 2, 3, 9, 11] };
    let found = visible_descriptor(cpu, env, selector, systems)?;
    write_answer(cpu, op, found.map(Descriptor::limit));
    Ok(())
}
/// VERR and VERW: `aux` is 1 for writing.
pub(super) fn verify(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let selector: u16 = cpu.target(env, op)?;
    let found = visible_descriptor(cpu, env, selector, &[])?;
    let allowed = found.is_some_and(|d| {
        let kind = d.attributes().kind();
        let code = kind & 8 != 0;
        if op.aux == 1 { !code && kind & 2 != 0 } else { !code || kind & 2 != 0 }
    });
    cpu.state.flags.set_zf(allowed);
    Ok(())
}
