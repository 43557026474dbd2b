//! The claims.

use tdx_module_iface::StatusCode as C;

use super::Gate::{
    EntryState, FieldId, FieldRead, FieldWrite, Keys, OpState, Page, Tdcs, Tracked, VcpuPages, Walk,
};
use super::{Backing, Degree, Gate, Row};

const fn exact(leaf: &'static str, gates: &'static [Gate], codes: &'static [C], note: &'static str) -> Row {
    Row { leaf, degree: Degree::Exact, backing: Backing::Recording, gates, codes, note }
}

const fn partial(leaf: &'static str, gates: &'static [Gate], codes: &'static [C], note: &'static str) -> Row {
    Row { leaf, degree: Degree::Partial, backing: Backing::Recording, gates, codes, note }
}

const fn by_rule(leaf: &'static str, gates: &'static [Gate], codes: &'static [C], note: &'static str) -> Row {
    Row { leaf, degree: Degree::Exact, backing: Backing::Rule, gates, codes, note }
}

/// A leaf that only fails, as it did when it was recorded.
const fn never(leaf: &'static str, codes: &'static [C], note: &'static str) -> Row {
    Row { leaf, degree: Degree::Absent, backing: Backing::Recording, gates: &[], codes, note }
}

const fn absent(leaf: &'static str, note: &'static str) -> Row {
    let codes = &[C::OPERAND_INVALID];
    Row { leaf, degree: Degree::Absent, backing: Backing::None, gates: &[], codes, note }
}

const MIGRATION: &str = "migration is not emulated: OPERAND_INVALID on RAX, as for an unknown leaf";
const SERVICE_TD: &str = "service TDs are not emulated: OPERAND_INVALID on RAX, as for an unknown leaf";
const NO_SERVICE_TD: &str = "no service TD can be bound: OPERAND_INVALID on RCX";
const PARTITIONING: &str = "entry into L2 VMs is not emulated: OPERAND_INVALID on RCX";
const MEMORY: &[Gate] = &[Page, Keys, Tdcs, OpState, Walk, EntryState];
const REMOVING: &[Gate] = &[Page, Keys, Tdcs, OpState, Walk, EntryState, Tracked];

