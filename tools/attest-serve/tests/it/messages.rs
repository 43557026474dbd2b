//! The messages are those of the interface: bytes that protoc's own library made of Trustee's definition, read and written.

use std::collections::HashMap;
use std::fmt::Debug;

use prost::Message;
use tdvisor_attest_serve::messages::{
    AttestationRequest, AttestationResponse, ChallengeRequest, ChallengeResponse,
    IndividualAttestationRequest, InitData, RuntimeData, SetPolicyRequest,
};

#[track_caller]
fn is_coded_as<M: Message + Default + PartialEq + Debug>(message: &M, bytes: &[u8]) {
    assert_eq!(M::decode(bytes).as_ref(), Ok(message));
    assert_eq!(message.encode_to_vec(), bytes);
}

#[test]
fn every_message_has_the_bytes_that_another_implementation_gives_it() {
    let structured = IndividualAttestationRequest {
        tee: "tdx".to_owned(),
        evidence: "ZXZpZGVuY2U".to_owned(),
        runtime_data: Some(RuntimeData::Structured("{\"nonce\":\"1\"}".to_owned())),
        init_data: Some(InitData::Toml("version = \"0.1.0\"".to_owned())),
        runtime_data_hash_algorithm: "sha384".to_owned(),
    };
    let raw = IndividualAttestationRequest {
        tee: "sgx".to_owned(),
        evidence: String::new(),
        runtime_data: Some(RuntimeData::Raw("AQID".to_owned())),
        init_data: Some(InitData::Digest("BAUG".to_owned())),
        runtime_data_hash_algorithm: String::new(),
    };
    is_coded_as(
        &AttestationRequest {
            verification_requests: vec![structured, raw],
            policy_ids: vec!["default".to_owned(), "other".to_owned()],
        },
        include_bytes!("../fixtures/attestation_request.bin"),
    );
    is_coded_as(
        &AttestationResponse { attestation_token: "header.claims.signature".to_owned() },
        include_bytes!("../fixtures/attestation_response.bin"),
    );
    is_coded_as(
        &SetPolicyRequest { policy_id: "default".to_owned(), policy: "cGFja2FnZSBwb2xpY3k".to_owned() },
        include_bytes!("../fixtures/set_policy_request.bin"),
    );
    is_coded_as(
        &ChallengeRequest { inner: HashMap::from([("tee".to_owned(), "tdx".to_owned())]) },
        include_bytes!("../fixtures/challenge_request.bin"),
    );
    is_coded_as(
        &ChallengeResponse { attestation_challenge: "nonce".to_owned() },
        include_bytes!("../fixtures/challenge_response.bin"),
    );
}
