//! The reference list of codes and operand ids, written independently of the tables it checks.
//!
//! Codes: name, error, non-recoverable, fatal, host hint, class, code inside the class.

use super::*;
use crate::release::Release;

#[rustfmt::skip]
const CODES: &[(&str, u8, u8, u8, u8, u8, u8)] = &[
    ("SUCCESS", 0, 0, 0, 0, 0x00, 0x00),
    ("NON_RECOVERABLE_VCPU", 0, 1, 0, 0, 0x00, 0x01),
    ("NON_RECOVERABLE_TD", 0, 1, 1, 0, 0x00, 0x02),
    ("INTERRUPTED_RESUMABLE", 1, 0, 0, 0, 0x00, 0x03),
    ("INTERRUPTED_RESTARTABLE", 1, 0, 0, 0, 0x00, 0x04),
    ("NON_RECOVERABLE_TD_NON_ACCESSIBLE", 0, 1, 1, 0, 0x00, 0x05),
    ("INVALID_RESUMPTION", 1, 1, 0, 0, 0x00, 0x06),
    ("NON_RECOVERABLE_TD_WRONG_APIC_MODE", 1, 1, 1, 0, 0x00, 0x07),
    ("CROSS_TD_FAULT", 1, 0, 0, 0, 0x00, 0x08),
    ("CROSS_TD_TRAP", 1, 0, 0, 1, 0x00, 0x09),
    ("NON_RECOVERABLE_TD_CORRUPTED_MD", 0, 1, 1, 0, 0x00, 0x0a),
    ("OPERAND_INVALID", 1, 1, 0, 0, 0x01, 0x00),
    ("OPERAND_ADDR_RANGE_ERROR", 1, 1, 0, 0, 0x01, 0x01),
    ("OPERAND_BUSY", 1, 0, 0, 0, 0x02, 0x00),
    ("PREVIOUS_TLB_EPOCH_BUSY", 1, 0, 0, 0, 0x02, 0x01),
    ("SYS_BUSY", 1, 0, 0, 0, 0x02, 0x02),
    ("RND_NO_ENTROPY", 1, 0, 0, 0, 0x02, 0x03),
    ("OPERAND_BUSY_HOST_PRIORITY", 1, 0, 0, 0, 0x02, 0x04),
    ("HOST_PRIORITY_BUSY_TIMEOUT", 1, 0, 0, 1, 0x02, 0x05),
    ("PAGE_METADATA_INCORRECT", 1, 1, 0, 0, 0x03, 0x00),
    ("PAGE_ALREADY_FREE", 0, 0, 0, 0, 0x03, 0x01),
    ("PAGE_NOT_OWNED_BY_TD", 1, 1, 0, 0, 0x03, 0x02),
    ("PAGE_NOT_FREE", 1, 1, 0, 0, 0x03, 0x03),
    ("TD_ASSOCIATED_PAGES_EXIST", 1, 1, 0, 0, 0x04, 0x00),
    ("SYS_INIT_NOT_PENDING", 1, 1, 0, 0, 0x05, 0x00),
    ("SYS_LP_INIT_NOT_DONE", 1, 1, 0, 0, 0x05, 0x02),
    ("SYS_LP_INIT_DONE", 1, 1, 0, 0, 0x05, 0x03),
    ("SYS_NOT_READY", 1, 1, 0, 0, 0x05, 0x05),
    ("SYS_SHUTDOWN", 1, 1, 0, 0, 0x05, 0x06),
    ("SYS_KEY_CONFIG_NOT_PENDING", 1, 1, 0, 0, 0x05, 0x07),
    ("SYS_STATE_INCORRECT", 1, 1, 0, 0, 0x05, 0x08),
    ("SYS_INVALID_HANDOFF", 1, 1, 0, 0, 0x05, 0x09),
    ("SYS_INCOMPATIBLE_SIGSTRUCT", 1, 1, 0, 0, 0x05, 0x0a),
    ("SYS_LP_INIT_NOT_PENDING", 1, 1, 0, 0, 0x05, 0x0b),
    ("SYS_CONFIG_NOT_PENDING", 1, 1, 0, 0, 0x05, 0x0c),
    ("INCOMPATIBLE_SEAM_CAPABILITIES", 1, 1, 0, 0, 0x05, 0x0d),
    ("TD_FATAL", 1, 1, 1, 0, 0x06, 0x04),
    ("TD_NON_DEBUG", 1, 1, 0, 0, 0x06, 0x05),
    ("TDCS_NOT_ALLOCATED", 1, 1, 0, 0, 0x06, 0x06),
    ("LIFECYCLE_STATE_INCORRECT", 1, 1, 0, 0, 0x06, 0x07),
    ("OP_STATE_INCORRECT", 1, 1, 0, 0, 0x06, 0x08),
    ("NO_VCPUS", 1, 1, 0, 0, 0x06, 0x09),
    ("TDCX_NUM_INCORRECT", 1, 1, 0, 0, 0x06, 0x10),
    ("VCPU_STATE_INCORRECT", 1, 1, 0, 0, 0x07, 0x00),
    ("VCPU_ASSOCIATED", 1, 0, 0, 0, 0x07, 0x01),
    ("VCPU_NOT_ASSOCIATED", 1, 0, 0, 0, 0x07, 0x02),
    ("NO_VALID_VE_INFO", 1, 1, 0, 0, 0x07, 0x04),
    ("MAX_VCPUS_EXCEEDED", 1, 1, 0, 0, 0x07, 0x05),
    ("TSC_ROLLBACK", 1, 1, 0, 0, 0x07, 0x06),
    ("TD_VMCS_FIELD_NOT_INITIALIZED", 1, 1, 0, 0, 0x07, 0x30),
    ("TD_VMCS_FIELD_ERROR", 1, 1, 0, 0, 0x07, 0x31),
    ("KEY_GENERATION_FAILED", 1, 0, 0, 0, 0x08, 0x00),
    ("TD_KEYS_NOT_CONFIGURED", 1, 0, 0, 0, 0x08, 0x10),
    ("KEY_STATE_INCORRECT", 1, 1, 0, 0, 0x08, 0x11),
    ("KEY_CONFIGURED", 0, 0, 0, 0, 0x08, 0x15),
    ("WBCACHE_NOT_COMPLETE", 1, 0, 0, 0, 0x08, 0x17),
    ("HKID_NOT_FREE", 1, 1, 0, 0, 0x08, 0x20),
    ("NO_HKID_READY_TO_WBCACHE", 0, 0, 0, 0, 0x08, 0x21),
    ("WBCACHE_RESUME_ERROR", 1, 1, 0, 0, 0x08, 0x23),
    ("FLUSHVP_NOT_DONE", 1, 0, 0, 0, 0x08, 0x24),
    ("NUM_ACTIVATED_HKIDS_NOT_SUPPORTED", 1, 1, 0, 0, 0x08, 0x25),
    ("INCORRECT_CPUID_VALUE", 1, 1, 0, 0, 0x09, 0x00),
    ("LIMIT_CPUID_MAXVAL_SET", 1, 1, 0, 0, 0x09, 0x01),
    ("INCONSISTENT_CPUID_FIELD", 1, 1, 0, 0, 0x09, 0x02),
    ("CPUID_MAX_SUBLEAVES_UNRECOGNIZED", 1, 1, 0, 0, 0x09, 0x03),
    ("CPUID_LEAF_1F_FORMAT_UNRECOGNIZED", 1, 1, 0, 0, 0x09, 0x04),
    ("INVALID_WBINVD_SCOPE", 1, 1, 0, 0, 0x09, 0x05),
    ("INVALID_PKG_ID", 1, 1, 0, 0, 0x09, 0x06),
    ("ENABLE_MONITOR_FSM_NOT_SET", 1, 1, 0, 0, 0x09, 0x07),
    ("CPUID_LEAF_NOT_SUPPORTED", 1, 1, 0, 0, 0x09, 0x08),
    ("SMRR_NOT_LOCKED", 1, 1, 0, 0, 0x09, 0x10),
    ("INVALID_SMRR_CONFIGURATION", 1, 1, 0, 0, 0x09, 0x11),
    ("SMRR_OVERLAPS_CMR", 1, 1, 0, 0, 0x09, 0x12),
    ("SMRR_LOCK_NOT_SUPPORTED", 1, 1, 0, 0, 0x09, 0x13),
    ("SMRR_NOT_SUPPORTED", 1, 1, 0, 0, 0x09, 0x14),
    ("INCONSISTENT_MSR", 1, 1, 0, 0, 0x09, 0x20),
    ("INCORRECT_MSR_VALUE", 1, 1, 0, 0, 0x09, 0x21),
    ("SEAMREPORT_NOT_AVAILABLE", 1, 1, 0, 0, 0x09, 0x30),
    ("SEAMDB_GETREF_NOT_AVAILABLE", 1, 1, 0, 0, 0x09, 0x31),
    ("SEAMDB_REPORT_NOT_AVAILABLE", 1, 1, 0, 0, 0x09, 0x32),
    ("SEAMVERIFYREPORT_NOT_AVAILABLE", 1, 1, 0, 0, 0x09, 0x33),
    ("INVALID_TDMR", 1, 1, 0, 0, 0x0a, 0x00),
    ("NON_ORDERED_TDMR", 1, 1, 0, 0, 0x0a, 0x01),
    ("TDMR_OUTSIDE_CMRS", 1, 1, 0, 0, 0x0a, 0x02),
    ("TDMR_ALREADY_INITIALIZED", 0, 0, 0, 0, 0x0a, 0x03),
    ("INVALID_PAMT", 1, 1, 0, 0, 0x0a, 0x10),
    ("PAMT_OUTSIDE_CMRS", 1, 1, 0, 0, 0x0a, 0x11),
    ("PAMT_OVERLAP", 1, 1, 0, 0, 0x0a, 0x12),
    ("INVALID_RESERVED_IN_TDMR", 1, 1, 0, 0, 0x0a, 0x20),
    ("NON_ORDERED_RESERVED_IN_TDMR", 1, 1, 0, 0, 0x0a, 0x21),
    ("CMR_LIST_INVALID", 1, 1, 0, 0, 0x0a, 0x22),
    ("EPT_WALK_FAILED", 1, 1, 0, 0, 0x0b, 0x00),
    ("EPT_ENTRY_FREE", 1, 1, 0, 0, 0x0b, 0x01),
    ("EPT_ENTRY_NOT_FREE", 1, 1, 0, 0, 0x0b, 0x02),
    ("EPT_ENTRY_NOT_PRESENT", 1, 1, 0, 0, 0x0b, 0x03),
    ("EPT_ENTRY_NOT_LEAF", 1, 1, 0, 0, 0x0b, 0x04),
    ("EPT_ENTRY_LEAF", 1, 1, 0, 0, 0x0b, 0x05),
    ("GPA_RANGE_NOT_BLOCKED", 1, 1, 0, 0, 0x0b, 0x06),
    ("GPA_RANGE_ALREADY_BLOCKED", 0, 0, 0, 0, 0x0b, 0x07),
    ("TLB_TRACKING_NOT_DONE", 1, 1, 0, 0, 0x0b, 0x08),
    ("EPT_INVALID_PROMOTE_CONDITIONS", 1, 1, 0, 0, 0x0b, 0x09),
    ("PAGE_ALREADY_ACCEPTED", 0, 0, 0, 0, 0x0b, 0x0a),
    ("PAGE_SIZE_MISMATCH", 1, 1, 0, 0, 0x0b, 0x0b),
    ("GPA_RANGE_BLOCKED", 1, 1, 0, 0, 0x0b, 0x0c),
    ("EPT_ENTRY_STATE_INCORRECT", 1, 1, 0, 0, 0x0b, 0x0d),
    ("EPT_PAGE_NOT_FREE", 1, 1, 0, 0, 0x0b, 0x0e),
    ("L2_SEPT_WALK_FAILED", 1, 1, 0, 0, 0x0b, 0x0f),
    ("L2_SEPT_ENTRY_NOT_FREE", 1, 1, 0, 0, 0x0b, 0x10),
    ("PAGE_ATTR_INVALID", 1, 1, 0, 0, 0x0b, 0x11),
    ("L2_SEPT_PAGE_NOT_PROVIDED", 1, 1, 0, 0, 0x0b, 0x12),
    ("METADATA_FIELD_ID_INCORRECT", 1, 1, 0, 0, 0x0c, 0x00),
    ("METADATA_FIELD_NOT_WRITABLE", 1, 1, 0, 0, 0x0c, 0x01),
    ("METADATA_FIELD_NOT_READABLE", 1, 1, 0, 0, 0x0c, 0x02),
    ("METADATA_FIELD_VALUE_NOT_VALID", 1, 1, 0, 0, 0x0c, 0x03),
    ("METADATA_LIST_OVERFLOW", 1, 1, 0, 0, 0x0c, 0x04),
    ("INVALID_METADATA_LIST_HEADER", 1, 1, 0, 0, 0x0c, 0x05),
    ("REQUIRED_METADATA_FIELD_MISSING", 1, 1, 0, 0, 0x0c, 0x06),
    ("METADATA_ELEMENT_SIZE_INCORRECT", 1, 1, 0, 0, 0x0c, 0x07),
    ("METADATA_LAST_ELEMENT_INCORRECT", 1, 1, 0, 0, 0x0c, 0x08),
    ("METADATA_FIELD_CURRENTLY_NOT_WRITABLE", 1, 1, 0, 0, 0x0c, 0x09),
    ("METADATA_WR_MASK_NOT_VALID", 1, 1, 0, 0, 0x0c, 0x0a),
    ("METADATA_FIRST_FIELD_ID_IN_CONTEXT", 0, 0, 0, 0, 0x0c, 0x0b),
    ("METADATA_FIELD_SKIP", 0, 0, 0, 0, 0x0c, 0x0c),
    ("SERVTD_ALREADY_BOUND_FOR_TYPE", 1, 1, 0, 0, 0x0d, 0x00),
    ("SERVTD_TYPE_MISMATCH", 1, 1, 0, 0, 0x0d, 0x01),
    ("SERVTD_ATTR_MISMATCH", 1, 1, 0, 0, 0x0d, 0x02),
    ("SERVTD_INFO_HASH_MISMATCH", 1, 1, 0, 0, 0x0d, 0x03),
    ("SERVTD_UUID_MISMATCH", 1, 1, 0, 0, 0x0d, 0x04),
    ("SERVTD_NOT_BOUND", 1, 1, 0, 0, 0x0d, 0x05),
    ("SERVTD_BOUND", 1, 1, 0, 0, 0x0d, 0x06),
    ("TARGET_UUID_MISMATCH", 1, 1, 0, 0, 0x0d, 0x07),
    ("TARGET_UUID_UPDATED", 1, 1, 0, 0, 0x0d, 0x08),
    ("INVALID_MBMD", 1, 1, 0, 0, 0x0e, 0x00),
    ("INCORRECT_MBMD_MAC", 1, 1, 0, 0, 0x0e, 0x01),
    ("NOT_WRITE_BLOCKED", 1, 1, 0, 0, 0x0e, 0x02),
    ("ALREADY_WRITE_BLOCKED", 0, 0, 0, 0, 0x0e, 0x03),
    ("NOT_EXPORTED", 1, 1, 0, 0, 0x0e, 0x04),
    ("MIGRATION_STREAM_STATE_INCORRECT", 1, 1, 0, 0, 0x0e, 0x05),
    ("MAX_MIGS_NUM_EXCEEDED", 1, 1, 0, 0, 0x0e, 0x06),
    ("EXPORTED_DIRTY_PAGES_REMAIN", 1, 1, 0, 0, 0x0e, 0x07),
    ("MIGRATION_DECRYPTION_KEY_NOT_SET", 1, 1, 0, 0, 0x0e, 0x08),
    ("TD_NOT_MIGRATABLE", 1, 1, 0, 0, 0x0e, 0x09),
    ("PREVIOUS_EXPORT_CLEANUP_INCOMPLETE", 1, 1, 0, 0, 0x0e, 0x0a),
    ("NUM_MIGS_HIGHER_THAN_CREATED", 1, 1, 0, 0, 0x0e, 0x0b),
    ("IMPORT_MISMATCH", 1, 1, 0, 0, 0x0e, 0x0c),
    ("MIGRATION_EPOCH_OVERFLOW", 1, 1, 0, 0, 0x0e, 0x0d),
    ("MAX_EXPORTS_EXCEEDED", 1, 1, 0, 0, 0x0e, 0x0e),
    ("INVALID_PAGE_MAC", 1, 1, 0, 0, 0x0e, 0x0f),
    ("MIGRATED_IN_CURRENT_EPOCH", 1, 1, 0, 0, 0x0e, 0x10),
    ("DISALLOWED_IMPORT_OVER_REMOVED", 1, 1, 0, 0, 0x0e, 0x11),
    ("SOME_VCPUS_NOT_MIGRATED", 1, 1, 0, 0, 0x0e, 0x12),
    ("ALL_VCPUS_IMPORTED", 1, 1, 0, 0, 0x0e, 0x13),
    ("MIN_MIGS_NOT_CREATED", 1, 1, 0, 0, 0x0e, 0x14),
    ("VCPU_ALREADY_EXPORTED", 1, 1, 0, 0, 0x0e, 0x15),
    ("INVALID_MIGRATION_DECRYPTION_KEY", 1, 1, 0, 0, 0x0e, 0x16),
    ("INVALID_CPUSVN", 1, 1, 0, 0, 0x10, 0x00),
    ("INVALID_REPORTMACSTRUCT", 1, 1, 0, 0, 0x10, 0x01),
    ("L2_EXIT_HOST_ROUTED_ASYNC", 0, 0, 0, 0, 0x11, 0x00),
    ("L2_EXIT_HOST_ROUTED_TDVMCALL", 0, 0, 0, 0, 0x11, 0x01),
    ("L2_EXIT_PENDING_INTERRUPT", 0, 0, 0, 0, 0x11, 0x02),
    ("PENDING_INTERRUPT", 0, 0, 0, 0, 0x11, 0x20),
    ("TD_EXIT_BEFORE_L2_ENTRY", 0, 0, 0, 0, 0x11, 0x40),
    ("TD_EXIT_ON_L2_VM_EXIT", 0, 0, 0, 0, 0x11, 0x41),
    ("TD_EXIT_ON_L2_TO_L1", 0, 0, 0, 0, 0x11, 0x42),
    ("GLA_NOT_CANONICAL", 1, 1, 0, 0, 0x11, 0x60),
    ("UNINITIALIZE_ERROR", 1, 1, 1, 1, 0xff, 0xff),
];

