//! From bytes to operations.
//!
//! Instructions are decoded as if their block began at address zero, so that a block can run wherever its
//! page is mapped; RIP-relative operands and branch targets are relative to the block.

mod absent;
pub(crate) mod cache;
mod lower;
mod lower_avx;
mod lower_vector;
mod operands;

use iced_x86::{Code, Decoder, DecoderError, DecoderOptions, Instruction};

use crate::cpu::{CodeMode, Cpu, Env};
use crate::exits::Unimplemented;
use crate::op::Op;
use crate::ops;
use crate::paging::Want;
use crate::stop::Step;
use absent::Fate;
pub use absent::offers;
use cache::Block;
pub(crate) use operands::{Form, form, operands, register_index, segment_bits, width};

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
    let bits = match mode {
        CodeMode::Code64 => 64,
        CodeMode::Code32 => 32,
        CodeMode::Code16 => 16,
    };
    Decoder::with_ip(bits, bytes, 0, DecoderOptions::NONE)
}

/// What the CPU does with an instruction.
enum Meaning {
    Operation(Decoded),
    /// #UD.
    Undefined,
    /// Nothing that this crate can do.
    Unknown,
}

/// Finds out what an instruction means.
fn meaning(instruction: &Instruction, long: bool) -> Meaning {
    let found = |instruction| ops::decode(instruction, long).map_or(Meaning::Unknown, Meaning::Operation);
    if instruction.code() == Code::INVALID {
        return Meaning::Undefined;
    }
    match absent::fate(instruction) {
        None => found(instruction),
        Some(Fate::Undefined) => Meaning::Undefined,
        Some(Fate::Nothing) => Meaning::Operation(Decoded::plain(Op::new(ops::nothing))),
    }
}

/// Finds the operation for an instruction.
fn translate(instruction: &Instruction, mode: CodeMode) -> Decoded {
    let mut decoded = match meaning(instruction, mode == CodeMode::Code64) {
        Meaning::Operation(decoded) => decoded,
        Meaning::Undefined => Decoded::branch(Op::new(invalid)),
        Meaning::Unknown => Decoded::branch(Op::new(unknown)),
    };
    decoded.op.off = instruction.ip() as u16;
    decoded.op.len = instruction.len() as u8;
    decoded
}

