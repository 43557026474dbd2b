//! Every implemented unprivileged encoding, on the host CPU and in the emulator, from the same registers,
//! flags and memory. A difference prints the seed of its case; `X86_EMU_SEED` replays another run.
//!
//! What the manuals leave undefined is masked by the name of the instruction ([`undefined_flags`]).

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

#[path = "support/emulated.rs"]
mod emulated;
#[path = "support/generate.rs"]
mod generate;
#[path = "native/mod.rs"]
mod native;

use std::collections::{BTreeMap, BTreeSet};

use emulated::{Emulated, End};
use generate::{Case, Rng, case};
use iced_x86::{Code, EncodingKind, Instruction, Mnemonic as M, OpCodeOperandKind, OpKind};
use native::Native;

const CF: u64 = 1;
const PF: u64 = 1 << 2;
const AF: u64 = 1 << 4;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
const OF: u64 = 1 << 11;
const ARITHMETIC: u64 = CF | PF | AF | ZF | SF | OF;
/// What a run compares: arithmetic flags, direction, interrupt enable, AC and ID.
const COMPARED: u64 = ARITHMETIC | 1 << 9 | 1 << 10 | 1 << 18 | 1 << 21;

const CASES_PER_ENCODING: u64 = 48;

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
];

/// Encodings of otherwise tested mnemonics that touch control, debug or segment registers, or go far.
fn is_system_form(code: Code) -> bool {
    use OpCodeOperandKind as K;
    let info = code.op_code();
    let mnemonic = code.mnemonic();
    let kinds: Vec<K> = (0..info.op_count()).map(|n| info.op_kind(n)).collect();
    kinds.iter().any(|k| matches!(k, K::cr_reg | K::dr_reg | K::tr_reg))
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
        M::Rcpss | M::Rcpps | M::Rsqrtss | M::Rsqrtps => (0..4).all(|n| {
            let (a, b) = (lane(here, n), lane(there, n));
            near(a, b) || tiny(a, b) || tiny(b, a)
        }),
        _ => here == there,
    }
}

/// The signal that Linux makes of an exception.
fn signal_of(vector: u8) -> u64 {
    (match vector {
        0 | 19 => libc::SIGFPE,
        6 => libc::SIGILL,
        12 | 17 => libc::SIGBUS,
        1 | 3 => libc::SIGTRAP,
        _ => libc::SIGSEGV,
    }) as u64
}

/// What went differently, in words; `None` if nothing did.
fn differences(case: &Case, native: &mut Native, emulated: &mut Emulated) -> Result<bool, String> {
    let mut host_data = case.data.clone();
    let mut emulated_data = case.data.clone();
    let (there, end) = emulated.run(&case.snippet, &case.before, &mut emulated_data, case.budget);
    if let End::Unimplemented(_) = end {
        return Ok(false);
    }
    let (here, signal) = native.run(&case.snippet, &case.before, &mut host_data);
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
    }
    let mask = COMPARED & !undefined_flags(&case.instruction, case.before.gpr[1]);
    if (here.flags ^ there.flags) & mask != 0 {
        wrong.push(format!(
            "flags: {:#x} became {:#x} on the host, {:#x} in the emulator (compared {mask:#x})",
            case.before.flags, here.flags, there.flags
        ));
    }
    if (here.mxcsr, here.fcw, here.fsw) != (there.mxcsr, there.fcw, there.fsw) {
        wrong.push(format!(
            "mxcsr, fcw, fsw: {:#x} {:#x} {:#x} on the host, {:#x} {:#x} {:#x} in the emulator",
            here.mxcsr, here.fcw, here.fsw, there.mxcsr, there.fcw, there.fsw
        ));
    }
    if let Some(at) = host_data.iter().zip(emulated_data.iter()).position(|(a, b)| a != b) {
        wrong.push(format!(
            "memory at offset {at:#x}: {:#x} became {:#x} on the host, {:#x} in the emulator",
            case.data[at], host_data[at], emulated_data[at]
        ));
    }
    if wrong.is_empty() { Ok(true) } else { Err(wrong.join("\n    ")) }
}

/// Encodings that exist in 64-bit mode and that the emulator implements.
fn implemented() -> Vec<Code> {
    Code::values()
        .filter(|code| {
            let info = code.op_code();
            info.is_instruction()
                && info.mode64()
                && info.encoding() == EncodingKind::Legacy
                && !NOT_HERE.contains(&code.mnemonic())
                && !is_system_form(*code)
        })
        .filter(|code| {
            // Whether it is implemented may depend on the operands: some throw must be.
            let mut rng = Rng(0);
            (0..64).filter_map(|_| case(*code, &mut rng)).any(|c| is_implemented(&c))
        })
        .collect()
}

/// Whether the emulator implements the instruction of a case.
fn is_implemented(case: &Case) -> bool {
    generate::encode(&case.instruction, native::SNIPPET).is_some_and(|bytes| x86_emu::implements(&bytes))
}

