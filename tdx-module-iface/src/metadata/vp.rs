//! The fields of one VCPU (context 2, except the VMCS: `TDH.VP.RD`/`WR`, `TDG.VP.RD`/`WR`).
//!
//! Offsets count from the first TDVPS page.

use super::field::{
    ALL as A, NONE as N,
    Place::{Nowhere, Tdvps},
    Transform::{Checked, Computed, PageAddress, Stored},
    fields, row,
};
use crate::release::Release::V1_5_05;

fields! {
    VAPIC: row(0x0120_0003_0000_0000, 128, 1, Tdvps(0x2000), [N, N, A, N, N, N, N, N], Stored);
    EXIT_REASON: row(0x0220_0002_0000_0000, 1, 1, Tdvps(0x0000), [N, N, A, N, N, N, N, N], Stored);
    VALID: row(0x0220_0002_0000_0001, 1, 1, Tdvps(0x0004), [N, N, A, N, N, N, N, N], Stored);
    EXIT_QUALIFICATION: row(0x0220_0003_0000_0002, 1, 1, Tdvps(0x0008), [N, N, A, N, N, N, N, N], Stored);
    GLA: row(0x0220_0003_0000_0003, 1, 1, Tdvps(0x0010), [N, N, A, N, N, N, N, N], Stored);
    GPA: row(0x0220_0003_0000_0004, 1, 1, Tdvps(0x0018), [N, N, A, N, N, N, N, N], Stored);
    EPTP_INDEX: row(0x0220_0001_0000_0005, 1, 1, Tdvps(0x0020), [N, N, A, N, N, N, N, N], Stored);
    INSTRUCTION_LENGTH: row(0x8220_0002_0000_0010, 1, 1, Tdvps(0x0024), [N, N, A, N, N, N, N, N], Stored);
    INSTRUCTION_INFORMATION: row(0x8220_0002_0000_0011, 1, 1, Tdvps(0x0028), [N, N, A, N, N, N, N, N], Stored);
    RAX: row(0x1020_0003_0000_0000, 1, 1, Tdvps(0x0980), [N, N, A, A, N, N, N, N], Stored);
    RCX: row(0x1020_0003_0000_0001, 1, 1, Tdvps(0x0988), [N, N, A, A, N, N, N, N], Stored);
    RDX: row(0x1020_0003_0000_0002, 1, 1, Tdvps(0x0990), [N, N, A, A, N, N, N, N], Stored);
    RBX: row(0x1020_0003_0000_0003, 1, 1, Tdvps(0x0998), [N, N, A, A, N, N, N, N], Stored);
    RSP_PLACEHOLDER: row(0x1020_0003_0000_0004, 1, 1, Tdvps(0x09a0), [N, N, N, N, N, N, N, N], Stored);
    RBP: row(0x1020_0003_0000_0005, 1, 1, Tdvps(0x09a8), [N, N, A, A, N, N, N, N], Stored);
    RSI: row(0x1020_0003_0000_0006, 1, 1, Tdvps(0x09b0), [N, N, A, A, N, N, N, N], Stored);
    RDI: row(0x1020_0003_0000_0007, 1, 1, Tdvps(0x09b8), [N, N, A, A, N, N, N, N], Stored);
    R8: row(0x1020_0003_0000_0008, 1, 1, Tdvps(0x09c0), [N, N, A, A, N, N, N, N], Stored);
    R9: row(0x1020_0003_0000_0009, 1, 1, Tdvps(0x09c8), [N, N, A, A, N, N, N, N], Stored);
    R10: row(0x1020_0003_0000_000a, 1, 1, Tdvps(0x09d0), [N, N, A, A, N, N, N, N], Stored);
    R11: row(0x1020_0003_0000_000b, 1, 1, Tdvps(0x09d8), [N, N, A, A, N, N, N, N], Stored);
    R12: row(0x1020_0003_0000_000c, 1, 1, Tdvps(0x09e0), [N, N, A, A, N, N, N, N], Stored);
    R13: row(0x1020_0003_0000_000d, 1, 1, Tdvps(0x09e8), [N, N, A, A, N, N, N, N], Stored);
    R14: row(0x1020_0003_0000_000e, 1, 1, Tdvps(0x09f0), [N, N, A, A, N, N, N, N], Stored);
    R15: row(0x1020_0003_0000_000f, 1, 1, Tdvps(0x09f8), [N, N, A, A, N, N, N, N], Stored);
    DR0: row(0x1120_0003_0000_0000, 1, 1, Tdvps(0x0a00), [N, N, A, A, N, N, N, N], Stored);
    DR1: row(0x1120_0003_0000_0001, 1, 1, Tdvps(0x0a08), [N, N, A, A, N, N, N, N], Stored);
    DR2: row(0x1120_0003_0000_0002, 1, 1, Tdvps(0x0a10), [N, N, A, A, N, N, N, N], Stored);
    DR3: row(0x1120_0003_0000_0003, 1, 1, Tdvps(0x0a18), [N, N, A, A, N, N, N, N], Stored);
    DR6: row(0x1120_0003_0000_0006, 1, 1, Tdvps(0x0a20), [N, N, A, 0xffff_ffff, N, N, N, N], Stored);
    XCR0: row(0x1120_0003_0000_0020, 1, 1, Tdvps(0x0a28), [N, N, A, N, N, N, N, N], Checked);
    CR2: row(0x1120_0003_0000_0028, 1, 1, Tdvps(0x0a30), [N, N, A, A, N, N, N, N], Stored);
    VCPU_STATE_DETAILS: row(0x9120_0003_0000_0100, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    XBUFF: row(0x1220_0003_0000_0000, 1536, 1, Tdvps(0x3000), [N, N, A, A, N, N, N, N], Checked);
    IA32_SPEC_CTRL: row(0x1320_0003_0000_0048, 1, 1, Tdvps(0x0a80), [N, N, A, A, N, N, N, N], Stored);
    IA32_UMWAIT_CONTROL: row(0x1320_0003_0000_00e1, 1, 1, Tdvps(0x0a88), [N, N, A, A, N, N, N, N], Stored);
    IA32_TSX_CTRL: row(0x1320_0003_0000_0122, 1, 1, Tdvps(0x0a90), [N, N, A, A, N, N, N, N], Stored);
    IA32_PERFEVTSELX = "IA32_PERFEVTSELx": row(0x1320_0003_0000_0186, 8, 1, Tdvps(0x0a98), [N, N, A, A, N, N, N, N], Stored);
    MSR_OFFCORE_RSPX = "MSR_OFFCORE_RSPx": row(0x1320_0003_0000_01a6, 2, 1, Tdvps(0x0ad8), [N, N, A, A, N, N, N, N], Stored);
    IA32_XFD: row(0x1320_0003_0000_01c4, 1, 1, Tdvps(0x0ae8), [N, N, A, N, N, N, N, N], Stored);
    IA32_XFD_ERR: row(0x1320_0003_0000_01c5, 1, 1, Tdvps(0x0af0), [N, N, A, N, N, N, N, N], Stored);
    IA32_FIXED_CTRX = "IA32_FIXED_CTRx": row(0x1320_0003_0000_0309, 7, 1, Tdvps(0x0af8), [N, N, A, A, N, N, N, N], Stored);
    IA32_PERF_METRICS: row(0x1320_0003_0000_0329, 1, 1, Tdvps(0x0b30), [N, N, A, A, N, N, N, N], Stored);
    IA32_FIXED_CTR_CTRL: row(0x1320_0003_0000_038d, 1, 1, Tdvps(0x0b38), [N, N, A, A, N, N, N, N], Stored);
    IA32_PERF_GLOBAL_STATUS: row(0x1320_0003_0000_038e, 1, 1, Tdvps(0x0b40), [N, N, A, N, N, N, N, N], Stored);
    IA32_PEBS_ENABLE: row(0x1320_0003_0000_03f1, 1, 1, Tdvps(0x0b48), [N, N, A, A, N, N, N, N], Stored);
    MSR_PEBS_DATA_CFG: row(0x1320_0003_0000_03f2, 1, 1, Tdvps(0x0b50), [N, N, A, A, N, N, N, N], Stored);
    MSR_PEBS_LD_LAT: row(0x1320_0003_0000_03f6, 1, 1, Tdvps(0x0b58), [N, N, A, A, N, N, N, N], Stored);
    MSR_PEBS_FRONTEND: row(0x1320_0003_0000_03f7, 1, 1, Tdvps(0x0b60), [N, N, A, A, N, N, N, N], Stored);
    IA32_A_PMCX = "IA32_A_PMCx": row(0x1320_0003_0000_04c1, 8, 1, Tdvps(0x0b68), [N, N, A, A, N, N, N, N], Stored);
    IA32_DS_AREA: row(0x1320_0003_0000_0600, 1, 1, Tdvps(0x0ba8), [N, N, A, A, N, N, N, N], Stored);
    IA32_XSS: row(0x1320_0003_0000_0da0, 1, 1, Tdvps(0x0c70), [N, N, A, N, N, N, N, N], Stored);
    IA32_LBR_DEPTH: row(0x1320_0003_0000_14cf, 1, 1, Tdvps(0x0c78), [N, N, A, A, N, N, N, N], Stored);
    IA32_UARCH_MISC_CTL: row(0x1320_0003_0000_1b01, 1, 1, Tdvps(0x0c80), [N, N, A, A, N, N, N, N], Stored);
    IA32_STAR: row(0x1320_0003_0000_2081, 1, 1, Tdvps(0x0c88), [N, N, A, N, N, N, N, N], Stored);
    IA32_LSTAR: row(0x1320_0003_0000_2082, 1, 1, Tdvps(0x0c90), [N, N, A, N, N, N, N, N], Stored);
    IA32_FMASK: row(0x1320_0003_0000_2084, 1, 1, Tdvps(0x0c98), [N, N, A, N, N, N, N, N], Stored);
    IA32_KERNEL_GS_BASE: row(0x1320_0003_0000_2102, 1, 1, Tdvps(0x0ca0), [N, N, A, N, N, N, N, N], Stored);
    IA32_TSC_AUX: row(0x1320_0003_0000_2103, 1, 1, Tdvps(0x0ca8), [N, N, A, A, N, N, N, N], Stored);
    VCPU_STATE: row(0xa020_0000_0000_0000, 1, 1, Tdvps(0x0100), [N, N, A, N, N, N, N, N], Stored);
    VCPU_INDEX: row(0xa020_0002_0000_0002, 1, 1, Tdvps(0x0102), [A, N, A, N, A, N, N, N], Stored);
    NUM_TDVPS_PAGES: row(0xa020_0000_0000_0003, 1, 1, Tdvps(0x0107), [A, N, A, N, N, N, N, N], Stored);
    ASSOC_LPID: row(0xa020_0002_0000_0004, 1, 1, Tdvps(0x01c8), [A, N, A, N, N, N, N, N], Stored);
    VCPU_EPOCH: row(0xa020_0003_0000_0006, 1, 1, Tdvps(0x01d0), [A, N, A, N, N, N, N, N], Stored);
    CPUID_SUPERVISOR_VE: row(0xa020_0000_0000_0007, 1, 1, Tdvps(0x01d8), [A, N, A, N, A, A, N, N], Stored);
    CPUID_USER_VE: row(0xa020_0000_0000_0008, 1, 1, Tdvps(0x01d9), [A, N, A, N, A, A, N, N], Stored);
    LAST_EXIT_TSC: row(0xa020_0003_0000_000a, 1, 1, Tdvps(0x01e0), [N, N, A, N, N, N, N, N], Stored);
    PEND_NMI: row(0x2020_0000_0000_000b, 1, 1, Tdvps(0x01e8), [A, A, A, A, N, N, N, N], Stored);
    XFAM: row(0x2020_0003_0000_000c, 1, 1, Tdvps(0x01f0), [A, N, A, A, N, N, N, N], Checked);
    LAST_EPF_GPA_LIST_IDX: row(0xa020_0000_0000_000d, 1, 1, Tdvps(0x01f8), [N, N, A, N, N, N, N, N], Stored);
    POSSIBLY_EPF_STEPPING: row(0xa020_0000_0000_000e, 1, 1, Tdvps(0x01f9), [N, N, A, N, N, N, N, N], Stored);
    LAST_TD_EXIT: row(0xa020_0000_0000_000f, 1, 1, Tdvps(0x0101), [N, N, A, N, N, N, N, N], Stored);
    TDVPS_PAGE_PA: row(0xa020_0003_0000_0010, 15, 1, Tdvps(0x0108), [A, N, A, N, N, N, N, N], PageAddress);
    HP_LOCK_BUSY_START: row(0xa020_0003_0000_0030, 1, 1, Tdvps(0x0200), [N, N, A, N, N, N, N, N], Stored);
    HP_LOCK_BUSY: row(0xa020_0000_0000_0031, 1, 1, Tdvps(0x0208), [N, N, A, N, N, N, N, N], Stored);
    LAST_SEAMDB_INDEX: row(0xa020_0003_0000_0032, 1, 1, Tdvps(0x020e), [N, N, A, N, N, N, N, N], Stored);
    NMI_UNBLOCKING_DUE_TO_IRET: row(0xa020_0000_0000_0040, 1, 1, Tdvps(0x01e9), [N, N, A, N, N, N, N, N], Stored);
    CURR_VM: row(0xa020_0001_0000_0041, 1, 1, Tdvps(0x0216), [N, N, A, N, N, N, N, N], Stored);
    L2_EXIT_HOST_ROUTING: row(0xa020_0000_0000_0042, 1, 1, Tdvps(0x0218), [N, N, A, N, N, N, N, N], Stored);
    VM_LAUNCHED: row(0xa020_0000_0000_0044, 4, 1, Tdvps(0x021a), [N, N, A, N, N, N, N, N], Stored);
    LP_DEPENDENT_HPA_UPDATED: row(0xa020_0000_0000_0048, 4, 1, Tdvps(0x021e), [N, N, A, N, N, N, N, N], Stored);
    MODULE_DEPENDENT_FIELDS_UPDATED: row(0xa020_0000_0000_004c, 4, 1, Tdvps(0x0222), [N, N, A, N, N, N, N, N], Stored);
    L2_CTLS: row(0xa020_0003_0000_0050, 4, 1, Tdvps(0x0228), [N, N, A, 0x7, A, 0x7, N, N], Stored)
        .debug_host_writes_since(V1_5_05, 0x3)
        .guest_writes_since(V1_5_05, 0x3);
    L2_DEBUG_CTLS: row(0xa020_0003_0000_0054, 4, 1, Tdvps(0x0248), [N, N, A, 0x7, N, N, N, N], Stored);
    TSC_DEADLINE: row(0xa020_0003_0000_0058, 4, 1, Tdvps(0x0268), [N, N, A, N, A, A, N, N], Checked);
    SHADOW_TSC_DEADLINE: row(0xa020_0003_0000_005c, 4, 1, Tdvps(0x0288), [N, N, A, N, N, N, N, N], Stored);
    BASE_L2_CR0_GUEST_HOST_MASK: row(0xa020_0003_0000_0080, 1, 1, Tdvps(0x02a8), [N, N, A, 0xffff_ffff_9fff_ffdf, N, N, N, N], Stored);
    BASE_L2_CR0_READ_SHADOW: row(0xa020_0003_0000_0081, 1, 1, Tdvps(0x02b0), [N, N, A, 0xffff_ffff_9fff_ffdf, N, N, N, N], Stored);
    BASE_L2_CR4_GUEST_HOST_MASK: row(0xa020_0003_0000_0082, 1, 1, Tdvps(0x02b8), [N, N, A, 0xffff_ffff_ffff_9fbf, N, N, N, N], Stored);
    BASE_L2_CR4_READ_SHADOW: row(0xa020_0003_0000_0083, 1, 1, Tdvps(0x02c0), [N, N, A, 0xffff_ffff_9fff_ffdf, N, N, N, N], Stored);
    SHADOW_CR0_GUEST_HOST_MASK: row(0xa020_0003_0000_0084, 4, 1, Tdvps(0x02c8), [N, N, A, N, N, N, N, N], Stored);
    SHADOW_CR0_READ_SHADOW: row(0xa020_0003_0000_0088, 4, 1, Tdvps(0x02e8), [N, N, A, N, N, N, N, N], Stored);
    SHADOW_CR4_GUEST_HOST_MASK: row(0xa020_0003_0000_008c, 4, 1, Tdvps(0x0308), [N, N, A, N, N, N, N, N], Stored);
    SHADOW_CR4_READ_SHADOW: row(0xa020_0003_0000_0090, 4, 1, Tdvps(0x0328), [N, N, A, N, N, N, N, N], Stored);
    SHADOW_INSTRUCTION_TIMEOUT_CONTROL: row(0xa020_0002_0000_0094, 4, 1, Tdvps(0x0348), [N, N, A, N, N, N, N, N], Stored);
    SHADOW_PID_HPA: row(0xa020_0003_0000_0098, 4, 1, Tdvps(0x0358), [N, N, A, N, N, N, N, N], Stored);
    SHADOW_PINBASED_EXEC_CTLS: row(0xa020_0002_0000_009c, 4, 1, Tdvps(0x0378), [N, N, A, N, N, N, N, N], Stored);
    SHADOW_PLE_GAP: row(0xa020_0002_0000_00a4, 4, 1, Tdvps(0x0388), [N, N, A, N, N, N, N, N], Stored);
    SHADOW_PLE_WINDOW: row(0xa020_0002_0000_00a8, 4, 1, Tdvps(0x0398), [N, N, A, N, N, N, N, N], Stored);
    SHADOW_POSTED_INT_NOTIFICATION_VECTOR: row(0xa020_0001_0000_00ac, 4, 1, Tdvps(0x03a8), [N, N, A, N, N, N, N, N], Stored);
    SHADOW_PROCBASED_EXEC_CTLS2: row(0xa020_0002_0000_00b0, 4, 1, Tdvps(0x03b0), [N, N, A, N, N, N, N, N], Stored);
    SHADOW_SHARED_EPTP: row(0xa020_0003_0000_00b4, 4, 1, Tdvps(0x03c0), [N, N, A, N, N, N, N, N], Stored);
    L2_ENTER_GUEST_STATE_GPA: row(0xa020_0003_0000_0100, 4, 1, Tdvps(0x03e0), [N, N, A, N, N, N, N, N], Stored);
    L2_ENTER_GUEST_STATE_HPA: row(0xa020_0003_0000_0104, 4, 1, Tdvps(0x0400), [N, N, A, N, N, N, N, N], Stored);
    VE_INFO_GPA: row(0xa020_0003_0000_0108, 4, 1, Tdvps(0x0420), [N, N, A, N, N, N, N, N], Stored);
    VE_INFO_HPA: row(0xa020_0003_0000_010c, 4, 1, Tdvps(0x0440), [N, N, A, N, N, N, N, N], Stored);
    L2_VAPIC_GPA: row(0xa020_0003_0000_0110, 4, 1, Tdvps(0x0460), [N, N, A, N, N, N, N, N], Stored);
    L2_VAPIC_HPA: row(0xa020_0003_0000_0114, 4, 1, Tdvps(0x0480), [N, N, A, N, N, N, N, N], Stored);
    CPUID_CONTROL: row(0xa120_0000_0000_0000, 128, 1, Tdvps(0x0900), [N, N, A, N, A, 0x3, N, N], Stored);
    LAST_EPF_GPA_LIST: row(0xa220_0003_0000_0200, 32, 1, Tdvps(0x0700), [N, N, A, N, N, N, N, N], Stored);
    L2_VMCS_1: row(0x2420_0000_0000_0000, 4096, 1, Tdvps(0x6000), [N, N, N, N, N, N, N, N], Stored).of_l2_vm(1);
    L2_MSR_BITMAPS_1: row(0x2520_0003_0000_0000, 512, 1, Tdvps(0x7000), [N, N, A, A, A, A, N, N], Stored).of_l2_vm(1);
    L2_SHADOW_MSR_BITMAPS_1: row(0xa620_0003_0000_0000, 512, 1, Tdvps(0x8000), [N, N, A, N, N, N, N, N], Stored).of_l2_vm(1);
    L2_VMCS_2: row(0x2c20_0000_0000_0000, 4096, 1, Tdvps(0x9000), [N, N, N, N, N, N, N, N], Stored).of_l2_vm(2);
    L2_MSR_BITMAPS_2: row(0x2d20_0003_0000_0000, 512, 1, Tdvps(0xa000), [N, N, A, A, A, A, N, N], Stored).of_l2_vm(2);
    L2_SHADOW_MSR_BITMAPS_2: row(0xae20_0003_0000_0000, 512, 1, Tdvps(0xb000), [N, N, A, N, N, N, N, N], Stored).of_l2_vm(2);
    L2_VMCS_3: row(0x3420_0000_0000_0000, 4096, 1, Tdvps(0xc000), [N, N, N, N, N, N, N, N], Stored).of_l2_vm(3);
    L2_MSR_BITMAPS_3: row(0x3520_0003_0000_0000, 512, 1, Tdvps(0xd000), [N, N, A, A, A, A, N, N], Stored).of_l2_vm(3);
    L2_SHADOW_MSR_BITMAPS_3: row(0xb620_0003_0000_0000, 512, 1, Tdvps(0xe000), [N, N, A, N, N, N, N, N], Stored).of_l2_vm(3);
}
