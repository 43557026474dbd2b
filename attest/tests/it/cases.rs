//! Every recorded verification case gets the verdict that Intel's library gives, with both crypto backends.

use tdvisor_attest::UnixSeconds;
use tdvisor_attest::collateral::Bundle;
use tdvisor_attest::crypto::{Crypto, Ring, RustCrypto};
use tdvisor_attest::verify::{TrustAnchor, Verification, Verifier, VerifyError};
use tdvisor_test_data::vectors;

fn verify<'a>(case: &'a crate::common::Case, crypto: impl Crypto) -> Result<Verification<'a>, VerifyError> {
    let bundle = Bundle::from_json(&case.collateral)?;
    let mut verifier = Verifier::with_crypto(TrustAnchor::intel(), crypto);
    verifier.add_collateral(&bundle)?;
    verifier.verify(&case.quote, UnixSeconds(case.time))
}

#[test]
#[ignore = "needs recordings"]
fn every_recorded_case_gets_the_expected_verdict_from_both_backends() {
    let folder = vectors::folder(vectors::ATTESTATION);
    let mut wrong = Vec::new();
    for case in crate::common::cases(&folder) {
        let ring = verify(&case, Ring);
        let rust = verify(&case, RustCrypto);
        assert_eq!(
            format!("{:?}", ring.as_ref().map(|verified| &verified.tcb)),
            format!("{:?}", rust.as_ref().map(|verified| &verified.tcb)),
            "{}: the backends differ",
            case.id
        );
        let quote = if ring.is_ok() { "valid" } else { "invalid" };
        let mut differs = case.expect["quote"] != quote;
        if let Ok(verified) = &ring {
            let tcb = &case.expect["tcb"];
            differs |= !tcb.is_null() && tcb != verified.tcb.status.name();
            if let Some(expected) = case.expect["advisories"].as_array() {
                let expected: Vec<&str> = expected.iter().filter_map(|id| id.as_str()).collect();
                let found: Vec<&str> = verified.tcb.advisories.iter().map(|id| &**id).collect();
                differs |= expected != found;
            }
        }
        let verdict =
            ring.as_ref().map(|verified| &verified.tcb).map_err(|error| (error.code(), error.to_string()));
        println!("{}: {verdict:?}", case.id);
        if differs {
            wrong.push(format!("{}: expected {}, got {verdict:?}", case.id, case.expect));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
#[ignore = "needs recordings"]
fn intels_sample_quote_with_its_der_chain_and_without_qe_auth_data_is_read_up_to_its_own_root() {
    let folder = vectors::folder(vectors::ATTESTATION);
    let quote = std::fs::read(folder.join("quotes/quote-v4-intel-qvl-sample-noqeauth.bin")).unwrap();
    let parsed = tdvisor_attest::quote::Quote::parse(&quote).unwrap();
    assert!(parsed.signature.qe_auth.is_empty());
    let chain = tdvisor_attest::x509::pem::chain(parsed.signature.certification.data).unwrap();
    // Root first: the order does not matter. Its root is Intel's test root, not the production one.
    let anchor = TrustAnchor::from_bytes(&chain[0]).unwrap();
    let error = |anchor: TrustAnchor| {
        Verifier::with_crypto(anchor, Ring).verify(&quote, UnixSeconds(1_640_000_000)).unwrap_err()
    };
    // With its root the chain holds; what is missing is collateral.
    assert_eq!(error(anchor).code(), "no-collateral");
    assert_eq!(error(TrustAnchor::intel()).code(), "chain-untrusted");
}
