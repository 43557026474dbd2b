//! The raw parts of collateral that one quote needs.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{CollateralError, Parts};
use crate::Hex;
use crate::crypto::Signature;
use crate::x509::pem;

/// A signed JSON body with the chain that issued it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedBody {
    /// The inner object exactly as served: the bytes that are signed.
    pub body: String,
    /// The signature over `body`.
    pub signature: Signature,
    /// Certificates of the issuer chain, DER.
    pub chain: Vec<Vec<u8>>,
}

/// Everything that verification of a quote needs beside the quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// TCB info.
    pub tcb_info: SignedBody,
    /// Identity of the quoting enclave.
    pub qe_identity: SignedBody,
    /// Revocation list of the root, DER.
    pub root_crl: Vec<u8>,
    /// Revocation list of the PCK certification authority, DER.
    pub pck_crl: Vec<u8>,
    /// Certificates that issued the PCK revocation list, DER; may be empty.
    pub pck_crl_chain: Vec<Vec<u8>>,
    /// PCK certificate chain, DER; for quotes that carry none.
    pub pck_chain: Vec<Vec<u8>>,
}

impl Bundle {
    /// Reads a bundle, or one file that holds all parts.
    ///
    /// # Errors
    /// The first part that is missing or cannot be read.
    pub fn from_json(text: &str) -> Result<Self, CollateralError> {
        let mut parts = Parts::default();
        parts.add_json(text)?;
        parts.build()
    }

    /// The bundle as one JSON file: what [`Bundle::from_json`] reads.
    #[must_use]
    pub fn to_json(&self) -> String {
        let pem = |chain: &[Vec<u8>]| {
            let mut text = String::new();
            for der in chain {
                pem::write("CERTIFICATE", der, &mut text);
            }
            text
        };
        let hex = |bytes: &[u8]| Hex(bytes).to_string();
        let mut bundle = serde_json::json!({
            "tcb_info": self.tcb_info.body,
            "tcb_info_signature": hex(&self.tcb_info.signature.0),
            "tcb_info_issuer_chain": pem(&self.tcb_info.chain),
            "qe_identity": self.qe_identity.body,
            "qe_identity_signature": hex(&self.qe_identity.signature.0),
            "qe_identity_issuer_chain": pem(&self.qe_identity.chain),
            "root_ca_crl": hex(&self.root_crl),
            "pck_crl": hex(&self.pck_crl),
            "pck_crl_issuer_chain": pem(&self.pck_crl_chain),
        });
        if let Some(fields) = bundle.as_object_mut()
            && !self.pck_chain.is_empty()
        {
            fields.insert("pck_certificate_chain".to_string(), pem(&self.pck_chain).into());
        }
        bundle.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Part;
    use super::*;

    #[test]
    fn a_bundle_names_the_first_missing_part() {
        assert_eq!(Bundle::from_json("{}"), Err(CollateralError::Missing(Part::TcbInfo)));
        assert!(matches!(Bundle::from_json("[]"), Err(CollateralError::Json { .. })));
    }
}
