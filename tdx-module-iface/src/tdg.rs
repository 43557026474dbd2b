//! Constants of the guest side: masks, alignments and outputs of the TDCALL leaves.
//!
//! Leaf numbers are in [`crate::leaf::TdgLeaf`], the register tables in [`crate::leaf`], and what a guest says
//! through `TDG.VP.VMCALL` in [`crate::ghci`].

/// TDG.VP.VMCALL: RCX on entry selects what the host may see.
pub mod vmcall {
    /// Register bits that must be zero: RAX, RCX and RSP.
    pub const FORBIDDEN_GPRS: u64 = 1 << 0 | 1 << 1 | 1 << 4;
    /// RBP: forbidden too where CONFIG_FLAGS.NO_RBP_MOD is set.
    pub const RBP: u64 = 1 << 5;
    /// Bits 15:0: general-purpose registers by number.
    pub const GPRS: u64 = 0xffff;
    /// Bits 31:16: XMM0 to XMM15.
    pub const XMMS: u64 = 0xffff_0000;

    /// Whether the module accepts this mask.
    pub const fn is_valid(mask: u64, rbp: Rbp) -> bool {
        let forbidden = match rbp {
            Rbp::Exposable => FORBIDDEN_GPRS,
            Rbp::Preserved => FORBIDDEN_GPRS | RBP,
        };
        mask & forbidden == 0 && mask >> 32 == 0
    }

    /// What CONFIG_FLAGS.NO_RBP_MOD says.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    pub enum Rbp {
        /// The guest may expose RBP.
        Exposable,
        /// RBP is never exposed and the host's is preserved.
        Preserved,
    }
}

/// TDG.VP.INFO.
pub mod vp_info {
    /// R10 bit 0: TDG.SYS.RD exists.
    pub const R10_SYS_RD: u64 = 1 << 0;
}

/// TDG.VP.CPUIDVE.SET: RCX.
pub mod cpuidve {
    /// CPUID raises #VE in supervisor mode.
    pub const SUPERVISOR: u64 = 1 << 0;
    /// CPUID raises #VE in user mode.
    pub const USER: u64 = 1 << 1;
    /// Bits that must be zero.
    pub const RESERVED: u64 = !(SUPERVISOR | USER);
}

/// Alignments, in bytes, that guest leaves demand of their addresses.
pub mod align {
    /// TDG.MR.RTMR.EXTEND: the 48 bytes to extend with.
    pub const RTMR_DATA: u64 = 64;
    /// TDG.MR.REPORT: the report.
    pub const REPORT: u64 = 1024;
    /// TDG.MR.REPORT: the report data.
    pub const REPORT_DATA: u64 = 64;
    /// TDG.MR.VERIFYREPORT: the REPORTMACSTRUCT.
    pub const REPORTMACSTRUCT: u64 = 256;
}

/// Number of runtime measurement registers.
pub const NUM_RTMRS: u64 = 4;

/// TD field TD_CTLS.
pub mod td_ctls {
    /// Touching a pending page exits to the host instead of raising #VE.
    pub const PENDING_VE_DISABLE: u64 = 1 << 0;
    /// CPUID topology leaves are enumerated.
    pub const ENUM_TOPOLOGY: u64 = 1 << 1;
    /// CPUID leaf 2 is virtualised.
    pub const VIRT_CPUID2: u64 = 1 << 2;
    /// Fewer instructions raise #VE.
    pub const REDUCE_VE: u64 = 1 << 3;
    /// The field is locked.
    pub const LOCK: u64 = 1 << 63;
}

/// TD field NOTIFY_ENABLES.
pub mod notify_enables {
    /// Suspected zero-stepping raises #VE.
    pub const ZERO_STEP: u64 = 1 << 0;
}

#[cfg(test)]
mod tests {
    use super::vmcall::{Rbp, is_valid};

    #[test]
    fn a_vmcall_mask_may_not_expose_rax_rcx_rsp_nor_a_preserved_rbp() {
        assert!(is_valid(u64::from(crate::ghci::LINUX_REGISTER_MASK), Rbp::Preserved));
        assert!(is_valid(0xffec, Rbp::Exposable));
        assert!(!is_valid(0xffec, Rbp::Preserved));
        for bit in [0, 1, 4, 32, 63] {
            assert!(!is_valid(1 << bit, Rbp::Exposable), "bit {bit}");
        }
    }
}
