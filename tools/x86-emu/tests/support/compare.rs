//! What a case has to do on both sides, and which differences between processors are no mistakes.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use iced_x86::{
    Code, CpuidFeature as F, EncodingKind, Instruction, Mnemonic as M, OpCodeOperandKind, OpKind,
};
use tdvisor_test_data::chance::Chance;

use crate::emulated::{Emulated, End};
use crate::generate::{Case, case, encode};
use crate::native::{Native, SNIPPET, State};

const CF: u64 = 1;
const PF: u64 = 1 << 2;
const AF: u64 = 1 << 4;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
const OF: u64 = 1 << 11;
const ARITHMETIC: u64 = CF | PF | AF | ZF | SF | OF;
/// What a run compares: arithmetic flags, direction, interrupt enable, AC and ID.
const COMPARED: u64 = ARITHMETIC | 1 << 9 | 1 << 10 | 1 << 18 | 1 << 21;

/// Implemented, but not for this test: privileged, dependent on the machine around the CPU, or with effects
/// beyond registers and mapped memory. They are tested from tables in the crate itself.
const NOT_HERE: &[M] = &[
    M::Hlt,
    M::Cli,
    M::Sti,
    M::In,
    M::Out,
    M::Insb,
    M::Insw,
    M::Insd,
    M::Outsb,
    M::Outsw,
    M::Outsd,
    M::Clts,
    M::Lmsw,
    M::Smsw,
    M::Lgdt,
    M::Lidt,
    M::Sgdt,
    M::Sidt,
    M::Lldt,
    M::Sldt,
    M::Ltr,
    M::Str,
    M::Lar,
    M::Lsl,
    M::Verr,
    M::Verw,
    M::Invlpg,
    M::Invpcid,
    M::Invd,
    M::Wbinvd,
    M::Wbnoinvd,
    M::Rdmsr,
    M::Wrmsr,
    M::Cpuid,
    M::Monitor,
    M::Mwait,
    M::Pconfig,
    M::Rdtsc,
    M::Rdtscp,
    M::Rdpid,
    M::Serialize,
    M::Rdpmc,
    M::Rdpkru,
    M::Wrpkru,
    M::Clac,
    M::Stac,
    M::Swapgs,
    M::Rdfsbase,
    M::Rdgsbase,
    M::Wrfsbase,
    M::Wrgsbase,
    M::Xgetbv,
    M::Xsetbv,
    M::Rdrand,
    M::Rdseed,
    M::Lss,
    M::Lfs,
    M::Lgs,
    M::Retf,
    M::Iret,
    M::Iretd,
    M::Iretq,
    M::Syscall,
    M::Sysenter,
    M::Sysexit,
    M::Sysexitq,
    M::Sysret,
    M::Sysretq,
    M::Int,
    M::Int1,
    M::Int3,
    M::Ud0,
    M::Ud1,
    // The pointers and selectors that they store are each vendor's own.
    M::Fnstenv,
    M::Fnsave,
    // Transcendental functions are judged by exact numbers, not by the host.
    M::F2xm1,
    M::Fyl2x,
    M::Fyl2xp1,
    M::Fpatan,
    M::Fsin,
    M::Fcos,
    M::Fsincos,
    M::Fptan,
    M::Movdiri,
    M::Movdir64b,
    M::Cldemote,
    M::Fxsave,
    M::Fxsave64,
    M::Fxrstor,
    M::Fxrstor64,
    M::Xsave,
    M::Xsave64,
    M::Xsaveopt,
    M::Xsaveopt64,
    M::Xsavec,
    M::Xsavec64,
    M::Xsaves,
    M::Xsaves64,
    M::Xrstor,
    M::Xrstor64,
    M::Xrstors,
    M::Xrstors64,
    M::Tdcall,
    M::Seamcall,
    M::Seamret,
    M::Seamops,
    M::Vmcall,
    M::Vmxon,
    M::Vmxoff,
    M::Vmclear,
    M::Vmptrld,
    M::Vmptrst,
    M::Vmread,
    M::Vmwrite,
    M::Vmlaunch,
    M::Vmresume,
    M::Vmfunc,
    M::Invept,
    M::Invvpid,
    M::Encls,
    M::Enclu,
    M::Enclv,
    M::Getsec,
    M::Getsecq,
];

