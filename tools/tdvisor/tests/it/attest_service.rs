//! The whole way without a network: a TD's quote, collateral from a PCCS of ours, a verdict, and a token from the service.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::background::Background;
use crate::cli::{Folder, tdvisor};
use crate::client::Client;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde_json::{Value, json};
use tdvisor_attest_serve::messages::{
    AttestationRequest, AttestationResponse, IndividualAttestationRequest, RuntimeData,
};
use tonic::{Code, Status};

/// What the built-in guest puts into REPORTDATA.
const NONCE: &[u8] = b"hello-td";
/// A key that signs tokens, and its certificate.
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../attest-serve/tests/fixtures");

fn request(quote: &[u8], nonce: &[u8]) -> AttestationRequest {
    let evidence = json!({ "quote": STANDARD.encode(quote) }).to_string();
    let evidence = IndividualAttestationRequest {
        tee: "tdx".to_owned(),
        evidence: URL_SAFE_NO_PAD.encode(evidence),
        runtime_data: Some(RuntimeData::Raw(URL_SAFE_NO_PAD.encode(nonce))),
        ..IndividualAttestationRequest::default()
    };
    AttestationRequest { verification_requests: vec![evidence], policy_ids: Vec::new() }
}

fn evaluate(service: SocketAddr, quote: &[u8], nonce: &[u8]) -> Result<String, Status> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = Client::connect(service).await;
        let answer: AttestationResponse = client.call("AttestationEvaluate", request(quote, nonce)).await?;
        Ok(answer.attestation_token)
    })
}

fn get(url: &str) -> String {
    let (address, path) = url.trim_start_matches("http://").split_once('/').expect("a path");
    let mut stream = TcpStream::connect(address).expect("a listener");
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn from_a_running_td_to_a_token_that_another_library_accepts() {
    let folder = Folder::new("attest-service");
    let quote = folder.path("quote.bin");
    tdvisor(&["run", "--quote", &quote, "-q"]).ends_with(0);
    let [collateral, root] =
        ["quote.bin.collateral.json", "quote.bin.root.pem"].map(|name| folder.path(name));
    let nonce = tdvisor_attest::Hex(NONCE).to_string();

    let mut pccs = Background::start(&["collateral", "serve", &collateral, "--listen", "127.0.0.1:0"]);
    let pccs = pccs.address("http://");
    let fetched = folder.path("fetched.json");
    let source = ["--pccs", &pccs, "--test-root", &root];
    tdvisor(&[&["collateral", "fetch", &quote, "--out", &fetched], &source[..]].concat()).ends_with(0);
    tdvisor(&[&["verify", &quote, "--fetch", "--nonce", &nonce], &source[..]].concat()).ends_with(0);
    tdvisor(&[&["verify", &quote, "--fetch", "--nonce", "00"], &source[..]].concat()).ends_with(1);

    let cache = folder.path("cache");
    let [key, certificate] = ["signing-key.pem", "signing-cert.pem"].map(|name| format!("{FIXTURES}/{name}"));
    let signer = ["--signing-key", &key, "--signing-cert", &certificate];
    let listen = ["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"];
    let service = ["attest-serve", "--fetch", "--cache", &cache];
    let mut service = Background::start(&[&service[..], &source, &signer, &listen].concat());
    let address = service.address("http://").trim_start_matches("http://").parse().expect("an address");
    let metrics = service.address("http://");

    let bytes = std::fs::read(&quote).expect("the quote");
    let token = evaluate(address, &bytes, NONCE).expect("a token");
    // A relying party trusts the certificate that it was given beforehand, not the key in the token.
    let pem = std::fs::read(&certificate).expect("the certificate");
    let der = tdvisor_attest::x509::pem::certificate(&pem).expect("a certificate");
    let certificate = tdvisor_attest::x509::Certificate::from_der(&der).expect("of P-256");
    let key = DecodingKey::from_ec_der(&certificate.public_key.to_sec1());
    let claims = decode::<Value>(&token, &key, &Validation::new(Algorithm::ES256)).expect("it holds").claims;
    assert_eq!(claims["tdvisor.test-root"], true);
    let cpu = &claims["submods"]["cpu0"];
    assert_ne!(cpu["ear.status"], "affirming");
    assert_eq!(cpu["ear.trustworthiness-vector"]["hardware"], 97);
    let tdx = &cpu["ear.veraison.annotated-evidence"]["tdx"];
    let measured = tdvisor(&["measure", "hello-td", "--json"]).ends_with(0).stdout();
    let mr_td = tdx["quote"]["body"]["mr_td"].as_str().expect("MRTD");
    assert!(measured.contains(mr_td), "MRTD is that of the image: {mr_td}");

    let replayed = evaluate(address, &bytes, b"another nonce").expect_err("a replayed quote");
    assert_eq!(replayed.code(), Code::PermissionDenied);
    assert!(replayed.message().contains("REPORTDATA"), "{replayed:?}");
    let counted = get(&metrics);
    for line in [
        "tdvisor_quotes_verified_total{verdict=\"accepted\",tcb_status=\"UpToDate\"} 1",
        "tdvisor_quotes_verified_total{verdict=\"not-bound\",tcb_status=\"\"} 1",
        "tdvisor_grpc_requests_total{method=\"Evaluate\",code=\"0\"} 1",
    ] {
        assert!(counted.contains(line), "{counted}");
    }
}

#[test]
fn what_would_be_open_to_the_network_or_to_anybodys_quotes_is_refused_at_the_start() {
    let folder = Folder::new("attest-service-options");
    let [quote, collateral, root] = ["q.bin", "c.json", "r.pem"].map(|name| folder.path(name));
    tdvisor(&["quote", "issue", "--out", &quote, "--collateral", &collateral, "--root", &root]).ends_with(0);
    let serve = ["attest-serve", "--collateral", &collateral, "--test-root", &root];
    let open = tdvisor(&[&serve[..], &["--listen", "0.0.0.0:0"]].concat()).ends_with(2).one_line_of_error();
    assert!(open.contains("--tls-cert") && open.contains("--no-tls"), "{open}");
    let missing = folder.path("no-such-policy.toml");
    tdvisor(&[&serve[..], &["--policy", &missing]].concat()).ends_with(2);
    let [key, other] = ["signing-key.pem", "tls-cert.pem"].map(|name| format!("{FIXTURES}/{name}"));
    let said =
        tdvisor(&[&serve[..], &["--signing-key", &key, "--signing-cert", &other]].concat()).ends_with(2);
    assert!(said.stderr().contains("another key"), "{}", said.stderr());
    tdvisor(&[&serve[..], &["--pccs", "http://127.0.0.1:9"]].concat()).ends_with(2);
}
