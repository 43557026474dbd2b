//! The fields of one TD (context 1: `TDH.MNG.RD`/`WR`, `TDG.VM.RD`/`WR`, `TDG.SERVTD.RD`/`WR`).
//!
//! Offsets count from the TDR page for the classes below 16 and from the first TDCX page for the others.

use super::field::{
    ALL as A, NONE as N,
    Place::{Nowhere, Tdcs, Tdr},
    Transform::{Checked, Computed, CpuidValues, Microseconds, PageAddress, Stored},
    fields, row,
};
use crate::release::Release::V1_5_05;

fields! {
    FATAL: row(0x8010_0000_0000_0001, 1, 1, Tdr(0x0000), [A, N, A, N, N, N, N, N], Stored);
    NUM_TDCX: row(0x8010_0002_0000_0002, 1, 1, Tdr(0x0004), [A, N, A, N, N, N, N, N], Stored);
    CHLDCNT: row(0x8010_0003_0000_0004, 1, 1, Tdr(0x0008), [A, N, A, N, N, N, N, N], Stored);
    LIFECYCLE_STATE: row(0x8010_0002_0000_0005, 1, 1, Tdr(0x0010), [A, N, A, N, N, N, N, N], Stored);
    TDCX_PA: row(0x8010_0003_0000_0010, 9, 1, Tdr(0x0018), [A, N, A, N, N, N, N, N], PageAddress);
    TD_UUID: row(0x8010_0003_0000_0020, 1, 4, Tdr(0x0060), [A, N, A, N, A, N, A, N], Stored);
    HKID: row(0x8110_0001_0000_0001, 1, 1, Tdr(0x0100), [A, N, A, N, N, N, N, N], Stored);
    PKG_CONFIG_BITMAP: row(0x8110_0003_0000_0002, 1, 1, Tdr(0x0108), [A, N, A, N, N, N, N, N], Stored);
    HANDOFF_VERSION: row(0x8210_0001_0000_0000, 1, 1, Tdr(0x0140), [A, N, A, N, N, N, N, N], Stored);
    SEAMDB_INDEX: row(0x8210_0003_0000_0001, 1, 1, Tdr(0x0148), [A, N, A, N, N, N, N, N], Stored);
    SEAMDB_NONCE: row(0x8210_0003_0000_0002, 1, 4, Tdr(0x0150), [N, N, N, N, N, N, N, N], Stored);
    NUM_VCPUS: row(0x9010_0002_0000_0001, 1, 1, Tdcs(0x0000), [A, N, A, N, A, N, N, N], Stored);
    NUM_ASSOC_VCPUS: row(0x9010_0002_0000_0002, 1, 1, Tdcs(0x0004), [A, N, A, N, N, N, N, N], Stored);
    OP_STATE: row(0x9010_0002_0000_0004, 1, 1, Tdcs(0x0008), [A, N, A, N, N, N, N, N], Stored);
    NUM_L2_VMS: row(0x9010_0001_0000_0005, 1, 1, Tdcs(0x0010), [A, N, A, N, A, N, A, N], Stored);
    ATTRIBUTES: row(0x1110_0003_0000_0000, 1, 1, Tdcs(0x0080), [A, N, A, N, A, N, A, N], Stored);
    XFAM: row(0x1110_0003_0000_0001, 1, 1, Tdcs(0x0088), [A, N, A, N, A, N, A, N], Stored);
    MAX_VCPUS: row(0x1110_0002_0000_0002, 1, 1, Tdcs(0x0090), [A, N, A, N, A, N, N, N], Stored);
    GPAW: row(0x1110_0000_0000_0003, 1, 1, Tdcs(0x0094), [A, N, A, N, A, N, A, N], Stored);
    EPTP: row(0x1110_0003_0000_0004, 1, 1, Tdcs(0x0098), [A, N, A, N, N, N, 0xfff0_0000_0000_0fff, N], Stored);
    TSC_OFFSET: row(0x1110_0003_0000_000a, 1, 1, Tdcs(0x00a8), [A, N, A, N, N, N, N, N], Stored);
    TSC_MULTIPLIER: row(0x1110_0003_0000_000b, 1, 1, Tdcs(0x00b0), [A, N, A, N, N, N, N, N], Stored);
    TSC_FREQUENCY: row(0x1110_0001_0000_000c, 1, 1, Tdcs(0x00b8), [A, N, A, N, A, N, N, N], Stored);
    VIRTUAL_TSC: row(0x1110_0003_0000_000d, 1, 1, Nowhere, [N, N, N, N, N, N, N, N], Computed);
    NUM_CPUID_VALUES: row(0x9110_0001_0000_000e, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    XBUFF_SIZE: row(0x9110_0002_0000_000f, 1, 1, Tdcs(0x00dc), [A, N, A, N, N, N, N, N], Stored);
    NOTIFY_ENABLES: row(0x9110_0003_0000_0010, 1, 1, Tdcs(0x00e0), [N, N, A, 0x1, 0x1, 0x1, N, N], Stored);
    HP_LOCK_TIMEOUT: row(0x9110_0003_0000_0011, 1, 1, Tdcs(0x00e8), [A, A, A, A, N, N, N, N], Microseconds);
    VM_CTLS: row(0x9110_0003_0000_0012, 4, 1, Tdcs(0x00f0), [A, 0x1, A, 0x1, N, N, N, N], Stored);
    CONFIG_FLAGS: row(0x1110_0003_0000_0016, 1, 1, Tdcs(0x0118), [A, N, A, N, A, N, A, N], Stored).not_architectural_since(V1_5_05);
    TD_CTLS: row(0x1110_0003_0000_0017, 1, 1, Tdcs(0x0120), [N, N, A, N, A, 0x1, N, N], Checked)
        .not_architectural_since(V1_5_05)
        .guest_writes_since(V1_5_05, 0x3);
    TOPOLOGY_ENUM_CONFIGURED: row(0x9110_0000_0000_0019, 1, 1, Tdcs(0x0128), [A, N, A, N, A, N, N, N], Stored).since(V1_5_05);
    CPUID_VALID: row(0x9110_0000_0000_0080, 80, 1, Tdcs(0x0134), [N, N, A, N, N, N, N, N], Stored);
    XBUFF_OFFSETS: row(0x9110_0002_0000_0800, 19, 1, Tdcs(0x0190), [A, N, A, N, N, N, N, N], Stored);
    TD_EPOCH: row(0x9210_0003_0000_0000, 1, 1, Tdcs(0x0200), [A, N, A, N, N, N, N, N], Stored);
    REFCOUNT: row(0x9210_0001_0000_0001, 2, 1, Tdcs(0x0208), [A, N, A, N, N, N, N, N], Stored);
    MRTD: row(0x1310_0003_0000_0000, 1, 6, Tdcs(0x0240), [A, N, A, N, A, N, N, N], Stored);
    MRCONFIGID: row(0x1310_0003_0000_0010, 1, 6, Tdcs(0x0270), [A, N, A, N, A, N, N, N], Stored);
    MROWNER: row(0x1310_0003_0000_0018, 1, 6, Tdcs(0x02a0), [A, N, A, N, A, N, N, N], Stored);
    MROWNERCONFIG: row(0x1310_0003_0000_0020, 1, 6, Tdcs(0x02d0), [A, N, A, N, A, N, N, N], Stored);
    RTMR: row(0x1310_0003_0000_0040, 4, 6, Tdcs(0x0300), [N, N, A, N, A, N, N, N], Stored);
    CPUID_VALUES: row(0x9410_0003_0000_0000, 80, 2, Tdcs(0x0800), [A, N, A, N, N, N, A, N], CpuidValues);
    VIRTUAL_IA32_ARCH_CAPABILITIES: row(0x9610_0003_0000_010a, 1, 1, Tdcs(0x0778), [N, N, A, N, N, N, N, N], Stored);
    VIRTUAL_IA32_VMX_BASIC: row(0x9610_0003_0000_0480, 1, 1, Tdcs(0x0700), [N, N, A, N, N, N, N, N], Stored);
    VIRTUAL_IA32_VMX_MISC: row(0x9610_0003_0000_0485, 1, 1, Tdcs(0x0708), [N, N, A, N, N, N, N, N], Stored);
    VIRTUAL_IA32_VMX_CR0_FIXED0: row(0x9610_0003_0000_0486, 1, 1, Tdcs(0x0710), [N, N, A, N, N, N, N, N], Stored);
    VIRTUAL_IA32_VMX_CR0_FIXED1: row(0x9610_0003_0000_0487, 1, 1, Tdcs(0x0718), [N, N, A, N, N, N, N, N], Stored);
    VIRTUAL_IA32_VMX_CR4_FIXED0: row(0x9610_0003_0000_0488, 1, 1, Tdcs(0x0720), [N, N, A, N, N, N, N, N], Stored);
    VIRTUAL_IA32_VMX_CR4_FIXED1: row(0x9610_0003_0000_0489, 1, 1, Tdcs(0x0728), [N, N, A, N, N, N, N, N], Stored);
    VIRTUAL_IA32_VMX_PROCBASED_CTLS2: row(0x9610_0003_0000_048b, 1, 1, Tdcs(0x0730), [N, N, A, N, N, N, N, N], Stored);
    VIRTUAL_IA32_VMX_EPT_VPID_CAP: row(0x9610_0003_0000_048c, 1, 1, Tdcs(0x0738), [N, N, A, N, N, N, N, N], Stored);
    VIRTUAL_IA32_VMX_TRUE_PINBASED_CTLS: row(0x9610_0003_0000_048d, 1, 1, Tdcs(0x0740), [N, N, A, N, N, N, N, N], Stored);
    VIRTUAL_IA32_VMX_TRUE_PROCBASED_CTLS: row(0x9610_0003_0000_048e, 1, 1, Tdcs(0x0748), [N, N, A, N, N, N, N, N], Stored);
    VIRTUAL_IA32_VMX_TRUE_EXIT_CTLS: row(0x9610_0003_0000_048f, 1, 1, Tdcs(0x0750), [N, N, A, N, N, N, N, N], Stored);
    VIRTUAL_IA32_VMX_TRUE_ENTRY_CTLS: row(0x9610_0003_0000_0490, 1, 1, Tdcs(0x0758), [N, N, A, N, N, N, N, N], Stored);
    VIRTUAL_IA32_VMX_VMFUNC: row(0x9610_0003_0000_0491, 1, 1, Tdcs(0x0760), [N, N, A, N, N, N, N, N], Stored);
    VIRTUAL_IA32_VMX_PROCBASED_CTLS3: row(0x9610_0003_0000_0492, 1, 1, Tdcs(0x0768), [N, N, A, N, N, N, N, N], Stored);
    VIRTUAL_IA32_VMX_EXIT_CTLS2: row(0x9610_0003_0000_0493, 1, 1, Tdcs(0x0770), [N, N, A, N, N, N, N, N], Stored);
    MIG_DEC_KEY_SET: row(0x9810_0000_0000_0001, 1, 1, Tdcs(0x0580), [A, N, A, N, N, N, N, N], Stored);
    EXPORT_COUNT: row(0x9810_0002_0000_0002, 1, 1, Tdcs(0x0584), [A, N, A, N, N, N, A, N], Stored);
    IMPORT_COUNT: row(0x9810_0002_0000_0003, 1, 1, Tdcs(0x0588), [A, N, A, N, N, N, A, N], Stored);
    MIG_EPOCH: row(0x9810_0002_0000_0004, 1, 1, Tdcs(0x058c), [A, N, A, N, N, N, N, N], Stored);
    BW_EPOCH: row(0x9810_0003_0000_0005, 1, 1, Tdcs(0x0590), [A, N, A, N, N, N, N, N], Stored);
    TOTAL_MB_COUNT: row(0x9810_0003_0000_0006, 1, 1, Tdcs(0x0598), [A, N, A, N, N, N, N, N], Stored);
    MIG_DEC_KEY: row(0x9810_0003_0000_0010, 1, 4, Tdcs(0x05a0), [N, N, A, N, N, N, A, A], Stored);
    MIG_DEC_WORKING_KEY: row(0x9810_0003_0000_0014, 1, 4, Tdcs(0x05c0), [N, N, A, N, N, N, A, N], Stored);
    MIG_ENC_KEY: row(0x9810_0003_0000_0018, 1, 4, Tdcs(0x05e0), [N, N, A, N, N, N, A, N], Stored);
    MIG_ENC_WORKING_KEY: row(0x9810_0003_0000_001c, 1, 4, Tdcs(0x0600), [N, N, A, N, N, N, A, N], Stored);
    MIG_VERSION: row(0x9810_0001_0000_0020, 1, 1, Tdcs(0x0620), [A, N, A, N, N, N, A, A], Checked);
    MIG_WORKING_VERSION: row(0x9810_0001_0000_0021, 1, 1, Tdcs(0x0622), [A, N, A, N, N, N, A, N], Stored);
    DIRTY_COUNT: row(0x9810_0003_0000_0030, 1, 1, Tdcs(0x0628), [A, N, A, N, N, N, N, N], Stored);
    MIG_COUNT: row(0x9810_0003_0000_0031, 1, 1, Tdcs(0x0630), [A, N, A, N, N, N, N, N], Stored);
    NUM_MIGS: row(0x9810_0001_0000_0032, 1, 1, Tdcs(0x0638), [A, N, A, N, N, N, N, N], Stored);
    NUM_MIGRATED_VCPUS: row(0x9810_0002_0000_0034, 1, 1, Tdcs(0x063c), [A, N, A, N, N, N, N, N], Stored);
    PRE_IMPORT_UUID: row(0x9810_0003_0000_0040, 1, 4, Tdcs(0x0640), [A, N, A, N, A, N, A, N], Stored);
    SERVTD_HASH: row(0x9910_0003_0000_0000, 1, 6, Tdcs(0x0d00), [A, N, A, N, A, N, A, N], Stored);
    SERVTD_NUM: row(0x9910_0001_0000_0006, 1, 1, Tdcs(0x0d30), [A, N, A, N, A, N, A, N], Stored);
    SERVTD_BINDINGS_TABLE: row(0x9910_0003_0000_0080, 1, 16, Tdcs(0x0d90), [A, N, A, N, A, N, N, N], Stored);
    MIGSC_LINKS: row(0x9a10_0003_0000_0000, 512, 1, Tdcs(0x5000), [A, N, A, N, N, N, N, N], Stored);
    X2APIC_IDS: row(0x9c10_0002_0000_0000, 576, 1, Tdcs(0x1200), [A, N, A, N, N, N, N, N], Stored).since(V1_5_05);
    MSR_BITMAPS: row(0x2010_0003_0000_0000, 512, 1, Tdcs(0x2000), [N, N, A, N, N, N, N, N], Stored);
    SEPT_ROOT: row(0x2110_0003_0000_0000, 512, 1, Tdcs(0x3000), [N, N, A, N, N, N, N, N], Stored);
    L2_SEPT_ROOT_1: row(0x2510_0003_0000_0000, 512, 1, Tdcs(0x6000), [N, N, A, N, N, N, N, N], Stored).of_l2_vm(1);
    L2_SEPT_ROOT_2: row(0x2910_0003_0000_0000, 512, 1, Tdcs(0x7000), [N, N, A, N, N, N, N, N], Stored).of_l2_vm(2);
    L2_SEPT_ROOT_3: row(0x2d10_0003_0000_0000, 512, 1, Tdcs(0x8000), [N, N, A, N, N, N, N, N], Stored).of_l2_vm(3);
}
