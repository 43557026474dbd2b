//! The token: an EAT attestation result (draft-ietf-rats-ear) as a JWT, signed with ES256, with Trustee's claim names.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Map, Value, json};
use tdvisor_attest::UnixSeconds;
use tdvisor_attest::x509::{X509Error, pem};

use crate::appraisal::{Appraisal, RootKind, Vector};
use crate::question::DEFAULT_POLICY;

/// The profile that the claims are of.
const PROFILE: &str = "tag:github.com,2024:confidential-containers/Trustee";
/// Who issues tokens.
pub const ISSUER: &str = "tdvisor";
/// The claim of ours that every token under a test root carries.
pub const TEST_ROOT: &str = "tdvisor.test-root";
/// How long a token counts, in seconds.
pub const LIFETIME: u64 = 300;

/// Signs tokens.
pub struct Signer {
    key: EcdsaKeyPair,
    random: SystemRandom,
    /// Certificates of the key, DER, the leaf first.
    chain: Vec<Vec<u8>>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}

/// Why there is no signer, or no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignerError {
    /// Not a P-256 key in PKCS #8.
    Key,
    /// Not certificates.
    Chain(X509Error),
    /// The first certificate is of another key.
    OtherKey,
    /// The system has no random numbers.
    Random,
}

impl fmt::Display for SignerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key => f.write_str("not a private key of P-256 in PKCS #8, PEM"),
            Self::Chain(error) => write!(f, "not certificates: {error}"),
            Self::OtherKey => f.write_str("the first certificate is of another key"),
            Self::Random => f.write_str("the system gives no random numbers"),
        }
    }
}

impl std::error::Error for SignerError {}

impl Signer {
    /// A signer with a key of its own, which ends with it: relying parties cannot know it beforehand.
    ///
    /// # Errors
    /// [`SignerError::Random`].
    pub fn ephemeral() -> Result<Self, SignerError> {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
            .map_err(|_| SignerError::Random)?;
        Self::of(pkcs8.as_ref(), Vec::new())
    }

    /// A signer with a key (PKCS #8, PEM) and its certificates (PEM, the leaf first), which relying parties check.
    ///
    /// # Errors
    /// A key or certificates that cannot be used, or do not belong together.
    pub fn from_pem(key: &[u8], chain: Option<&[u8]>) -> Result<Self, SignerError> {
        let key = pem::private_key(key).map_err(|_| SignerError::Key)?;
        let chain = chain.map(pem::certificates).transpose().map_err(SignerError::Chain)?;
        Self::of(&key, chain.unwrap_or_default())
    }

    fn of(pkcs8: &[u8], chain: Vec<Vec<u8>>) -> Result<Self, SignerError> {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random)
            .map_err(|_| SignerError::Key)?;
        if let Some(leaf) = chain.first() {
            let point = key.public_key().as_ref();
            if !leaf.windows(point.len()).any(|window| window == point) {
                return Err(SignerError::OtherKey);
            }
        }
        Ok(Self { key, random, chain })
    }

    /// The public key, as a JWK.
    #[must_use]
    pub fn jwk(&self) -> Value {
        let point = self.key.public_key().as_ref();
        let coordinate = |range| URL_SAFE_NO_PAD.encode(point.get(range).unwrap_or_default());
        let mut jwk = json!({
            "kty": "EC",
            "crv": "P-256",
            "alg": "ES256",
            "x": coordinate(1..33),
            "y": coordinate(33..65),
        });
        if !self.chain.is_empty() {
            jwk["x5c"] = self.chain.iter().map(|der| json!(STANDARD.encode(der))).collect();
        }
        jwk
    }

    /// The token of appraisals, at a time.
    ///
    /// # Errors
    /// [`SignerError::Random`].
    pub fn token(
        &self,
        appraisals: &[Appraisal],
        root: RootKind,
        at: UnixSeconds,
    ) -> Result<String, SignerError> {
        let header = json!({ "typ": "JWT", "alg": "ES256", "jwk": self.jwk() });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims(appraisals, root, at)));
        let signature = self.key.sign(&self.random, signed.as_bytes()).map_err(|_| SignerError::Random)?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref())))
    }
}

/// The claims set.
fn claims(appraisals: &[Appraisal], root: RootKind, at: UnixSeconds) -> Value {
    let submods: Map<String, Value> = (0..)
        .zip(appraisals)
        .map(|(number, one): (u32, _)| (format!("cpu{number}"), submod(one, root)))
        .collect();
    let mut claims = json!({
        "eat_profile": PROFILE,
        "iss": ISSUER,
        "iat": at.0,
        "exp": at.0.saturating_add(LIFETIME),
        "ear.verifier-id": {
            "developer": ISSUER,
            "build": concat!("tdvisor-attest-serve ", env!("CARGO_PKG_VERSION")),
        },
        "submods": submods,
    });
    if root == RootKind::Test {
        claims[TEST_ROOT] = json!(true);
    }
    claims
}

fn submod(appraisal: &Appraisal, root: RootKind) -> Value {
    let Vector { hardware, executables, configuration } = appraisal.vector;
    let vector = [
        ("instance-identity", 0),
        ("configuration", configuration),
        ("executables", executables),
        ("file-system", 0),
        ("hardware", hardware),
        ("runtime-opaque", 0),
        ("storage-opaque", 0),
        ("sourced-data", 0),
    ];
    let status = vector.iter().map(|(_, claim)| Tier::of(*claim)).max().unwrap_or(Tier::None);
    let vector: Map<String, Value> =
        vector.into_iter().map(|(name, claim)| (name.to_owned(), json!(claim))).collect();
    let mut tdx = appraisal.tdx.clone();
    if root == RootKind::Test {
        tdx.insert(TEST_ROOT.to_owned(), json!(true));
    }
    json!({
        "ear.status": status.name(),
        "ear.trustworthiness-vector": vector,
        "ear.appraisal-policy-id": DEFAULT_POLICY,
        "ear.veraison.annotated-evidence": {
            "report_data": appraisal.report_data,
            "runtime_data_claims": appraisal.runtime_claims,
            "init_data": appraisal.init_data,
            "init_data_claims": appraisal.init_claims,
            "tdx": tdx,
        },
    })
}

/// What a claim of the vector amounts to, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tier {
    None,
    Affirming,
    Warning,
    Contraindicated,
}

impl Tier {
    const fn of(claim: i8) -> Self {
        match claim {
            -1..=1 => Self::None,
            -32..=-2 | 2..=31 => Self::Affirming,
            -96..=-33 | 32..=95 => Self::Warning,
            _ => Self::Contraindicated,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Affirming => "affirming",
            Self::Warning => "warning",
            Self::Contraindicated => "contraindicated",
        }
    }
}
