//! Every implemented unprivileged encoding, on the host CPU and in the emulator, from the same registers,
//! flags and memory. A difference prints the seed of its case; `X86_EMU_SEED` replays another run.
//!
//! What the manuals leave undefined is masked by the name of the instruction ([`crate::compare`]).

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::collections::{BTreeMap, BTreeSet};

use tdvisor_test_data::chance::Chance;
use tdvisor_test_data::replay::number;

use crate::compare::{differences, implemented, is_implemented};
use crate::emulated::Emulated;
use crate::generate::case;
use crate::native::Native;

const CASES_PER_ENCODING: u64 = 48;

fn seed() -> u64 {
    number("X86_EMU_SEED").unwrap_or(0x7d0)
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
            let Some(case) = case(*code, &mut Chance::new(case_seed)) else { continue };
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
        cmovb cmovbe cmove cmovg cmovge cmovl cmovle cmovne cmovno cmovnp cmovns cmovo cmovp cmovs lzcnt \
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
