//! From bytes to operations.
//!
//! Instructions are decoded as if their block began at address zero, so that a block can run wherever its
//! page is mapped; RIP-relative operands and branch targets are relative to the block.

pub(crate) mod cache;
mod operands;

use iced_x86::{Code, Decoder, DecoderError, DecoderOptions, Instruction};

use crate::cpu::{CodeMode, Cpu, Env};
use crate::exits::Unimplemented;
use crate::op::Op;
use crate::ops;
use crate::paging::Want;
use crate::stop::Step;
use cache::Block;
pub(crate) use operands::{Form, form, operands, segment_bits, width};

/// The longest instruction, in bytes.
pub(crate) const MAX_INSTRUCTION: usize = 15;
/// Operations in one block.
const MAX_BLOCK_OPS: usize = 32;

/// A decoded instruction.
pub(crate) struct Decoded {
    pub(crate) op: Op,
    /// The operation sets RIP; nothing behind it belongs to the block.
    pub(crate) ends_block: bool,
}

impl Decoded {
    pub(crate) const fn plain(op: Op) -> Self {
        Self { op, ends_block: false }
    }
    pub(crate) const fn branch(op: Op) -> Self {
        Self { op, ends_block: true }
    }
}

fn decoder(mode: CodeMode, bytes: &[u8]) -> Decoder<'_> {
    let bits = if mode == CodeMode::Code64 { 64 } else { 32 };
    Decoder::with_ip(bits, bytes, 0, DecoderOptions::NONE)
}

/// Finds the operation for an instruction.
fn translate(instruction: &Instruction, mode: CodeMode) -> Decoded {
    let long = mode == CodeMode::Code64;
    let mut decoded = match instruction.code() {
        Code::INVALID => Decoded::branch(Op::new(invalid)),
        _ => ops::decode(instruction, long).unwrap_or_else(|| Decoded::branch(Op::new(unknown))),
    };
    decoded.op.off = instruction.ip() as u16;
    decoded.op.len = instruction.len() as u8;
    decoded
}

/// Whether 64-bit code that begins with these bytes begins with an instruction that this crate implements.
/// A few implemented instructions still stop for some operands, with [`crate::Exit::Unimplemented`].
pub fn implements(bytes: &[u8]) -> bool {
    let instruction = decoder(CodeMode::Code64, bytes).decode();
    !instruction.is_invalid() && ops::decode(&instruction, true).is_some()
}

/// Decodes a block; `None` if not even its first instruction is complete in `bytes`.
fn decode_block(cpu: &Cpu, bytes: &[u8]) -> Option<Block> {
    let mut decoder = decoder(cpu.mode, bytes);
    let mut ops = Vec::with_capacity(8);
    let mut used = 0;
    let mut sets_rip = false;
    let mut instruction = Instruction::default();
    while ops.len() < MAX_BLOCK_OPS && decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() && decoder.last_error() == DecoderError::NoMoreBytes {
            break;
        }
        used = decoder.position();
        let decoded = translate(&instruction, cpu.mode);
        ops.push(decoded.op);
        if decoded.ends_block {
            sets_rip = true;
            break;
        }
    }
    if ops.is_empty() {
        return None;
    }
    Some(Block::new(ops, sets_rip, bytes.get(..used).unwrap_or(bytes)))
}

/// Decodes one instruction, whatever it is.
fn decode_one(cpu: &Cpu, bytes: &[u8; MAX_INSTRUCTION]) -> Block {
    let mut decoder = decoder(cpu.mode, bytes);
    let instruction = decoder.decode();
    let mut decoded = translate(&instruction, cpu.mode);
    if instruction.is_invalid() && decoder.last_error() == DecoderError::NoMoreBytes {
        decoded.op.run = too_long;
    }
    let used = if instruction.is_invalid() { MAX_INSTRUCTION } else { instruction.len() };
    Block::new(vec![decoded.op], decoded.ends_block, bytes.get(..used).unwrap_or(bytes))
}

/// Bytes that encode no instruction.
fn invalid(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    Err(cpu.undefined())
}

/// More than fifteen bytes.
fn too_long(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    Err(cpu.general_protection(0))
}

/// An instruction that has no operation here.
fn unknown(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    Err(cpu.unimplemented("the instruction"))
}

/// Names the instruction at RIP for a person.
pub(crate) fn describe(cpu: &mut Cpu, env: &mut Env<'_>, missing: &'static str) -> Unimplemented {
    let address = cpu.code_linear(cpu.state.rip());
    let mut buffer = [0u8; MAX_INSTRUCTION];
    let room = (4096 - (address & 0xFFF)) as usize;
    let view = cpu.view;
    let mut bytes: &[u8] = &[];
    if cpu.read_bytes(env, address, &mut buffer, Want::Execute, view).is_ok() {
        bytes = &buffer;
    } else if let Some(head) = buffer.get_mut(..room.min(MAX_INSTRUCTION))
        && cpu.read_bytes(env, address, head, Want::Execute, view).is_ok()
    {
        bytes = head;
    }
    let _ = core::mem::take(&mut cpu.stop);
    let instruction = decoder(cpu.mode, bytes).decode();
    let length = if instruction.is_invalid() { bytes.len() } else { instruction.len() };
    let bytes = bytes.get(..length).unwrap_or(bytes).to_vec();
    Unimplemented { bytes, address, mode: cpu.mode, missing }
}

/// The mnemonic of an instruction in lower case; `None` where the bytes have no decoding.
pub(crate) fn mnemonic(mode: CodeMode, bytes: &[u8]) -> Option<String> {
    let instruction = decoder(mode, bytes).decode();
    (!instruction.is_invalid()).then(|| format!("{:?}", instruction.mnemonic()).to_lowercase())
}

/// An instruction at this address as text.
pub(crate) fn text(mode: CodeMode, bytes: &[u8], address: u64) -> Option<String> {
    let mut decoder = decoder(mode, bytes);
    decoder.set_ip(address);
    let instruction = decoder.decode();
    (!instruction.is_invalid()).then(|| instruction.to_string())
}