/// Whether 64-bit code that begins with these bytes begins with an instruction that this crate implements.
/// A few implemented instructions still stop for some operands, with [`crate::Exit::Unimplemented`].
pub fn implements(bytes: &[u8]) -> bool {
    let instruction = decoder(CodeMode::Code64, bytes).decode();
    matches!(meaning(&instruction, true), Meaning::Operation(_))
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
        let begin = used;
        used = decoder.position();
        let mut decoded = translate(&instruction, cpu.mode);
        if instruction.is_invalid() && is_too_long(cpu.mode, bytes.get(begin..).unwrap_or(&[])) {
            decoded.op.run = too_long;
        }
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

/// The instructions of a block as data, from its bytes; `None` stands for one that has no such form.
pub(crate) fn described(bytes: &[u8]) -> Vec<x86_jit::Step> {
    decoder(CodeMode::Code64, bytes)
        .iter()
        .map(|i| {
            // What a processor without a feature does with an instruction of that feature is not in its operands.
            let insn = match absent::fate(&i) {
                None => lower::lower(&i),
                Some(Fate::Nothing) => Some(x86_jit::ir::Insn::Nothing),
                Some(Fate::Undefined) => None,
            };
            x86_jit::Step { insn, end: i.next_ip() as u16 }
        })
        .collect()
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

/// Whether what begins here is an instruction that repeats prefixes until it has more than fifteen bytes.
fn is_too_long(mode: CodeMode, bytes: &[u8]) -> bool {
    let is_prefix =
        |byte: &&u8| matches!(**byte, 0x26 | 0x2E | 0x36 | 0x3E | 0x64..=0x67 | 0xF0 | 0xF2 | 0xF3);
    let prefixes = bytes.iter().take_while(is_prefix).count();
    let Some((prefixes, rest)) = bytes.split_at_checked(prefixes) else { return false };
    if prefixes.len() >= MAX_INSTRUCTION {
        return true;
    }
    // A prefix that comes again later changes nothing.
    let lasting = |n: usize| prefixes.get(n).filter(|byte| !prefixes.iter().skip(n + 1).any(|b| b == *byte));
    let mut short: Vec<u8> = (0..prefixes.len()).filter_map(lasting).copied().collect();
    let dropped = prefixes.len() - short.len();
    short.extend(rest.iter().take(MAX_INSTRUCTION));
    let instruction = decoder(mode, &short).decode();
    !instruction.is_invalid() && instruction.len() + dropped > MAX_INSTRUCTION
}

/// Whether bytes at the end of a page encode no instruction, whatever follows them.
fn is_undefined_whatever_follows(mode: CodeMode, head: &[u8]) -> bool {
    (0..=u8::MAX).all(|next| {
        let mut bytes = [next; MAX_INSTRUCTION];
        if let Some(start) = bytes.get_mut(..head.len()) {
            start.copy_from_slice(head);
        }
        decoder(mode, &bytes).decode().is_invalid()
    })
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

/// The beginnings of VEX encodings: three maps, all operand sizes, lengths and mandatory prefixes, and a first source or none.
#[cfg(test)]
fn vex_heads() -> impl Iterator<Item = Vec<u8>> {
    let maps = (1..=3u8).flat_map(|map| (0..16u8).map(move |rest| (map, rest)));
    maps.flat_map(|(map, rest)| {
        [0x78, 0x70].map(|first| vec![0xC4, 0xE0 | map, first | rest & 7 | (rest & 8) << 4])
    })
}

/// One example of every form of every encoding that the decoder knows, with each prefix that selects between instructions.
#[cfg(test)]
pub(crate) fn forms(mode: CodeMode) -> Vec<[u8; MAX_INSTRUCTION]> {
    let rex: &[&[u8]] = if mode == CodeMode::Code64 { &[&[], &[0x48]] } else { &[&[]] };
    let vector: &[&[u8]] = &[&[0xC5, 0xF8], &[0x62, 0xF1, 0x7C, 0x48], &[0x8F, 0xE8, 0x78]];
    let legacy: &[&[u8]] = &[&[], &[0x0F], &[0x0F, 0x38], &[0x0F, 0x3A]];
    let prefixes: &[&[u8]] =
        &[&[], &[0x66], &[0x67], &[0xF2], &[0xF3], &[0xF0], &[0x66, 0xF2], &[0x66, 0xF3]];
    let maps = || legacy.iter().chain(vector);
    let mut seen = std::collections::BTreeSet::new();
    let mut forms = Vec::new();
    let legacy = prefixes
        .iter()
        .flat_map(|p| rex.iter().flat_map(move |r| maps().map(move |m| (*p, [*p, *r, *m].concat()))));
    for (prefix, head) in legacy.chain(vex_heads().map(|head| (&[][..], head))) {
        for (opcode, modrm) in (0..=255u8).flat_map(|o| (0..=255u8).map(move |m| (o, m))) {
            let mut bytes = [0; MAX_INSTRUCTION];
            for (to, from) in bytes.iter_mut().zip([&head[..], &[opcode, modrm]].concat()) {
                *to = from;
            }
            let i = decoder(mode, &bytes).decode();
            let form = (i.code() as u32, i.op1_kind() as u32, i.op0_kind() as u32, prefix);
            if !i.is_invalid() && seen.insert(form) {
                forms.push(bytes);
            }
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_encoding_of_any_mode_is_of_two_families() {
        for mode in [CodeMode::Code64, CodeMode::Code32, CodeMode::Code16] {
            let long = mode == CodeMode::Code64;
            for bytes in &forms(mode) {
                let i = decoder(mode, bytes).decode();
                let claims = |family: &&ops::Family| (family.1)(&i, long).is_some();
                let owners: Vec<_> = ops::FAMILIES.iter().filter(claims).map(|family| family.0).collect();
                assert!(owners.len() <= 1, "{mode:?}, {:?}: {owners:?}", i.code());
            }
        }
    }

    #[test]
    fn every_encoding_of_every_mode_has_a_meaning() {
        for mode in [CodeMode::Code64, CodeMode::Code32, CodeMode::Code16] {
            let forms = forms(mode);
            let mut unknown = BTreeSet::new();
            for bytes in &forms {
                let i = decoder(mode, bytes).decode();
                if matches!(meaning(&i, mode == CodeMode::Code64), Meaning::Unknown) {
                    unknown.insert(format!("{:?}", i.code()));
                }
            }
            assert!(unknown.is_empty(), "{mode:?}, of {} forms: {unknown:?}", forms.len());
            assert!(forms.len() > 4000, "{mode:?}: {} forms", forms.len());
        }
    }
}