/// Codes that modules after 1.5.01 added: high half and name.
#[rustfmt::skip]
const NEWER: &[(u32, &str)] = &[
    (0xC000_0102, "EVENT_FILTER_INVALID"),
    (0xC000_0103, "EVENT_FILTER_ORDER_INVALID"),
    (0x8000_0206, "INTERRUPTED_BUSY"),
    (0xC000_0304, "HPA_RANGE_NOT_FREE"),
    (0xC000_0305, "NO_PAMT_PAGE_PAIR"),
    (0xC000_0306, "PAMT_PAGE_NOT_EMPTY"),
    (0x8000_0307, "INTERRUPTED_PAMT"),
    (0x8000_0308, "MISSING_PAMT_PAGE_PAIR"),
    (0xC000_0511, "CRYPTO_SELF_TEST_FAILED"),
    (0x8000_0512, "UPDATE_COMPATIBILITY_SENSITIVE"),
    (0xC000_060A, "DEBUG_MEM_NOT_WRITABLE"),
    (0xC000_0621, "X2APIC_ID_NOT_UNIQUE"),
    (0xC000_0622, "INCOMPATIBLE_MRTD_CONTEXT"),
    (0xC000_0707, "INTERRUPTIBILITY_BLOCKED"),
    (0xC000_0C0D, "VIRTUAL_MSR_VALUE_NOT_VALID"),
    (0xC000_0C0E, "METADATA_FIELD_NOT_ALLOCATED"),
    (0xC000_0E22, "INCOMPATIBLE_MBMD_MAC_CONTEXT"),
    (0x8000_1103, "L2_VM_ENTRY_FAILED"),
];

