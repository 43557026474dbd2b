//! The map of claims that Trustee's `intel_dcap` takes from Intel's library, from a quote and collateral alone.

use alloc::string::{String, ToString};
use core::fmt;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha384};

use crate::collateral::{Bundle, TcbStatus};
use crate::crypto::DefaultCrypto;
use crate::pck::SgxType;
use crate::verify::{TrustAnchor, Verification, Verifier, VerifyError};
use crate::{Hex, UnixSeconds};

/// Why there are no claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoClaims {
    /// The quote does not verify.
    Invalid(VerifyError),
    /// The platform's TCB is one that no policy may accept: revoked, or below everything that the collateral knows.
    Terminal(TcbStatus),
    /// The evidence is not of a TD.
    NotATd,
}

impl fmt::Display for NoClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(error) => error.fmt(f),
            Self::Terminal(status) => write!(f, "the TCB is {status}"),
            Self::NotATd => f.write_str("not a quote of a TD"),
        }
    }
}

impl core::error::Error for NoClaims {}

/// Verifies a quote at a time, and gives the claims of Trustee's `ecdsa_quote_verification`.
///
/// # Errors
/// [`NoClaims`]: where Intel's library fails, or ends with a terminal result.
pub fn verify(
    quote: &[u8],
    collateral: &Bundle,
    anchor: &TrustAnchor,
    at: UnixSeconds,
) -> Result<Map<String, Value>, NoClaims> {
    let mut verifier = Verifier::with_crypto(anchor.clone(), DefaultCrypto::default());
    verifier.add_collateral(collateral).map_err(NoClaims::Invalid)?;
    claims(&verifier.verify(quote, at).map_err(NoClaims::Invalid)?, anchor)
}

/// The claims of a quote that has been verified under `anchor`.
///
/// # Errors
/// [`NoClaims::Terminal`].
pub fn claims(verified: &Verification<'_>, anchor: &TrustAnchor) -> Result<Map<String, Value>, NoClaims> {
    let tcb = &verified.tcb;
    let (status, Some(date)) = (tcb.status, tcb.date) else { return Err(NoClaims::Terminal(tcb.status)) };
    if matches!(status, TcbStatus::Revoked | TcbStatus::NotSupported) {
        return Err(NoClaims::Terminal(status));
    }
    let (window, platform) = (&verified.window, &verified.platform);
    let rfc3339 = |time: UnixSeconds| json!(time.to_string());
    let advisories = |ids: &[alloc::sync::Arc<str>]| ids.iter().map(|id| json!(**id)).collect::<Value>();
    let mut claims = Map::new();
    let mut put = |name: &str, value: Value| {
        claims.insert(name.to_string(), value);
    };
    put("tcb_status", json!(status.name()));
    put("tcb_date", rfc3339(date));
    put("tcb_eval_num", json!(verified.evaluation_number()));
    put("advisory_ids", advisories(&tcb.advisories));
    // Verification fails where anything has expired.
    put("collateral_expiration_status", json!("0"));
    put("earliest_issue_date", rfc3339(window.earliest_issue));
    put("latest_issue_date", rfc3339(window.latest_issue));
    put("earliest_expiration_date", rfc3339(window.earliest_expiration));
    put("pck_crl_num", json!(verified.pck_crl_number.unwrap_or(0)));
    put("root_ca_crl_num", json!(verified.root_crl_number.unwrap_or(0)));
    put("root_key_id", json!(root_key_id(anchor)?));
    put("platform_provider_id", json!(Hex(&platform.ppid).to_string()));
    put("sgx_type", json!(sgx_type(platform.sgx_type)));
    if platform.sgx_type != SgxType::STANDARD {
        put("is_dynamic_platform", json!(platform.dynamic_platform == Some(true)));
        put("is_cached_keys", json!(platform.cached_keys == Some(true)));
        put("is_smt_enabled", json!(platform.smt_enabled == Some(true)));
    }
    if let Some(current) = &tcb.current {
        put("tcb_status_current", json!(current.status.name()));
        put("tcb_date_current", rfc3339(current.date));
        put("advisory_ids_current", advisories(&current.advisories));
    }
    Ok(claims)
}

/// SHA-384 of the root's public key, as an uncompressed point.
fn root_key_id(anchor: &TrustAnchor) -> Result<String, NoClaims> {
    let root = anchor.certificate().map_err(|error| {
        NoClaims::Invalid(VerifyError::X509 { item: crate::verify::Item::RootCertificate, error })
    })?;
    Ok(Hex(&Sha384::digest(root.public_key.to_sec1())).to_string())
}

fn sgx_type(kind: SgxType) -> String {
    match kind {
        SgxType::STANDARD => "Standard".to_string(),
        SgxType::SCALABLE => "Scalable".to_string(),
        SgxType::SCALABLE_WITH_INTEGRITY => "Scalable with Integrity".to_string(),
        SgxType(other) => alloc::format!("Unknown ({other})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_intels_root_has_the_id_that_intels_library_gives_it() {
        assert_eq!(
            root_key_id(&TrustAnchor::intel()).unwrap(),
            "46e403bd34f05a3f2817ab9badcaacc7ffc98e0f261008cd30dae936cace18d5dcf58eef31463613de1570d516200993"
        );
    }
}
