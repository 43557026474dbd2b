//! Attestation beside `dcap-qvl` (ring), in one run: ratios of medians over interleaved repetitions, in CPU time.
//!
//! Writes `target/bench/attest.json`. A ratio below 1 is faster than the peer. Both sides get the same
//! quotes and collateral, made by the test PKI, so that the benchmark needs no recorded data:
//! - fresh: only the trust anchor is known, made once on both sides: for ours, the root and the
//!   certificates that it issued, as the built-in anchor knows Intel's. Each call reads the collateral from
//!   JSON and verifies everything else; the peer gets its collateral decoded. (With nothing but the root
//!   known, the two signatures more make the ratio that is written as `bare_root`.)
//! - cached collateral: the collateral is known, the *platform* is not: PCK certificate, quoting enclave and
//!   quote are verified anew in each call. (From a platform that is known too, only the quote is new; that
//!   ratio is written as well.)
//!
//! MRTD is measured against its limit, SHA-384 over as many bytes.

#[path = "attest/evidence.rs"]
mod evidence;

use std::hint::black_box;
use std::process::ExitCode;

use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::verify::QuoteVerifier;
use evidence::{AT, Evidence};
use sha2::Digest;
use td_image::digest::Digest384;
use td_image::mrtd::MrtdBuilder;
use td_image::tdvf::PageContents;
use tdvisor_attest::collateral::Bundle;
use tdvisor_attest::crypto::Ring;
use tdvisor_attest::quote::Quote;
use tdvisor_attest::verify::{TrustAnchor, Verifier};
use tdvisor_base::Gpa;
use tdvisor_tests::bench::clock::{median, timed};
use tdvisor_tests::bench::{self, Bar, Report};

/// Interleaved repetitions of every measurement, and quotes to repeat it with.
const REPETITIONS: usize = 61;

/// The medians of two calls, measured in turns: nanoseconds of ours and of the peer's.
struct Medians {
    ours: f64,
    peer: f64,
}

impl Medians {
    fn measure(mut ours: impl FnMut(usize), mut peer: impl FnMut(usize)) -> Self {
        let (mut our_samples, mut peer_samples) = (Vec::new(), Vec::new());
        for repetition in 0..REPETITIONS {
            our_samples.push(timed(|| ours(repetition)));
            peer_samples.push(timed(|| peer(repetition)));
        }
        Self { ours: median(our_samples), peer: median(peer_samples) }
    }

    /// Notes the ratio of a call that was measured `calls` times at once.
    fn put(&self, report: &mut Report, key: &str, bar: Bar, calls: f64) {
        let [ours, peer] = [self.ours, self.peer].map(|nanoseconds| nanoseconds / calls / 1e3);
        report.put(key, self.ours / self.peer, bar, format!("{ours:.2} µs against {peer:.2} µs"));
    }
}

/// The evidence as this crate and as its peer have it.
struct Sides {
    evidence: Evidence,
    peer: QuoteVerifier,
    peer_collateral: QuoteCollateralV3,
}

impl Sides {
    fn new() -> Self {
        let evidence = Evidence::new(REPETITIONS);
        let peer = QuoteVerifier::new(evidence.root.clone());
        let peer_collateral = serde_json::from_str(&evidence.json).expect("the peer reads the same bundle");
        Self { evidence, peer, peer_collateral }
    }

    fn verify_peer(&self, which: usize) {
        let quote = &self.evidence.quotes[which];
        let report = self.peer.verify(quote, &self.peer_collateral, AT.0).expect("the peer verifies");
        assert_eq!(black_box(report).status, "UpToDate");
    }

    fn verify_fresh(&self, anchor: &TrustAnchor, which: usize) {
        let bundle = Bundle::from_json(&self.evidence.json).expect("the bundle");
        let mut verifier = Verifier::new(anchor.clone());
        verifier.add_collateral(&bundle).expect("the collateral");
        black_box(verifier.verify(&self.evidence.quotes[which], AT).expect("the quote"));
    }

    /// A verifier that knows the collateral and its issuers.
    fn informed(&self) -> Verifier<Ring> {
        let mut verifier = Verifier::new(self.evidence.anchor());
        verifier.add_collateral(&self.evidence.bundle).expect("the collateral");
        verifier.verify(&self.evidence.quotes[0], AT).expect("the quote");
        verifier
    }
}