#[rustfmt::skip]
const OPERANDS: &[(u32, &str)] = &[
    (0, "RAX"),
    (1, "RCX"),
    (2, "RDX"),
    (3, "RBX"),
    (5, "RBP"),
    (6, "RSI"),
    (7, "RDI"),
    (8, "R8"),
    (9, "R9"),
    (10, "R10"),
    (11, "R11"),
    (12, "R12"),
    (13, "R13"),
    (14, "R14"),
    (15, "R15"),
    (64, "ATTRIBUTES"),
    (65, "XFAM"),
    (66, "EXEC_CONTROLS"),
    (67, "EPTP_CONTROLS"),
    (68, "MAX_VCPUS"),
    (69, "CPUID_CONFIG"),
    (70, "TSC_FREQUENCY"),
    (71, "NUM_L2_VMS"),
    (72, "IA32_ARCH_CAPABILITIES_CONFIG"),
    (95, "PAGE"),
    (96, "TDMR_INFO_PA"),
    (97, "GPA_LIST_ENTRY"),
    (98, "MIG_BUFF_LIST_ENTRY"),
    (99, "NEW_PAGE_LIST_ENTRY"),
    (128, "TDR"),
    (129, "TDCX"),
    (130, "TDVPR"),
    (132, "REG_PAGE"),
    (144, "TDCS"),
    (145, "TDVPS"),
    (146, "SEPT_TREE"),
    (147, "SEPT_ENTRY"),
    (168, "RTMR"),
    (169, "TD_EPOCH"),
    (170, "L2_VAPIC_GPA"),
    (171, "MIGSC"),
    (172, "OP_STATE"),
    (173, "MIG"),
    (174, "SERVTD_BINDINGS"),
    (176, "METADATA_FIELD"),
    (184, "SYS"),
    (185, "TDMR"),
    (186, "KOT"),
    (187, "KET"),
    (188, "WBCACHE"),
];