/// One row per leaf, host side first, by name.
#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    exact("TDH.MEM.PAGE.ADD", MEMORY, &[], ""),
    exact("TDH.MEM.PAGE.AUG", MEMORY, &[], ""),
    exact("TDH.MEM.PAGE.DEMOTE", REMOVING, &[C::INTERRUPTED_RESTARTABLE, C::L2_SEPT_WALK_FAILED],
        "late 1.5 and 2.0 profiles are not interrupted; no L2 VM maps pages, so that none of its tables is missed"),
    exact("TDH.MEM.PAGE.PROMOTE", REMOVING, &[C::INTERRUPTED_RESTARTABLE, C::EPT_INVALID_PROMOTE_CONDITIONS], ""),
    exact("TDH.MEM.PAGE.RELOCATE", REMOVING, &[], ""),
    exact("TDH.MEM.PAGE.REMOVE", REMOVING, &[], ""),
    exact("TDH.MEM.RANGE.BLOCK", MEMORY, &[C::GPA_RANGE_ALREADY_BLOCKED], ""),
    exact("TDH.MEM.RANGE.UNBLOCK", MEMORY, &[C::TLB_TRACKING_NOT_DONE], ""),
    exact("TDH.MEM.RD", &[Page, Keys, Tdcs, OpState], &[C::TD_NON_DEBUG, C::EPT_ENTRY_NOT_PRESENT], ""),
    exact("TDH.MEM.SEPT.ADD", MEMORY, &[C::INTERRUPTED_RESUMABLE, C::L2_SEPT_WALK_FAILED, C::L2_SEPT_ENTRY_NOT_FREE], ""),
    exact("TDH.MEM.SEPT.RD", &[Page, Keys, Tdcs, OpState, Walk], &[], ""),
    exact("TDH.MEM.SEPT.REMOVE", REMOVING, &[C::EPT_PAGE_NOT_FREE], ""),
    exact("TDH.MEM.TRACK", &[Page, Keys, Tdcs, OpState], &[C::PREVIOUS_TLB_EPOCH_BUSY], ""),
    exact("TDH.MEM.WR", &[Page, Keys, Tdcs, OpState], &[C::TD_NON_DEBUG, C::EPT_ENTRY_NOT_PRESENT], ""),
    exact("TDH.MNG.ADDCX", &[Page, Keys, OpState], &[C::TDCX_NUM_INCORRECT, C::RND_NO_ENTROPY], ""),
    exact("TDH.MNG.CREATE", &[Page], &[C::HKID_NOT_FREE, C::RND_NO_ENTROPY], ""),
    exact("TDH.MNG.INIT", &[Page, Keys, Tdcs, OpState], &[],
        "values that depend on the processor's CPUID are those of the emulated processor"),
    exact("TDH.MNG.KEY.CONFIG", &[Page], &[C::TD_FATAL, C::LIFECYCLE_STATE_INCORRECT, C::KEY_CONFIGURED, C::KEY_GENERATION_FAILED], ""),
    exact("TDH.MNG.KEY.FREEID", &[Page], &[C::LIFECYCLE_STATE_INCORRECT, C::WBCACHE_NOT_COMPLETE], ""),
    exact("TDH.MNG.KEY.RECLAIMID", &[], &[], "does nothing, as in the module"),
    partial("TDH.MNG.RD", &[Page, Keys, Tdcs, OpState, FieldId, FieldRead], &[],
        "virtual VMX MSRs, extended-state layout and migration fields read as zero or as plain values"),
    exact("TDH.MNG.VPFLUSHDONE", &[Page], &[C::LIFECYCLE_STATE_INCORRECT, C::FLUSHVP_NOT_DONE], ""),
    exact("TDH.MNG.WR", &[Page, Keys, Tdcs, OpState, FieldId, FieldWrite], &[C::METADATA_WR_MASK_NOT_VALID], ""),
    exact("TDH.MR.EXTEND", &[Page, Keys, Tdcs, OpState], &[C::EPT_ENTRY_NOT_PRESENT], ""),
    exact("TDH.MR.FINALIZE", &[Page, Keys, Tdcs, OpState], &[C::NO_VCPUS], ""),
    exact("TDH.PHYMEM.CACHE.WB", &[], &[C::OPERAND_INVALID, C::OPERAND_BUSY, C::NO_HKID_READY_TO_WBCACHE, C::WBCACHE_RESUME_ERROR, C::INTERRUPTED_RESUMABLE],
        "how often it looks for interrupts is a parameter of the machine"),
    exact("TDH.PHYMEM.PAGE.RDMD", &[], &[C::OPERAND_INVALID, C::OPERAND_ADDR_RANGE_ERROR, C::OPERAND_BUSY],
        "owner and epoch of a free page are whatever was there before"),
    exact("TDH.PHYMEM.PAGE.RECLAIM", &[Page], &[C::LIFECYCLE_STATE_INCORRECT, C::TD_ASSOCIATED_PAGES_EXIST], ""),
    exact("TDH.PHYMEM.PAGE.WBINVD", &[Page], &[], ""),
    by_rule("TDH.PHYMEM.PAMT.ADD", &[Page], &[C::HPA_RANGE_NOT_FREE],
        "release 2.0 with dynamic PAMT; otherwise OPERAND_INVALID on RAX"),
    by_rule("TDH.PHYMEM.PAMT.REMOVE", &[], &[C::OPERAND_INVALID, C::OPERAND_ADDR_RANGE_ERROR, C::OPERAND_BUSY,
        C::NO_PAMT_PAGE_PAIR, C::PAMT_PAGE_NOT_EMPTY], "release 2.0 with dynamic PAMT; otherwise OPERAND_INVALID on RAX"),
    exact("TDH.SYS.CONFIG", &[], &[C::OPERAND_INVALID, C::SYS_BUSY, C::SYS_CONFIG_NOT_PENDING, C::INVALID_TDMR, C::NON_ORDERED_TDMR,
        C::INVALID_RESERVED_IN_TDMR, C::NON_ORDERED_RESERVED_IN_TDMR, C::INVALID_PAMT, C::PAMT_OVERLAP, C::PAMT_OUTSIDE_CMRS, C::TDMR_OUTSIDE_CMRS], ""),
    exact("TDH.SYS.INFO", &[], &[C::OPERAND_INVALID, C::SYS_LP_INIT_NOT_DONE], ""),
    partial("TDH.SYS.INIT", &[], &[C::OPERAND_INVALID, C::SYS_BUSY, C::SYS_INIT_NOT_PENDING, C::RND_NO_ENTROPY],
        "the checks of the platform's registers always pass"),
    exact("TDH.SYS.KEY.CONFIG", &[], &[C::OPERAND_BUSY, C::SYS_BUSY, C::SYS_KEY_CONFIG_NOT_PENDING, C::KEY_CONFIGURED, C::KEY_GENERATION_FAILED], ""),
    partial("TDH.SYS.LP.INIT", &[], &[C::SYS_BUSY, C::SYS_LP_INIT_NOT_PENDING, C::SYS_LP_INIT_DONE],
        "the checks of the platform's registers always pass"),
    exact("TDH.SYS.LP.SHUTDOWN", &[], &[], "no state of the processor depends on it"),
    exact("TDH.SYS.RD", &[FieldId], &[C::METADATA_FIRST_FIELD_ID_IN_CONTEXT, C::SYS_LP_INIT_NOT_DONE], ""),
    exact("TDH.SYS.RDALL", &[], &[C::OPERAND_INVALID, C::SYS_LP_INIT_NOT_DONE, C::METADATA_FIELD_ID_INCORRECT], ""),
    partial("TDH.SYS.SHUTDOWN", &[], &[C::OPERAND_INVALID, C::SYS_BUSY], "no handoff data is written"),
    exact("TDH.SYS.TDMR.INIT", &[], &[C::OPERAND_INVALID, C::OPERAND_BUSY, C::TDMR_ALREADY_INITIALIZED], ""),
    never("TDH.SYS.UPDATE", &[C::SYS_BUSY, C::SYS_STATE_INCORRECT, C::SYS_INVALID_HANDOFF],
        "always fails: there is no handoff data"),
    exact("TDH.VP.ADDCX", &[Page, Keys, OpState], &[C::TDCX_NUM_INCORRECT, C::VCPU_STATE_INCORRECT], ""),
    exact("TDH.VP.CREATE", &[Page, Keys, Tdcs, OpState], &[], ""),
    partial("TDH.VP.ENTER", &[Page, Keys, OpState, VcpuPages], &[C::VCPU_STATE_INCORRECT, C::VCPU_ASSOCIATED, C::TSC_ROLLBACK,
        C::NON_RECOVERABLE_VCPU, C::NON_RECOVERABLE_TD, C::NON_RECOVERABLE_TD_NON_ACCESSIBLE, C::HOST_PRIORITY_BUSY_TIMEOUT],
        "exits that need L2 VMs, service TDs, SMM or the bus-lock and notify detectors do not occur"),
    exact("TDH.VP.FLUSH", &[Page], &[C::TD_KEYS_NOT_CONFIGURED, C::TDCX_NUM_INCORRECT, C::VCPU_NOT_ASSOCIATED], ""),
    exact("TDH.VP.INIT", &[Page, Keys, OpState, VcpuPages], &[C::VCPU_STATE_INCORRECT, C::MAX_VCPUS_EXCEEDED], ""),
    partial("TDH.VP.RD", &[Page, Keys, VcpuPages, FieldId, FieldRead], &[C::VCPU_STATE_INCORRECT, C::VCPU_ASSOCIATED],
        "VMCS fields that the emulator does not use hold what was written to them"),
    exact("TDH.VP.WR", &[Page, Keys, VcpuPages, FieldId, FieldWrite], &[C::VCPU_STATE_INCORRECT, C::VCPU_ASSOCIATED, C::TD_VMCS_FIELD_NOT_INITIALIZED], ""),
    absent("TDH.EXPORT.ABORT", MIGRATION), absent("TDH.EXPORT.BLOCKW", MIGRATION), absent("TDH.EXPORT.MEM", MIGRATION),
    absent("TDH.EXPORT.PAUSE", MIGRATION), absent("TDH.EXPORT.RESTORE", MIGRATION),
    absent("TDH.EXPORT.STATE.IMMUTABLE", MIGRATION), absent("TDH.EXPORT.STATE.TD", MIGRATION),
    absent("TDH.EXPORT.STATE.VP", MIGRATION), absent("TDH.EXPORT.TRACK", MIGRATION), absent("TDH.EXPORT.UNBLOCKW", MIGRATION),
    absent("TDH.IMPORT.ABORT", MIGRATION), absent("TDH.IMPORT.COMMIT", MIGRATION), absent("TDH.IMPORT.END", MIGRATION),
    absent("TDH.IMPORT.MEM", MIGRATION), absent("TDH.IMPORT.STATE.IMMUTABLE", MIGRATION), absent("TDH.IMPORT.STATE.TD", MIGRATION),
    absent("TDH.IMPORT.STATE.VP", MIGRATION), absent("TDH.IMPORT.TRACK", MIGRATION), absent("TDH.MIG.STREAM.CREATE", MIGRATION),
    absent("TDH.SERVTD.BIND", SERVICE_TD), absent("TDH.SERVTD.PREBIND", SERVICE_TD),

    exact("TDG.MEM.PAGE.ACCEPT", &[], &[C::OPERAND_INVALID, C::OPERAND_BUSY, C::PAGE_ALREADY_ACCEPTED, C::PAGE_SIZE_MISMATCH], ""),
    exact("TDG.MR.REPORT", &[], &[C::OPERAND_INVALID, C::OPERAND_BUSY],
        "MAC, CPUSVN and TEE_TCB_INFO are the emulator's own"),
    exact("TDG.MR.RTMR.EXTEND", &[], &[C::OPERAND_INVALID, C::OPERAND_BUSY], ""),
    exact("TDG.MR.VERIFYREPORT", &[], &[C::OPERAND_INVALID, C::INVALID_CPUSVN, C::INVALID_REPORTMACSTRUCT], ""),
    exact("TDG.SYS.RD", &[FieldId, FieldRead], &[], ""),
    exact("TDG.SYS.RDALL", &[], &[C::OPERAND_INVALID, C::METADATA_FIELD_ID_INCORRECT], ""),
    exact("TDG.VM.RD", &[FieldId, FieldRead], &[C::OPERAND_INVALID], ""),
    exact("TDG.VM.WR", &[FieldId, FieldWrite], &[C::OPERAND_INVALID], ""),
    exact("TDG.VP.CPUIDVE.SET", &[], &[C::OPERAND_INVALID], ""),
    exact("TDG.VP.INFO", &[], &[], ""),
    exact("TDG.VP.RD", &[FieldId, FieldRead], &[C::OPERAND_INVALID], ""),
    exact("TDG.VP.VEINFO.GET", &[], &[C::NO_VALID_VE_INFO], ""),
    exact("TDG.VP.VMCALL", &[], &[C::OPERAND_INVALID], "XMM registers are passed by rule; none is recorded"),
    exact("TDG.VP.WR", &[FieldId], &[C::OPERAND_INVALID, C::METADATA_FIELD_NOT_WRITABLE], ""),
    absent("TDG.MEM.PAGE.ATTR.RD", PARTITIONING), absent("TDG.MEM.PAGE.ATTR.WR", PARTITIONING),
    absent("TDG.SERVTD.RD", NO_SERVICE_TD), absent("TDG.SERVTD.WR", NO_SERVICE_TD),
    absent("TDG.VP.ENTER", PARTITIONING), absent("TDG.VP.INVEPT", PARTITIONING), absent("TDG.VP.INVVPID", PARTITIONING),
];

/// What the emulator leaves out on purpose.
pub const NOT_MODELLED: &[(&str, &str)] = &[
    ("Time", "no call takes as long as on hardware, and none longer for one input than for another"),
    ("Side channels", "caches, branch predictors and power have no state that an attacker could observe"),
    (
        "Cryptography of memory",
        "pages carry their key id instead of being encrypted; without the key there is a pattern, not ciphertext",
    ),
    ("SMM, SMRR and MCHECK", "the platform is taken to be set up correctly"),
    ("Machine-check banks", "a broken page ends its TD; no error is logged in MSRs"),
    ("TD preserving update", "the module cannot be replaced while TDs live"),
    ("Bus-lock and notify exits", "the detectors do not exist"),
    ("Notification of zero-stepping", "NOTIFY_ENABLES can be read and written; no #VE follows from it"),
    (
        "Single-stepping",
        "a guest that is interrupted soon is not let run on for a random number of instructions",
    ),
];
