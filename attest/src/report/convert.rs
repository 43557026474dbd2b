//! From a report to the body of a quote: what a quoting enclave copies.

use zerocopy::little_endian::U64;

use super::TdReport;
use crate::quote::{TdReport10, TdReport15, TdReport15Ex};

/// What a quoting enclave copies from a report.
pub trait ToQuoteBody {
    /// The body of TDX 1.0.
    #[must_use]
    fn to_td10(&self) -> TdReport10;

    /// The body of TDX 1.5.
    #[must_use]
    fn to_td15(&self) -> TdReport15;

    /// The extended body of TDX 1.5. A report says nothing about migrations and devices: those are zero.
    #[must_use]
    fn to_td15_ex(&self) -> TdReport15Ex;
}

impl ToQuoteBody for TdReport {
    fn to_td10(&self) -> TdReport10 {
        let (tcb, td) = (&self.tee_tcb_info, &self.td_info);
        TdReport10 {
            tee_tcb_svn: tcb.tee_tcb_svn,
            mr_seam: tcb.mr_seam,
            mr_signer_seam: tcb.mr_signer_seam,
            seam_attributes: tcb.attributes,
            td_attributes: td.attributes,
            xfam: td.xfam,
            mr_td: td.mr_td,
            mr_config_id: td.mr_config_id,
            mr_owner: td.mr_owner,
            mr_owner_config: td.mr_owner_config,
            rtmr: td.rtmr,
            report_data: self.mac.report_data,
        }
    }

    fn to_td15(&self) -> TdReport15 {
        TdReport15 {
            base: self.to_td10(),
            tee_tcb_svn2: self.tee_tcb_info.tee_tcb_svn2,
            mr_service_td: self.td_info.servtd_hash,
        }
    }

    fn to_td15_ex(&self) -> TdReport15Ex {
        TdReport15Ex {
            base: self.to_td15(),
            vm_id: 0,
            td_id: [0; 32],
            dev_info: [0; 48],
            init_servtd_hash: self.td_info.servtd_hash,
            init_servtd_attributes: U64::ZERO,
            init_cpu_svn: self.mac.cpu_svn,
            init_tee_tcb_svn: self.tee_tcb_info.tee_tcb_svn,
            init_tee_fmspc: [0; 12],
            cur_servtd_hash: self.td_info.servtd_hash,
            cur_servtd_attributes: U64::ZERO,
        }
    }
}
