//! Spoilt evidence, collateral and policies, real and issued: an answer comes back and nothing panics.

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
use tdvisor_test_data::vectors;
use zerocopy::IntoBytes;

use super::spoil::{Seed, fuzz};

const AT: UnixSeconds = UnixSeconds(1_790_000_000);
fn issued() -> (TrustAnchor, Issued) {
    let platform = TestPlatform::new([7; 32], PlatformSpec::default());
    let mut report = TdReport::zeroed();
    report.seal(&ReportKey([1; 32]));
    let issued = platform.quote_for_report(report.as_bytes(), 5, AT).unwrap();
    (TrustAnchor::from_bytes(issued.root_pem.as_bytes()).unwrap(), issued)
}

/// Files of a folder of the vectors, if they are there; padding at their ends is left alone.
fn recorded(folder: &str) -> Vec<Seed> {
    let Ok(vectors) = vectors::find(vectors::ATTESTATION) else { return Vec::new() };
    let mut paths: Vec<_> =
        std::fs::read_dir(vectors.join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let seed = |path| {
        let bytes = std::fs::read(path).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        Seed::with_structure_in(bytes, 0..end)
    };
    paths.iter().map(seed).collect()
}

#[test]
fn any_quote_gets_an_answer() {
    let (anchor, issued) = issued();
    let mut seeds = recorded("quotes");
    seeds.push(Seed::new(issued.quote.clone()));
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
    seeds.push(Seed::new(issued.collateral.to_json().into_bytes()));
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
    let seeds = [issued.collateral.tcb_info.body, issued.collateral.qe_identity.body]
        .map(|body| Seed::new(body.into_bytes()));
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
    let seeds: Vec<Seed> = seeds.into_iter().map(Seed::new).collect();
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
    fuzz("policy", &[policy, json].map(|text| Seed::new(text.as_bytes().to_vec())), |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let _ = (Policy::from_text(text), Policy::from_json(text));
    });
}

#[test]
fn any_qgs_message_gets_an_answer() {
    let request = GetQuote { report: &[1; 1024], ids: &[2; 16] }.encode().unwrap();
    let answer = Quoted { id: &[3; 16], quote: &[4; 5000] }.encode().unwrap();
    fuzz("QGS", &[request, answer].map(Seed::new), |bytes| {
        let _ = (GetQuote::decode(bytes), Quoted::decode(bytes));
    });
}