/// Encodings of otherwise tested mnemonics that touch control, debug or segment registers, or go far.
fn is_system_form(code: Code) -> bool {
    use OpCodeOperandKind as K;
    let info = code.op_code();
    let mnemonic = code.mnemonic();
    let kinds: Vec<K> = (0..info.op_count()).map(|n| info.op_kind(n)).collect();
    let is_prefetch_for_amd = matches!(
        code,
        Code::Reservednop_rm16_r16_0F0D | Code::Reservednop_rm32_r32_0F0D | Code::Reservednop_rm64_r64_0F0D
    );
    is_prefetch_for_amd
        || kinds.iter().any(|k| matches!(k, K::cr_reg | K::dr_reg | K::tr_reg))
        || mnemonic == M::Mov && kinds.first() == Some(&K::seg_reg)
        || mnemonic == M::Pop && matches!(kinds.first(), Some(K::fs | K::gs))
        || matches!(mnemonic, M::Jmp | M::Call) && {
            let text = info.instruction_string();
            text.contains("m16:")
        }
}

/// Flags that the manuals call undefined after an instruction with these operands.
fn undefined_flags(i: &Instruction, cl: u64) -> u64 {
    let size = match i.op0_kind() {
        OpKind::Register => i.op0_register().size(),
        _ => i.memory_size().size(),
    } as u64;
    let count = match i.op_kind(i.op_count().saturating_sub(1)) {
        OpKind::Immediate8 => u64::from(i.immediate8()),
        _ => cl,
    } & if size == 8 { 63 } else { 31 };
    let overflow = if count == 1 { 0 } else { OF };
    match i.mnemonic() {
        M::And | M::Or | M::Xor | M::Test => AF,
        M::Mul | M::Imul => SF | ZF | AF | PF,
        M::Div | M::Idiv => ARITHMETIC,
        M::Bsf | M::Bsr => CF | OF | SF | AF | PF,
        M::Tzcnt | M::Lzcnt => OF | SF | AF | PF,
        M::Andn | M::Blsi | M::Blsmsk | M::Blsr | M::Bzhi => AF | PF,
        M::Bextr => SF | AF | PF,
        M::Bt | M::Bts | M::Btr | M::Btc => OF | SF | AF | PF,
        M::Shl | M::Sal | M::Shr | M::Sar | M::Shld | M::Shrd if count == 0 => 0,
        M::Shl | M::Sal | M::Shr if count >= 8 * size => AF | overflow | CF,
        M::Shl | M::Sal | M::Shr | M::Sar | M::Shld | M::Shrd => AF | overflow,
        M::Rol | M::Ror | M::Rcl | M::Rcr if count != 0 => overflow,
        _ => 0,
    }
}

/// Whether vector registers agree: bit for bit, but for the estimates, whose values are the processor's own choice
/// within 1.5 * 2^-12 of the exact one.
fn same_vector(i: &Instruction, here: u128, there: u128) -> bool {
    const BOUND: f32 = 2.0 * 1.5 / 4096.0;
    let lane = |value: u128, n: u32| f32::from_bits((value >> (32 * n)) as u32);
    let near = |a: f32, b: f32| a.to_bits() == b.to_bits() || (a / b - 1.0).abs() <= BOUND;
    // Whether results at the border of the normal range are tiny depends on the value.
    let tiny = |a: f32, b: f32| a == 0.0 && b.abs() < f32::MIN_POSITIVE * (1.0 + BOUND);
    match i.mnemonic() {
        M::Rcpss | M::Rcpps | M::Rsqrtss | M::Rsqrtps | M::Vrcpss | M::Vrcpps | M::Vrsqrtss | M::Vrsqrtps => {
            (0..4).all(|n| {
                let (a, b) = (lane(here, n), lane(there, n));
                near(a, b) || tiny(a, b) || tiny(b, a)
            })
        }
        _ => here == there,
    }
}

