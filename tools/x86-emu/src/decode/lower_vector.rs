//! From decoded SSE instructions to the data that a compiler takes. An operation is described by its own encoding, since the host
//! runs the same: what is listed here is which ones have no effect but the plain one.

use std::sync::LazyLock;

use iced_x86::{CpuidFeature, EncodingKind, Instruction, MandatoryPrefix, Mnemonic, OpCodeTableKind, OpKind};
use x86_jit::ir::{Insn, OpcodeMap, VectorEncoding, VectorOperand, Width, Xmm};

use super::lower::{address, operand, register};
use super::operands::width;

/// Features of instructions that the host has.
pub(super) static HOST: LazyLock<Vec<CpuidFeature>> = LazyLock::new(|| {
    use std::arch::is_x86_feature_detected as has;
    let features = [
        (true, CpuidFeature::SSE),
        (true, CpuidFeature::SSE2),
        (has!("sse3"), CpuidFeature::SSE3),
        (has!("ssse3"), CpuidFeature::SSSE3),
        (has!("sse4.1"), CpuidFeature::SSE4_1),
    ];
    features.into_iter().filter(|(there, _)| *there).map(|(_, feature)| feature).collect()
});

/// What an SSE instruction does; `None` where that is left to the interpreter.
pub(super) fn lower(i: &Instruction) -> Option<Insn> {
    use Mnemonic as M;
    let code = i.code().op_code();
    if code.encoding() == EncodingKind::VEX {
        return super::lower_avx::lower(i).map(Insn::Avx);
    }
    if code.encoding() != EncodingKind::Legacy || !i.cpuid_features().iter().all(|f| HOST.contains(f)) {
        return None;
    }
    let store = |bytes, high, aligned| {
        Some(Insn::VectorStore { from: xmm(i, 1)?, to: address(i)?, bytes, high, aligned })
    };
    let to_memory = i.op0_kind() == OpKind::Memory;
    match i.mnemonic() {
        M::Movaps | M::Movapd | M::Movdqa | M::Movntdq | M::Movntps | M::Movntpd if to_memory => {
            store(16, false, true)
        }
        M::Movups | M::Movupd | M::Movdqu if to_memory => store(16, false, false),
        M::Movsd | M::Movlps | M::Movlpd if to_memory => store(8, false, false),
        M::Movhps | M::Movhpd if to_memory => store(8, true, false),
        M::Movss if to_memory => store(4, false, false),
        M::Movq | M::Movd => general(i),
        M::Movups | M::Movupd | M::Movdqu | M::Lddqu => plain(i, false, false),
        M::Movaps | M::Movapd | M::Movdqa | M::Movss | M::Movsd | M::Movlps | M::Movlpd | M::Movhlps => {
            plain(i, false, true)
        }
        M::Movhps | M::Movhpd | M::Movlhps => plain(i, false, true),
        M::Pslldq
        | M::Psrldq
        | M::Psllw
        | M::Pslld
        | M::Psllq
        | M::Psrlw
        | M::Psrld
        | M::Psrlq
        | M::Psraw
        | M::Psrad
            if i.op1_kind() == OpKind::Immediate8 =>
        {
            let encoding = encoding(i, 16, false, true)?;
            let group = u8::try_from(code.group_index()).ok()?;
            Some(Insn::VectorShift { encoding, group, of: xmm(i, 0)? })
        }
        M::Pmovmskb | M::Movmskps | M::Movmskpd => {
            let encoding = encoding(i, 16, false, true)?;
            Some(Insn::VectorMask { encoding, to: register(i, 0)?, from: xmm(i, 1)? })
        }
        M::Comiss | M::Comisd | M::Ucomiss | M::Ucomisd => {
            let encoding = encoding(i, memory_bytes(i)?, true, false)?;
            Some(Insn::VectorCompare { encoding, a: xmm(i, 0)?, b: source(i)? })
        }
        M::Cvtsi2sd | M::Cvtsi2ss => Some(Insn::VectorFromInteger {
            encoding: encoding(i, 8, true, false)?,
            width: Width::from_bytes(width(i, 1))?,
            to: xmm(i, 0)?,
            from: operand(i, 1)?,
        }),
        M::Cvttsd2si | M::Cvttss2si | M::Cvtsd2si | M::Cvtss2si => Some(Insn::VectorToInteger {
            encoding: encoding(i, memory_bytes(i).filter(|bytes| *bytes < 16).unwrap_or(8), true, false)?,
            width: Width::from_bytes(width(i, 0))?,
            to: register(i, 0)?,
            from: source(i)?,
        }),
        mnemonic if is_integer(mnemonic) => plain(i, false, true),
        mnemonic if is_floating(mnemonic) => plain(i, true, true),
        _ => None,
    }
}

