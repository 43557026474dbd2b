//! From decoded AVX instructions to the data that a compiler takes: those that do in each half of a register what an SSE instruction
//! does, which is most of what C libraries and compilers use. The others are left to the interpreter.

use iced_x86::{CpuidFeature, Instruction, Mnemonic, OpCodeTableKind, OpKind};
use x86_jit::ir::{Avx, Length, VectorEncoding, VectorOperand, Width};

use super::lower::{address, operand, register};
use super::lower_vector::{HOST, encoded, is_floating, is_integer, xmm};
use super::operands::width;

/// What an AVX instruction does; `None` where that is left to the interpreter.
pub(super) fn lower(i: &Instruction) -> Option<Avx> {
    use Mnemonic as M;
    let code = i.code().op_code();
    let length = if code.l() == 0 || code.is_lig() { Length::Half } else { Length::Whole };
    let to_memory = i.op0_kind() == OpKind::Memory;
    let store = |bytes, aligned| Some(Avx::Store { from: xmm(i, 1)?, to: address(i)?, bytes, aligned });
    match i.mnemonic() {
        M::Vzeroupper => Some(Avx::ZeroUpper),
        M::Vmovaps | M::Vmovapd | M::Vmovdqa | M::Vmovntdq | M::Vmovntps | M::Vmovntpd if to_memory => {
            store(length.bytes(), true)
        }
        M::Vmovups | M::Vmovupd | M::Vmovdqu if to_memory => store(length.bytes(), false),
        M::Vmovss | M::Vmovd if to_memory => store(4, false),
        M::Vmovsd | M::Vmovq | M::Vmovlps | M::Vmovlpd if to_memory => store(8, false),
        M::Vmovaps | M::Vmovapd | M::Vmovdqa => lanes(i, length, false, true),
        M::Vmovups | M::Vmovupd | M::Vmovdqu => lanes(i, length, false, false),
        M::Vlddqu => unaligned(lanes(i, length, false, false)?),
        M::Vmovss | M::Vmovsd => lanes(i, length, false, false),
        M::Vmovhps | M::Vmovhpd if to_memory => None,
        M::Vmovlps | M::Vmovlpd | M::Vmovhps | M::Vmovhpd | M::Vmovhlps | M::Vmovlhps => {
            lanes(i, length, false, false)
        }
        M::Vmovd | M::Vmovq => general(i),
        M::Vpmovmskb => {
            let encoding = encoded(i, 16, false)?;
            Some(Avx::Mask { encoding, to: register(i, 0)?, from: xmm(i, 1)?, length })
        }
        M::Vpbroadcastb if i.op1_kind() == OpKind::Register => {
            Some(Avx::Broadcast { to: xmm(i, 0)?, from: xmm(i, 1)?, length })
        }
        mnemonic if shifts(mnemonic) => {
            if i.op_kind(2) != OpKind::Immediate8 {
                return None;
            }
            let group = u8::try_from(code.group_index()).ok()?;
            let encoding = encoded(i, 16, false)?;
            Some(Avx::Shift { encoding, group, to: xmm(i, 0)?, of: xmm(i, 1)?, length })
        }
        mnemonic if differs_in_halves(mnemonic) => None,
        mnemonic if is_integer(mnemonic) && sse_has_it(i) => lanes(i, length, false, false),
        mnemonic if is_floating(mnemonic) => lanes(i, length, true, false),
        _ => None,
    }
}

/// Shifts, which take one count for all elements.
const fn shifts(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(mnemonic, M::Vpsllw | M::Vpslld | M::Vpsllq | M::Vpsrlw | M::Vpsrld | M::Vpsrlq)
        || matches!(mnemonic, M::Vpsraw | M::Vpsrad | M::Vpslldq | M::Vpsrldq)
}

/// Instructions that change the size of elements, or have an immediate in which each half has bits of its own.
const fn differs_in_halves(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Vcvtps2pd
            | M::Vcvtpd2ps
            | M::Vcvtdq2pd
            | M::Vcvtpd2dq
            | M::Vcvttpd2dq
            | M::Vshufpd
            | M::Vmovddup
            // These have 32 predicates, of which SSE has eight.
            | M::Vcmpss
            | M::Vcmpsd
            | M::Vcmpps
            | M::Vcmppd
    )
}

/// Whether the host has the SSE instruction: those of the first map are in every x86-64 processor.
fn sse_has_it(i: &Instruction) -> bool {
    let all = HOST.contains(&CpuidFeature::SSSE3) && HOST.contains(&CpuidFeature::SSE4_1);
    all || i.code().op_code().table() == OpCodeTableKind::T0F
}

/// An operation on two registers and a third or memory, or on one and another or memory.
fn lanes(i: &Instruction, length: Length, floating: bool, aligned: bool) -> Option<Avx> {
    let is_operand = |n: u32| n < i.op_count() && matches!(i.op_kind(n), OpKind::Register | OpKind::Memory);
    if is_operand(3) {
        return None;
    }
    let last = if is_operand(2) { 2 } else { 1 };
    let first = if last == 2 { Some(xmm(i, 1)?) } else { None };
    let (from, bytes) = match i.op_kind(last) {
        OpKind::Memory => {
            let bytes = u8::try_from(i.memory_size().size()).ok()?;
            // A whole operand is two halves of 16 bytes.
            let bytes = if bytes == length.bytes() { 16 } else { bytes };
            (VectorOperand::Memory(address(i)?), bytes)
        }
        _ => (VectorOperand::Register(xmm(i, last)?), 16),
    };
    let encoding = VectorEncoding { aligned, ..encoded(i, bytes, floating)? };
    Some(Avx::Lanes { encoding, to: xmm(i, 0)?, first, from, length })
}

/// A load by MOVUPS, which takes a register too.
const fn unaligned(load: Avx) -> Option<Avx> {
    let Avx::Lanes { encoding, to, first, from, length } = load else { return None };
    let encoding = VectorEncoding { prefix: None, opcode: 0x10, ..encoding };
    Some(Avx::Lanes { encoding, to, first, from, length })
}

/// VMOVD and VMOVQ.
fn general(i: &Instruction) -> Option<Avx> {
    match (xmm(i, 0), xmm(i, 1)) {
        (Some(_), Some(_)) => lanes(i, Length::Half, false, false),
        (Some(to), None) => {
            Some(Avx::FromGeneral { width: Width::from_bytes(width(i, 1))?, to, from: operand(i, 1)? })
        }
        (None, Some(from)) => {
            Some(Avx::ToGeneral { width: Width::from_bytes(width(i, 0))?, to: register(i, 0)?, from })
        }
        (None, None) => None,
    }
}