/// Bits of the x87 status word that the manuals leave undefined, or where vendors differ and Intel's manual decides:
/// tested from tables in the crate.
fn undefined_status(i: &Instruction, after: &State) -> u16 {
    const C0: u16 = 1 << 8;
    const C1: u16 = 1 << 9;
    const C2: u16 = 1 << 10;
    const C3: u16 = 1 << 14;
    const ES: u16 = 1 << 7;
    match i.mnemonic() {
        // Intel clears C1.
        M::Fcomi | M::Fcomip | M::Fucomi | M::Fucomip => C1,
        M::Ffree | M::Ffreep | M::Fstpnce => C0 | C1 | C2 | C3,
        // Intel's comparisons leave the codes with an exception that is not masked.
        M::Fcom
        | M::Fcomp
        | M::Fcompp
        | M::Fucom
        | M::Fucomp
        | M::Fucompp
        | M::Ficom
        | M::Ficomp
        | M::Ftst
            if after.fsw & ES != 0 =>
        {
            C0 | C2 | C3
        }
        _ => 0,
    }
}

/// Whether FCOMI or its kin found an exception that is not masked: Intel's leave the flags.
fn x87_comparison_stopped(i: &Instruction, after: &State) -> bool {
    const ES: u16 = 1 << 7;
    matches!(i.mnemonic(), M::Fcomi | M::Fcomip | M::Fucomi | M::Fucomip) && after.fsw & ES != 0
}

/// CVTPI2PS from memory is an MMX instruction for Intel, so that a waiting x87 exception is raised first.
fn is_vendors_own(case: &Case) -> bool {
    const ES: u16 = 1 << 7;
    case.instruction.mnemonic() == M::Cvtpi2ps && case.before.fsw & ES != 0
}

/// Where vendors differ in more than codes, and Intel's manual decides: an unmasked denormal operand of FLD is not
/// pushed, CVTPI2PS from memory is a transition to MMX, and a conversion that raises #XM changes nothing.
fn x87_is_vendors_own(i: &Instruction, after: &State, signal: u64) -> bool {
    const DE_AND_ES: u16 = 0x82;
    match i.mnemonic() {
        M::Fld => after.fsw & DE_AND_ES == DE_AND_ES,
        M::Cvtpi2ps if i.op1_kind() == OpKind::Memory => true,
        M::Cvtpi2ps | M::Cvtps2pi | M::Cvttps2pi | M::Cvtpd2pi | M::Cvttpd2pi => signal != 0,
        _ => false,
    }
}

/// A misaligned operand of the SHA instructions: Intel's manual has them in exception class 4, which refuses it; other
/// vendors read it.
fn refuses_misaligned_sha(i: &Instruction, end: &End) -> bool {
    let sha = i.cpuid_features().contains(&F::SHA);
    sha && i.op1_kind() == OpKind::Memory && *end == End::Exception(13)
}

/// The signal that Linux makes of an exception.
fn signal_of(vector: u8) -> u64 {
    (match vector {
        0 | 16 | 19 => libc::SIGFPE,
        6 => libc::SIGILL,
        12 | 17 => libc::SIGBUS,
        1 | 3 => libc::SIGTRAP,
        _ => libc::SIGSEGV,
    }) as u64
}

