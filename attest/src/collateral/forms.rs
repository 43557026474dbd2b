//! The forms in which files hold collateral, read into [`Parts`].
//!
//! - A bundle: one JSON object with `tcb_info`, `qe_identity` (the inner objects exactly as served), their
//!   `…_signature` (r‖s, hexadecimal) and `…_issuer_chain` (PEM), `root_ca_crl`, `pck_crl`, and, where the quote
//!   carries no chain, `pck_certificate_chain`. A part may also be the whole response body, as JSON or as text.
//! - A file of many platforms, as migration TDs are given it: the same keys in camel case, and `platforms`.
//! - A response body (`{"tcbInfo":{…},"signature":"…"}`), or a saved HTTP response with its headers.
//! - A revocation list (DER, PEM, hexadecimal) or a PEM chain, percent-encoded as response headers are or not.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::{self, Text};
use super::parts::{Parts, StatedBody};
use super::{CollateralError, Part, TcbInfo};
use crate::bytes::hex_array;
use crate::crypto::Signature;
use crate::quote::TeeType;
use crate::strict::{Object, stated};
use crate::x509::{Certificate, RevocationList, X509Error, pem};

/// The longest head of a saved response, in bytes: an issuer chain is its largest line.
const MAX_HEAD: usize = 64 << 10;

/// Every key of every JSON form. One that is not here, twice there, `null` or of another type is an error.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBundle<'a> {
    #[serde(borrow, default, deserialize_with = "stated", alias = "tcbInfo")]
    tcb_info: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "stated")]
    tcb_info_signature: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "stated", alias = "tcbInfoIssuerChain")]
    tcb_info_issuer_chain: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "stated", alias = "qeIdentity", alias = "enclaveIdentity")]
    qe_identity: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "stated")]
    qe_identity_signature: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "stated", alias = "qeIdentityIssuerChain")]
    qe_identity_issuer_chain: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "stated", alias = "rootCaCrl")]
    root_ca_crl: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "stated", alias = "pckCrl")]
    pck_crl: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "stated", alias = "pckCrlIssuerChain")]
    pck_crl_issuer_chain: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "stated")]
    pck_certificate_chain: Option<Text<'a>>,
    /// The signature of a response body: of the one body that stands beside it.
    #[serde(borrow, default, deserialize_with = "stated")]
    signature: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "stated")]
    platforms: Option<Vec<Object<RawPlatform<'a>>>>,
    #[serde(default, deserialize_with = "stated", alias = "teeType")]
    tee_type: Option<u32>,
    // What Intel's library has in its structure beside the parts: versions of that structure.
    #[serde(default, deserialize_with = "stated", rename = "version")]
    _version: Option<u32>,
    #[serde(default, deserialize_with = "stated", rename = "major_version")]
    _major_version: Option<u32>,
    #[serde(default, deserialize_with = "stated", rename = "minor_version")]
    _minor_version: Option<u32>,
}

/// One platform family in a file of many.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawPlatform<'a> {
    #[serde(borrow)]
    fmspc: Text<'a>,
    #[serde(borrow)]
    tcb_info: &'a RawValue,
    #[serde(borrow)]
    tcb_info_issuer_chain: Text<'a>,
}

/// The body of a response, as text: what the signature is of, and the signature.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawResponse<'a> {
    #[serde(borrow, rename = "tcbInfo", alias = "enclaveIdentity")]
    body: &'a RawValue,
    #[serde(borrow)]
    signature: Text<'a>,
}