/// An operation on two XMM registers, or on one and memory.
fn plain(i: &Instruction, floating: bool, aligned: bool) -> Option<Insn> {
    let encoding = encoding(i, memory_bytes(i)?, floating, aligned)?;
    Some(Insn::Vector { encoding, to: xmm(i, 0)?, from: source(i)? })
}

/// MOVD and MOVQ.
fn general(i: &Instruction) -> Option<Insn> {
    let is_xmm = |n| i.op_kind(n) == OpKind::Register && i.op_register(n).is_xmm();
    if i.op_register(0).is_mm() || i.op_register(1).is_mm() {
        return None;
    }
    match (is_xmm(0), is_xmm(1)) {
        (true, true) => plain(i, false, false),
        (true, false) => Some(Insn::VectorFromGeneral {
            width: Width::from_bytes(width(i, 1))?,
            to: xmm(i, 0)?,
            from: operand(i, 1)?,
        }),
        (false, true) if i.op0_kind() == OpKind::Memory => Some(Insn::VectorStore {
            from: xmm(i, 1)?,
            to: address(i)?,
            bytes: u8::try_from(width(i, 0)).ok()?,
            high: false,
            aligned: false,
        }),
        (false, true) => Some(Insn::VectorToGeneral {
            width: Width::from_bytes(width(i, 0))?,
            to: register(i, 0)?,
            from: xmm(i, 1)?,
        }),
        (false, false) => None,
    }
}

pub(super) fn xmm(i: &Instruction, n: u32) -> Option<Xmm> {
    let register = i.op_register(n);
    let given = i.op_kind(n) == OpKind::Register && (register.is_xmm() || register.is_ymm());
    given.then(|| Xmm::new(register.number() as u8)).flatten()
}

fn source(i: &Instruction) -> Option<VectorOperand> {
    match i.op_kind(1) {
        OpKind::Memory => address(i).map(VectorOperand::Memory),
        _ => xmm(i, 1).map(VectorOperand::Register),
    }
}

/// Bytes of a memory operand; those of a register where there is none.
fn memory_bytes(i: &Instruction) -> Option<u8> {
    if i.op1_kind() == OpKind::Memory { u8::try_from(i.memory_size().size()).ok() } else { Some(16) }
}

fn encoding(i: &Instruction, bytes: u8, floating: bool, aligned: bool) -> Option<VectorEncoding> {
    if i.op_count() > if immediate(i)?.is_some() { 3 } else { 2 } {
        return None;
    }
    let encoding = encoded(i, bytes, floating)?;
    Some(VectorEncoding { aligned: aligned && bytes == 16, ..encoding })
}

/// The immediate, if there is one; `None` where the last operand is of another kind.
fn immediate(i: &Instruction) -> Option<Option<u8>> {
    match i.op_kind(i.op_count().checked_sub(1)?) {
        OpKind::Immediate8 => Some(Some(i.immediate8())),
        OpKind::Register | OpKind::Memory => Some(None),
        _ => None,
    }
}

