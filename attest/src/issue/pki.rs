//! The test PKI: keys from a seed, certificates and revocation lists shaped like Intel's.
//!
//! Nothing here is random: the same seed gives the same keys, certificates and signatures (RFC 6979), so
//! that a failing test can be replayed. The root's name says that it is a test root.

use alloc::string::String;
use alloc::vec::Vec;

use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use sha2::{Digest, Sha256};

use super::der::{
    self, BIT_STRING, OCTET_STRING, OID, SET, UTF8_STRING, bits, boolean, number, sequence, tlv, unsigned,
};
use crate::time::{UnixSeconds, Validity};

/// Common name of the root: contains what Intel's library looks for, and says that it is not Intel's.
pub const ROOT_NAME: &str = "tdvisor TEST SGX Root CA - not Intel";

const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const PRIME256V1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// A P-256 key of the test PKI.
#[derive(Clone)]
pub(super) struct Key {
    signing: SigningKey,
}

impl Key {
    /// The key of a role.
    pub(super) fn derive(seed: &[u8; 32], role: &str) -> Self {
        // One in 2^32 digests is no scalar of the curve; the next counter is tried.
        let mut counter = 0u32;
        loop {
            let digest = Sha256::new()
                .chain_update(b"tdvisor test PKI")
                .chain_update(seed)
                .chain_update(role.as_bytes())
                .chain_update(counter.to_le_bytes())
                .finalize();
            if let Ok(signing) = SigningKey::from_slice(&digest) {
                return Self { signing };
            }
            counter = counter.wrapping_add(1);
        }
    }

    /// x‖y.
    pub(super) fn public(&self) -> [u8; 64] {
        let mut key = [0; 64];
        let point = self.signing.verifying_key().to_sec1_point(false);
        if let Some(coordinates) = point.as_bytes().get(1..65) {
            key.copy_from_slice(coordinates);
        }
        key
    }

    /// r‖s over the SHA-256 of `message`.
    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signature: Signature = self.signing.sign(message);
        signature.to_bytes().into()
    }

    fn sign_der(&self, message: &[u8]) -> Vec<u8> {
        let fixed = self.sign(message);
        let (r, s) = fixed.split_at(32);
        sequence(&[unsigned(r), unsigned(s)])
    }

    /// An identifier of the key.
    fn id(&self) -> [u8; 20] {
        let mut id = [0; 20];
        id.copy_from_slice(Sha256::digest(self.public()).get(..20).unwrap_or(&[0; 20]));
        id
    }
}

/// Which authority issues PCK certificates; the name selects the revocation list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PckCa {
    /// For single-package platforms.
    Processor,
    /// For multi-package platforms.
    Platform,
}

impl PckCa {
    const fn name(self) -> &'static str {
        match self {
            Self::Processor => "tdvisor TEST SGX PCK Processor CA",
            Self::Platform => "tdvisor TEST SGX PCK Platform CA",
        }
    }
}

/// Who a certificate or list is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The root.
    Root,
    /// The PCK certification authority.
    PckCa,
    /// A platform's PCK certificate.
    Pck,
    /// The signer of TCB info and QE identity.
    TcbSigner,
}

/// A test PKI for one platform.
#[derive(Clone)]
pub struct TestPki {
    seed: [u8; 32],
    /// Validity of every certificate.
    validity: Validity,
    ca: PckCa,
    root: Key,
    pck_ca: Key,
    signer: Key,
    pub(super) pck: Key,
    sgx_extension: Vec<u8>,
}

/// Validity of test certificates unless told otherwise: 2018-01-01 to 2049-12-31.
pub const DEFAULT_VALIDITY: Validity =
    Validity { from: UnixSeconds(1_514_764_800), until: UnixSeconds(2_524_521_600) };

struct Extension {
    oid: &'static [u8],
    critical: bool,
    value: Vec<u8>,
}

impl TestPki {
    /// The PKI of a seed, with a PCK certificate that carries `sgx_extension`.
    pub(super) fn new(seed: [u8; 32], validity: Validity, ca: PckCa, sgx_extension: Vec<u8>) -> Self {
        Self {
            seed,
            validity,
            ca,
            root: Key::derive(&seed, "root"),
            pck_ca: Key::derive(&seed, "pck-ca"),
            signer: Key::derive(&seed, "tcb-signer"),
            pck: Key::derive(&seed, "pck"),
            sgx_extension,
        }
    }

    fn key(&self, role: Role) -> &Key {
        match role {
            Role::Root => &self.root,
            Role::PckCa => &self.pck_ca,
            Role::Pck => &self.pck,
            Role::TcbSigner => &self.signer,
        }
    }

    fn name(&self, role: Role) -> Vec<u8> {
        name(match role {
            Role::Root => ROOT_NAME,
            Role::PckCa => self.ca.name(),
            Role::Pck => "tdvisor TEST SGX PCK Certificate",
            Role::TcbSigner => "tdvisor TEST SGX TCB Signing",
        })
    }

    const fn issuer(role: Role) -> Role {
        match role {
            Role::Root | Role::PckCa | Role::TcbSigner => Role::Root,
            Role::Pck => Role::PckCa,
        }
    }

    /// The serial number of a role's certificate.
    pub(super) fn serial(&self, role: Role) -> [u8; 20] {
        let mut serial = [0; 20];
        let digest = Sha256::new()
            .chain_update(b"serial")
            .chain_update(self.seed)
            .chain_update([role as u8])
            .finalize();
        serial.copy_from_slice(digest.get(..20).unwrap_or(&[0; 20]));
        // Positive and not shortened.
        if let Some(first) = serial.first_mut() {
            *first = *first & 0x7f | 0x40;
        }
        serial
    }

