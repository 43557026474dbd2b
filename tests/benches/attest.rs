//! Attestation beside `dcap-qvl` (ring), in one run: ratios of medians over interleaved repetitions.
//!
//! MRTD is measured against its limit, SHA-384 over as many bytes.
//!
//! Writes `target/bench/attest.json`. A ratio below 1 is faster than the peer. Both sides get the same
//! quotes and collateral, made by the test PKI, so that the benchmark needs no recorded data:
//! - fresh: only the trust anchor is known, made once on both sides: for ours, the root and the
//!   certificates that it issued, as the built-in anchor knows Intel's. Each call reads the collateral from
//!   JSON and verifies everything else; the peer gets its collateral decoded. (With nothing but the root
//!   known, the two signatures more make the ratio that is written as `bare_root`;)
//! - cached collateral: the collateral is known, the *platform* is not: PCK certificate, quoting enclave and
//!   quote are verified anew in each call. (From a platform that is known too, only the quote is new; that
//!   ratio is written as well.)

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use sha2::Digest;
use tdvisor_base::Gpa;

use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::verify::QuoteVerifier;
use tdvisor_attest::UnixSeconds;
use tdvisor_attest::collateral::Bundle;
use tdvisor_attest::crypto::Ring;
use tdvisor_attest::digest::Digest384;
use tdvisor_attest::issue::{CollateralSpec, PlatformSpec, QuoteBody, QuoteSpec, Role, TestPlatform};
use tdvisor_attest::mrtd::MrtdBuilder;
use tdvisor_attest::quote::{CertificationType, Quote, TdAttributes, TeeType};
use tdvisor_attest::report::TdReport;
use tdvisor_attest::tdvf::PageContents;
use tdvisor_attest::verify::{TrustAnchor, Verifier};

/// Interleaved repetitions of every measurement.
const ROUNDS: usize = 61;
const AT: UnixSeconds = UnixSeconds(1_790_000_000);

/// Quotes and collateral of one platform.
struct Evidence {
    root: Vec<u8>,
    /// What the root has issued: a verifier of Intel's evidence has the like built in.
    issued: Vec<Vec<u8>>,
    /// Quotes with different REPORTDATA.
    quotes: Vec<Vec<u8>>,
    json: String,
    bundle: Bundle,
    peer: QuoteCollateralV3,
}

