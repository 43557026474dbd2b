//! The messages of the gRPC service `attestation.AttestationService`: field numbers and types as Trustee has them.

use std::collections::HashMap;

/// The service's name in paths.
pub const SERVICE: &str = "attestation.AttestationService";

/// Evidence of one or more attesters, verified together.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AttestationRequest {
    /// The evidence.
    #[prost(message, repeated, tag = "1")]
    pub verification_requests: Vec<IndividualAttestationRequest>,
    /// Policies; the first counts, and none stands for `default`.
    #[prost(string, repeated, tag = "2")]
    pub policy_ids: Vec<String>,
}

/// Evidence of one attester.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct IndividualAttestationRequest {
    /// The TEE: `tdx`.
    #[prost(string, tag = "1")]
    pub tee: String,
    /// Evidence: JSON, as base64url without padding.
    #[prost(string, tag = "3")]
    pub evidence: String,
    /// What REPORTDATA is bound to.
    #[prost(oneof = "RuntimeData", tags = "4, 5")]
    pub runtime_data: Option<RuntimeData>,
    /// What MRCONFIGID is bound to.
    #[prost(oneof = "InitData", tags = "6, 7")]
    pub init_data: Option<InitData>,
    /// How structured run-time data are hashed: `sha256`, `sha384` or `sha512`; empty for `sha384`.
    #[prost(string, tag = "8")]
    pub runtime_data_hash_algorithm: String,
}

/// Run-time data in either form.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum RuntimeData {
    /// REPORTDATA itself, as base64url without padding.
    #[prost(string, tag = "4")]
    Raw(String),
    /// A JSON object, whose hash REPORTDATA is.
    #[prost(string, tag = "5")]
    Structured(String),
}

/// Init data in either form.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum InitData {
    /// The hash itself, as base64url without padding.
    #[prost(string, tag = "6")]
    Digest(String),
    /// The TOML document, which names how it is hashed.
    #[prost(string, tag = "7")]
    Toml(String),
}

/// The answer to an [`AttestationRequest`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AttestationResponse {
    /// The token.
    #[prost(string, tag = "1")]
    pub attestation_token: String,
}

/// A policy to be set.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SetPolicyRequest {
    /// The policy's name.
    #[prost(string, tag = "1")]
    pub policy_id: String,
    /// The policy's text, as base64url without padding.
    #[prost(string, tag = "2")]
    pub policy: String,
}

/// The answer to a [`SetPolicyRequest`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SetPolicyResponse {}

/// What a challenge is wanted for.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ChallengeRequest {
    /// `tee`, `tee_params`.
    #[prost(map = "string, string", tag = "1")]
    pub inner: HashMap<String, String>,
}

/// The answer to a [`ChallengeRequest`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ChallengeResponse {
    /// The challenge.
    #[prost(string, tag = "1")]
    pub attestation_challenge: String,
}
