//! The service from the side of a key broker: who gets a token, what is in it, and who does not.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::client::Client;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Value, json};
use sha2::{Digest, Sha384};
use td_image::digest::Digest384;
use tdvisor_attest::UnixSeconds;
use tdvisor_attest::collateral::{Parts, TcbStatus};
use tdvisor_attest::eventlog::{EventType, LogBuilder, Register, Replay};
use tdvisor_attest::issue::{CollateralSpec, PlatformSpec, QuoteBody, QuoteSpec, TestPlatform};
use tdvisor_attest::policy::{Expected, Policy};
use tdvisor_attest::quote::{CertificationType, TdAttributes, TdReport10, TeeType};
use tdvisor_attest::verify::TrustAnchor;
use tdvisor_attest::x509::pem;
use tdvisor_attest_serve::appraisal::RootKind;
use tdvisor_attest_serve::ear::{SignerError, TEST_ROOT};
use tdvisor_attest_serve::messages::{
    AttestationRequest, AttestationResponse, ChallengeRequest, ChallengeResponse,
    IndividualAttestationRequest, InitData, RuntimeData, SetPolicyRequest, SetPolicyResponse,
};
use tdvisor_attest_serve::metrics::Metrics;
use tdvisor_attest_serve::service::Service;
use tdvisor_attest_serve::{Appraiser, CollateralSource, Signer, server};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tonic::{Code, Status};
use zerocopy::FromZeros;

