//! What an enclave on this machine can do with a TDREPORT.

use super::Machine;

/// Bytes of REPORTMACSTRUCT, the part of a TDREPORT that its MAC covers.
pub const REPORT_MAC_STRUCT_BYTES: usize = 256;

impl Machine {
    /// ENCLU\[EVERIFYREPORT2\], as a quoting enclave executes it: whether a TDREPORT's first 256 bytes were
    /// made on this machine and not changed since.
    pub fn everifyreport2(&self, report_mac: &[u8; REPORT_MAC_STRUCT_BYTES]) -> bool {
        crate::guest_leaf::verify::check(self, report_mac).is_ok()
    }
}
