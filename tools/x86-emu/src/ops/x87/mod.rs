//! x87 instructions.
//!
//! # Protocol of one instruction
//! 1. CR0.EM or CR0.TS raises #NM; an unmasked exception that an earlier instruction left raises #MF
//!    ([`Cpu::begin_x87`]; the FN forms and FXSAVE do not look).
//! 2. The memory operand is read: a fault there leaves everything as it was.
//! 3. The operation works on the state alone ([`stack`]) and says what it raised.
//! 4. Exceptions and pointers are recorded ([`Cpu::finish_x87`]). As processors with TDX do (CPUID.7.0:EBX[6] and
//!    EBX[13]), FDP and FOP are written with an unmasked exception only, and the selectors are zero.
//!
//! An unmasked exception is not raised by the instruction that found it but by the next one that looks. With CR0.NE clear it
//! would be an external interrupt, for which no machine here has a wire: then nothing is raised.

mod arithmetic;
mod compare;
mod control;
mod environment;
mod load;
pub(super) mod stack;
mod store;
mod transcendental;

pub(super) use control::control_word;
use iced_x86::{Instruction, MemorySize, Mnemonic, OpKind};
use x86_arch::{Event, cr0, vector};

use crate::cpu::{Cpu, Env};
use crate::decode::{Decoded, operands};
use crate::op::{Handler, Intent, Op};
use crate::paging::Want;
use crate::softfloat::{Exceptions, Extended, Value};
use crate::stop::{Step, Stop};
use stack::Stack;

/// Bytes of an 80-bit operand.
const TBYTE: usize = 10;

impl Cpu {
    /// Whether x87 instructions may run.
    pub(super) fn check_fpu(&mut self) -> Step {
        if self.state.control.cr0 & (cr0::EM | cr0::TS) != 0 {
            return Err(self.raise(Event::exception(vector::NM)));
        }
        Ok(())
    }

    /// Raises an exception that an earlier instruction left.
    pub(super) fn raise_pending_x87(&mut self) -> Step {
        if self.state.simd.x87.is_pending() && self.state.control.cr0 & cr0::NE != 0 {
            return Err(self.raise(Event::exception(vector::MF)));
        }
        Ok(())
    }

    /// What an instruction that waits looks at first.
    fn begin_x87(&mut self) -> Step {
        self.check_fpu()?;
        self.raise_pending_x87()
    }

    /// Records what an instruction that is not a control instruction raised, and where it was.
    fn finish_x87(&mut self, env: &mut Env<'_>, op: &Op, raised: Exceptions) {
        let unmasked = self.state.simd.x87.report(raised);
        let at = self.state.rip().wrapping_add(u64::from(op.off));
        let at = if self.is_long_mode() { at } else { at & 0xFFFF_FFFF };
        self.state.simd.x87.instruction = at;
        if unmasked {
            if op.has_memory() {
                self.state.simd.x87.data = self.effective(op);
            }
            self.record_opcode(env, at);
        }
    }

    /// Keeps the opcode of an instruction: eleven bits, found behind its prefixes.
    #[cold]
    fn record_opcode(&mut self, env: &mut Env<'_>, rip: u64) {
        const ESCAPE: u8 = 0xD8;
        let linear = self.code_linear(rip);
        for at in 0..crate::decode::MAX_INSTRUCTION as u64 {
            let mut pair = [0u8; 2];
            let view = self.view;
            if self.read_bytes(env, linear.wrapping_add(at), &mut pair, Want::Execute, view).is_err() {
                // The instruction ran, so only a racing change of the tables comes here.
                self.stop = crate::stop::Reason::None;
                return;
            }
            let [opcode, modrm] = pair;
            if opcode & !7 == ESCAPE {
                self.state.simd.x87.opcode = u16::from(opcode & 7) << 8 | u16::from(modrm);
                return;
            }
        }
    }

    fn load_tbyte(&mut self, env: &mut Env<'_>, op: &Op) -> Result<u128, Stop> {
        let linear = self.linear(op, TBYTE as u64, Intent::Read)?;
        let mut bytes = [0u8; 16];
        let view = self.view;
        if let Some(part) = bytes.get_mut(..TBYTE) {
            self.read_bytes(env, linear, part, Want::Read, view)?;
        }
        Ok(u128::from_le_bytes(bytes))
    }

    fn store_tbyte(&mut self, env: &mut Env<'_>, op: &Op, value: u128) -> Step {
        let linear = self.linear(op, TBYTE as u64, Intent::Write)?;
        let bytes = value.to_le_bytes();
        let view = self.view;
        self.write_bytes(env, linear, bytes.get(..TBYTE).unwrap_or(&bytes), view)
    }
}

/// The format of a memory operand.
trait Memory: 'static {
    fn load(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<Value, Stop>;
}

struct Single;
struct Double;
struct Int16;
struct Int32;
struct Int64;

impl Memory for Single {
    fn load(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<Value, Stop> {
        Ok(Value::from_single(cpu.load_operand(env, op)?))
    }
}
impl Memory for Double {
    fn load(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<Value, Stop> {
        Ok(Value::from_double(cpu.load_operand(env, op)?))
    }
}
impl Memory for Int16 {
    fn load(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<Value, Stop> {
        Ok(Value::from_exact_integer(i64::from(cpu.load_operand::<u16>(env, op)? as i16)))
    }
}
impl Memory for Int32 {
    fn load(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<Value, Stop> {
        Ok(Value::from_exact_integer(i64::from(cpu.load_operand::<u32>(env, op)? as i32)))
    }
}
impl Memory for Int64 {
    fn load(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<Value, Stop> {
        Ok(Value::from_exact_integer(cpu.load_operand::<u64>(env, op)? as i64))
    }
}

/// What an instruction does about its operands and its `aux`.
pub(super) fn decode(i: &Instruction, long: bool) -> Option<Decoded> {
    let size = if i.op0_kind() == OpKind::Memory { Some(i.memory_size()) } else { None };
    let (run, aux) = find(i.mnemonic(), size)?;
    let mut op = operands(i, run, long);
    op.aux = aux;
    Some(Decoded::plain(op))
}

fn find(mnemonic: Mnemonic, size: Option<MemorySize>) -> Option<(Handler, u16)> {
    arithmetic::find(mnemonic, size)
        .or_else(|| compare::find(mnemonic, size))
        .or_else(|| load::find(mnemonic, size))
        .or_else(|| store::find(mnemonic, size))
        .or_else(|| transcendental::find(mnemonic))
        .or_else(|| control::find(mnemonic))
        .or_else(|| environment::find(mnemonic, size))
}

/// The bits of a register.
const fn to_register(value: Extended) -> u128 {
    value.to_bits()
}