#[test]
fn the_table_has_exactly_the_reference_codes_with_their_class_bits() {
    assert_eq!(TABLE.len(), CODES.len() + NEWER.len());
    for (name, error, non_recoverable, fatal, hint, class, code) in CODES {
        let found = StatusCode::from_name(name).unwrap_or_else(|| panic!("{name} is missing"));
        let status = Status::new(found);
        assert_eq!(status.is_error(), *error == 1, "{name}");
        assert_eq!(status.is_non_recoverable(), *non_recoverable == 1, "{name}");
        assert_eq!(status.is_fatal(), *fatal == 1, "{name}");
        assert_eq!(status.has_host_recoverability_hint(), *hint == 1, "{name}");
        assert_eq!((status.class(), status.class_code()), (*class, *code), "{name}");
        assert!(found.class().name().is_some(), "{name} has a named class");
        assert_eq!(found.info().unwrap().since, Release::V1_5_01, "{name}");
        if *class != 0xff {
            assert_eq!(found.0 & 0x0fff_0000, 0, "{name}: bits 59:48 are reserved");
        }
    }
    for (value, name) in NEWER {
        let info = StatusCode(*value).info().unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(info.name, *name);
        assert!(info.since > Release::V1_5_01, "{name}");
    }
}

#[test]
fn operand_ids_are_the_reference_ones() {
    assert_eq!(Operand::ALL.len(), OPERANDS.len());
    for (value, name) in OPERANDS {
        assert_eq!(Operand(*value).name(), Some(*name));
    }
    for reg in crate::regs::Reg::ALL {
        let operand = Operand::from_reg(reg);
        assert_eq!(operand.reg(), Some(reg));
        assert!(operand.name().unwrap().eq_ignore_ascii_case(reg.name()));
    }
    assert_eq!(Operand::TDR.reg(), None);
}

#[test]
fn the_codes_that_are_no_errors_are_those_that_wrappers_return_as_values() {
    let named: std::vec::Vec<_> = TABLE
        .iter()
        .filter(|info| {
            !Status::new(info.code).is_error() && info.code.0 & 0xff00 != 0x1100 && info.code.0 & 0xff00 != 0
        })
        .map(|info| info.name)
        .collect();
    assert_eq!(
        named,
        [
            "PAGE_ALREADY_FREE",
            "KEY_CONFIGURED",
            "NO_HKID_READY_TO_WBCACHE",
            "TDMR_ALREADY_INITIALIZED",
            "GPA_RANGE_ALREADY_BLOCKED",
            "PAGE_ALREADY_ACCEPTED",
            "METADATA_FIRST_FIELD_ID_IN_CONTEXT",
            "METADATA_FIELD_SKIP",
            "ALREADY_WRITE_BLOCKED",
        ]
    );
}