/// What went differently, in words; `None` if nothing did.
pub fn differences(case: &Case, native: &mut Native, emulated: &mut Emulated) -> Result<bool, String> {
    if is_vendors_own(case) {
        return Ok(false);
    }
    let mut host_data = case.data.clone();
    let mut emulated_data = case.data.clone();
    let (there, end) = emulated.run(&case.snippet, &case.before, &mut emulated_data, case.budget);
    if let End::Unimplemented(_) = end {
        return Ok(false);
    }
    let (here, signal) = native.run(&case.snippet, &case.before, &mut host_data);
    if refuses_misaligned_sha(&case.instruction, &end) {
        return Ok(false);
    }
    let mut wrong = Vec::new();
    let expected = match end {
        End::Exception(vector) => signal_of(vector),
        _ => 0,
    };
    if signal != expected {
        wrong.push(format!("the host ended with signal {signal}, the emulator with {end:?}"));
    }
    for n in 0..16 {
        if here.gpr[n] != there.gpr[n] {
            wrong.push(format!(
                "register {n}: {:#x} became {:#x} on the host, {:#x} in the emulator",
                case.before.gpr[n], here.gpr[n], there.gpr[n]
            ));
        }
        if !same_vector(&case.instruction, here.xmm[n], there.xmm[n]) {
            wrong.push(format!(
                "xmm{n}: {:#x} became {:#x} on the host, {:#x} in the emulator",
                case.before.xmm[n], here.xmm[n], there.xmm[n]
            ));
        }
        if !same_vector(&case.instruction, here.ymm_high[n], there.ymm_high[n]) {
            wrong.push(format!(
                "upper half of ymm{n}: {:#x} became {:#x} on the host, {:#x} in the emulator",
                case.before.ymm_high[n], here.ymm_high[n], there.ymm_high[n]
            ));
        }
    }
    let mut mask = COMPARED & !undefined_flags(&case.instruction, case.before.gpr[1]);
    if x87_comparison_stopped(&case.instruction, &there) {
        mask &= !ARITHMETIC;
    }
    if (here.flags ^ there.flags) & mask != 0 {
        wrong.push(format!(
            "flags: {:#x} became {:#x} on the host, {:#x} in the emulator (compared {mask:#x})",
            case.before.flags, here.flags, there.flags
        ));
    }
    if here.mxcsr != there.mxcsr {
        wrong.push(format!("mxcsr: {:#x} on the host, {:#x} in the emulator", here.mxcsr, there.mxcsr));
    }
    if let Some(at) = host_data.iter().zip(emulated_data.iter()).position(|(a, b)| a != b) {
        wrong.push(format!(
            "memory at offset {at:#x}: {:#x} became {:#x} on the host, {:#x} in the emulator",
            case.data[at], host_data[at], emulated_data[at]
        ));
    }
    let told = |state: &State| state.fsw & !undefined_status(&case.instruction, &there);
    if x87_is_vendors_own(&case.instruction, &there, signal) {
        return if wrong.is_empty() { Ok(true) } else { Err(wrong.join("\n    ")) };
    }
    if (here.fcw, told(&here), here.ftw) != (there.fcw, told(&there), there.ftw) {
        wrong.push(format!(
            "fcw, fsw, ftw: {:#x} {:#x} {:#x} became {:#x} {:#x} {:#x} on the host, {:#x} {:#x} {:#x} in the emulator",
            case.before.fcw,
            case.before.fsw,
            case.before.ftw,
            here.fcw,
            here.fsw,
            here.ftw,
            there.fcw,
            there.fsw,
            there.ftw
        ));
    }
    for n in 0..8 {
        if here.st[n] != there.st[n] {
            wrong.push(format!(
                "st{n}: {:#x} on the host, {:#x} in the emulator; from {:x?} {:x?}",
                here.st[n], there.st[n], case.before.st, case.before.gpr
            ));
        }
    }
    if wrong.is_empty() { Ok(true) } else { Err(wrong.join("\n    ")) }
}

/// Whether the host can run an encoding: it may lack AVX, and what is built on it.
fn host_has(code: Code) -> bool {
    use std::is_x86_feature_detected as has;
    code.cpuid_features().iter().all(|feature| match feature {
        F::AVX => has!("avx"),
        F::AVX2 => has!("avx2"),
        F::FMA => has!("fma"),
        F::F16C => has!("f16c"),
        F::VAES => has!("vaes"),
        F::VPCLMULQDQ => has!("vpclmulqdq"),
        _ => true,
    })
}

/// Encodings that exist in 64-bit mode and that the emulator implements.
pub fn implemented() -> Vec<Code> {
    Code::values()
        .filter(|code| {
            let info = code.op_code();
            info.is_instruction()
                && info.mode64()
                && matches!(info.encoding(), EncodingKind::Legacy | EncodingKind::VEX)
                && host_has(*code)
                && !NOT_HERE.contains(&code.mnemonic())
                && !is_system_form(*code)
        })
        .filter(|code| {
            // Whether it is implemented may depend on the operands: some throw must be.
            let mut chance = Chance::new(0);
            (0..64).filter_map(|_| case(*code, &mut chance)).any(|c| is_implemented(&c))
        })
        .collect()
}

/// Whether the emulator implements the instruction of a case.
pub fn is_implemented(case: &Case) -> bool {
    encode(&case.instruction, SNIPPET).is_some_and(|bytes| x86_emu::implements(&bytes))
}
