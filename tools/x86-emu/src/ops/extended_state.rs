//! FXSAVE, the XSAVE family, and LDMXCSR with its kin.
//!
//! The components are x87, SSE, AVX and PKRU. Of these AVX and PKRU lie behind the header: at fixed offsets in the standard
//! form, one directly behind the other in the compacted one. XSAVEOPT and XSAVES always write all requested components that are not in their initial
//! state: their optimisations are permissions, not duties.

use iced_x86::{Instruction, Mnemonic};

use super::vector::{Form, Shape, by_form};
use super::x87::control_word;
use super::x87::stack::Stack;
use crate::cpu::{Cpu, Env};
use crate::decode::{Decoded, operands};
use crate::op::{Handler, Intent, Op, prefix};
use crate::paging::Want;
use crate::stop::{Step, Stop};
use x86_arch::{CpuState, Event, SimdState, X87State, cr0, cr4, simd::MXCSR_RESET, vector, xcr0};

const X87: u64 = 1;
const SSE: u64 = 2;
const AVX: u64 = xcr0::AVX;
const PKRU: u64 = xcr0::PKRU;
/// The bytes of the upper halves of the YMM registers (CPUID.0DH.2:EAX); they lie behind the header in either form.
const AVX_BYTES: usize = 256;
/// Where PKRU is in the standard form (CPUID.0DH.9:EBX), and its bytes (EAX).
const PKRU_OFFSET: usize = 2688;
const PKRU_BYTES: usize = 8;
/// Bits that MXCSR has.
pub(crate) const MXCSR_MASK: u32 = 0xFFFF;
const COMPACTED: u64 = 1 << 63;
const LEGACY: usize = 512;
const AREA: usize = 576;

/// Components that are not in their initial state (XINUSE).
pub(super) fn in_use(state: &CpuState) -> u64 {
    let reset = SimdState::default();
    let bit = |used: bool, component: u64| if used { component } else { 0 };
    bit(state.simd.x87 != reset.x87, X87)
        | bit(state.simd.xmm != reset.xmm, SSE)
        | bit(state.simd.ymm_high != reset.ymm_high, AVX)
        | bit(state.pkru != 0, PKRU)
}

/// The form of an area, and which components it has room for.
#[derive(Clone, Copy)]
enum Layout {
    Standard,
    Compacted { components: u64 },
}

impl Layout {
    /// Where PKRU is.
    const fn pkru(self) -> usize {
        match self {
            Self::Standard => PKRU_OFFSET,
            Self::Compacted { components } if components & AVX != 0 => AREA + AVX_BYTES,
            Self::Compacted { .. } => AREA,
        }
    }

    /// The bytes of an area with these components.
    const fn bytes(self, components: u64) -> usize {
        if components & PKRU != 0 {
            self.pkru() + PKRU_BYTES
        } else if components & AVX != 0 {
            AREA + AVX_BYTES
        } else {
            AREA
        }
    }
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(slot) = image.get_mut(at..at + bytes.len()) {
        slot.copy_from_slice(bytes);
    }
}

fn get<const N: usize>(image: &[u8], at: usize) -> [u8; N] {
    image.get(at..at + N).and_then(|b| b.try_into().ok()).unwrap_or([0; N])
}

/// The 64-bit forms (FXSAVE64, XSAVE64, ...) save 64-bit pointers.
fn save_x87(state: &X87State, wide: bool, image: &mut [u8]) {
    put(image, 0, &state.control.to_le_bytes());
    put(image, 2, &state.status.to_le_bytes());
    put(image, 4, &[state.tags, 0]);
    put(image, 6, &state.opcode.to_le_bytes());
    if wide {
        put(image, 8, &state.instruction.to_le_bytes());
        put(image, 16, &state.data.to_le_bytes());
    } else {
        put(image, 8, &u64::from(state.instruction as u32).to_le_bytes());
        put(image, 16, &u64::from(state.data as u32).to_le_bytes());
    }
    for n in 0..8 {
        put(image, 32 + 16 * usize::from(n), &state.st(n).to_le_bytes());
    }
}

