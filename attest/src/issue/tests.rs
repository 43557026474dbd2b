use super::*;
use crate::crypto::{Crypto, RustCrypto};
use crate::policy::{Context, Policy};
use crate::quote::TdAttributes;
use crate::report::ReportKey;
use crate::verify::{TrustAnchor, Verifier, VerifyError};
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
