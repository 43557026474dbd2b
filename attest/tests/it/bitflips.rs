//! One changed bit anywhere in signed material is always rejected: every bit of one version 4 and one
//! version 5 quote, and of the collateral that verifies them.
//!
//! Bits that nothing signs (padding, PEM armour, the terminator of a chain) may change without effect; then
//! the verdict must be the same to the last field.
//!
//! Both crypto backends judge what the attestation key signs, bit by bit; RustCrypto is too slow to judge all of the
//! rest, so it takes a share of it.

#![expect(clippy::unwrap_used, reason = "a test")]

use tdvisor_attest::UnixSeconds;
use tdvisor_attest::collateral::Bundle;
use tdvisor_attest::crypto::{Crypto, Ring, RustCrypto};
use tdvisor_attest::issue::{Issued, PlatformSpec, TestPlatform};
use tdvisor_attest::quote::{Quote, TdAttributes};
use tdvisor_attest::report::{ReportKey, TdReport};
use tdvisor_attest::verify::{TrustAnchor, Verification, Verifier, VerifyError};
use tdvisor_attest::x509::pem;
use zerocopy::IntoBytes;

const AT: UnixSeconds = UnixSeconds(1_790_000_000);

fn issue(version: u16) -> (TrustAnchor, Issued) {
    let platform = TestPlatform::new([7; 32], PlatformSpec::default());
    let mut report = TdReport::zeroed();
    report.tee_tcb_info.tee_tcb_svn = [5, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    report.tee_tcb_info.tee_tcb_svn2 = report.tee_tcb_info.tee_tcb_svn;
    report.td_info.attributes = TdAttributes::from_bits(TdAttributes::SEPT_VE_DISABLE);
    report.mac.report_data = [0x5a; 64];
    report.seal(&ReportKey([1; 32]));
    let issued = platform.quote_for_report(report.as_bytes(), version, AT).unwrap();
    (anchor_of(&issued), issued)
}

fn anchor_of(issued: &Issued) -> TrustAnchor {
    TrustAnchor::from_bytes(issued.root_pem.as_bytes()).unwrap()
}

/// Everything that a verification says, as text.
fn summary(verified: &Verification<'_>) -> String {
    let body = format!("{:?}", verified.quote.body());
    format!("{body} {:?} {:?} {:?}", verified.platform, verified.tcb, verified.window)
}

/// Whether two quotes carry the same signed material in every signed place.
fn same_signed_material(one: &[u8], other: &[u8]) -> bool {
    let (Ok(one), Ok(other)) = (Quote::parse(one), Quote::parse(other)) else { return false };
    let chain = |quote: &Quote<'_>| pem::certificates(quote.signature.certification.data);
    one.signed.bytes == other.signed.bytes
        && one.signature.quote_signature == other.signature.quote_signature
        && one.signature.attestation_key == other.signature.attestation_key
        && one.signature.qe_report_bytes == other.signature.qe_report_bytes
        && one.signature.qe_report_signature == other.signature.qe_report_signature
        && one.signature.qe_auth == other.signature.qe_auth
        && chain(&one) == chain(&other)
}

/// Of the bits outside what the attestation key signs, the second backend judges one in this many.
const SHARE: usize = 5;

/// The verdict of one backend, from nothing.
fn rejection(
    bundle: &Bundle,
    quote: &[u8],
    anchor: &TrustAnchor,
    crypto: impl Crypto,
) -> Result<(), VerifyError> {
    let mut verifier = Verifier::with_crypto(anchor.clone(), crypto);
    verifier.add_collateral(bundle)?;
    verifier.verify(quote, AT).map(drop)
}

/// Rejected, and for the same reason by both backends where both look.
fn is_rejected(bundle: &Bundle, quote: &[u8], anchor: &TrustAnchor, bit: usize) -> bool {
    let verdict = rejection(bundle, quote, anchor, Ring);
    if bit.is_multiple_of(SHARE) {
        assert_eq!(verdict, rejection(bundle, quote, anchor, RustCrypto), "bit {bit}: the backends differ");
    }
    verdict.is_err()
}

fn flip_every_bit_of_a_quote(version: u16) {
    let (anchor, issued) = issue(version);
    let mut verifier = Verifier::with_crypto(anchor, Ring);
    verifier.add_collateral(&issued.collateral).unwrap();
    let expected = summary(&verifier.verify(&issued.quote, AT).unwrap());
    let mut second = Verifier::with_crypto(anchor_of(&issued), RustCrypto);
    second.add_collateral(&issued.collateral).unwrap();
    assert_eq!(summary(&second.verify(&issued.quote, AT).unwrap()), expected);
    let signed = Quote::parse(&issued.quote).unwrap().signed.bytes.len() * 8;
    let mut quote = issued.quote.clone();
    let mut accepted = 0;
    for bit in 0..quote.len() * 8 {
        quote[bit / 8] ^= 1 << (bit % 8);
        let verdict = verifier.verify(&quote, AT);
        if bit < signed || bit.is_multiple_of(SHARE) {
            let second = second.verify(&quote, AT);
            let both = [&verdict, &second].map(|one| one.as_ref().map(summary).map_err(|error| *error));
            assert_eq!(both[0], both[1], "version {version}, bit {bit}: the backends differ");
        }
        if let Ok(verified) = verdict {
            accepted += 1;
            assert!(same_signed_material(&quote, &issued.quote), "version {version}, bit {bit}: accepted");
            assert_eq!(summary(&verified), expected, "version {version}, bit {bit}");
        }
        quote[bit / 8] ^= 1 << (bit % 8);
    }
    // Only PEM armour and white space between certificates may change: few bits of forty thousand.
    assert!(accepted < 100, "{accepted} changes had no effect");
}

#[test]
fn every_bit_of_a_version_4_quote_counts() {
    flip_every_bit_of_a_quote(4);
}

#[test]
fn every_bit_of_a_version_5_quote_counts() {
    flip_every_bit_of_a_quote(5);
}

/// Changes every bit of one part of the collateral; each change must be rejected.
fn flip_every_bit_of(name: &str, part: impl Fn(&mut Bundle) -> &mut Vec<u8>) {
    let (anchor, issued) = issue(4);
    let mut bundle = issued.collateral.clone();
    for bit in 0..part(&mut bundle).len() * 8 {
        part(&mut bundle)[bit / 8] ^= 1 << (bit % 8);
        assert!(is_rejected(&bundle, &issued.quote, &anchor, bit), "{name}, bit {bit}: accepted");
        part(&mut bundle)[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn every_bit_of_the_revocation_lists_counts() {
    flip_every_bit_of("root CRL", |bundle| &mut bundle.root_crl);
    flip_every_bit_of("PCK CRL", |bundle| &mut bundle.pck_crl);
}

#[test]
fn every_bit_of_the_signing_chains_counts() {
    flip_every_bit_of("TCB info signer", |bundle| &mut bundle.tcb_info.chain[0]);
    flip_every_bit_of("TCB info root", |bundle| &mut bundle.tcb_info.chain[1]);
    flip_every_bit_of("QE identity signer", |bundle| &mut bundle.qe_identity.chain[0]);
}

#[test]
fn every_bit_of_the_signed_json_and_of_its_signatures_counts() {
    let (anchor, issued) = issue(4);
    type Body = fn(&mut Bundle) -> &mut tdvisor_attest::collateral::SignedBody;
    let bodies: [Body; 2] = [|bundle| &mut bundle.tcb_info, |bundle| &mut bundle.qe_identity];
    let rejected = |bundle: &Bundle, bit| is_rejected(bundle, &issued.quote, &anchor, bit);
    for body in bodies {
        let mut bundle = issued.collateral.clone();
        for bit in 0..64 * 8 {
            body(&mut bundle).signature.0[bit / 8] ^= 1 << (bit % 8);
            assert!(rejected(&bundle, bit), "signature bit {bit}: accepted");
            body(&mut bundle).signature.0[bit / 8] ^= 1 << (bit % 8);
        }
        let original = body(&mut bundle).body.clone();
        for bit in 0..original.len() * 8 {
            let mut changed = original.clone().into_bytes();
            changed[bit / 8] ^= 1 << (bit % 8);
            // A changed text that is no UTF-8 cannot even be held.
            let Ok(changed) = String::from_utf8(changed) else { continue };
            body(&mut bundle).body = changed;
            assert!(rejected(&bundle, bit), "body bit {bit}: accepted");
        }
    }
}