/// Selectors of the image are ignored, as by every processor that does not save them.
fn load_x87(state: &mut X87State, wide: bool, image: &[u8]) {
    state.control = control_word(u16::from_le_bytes(get(image, 0)));
    state.status = u16::from_le_bytes(get(image, 2));
    state.tags = get::<1>(image, 4)[0];
    state.opcode = u16::from_le_bytes(get(image, 6)) & 0x7FF;
    let mask = if wide { u64::MAX } else { 0xFFFF_FFFF };
    state.instruction = u64::from_le_bytes(get(image, 8)) & mask;
    state.data = u64::from_le_bytes(get(image, 16)) & mask;
    for n in 0..8 {
        state.set_st(n, u128::from_le_bytes(get(image, 32 + 16 * usize::from(n))));
    }
    state.refresh_summary();
}

fn save_mxcsr(state: &SimdState, image: &mut [u8]) {
    put(image, 24, &state.mxcsr.to_le_bytes());
    put(image, 28, &MXCSR_MASK.to_le_bytes());
}

impl Cpu {
    /// XMM registers reachable in the present mode.
    fn xmm_count(&self) -> usize {
        if self.is_long_mode() { 16 } else { 8 }
    }

    fn save_xmm(&self, image: &mut [u8]) {
        for (n, xmm) in self.state.simd.xmm.iter().take(self.xmm_count()).enumerate() {
            put(image, 160 + 16 * n, &xmm.to_le_bytes());
        }
    }

    fn load_xmm(&mut self, image: &[u8]) {
        let count = self.xmm_count();
        for (n, xmm) in self.state.simd.xmm.iter_mut().take(count).enumerate() {
            *xmm = u128::from_le_bytes(get(image, 160 + 16 * n));
        }
    }

    /// The aligned linear address of a save area.
    fn save_area(&mut self, op: &Op, bytes: usize, align: u64, intent: Intent) -> Result<u64, Stop> {
        let linear = self.linear(op, bytes as u64, intent)?;
        if linear & (align - 1) != 0 {
            return Err(self.general_protection(0));
        }
        Ok(linear)
    }

    fn check_xsave(&mut self) -> Step {
        if self.state.control.cr4 & cr4::OSXSAVE == 0 {
            return Err(self.undefined());
        }
        if self.state.control.cr0 & cr0::TS != 0 {
            return Err(self.raise(Event::exception(vector::NM)));
        }
        Ok(())
    }

    fn requested(&self) -> u64 {
        (self.state.regs.slot(0) & 0xFFFF_FFFF | self.state.regs.slot(2) << 32) & self.state.control.xcr0
    }
}

fn wide(op: &Op) -> bool {
    op.prefix & prefix::SIZE64 != 0
}

fn fxsave(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_fpu()?;
    let linear = cpu.save_area(op, LEGACY, 16, Intent::Write)?;
    // Bytes that the format reserves keep what memory held.
    let mut image = [0u8; LEGACY];
    let view = cpu.view;
    cpu.prepare_store(env, linear, LEGACY)?;
    cpu.read_bytes(env, linear, &mut image, Want::Read, view)?;
    save_x87(&cpu.state.simd.x87, wide(op), &mut image);
    save_mxcsr(&cpu.state.simd, &mut image);
    if cpu.state.control.cr4 & cr4::OSFXSR != 0 {
        cpu.save_xmm(&mut image);
    }
    cpu.write_bytes(env, linear, &image, view)
}

fn fxrstor(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_fpu()?;
    let linear = cpu.save_area(op, LEGACY, 16, Intent::Read)?;
    let mut image = [0u8; LEGACY];
    let view = cpu.view;
    cpu.read_bytes(env, linear, &mut image, Want::Read, view)?;
    let mxcsr = u32::from_le_bytes(get(&image, 24));
    if mxcsr & !MXCSR_MASK != 0 {
        return Err(cpu.general_protection(0));
    }
    load_x87(&mut cpu.state.simd.x87, wide(op), &image);
    cpu.state.simd.mxcsr = mxcsr;
    if cpu.state.control.cr4 & cr4::OSFXSR != 0 {
        cpu.load_xmm(&image);
    }
    Ok(())
}

/// How a member of the XSAVE family writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Save {
    /// Every requested component; XSTATE_BV keeps the bits that were not requested.
    Plain,
    /// As plain, but components in their initial state are not written.
    Optimised,
    /// Compacted; the header is written whole.
    Compacted,
}