    /// A role's certificate, DER.
    #[must_use]
    pub fn certificate(&self, role: Role) -> Vec<u8> {
        let issuer = Self::issuer(role);
        let is_ca = matches!(role, Role::Root | Role::PckCa);
        let path = match role {
            Role::Root => Some(1),
            Role::PckCa => Some(0),
            _ => None,
        };
        let mut constraints = Vec::new();
        if is_ca {
            constraints.push(boolean(true));
        }
        constraints.extend(path.map(number));
        // Certificate and list signing, or digital signature and non-repudiation.
        let usage = if is_ca { [1, 0x06] } else { [6, 0xc0] };
        let crl_url = b"https://tdvisor.invalid/test-root.crl";
        let distribution = tlv(0xa0, &tlv(0xa0, &tlv(0x86, crl_url)));
        let mut extensions = Vec::from([
            Extension {
                oid: &[0x55, 0x1d, 35],
                critical: false,
                value: sequence(&[tlv(0x80, &self.key(issuer).id())]),
            },
            Extension {
                oid: &[0x55, 0x1d, 31],
                critical: false,
                value: sequence(&[sequence(&[distribution])]),
            },
            Extension {
                oid: &[0x55, 0x1d, 14],
                critical: false,
                value: tlv(OCTET_STRING, &self.key(role).id()),
            },
            Extension { oid: &[0x55, 0x1d, 15], critical: true, value: tlv(BIT_STRING, &usage) },
            Extension { oid: &[0x55, 0x1d, 19], critical: true, value: sequence(&constraints) },
        ]);
        if role == Role::Pck {
            extensions.push(Extension {
                oid: &[0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x01, 0x0d, 0x01],
                critical: false,
                value: self.sgx_extension.clone(),
            });
        }
        let signed = sequence(&[
            tlv(0xa0, &number(2)),
            unsigned(&self.serial(role)),
            algorithm(),
            self.name(issuer),
            sequence(&[der::time(self.validity.from), der::time(self.validity.until)]),
            self.name(role),
            public_key(&self.key(role).public()),
            tlv(0xa3, &extension_list(&extensions)),
        ]);
        let signature = bits(&self.key(issuer).sign_der(&signed));
        sequence(&[signed, algorithm(), signature])
    }

    /// The revocation list of an issuer (root or PCK certification authority), DER.
    #[must_use]
    pub fn revocation_list(&self, issuer: Role, validity: Validity, revoked: &[Role]) -> Vec<u8> {
        let entries: Vec<Vec<u8>> = revoked
            .iter()
            .map(|role| sequence(&[unsigned(&self.serial(*role)), der::time(validity.from)]))
            .collect();
        let extensions = [
            Extension {
                oid: &[0x55, 0x1d, 35],
                critical: false,
                value: sequence(&[tlv(0x80, &self.key(issuer).id())]),
            },
            Extension { oid: &[0x55, 0x1d, 20], critical: false, value: number(1) },
        ];
        let mut fields = Vec::from([
            number(1),
            algorithm(),
            self.name(issuer),
            der::time(validity.from),
            der::time(validity.until),
        ]);
        if !entries.is_empty() {
            fields.push(sequence(&entries));
        }
        fields.push(tlv(0xa0, &extension_list(&extensions)));
        let signed = sequence(&fields);
        let signature = bits(&self.key(issuer).sign_der(&signed));
        sequence(&[signed, algorithm(), signature])
    }

    /// Signs collateral: r‖s over `body`.
    pub(super) fn sign_collateral(&self, body: &str) -> [u8; 64] {
        self.signer.sign(body.as_bytes())
    }

    /// PCK chain: leaf, certification authority, root.
    #[must_use]
    pub fn pck_chain(&self) -> Vec<Vec<u8>> {
        [Role::Pck, Role::PckCa, Role::Root].map(|role| self.certificate(role)).into()
    }

    /// Chain of JSON collateral: signer, root.
    #[must_use]
    pub fn signing_chain(&self) -> Vec<Vec<u8>> {
        [Role::TcbSigner, Role::Root].map(|role| self.certificate(role)).into()
    }

    /// The root certificate as PEM.
    #[must_use]
    pub fn root_pem(&self) -> String {
        let mut pem = String::new();
        crate::x509::pem::write("CERTIFICATE", &self.certificate(Role::Root), &mut pem);
        pem
    }
}

fn algorithm() -> Vec<u8> {
    sequence(&[tlv(OID, ECDSA_WITH_SHA256)])
}

fn public_key(key: &[u8; 64]) -> Vec<u8> {
    sequence(&[sequence(&[tlv(OID, EC_PUBLIC_KEY), tlv(OID, PRIME256V1)]), bits(&[&[4], &key[..]].concat())])
}

/// A name with common name, organisation and country.
fn name(common: &str) -> Vec<u8> {
    let attribute = |number: u8, text: &str| {
        tlv(SET, &sequence(&[tlv(OID, &[0x55, 0x04, number]), tlv(UTF8_STRING, text.as_bytes())]))
    };
    sequence(&[attribute(3, common), attribute(10, "tdvisor test PKI"), attribute(6, "XX")])
}

fn extension_list(extensions: &[Extension]) -> Vec<u8> {
    let list: Vec<Vec<u8>> = extensions
        .iter()
        .map(|extension| {
            let mut parts = Vec::from([tlv(OID, extension.oid)]);
            if extension.critical {
                parts.push(boolean(true));
            }
            parts.push(tlv(OCTET_STRING, &extension.value));
            sequence(&parts)
        })
        .collect();
    sequence(&list)
}
