//! What an enclave on this machine can do with a TDREPORT, and what only an emulator can see of a TD's measurements.

use tdvisor_base::Hpa;
use tdx_module_iface::lifecycle::LifecycleState;
use tdx_module_iface::tdg::NUM_RTMRS;
use tdx_module_iface::tdmr::pages::TDCX_MIN;

use tdx_module_iface::report::ReportMac;

use super::Machine;
use crate::fields::layout::tdcs;
use crate::td::Tdr;

/// Bytes of a measurement register.
pub const RTMR_BYTES: usize = 48;

/// Bytes of REPORTMACSTRUCT, the part of a TDREPORT that its MAC covers.
pub const REPORT_MAC_STRUCT_BYTES: usize = size_of::<ReportMac>();

impl Machine {
    /// ENCLU\[EVERIFYREPORT2\], as a quoting enclave executes it: whether a TDREPORT's first 256 bytes were
    /// made on this machine and not changed since.
    pub fn everifyreport2(&self, report_mac: &[u8; REPORT_MAC_STRUCT_BYTES]) -> bool {
        crate::guest_leaf::verify::check(self, &zerocopy::transmute!(*report_mac)).is_ok()
    }

    /// RTMR0 to RTMR3 of the TD whose root page is at `tdr`, from its TDCS: what a TDREPORT of this moment would carry.
    /// `None` if no TD with its key lives there. No leaf gives them to a host, unless the TD is in debug mode.
    pub fn rtmrs(&self, tdr: Hpa) -> Option<[[u8; RTMR_BYTES]; NUM_RTMRS as usize]> {
        let tdr = Tdr::at(self.memory(), tdr)?;
        if tdr.lifecycle() != LifecycleState::KEYS_CONFIGURED || tdr.num_tdcx() < TDCX_MIN {
            return None;
        }
        let mut registers = [[0; RTMR_BYTES]; NUM_RTMRS as usize];
        for (index, register) in (0..).zip(&mut registers) {
            tdr.tdcs().load_bytes(tdcs::RTMR + index * RTMR_BYTES as u32, register);
        }
        Some(registers)
    }
}
