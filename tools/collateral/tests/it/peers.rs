//! Clients of others with what our PCCS hands out: `dcap-qvl`, told to trust the test root.
//!
//! The requests are those that its own fetcher makes (which would bring an HTTP stack of its own into this build), and the
//! answers are taken apart as it does.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::verify::QuoteVerifier;
use tdvisor_attest::UnixSeconds;
use tdvisor_attest::collateral::Parts;
use tdvisor_attest::issue::{CollateralSpec, PckCa, PlatformSpec, QuoteBody, QuoteSpec, TestPlatform};
use tdvisor_attest::quote::{CertificationType, TdAttributes, TdReport10, TeeType};
use tdvisor_collateral::store::{Reply, Store};
use zerocopy::FromZeros;

const AT: UnixSeconds = UnixSeconds(1_790_000_000);

/// The body of the answer to a request, and the chain in its headers.
fn ask(store: &Store, path: &str, query: &str) -> (Vec<u8>, String) {
    let Reply::Found { answer, .. } = store.answer(path, query) else { panic!("nothing for {path}?{query}") };
    let chain = answer.chains.first().map(|(_, value)| percent_decoded(value)).unwrap_or_default();
    (answer.body, chain)
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next().unwrap(), rest.next().unwrap()];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn unhex(text: &[u8]) -> Vec<u8> {
    let digits = std::str::from_utf8(text).unwrap();
    (0..digits.len() / 2).map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap()).collect()
}

/// The signed object of a response, as it stands there, and its signature.
fn signed(body: &[u8], name: &str) -> (String, Vec<u8>) {
    let text = std::str::from_utf8(body).unwrap();
    let inner = text.strip_prefix(&format!("{{\"{name}\":")).unwrap();
    let (object, signature) = inner.rsplit_once(",\"signature\":\"").unwrap();
    (object.to_owned(), unhex(signature.strip_suffix("\"}").unwrap().as_bytes()))
}

#[test]
fn dcap_qvl_verifies_a_quote_of_the_test_pki_with_what_the_pccs_hands_out_and_the_test_root() {
    for ca in [PckCa::Platform, PckCa::Processor] {
        let platform = TestPlatform::new([9; 32], PlatformSpec { ca, ..PlatformSpec::default() });
        let td = TdReport10 {
            td_attributes: TdAttributes::from_bits(TdAttributes::SEPT_VE_DISABLE),
            ..TdReport10::new_zeroed()
        };
        let quote = platform.quote(&QuoteBody::Td10(td), &QuoteSpec::default()).unwrap();
        let spec = CollateralSpec::up_to_date(platform.spec(), TeeType::TDX, &[0; 16], 4, AT);
        let mut parts = Parts::default();
        parts.add(platform.collateral(&spec, CertificationType::PCK_CHAIN).to_json().as_bytes()).unwrap();
        let store = Store::new(&parts).unwrap();

        let fmspc = tdvisor_attest::Hex(&platform.spec().fmspc).to_string().to_uppercase();
        let ca = if ca == PckCa::Platform { "platform" } else { "processor" };
        let (pck_crl, pck_crl_issuer_chain) =
            ask(&store, "/sgx/certification/v4/pckcrl", &format!("ca={ca}&encoding=der"));
        let (tcb_info, tcb_info_issuer_chain) =
            ask(&store, "/tdx/certification/v4/tcb", &format!("fmspc={fmspc}&update=standard"));
        let (qe_identity, qe_identity_issuer_chain) =
            ask(&store, "/tdx/certification/v4/qe/identity", "update=standard");
        let (root_ca_crl, _) = ask(&store, "/sgx/certification/v4/rootcacrl", "");
        let (tcb_info, tcb_info_signature) = signed(&tcb_info, "tcbInfo");
        let (qe_identity, qe_identity_signature) = signed(&qe_identity, "enclaveIdentity");
        let collateral = QuoteCollateralV3 {
            pck_crl_issuer_chain,
            root_ca_crl: unhex(&root_ca_crl),
            pck_crl,
            tcb_info_issuer_chain,
            tcb_info,
            tcb_info_signature,
            qe_identity_issuer_chain,
            qe_identity,
            qe_identity_signature,
            pck_certificate_chain: None,
        };
        let root = tdvisor_attest::x509::pem::certificate(platform.pki().root_pem().as_bytes()).unwrap();
        let verified = QuoteVerifier::new(root).verify(&quote, &collateral, AT.0);
        assert!(verified.is_ok(), "{ca}: {:?}", verified.err());
        // Told nothing, it trusts Intel's root alone.
        assert!(QuoteVerifier::new_prod().verify(&quote, &collateral, AT.0).is_err(), "{ca}");
    }
}
