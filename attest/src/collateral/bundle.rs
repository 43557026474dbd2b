//! The raw parts of collateral, from a bundle or from response bodies of PCS and PCCS.
//!
//! A bundle is one JSON object with `tcb_info`, `qe_identity` (the inner objects exactly as served),
//! their `…_signature` (r‖s, hexadecimal) and `…_issuer_chain` (PEM), `root_ca_crl`, `pck_crl`, and, where
//! the quote carries no chain, `pck_certificate_chain`. A part may also be the whole response body
//! (`{"tcbInfo":{…},"signature":"…"}`), and a chain may be percent-encoded as response headers are.

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::json;
use super::{CollateralError, Part};
use crate::Hex;
use crate::bytes::hex_array;
use crate::crypto::Signature;
use crate::x509::{Certificate, RevocationList, X509Error, pem};

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
}

impl Bundle {
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

/// Collects a [`Bundle`] from files of any supported form.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    tcb_info: Option<(String, Signature)>,
    qe_identity: Option<(String, Signature)>,
    tcb_info_chain: Vec<Vec<u8>>,
    qe_identity_chain: Vec<Vec<u8>>,
    root_crl: Option<Vec<u8>>,
    pck_crl: Option<Vec<u8>>,
    pck_crl_chain: Vec<Vec<u8>>,
    pck_chain: Vec<Vec<u8>>,
    /// Revocation lists from files of their own: whose they are is known when all chains are.
    loose_crls: Vec<Vec<u8>>,
}

/// The most revocation lists that are files of their own; a bundle has two.
const MAX_LOOSE_CRLS: usize = 16;

/// Every key of every JSON form; absent keys are `None`.
#[derive(Deserialize, Default)]
struct RawBundle<'a> {
    #[serde(borrow, default)]
    tcb_info: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tcb_info_signature: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    tcb_info_issuer_chain: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    qe_identity: Option<&'a RawValue>,
    #[serde(borrow, default)]
    qe_identity_signature: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    qe_identity_issuer_chain: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    root_ca_crl: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pck_crl: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pck_crl_issuer_chain: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pck_certificate_chain: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "tcbInfo")]
    response_tcb_info: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "enclaveIdentity")]
    response_identity: Option<&'a RawValue>,
    #[serde(borrow, default)]
    signature: Option<Cow<'a, str>>,
}

impl Parts {
    /// Adds one file: bundle, response body, revocation list (DER, PEM, hexadecimal) or PEM chain.
    ///
    /// # Errors
    /// Bytes that are none of these.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), CollateralError> {
        if bytes.len() > json::MAX_JSON {
            return Err(CollateralError::TooLarge(Part::Bundle));
        }
        match core::str::from_utf8(bytes) {
            Ok(text) if text.trim_start().starts_with('{') => self.add_json(text),
            Ok(text) if text.contains("-----BEGIN CERTIFICATE") || text.contains("-----BEGIN%20") => {
                self.add_chain(text)
            }
            _ => self.add_crl(bytes),
        }
    }

    fn add_json(&mut self, text: &str) -> Result<(), CollateralError> {
        let raw: RawBundle<'_> = json::decode_object(text, Part::Bundle)?;
        if let Some(body) = raw.response_tcb_info {
            let signature = signature(raw.signature.as_deref(), Part::TcbInfo)?;
            self.tcb_info = Some((body.get().to_string(), signature));
        } else if let Some(body) = raw.response_identity {
            let signature = signature(raw.signature.as_deref(), Part::QeIdentity)?;
            self.qe_identity = Some((body.get().to_string(), signature));
        }
        if let Some(value) = raw.tcb_info {
            self.tcb_info = Some(signed(value, raw.tcb_info_signature.as_deref(), Part::TcbInfo)?);
        }
        if let Some(value) = raw.qe_identity {
            self.qe_identity = Some(signed(value, raw.qe_identity_signature.as_deref(), Part::QeIdentity)?);
        }
        let same_chain = raw.tcb_info_issuer_chain == raw.qe_identity_issuer_chain;
        take_chain(&mut self.tcb_info_chain, raw.tcb_info_issuer_chain, Part::TcbInfoChain)?;
        if same_chain {
            self.qe_identity_chain.clone_from(&self.tcb_info_chain);
        } else {
            take_chain(&mut self.qe_identity_chain, raw.qe_identity_issuer_chain, Part::QeIdentityChain)?;
        }
        take_chain(&mut self.pck_crl_chain, raw.pck_crl_issuer_chain, Part::PckCrlChain)?;
        take_chain(&mut self.pck_chain, raw.pck_certificate_chain, Part::PckChain)?;
        take_crl(&mut self.root_crl, raw.root_ca_crl, Part::RootCrl)?;
        take_crl(&mut self.pck_crl, raw.pck_crl, Part::PckCrl)
    }

    /// Adds a PEM chain; the name of its leaf, wherever it stands, says whose it is.
    fn add_chain(&mut self, text: &str) -> Result<(), CollateralError> {
        let chain = chain(text, Part::Bundle)?;
        let mut phrases = [("SGX PCK Certificate", false), ("TCB Signing", false)];
        for der in &chain {
            let certificate = Certificate::from_der(der).map_err(|error| in_part(Part::Bundle, error))?;
            for (phrase, found) in &mut phrases {
                *found |= certificate.subject.common_name_contains(phrase);
            }
        }
        let [(_, is_pck), (_, is_signing)] = phrases;
        if is_pck {
            self.pck_chain = chain;
        } else if is_signing {
            if self.qe_identity_chain.is_empty() {
                self.qe_identity_chain.clone_from(&chain);
            }
            self.tcb_info_chain = chain;
        } else {
            self.pck_crl_chain = chain;
        }
        Ok(())
    }

    /// Adds a revocation list; whose it is, its issuer's name says in the end.
    fn add_crl(&mut self, bytes: &[u8]) -> Result<(), CollateralError> {
        let der = pem::revocation_list(bytes).map_err(|error| in_part(Part::Bundle, error))?;
        RevocationList::from_der(&der).map_err(|error| in_part(Part::Bundle, error))?;
        if self.loose_crls.len() == MAX_LOOSE_CRLS {
            return Err(CollateralError::TooLarge(Part::Bundle));
        }
        self.loose_crls.push(der);
        Ok(())
    }

    /// Gives each loose revocation list its place: the root's is the one whose issuer is at the end of a chain.
    fn place_crls(&mut self) -> Result<(), CollateralError> {
        for der in core::mem::take(&mut self.loose_crls) {
            let list = RevocationList::from_der(&der).map_err(|error| in_part(Part::Bundle, error))?;
            let chains =
                [&self.tcb_info_chain, &self.qe_identity_chain, &self.pck_crl_chain, &self.pck_chain];
            let is_of_root = chains.into_iter().flatten().any(|der| {
                Certificate::from_der(der)
                    .is_ok_and(|one| one.is_self_issued() && one.subject.der() == list.issuer.der())
            });
            if is_of_root {
                self.root_crl = Some(der);
            } else {
                self.pck_crl = Some(der);
            }
        }
        Ok(())
    }

    /// The bundle.
    ///
    /// # Errors
    /// The first part that no file held.
    pub fn build(mut self) -> Result<Bundle, CollateralError> {
        self.place_crls()?;
        let missing = CollateralError::Missing;
        let (body, signature) = self.tcb_info.ok_or(missing(Part::TcbInfo))?;
        let tcb_info = SignedBody { body, signature, chain: self.tcb_info_chain };
        let (body, signature) = self.qe_identity.ok_or(missing(Part::QeIdentity))?;
        let qe_identity = SignedBody { body, signature, chain: self.qe_identity_chain };
        if tcb_info.chain.is_empty() {
            return Err(missing(Part::TcbInfoChain));
        }
        if qe_identity.chain.is_empty() {
            return Err(missing(Part::QeIdentityChain));
        }
        Ok(Bundle {
            tcb_info,
            qe_identity,
            root_crl: self.root_crl.ok_or(missing(Part::RootCrl))?,
            pck_crl: self.pck_crl.ok_or(missing(Part::PckCrl))?,
            pck_crl_chain: self.pck_crl_chain,
            pck_chain: self.pck_chain,
        })
    }
}