/// The encoding of an SSE instruction, or of the one that an AVX instruction does in each half.
pub(super) fn encoded(i: &Instruction, bytes: u8, floating: bool) -> Option<VectorEncoding> {
    let code = i.code().op_code();
    let immediate = immediate(i)?;
    let prefix = match code.mandatory_prefix() {
        MandatoryPrefix::None | MandatoryPrefix::PNP => None,
        MandatoryPrefix::P66 => Some(0x66),
        MandatoryPrefix::PF3 => Some(0xF3),
        MandatoryPrefix::PF2 => Some(0xF2),
    };
    // A move between registers has two encodings; the compiler's destination is where ModRM has a register.
    let (prefix, opcode) = match (code.table(), u8::try_from(code.op_code()).ok()?) {
        (OpCodeTableKind::T0F, store @ (0x11 | 0x29)) => (prefix, store - 1),
        (OpCodeTableKind::T0F, 0x7F) => (prefix, 0x6F),
        (OpCodeTableKind::T0F, 0xD6) => (Some(0xF3), 0x7E),
        (_, opcode) => (prefix, opcode),
    };
    Some(VectorEncoding {
        prefix,
        map: match code.table() {
            OpCodeTableKind::T0F => OpcodeMap::Map0F,
            OpCodeTableKind::T0F38 => OpcodeMap::Map0F38,
            OpCodeTableKind::T0F3A => OpcodeMap::Map0F3A,
            _ => return None,
        },
        opcode,
        immediate,
        bytes,
        aligned: false,
        floating,
    })
}

/// Logic, integers, and moves of lanes: nothing depends on MXCSR.
pub(super) fn is_integer(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Pxor
            | M::Vpxor
            | M::Por
            | M::Vpor
            | M::Pand
            | M::Vpand
            | M::Pandn
            | M::Vpandn
            | M::Xorps
            | M::Vxorps
            | M::Xorpd
            | M::Vxorpd
            | M::Orps
            | M::Vorps
            | M::Orpd
            | M::Vorpd
            | M::Andps
            | M::Vandps
            | M::Andpd
            | M::Vandpd
            | M::Andnps
            | M::Vandnps
            | M::Andnpd
            | M::Vandnpd
            | M::Paddb
            | M::Vpaddb
            | M::Paddw
            | M::Vpaddw
            | M::Paddd
            | M::Vpaddd
            | M::Paddq
            | M::Vpaddq
            | M::Psubb
            | M::Vpsubb
            | M::Psubw
            | M::Vpsubw
            | M::Psubd
            | M::Vpsubd
            | M::Psubq
            | M::Vpsubq
            | M::Pcmpeqb
            | M::Vpcmpeqb
            | M::Pcmpeqw
            | M::Vpcmpeqw
            | M::Pcmpeqd
            | M::Vpcmpeqd
            | M::Pcmpgtb
            | M::Vpcmpgtb
            | M::Pcmpgtw
            | M::Vpcmpgtw
            | M::Pcmpgtd
            | M::Vpcmpgtd
            | M::Pminub
            | M::Vpminub
            | M::Pmaxub
            | M::Vpmaxub
            | M::Pminsw
            | M::Vpminsw
            | M::Pmaxsw
            | M::Vpmaxsw
            | M::Pavgb
            | M::Vpavgb
            | M::Pavgw
            | M::Vpavgw
            | M::Pmulhuw
            | M::Vpmulhuw
            | M::Pmulhw
            | M::Vpmulhw
            | M::Pmullw
            | M::Vpmullw
            | M::Pmuludq
            | M::Vpmuludq
            | M::Pmaddwd
            | M::Vpmaddwd
            | M::Psadbw
            | M::Vpsadbw
            | M::Packsswb
            | M::Vpacksswb
            | M::Packssdw
            | M::Vpackssdw
            | M::Packuswb
            | M::Vpackuswb
            | M::Punpcklbw
            | M::Vpunpcklbw
            | M::Punpcklwd
            | M::Vpunpcklwd
            | M::Punpckldq
            | M::Vpunpckldq
            | M::Punpcklqdq
            | M::Vpunpcklqdq
            | M::Punpckhbw
            | M::Vpunpckhbw
            | M::Punpckhwd
            | M::Vpunpckhwd
            | M::Punpckhdq
            | M::Vpunpckhdq
            | M::Punpckhqdq
            | M::Vpunpckhqdq
            | M::Pshufd
            | M::Vpshufd
            | M::Pshuflw
            | M::Vpshuflw
            | M::Pshufhw
            | M::Vpshufhw
            | M::Shufps
            | M::Vshufps
            | M::Shufpd
            | M::Vshufpd
            | M::Unpcklps
            | M::Vunpcklps
            | M::Unpcklpd
            | M::Vunpcklpd
            | M::Unpckhps
            | M::Vunpckhps
            | M::Unpckhpd
            | M::Vunpckhpd
            | M::Pshufb
            | M::Vpshufb
            | M::Palignr
            | M::Vpalignr
            | M::Psllw
            | M::Vpsllw
            | M::Pslld
            | M::Vpslld
            | M::Psllq
            | M::Vpsllq
            | M::Psrlw
            | M::Vpsrlw
            | M::Psrld
            | M::Vpsrld
            | M::Psrlq
            | M::Vpsrlq
            | M::Psraw
            | M::Vpsraw
            | M::Psrad
            | M::Vpsrad
            | M::Pminud
            | M::Vpminud
            | M::Pmaxud
            | M::Vpmaxud
            | M::Pminsd
            | M::Vpminsd
            | M::Pmaxsd
            | M::Vpmaxsd
            | M::Pmulld
            | M::Vpmulld
            | M::Pcmpeqq
            | M::Vpcmpeqq
            | M::Movddup
            | M::Vmovddup
    )
}