fn seed() -> u64 {
    std::env::var("X86_EMU_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0x7d0)
}

#[test]
fn every_implemented_encoding_does_what_the_host_does() {
    let mut native = Native::new();
    let mut emulated = Emulated::new();
    let run_seed = seed();
    let mut failures: BTreeMap<String, (u64, String)> = BTreeMap::new();
    let mut unexercised = Vec::new();
    let codes = implemented();
    let mut cases = 0u64;
    for code in &codes {
        let mut compared = 0;
        let mut attempts = 0;
        while compared < CASES_PER_ENCODING && attempts < 8 * CASES_PER_ENCODING {
            attempts += 1;
            let case_seed = run_seed ^ (*code as u64) << 32 ^ attempts << 16;
            let Some(case) = case(*code, &mut Rng(case_seed)) else { continue };
            if !is_implemented(&case) {
                continue;
            }
            match differences(&case, &mut native, &mut emulated) {
                Ok(true) => compared += 1,
                Ok(false) => {}
                Err(what) => {
                    compared += 1;
                    let entry = failures.entry(format!("{code:?}")).or_insert_with(|| {
                        let text = format!(
                            "{} ({:02x?}), case seed {case_seed:#x}\n    {what}",
                            case.instruction, case.snippet
                        );
                        (0, text)
                    });
                    entry.0 += 1;
                }
            }
        }
        cases += compared;
        if compared < CASES_PER_ENCODING / 4 {
            unexercised.push(format!("{code:?}"));
        }
    }
    let report: Vec<String> =
        failures.values().map(|(count, text)| format!("{count} of {CASES_PER_ENCODING}: {text}")).collect();
    assert!(
        report.is_empty(),
        "{} encodings differ (run seed {run_seed}):\n{}",
        report.len(),
        report.join("\n")
    );
    assert!(unexercised.is_empty(), "too few comparisons of {unexercised:?}");
    assert!(codes.len() > 600 && cases > 600 * CASES_PER_ENCODING / 2, "{} encodings, {cases}", codes.len());
}

#[test]
fn the_mnemonics_of_a_compiler_and_a_kernel_are_all_exercised() {
    let exercised: BTreeSet<String> =
        implemented().iter().map(|c| format!("{:?}", c.mnemonic()).to_lowercase()).collect();
    let wanted = "adc add and bsf bsr bswap bt btc btr bts call cbw cdq cdqe clc cld clflush cmc cmpsb cmpsd \
        cmpsq cmpsw cmpxchg cmpxchg16b cmpxchg8b cqo cwd cwde dec div endbr64 enter idiv imul inc ja jae jb jbe \
        je jecxz jg jge jl jle jmp jne jno jnp jns jo jp jrcxz js lahf lea leave lfence lodsb lodsd lodsq lodsw \
        loop loope loopne mfence mov movbe movnti movsb movsd movsq movsw movsx movsxd movzx mul neg nop not or \
        pause pop popcnt popf popfq prefetcht0 push pushf pushfq rcl rcr ret rol ror sahf sar sbb scasb scasd \
        scasq scasw seta setae setb setbe sete setg setge setl setle setne setno setnp setns seto setp sets \
        sfence shl shld shr shrd stc std stosb stosd stosq stosw sub test xadd xchg xlatb xor cmova cmovae \
        cmovb cmovbe cmove cmovg cmovge cmovl cmovle cmovne cmovno cmovnp cmovns cmovo cmovp cmovs lzcnt tzcnt \
        crc32 addpd addps addsd addss andnpd andnps andpd andps cmppd cmpps cmpsd cmpss comisd comiss \
        cvtdq2pd cvtdq2ps cvtpd2dq cvtpd2ps cvtps2dq cvtps2pd cvtsd2si cvtsd2ss cvtsi2sd cvtsi2ss cvtss2sd \
        cvtss2si cvttpd2dq cvttps2dq cvttsd2si cvttss2si divpd divps divsd divss ldmxcsr maxpd maxps maxsd \
        maxss minpd minps minsd minss movapd movaps movd movdqa movdqu movhlps movhpd movhps movlhps movlpd \
        movlps movmskpd movmskps movntdq movntpd movntps movq movss movupd movups mulpd mulps mulsd mulss orpd \
        orps packssdw packsswb packuswb paddb paddd paddq paddsb paddsw paddusb paddusw paddw pand pandn pavgb \
        pavgw pcmpeqb pcmpeqd pcmpeqw pcmpgtb pcmpgtd pcmpgtw pextrw pinsrw pmaddwd pmaxsw pmaxub pminsw pminub \
        pmovmskb pmulhuw pmulhw pmullw pmuludq por psadbw pshufd pshufhw pshuflw pslld pslldq psllq psllw psrad \
        psraw psrld psrldq psrlq psrlw psubb psubd psubq psubsb psubsw psubusb psubusw psubw punpckhbw \
        punpckhdq punpckhqdq punpckhwd punpcklbw punpckldq punpcklqdq punpcklwd pxor shufpd shufps sqrtpd \
        sqrtps sqrtsd sqrtss stmxcsr subpd subps subsd subss ucomisd ucomiss unpckhpd unpckhps unpcklpd \
        unpcklps xorpd xorps fninit fnstcw fldcw fnstsw fnclex wait pcmpistri pcmpistrm pcmpestri pcmpestrm rdsspq";
    let missing: Vec<&str> = wanted.split_whitespace().filter(|m| !exercised.contains(*m)).collect();
    assert!(missing.is_empty(), "not exercised: {missing:?}");
}
