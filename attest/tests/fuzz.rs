//! Seeded mutation of real and issued evidence: whatever the bytes, an answer comes back and nothing panics.
//!
//! A short run by default; `TDVISOR_FUZZ_SECONDS` makes each target run that long. A failure prints the seed
//! that replays it: `TDVISOR_FUZZ_SEED`.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::time::{Duration, Instant};

use tdvisor_attest::UnixSeconds;
use tdvisor_attest::collateral::{Bundle, Parts, QeIdentity, TcbInfo};
use tdvisor_attest::crypto::Ring;
use tdvisor_attest::issue::{Issued, PlatformSpec, TestPlatform};
use tdvisor_attest::policy::Policy;
use tdvisor_attest::qgs::{GetQuote, Quoted};
use tdvisor_attest::quote::Quote;
use tdvisor_attest::report::{ReportKey, TdReport};
use tdvisor_attest::verify::{TrustAnchor, Verifier};
use tdvisor_attest::x509::{Certificate, RevocationList, pem};
use zerocopy::IntoBytes;

const AT: UnixSeconds = UnixSeconds(1_790_000_000);
/// Inputs of a run that is not told how long to be.
const SHORT_RUN: u64 = 3_000;

/// A small generator (SplitMix64): the seed says everything.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// Changes a few places of `input`: bits, bytes, lengths, copies, cuts, extensions.
fn mutate(input: &[u8], random: &mut Random) -> Vec<u8> {
    const EXTREMES: [u32; 6] = [0, 1, 0x7f, 0xff, 0x7fff_ffff, u32::MAX];
    let mut bytes = input.to_vec();
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len());
        match random.below(8) {
            0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            2 if !bytes.is_empty() => bytes[at] = random.next() as u8,
            3 => {
                let value = EXTREMES[random.below(EXTREMES.len())].to_le_bytes();
                for (place, byte) in bytes.iter_mut().skip(at).zip(value) {
                    *place = byte;
                }
            }
            4 => bytes.truncate(at),
            5 => {
                let from = random.below(bytes.len());
                let len = random.below(64).min(bytes.len() - from);
                let piece = bytes[from..from + len].to_vec();
                bytes.splice(at..at, piece);
            }
            6 => {
                let piece: [&[u8]; 8] =
                    [b"[", b"{", b"]", b"}", b"\"", b"\\u0000", b"-----BEGIN ", b"99999999999"];
                let piece = piece[random.below(8)];
                bytes.splice(at..at, piece.repeat(1 + random.below(40)));
            }
            _ => bytes.extend(std::iter::repeat_n(random.next() as u8, random.below(100))),
        }
    }
    bytes
}

/// Runs `target` on mutations of `seeds`.
fn fuzz(name: &str, seeds: &[Vec<u8>], target: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
    let seed = std::env::var("TDVISOR_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1u64);
    let seconds = std::env::var("TDVISOR_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut runs = 0u64;
    loop {
        let mut random = Random(seed.wrapping_add(runs));
        let input = &seeds[random.below(seeds.len())];
        let bytes = mutate(input, &mut random);
        let outcome = std::panic::catch_unwind(|| target(&bytes));
        assert!(outcome.is_ok(), "{name}: replay with TDVISOR_FUZZ_SEED={}", seed.wrapping_add(runs));
        runs += 1;
        let is_over = match end {
            Some(end) => runs.is_multiple_of(64) && Instant::now() >= end,
            None => runs == SHORT_RUN,
        };
        if is_over {
            println!("{name}: {runs} inputs");
            return;
        }
    }
}

fn issued() -> (TrustAnchor, Issued) {
    let platform = TestPlatform::new([7; 32], PlatformSpec::default());
    let mut report = TdReport::zeroed();
    report.seal(&ReportKey([1; 32]));
    let issued = platform.quote_for_report(report.as_bytes(), 5, AT).unwrap();
    (TrustAnchor::from_bytes(issued.root_pem.as_bytes()).unwrap(), issued)
}

/// Files of a folder of the vectors, if they are there.
fn recorded(folder: &str) -> Vec<Vec<u8>> {
    let Some(vectors) = common::vectors() else { return Vec::new() };
    let mut paths: Vec<_> =
        std::fs::read_dir(vectors.join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

#[test]
fn any_quote_gets_an_answer() {
    let (anchor, issued) = issued();
    let mut seeds = recorded("quotes");
    seeds.push(issued.quote.clone());
    let mut verifier = Verifier::with_crypto(anchor, Ring);
    verifier.add_collateral(&issued.collateral).unwrap();
    fuzz("quote", &seeds, |bytes| {
        if let Ok(quote) = Quote::parse(bytes) {
            let _ = (quote.check_supported(), quote.signature.certification.platform_id());
        }
        let _ = verifier.clone().verify(bytes, AT);
    });
}

#[test]
fn any_collateral_gets_an_answer() {
    let (anchor, issued) = issued();
    let mut seeds = recorded("collateral");
    seeds.push(issued.collateral.to_json().into_bytes());
    fuzz("collateral", &seeds, |bytes| {
        let _ = Parts::default().add(bytes);
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let _ = (TcbInfo::parse(text), QeIdentity::parse(text));
        if let Ok(bundle) = Bundle::from_json(text) {
            let _ = Verifier::with_crypto(anchor.clone(), Ring).add_collateral(&bundle);
        }
    });
}

#[test]
fn any_signed_json_gets_an_answer() {
    let (_, issued) = issued();
    let seeds =
        [issued.collateral.tcb_info.body.into_bytes(), issued.collateral.qe_identity.body.into_bytes()];
    fuzz("TCB info and QE identity", &seeds, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let _ = (TcbInfo::parse(text), QeIdentity::parse(text));
    });
}

#[test]
fn any_certificate_list_or_pem_gets_an_answer() {
    let (_, issued) = issued();
    let mut seeds = issued.collateral.tcb_info.chain.clone();
    seeds.extend([issued.collateral.root_crl, issued.collateral.pck_crl, issued.root_pem.into_bytes()]);
    fuzz("X.509", &seeds, |bytes| {
        let _ = (Certificate::from_der(bytes).is_ok(), RevocationList::from_der(bytes).is_ok());
        let _ = (pem::certificates(bytes), pem::revocation_list(bytes), pem::certificate(bytes));
        let _ = tdvisor_attest::pck::PckExtension::parse(bytes);
    });
}

#[test]
fn any_policy_gets_an_answer() {
    let policy = r#"
        report_data = "0102"
        [tcb]
        accept = ["UpToDate", "ConfigurationNeeded"]
        grace_days = 2
        allowed_advisories = ["INTEL-SA-1"]
        [platform]
        fmspc = ["b0c06f000000"]
        [td]
        debug = "any"
        attributes = { mask = "0x80000000", value = "0" }
        rtmr3 = "zero"
        [enclave]
        isv_prod_id = 7
    "#;
    let json = r#"{"tcb":{"accept":["UpToDate"],"grace_days":1},"td":{"rtmr3":"log","mr_service_td":"any"}}"#;
    fuzz("policy", &[policy.as_bytes().to_vec(), json.as_bytes().to_vec()], |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let _ = (Policy::from_text(text), Policy::from_json(text));
    });
}

#[test]
fn any_qgs_message_gets_an_answer() {
    let request = GetQuote { report: &[1; 1024], ids: &[2; 16] }.encode().unwrap();
    let answer = Quoted { id: &[3; 16], quote: &[4; 5000] }.encode().unwrap();
    fuzz("QGS", &[request, answer], |bytes| {
        let _ = (GetQuote::decode(bytes), Quoted::decode(bytes));
    });
}
