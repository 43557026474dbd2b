//! The leaves of TDCALL, as numbers.

use super::LeafWord;
use crate::open_enum::open_enum;

open_enum! {
    /// A guest-side leaf number (RAX bits 15:0 of a TDCALL).
    pub enum TdgLeaf : u16 {
        /// `TDG.VP.VMCALL`.
        VP_VMCALL = 0, "TDG.VP.VMCALL";
        /// `TDG.VP.INFO`.
        VP_INFO = 1, "TDG.VP.INFO";
        /// `TDG.MR.RTMR.EXTEND`.
        MR_RTMR_EXTEND = 2, "TDG.MR.RTMR.EXTEND";
        /// `TDG.VP.VEINFO.GET`.
        VP_VEINFO_GET = 3, "TDG.VP.VEINFO.GET";
        /// `TDG.MR.REPORT`.
        MR_REPORT = 4, "TDG.MR.REPORT";
        /// `TDG.VP.CPUIDVE.SET`.
        VP_CPUIDVE_SET = 5, "TDG.VP.CPUIDVE.SET";
        /// `TDG.MEM.PAGE.ACCEPT`.
        MEM_PAGE_ACCEPT = 6, "TDG.MEM.PAGE.ACCEPT";
        /// `TDG.VM.RD`.
        VM_RD = 7, "TDG.VM.RD";
        /// `TDG.VM.WR`.
        VM_WR = 8, "TDG.VM.WR";
        /// `TDG.VP.RD`.
        VP_RD = 9, "TDG.VP.RD";
        /// `TDG.VP.WR`.
        VP_WR = 10, "TDG.VP.WR";
        /// `TDG.SYS.RD`.
        SYS_RD = 11, "TDG.SYS.RD";
        /// `TDG.SYS.RDALL`.
        SYS_RDALL = 12, "TDG.SYS.RDALL";
        /// `TDG.SERVTD.RD`.
        SERVTD_RD = 18, "TDG.SERVTD.RD";
        /// `TDG.SERVTD.WR`.
        SERVTD_WR = 20, "TDG.SERVTD.WR";
        /// `TDG.MR.VERIFYREPORT`.
        MR_VERIFYREPORT = 22, "TDG.MR.VERIFYREPORT";
        /// `TDG.MEM.PAGE.ATTR.RD`.
        MEM_PAGE_ATTR_RD = 23, "TDG.MEM.PAGE.ATTR.RD";
        /// `TDG.MEM.PAGE.ATTR.WR`.
        MEM_PAGE_ATTR_WR = 24, "TDG.MEM.PAGE.ATTR.WR";
        /// `TDG.VP.ENTER`.
        VP_ENTER = 25, "TDG.VP.ENTER";
        /// `TDG.VP.INVEPT`.
        VP_INVEPT = 26, "TDG.VP.INVEPT";
        /// `TDG.VP.INVVPID`.
        VP_INVVPID = 27, "TDG.VP.INVVPID";
        /// `TDG.SERVTD.REBIND.APPROVE`.
        SERVTD_REBIND_APPROVE = 33, "TDG.SERVTD.REBIND.APPROVE";
    }
}

impl TdgLeaf {
    /// RAX for this leaf at version 0.
    pub const fn word(self) -> LeafWord {
        LeafWord::new(self.0, 0)
    }

    /// RAX for this leaf at another version.
    pub const fn word_version(self, version: u8) -> LeafWord {
        LeafWord::new(self.0, version)
    }
}
