//! The fields of the whole module (context 0: `TDH.SYS.RD`, `TDG.SYS.RD`).
//!
//! The fields have no fixed place in memory that an outsider could name, so they carry no offset.

use super::field::{ALL as A, NONE as N, Place::Nowhere, Transform::Computed, fields, row};
use crate::release::Release::{V1_5_05, V2_0};

fields! {
    NUM_PKGS: row(0x0000_0002_0000_0000, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    PKG_FMS: row(0x0000_0002_0000_0001, 8, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    VENDOR_ID: row(0x0800_0002_0000_0000, 1, 1, Nowhere, [A, N, A, N, A, N, N, N], Computed);
    BUILD_DATE: row(0x8800_0002_0000_0001, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    BUILD_NUM: row(0x8800_0001_0000_0002, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    MINOR_VERSION: row(0x0800_0001_0000_0003, 1, 1, Nowhere, [A, N, A, N, A, N, N, N], Computed);
    MAJOR_VERSION: row(0x0800_0001_0000_0004, 1, 1, Nowhere, [A, N, A, N, A, N, N, N], Computed);
    UPDATE_VERSION: row(0x0800_0001_0000_0005, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    INTERNAL_VERSION: row(0x0800_0001_0000_0006, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    MODULE_HV: row(0x8900_0001_0000_0000, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    MIN_UPDATE_HV: row(0x8900_0001_0000_0001, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    NO_DOWNGRADE: row(0x8900_0000_0000_0002, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    NUM_HANDOFF_PAGES: row(0x8900_0001_0000_0003, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    HANDOFF_DATA_VALID: row(0x8900_0000_0000_0004, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    HANDOFF_DATA_HV: row(0x8900_0001_0000_0005, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    HANDOFF_DATA_SIZE: row(0x8900_0002_0000_0006, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    SYS_ATTRIBUTES: row(0x0a00_0002_0000_0000, 1, 1, Nowhere, [A, N, A, N, A, N, N, N], Computed);
    NUM_TDX_FEATURES: row(0x0a00_0000_0000_0001, 1, 1, Nowhere, [A, N, A, N, A, N, N, N], Computed);
    TDX_FEATURES0: row(0x0a00_0003_0000_0008, 1, 1, Nowhere, [A, N, A, N, A, N, N, N], Computed);
    NUM_CMRS: row(0x9000_0001_0000_0000, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    CMR_BASE: row(0x9000_0003_0000_0080, 32, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    CMR_SIZE: row(0x9000_0003_0000_0100, 32, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    MAX_TDMRS: row(0x9100_0001_0000_0008, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    MAX_RESERVED_PER_TDMR: row(0x9100_0001_0000_0009, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    PAMT_4K_ENTRY_SIZE: row(0x9100_0001_0000_0010, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    PAMT_2M_ENTRY_SIZE: row(0x9100_0001_0000_0011, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    PAMT_1G_ENTRY_SIZE: row(0x9100_0001_0000_0012, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    PAMT_PAGE_BITMAP_ENTRY_BITS: row(0x9100_0001_0000_0013, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed).since(V2_0);
    TDR_BASE_SIZE: row(0x9800_0001_0000_0000, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    TDCS_BASE_SIZE: row(0x9800_0001_0000_0100, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    TDCS_SIZE_PER_L2_VM: row(0x9800_0001_0000_0101, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    TDVPS_BASE_SIZE: row(0x9800_0001_0000_0200, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    TDVPS_SIZE_PER_L2_VM: row(0x9800_0001_0000_0201, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    ATTRIBUTES_FIXED0: row(0x1900_0003_0000_0000, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    ATTRIBUTES_FIXED1: row(0x1900_0003_0000_0001, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    XFAM_FIXED0: row(0x1900_0003_0000_0002, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    XFAM_FIXED1: row(0x1900_0003_0000_0003, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    NUM_CPUID_CONFIG: row(0x9900_0001_0000_0004, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    CONFIG_FLAGS_FIXED0: row(0x9900_0003_0000_0006, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    CONFIG_FLAGS_FIXED1: row(0x9900_0003_0000_0007, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    MAX_VCPUS_PER_TD: row(0x9900_0001_0000_0008, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed).since(V1_5_05);
    CPUID_CONFIG_LEAVES: row(0x9900_0003_0000_0400, 32, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    CPUID_CONFIG_VALUES: row(0x9900_0003_0000_0500, 32, 2, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    IA32_ARCH_CAPABILITIES_CONFIG_MASK: row(0x9900_0003_0000_0600, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    NUM_ALLOWED_FMS: row(0x9900_0001_0000_0800, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    NUM_DISALLOWED_FMS: row(0x9900_0001_0000_0801, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    ALLOWED_FMS: row(0x9900_0003_0000_0810, 64, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    DISALLOWED_FMS: row(0x9900_0003_0000_0850, 64, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    MIG_ATTRIBUTES: row(0xa000_0003_0000_0000, 1, 1, Nowhere, [A, N, A, N, A, N, N, N], Computed);
    MIN_EXPORT_VERSION: row(0x2000_0001_0000_0001, 1, 1, Nowhere, [A, N, A, N, A, N, N, N], Computed);
    MAX_EXPORT_VERSION: row(0x2000_0001_0000_0002, 1, 1, Nowhere, [A, N, A, N, A, N, N, N], Computed);
    MIN_IMPORT_VERSION: row(0x2000_0001_0000_0003, 1, 1, Nowhere, [A, N, A, N, A, N, N, N], Computed);
    MAX_IMPORT_VERSION: row(0x2000_0001_0000_0004, 1, 1, Nowhere, [A, N, A, N, A, N, N, N], Computed);
    MAX_MIGS: row(0xa000_0001_0000_0010, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    NUM_IMMUTABLE_STATE_PAGES: row(0xa000_0000_0000_0020, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    NUM_TD_STATE_PAGES: row(0xa000_0000_0000_0021, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    NUM_VP_STATE_PAGES: row(0xa000_0000_0000_0022, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    MAX_SERV_TDS: row(0xa100_0001_0000_0000, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    SERVTD_ATTR_FIXED0: row(0xa100_0003_0000_0001, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    SERVTD_ATTR_FIXED1: row(0xa100_0003_0000_0002, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    GUEST_L2_GPA_ATTR_MASK: row(0xa200_0001_0000_0000, 1, 1, Nowhere, [A, N, A, N, A, N, N, N], Computed);
    VM_CTLS_FIXED0: row(0xa200_0003_0000_0001, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    VM_CTLS_FIXED1: row(0xa200_0003_0000_0002, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    VPCU_L2_CTLS_FIXED0: row(0xa200_0003_0000_0003, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    VCPU_L2_CTLS_FIXED1: row(0xa200_0003_0000_0004, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    VPCU_L2_DEBUG_CTLS_FIXED0: row(0xa200_0003_0000_0005, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    VCPU_L2_DEBUG_CTLS_FIXED1: row(0xa200_0003_0000_0006, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed);
    MEMORY_POOL_REQUIRED_PAGES: row(0x3100_0001_0000_0000, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed).since(V2_0);
    EXT_REQUIRED: row(0x3100_0001_0000_0001, 1, 1, Nowhere, [A, N, A, N, N, N, N, N], Computed).since(V2_0);
}
