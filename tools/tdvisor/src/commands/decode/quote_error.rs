//! Error codes of Intel's quote libraries (`quote3_error_t`): what a quote-generation service and a verifier say.
//!
//! Numbers and names: `sgx_ql_lib_common.h` of Intel's data-center attestation primitives. The sentences are ours.

/// What comes before the numbers of this interface.
const PREFIX: u64 = 0xe000;

/// A code that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuoteError {
    /// The code.
    pub value: u64,
    /// The error's name without `SGX_QL_`.
    name: &'static str,
    /// What the error means.
    pub cause: &'static str,
}

impl QuoteError {
    /// The error with this code.
    pub fn of(value: u64) -> Option<Self> {
        let number = value.checked_sub(PREFIX)?;
        let (_, name, cause) = TABLE.iter().find(|(known, ..)| u64::from(*known) == number)?;
        Some(Self { value, name, cause })
    }

    /// The error of this name, with or without `SGX_QL_`.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.to_uppercase();
        let short = name.strip_prefix("SGX_QL_")?;
        let (number, name, cause) = TABLE.iter().find(|(_, known, _)| *known == short)?;
        Some(Self { value: PREFIX | u64::from(*number), name, cause })
    }

    /// The name as Intel's header has it.
    pub fn name(&self) -> String {
        format!("SGX_QL_{}", self.name)
    }
}