fn evidence() -> Evidence {
    let platform = TestPlatform::new([42; 32], PlatformSpec::default());
    let svn = [5, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let spec = QuoteSpec::default();
    let collateral = CollateralSpec::up_to_date(platform.spec(), TeeType::TDX, &svn, spec.qe_isv_svn, AT);
    let bundle = platform.collateral(&collateral, CertificationType::PCK_CHAIN);
    let quotes = (0..ROUNDS)
        .map(|round| {
            let mut report = TdReport::zeroed();
            report.tee_tcb_info.tee_tcb_svn = svn;
            report.td_info.attributes = TdAttributes::from_bits(TdAttributes::SEPT_VE_DISABLE);
            report.mac.report_data = [round as u8; 64];
            platform.quote(&QuoteBody::Td10(report.to_td10()), &spec).expect("a version 4 quote")
        })
        .collect();
    let json = bundle.to_json();
    let peer = serde_json::from_str(&json).expect("the peer reads the same bundle");
    let [root, ca, signer] =
        [Role::Root, Role::PckCa, Role::TcbSigner].map(|role| platform.pki().certificate(role));
    Evidence { root, issued: vec![ca, signer], quotes, json, bundle, peer }
}

/// Nanoseconds of one call.
fn time(call: impl FnOnce()) -> f64 {
    let start = Instant::now();
    call();
    start.elapsed().as_nanos() as f64
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// Ratio of the medians of two calls, measured in turns.
fn ratio(mut ours: impl FnMut(usize), mut peer: impl FnMut(usize)) -> f64 {
    let (mut our_samples, mut peer_samples) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        our_samples.push(time(|| ours(round)));
        peer_samples.push(time(|| peer(round)));
    }
    median(our_samples) / median(peer_samples)
}

/// How near MRTD comes to the limit: SHA-384, by the faster of two implementations, over the same bytes at once.
fn mrtd_vs_sha384_limit() -> f64 {
    const PAGES: u64 = 256;
    let memory: Vec<u8> = (0..PAGES * 4096).map(|at| ((at * 31) >> 3) as u8).collect();
    // Per page: one block of 128 bytes, then sixteen times a block and 256 bytes.
    let stream = vec![0x5a; PAGES as usize * (128 + 16 * (128 + 256))];
    let (mut ours, mut limits) = (Vec::new(), [Vec::new(), Vec::new()]);
    for _ in 0..ROUNDS {
        ours.push(time(|| {
            let mut mrtd = MrtdBuilder::new();
            for (index, page) in (0u64..).zip(memory.chunks(4096)) {
                let gpa = Gpa::new(0xffe0_0000 + index * 4096);
                mrtd.page_add(gpa);
                mrtd.extend_page(gpa, PageContents::Bytes(page));
            }
            black_box(mrtd.finalize());
        }));
        limits[0].push(time(|| {
            black_box(Digest384::of(&stream));
        }));
        limits[1].push(time(|| {
            black_box(sha2::Sha384::digest(&stream));
        }));
    }
    let limit = limits.into_iter().map(median).fold(f64::INFINITY, f64::min);
    limit / median(ours)
}

fn main() {
    let evidence = evidence();
    let peer = QuoteVerifier::new(evidence.root.clone());
    let anchor = TrustAnchor::from_bytes(&evidence.root).expect("the test root");
    let bare_anchor = anchor.clone();
    let anchor = anchor.with_issued(&evidence.issued, &Ring).expect("what the root issued");
    let verify_peer = |round: usize| {
        let report = peer.verify(&evidence.quotes[round], &evidence.peer, AT.0).expect("the peer verifies");
        assert_eq!(black_box(report).status, "UpToDate");
    };

    let verify_fresh = |anchor: &TrustAnchor, round: usize| {
        let bundle = Bundle::from_json(&evidence.json).expect("the bundle");
        let mut verifier = Verifier::new(anchor.clone());
        verifier.add_collateral(&bundle).expect("the collateral");
        black_box(verifier.verify(&evidence.quotes[round], AT).expect("the quote"));
    };
    let fresh = ratio(|round| verify_fresh(&anchor, round), verify_peer);
    let fresh_bare_root = ratio(|round| verify_fresh(&bare_anchor, round), verify_peer);

    let mut with_collateral = Verifier::new(anchor.clone());
    with_collateral.add_collateral(&evidence.bundle).expect("the collateral");
    let first = evidence.quotes.first().expect("a quote");
    with_collateral.verify(first, AT).expect("the quote");
    // Collateral and its issuers stay known, platforms do not.
    let cached_collateral = ratio(
        |round| {
            with_collateral.forget_platforms();
            black_box(with_collateral.verify(&evidence.quotes[round], AT).expect("the quote"));
        },
        verify_peer,
    );
    with_collateral.verify(first, AT).expect("the quote");
    let cached_platform = ratio(
        |round| {
            black_box(with_collateral.verify(&evidence.quotes[round], AT).expect("the quote"));
        },
        verify_peer,
    );

    let parse = ratio(
        |round| {
            for _ in 0..1000 {
                black_box(Quote::parse(black_box(&evidence.quotes[round])).expect("the quote"));
            }
        },
        |round| {
            for _ in 0..1000 {
                let quote = dcap_qvl::quote::Quote::parse(black_box(&evidence.quotes[round]));
                black_box(quote.expect("the quote"));
            }
        },
    );

    with_collateral.forget_platforms();
    let last = evidence.quotes.last().expect("a quote");
    let allocations = allocation_counter::measure(|| {
        black_box(with_collateral.verify(last, AT).expect("the quote"));
    });

    let results = serde_json::json!({
        "verify_fresh_vs_dcap_qvl": fresh,
        "verify_fresh_bare_root_vs_dcap_qvl": fresh_bare_root,
        "verify_cached_collateral_vs_dcap_qvl": cached_collateral,
        "verify_cached_platform_vs_dcap_qvl": cached_platform,
        "parse_v4_vs_dcap_qvl": parse,
        "allocations_per_cached_verify": allocations.count_total,
        "mrtd_vs_sha384_limit": mrtd_vs_sha384_limit(),
    });
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
    std::fs::create_dir_all(&folder).expect("the bench folder");
    let text = format!("{results:#}\n");
    std::fs::write(folder.join("attest.json"), &text).expect("the results");
    print!("{text}");
}