/// The key broker's run-time data for a nonce.
fn runtime(nonce: &str) -> String {
    format!(r#"{{"tee-pubkey":{{"kty":"EC","crv":"P-256","x":"AQ","y":"Ag"}},"nonce":"{nonce}"}}"#)
}

/// The key broker's run-time data for a nonce, canonical.
fn canonical(nonce: &str) -> String {
    format!(r#"{{"nonce":"{nonce}","tee-pubkey":{{"crv":"P-256","kty":"EC","x":"AQ","y":"Ag"}}}}"#)
}

fn fitted<const N: usize>(digest: &[u8]) -> [u8; N] {
    let mut field = [0; N];
    field[..digest.len()].copy_from_slice(digest);
    field
}

fn now() -> UnixSeconds {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    UnixSeconds(since.as_secs())
}

/// A test platform, and a TD on it.
struct World {
    platform: TestPlatform,
    status: TcbStatus,
}

impl World {
    fn new() -> Self {
        Self { platform: TestPlatform::new([3; 32], PlatformSpec::default()), status: TcbStatus::UpToDate }
    }

    /// A TD that answers a nonce.
    fn td(nonce: &str) -> TdReport10 {
        TdReport10 {
            td_attributes: TdAttributes::from_bits(TdAttributes::SEPT_VE_DISABLE),
            report_data: fitted(&Sha384::digest(canonical(nonce))),
            ..TdReport10::new_zeroed()
        }
    }

    fn request(&self, td: TdReport10, nonce: &str) -> IndividualAttestationRequest {
        let quote = self.platform.quote(&QuoteBody::Td10(td), &QuoteSpec::default()).expect("a quote");
        let evidence = json!({ "quote": STANDARD.encode(quote), "cc_eventlog": null });
        IndividualAttestationRequest {
            tee: "tdx".to_owned(),
            evidence: URL_SAFE_NO_PAD.encode(evidence.to_string()),
            runtime_data: Some(RuntimeData::Structured(runtime(nonce))),
            init_data: None,
            runtime_data_hash_algorithm: "sha384".to_owned(),
        }
    }

    fn collateral(&self) -> CollateralSource {
        let mut spec = CollateralSpec::up_to_date(self.platform.spec(), TeeType::TDX, &[0; 16], 4, now());
        spec.levels.iter_mut().for_each(|level| level.status = self.status);
        let bundle = self.platform.collateral(&spec, CertificationType::PCK_CHAIN).to_json();
        let mut parts = Parts::default();
        parts.add(bundle.as_bytes()).expect("collateral");
        CollateralSource::Files(Arc::new(parts))
    }

    /// A client of a service that trusts this world's root.
    async fn client(&self, root: RootKind, policy: Policy) -> Client {
        Client::connect(self.start(root, policy, None).await).await
    }

    /// The address of such a service.
    async fn start(&self, root: RootKind, policy: Policy, tls: Option<TlsAcceptor>) -> SocketAddr {
        let appraiser = Appraiser {
            anchor: TrustAnchor::from_bytes(self.platform.pki().root_pem().as_bytes()).expect("a root"),
            root,
            policy,
            collateral: self.collateral(),
        };
        let signer = Signer::ephemeral().expect("random numbers");
        let service = Arc::new(Service::new(appraiser, signer, Arc::new(Metrics::default()), 2));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(server::serve(listener, tls, service));
        address
    }
}

async fn evaluate(client: &Client, requests: Vec<IndividualAttestationRequest>) -> Result<String, Status> {
    let request =
        AttestationRequest { verification_requests: requests, policy_ids: vec!["default".to_owned()] };
    let answer: AttestationResponse = client.call("AttestationEvaluate", request).await?;
    Ok(answer.attestation_token)
}

/// The claims of a token whose signature holds, by a library that is not ours.
#[track_caller]
fn claims(token: &str) -> Value {
    let jwk = decode_header(token).expect("a header").jwk.expect("a key in the header");
    let key = DecodingKey::from_jwk(&jwk).expect("a key");
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_issuer(&["tdvisor"]);
    validation.set_required_spec_claims(&["exp", "iss"]);
    decode::<Value>(token, &key, &validation).expect("a token").claims
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}

#[test]
fn a_td_that_answers_the_nonce_gets_a_token_with_trustees_claims() {
    block_on(async {
        let world = World::new();
        let client = world.client(RootKind::Test, Policy::default()).await;
        let token = evaluate(&client, vec![world.request(World::td("n1"), "n1")]).await.expect("a token");
        let claims = claims(&token);
        assert_eq!(claims["eat_profile"], "tag:github.com,2024:confidential-containers/Trustee");
        assert_eq!(claims[TEST_ROOT], true);
        let cpu = &claims["submods"]["cpu0"];
        let evidence = &cpu["ear.veraison.annotated-evidence"];
        assert_eq!(evidence["runtime_data_claims"]["nonce"], "n1");
        // Where a key broker looks for the guest's key.
        let at = "/submods/cpu0/ear.veraison.annotated-evidence/runtime_data_claims/tee-pubkey/kty";
        assert_eq!(claims.pointer(at), Some(&json!("EC")));
        assert_eq!(evidence["report_data"].as_str().map(str::len), Some(128));
        assert_eq!(evidence["init_data"], "00".repeat(48));
        assert_eq!(evidence["init_data_claims"], Value::Null);
        let tdx = &evidence["tdx"];
        assert_eq!(tdx["quote"]["header"]["tee_type"], "81000000");
        assert_eq!(tdx["quote"]["header"]["vendor_id"], "939a7233f79c4ca9940a0db3957f0607");
        assert_eq!(tdx["quote"]["body"]["mr_td"], "00".repeat(48));
        assert_eq!(tdx["td_attributes"]["debug"], false);
        assert_eq!(tdx["td_attributes"]["septve_disable"], true);
        assert_eq!(tdx["tcb_status"], "UpToDate");
        assert_eq!(tdx["collateral_expiration_status"], "0");
        assert_eq!(tdx[TEST_ROOT], true);
        assert_eq!(cpu["ear.appraisal-policy-id"], "default");
    });
}

#[test]
fn hardware_is_affirmed_under_a_real_root_only_and_only_when_it_is_up_to_date() {
    block_on(async {
        let mut world = World::new();
        let mut policy = Policy::default();
        policy.tcb.accept.insert(TcbStatus::OutOfDate);
        let stated = Expected::OneOf(vec![[0; 48]]);
        policy.td.mr_td = stated.clone();
        policy.td.rtmr = [Expected::Any, stated.clone(), stated];
        for (root, status, hardware, word) in [
            (RootKind::Hardware, TcbStatus::UpToDate, 2, "affirming"),
            (RootKind::Hardware, TcbStatus::OutOfDate, 32, "warning"),
            (RootKind::Test, TcbStatus::UpToDate, 97, "contraindicated"),
            (RootKind::Test, TcbStatus::OutOfDate, 97, "contraindicated"),
        ] {
            world.status = status;
            let client = world.client(root, policy.clone()).await;
            let token = evaluate(&client, vec![world.request(World::td("n"), "n")]).await.expect("a token");
            let claims = claims(&token);
            let cpu = &claims["submods"]["cpu0"];
            assert_eq!(cpu["ear.trustworthiness-vector"]["hardware"], hardware, "{root:?} {status}");
            assert_eq!(cpu["ear.trustworthiness-vector"]["executables"], 3);
            assert_eq!(cpu["ear.status"], word, "{root:?} {status}");
            assert_eq!(claims.get(TEST_ROOT).is_some(), root == RootKind::Test);
        }
        // Where nobody stated what may run, nothing is affirmed about it.
        world.status = TcbStatus::UpToDate;
        let client = world.client(RootKind::Hardware, Policy::default()).await;
        let token = evaluate(&client, vec![world.request(World::td("n"), "n")]).await.expect("a token");
        let cpu = &claims(&token)["submods"]["cpu0"];
        assert_eq!(cpu["ear.trustworthiness-vector"]["executables"], 33);
        assert_eq!(cpu["ear.status"], "warning");
    });
}

#[test]
fn what_is_not_bound_to_the_request_is_refused() {
    block_on(async {
        let world = World::new();
        let client = world.client(RootKind::Test, Policy::default()).await;
        let refused = async |request: IndividualAttestationRequest, code: Code, word: &str| {
            let status = evaluate(&client, vec![request]).await.expect_err(word);
            assert_eq!(status.code(), code, "{status:?}");
            assert!(status.message().contains(word), "{status:?}");
        };
        // Yesterday's quote for today's nonce.
        refused(world.request(World::td("old"), "new"), Code::PermissionDenied, "REPORTDATA").await;
        let good = world.request(World::td("n"), "n");
        let none = IndividualAttestationRequest { runtime_data: None, ..good.clone() };
        refused(none, Code::InvalidArgument, "runtime_data").await;
        let other_hash =
            IndividualAttestationRequest { runtime_data_hash_algorithm: "sha512".to_owned(), ..good.clone() };
        refused(other_hash, Code::PermissionDenied, "REPORTDATA").await;
        let raw = RuntimeData::Raw(URL_SAFE_NO_PAD.encode(Sha384::digest(canonical("n"))));
        let by_raw = IndividualAttestationRequest { runtime_data: Some(raw), ..good.clone() };
        evaluate(&client, vec![by_raw]).await.expect("REPORTDATA itself");

        let document = "version = \"0.1.0\"\nalgorithm = \"sha384\"\n[data]\nname = \"value\"\n";
        let init_data = Some(InitData::Toml(document.to_owned()));
        let unbound = IndividualAttestationRequest { init_data: init_data.clone(), ..good.clone() };
        refused(unbound, Code::PermissionDenied, "MRCONFIGID").await;
        let td = TdReport10 { mr_config_id: fitted(&Sha384::digest(document)), ..World::td("n") };
        let bound = IndividualAttestationRequest { init_data, ..world.request(td, "n") };
        let token = evaluate(&client, vec![bound.clone()]).await.expect("bound init data");
        let evidence = &claims(&token)["submods"]["cpu0"]["ear.veraison.annotated-evidence"];
        assert_eq!(evidence["init_data_claims"]["name"], "value");
        let digest = InitData::Digest(URL_SAFE_NO_PAD.encode(Sha384::digest(document)));
        evaluate(&client, vec![IndividualAttestationRequest { init_data: Some(digest), ..bound.clone() }])
            .await
            .expect("its digest");
        let other = InitData::Toml(document.replace("value", "other"));
        refused(
            IndividualAttestationRequest { init_data: Some(other), ..bound },
            Code::PermissionDenied,
            "MRCONFIGID",
        )
        .await;
    });
}

#[test]
fn evidence_that_does_not_hold_or_keep_the_policy_gets_no_token() {
    block_on(async {
        let world = World::new();
        let client = world.client(RootKind::Test, Policy::default()).await;
        let refused = async |request: IndividualAttestationRequest, code: Code, word: &str| {
            let status = evaluate(&client, vec![request]).await.expect_err(word);
            assert_eq!(status.code(), code, "{status:?}");
            assert!(status.message().contains(word), "{word}: {status:?}");
        };
        let debug = TdReport10 {
            td_attributes: TdAttributes::from_bits(TdAttributes::SEPT_VE_DISABLE | TdAttributes::DEBUG),
            ..World::td("n")
        };
        refused(world.request(debug, "n"), Code::PermissionDenied, "policy").await;
        let stranger = World {
            platform: TestPlatform::new([4; 32], PlatformSpec::default()),
            status: TcbStatus::UpToDate,
        };
        refused(stranger.request(World::td("n"), "n"), Code::PermissionDenied, "refused").await;

        let good = world.request(World::td("n"), "n");
        let with = |evidence: Value| IndividualAttestationRequest {
            evidence: URL_SAFE_NO_PAD.encode(evidence.to_string()),
            ..good.clone()
        };
        for (evidence, word) in [
            (json!({}), "quote"),
            (json!({ "quote": "" }), "quote"),
            (json!({ "quote": 1 }), "quote"),
            (json!({ "quote": "AAAA" }), "refused"),
            (json!([]), "evidence"),
        ] {
            refused(with(evidence), Code::InvalidArgument, word).await;
        }
        let twice = r#"{"quote":"AAAA","quote":"AAAA"}"#;
        let twice = IndividualAttestationRequest { evidence: URL_SAFE_NO_PAD.encode(twice), ..good.clone() };
        refused(twice, Code::InvalidArgument, "duplicate").await;
        for tee in ["sgx", "snp", "sample", "", "TDX"] {
            let request = IndividualAttestationRequest { tee: tee.to_owned(), ..good.clone() };
            refused(request, Code::InvalidArgument, "tdx").await;
        }
        // Of two, both must be good.
        let mixed = vec![good.clone(), world.request(World::td("old"), "new")];
        assert_eq!(evaluate(&client, mixed).await.expect_err("one is old").code(), Code::PermissionDenied);
        let both = evaluate(&client, vec![good.clone(), good.clone()]).await.expect("two good ones");
        assert!(claims(&both)["submods"].get("cpu1").is_some());
        assert_eq!(evaluate(&client, vec![]).await.expect_err("nothing").code(), Code::InvalidArgument);
        assert_eq!(evaluate(&client, vec![good; 9]).await.expect_err("many").code(), Code::InvalidArgument);
    });
}

#[test]
fn an_event_log_counts_only_if_it_replays_and_says_what_it_measured() {
    block_on(async {
        let world = World::new();
        let client = world.client(RootKind::Test, Policy::default()).await;
        let text = b"Exit Boot Services Invocation";
        let log = |text: &[u8], digest_of: &[u8]| {
            let mut log = LogBuilder::new();
            let digest = Digest384::of(digest_of);
            log.push(Register::Rtmr1, EventType::EFI_ACTION, &digest, text);
            log.finish()
        };
        let mut replay = Replay::default();
        replay.extend_with(Register::Rtmr1, &Digest384::of(text));
        let mut td = World::td("n");
        td.rtmr[1] = replay[Register::Rtmr1].0;
        let request = |td: TdReport10, area: &[u8]| {
            let quote = world.platform.quote(&QuoteBody::Td10(td), &QuoteSpec::default()).expect("a quote");
            let evidence = json!({ "quote": STANDARD.encode(quote), "cc_eventlog": STANDARD.encode(area) });
            IndividualAttestationRequest {
                evidence: URL_SAFE_NO_PAD.encode(evidence.to_string()),
                ..world.request(td, "n")
            }
        };
        let token = evaluate(&client, vec![request(td, &log(text, text))]).await.expect("a log that replays");
        let events =
            &claims(&token)["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["tdx"]["uefi_event_logs"];
        assert_eq!(events[0]["type_name"], "EV_EFI_ACTION");
        assert_eq!(events[0]["details"]["string"], "Exit Boot Services Invocation");
        assert_eq!(events[0]["digests"][0]["alg"], "SHA-384");
        assert_eq!(events[0]["digest_matches_event"], true);
        for (td, area, word) in [
            (td, log(b"something else", text), "event"),
            (td, log(b"another", b"another"), "RTMR1"),
            (World::td("n"), log(text, text), "RTMR1"),
            (td, b"no log".to_vec(), "cc_eventlog"),
        ] {
            let status = evaluate(&client, vec![request(td, &area)]).await.expect_err(word);
            assert!(status.message().contains(word), "{status:?}");
        }
    });
}

#[test]
fn policies_are_not_set_over_the_network_and_tdx_needs_no_challenge() {
    block_on(async {
        let world = World::new();
        let client = world.client(RootKind::Test, Policy::default()).await;
        let set = SetPolicyRequest { policy_id: "default".to_owned(), policy: "cGFja2FnZQ".to_owned() };
        let answer: Result<SetPolicyResponse, Status> = client.call("SetAttestationPolicy", set).await;
        assert_eq!(answer.expect_err("policies").code(), Code::Unimplemented);
        let challenge = |tee: &str| ChallengeRequest { inner: [("tee".to_owned(), tee.to_owned())].into() };
        let answer: ChallengeResponse =
            client.call("GetAttestationChallenge", challenge("tdx")).await.expect("an answer");
        assert_eq!(answer.attestation_challenge, "");
        let answer: Result<ChallengeResponse, Status> =
            client.call("GetAttestationChallenge", challenge("se")).await;
        assert_eq!(answer.expect_err("another TEE").code(), Code::Unimplemented);
        let answer: Result<ChallengeResponse, Status> = client.call("Other", challenge("tdx")).await;
        assert_eq!(answer.expect_err("no method").code(), Code::Unimplemented);
        let good = world.request(World::td("n"), "n");
        let request =
            AttestationRequest { verification_requests: vec![good], policy_ids: vec!["strict".to_owned()] };
        let answer: Result<AttestationResponse, Status> = client.call("AttestationEvaluate", request).await;
        assert!(answer.expect_err("no such policy").message().contains("strict"));
    });
}

const SIGNING_KEY: &[u8] = include_bytes!("../fixtures/signing-key.pem");
const SIGNING_CERT: &[u8] = include_bytes!("../fixtures/signing-cert.pem");
const TLS_KEY: &[u8] = include_bytes!("../fixtures/tls-key.pem");
const TLS_CERT: &[u8] = include_bytes!("../fixtures/tls-cert.pem");

#[test]
fn a_signers_certificates_stand_in_the_token_and_must_be_of_its_key() {
    let signer = Signer::from_pem(SIGNING_KEY, Some(SIGNING_CERT)).expect("a signer");
    let chain = signer.jwk()["x5c"].as_array().expect("a chain").clone();
    let der = STANDARD.decode(chain[0].as_str().expect("text")).expect("base64");
    assert_eq!(vec![der], pem::certificates(SIGNING_CERT).expect("certificates"));
    assert_eq!(Signer::from_pem(SIGNING_KEY, Some(TLS_CERT)).err(), Some(SignerError::OtherKey));
    assert_eq!(Signer::from_pem(SIGNING_CERT, None).err(), Some(SignerError::Key));
    assert!(Signer::from_pem(SIGNING_KEY, Some(b"none")).is_err());
}

#[test]
fn calls_over_tls_are_answered_and_others_end_at_the_handshake() {
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};
    block_on(async {
        let world = World::new();
        let certificates = pem::certificates(TLS_CERT).expect("certificates");
        let key = pem::private_key(TLS_KEY).expect("a key");
        let tls = server::tls(certificates.clone(), key).expect("they belong together");
        let signing = pem::private_key(SIGNING_KEY).expect("a key");
        assert!(server::tls(certificates.clone(), signing).is_err());
        let address = world.start(RootKind::Test, Policy::default(), Some(tls)).await;

        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(certificates[0].clone())).expect("a root");
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = tokio::net::TcpStream::connect(address).await.expect("a listener");
        let name = ServerName::from(address.ip());
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .expect("a handshake");
        let client = Client::over(stream, address).await;
        evaluate(&client, vec![world.request(World::td("n"), "n")]).await.expect("a token");

        let plain = Client::connect(address).await;
        evaluate(&plain, vec![world.request(World::td("n"), "n")]).await.expect_err("no TLS");
    });
}

#[test]
fn a_message_beyond_the_bound_is_not_read() {
    block_on(async {
        let world = World::new();
        let client = world.client(RootKind::Test, Policy::default()).await;
        let good = world.request(World::td("n"), "n");
        let huge = IndividualAttestationRequest {
            evidence: "A".repeat(tdvisor_attest_serve::service::MAX_MESSAGE),
            ..good.clone()
        };
        let code = evaluate(&client, vec![huge]).await.expect_err("too large").code();
        assert!(matches!(code, Code::OutOfRange | Code::ResourceExhausted), "{code:?}");
        evaluate(&client, vec![good]).await.expect("the next is answered");
    });
}