impl Parts {
    /// Adds one file of any form.
    ///
    /// # Errors
    /// Bytes that are none of the forms; keys that are unknown, twice there, `null` or of another type.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), CollateralError> {
        if bytes.len() > json::MAX_JSON {
            return Err(CollateralError::TooLarge(Part::Bundle));
        }
        self.next_file();
        if bytes.starts_with(b"HTTP/") { self.add_response(bytes) } else { self.add_contents(bytes) }
    }

    fn add_contents(&mut self, bytes: &[u8]) -> Result<(), CollateralError> {
        match core::str::from_utf8(bytes) {
            Ok(text) if text.trim_start().starts_with('{') => self.add_json(text),
            Ok(text) if text.contains("-----BEGIN CERTIFICATE") || text.contains("-----BEGIN%20") => {
                self.add_chain(chain(text, Part::Bundle)?)
            }
            _ => self.add_crl(bytes),
        }
    }

    /// Adds a bundle, a file of many platforms, or a response body.
    pub(super) fn add_json(&mut self, text: &str) -> Result<(), CollateralError> {
        let raw: RawBundle<'_> = json::decode_object(text, Part::Bundle)?;
        let is_tee = |tee: &u32| [TeeType::SGX.0, TeeType::TDX.0].contains(tee);
        if raw.tee_type.is_some_and(|tee| !is_tee(&tee)) {
            return Err(CollateralError::Field { part: Part::Bundle, field: "tee_type" });
        }
        // A signature that stands alone is of the one body there is.
        let of_response = raw.signature.as_ref();
        if of_response.is_some() && raw.tcb_info.is_some() == raw.qe_identity.is_some() {
            return Err(CollateralError::Field { part: Part::Bundle, field: "signature" });
        }
        if let Some(value) = raw.tcb_info {
            let signature = raw.tcb_info_signature.as_ref().or(of_response);
            let chain = stated_chain(raw.tcb_info_issuer_chain.as_ref(), Part::TcbInfoChain)?;
            self.put_tcb_info(signed(value, signature, Part::TcbInfo)?, chain);
        } else if let Some(chain) = stated_chain(raw.tcb_info_issuer_chain.as_ref(), Part::TcbInfoChain)? {
            self.add_chain(chain)?;
        }
        if let Some(value) = raw.qe_identity {
            let signature = raw.qe_identity_signature.as_ref().or(of_response);
            let chain = stated_chain(raw.qe_identity_issuer_chain.as_ref(), Part::QeIdentityChain)?;
            self.put_qe_identity(signed(value, signature, Part::QeIdentity)?, chain);
        } else if let Some(chain) =
            stated_chain(raw.qe_identity_issuer_chain.as_ref(), Part::QeIdentityChain)?
        {
            self.add_chain(chain)?;
        }
        for Object(platform) in raw.platforms.into_iter().flatten() {
            let body = signed(platform.tcb_info, None, Part::TcbInfo)?;
            // The label that people read must be the platform that is meant.
            if TcbInfo::parse(&body.0)?.fmspc != platform.fmspc.hex(Part::Bundle, "platforms.fmspc")? {
                return Err(CollateralError::Field { part: Part::Bundle, field: "platforms.fmspc" });
            }
            let chain = stated_chain(Some(&platform.tcb_info_issuer_chain), Part::TcbInfoChain)?;
            self.put_tcb_info(body, chain);
        }
        if let Some(chain) = stated_chain(raw.pck_crl_issuer_chain.as_ref(), Part::PckCrlChain)? {
            self.put_pck_crl_chain(chain);
        }
        if let Some(chain) = stated_chain(raw.pck_certificate_chain.as_ref(), Part::PckChain)? {
            self.put_pck_chain(chain);
        }
        if let Some(text) = raw.root_ca_crl {
            self.put_root_crl(crl(text.as_str().as_bytes(), Part::RootCrl)?);
        }
        if let Some(text) = raw.pck_crl {
            self.put_pck_crl(crl(text.as_str().as_bytes(), Part::PckCrl)?);
        }
        Ok(())
    }

    /// Adds a chain; the name of its leaf, wherever it stands, says whose it is.
    fn add_chain(&mut self, chain: Vec<Vec<u8>>) -> Result<(), CollateralError> {
        let (mut is_pck, mut is_signing) = (false, false);
        for der in &chain {
            let certificate = Certificate::from_der(der).map_err(|error| in_part(Part::Bundle, error))?;
            is_pck |= certificate.subject.common_name_contains("SGX PCK Certificate");
            is_signing |= certificate.subject.common_name_contains("TCB Signing");
        }
        if is_pck {
            self.put_pck_chain(chain);
        } else if is_signing {
            self.put_signing_chain(chain);
        } else {
            self.put_pck_crl_chain(chain);
        }
        Ok(())
    }

    /// Adds a revocation list; whose it is, its issuer's name says in the end.
    fn add_crl(&mut self, bytes: &[u8]) -> Result<(), CollateralError> {
        let der = crl(bytes, Part::Bundle)?;
        RevocationList::from_der(&der).map_err(|error| in_part(Part::Bundle, error))?;
        self.put_loose_crl(der)
    }

    /// Adds a saved response: its headers have the issuer chain.
    fn add_response(&mut self, bytes: &[u8]) -> Result<(), CollateralError> {
        let (head, body) = split_head(bytes).ok_or(CollateralError::Http { status: 0 })?;
        let status = head.split_ascii_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        if status != 200 {
            return Err(CollateralError::Http { status });
        }
        let mut chains =
            head.lines().skip(1).filter_map(|line| line.split_once(':')).filter_map(|(name, value)| {
                let part = match name.trim().to_ascii_lowercase().as_str() {
                    "tcb-info-issuer-chain" | "sgx-tcb-info-issuer-chain" => Part::TcbInfoChain,
                    "sgx-enclave-identity-issuer-chain" => Part::QeIdentityChain,
                    "sgx-pck-crl-issuer-chain" => Part::PckCrlChain,
                    "sgx-pck-certificate-issuer-chain" => Part::PckChain,
                    _ => return None,
                };
                Some((part, value.trim()))
            });
        let stated = chains.next();
        if chains.next().is_some() {
            return Err(CollateralError::Http { status });
        }
        match stated {
            None => self.add_contents(body),
            Some((part @ (Part::TcbInfoChain | Part::QeIdentityChain), text)) => {
                let body = core::str::from_utf8(body).map_err(|_| CollateralError::Http { status })?;
                let raw: RawResponse<'_> = json::decode_object(body, Part::Bundle)?;
                let chain = Some(chain(text, part)?);
                let place = if part == Part::TcbInfoChain { Part::TcbInfo } else { Part::QeIdentity };
                let body = signed(raw.body, Some(&raw.signature), place)?;
                if part == Part::TcbInfoChain {
                    self.put_tcb_info(body, chain);
                } else {
                    self.put_qe_identity(body, chain);
                }
                Ok(())
            }
            Some((Part::PckChain, text)) => {
                let mut all = pem::certificates(body).map_err(|error| in_part(Part::PckChain, error))?;
                all.extend(chain(text, Part::PckChain)?);
                self.put_pck_chain(all);
                Ok(())
            }
            Some((part, text)) => {
                self.put_pck_crl_chain(chain(text, part)?);
                self.put_pck_crl(crl(body, Part::PckCrl)?);
                Ok(())
            }
        }
    }
}

