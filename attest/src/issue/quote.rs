//! The test quoting enclave: quotes of every version, body, certification type and QE-auth length.

use alloc::vec::Vec;

use sha2::{Digest, Sha256};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromZeros, IntoBytes};

use super::collateral::QE_MR_SIGNER;
use super::pki::{Key, TestPki};
use super::platform::PlatformSpec;
use super::{IssueError, TestPlatform};
use crate::quote::{
    BodyType, CertificationType, EnclaveReport, Header, TdReport10, TdReport15, TdReport15Ex, TeeType,
};

/// What a quote speaks for, owned.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::large_enum_variant, reason = "one exists at a time, on the way into a quote")]
pub enum QuoteBody {
    /// An SGX enclave.
    Sgx(EnclaveReport),
    /// A TD of TDX 1.0.
    Td10(TdReport10),
    /// A TD of TDX 1.5.
    Td15(TdReport15),
    /// A TD of TDX 1.5 with the extended report.
    Td15Ex(TdReport15Ex),
}

impl QuoteBody {
    /// The body type of version 5.
    #[must_use]
    pub const fn body_type(&self) -> BodyType {
        match self {
            Self::Sgx(_) => BodyType::SGX,
            Self::Td10(_) => BodyType::TD10,
            Self::Td15(_) => BodyType::TD15,
            Self::Td15Ex(_) => BodyType::TD15_EX,
        }
    }

    /// The TEE that this body is of.
    #[must_use]
    pub const fn tee(&self) -> TeeType {
        match self {
            Self::Sgx(_) => TeeType::SGX,
            _ => TeeType::TDX,
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Sgx(body) => body.as_bytes(),
            Self::Td10(body) => body.as_bytes(),
            Self::Td15(body) => body.as_bytes(),
            Self::Td15Ex(body) => body.as_bytes(),
        }
    }
}

/// How a quote is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuoteSpec {
    /// 3, 4 or 5.
    pub version: u16,
    /// QE authentication data.
    pub qe_auth: Vec<u8>,
    /// Type of the certification data, 1 to 5 (7 makes a quote that no verifier takes).
    pub certification: CertificationType,
    /// ISVSVN of the quoting enclave.
    pub qe_isv_svn: u16,
    /// Zero bytes after the signature data.
    pub padding: usize,
}

impl Default for QuoteSpec {
    fn default() -> Self {
        Self {
            version: 4,
            qe_auth: (0..32).collect(),
            certification: CertificationType::PCK_CHAIN,
            qe_isv_svn: 4,
            padding: 0,
        }
    }
}

impl TestPlatform {
    /// Issues a quote for `body`.
    ///
    /// # Errors
    /// A version that cannot carry the body, or QE authentication data longer than its length field.
    pub fn quote(&self, body: &QuoteBody, spec: &QuoteSpec) -> Result<Vec<u8>, IssueError> {
        let fits = match (spec.version, body.body_type()) {
            (3, BodyType::SGX) | (4, BodyType::SGX | BodyType::TD10) | (5, _) => true,
            (3..=5, _) => false,
            (version, _) => return Err(IssueError::Version(version)),
        };
        if !fits {
            return Err(IssueError::Body { version: spec.version, body: body.body_type() });
        }
        let auth_len = u16::try_from(spec.qe_auth.len()).map_err(|_| IssueError::QeAuthTooLong)?;

        let mut user_data = [0; 20];
        for (place, byte) in user_data.iter_mut().zip(*b"tdvisor TEST QE.") {
            *place = byte;
        }
        let mut quote = Header::new(spec.version, body.tee(), user_data).as_bytes().to_vec();
        if spec.version == 5 {
            quote.extend_from_slice(&body.body_type().0.to_le_bytes());
            quote.extend_from_slice(&crate::length32(body.bytes().len()).to_le_bytes());
        }
        quote.extend_from_slice(body.bytes());

        let attestation = Key::derive(&self.seed, "attestation");
        let report = qe_report(&attestation, body.tee(), spec);
        let mut qe = report.as_bytes().to_vec();
        qe.extend_from_slice(&self.pki.pck.sign(report.as_bytes()));
        qe.extend_from_slice(&auth_len.to_le_bytes());
        qe.extend_from_slice(&spec.qe_auth);
        push_certification(&mut qe, spec.certification, &certification(&self.pki, &self.spec, spec));

        let mut signature = attestation.sign(&quote).to_vec();
        signature.extend_from_slice(&attestation.public());
        if spec.version == 3 {
            signature.extend_from_slice(&qe);
        } else {
            push_certification(&mut signature, CertificationType::QE_REPORT, &qe);
        }
        quote.extend_from_slice(&crate::length32(signature.len()).to_le_bytes());
        quote.extend_from_slice(&signature);
        quote.resize(quote.len().saturating_add(spec.padding), 0);
        Ok(quote)
    }
}

fn push_certification(out: &mut Vec<u8>, kind: CertificationType, data: &[u8]) {
    out.extend_from_slice(&kind.0.to_le_bytes());
    out.extend_from_slice(&crate::length32(data.len()).to_le_bytes());
    out.extend_from_slice(data);
}

/// The QE's report: it binds the attestation key.
fn qe_report(attestation: &Key, tee: TeeType, spec: &QuoteSpec) -> EnclaveReport {
    let mut report = EnclaveReport::new_zeroed();
    // INIT and MODE64BIT, provisioning key access: what QE identities expect.
    report.attributes[0] = 0x15;
    report.misc_select = U32::ZERO;
    report.mr_enclave = Sha256::digest(b"tdvisor TEST quoting enclave").into();
    report.mr_signer = QE_MR_SIGNER;
    report.isv_prod_id = U16::new(if tee == TeeType::TDX { 2 } else { 1 });
    report.isv_svn = U16::new(spec.qe_isv_svn);
    let binding = Sha256::new().chain_update(attestation.public()).chain_update(&spec.qe_auth).finalize();
    for (place, byte) in report.report_data.iter_mut().zip(binding) {
        *place = byte;
    }
    report
}

/// Certification data of a type.
fn certification(pki: &TestPki, platform: &PlatformSpec, spec: &QuoteSpec) -> Vec<u8> {
    let pem = |ders: &[Vec<u8>]| {
        let mut text = alloc::string::String::new();
        for der in ders {
            crate::x509::pem::write("CERTIFICATE", der, &mut text);
        }
        // Quoting enclaves close the text as C does.
        text.push('\0');
        text.into_bytes()
    };
    let identified_by = |ppid: &[u8]| {
        let mut data = ppid.to_vec();
        data.extend_from_slice(&platform.sgx_components);
        data.extend_from_slice(&platform.pce_svn.to_le_bytes());
        data.extend_from_slice(&platform.pce_id);
        data
    };
    match spec.certification {
        CertificationType::PPID_CLEARTEXT => identified_by(&platform.ppid),
        // Nothing decrypts these: test bytes of the right size.
        CertificationType::PPID_RSA2048 => identified_by(&[0xe2; 256]),
        CertificationType::PPID_RSA3072 => identified_by(&[0xe3; 384]),
        CertificationType::PCK_CERTIFICATE => pem(pki.pck_chain().get(..1).unwrap_or_default()),
        CertificationType::PCK_CHAIN => pem(&pki.pck_chain()),
        _ => Vec::from(*b"platform manifest"),
    }
}
