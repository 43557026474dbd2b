//! Random cases of random encodings, on the host CPU and in the emulator, one family of instructions after the other.
//!
//! A fixed number of cases by default; `TDVISOR_FUZZ_SECONDS` makes each family run that long, from seeds of its own. A
//! failure prints the seed of its case; `X86_EMU_SEED` replays a whole run.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::time::{Duration, Instant, SystemTime};

use iced_x86::{Code, CpuidFeature as F};
use tdvisor_test_data::chance::Chance;
use tdvisor_test_data::replay::number;

use crate::compare::{differences, implemented, is_implemented};
use crate::emulated::Emulated;
use crate::generate::{case, uses_mmx};
use crate::native::{Native, has_avx};

/// Cases of a family, where no time is given.
const CASES: u64 = 20_000;
/// Cases between two looks at the clock.
const BATCH: u64 = 256;

fn fuzz(family: &str, belongs: impl Fn(Code) -> bool) {
    let codes: Vec<Code> = implemented().into_iter().filter(|code| belongs(*code)).collect();
    assert!(codes.len() > 50, "{family}: {} encodings", codes.len());
    let seconds = number("TDVISOR_FUZZ_SECONDS");
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64);
    let seed = number("X86_EMU_SEED").unwrap_or(if seconds.is_some() { now } else { 1 });
    // One family at a time has the host's processor: each has its time from when its turn comes.
    let (mut native, mut emulated) = (Native::new(), Emulated::new());
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut chance = Chance::new(seed);
    let (mut thrown, mut compared) = (0u64, 0u64);
    let goes_on = |thrown: u64| match end {
        Some(end) => !thrown.is_multiple_of(BATCH) || Instant::now() < end,
        None => thrown < CASES,
    };
    while goes_on(thrown) {
        thrown += 1;
        let case_seed = chance.next();
        let code = chance.pick(&codes);
        let Some(case) = case(code, &mut Chance::new(case_seed)) else { continue };
        if !is_implemented(&case) {
            continue;
        }
        match differences(&case, &mut native, &mut emulated) {
            Ok(told) => compared += u64::from(told),
            Err(what) => panic!(
                "{family}: {} ({:02x?}) differs; run seed {seed}, case seed {case_seed:#x}\n    {what}",
                case.instruction, case.snippet
            ),
        }
    }
    println!("{family}: {compared} cases of {} encodings compared", codes.len());
    assert!(compared > thrown / 4, "{family}: only {compared} of {thrown} throws were compared");
}

fn has(code: Code, features: &[F]) -> bool {
    code.cpuid_features().iter().any(|feature| features.contains(feature))
}

const FPU: &[F] = &[F::FPU, F::FPU287, F::FPU387];
const SSE: &[F] = &[F::SSE, F::SSE2, F::SSE3, F::SSSE3, F::SSE4_1, F::SSE4_2];
const AVX: &[F] = &[F::AVX, F::AVX2, F::FMA, F::F16C];

#[test]
fn x87_instructions_do_what_the_host_does() {
    fuzz("x87", |code| has(code, FPU));
}

#[test]
fn mmx_instructions_do_what_the_host_does() {
    fuzz("MMX", uses_mmx);
}

#[test]
fn sse_instructions_do_what_the_host_does() {
    fuzz("SSE", |code| has(code, SSE) && !has(code, FPU) && !uses_mmx(code));
}

#[test]
fn integer_instructions_do_what_the_host_does() {
    fuzz("integer", |code| !has(code, SSE) && !has(code, AVX) && !has(code, FPU) && !uses_mmx(code));
}

#[test]
fn avx_instructions_do_what_the_host_does() {
    if !has_avx() {
        println!("AVX: the host has none");
        return;
    }
    fuzz("AVX", |code| has(code, AVX));
}