/// Number, name, and what it means.
const TABLE: [(u8, &str, &str); 85] = [
    (0x01, "ERROR_UNEXPECTED", "an error that the library does not expect"),
    (0x02, "ERROR_INVALID_PARAMETER", "a parameter is wrong"),
    (0x03, "ERROR_OUT_OF_MEMORY", "not enough memory"),
    (0x04, "ERROR_ECDSA_ID_MISMATCH", "the stored attestation key has another id than was expected"),
    (0x05, "PATHNAME_BUFFER_OVERFLOW_ERROR", "the path of the stored attestation key is too long"),
    (0x06, "FILE_ACCESS_ERROR", "the stored attestation key cannot be read or written"),
    (0x07, "ERROR_STORED_KEY", "the stored attestation key is not valid"),
    (0x08, "ERROR_PUB_KEY_ID_MISMATCH", "the stored attestation key is not the one asked for"),
    (0x09, "ERROR_INVALID_PCE_SIG_SCHEME", "the PCE signs by another scheme"),
    (0x0a, "ATT_KEY_BLOB_ERROR", "the stored attestation key is damaged"),
    (0x0b, "UNSUPPORTED_ATT_KEY_ID", "the attestation key's id is not supported"),
    (0x0c, "UNSUPPORTED_LOADING_POLICY", "the way of loading the enclave is not supported"),
    (0x0d, "INTERFACE_UNAVAILABLE", "the quoting enclave's interface is not there"),
    (0x0e, "PLATFORM_LIB_UNAVAILABLE", "no provider library for the platform's certificates is installed"),
    (0x0f, "ATT_KEY_NOT_INITIALIZED", "there is no certified attestation key yet"),
    (0x10, "ATT_KEY_CERT_DATA_INVALID", "the platform's certification data is not valid"),
    (0x11, "NO_PLATFORM_CERT_DATA", "the provider library has no certificate for this platform"),
    (0x12, "OUT_OF_EPC", "not enough protected memory to load an enclave"),
    (0x13, "ERROR_REPORT", "a report could not be checked"),
    (0x14, "ENCLAVE_LOST", "the enclave was lost, by a change of power state"),
    (0x15, "INVALID_REPORT", "the report is not one of this machine"),
    (0x16, "ENCLAVE_LOAD_ERROR", "an enclave cannot be loaded"),
    (0x17, "UNABLE_TO_GENERATE_QE_REPORT", "the quoting enclave cannot report on itself"),
    (0x18, "KEY_CERTIFCATION_ERROR", "the provider library named a TCB that the platform does not have"),
    (0x19, "NETWORK_ERROR", "the network failed while certificates were fetched"),
    (0x1a, "MESSAGE_ERROR", "the answer to a request for certificates makes no sense"),
    (0x1b, "NO_QUOTE_COLLATERAL_DATA", "there is no collateral for this platform"),
    (0x1c, "QUOTE_CERTIFICATION_DATA_UNSUPPORTED", "the quote's kind of certification data is not supported"),
    (0x1d, "QUOTE_FORMAT_UNSUPPORTED", "the quote's format is not supported, or it is none"),
    (0x1e, "UNABLE_TO_GENERATE_REPORT", "no report could be made"),
    (0x1f, "QE_REPORT_INVALID_SIGNATURE", "the signature over the quoting enclave's report is wrong"),
    (0x20, "QE_REPORT_UNSUPPORTED_FORMAT", "the quoting enclave's report has an unknown format"),
    (0x21, "PCK_CERT_UNSUPPORTED_FORMAT", "the platform's certificate has an unknown format"),
    (0x22, "PCK_CERT_CHAIN_ERROR", "the chain of the platform's certificate does not hold"),
    (0x23, "TCBINFO_UNSUPPORTED_FORMAT", "the TCB info has an unknown format"),
    (0x24, "TCBINFO_MISMATCH", "the TCB info is of another platform"),
    (0x25, "QEIDENTITY_UNSUPPORTED_FORMAT", "the QE identity has an unknown format"),
    (0x26, "QEIDENTITY_MISMATCH", "the quoting enclave is not the one that the QE identity describes"),
    (0x27, "TCB_OUT_OF_DATE", "the platform's TCB is out of date"),
    (
        0x28,
        "TCB_OUT_OF_DATE_CONFIGURATION_NEEDED",
        "the platform's TCB is out of date and needs configuration",
    ),
    (0x29, "SGX_ENCLAVE_IDENTITY_OUT_OF_DATE", "the enclave's identity is out of date"),
    (0x2a, "SGX_ENCLAVE_REPORT_ISVSVN_OUT_OF_DATE", "the enclave's security version is too low"),
    (0x2b, "QE_IDENTITY_OUT_OF_DATE", "the QE identity is out of date"),
    (0x2c, "SGX_TCB_INFO_EXPIRED", "the TCB info has expired"),
    (0x2d, "SGX_PCK_CERT_CHAIN_EXPIRED", "a certificate of the platform's chain has expired"),
    (0x2e, "SGX_CRL_EXPIRED", "a revocation list has expired"),
    (0x2f, "SGX_SIGNING_CERT_CHAIN_EXPIRED", "a certificate of the collateral's signer has expired"),
    (0x30, "SGX_ENCLAVE_IDENTITY_EXPIRED", "the enclave identity has expired"),
    (0x31, "PCK_REVOKED", "the platform's certificate is revoked"),
    (0x32, "TCB_REVOKED", "the platform's TCB level is revoked"),
    (0x33, "TCB_CONFIGURATION_NEEDED", "the platform needs configuration"),
    (0x34, "UNABLE_TO_GET_COLLATERAL", "the collateral cannot be had"),
    (0x35, "ERROR_INVALID_PRIVILEGE", "the caller may not do this"),
    (0x37, "NO_QVE_IDENTITY_DATA", "there is no identity of the verification enclave"),
    (0x38, "CRL_UNSUPPORTED_FORMAT", "a revocation list has an unknown format"),
    (0x39, "QEIDENTITY_CHAIN_ERROR", "the chain of the QE identity's signer does not hold"),
    (0x3a, "TCBINFO_CHAIN_ERROR", "the chain of the TCB info's signer does not hold"),
    (0x3b, "ERROR_QVL_QVE_MISMATCH", "library and enclave of the verifier are of different versions"),
    (0x3c, "TCB_SW_HARDENING_NEEDED", "the TCB is up to date, and software has to be hardened"),
    (
        0x3d,
        "TCB_CONFIGURATION_AND_SW_HARDENING_NEEDED",
        "the TCB is up to date, needs configuration, and software has to be hardened",
    ),
    (0x3e, "UNSUPPORTED_MODE", "this mode is not supported"),
    (0x3f, "NO_DEVICE", "there is no SGX or TDX device"),
    (0x40, "SERVICE_UNAVAILABLE", "the quoting service does not answer"),
    (0x41, "NETWORK_FAILURE", "the network failed"),
    (0x42, "SERVICE_TIMEOUT", "the quoting service took too long"),
    (0x43, "ERROR_BUSY", "the service is busy"),
    (0x44, "UNKNOWN_MESSAGE_RESPONSE", "the caching service gave an unexpected answer"),
    (0x45, "PERSISTENT_STORAGE_ERROR", "fetched data could not be stored"),
    (0x46, "ERROR_MESSAGE_PARSING_ERROR", "a message could not be read"),
    (0x47, "PLATFORM_UNKNOWN", "the caching service does not know this platform: it was not registered"),
    (0x48, "UNKNOWN_API_VERSION", "the version of the certification service's interface is unknown"),
    (0x49, "CERTS_UNAVAILABLE", "there are no certificates for this platform"),
    (0x50, "QVEIDENTITY_MISMATCH", "the verification enclave is not the one that Intel signed"),
    (0x51, "QVE_OUT_OF_DATE", "the verification enclave is out of date"),
    (0x52, "PSW_NOT_AVAILABLE", "the SGX platform software cannot be loaded"),
    (0x53, "COLLATERAL_VERSION_NOT_SUPPORTED", "the collateral's version is not supported"),
    (0x60, "TDX_MODULE_MISMATCH", "the TDX module is not one that the collateral describes"),
    (0x61, "QEIDENTITY_NOT_FOUND", "the QE identity was not found"),
    (0x62, "TCBINFO_NOT_FOUND", "the TCB info was not found"),
    (0x63, "INTERNAL_SERVER_ERROR", "the certification service failed"),
    (0x64, "SUPPLEMENTAL_DATA_VERSION_NOT_SUPPORTED", "the supplemental data's version is not supported"),
    (0x65, "ROOT_CA_UNTRUSTED", "the certificate of the connection to the service is not trusted"),
    (0x66, "TCB_NOT_SUPPORTED", "the TCB info has no level for this platform's TCB"),
    (0x67, "CONFIG_INVALID_JSON", "the provider library's configuration is not valid JSON"),
    (0x68, "RESULT_INVALID_SIGNATURE", "the signature over the verification result is wrong"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_by_number_and_by_name() {
        for (number, name, cause) in TABLE {
            let by_number = QuoteError::of(0xe000 + u64::from(number)).unwrap();
            assert_eq!(Some(by_number), QuoteError::named(&format!("sgx_ql_{name}")));
            assert_eq!(by_number.cause, cause);
        }
        assert!(TABLE.is_sorted_by(|one, next| one.0 < next.0), "each number once");
        assert_eq!(QuoteError::of(0xe066).unwrap().name(), "SGX_QL_TCB_NOT_SUPPORTED");
        assert_eq!(QuoteError::of(0xe036), None);
        assert_eq!(QuoteError::of(0xe166), None);
    }
}