/// Arithmetic and conversions of numbers.
pub(super) fn is_floating(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Addss
            | M::Vaddss
            | M::Addsd
            | M::Vaddsd
            | M::Addps
            | M::Vaddps
            | M::Addpd
            | M::Vaddpd
            | M::Subss
            | M::Vsubss
            | M::Subsd
            | M::Vsubsd
            | M::Subps
            | M::Vsubps
            | M::Subpd
            | M::Vsubpd
            | M::Mulss
            | M::Vmulss
            | M::Mulsd
            | M::Vmulsd
            | M::Mulps
            | M::Vmulps
            | M::Mulpd
            | M::Vmulpd
            | M::Divss
            | M::Vdivss
            | M::Divsd
            | M::Vdivsd
            | M::Divps
            | M::Vdivps
            | M::Divpd
            | M::Vdivpd
            | M::Sqrtss
            | M::Vsqrtss
            | M::Sqrtsd
            | M::Vsqrtsd
            | M::Sqrtps
            | M::Vsqrtps
            | M::Sqrtpd
            | M::Vsqrtpd
            | M::Minss
            | M::Vminss
            | M::Minsd
            | M::Vminsd
            | M::Minps
            | M::Vminps
            | M::Minpd
            | M::Vminpd
            | M::Maxss
            | M::Vmaxss
            | M::Maxsd
            | M::Vmaxsd
            | M::Maxps
            | M::Vmaxps
            | M::Maxpd
            | M::Vmaxpd
            | M::Cmpss
            | M::Vcmpss
            | M::Cmpsd
            | M::Vcmpsd
            | M::Cmpps
            | M::Vcmpps
            | M::Cmppd
            | M::Vcmppd
            | M::Cvtss2sd
            | M::Vcvtss2sd
            | M::Cvtsd2ss
            | M::Vcvtsd2ss
            | M::Cvtps2pd
            | M::Vcvtps2pd
            | M::Cvtpd2ps
            | M::Vcvtpd2ps
            | M::Cvtdq2ps
            | M::Vcvtdq2ps
            | M::Cvtps2dq
            | M::Vcvtps2dq
            | M::Cvttps2dq
            | M::Vcvttps2dq
            | M::Cvtdq2pd
            | M::Vcvtdq2pd
            | M::Cvtpd2dq
            | M::Vcvtpd2dq
            | M::Cvttpd2dq
            | M::Vcvttpd2dq
    )
}
