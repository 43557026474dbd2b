//! Operand ids: what the low half of an operand-related status points at.

use tdvisor_base::open_enum;

use crate::regs::Reg;

open_enum! {
    /// The operand or implicit object that a status names.
    ///
    /// General-purpose registers have their architectural number, 64 to 72 are fields of TD_PARAMS, 95 to 99
    /// elements of a list, and from 128 on stand objects that no operand names explicitly.
    pub enum Operand : u32 {
        /// `RAX`.
        RAX = 0x0, "RAX";
        /// `RCX`.
        RCX = 0x1, "RCX";
        /// `RDX`.
        RDX = 0x2, "RDX";
        /// `RBX`.
        RBX = 0x3, "RBX";
        /// `RBP`.
        RBP = 0x5, "RBP";
        /// `RSI`.
        RSI = 0x6, "RSI";
        /// `RDI`.
        RDI = 0x7, "RDI";
        /// `R8`.
        R8 = 0x8, "R8";
        /// `R9`.
        R9 = 0x9, "R9";
        /// `R10`.
        R10 = 0xa, "R10";
        /// `R11`.
        R11 = 0xb, "R11";
        /// `R12`.
        R12 = 0xc, "R12";
        /// `R13`.
        R13 = 0xd, "R13";
        /// `R14`.
        R14 = 0xe, "R14";
        /// `R15`.
        R15 = 0xf, "R15";
        /// `ATTRIBUTES`.
        ATTRIBUTES = 0x40, "ATTRIBUTES";
        /// `XFAM`.
        XFAM = 0x41, "XFAM";
        /// `EXEC_CONTROLS`.
        EXEC_CONTROLS = 0x42, "EXEC_CONTROLS";
        /// `EPTP_CONTROLS`.
        EPTP_CONTROLS = 0x43, "EPTP_CONTROLS";
        /// `MAX_VCPUS`.
        MAX_VCPUS = 0x44, "MAX_VCPUS";
        /// `CPUID_CONFIG`.
        CPUID_CONFIG = 0x45, "CPUID_CONFIG";
        /// `TSC_FREQUENCY`.
        TSC_FREQUENCY = 0x46, "TSC_FREQUENCY";
        /// `NUM_L2_VMS`.
        NUM_L2_VMS = 0x47, "NUM_L2_VMS";
        /// `IA32_ARCH_CAPABILITIES_CONFIG`.
        IA32_ARCH_CAPABILITIES_CONFIG = 0x48, "IA32_ARCH_CAPABILITIES_CONFIG";
        /// `PAGE`.
        PAGE = 0x5f, "PAGE";
        /// `TDMR_INFO_PA`.
        TDMR_INFO_PA = 0x60, "TDMR_INFO_PA";
        /// `GPA_LIST_ENTRY`.
        GPA_LIST_ENTRY = 0x61, "GPA_LIST_ENTRY";
        /// `MIG_BUFF_LIST_ENTRY`.
        MIG_BUFF_LIST_ENTRY = 0x62, "MIG_BUFF_LIST_ENTRY";
        /// `NEW_PAGE_LIST_ENTRY`.
        NEW_PAGE_LIST_ENTRY = 0x63, "NEW_PAGE_LIST_ENTRY";
        /// `TDR`.
        TDR = 0x80, "TDR";
        /// `TDCX`.
        TDCX = 0x81, "TDCX";
        /// `TDVPR`.
        TDVPR = 0x82, "TDVPR";
        /// `REG_PAGE`.
        REG_PAGE = 0x84, "REG_PAGE";
        /// `TDCS`.
        TDCS = 0x90, "TDCS";
        /// `TDVPS`.
        TDVPS = 0x91, "TDVPS";
        /// `SEPT_TREE`.
        SEPT_TREE = 0x92, "SEPT_TREE";
        /// `SEPT_ENTRY`.
        SEPT_ENTRY = 0x93, "SEPT_ENTRY";
        /// `RTMR`.
        RTMR = 0xa8, "RTMR";
        /// `TD_EPOCH`.
        TD_EPOCH = 0xa9, "TD_EPOCH";
        /// `L2_VAPIC_GPA`.
        L2_VAPIC_GPA = 0xaa, "L2_VAPIC_GPA";
        /// `MIGSC`.
        MIGSC = 0xab, "MIGSC";
        /// `OP_STATE`.
        OP_STATE = 0xac, "OP_STATE";
        /// `MIG`.
        MIG = 0xad, "MIG";
        /// `SERVTD_BINDINGS`.
        SERVTD_BINDINGS = 0xae, "SERVTD_BINDINGS";
        /// `METADATA_FIELD`.
        METADATA_FIELD = 0xb0, "METADATA_FIELD";
        /// `SYS`.
        SYS = 0xb8, "SYS";
        /// `TDMR`.
        TDMR = 0xb9, "TDMR";
        /// `KOT`.
        KOT = 0xba, "KOT";
        /// `KET`.
        KET = 0xbb, "KET";
        /// `WBCACHE`.
        WBCACHE = 0xbc, "WBCACHE";
    }
}

impl Operand {
    /// The operand id of a register.
    pub const fn from_reg(reg: Reg) -> Self {
        Self(reg.index() as u32)
    }

    /// The register that this operand is; `None` for fields, list elements and implicit objects.
    pub const fn reg(self) -> Option<Reg> {
        if self.0 < 16 { Reg::from_index((self.0 & 0xf) as u8) } else { None }
    }
}