/// The head of a saved response as text, and what follows it.
fn split_head(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let head = bytes.get(..bytes.len().min(MAX_HEAD))?;
    [&b"\r\n\r\n"[..], b"\n\n"].into_iter().find_map(|end| {
        let at = head.windows(end.len()).position(|window| window == end)?;
        Some((core::str::from_utf8(head.get(..at)?).ok()?, bytes.get(at + end.len()..)?))
    })
}

fn in_part(part: Part, error: X509Error) -> CollateralError {
    CollateralError::X509 { part, error }
}

fn signature(hex: Option<&Text<'_>>, part: Part) -> Result<Signature, CollateralError> {
    let field = CollateralError::Field { part, field: "signature" };
    hex.and_then(|hex| hex_array(hex.as_str())).map(Signature).ok_or(field)
}

/// A signed body: an inner object or a whole response, as JSON or as JSON text inside a string.
fn signed(value: &RawValue, separate: Option<&Text<'_>>, part: Part) -> Result<StatedBody, CollateralError> {
    let decoded: String;
    let text = if value.get().starts_with('"') {
        decoded = json::decode::<String>(value.get(), part)?;
        decoded.as_str()
    } else {
        value.get()
    };
    // A response body is told by its envelope; the inner objects have no member of this name.
    if text.contains("\"signature\"")
        && let Ok(RawResponse { body, signature: own }) = json::decode_object(text, part)
    {
        let own = signature(Some(&own), part)?;
        // Which of two different signatures holds would be a guess.
        return match separate {
            Some(_) if signature(separate, part)? != own => {
                Err(CollateralError::Field { part, field: "signature" })
            }
            _ => Ok((body.get().to_string(), own)),
        };
    }
    Ok((text.to_string(), signature(separate, part)?))
}

fn crl(bytes: &[u8], part: Part) -> Result<Vec<u8>, CollateralError> {
    pem::revocation_list(bytes).map_err(|error| in_part(part, error))
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

/// A chain that a key states; an empty text states none.
fn stated_chain(text: Option<&Text<'_>>, part: Part) -> Result<Option<Vec<Vec<u8>>>, CollateralError> {
    let text = text.map(Text::as_str).filter(|text| !text.trim().is_empty());
    text.map(|text| chain(text, part)).transpose()
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
    fn keys_that_are_unknown_twice_there_null_or_of_another_type_are_named() {
        for (text, wanted) in [
            (r#"{"tcb_info_sig":"00"}"#, "tcb_info_sig"),
            (r#"{"root_ca_crl":null}"#, "root_ca_crl"),
            (r#"{"root_ca_crl":["00"]}"#, "root_ca_crl"),
            (r#"{"pck_crl":"00","pckCrl":"00"}"#, "pck_crl"),
            (r#"{"pck_crl":"00","pck_crl":"00"}"#, "pck_crl"),
            (r#"{"platforms":[{"fmspc":"00"}]}"#, "platforms[0]"),
            (r#"{"platforms":[[]]}"#, "platforms[0]"),
            (r#"{"platforms":{}}"#, "platforms"),
            (r#"{"version":"3"}"#, "version"),
        ] {
            match Parts::default().add(text.as_bytes()) {
                Err(CollateralError::Json { key, .. }) => assert_eq!(key.as_str(), wanted, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_saved_response_counts_only_if_it_succeeded() {
        for (text, status) in [
            ("HTTP/1.1 404 Not Found\r\n\r\n{}", 404),
            ("HTTP/1.1 200 OK\r\nSGX-PCK-CRL-Issuer-Chain: a\r\nTCB-Info-Issuer-Chain: b\r\n\r\n{}", 200),
            ("HTTP/1.1 200 OK", 0),
            ("HTTP/ \n\n", 0),
        ] {
            assert_eq!(
                Parts::default().add(text.as_bytes()),
                Err(CollateralError::Http { status }),
                "{text}"
            );
        }
        let found = Parts::default().add(b"HTTP/2 200\r\nServer: x\r\n\r\n{\"nonsense\":1}");
        assert!(matches!(found, Err(CollateralError::Json { .. })), "{found:?}");
    }
}