fn save(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, how: Save) -> Step {
    let requested = cpu.requested();
    let layout =
        if how == Save::Compacted { Layout::Compacted { components: requested } } else { Layout::Standard };
    let linear = cpu.save_area(op, layout.bytes(requested), 64, Intent::Write)?;
    let mut image = [0u8; AREA];
    let view = cpu.view;
    cpu.prepare_store(env, linear, AREA)?;
    cpu.read_bytes(env, linear, &mut image, Want::Read, view)?;
    let used = in_use(&cpu.state);
    // MXCSR away from its reset value makes the compacted forms treat SSE as in use.
    let used = if how == Save::Compacted && cpu.state.simd.mxcsr != MXCSR_RESET { used | SSE } else { used };
    let written = if how == Save::Plain { requested } else { requested & used };
    if written & X87 != 0 {
        save_x87(&cpu.state.simd.x87, wide(op), &mut image);
    }
    if written & SSE != 0 {
        cpu.save_xmm(&mut image);
    }
    let mxcsr_too = if how == Save::Compacted { written & SSE != 0 } else { requested & (SSE | AVX) != 0 };
    if mxcsr_too {
        save_mxcsr(&cpu.state.simd, &mut image);
    }
    if how == Save::Compacted {
        put(&mut image, LEGACY, &(requested & used).to_le_bytes());
        put(&mut image, LEGACY + 8, &(requested | COMPACTED).to_le_bytes());
    } else {
        let old = u64::from_le_bytes(get(&image, LEGACY));
        put(&mut image, LEGACY, &(old & !requested | used & requested).to_le_bytes());
    }
    if written & AVX != 0 {
        let mut upper = [0; AVX_BYTES];
        let at = linear.wrapping_add(AREA as u64);
        cpu.prepare_store(env, at, AVX_BYTES)?;
        // Registers that the mode does not reach keep what memory held.
        cpu.read_bytes(env, at, &mut upper, Want::Read, view)?;
        for (slot, high) in upper.chunks_exact_mut(16).zip(cpu.state.simd.ymm_high).take(cpu.xmm_count()) {
            slot.copy_from_slice(&high.to_le_bytes());
        }
        cpu.write_bytes(env, at, &upper, view)?;
    }
    if written & PKRU != 0 {
        let at = linear.wrapping_add(layout.pkru() as u64);
        cpu.prepare_store(env, at, PKRU_BYTES)?;
        cpu.write_bytes(env, at, &u64::from(cpu.state.pkru).to_le_bytes(), view)?;
    }
    cpu.write_bytes(env, linear, &image, view)
}

fn xsave(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_xsave()?;
    save(cpu, env, op, Save::Plain)
}
fn xsaveopt(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_xsave()?;
    save(cpu, env, op, Save::Optimised)
}
fn xsavec(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_xsave()?;
    save(cpu, env, op, Save::Compacted)
}
fn xsaves(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_xsave()?;
    if cpu.state.cpl() != 0 {
        return Err(cpu.general_protection(0));
    }
    save(cpu, env, op, Save::Compacted)
}