fn fresh(sides: &Sides, report: &mut Report) {
    for (key, anchor, bar) in [
        ("verify_fresh_vs_dcap_qvl", sides.evidence.anchor(), Bar::AtMost(0.8)),
        ("verify_fresh_bare_root_vs_dcap_qvl", sides.evidence.bare_anchor(), Bar::None),
    ] {
        let medians =
            Medians::measure(|which| sides.verify_fresh(&anchor, which), |which| sides.verify_peer(which));
        medians.put(report, key, bar, 1.0);
    }
}

fn cached(sides: &Sides, report: &mut Report) {
    let mut verifier = sides.informed();
    let medians = Medians::measure(
        |which| {
            // Collateral and its issuers stay known, platforms do not.
            verifier.forget_platforms();
            black_box(verifier.verify(&sides.evidence.quotes[which], AT).expect("the quote"));
        },
        |which| sides.verify_peer(which),
    );
    medians.put(report, "verify_cached_collateral_vs_dcap_qvl", Bar::AtMost(0.33), 1.0);

    let mut verifier = sides.informed();
    let medians = Medians::measure(
        |which| {
            black_box(verifier.verify(&sides.evidence.quotes[which], AT).expect("the quote"));
        },
        |which| sides.verify_peer(which),
    );
    medians.put(report, "verify_cached_platform_vs_dcap_qvl", Bar::None, 1.0);

    let mut verifier = sides.informed();
    verifier.forget_platforms();
    let allocations = allocation_counter::measure(|| {
        black_box(verifier.verify(&sides.evidence.quotes[REPETITIONS - 1], AT).expect("the quote"));
    });
    report.put("allocations_per_cached_verify", allocations.count_total as f64, Bar::None, String::new());
}

fn parse(sides: &Sides, report: &mut Report) {
    const CALLS: usize = 1000;
    let medians = Medians::measure(
        |which| {
            for _ in 0..CALLS {
                black_box(Quote::parse(black_box(&sides.evidence.quotes[which])).expect("the quote"));
            }
        },
        |which| {
            for _ in 0..CALLS {
                let quote = dcap_qvl::quote::Quote::parse(black_box(&sides.evidence.quotes[which]));
                black_box(quote.expect("the quote"));
            }
        },
    );
    medians.put(report, "parse_v4_vs_dcap_qvl", Bar::None, CALLS as f64);
}

/// How near MRTD comes to the limit: SHA-384, by the faster of two implementations, over the same bytes at once.
fn mrtd(report: &mut Report) {
    const PAGES: u64 = 256;
    let memory: Vec<u8> = (0..PAGES * 4096).map(|at| ((at * 31) >> 3) as u8).collect();
    // Per page: one block of 128 bytes, then sixteen times a block and 256 bytes.
    let stream = vec![0x5a; PAGES as usize * (128 + 16 * (128 + 256))];
    let (mut ours, mut limits) = (Vec::new(), [Vec::new(), Vec::new()]);
    for _ in 0..REPETITIONS {
        ours.push(timed(|| {
            let mut mrtd = MrtdBuilder::new();
            for (index, page) in (0u64..).zip(memory.chunks(4096)) {
                let gpa = Gpa::new(0xffe0_0000 + index * 4096);
                mrtd.page_add(gpa);
                mrtd.extend_page(gpa, PageContents::Bytes(page));
            }
            black_box(mrtd.finalize());
        }));
        limits[0].push(timed(|| {
            black_box(Digest384::of(&stream));
        }));
        limits[1].push(timed(|| {
            black_box(sha2::Sha384::digest(&stream));
        }));
    }
    let limit = limits.into_iter().map(median).fold(f64::INFINITY, f64::min);
    report.put("mrtd_vs_sha384_limit", limit / median(ours), Bar::None, "1 is the limit".into());
}

fn main() -> ExitCode {
    let sides = Sides::new();
    bench::main(
        "attest",
        &[
            ("fresh", &|report| fresh(&sides, report)),
            ("cached", &|report| cached(&sides, report)),
            ("parse", &|report| parse(&sides, report)),
            ("mrtd", &mrtd),
        ],
    )
}