fn in_part(part: Part, error: X509Error) -> CollateralError {
    CollateralError::X509 { part, error }
}

fn signature(hex: Option<&str>, part: Part) -> Result<Signature, CollateralError> {
    let hex = hex.ok_or(CollateralError::Field { part, field: "signature" })?;
    hex_array(hex).map(Signature).ok_or(CollateralError::Field { part, field: "signature" })
}

/// A signed body: an inner object or a whole response, as JSON or as JSON text inside a string.
fn signed(
    value: &RawValue,
    separate: Option<&str>,
    part: Part,
) -> Result<(String, Signature), CollateralError> {
    let text: Cow<'_, str> =
        if value.get().starts_with('"') { json::decode(value.get(), part)? } else { value.get().into() };
    // A response body is told by its envelope; the inner objects have no member of this name.
    if text.contains("\"signature\"")
        && let Ok(RawBundle { response_tcb_info, response_identity, signature: Some(own), .. }) =
            json::decode_object::<RawBundle<'_>>(&text, part)
        && let Some(inner) = response_tcb_info.or(response_identity)
    {
        return Ok((inner.get().to_string(), signature(Some(&own), part)?));
    }
    Ok((text.into_owned(), signature(separate, part)?))
}

/// Decodes a PEM chain, percent-encoded or not.
fn chain(text: &str, part: Part) -> Result<Vec<Vec<u8>>, CollateralError> {
    let decoded;
    let text = if text.contains("-----BEGIN%20") {
        decoded = percent_decode(text.as_bytes());
        &decoded
    } else {
        text.as_bytes()
    };
    pem::certificates(text).map_err(|error| in_part(part, error))
}

fn take_chain(
    place: &mut Vec<Vec<u8>>,
    text: Option<Cow<'_, str>>,
    part: Part,
) -> Result<(), CollateralError> {
    if let Some(text) = text.filter(|text| !text.trim().is_empty()) {
        *place = chain(&text, part)?;
    }
    Ok(())
}

fn take_crl(
    place: &mut Option<Vec<u8>>,
    text: Option<Cow<'_, str>>,
    part: Part,
) -> Result<(), CollateralError> {
    if let Some(text) = text {
        *place = Some(pem::revocation_list(text.as_bytes()).map_err(|error| in_part(part, error))?);
    }
    Ok(())
}

/// Undoes percent-encoding; a percent sign without two digits stays as it is.
fn percent_decode(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.first_chunk::<2>().filter(|_| *first == b'%');
        let byte = digits.and_then(|pair| core::str::from_utf8(pair).ok()).and_then(hex_array::<1>);
        match byte {
            Some([byte]) => {
                out.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding_is_undone_and_stray_signs_stay() {
        assert_eq!(percent_decode(b"-----BEGIN%20X%0a100%"), b"-----BEGIN X\n100%");
    }

    #[test]
    fn a_bundle_names_the_first_missing_part() {
        assert_eq!(Bundle::from_json("{}"), Err(CollateralError::Missing(Part::TcbInfo)));
        assert!(matches!(Bundle::from_json("[]"), Err(CollateralError::Json { .. })));
    }
}
