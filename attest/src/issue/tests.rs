use super::*;
use crate::collateral::{Parts, SignedBody};
use crate::crypto::{Crypto, RustCrypto};
use crate::policy::{Context, Policy};
use crate::quote::{TdAttributes, TdReport15Ex, TeeType};
use crate::report::{ReportKey, ToQuoteBody};
use crate::verify::{TrustAnchor, Verifier, VerifyError};
use crate::x509::pem;
use zerocopy::IntoBytes;

const AT: UnixSeconds = UnixSeconds(1_790_000_000);

fn report(key: &ReportKey) -> TdReport {
    let mut report = TdReport::zeroed();
    report.tee_tcb_info.tee_tcb_svn = [5, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    report.tee_tcb_info.tee_tcb_svn2 = report.tee_tcb_info.tee_tcb_svn;
    report.td_info.attributes = TdAttributes::from_bits(TdAttributes::SEPT_VE_DISABLE);
    report.td_info.mr_td = [0x11; 48];
    report.mac.report_data = [0x22; 64];
    report.seal(key);
    report
}

fn anchor(platform: &TestPlatform) -> TrustAnchor {
    TrustAnchor::from_bytes(platform.pki().root_pem().as_bytes()).unwrap()
}

#[test]
fn a_report_becomes_a_quote_that_verifies_and_the_default_policy_accepts() {
    let platform = TestPlatform::new([1; 32], PlatformSpec::default());
    for version in [4, 5] {
        let report = report(&ReportKey([9; 32]));
        let issued = platform.quote_for_report(report.as_bytes(), version, AT).unwrap();
        let mut verifier = Verifier::with_crypto(anchor(&platform), RustCrypto);
        verifier.add_collateral(&issued.collateral).unwrap();
        let verified = verifier.verify(&issued.quote, AT).unwrap();
        assert_eq!(verified.quote.body().report_data(), &[0x22; 64]);
        let verdict = Policy::default().evaluate(&verified, &Context::default());
        assert!(verdict.is_accepted(), "{}", verdict.reason());
    }
}

#[test]
fn a_test_quote_is_not_trusted_by_intels_root() {
    let platform = TestPlatform::new([1; 32], PlatformSpec::default());
    let issued = platform.quote_for_report(report(&ReportKey([9; 32])).as_bytes(), 4, AT).unwrap();
    let mut verifier = Verifier::with_crypto(TrustAnchor::intel(), RustCrypto);
    assert!(matches!(verifier.add_collateral(&issued.collateral), Err(VerifyError::Untrusted(_))));
}

#[test]
fn the_roots_name_says_that_it_is_a_test_root() {
    let platform = TestPlatform::new([1; 32], PlatformSpec::default());
    let anchor = anchor(&platform);
    let root = anchor.certificate().unwrap();
    assert_eq!(root.subject.common_name(), Some(ROOT_NAME));
    assert!(ROOT_NAME.contains("TEST") && ROOT_NAME.contains("not Intel"));
    assert!(RustCrypto.verify(&root.public_key, root.signed, &root.signature));
}

#[test]
fn a_report_that_was_changed_gets_no_quote() {
    let platform = TestPlatform::new([1; 32], PlatformSpec::default());
    let mut bytes = report(&ReportKey([9; 32])).as_bytes().to_vec();
    bytes[600] ^= 1;
    let error = platform.quote_for_report(&bytes, 4, AT).unwrap_err();
    assert_eq!(error, IssueError::Report(ReportError::TdInfoHash));
    assert!(matches!(platform.quote_for_report(&[0; 8], 4, AT), Err(IssueError::Report(_))));
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let issue = || {
        let platform = TestPlatform::new([3; 32], PlatformSpec::default());
        platform.quote_for_report(report(&ReportKey([9; 32])).as_bytes(), 5, AT).unwrap()
    };
    let (one, two) = (issue(), issue());
    assert_eq!(one.quote, two.quote);
    assert_eq!(one.collateral, two.collateral);
}

/// As PCS and PCCS hand it out: one file per response, chains from headers, lists as DER or hexadecimal.
#[test]
fn collateral_from_loose_files_is_the_bundle_in_any_order() {
    let platform = TestPlatform::new([1; 32], PlatformSpec::default());
    let issued = platform.quote_for_report(report(&ReportKey([9; 32])).as_bytes(), 4, AT).unwrap();
    let bundle = issued.collateral;
    let response = |name: &str, part: &SignedBody| {
        let signature = crate::Hex(&part.signature.0);
        alloc::format!("{{\"{name}\":{},\"signature\":\"{signature}\"}}", part.body).into_bytes()
    };
    let pem = |chain: &[Vec<u8>], encoded: bool| {
        let mut text = String::new();
        chain.iter().for_each(|der| pem::write("CERTIFICATE", der, &mut text));
        if encoded { text.replace(' ', "%20").replace('\n', "%0A") } else { text }.into_bytes()
    };
    let reversed: Vec<Vec<u8>> = bundle.tcb_info.chain.iter().rev().cloned().collect();
    let mut files = [
        bundle.root_crl.clone(),
        crate::Hex(&bundle.pck_crl).to_string().into_bytes(),
        pem(&reversed, true),
        pem(&bundle.pck_crl_chain, false),
        response("enclaveIdentity", &bundle.qe_identity),
        response("tcbInfo", &bundle.tcb_info),
    ];
    for turn in 0..files.len() {
        files.rotate_left(1);
        let mut parts = Parts::default();
        files.iter().for_each(|file| parts.add(file).unwrap());
        let built = parts.build().unwrap();
        assert_eq!((&built.root_crl, &built.pck_crl), (&bundle.root_crl, &bundle.pck_crl), "turn {turn}");
        let mut verifier = Verifier::with_crypto(anchor(&platform), RustCrypto);
        verifier.add_collateral(&built).unwrap();
        assert!(verifier.verify(&issued.quote, AT).is_ok(), "turn {turn}");
    }
}

#[test]
fn the_default_policy_takes_no_service_td_in_whatever_field_of_whatever_body_it_shows() {
    let platform = TestPlatform::new([1; 32], PlatformSpec::default());
    let plain = report(&ReportKey([9; 32])).to_td15_ex();
    let findings = |change: fn(&mut TdReport15Ex)| -> Vec<String> {
        let mut body = plain;
        change(&mut body);
        let spec = QuoteSpec { version: 5, ..QuoteSpec::default() };
        let quote = platform.quote(&QuoteBody::Td15Ex(body), &spec).unwrap();
        let svn = &body.base.base.tee_tcb_svn;
        let collateral = CollateralSpec::up_to_date(platform.spec(), TeeType::TDX, svn, spec.qe_isv_svn, AT);
        let mut verifier = Verifier::with_crypto(anchor(&platform), RustCrypto);
        verifier.add_collateral(&platform.collateral(&collateral, spec.certification)).unwrap();
        let verified = verifier.verify(&quote, AT).unwrap();
        let verdict = Policy::default().evaluate(&verified, &Context::default());
        let any = Policy::from_json(r#"{"td":{"mr_service_td":"any"}}"#).unwrap();
        assert!(any.evaluate(&verified, &Context::default()).is_accepted());
        verdict.findings.iter().map(ToString::to_string).collect()
    };
    assert!(findings(|_| {}).is_empty());
    for (name, change) in [
        ("MR_SERVICETD", (|td| td.base.mr_service_td = [1; 48]) as fn(&mut TdReport15Ex)),
        ("INIT_SERVTD_HASH", |td| td.init_servtd_hash = [1; 48]),
        ("CUR_SERVTD_HASH", |td| td.cur_servtd_hash = [1; 48]),
    ] {
        let found = findings(change);
        assert!(found.len() == 1 && found[0].starts_with(name), "{name}: {found:?}");
    }
}
