//! The test platform: what its PCK certificate says about it.

use alloc::vec::Vec;

use super::der::{ENUMERATED, OCTET_STRING, OID, boolean, number, sequence, tlv};
use super::pki::PckCa;

/// Arc of Intel's SGX extension.
const ARC: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x01, 0x0d, 0x01];

/// A test platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformSpec {
    /// Platform family.
    pub fmspc: [u8; 6],
    /// Provisioning certification enclave.
    pub pce_id: [u8; 2],
    /// Platform provisioning identifier.
    pub ppid: [u8; 16],
    /// Security versions of the SGX components, and CPUSVN.
    pub sgx_components: [u8; 16],
    /// Security version of the provisioning certification enclave.
    pub pce_svn: u16,
    /// Who issues the PCK certificate.
    pub ca: PckCa,
}

impl Default for PlatformSpec {
    fn default() -> Self {
        Self {
            // No Intel platform has this family.
            fmspc: *b"TDVTST",
            pce_id: [0, 0],
            ppid: *b"tdvisor-test-001",
            sgx_components: [2, 2, 2, 2, 3, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0],
            pce_svn: 11,
            ca: PckCa::Platform,
        }
    }
}

impl PlatformSpec {
    /// Contents of the SGX extension.
    pub(super) fn extension(&self) -> Vec<u8> {
        let entry = |path: &[u8], value: Vec<u8>| {
            let oid = [ARC, path].concat();
            sequence(&[tlv(OID, &oid), value])
        };
        let octets = |bytes: &[u8]| tlv(OCTET_STRING, bytes);
        let mut tcb: Vec<Vec<u8>> = (1u8..)
            .zip(self.sgx_components)
            .map(|(index, svn)| entry(&[2, index], number(u32::from(svn))))
            .collect();
        tcb.push(entry(&[2, 17], number(u32::from(self.pce_svn))));
        tcb.push(entry(&[2, 18], octets(&self.sgx_components)));
        let mut entries = Vec::from([
            entry(&[1], octets(&self.ppid)),
            entry(&[2], sequence(&tcb)),
            entry(&[3], octets(&self.pce_id)),
            entry(&[4], octets(&self.fmspc)),
            entry(&[5], tlv(ENUMERATED, &[1])),
        ]);
        if self.ca == PckCa::Platform {
            entries.push(entry(&[6], octets(&[0x5a; 16])));
            entries.push(entry(
                &[7],
                sequence(&[
                    entry(&[7, 1], boolean(false)),
                    entry(&[7, 2], boolean(false)),
                    entry(&[7, 3], boolean(false)),
                ]),
            ));
        }
        sequence(&entries)
    }
}