fn restore(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, compacted_only: Compaction) -> Step {
    let requested = cpu.requested();
    let linear = cpu.save_area(op, AREA, 64, Intent::Read)?;
    let mut image = [0u8; AREA];
    let view = cpu.view;
    cpu.read_bytes(env, linear, &mut image, Want::Read, view)?;
    let present = u64::from_le_bytes(get(&image, LEGACY));
    let header = u64::from_le_bytes(get(&image, LEGACY + 8));
    let compacted = header & COMPACTED != 0;
    let header_rest = image.get(LEGACY + 16..AREA).unwrap_or(&[]);
    let reserved_clear = if compacted {
        header_rest.iter().all(|byte| *byte == 0)
    } else {
        header == 0 && header_rest.iter().take(8).all(|byte| *byte == 0)
    };
    let offered = cpu.state.control.xcr0;
    let bad = !reserved_clear
        || present & !offered != 0
        || compacted && (header & !COMPACTED & !offered != 0 || present & !header != 0)
        || compacted_only == Compaction::Required && !compacted;
    if bad {
        return Err(cpu.general_protection(0));
    }
    let mxcsr = u32::from_le_bytes(get(&image, 24));
    let loads_mxcsr = if compacted { requested & present & SSE != 0 } else { requested & (SSE | AVX) != 0 };
    if loads_mxcsr && mxcsr & !MXCSR_MASK != 0 {
        return Err(cpu.general_protection(0));
    }
    let layout = if compacted { Layout::Compacted { components: header } } else { Layout::Standard };
    // Checked before without its components, and now with them.
    let area = cpu.linear(op, layout.bytes(requested & present) as u64, Intent::Read)?;
    let mut upper = [0u8; AVX_BYTES];
    if requested & present & AVX != 0 {
        cpu.read_bytes(env, area.wrapping_add(AREA as u64), &mut upper, Want::Read, view)?;
    }
    let mut pkru = [0u8; PKRU_BYTES];
    if requested & present & PKRU != 0 {
        cpu.read_bytes(env, area.wrapping_add(layout.pkru() as u64), &mut pkru, Want::Read, view)?;
    }
    if requested & PKRU != 0 {
        cpu.write_pkru(u64::from_le_bytes(pkru) as u32);
    }
    if requested & X87 != 0 {
        if present & X87 != 0 {
            load_x87(&mut cpu.state.simd.x87, wide(op), &image);
        } else {
            cpu.state.simd.x87 = X87State::default();
        }
    }
    if requested & SSE != 0 {
        if present & SSE != 0 {
            cpu.load_xmm(&image);
        } else {
            let zero = [0u8; LEGACY];
            cpu.load_xmm(&zero);
        }
        if !loads_mxcsr {
            cpu.state.simd.mxcsr = MXCSR_RESET;
        }
    }
    if loads_mxcsr {
        cpu.state.simd.mxcsr = mxcsr;
    }
    if requested & AVX != 0 {
        let count = cpu.xmm_count();
        for (n, high) in cpu.state.simd.ymm_high.iter_mut().take(count).enumerate() {
            *high = u128::from_le_bytes(get(&upper, 16 * n));
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Compaction {
    Either,
    Required,
}

fn xrstor(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_xsave()?;
    restore(cpu, env, op, Compaction::Either)
}
fn xrstors(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_xsave()?;
    if cpu.state.cpl() != 0 {
        return Err(cpu.general_protection(0));
    }
    restore(cpu, env, op, Compaction::Required)
}

fn ldmxcsr<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let value: u32 = cpu.load_operand(env, op)?;
    if value & !MXCSR_MASK != 0 {
        return Err(cpu.general_protection(0));
    }
    cpu.state.simd.mxcsr = value;
    Ok(())
}
fn stmxcsr<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let value = cpu.state.simd.mxcsr;
    cpu.store_operand(env, op, value)
}

pub(super) fn decode(i: &Instruction, long: bool) -> Option<Decoded> {
    use Mnemonic as M;
    let (run, is_wide): (Handler, bool) = match i.mnemonic() {
        M::Fxsave => (fxsave, false),
        M::Fxsave64 => (fxsave, true),
        M::Fxrstor => (fxrstor, false),
        M::Fxrstor64 => (fxrstor, true),
        M::Xsave => (xsave, false),
        M::Xsave64 => (xsave, true),
        M::Xsaveopt => (xsaveopt, false),
        M::Xsaveopt64 => (xsaveopt, true),
        M::Xsavec => (xsavec, false),
        M::Xsavec64 => (xsavec, true),
        M::Xsaves => (xsaves, false),
        M::Xsaves64 => (xsaves, true),
        M::Xrstor => (xrstor, false),
        M::Xrstor64 => (xrstor, true),
        M::Xrstors => (xrstors, false),
        M::Xrstors64 => (xrstors, true),
        M::Ldmxcsr | M::Vldmxcsr => (by_form!(Shape::of(i)?, ldmxcsr), false),
        M::Stmxcsr | M::Vstmxcsr => (by_form!(Shape::of(i)?, stmxcsr), false),
        _ => return None,
    };
    let mut op = operands(i, run, long);
    if is_wide {
        op.prefix |= prefix::SIZE64;
    }
    Some(Decoded::plain(op))
}
