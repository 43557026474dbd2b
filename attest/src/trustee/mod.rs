//! Verified evidence in the claims of Trustee, the attestation service of Confidential Containers.
//!
//! Names and forms are those that Trustee's verifiers give out, so that policies written for it read the same here.
//! [`intel_dcap`] is what its quote verification returns, [`tdx`] what its TDX verifier makes of a quote and its event log.

pub mod intel_dcap;
pub mod tdx;
