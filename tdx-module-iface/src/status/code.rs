//! The status codes (bits 63:32 of RAX) and, for each, what it means to whoever has to act on it.

use core::fmt;

use super::DetailsKind::{self, *};
use crate::release::Release;

/// A status code: the high half of RAX, class bits included, details excluded.
///
/// An open enumeration: unknown codes keep their number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct StatusCode(pub u32);

/// What is known about a status code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatusInfo {
    /// The code.
    pub code: StatusCode,
    /// The code's name in the ABI, without the `TDX_` prefix.
    pub name: &'static str,
    /// What the low half of the status is.
    pub details: DetailsKind,
    /// The first release that has it.
    pub since: Release,
    /// What usually leads to it.
    pub cause: &'static str,
    /// What to do.
    pub action: &'static str,
}

macro_rules! status_codes {
    ($( $name:ident = $value:literal, $release:ident, $details:ident, $cause:literal, $action:literal; )*) => {
        impl StatusCode {
            $(
                #[doc = concat!("Usual cause: ", $cause, ".")]
                pub const $name: Self = Self($value);
            )*

            /// Every known code.
            pub const ALL: &'static [Self] = &[ $( Self::$name ),* ];
        }

        /// What is known about every status code.
        pub const TABLE: &[StatusInfo] = &[
            $( StatusInfo {
                code: StatusCode::$name,
                name: stringify!($name),
                details: $details,
                since: Release::$release,
                cause: $cause,
                action: $action,
            } ),*
        ];
    };
}

impl StatusCode {
    /// What is known about the code; `None` where nothing is.
    pub fn info(self) -> Option<&'static StatusInfo> {
        TABLE.iter().find(|info| info.code == self)
    }

    /// The name of the code in the ABI, without the `TDX_` prefix.
    pub fn name(self) -> Option<&'static str> {
        self.info().map(|info| info.name)
    }

    /// The code of this name, with or without the `TDX_` prefix.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.strip_prefix("TDX_").unwrap_or(name);
        TABLE.iter().find(|info| info.name == name).map(|info| info.code)
    }
}

impl fmt::Display for StatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "unknown status code {:#010x}", self.0),
        }
    }
}

impl fmt::Debug for StatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

status_codes! {
    SUCCESS = 0x0000_0000, V1_5_01, VmxExitReason,
        "the call did what it was asked for; from VP.ENTER, an ordinary TD exit with its reason in the \
             details",
        "go on";
    NON_RECOVERABLE_VCPU = 0x4000_0001, V1_5_01, VmxExitReason,
        "the VCPU cannot go on, usually after a triple fault in the guest; it is disabled, other VCPUs \
             are not affected",
        "do not enter this VCPU again; look at the guest's log, then tear the TD down or let its other \
             VCPUs finish";
    NON_RECOVERABLE_TD = 0x6000_0002, V1_5_01, VmxExitReason,
        "the TD cannot go on: a VM entry failed or an exit happened that a TD must not have",
        "flush the VCPUs and tear the TD down; the exit reason in the details says what happened";
    INTERRUPTED_RESUMABLE = 0x8000_0003, V1_5_01, NoDetails,
        "an interrupt is pending for the host; the progress so far is saved",
        "handle the interrupt, then call again with the operands as the call returned them";
    INTERRUPTED_RESTARTABLE = 0x8000_0004, V1_5_01, NoDetails,
        "an interrupt is pending for the host; nothing was changed",
        "handle the interrupt, then issue the identical call";
    NON_RECOVERABLE_TD_NON_ACCESSIBLE = 0x6000_0005, V1_5_01, VmxExitReason,
        "the TD's memory or state cannot be read any more: a machine check or poisoned memory",
        "tear the TD down; keep its pages out of use until the memory error is understood";
    INVALID_RESUMPTION = 0xC000_0006, V1_5_01, NoDetails,
        "a call claims to resume an interrupted one but its operands are not those that were returned",
        "resume with exactly the returned operands, or start over";
    NON_RECOVERABLE_TD_WRONG_APIC_MODE = 0xE000_0007, V1_5_01, VmxExitReason,
        "the local APIC's mode changed while the TD was running",
        "tear the TD down; do not switch the APIC mode of an LP that runs TDs";
    CROSS_TD_FAULT = 0x8000_0008, V1_5_01, VmxExitReason,
        "a guest leaf that works on another TD could not proceed; the guest will execute it again",
        "remove what blocks the other TD (its details are in the exit), then enter again";
    CROSS_TD_TRAP = 0x9000_0009, V1_5_01, VmxExitReason,
        "a guest leaf that works on another TD could not proceed and has told its guest",
        "act on it if you can, then enter again with the host-recoverability hint";
    NON_RECOVERABLE_TD_CORRUPTED_MD = 0x6000_000A, V1_5_01, VmxExitReason,
        "the TD's metadata is corrupted: an integrity check of its control pages failed",
        "tear the TD down; suspect memory or something that wrote to its pages with another key";
    OPERAND_INVALID = 0xC000_0100, V1_5_01, OperandId,
        "an operand has a value that the leaf never accepts: reserved bits, wrong alignment, out of \
             range, or a leaf or version that does not exist",
        "correct the operand that the details name";
    OPERAND_ADDR_RANGE_ERROR = 0xC000_0101, V1_5_01, OperandId,
        "the address is not inside an initialised TDMR, or lies in a reserved area",
        "use memory that SYS.CONFIG handed over and SYS.TDMR.INIT has reached";
    OPERAND_BUSY = 0x8000_0200, V1_5_01, OperandId,
        "another LP, or the guest itself, holds the lock of the operand or object",
        "call again; if it persists, kick the VCPUs out of the guest first";
    PREVIOUS_TLB_EPOCH_BUSY = 0x8000_0201, V1_5_01, NoDetails,
        "a VCPU has not left the guest since the epoch before the current one",
        "kick the VCPUs out of the guest, then call MEM.TRACK again";
    SYS_BUSY = 0x8000_0202, V1_5_01, NoDetails,
        "another LP is inside a system leaf that excludes all others",
        "call again when that LP is done";
    RND_NO_ENTROPY = 0x8000_0203, V1_5_01, NoDetails,
        "the processor's random-number generator had nothing to give",
        "call again, a bounded number of times";
    OPERAND_BUSY_HOST_PRIORITY = 0x8000_0204, V1_5_01, OperandId,
        "a guest leaf met a lock for which the host is waiting; guests see this as OPERAND_BUSY",
        "nothing to do for a host; a guest executes the leaf again";
    HOST_PRIORITY_BUSY_TIMEOUT = 0x9000_0205, V1_5_01, VmxExitReason,
        "the guest waited for a lock longer than HP_LOCK_TIMEOUT while the host had priority",
        "finish the host call that failed with OPERAND_BUSY on this object, then enter again with the \
             host-recoverability hint";
    PAGE_METADATA_INCORRECT = 0xC000_0300, V1_5_01, OperandId,
        "the page is not what the leaf expects: in use where a free one is needed, free where one in use \
             is, or of another type or size",
        "look the page up with PHYMEM.PAGE.RDMD; pass a page of the right kind";
    PAGE_ALREADY_FREE = 0x0000_0301, V1_5_01, OperandId,
        "the page is free already",
        "nothing to do";
    PAGE_NOT_OWNED_BY_TD = 0xC000_0302, V1_5_01, OperandId,
        "the page belongs to another TD",
        "check which TDR and which page belong together";
    PAGE_NOT_FREE = 0xC000_0303, V1_5_01, OperandId,
        "the page is in use",
        "pass a page whose PAMT type is NDA";
    TD_ASSOCIATED_PAGES_EXIST = 0xC000_0400, V1_5_01, NoDetails,
        "the TD still owns pages, so its root page cannot be reclaimed",
        "reclaim every other page of the TD first; TD field CHLDCNT counts them";
    SYS_INIT_NOT_PENDING = 0xC000_0500, V1_5_01, NoDetails,
        "SYS.INIT was called already",
        "go on with SYS.LP.INIT";
    SYS_LP_INIT_NOT_DONE = 0xC000_0502, V1_5_01, NoDetails,
        "this LP has not been initialised",
        "call SYS.LP.INIT on this LP first";
    SYS_LP_INIT_DONE = 0xC000_0503, V1_5_01, NoDetails,
        "this LP is initialised already",
        "go on";
    SYS_NOT_READY = 0xC000_0505, V1_5_01, NoDetails,
        "the module is not fully initialised, so it accepts only bring-up leaves",
        "finish the bring-up: SYS.INIT, LP.INIT on every LP, SYS.CONFIG, KEY.CONFIG on every package";
    SYS_SHUTDOWN = 0xC000_0506, V1_5_01, NoDetails,
        "the module is shut down",
        "load and initialise a module again";
    SYS_KEY_CONFIG_NOT_PENDING = 0xC000_0507, V1_5_01, NoDetails,
        "SYS.CONFIG has not run, or every package has the key already",
        "call SYS.CONFIG first; otherwise go on";
    SYS_STATE_INCORRECT = 0xC000_0508, V1_5_01, NoDetails,
        "the module is not in the state that this leaf needs, for example an update without a shutdown \
             before",
        "follow the order of the update protocol";
    SYS_INVALID_HANDOFF = 0xC000_0509, V1_5_01, NoDetails,
        "the data that the module before left behind is missing or not understood by this one",
        "load a module that supports the handoff version, or start afresh without preserving TDs";
    SYS_INCOMPATIBLE_SIGSTRUCT = 0xC000_050A, V1_5_01, NoDetails,
        "the loaded module's signature structure does not fit this platform",
        "load a module that is built for this processor";
    SYS_LP_INIT_NOT_PENDING = 0xC000_050B, V1_5_01, NoDetails,
        "LPs cannot be initialised now: SYS.INIT has not run, or SYS.CONFIG has already",
        "call SYS.INIT first; LPs cannot be added later";
    SYS_CONFIG_NOT_PENDING = 0xC000_050C, V1_5_01, NoDetails,
        "SYS.CONFIG is not due: not every LP is initialised, or it has run already",
        "call SYS.LP.INIT on every LP first";
    INCOMPATIBLE_SEAM_CAPABILITIES = 0xC000_050D, V1_5_01, NoDetails,
        "the processor's SEAM mode lacks something that the module needs",
        "update microcode, or use a module that fits the processor";
    TD_FATAL = 0xE000_0604, V1_5_01, NoDetails,
        "the TD suffered a fatal error before and accepts only teardown",
        "flush the VCPUs, then VPFLUSHDONE, CACHE.WB, KEY.FREEID and reclaim its pages";
    TD_NON_DEBUG = 0xC000_0605, V1_5_01, NoDetails,
        "the leaf reads or writes a TD's private state, and the TD is not a debug TD",
        "only TDs created with ATTRIBUTES.DEBUG can be inspected";
    TDCS_NOT_ALLOCATED = 0xC000_0606, V1_5_01, NoDetails,
        "the TD's control pages are not all there",
        "add them with MNG.ADDCX (six, and one per L2 VM)";
    LIFECYCLE_STATE_INCORRECT = 0xC000_0607, V1_5_01, NoDetails,
        "the TD's key is not in the state that the leaf needs: configuring it twice, or reclaiming before \
             teardown",
        "follow the order CREATE, KEY.CONFIG, ..., VPFLUSHDONE, CACHE.WB, KEY.FREEID, RECLAIM; TD field \
             LIFECYCLE_STATE says where the TD is";
    OP_STATE_INCORRECT = 0xC000_0608, V1_5_01, NoDetails,
        "the TD is in a phase in which this leaf is not allowed, such as adding pages after finalisation \
             or entering before it",
        "TD field OP_STATE says where the TD is; call the leaf in its phase";
    NO_VCPUS = 0xC000_0609, V1_5_01, NoDetails,
        "the TD has no initialised VCPU, so it cannot be finalised",
        "create and initialise a VCPU first";
    TDCX_NUM_INCORRECT = 0xC000_0610, V1_5_01, NoDetails,
        "too few or too many control pages",
        "add exactly as many pages as the TD or VCPU needs (SYS fields TDCS_BASE_SIZE and \
             TDVPS_BASE_SIZE)";
    VCPU_STATE_INCORRECT = 0xC000_0700, V1_5_01, NoDetails,
        "the VCPU is running on another LP, is disabled after a fatal exit, or is not (or already) \
             initialised",
        "wait until it has left the guest; a disabled VCPU cannot be entered again";
    VCPU_ASSOCIATED = 0x8000_0701, V1_5_01, NoDetails,
        "the VCPU is associated with another LP",
        "call VP.FLUSH on that LP first";
    VCPU_NOT_ASSOCIATED = 0x8000_0702, V1_5_01, NoDetails,
        "the VCPU is not associated with this LP",
        "nothing to flush here; call on the LP where it last ran";
    NO_VALID_VE_INFO = 0xC000_0704, V1_5_01, NoDetails,
        "the guest asked for #VE information and none is waiting",
        "only a #VE handler that has not asked before gets an answer";
    MAX_VCPUS_EXCEEDED = 0xC000_0705, V1_5_01, NoDetails,
        "the TD has MAX_VCPUS VCPUs already",
        "create the TD with a larger MAX_VCPUS";
    TSC_ROLLBACK = 0xC000_0706, V1_5_01, NoDetails,
        "the time-stamp counter is lower than at the VCPU's last exit",
        "do not let the TSC go back, for instance over suspend; the TD cannot run until it has caught up";
    TD_VMCS_FIELD_NOT_INITIALIZED = 0xC000_0730, V1_5_01, NoDetails,
        "a VMCS field that the entry needs was never written, for example the shared EPT pointer",
        "write the field with VP.WR before the first entry";
    TD_VMCS_FIELD_ERROR = 0xC000_0731, V1_5_01, NoDetails,
        "a VMCS field that the host controls has a value that the entry refuses",
        "correct the field with VP.WR";
    KEY_GENERATION_FAILED = 0x8000_0800, V1_5_01, NoDetails,
        "the processor could not generate a key, usually for lack of entropy",
        "call again, a bounded number of times";
    TD_KEYS_NOT_CONFIGURED = 0x8000_0810, V1_5_01, NoDetails,
        "the TD's key is not configured on every package, or the TD is past VPFLUSHDONE",
        "call MNG.KEY.CONFIG on one LP of every package; a TD in teardown accepts only reclaiming";
    KEY_STATE_INCORRECT = 0xC000_0811, V1_5_01, NoDetails,
        "the key id is not in the state that the leaf needs",
        "follow the key's life cycle";
    KEY_CONFIGURED = 0x0000_0815, V1_5_01, NoDetails,
        "the key is configured on this package already",
        "go on with the next package";
    WBCACHE_NOT_COMPLETE = 0x8000_0817, V1_5_01, NoDetails,
        "caches of at least one package were not written back since the VCPUs were flushed",
        "call PHYMEM.CACHE.WB on one LP of every package until it is done";
    HKID_NOT_FREE = 0xC000_0820, V1_5_01, NoDetails,
        "the key id belongs to another TD, to the module itself, or is still being flushed",
        "take another private key id, or free this one first";
    NO_HKID_READY_TO_WBCACHE = 0x0000_0821, V1_5_01, NoDetails,
        "no key id waits for its caches to be written back",
        "nothing to do";
    WBCACHE_RESUME_ERROR = 0xC000_0823, V1_5_01, NoDetails,
        "resuming a write-back that was not interrupted on this package",
        "start a new cycle (RCX = 0)";
    FLUSHVP_NOT_DONE = 0x8000_0824, V1_5_01, NoDetails,
        "a VCPU of the TD is still associated with an LP",
        "call VP.FLUSH for each VCPU on the LP where it last ran";
    NUM_ACTIVATED_HKIDS_NOT_SUPPORTED = 0xC000_0825, V1_5_01, NoDetails,
        "the platform has more private key ids than the module supports",
        "reserve fewer key ids for TDX in the firmware setup";
    INCORRECT_CPUID_VALUE = 0xC000_0900, V1_5_01, CpuidLeaf,
        "CPUID reports something that the module cannot work with",
        "update microcode and firmware; this processor may not be supported";
    LIMIT_CPUID_MAXVAL_SET = 0xC000_0901, V1_5_01, NoDetails,
        "IA32_MISC_ENABLE limits the highest CPUID leaf",
        "clear \"limit CPUID maxval\" in IA32_MISC_ENABLE (a firmware option for old systems)";
    INCONSISTENT_CPUID_FIELD = 0xC000_0902, V1_5_01, CpuidLeaf,
        "CPUID differs between this LP and the first one",
        "run the same microcode and firmware configuration on all processors";
    CPUID_MAX_SUBLEAVES_UNRECOGNIZED = 0xC000_0903, V1_5_01, CpuidLeaf,
        "a CPUID leaf has more subleaves than the module knows",
        "use a newer module";
    CPUID_LEAF_1F_FORMAT_UNRECOGNIZED = 0xC000_0904, V1_5_01, NoDetails,
        "the topology in CPUID leaf 0x1F has a form that the module does not know",
        "use a newer module or check the virtualised topology";
    INVALID_WBINVD_SCOPE = 0xC000_0905, V1_5_01, NoDetails,
        "WBINVD does not reach as far as the module needs",
        "this processor or topology is not supported";
    INVALID_PKG_ID = 0xC000_0906, V1_5_01, NoDetails,
        "this LP's package number is out of range",
        "check the topology that firmware reports";
    ENABLE_MONITOR_FSM_NOT_SET = 0xC000_0907, V1_5_01, NoDetails,
        "the MONITOR state machine is disabled",
        "enable MONITOR/MWAIT in firmware";
    CPUID_LEAF_NOT_SUPPORTED = 0xC000_0908, V1_5_01, CpuidLeaf,
        "a CPUID leaf that the module needs does not exist",
        "update microcode; this processor may not be supported";
    SMRR_NOT_LOCKED = 0xC000_0910, V1_5_01, NoDetails,
        "the SMM range registers are not locked",
        "firmware has to lock SMRR before TDX is used";
    INVALID_SMRR_CONFIGURATION = 0xC000_0911, V1_5_01, NoDetails,
        "the SMM range registers hold an invalid range",
        "correct the firmware's SMRR setup";
    SMRR_OVERLAPS_CMR = 0xC000_0912, V1_5_01, NoDetails,
        "the SMM range lies inside memory that is declared convertible",
        "correct the firmware's memory map";
    SMRR_LOCK_NOT_SUPPORTED = 0xC000_0913, V1_5_01, NoDetails,
        "the processor cannot lock its SMM range registers",
        "this processor is not supported";
    SMRR_NOT_SUPPORTED = 0xC000_0914, V1_5_01, NoDetails,
        "the processor has no SMM range registers",
        "this processor is not supported";
    INCONSISTENT_MSR = 0xC000_0920, V1_5_01, MsrIndex,
        "an MSR differs between LPs, or IA32_TSC_ADJUST changed since the module was initialised",
        "give the MSR in the details the same value on all LPs; do not write IA32_TSC_ADJUST";
    INCORRECT_MSR_VALUE = 0xC000_0921, V1_5_01, MsrIndex,
        "an MSR has a value that the module or the guest entry cannot work with",
        "restore the MSR that the details name";
    SEAMREPORT_NOT_AVAILABLE = 0xC000_0930, V1_5_01, NoDetails,
        "the processor cannot make SEAM reports now",
        "check that attestation is set up and the microcode is current";
    SEAMDB_GETREF_NOT_AVAILABLE = 0xC000_0931, V1_5_01, NoDetails,
        "the processor lacks SEAMDB_GETREF",
        "use a module that does not need it, or newer microcode";
    SEAMDB_REPORT_NOT_AVAILABLE = 0xC000_0932, V1_5_01, NoDetails,
        "the processor lacks SEAMDB_REPORT",
        "use a module that does not need it, or newer microcode";
    SEAMVERIFYREPORT_NOT_AVAILABLE = 0xC000_0933, V1_5_01, NoDetails,
        "the processor cannot verify reports",
        "update microcode";
    INVALID_TDMR = 0xC000_0A00, V1_5_01, TdmrBytes,
        "a TDMR is not 1 GiB aligned, has no size, or does not fit into the address space",
        "correct base and size of the TDMR that the details name";
    NON_ORDERED_TDMR = 0xC000_0A01, V1_5_01, TdmrBytes,
        "TDMRs are not in ascending order, or they overlap",
        "sort the TDMRs by base and keep them disjoint";
    TDMR_OUTSIDE_CMRS = 0xC000_0A02, V1_5_01, TdmrBytes,
        "a part of a TDMR that is not reserved is outside convertible memory",
        "cover every hole between CMRs with a reserved area";
    TDMR_ALREADY_INITIALIZED = 0x0000_0A03, V1_5_01, NoDetails,
        "every page of the TDMR is initialised",
        "go on with the next TDMR";
    INVALID_PAMT = 0xC000_0A10, V1_5_01, TdmrBytes,
        "a PAMT area is not 4 KiB aligned or is too small for its TDMR",
        "give each level 16 bytes per page of the TDMR, rounded up to 4 KiB";
    PAMT_OUTSIDE_CMRS = 0xC000_0A11, V1_5_01, TdmrBytes,
        "a PAMT area is outside convertible memory",
        "take PAMT areas from CMRs";
    PAMT_OVERLAP = 0xC000_0A12, V1_5_01, TdmrBytes,
        "a PAMT area overlaps another one or a part of a TDMR that is not reserved",
        "reserve the PAMT areas inside their TDMRs";
    INVALID_RESERVED_IN_TDMR = 0xC000_0A20, V1_5_01, TdmrBytes,
        "a reserved area is not 4 KiB aligned or reaches beyond its TDMR",
        "correct offset and size of the area that the details name";
    NON_ORDERED_RESERVED_IN_TDMR = 0xC000_0A21, V1_5_01, TdmrBytes,
        "reserved areas are not in ascending order, overlap, or follow an empty one",
        "sort the areas by offset; the first empty one ends the list";
    CMR_LIST_INVALID = 0xC000_0A22, V1_5_01, NoDetails,
        "the platform's list of convertible memory is not usable",
        "a firmware fault: the CMRs overlap or are out of order";
    EPT_WALK_FAILED = 0xC000_0B00, V1_5_01, OperandId,
        "the walk ended above the level asked for: a table is missing or blocked, or a larger page is \
             mapped there",
        "the reported entry says where; add the missing tables with SEPT.ADD, unblock, or demote the \
             larger page";
    EPT_ENTRY_FREE = 0xC000_0B01, V1_5_01, OperandId,
        "the entry is free",
        "map or add a table first";
    EPT_ENTRY_NOT_FREE = 0xC000_0B02, V1_5_01, OperandId,
        "the entry is in use",
        "remove what is there first";
    EPT_ENTRY_NOT_PRESENT = 0xC000_0B03, V1_5_01, OperandId,
        "no accessible page is mapped at this address",
        "add the page first; a pending page has to be accepted by the guest";
    EPT_ENTRY_NOT_LEAF = 0xC000_0B04, V1_5_01, OperandId,
        "the entry points to a table and a page was expected",
        "use the level at which the page is mapped";
    EPT_ENTRY_LEAF = 0xC000_0B05, V1_5_01, OperandId,
        "the entry maps a page and a table was expected",
        "use the level at which the table is";
    GPA_RANGE_NOT_BLOCKED = 0xC000_0B06, V1_5_01, OperandId,
        "VCPUs may run and the entry is not blocked",
        "call MEM.RANGE.BLOCK, MEM.TRACK and kick the VCPUs first";
    GPA_RANGE_ALREADY_BLOCKED = 0x0000_0B07, V1_5_01, OperandId,
        "the entry was blocked before; nothing was changed",
        "go on with MEM.TRACK";
    TLB_TRACKING_NOT_DONE = 0xC000_0B08, V1_5_01, OperandId,
        "the entry is blocked, but processors may still hold old translations: no MEM.TRACK since the \
             blocking, or a VCPU has not left the guest since",
        "call MEM.TRACK, kick every VCPU out of the guest, then call again; with operand SEPT_TREE it is \
             the unblocking that needs it";
    EPT_INVALID_PROMOTE_CONDITIONS = 0xC000_0B09, V1_5_01, OperandId,
        "the 512 pages below are not all mapped or all pending, or are not contiguous and aligned in host \
             memory",
        "let the guest accept all or none of them, and relocate pages into one large folio, before \
             promoting";
    PAGE_ALREADY_ACCEPTED = 0x0000_0B0A, V1_5_01, SeptLevel,
        "the guest accepted a page that it had accepted before",
        "harmless if expected; otherwise the guest lost track of its memory or the host replays pages";
    PAGE_SIZE_MISMATCH = 0xC000_0B0B, V1_5_01, SeptLevel,
        "the guest accepted at 2M and the host has mapped smaller pages",
        "accept the range in 4K pieces";
    GPA_RANGE_BLOCKED = 0xC000_0B0C, V1_5_01, OperandId,
        "the entry is blocked",
        "unblock it or finish what it was blocked for";
    EPT_ENTRY_STATE_INCORRECT = 0xC000_0B0D, V1_5_01, OperandId,
        "the entry is in a state that the leaf does not accept, such as adding where a page is mapped",
        "the reported entry says the state; MEM.SEPT.RD shows it too";
    EPT_PAGE_NOT_FREE = 0xC000_0B0E, V1_5_01, OperandId,
        "the table has entries in use",
        "remove every page and table below it first";
    L2_SEPT_WALK_FAILED = 0xC000_0B0F, V1_5_01, L2VmAndLevel,
        "a table of an L2 VM's tree is missing on the way",
        "add the L2 tables above it first";
    L2_SEPT_ENTRY_NOT_FREE = 0xC000_0B10, V1_5_01, L2VmAndLevel,
        "the entry in the L2 VM's tree is in use",
        "remove what is there, or do not pass a page for this VM";
    PAGE_ATTR_INVALID = 0xC000_0B11, V1_5_01, OperandId,
        "the attributes asked for are not allowed for this page",
        "correct the attributes";
    L2_SEPT_PAGE_NOT_PROVIDED = 0xC000_0B12, V1_5_01, OperandId,
        "splitting a page that is aliased in an L2 VM needs a table for that VM too",
        "pass a Secure-EPT page for each L2 VM that has an alias";
    METADATA_FIELD_ID_INCORRECT = 0xC000_0C00, V1_5_01, NoDetails,
        "no field has this identifier, or its reserved or count bits are not zero",
        "check the identifier; the field may not exist in this module's version";
    METADATA_FIELD_NOT_WRITABLE = 0xC000_0C01, V1_5_01, NoDetails,
        "the field, or every bit in the mask, is read-only for this caller",
        "check the field's access; some are writable for debug TDs only";
    METADATA_FIELD_NOT_READABLE = 0xC000_0C02, V1_5_01, NoDetails,
        "the field is not readable for this caller",
        "check the field's access; some are readable for debug TDs only";
    METADATA_FIELD_VALUE_NOT_VALID = 0xC000_0C03, V1_5_01, NoDetails,
        "the field does not accept this value",
        "check the range of the field";
    METADATA_LIST_OVERFLOW = 0xC000_0C04, V1_5_01, NoDetails,
        "the list of fields reaches beyond its page",
        "shorten the list";
    INVALID_METADATA_LIST_HEADER = 0xC000_0C05, V1_5_01, NoDetails,
        "the header of a list of fields is malformed",
        "check size, count and reserved bits of the header";
    REQUIRED_METADATA_FIELD_MISSING = 0xC000_0C06, V1_5_01, NoDetails,
        "an imported list lacks a field that is required",
        "the migration data is incomplete or of another version";
    METADATA_ELEMENT_SIZE_INCORRECT = 0xC000_0C07, V1_5_01, NoDetails,
        "an identifier in a list says another element size than the field has",
        "correct the identifier";
    METADATA_LAST_ELEMENT_INCORRECT = 0xC000_0C08, V1_5_01, NoDetails,
        "an identifier in a list says another number of elements than the field has",
        "correct the identifier";
    METADATA_FIELD_CURRENTLY_NOT_WRITABLE = 0xC000_0C09, V1_5_01, NoDetails,
        "the field cannot be written in the present state",
        "write it in another phase of the TD";
    METADATA_WR_MASK_NOT_VALID = 0xC000_0C0A, V1_5_01, NoDetails,
        "the write mask is not allowed for this field",
        "correct the mask";
    METADATA_FIRST_FIELD_ID_IN_CONTEXT = 0x0000_0C0B, V1_5_01, NoDetails,
        "the identifier was null: RDX is the first one of the context",
        "continue reading with the identifier in RDX";
    METADATA_FIELD_SKIP = 0x0000_0C0C, V1_5_01, NoDetails,
        "the field is skipped in this list",
        "go on";
    SERVTD_ALREADY_BOUND_FOR_TYPE = 0xC000_0D00, V1_5_01, NoDetails,
        "a service TD of this type is bound already",
        "one per type: keep the one that is bound";
    SERVTD_TYPE_MISMATCH = 0xC000_0D01, V1_5_01, NoDetails,
        "the service TD's type is not the one that was bound before",
        "bind the same service TD, or one of the same type";
    SERVTD_ATTR_MISMATCH = 0xC000_0D02, V1_5_01, NoDetails,
        "the service TD's attributes differ from those bound before",
        "run the service TD with the bound attributes";
    SERVTD_INFO_HASH_MISMATCH = 0xC000_0D03, V1_5_01, NoDetails,
        "the service TD's measurements differ from those bound before",
        "run the same service TD image and configuration";
    SERVTD_UUID_MISMATCH = 0xC000_0D04, V1_5_01, NoDetails,
        "the service TD is another instance than the one bound",
        "bind again";
    SERVTD_NOT_BOUND = 0xC000_0D05, V1_5_01, NoDetails,
        "no service TD is bound in this slot",
        "bind one first";
    SERVTD_BOUND = 0xC000_0D06, V1_5_01, NoDetails,
        "a service TD is bound in this slot",
        "prebinding has to come before binding";
    TARGET_UUID_MISMATCH = 0xC000_0D07, V1_5_01, NoDetails,
        "the target TD is another instance than the one bound to",
        "bind to the new instance";
    TARGET_UUID_UPDATED = 0xC000_0D08, V1_5_01, NoDetails,
        "the target TD's identity changed, for example by migration; the new one was returned",
        "use the returned identity";
    INVALID_MBMD = 0xC000_0E00, V1_5_01, NoDetails,
        "the metadata of a migration bundle is malformed or of another kind",
        "pass bundles in the order and of the type that the import expects";
    INCORRECT_MBMD_MAC = 0xC000_0E01, V1_5_01, NoDetails,
        "the MAC of a migration bundle's metadata is wrong",
        "the bundle was changed on its way, or the keys differ";
    NOT_WRITE_BLOCKED = 0xC000_0E02, V1_5_01, NoDetails,
        "the page is not blocked for writing",
        "call EXPORT.BLOCKW first";
    ALREADY_WRITE_BLOCKED = 0x0000_0E03, V1_5_01, NoDetails,
        "the page is blocked for writing already",
        "go on";
    NOT_EXPORTED = 0xC000_0E04, V1_5_01, NoDetails,
        "the page was not exported",
        "nothing to restore or re-export";
    MIGRATION_STREAM_STATE_INCORRECT = 0xC000_0E05, V1_5_01, NoDetails,
        "the migration stream is not in the state that the call needs",
        "check stream index, direction and whether it was interrupted";
    MAX_MIGS_NUM_EXCEEDED = 0xC000_0E06, V1_5_01, NoDetails,
        "the TD has the greatest number of migration streams already",
        "use fewer streams (SYS field MAX_MIGS)";
    EXPORTED_DIRTY_PAGES_REMAIN = 0xC000_0E07, V1_5_01, NoDetails,
        "pages changed after their export and were not exported again",
        "export them again before the start token";
    MIGRATION_DECRYPTION_KEY_NOT_SET = 0xC000_0E08, V1_5_01, NoDetails,
        "the migration TD has not set the key for this session",
        "let the migration TD write MIG_DEC_KEY first";
    TD_NOT_MIGRATABLE = 0xC000_0E09, V1_5_01, NoDetails,
        "the TD was created without ATTRIBUTES.MIGRATABLE",
        "create it as migratable";
    PREVIOUS_EXPORT_CLEANUP_INCOMPLETE = 0xC000_0E0A, V1_5_01, NoDetails,
        "pages of an aborted export are still in exported states",
        "call EXPORT.RESTORE for all of them";
    NUM_MIGS_HIGHER_THAN_CREATED = 0xC000_0E0B, V1_5_01, NoDetails,
        "the import expects more streams than were created",
        "create as many streams as the source uses";
    IMPORT_MISMATCH = 0xC000_0E0C, V1_5_01, OperandId,
        "the imported page or state does not fit what is there",
        "the source and destination disagree: abort the import";
    MIGRATION_EPOCH_OVERFLOW = 0xC000_0E0D, V1_5_01, NoDetails,
        "too many migration epochs",
        "finish or abort the session";
    MAX_EXPORTS_EXCEEDED = 0xC000_0E0E, V1_5_01, NoDetails,
        "the TD was exported the greatest number of times",
        "the TD cannot be exported again";
    INVALID_PAGE_MAC = 0xC000_0E0F, V1_5_01, OperandId,
        "the MAC of an imported page is wrong",
        "the page was changed on its way: send it again or abort";
    MIGRATED_IN_CURRENT_EPOCH = 0xC000_0E10, V1_5_01, OperandId,
        "the page was migrated in this epoch already",
        "start a new epoch before sending it again";
    DISALLOWED_IMPORT_OVER_REMOVED = 0xC000_0E11, V1_5_01, OperandId,
        "the page was removed on the destination and cannot be imported there now",
        "skip the page or abort the import";
    SOME_VCPUS_NOT_MIGRATED = 0xC000_0E12, V1_5_01, NoDetails,
        "the state of a VCPU is missing",
        "migrate every VCPU before the start token";
    ALL_VCPUS_IMPORTED = 0xC000_0E13, V1_5_01, NoDetails,
        "every VCPU of the TD was imported already",
        "nothing to import";
    MIN_MIGS_NOT_CREATED = 0xC000_0E14, V1_5_01, NoDetails,
        "the TD has fewer migration streams than a session needs",
        "create streams with MIG.STREAM.CREATE";
    VCPU_ALREADY_EXPORTED = 0xC000_0E15, V1_5_01, NoDetails,
        "this VCPU's state was exported already",
        "go on with the next VCPU";
    INVALID_MIGRATION_DECRYPTION_KEY = 0xC000_0E16, V1_5_01, NoDetails,
        "the key that the migration TD set is not valid",
        "let the migration TD negotiate keys again";
    INVALID_CPUSVN = 0xC000_1000, V1_5_01, NoDetails,
        "the report was made with a processor security version that this platform does not accept",
        "make a new report on this platform";
    INVALID_REPORTMACSTRUCT = 0xC000_1001, V1_5_01, NoDetails,
        "the MAC of the report is wrong: it was changed, or made on another platform or since the last \
             boot",
        "use an unchanged report of this platform and boot";
    L2_EXIT_HOST_ROUTED_ASYNC = 0x0000_1100, V1_5_01, VmxExitReason,
        "an L2 VM left for a reason that goes to the host",
        "handle the exit, then enter again";
    L2_EXIT_HOST_ROUTED_TDVMCALL = 0x0000_1101, V1_5_01, VmxExitReason,
        "an L2 VM called TDG.VP.VMCALL and the call goes to the host",
        "answer the call, then enter again";
    L2_EXIT_PENDING_INTERRUPT = 0x0000_1102, V1_5_01, VmxExitReason,
        "an L2 VM left because an interrupt is pending for L1",
        "enter again";
    PENDING_INTERRUPT = 0x0000_1120, V1_5_01, NoDetails,
        "an L2 VM cannot be entered: an interrupt is pending for L1",
        "the L1 guest takes the interrupt first";
    TD_EXIT_BEFORE_L2_ENTRY = 0x0000_1140, V1_5_01, VmxExitReason,
        "the TD exited while it was entering an L2 VM",
        "handle the exit, then enter again";
    TD_EXIT_ON_L2_VM_EXIT = 0x0000_1141, V1_5_01, VmxExitReason,
        "the TD exited while an L2 VM was leaving",
        "handle the exit, then enter again";
    TD_EXIT_ON_L2_TO_L1 = 0x0000_1142, V1_5_01, VmxExitReason,
        "the TD exited on the way from an L2 VM to L1",
        "handle the exit, then enter again";
    GLA_NOT_CANONICAL = 0xC000_1160, V1_5_01, NoDetails,
        "a linear address in an invalidation request is not canonical",
        "correct the address";
    UNINITIALIZE_ERROR = 0xFFFF_FFFF, V1_5_01, NoDetails,
        "the module's own value for a status that was never set",
        "report it as a module bug, with the call that led here";
    EVENT_FILTER_INVALID = 0xC000_0102, V1_5Late, NoDetails,
        "a performance-event filter is malformed",
        "correct the filter list";
    EVENT_FILTER_ORDER_INVALID = 0xC000_0103, V1_5Late, NoDetails,
        "performance-event filters are not in order",
        "sort the filter list";
    INTERRUPTED_BUSY = 0x8000_0206, V1_5Late, NoDetails,
        "an interrupt is pending and the object is locked",
        "handle the interrupt, then call again";
    HPA_RANGE_NOT_FREE = 0xC000_0304, V2_0, OperandId,
        "a page of the range is in use",
        "free every page of the range first";
    NO_PAMT_PAGE_PAIR = 0xC000_0305, V2_0, OperandId,
        "the 2M range has no pair of PAMT pages to remove",
        "nothing to remove";
    PAMT_PAGE_NOT_EMPTY = 0xC000_0306, V2_0, OperandId,
        "the PAMT pages describe 4K pages that are in use",
        "free those pages first";
    INTERRUPTED_PAMT = 0x8000_0307, V2_0, NoDetails,
        "an interrupt is pending; the PAMT change was not completed",
        "handle the interrupt, then call again";
    MISSING_PAMT_PAGE_PAIR = 0x8000_0308, V2_0, OperandId,
        "dynamic PAMT: the 2M range of this page has no PAMT pages yet",
        "add a pair with PHYMEM.PAMT.ADD, then call again";
    CRYPTO_SELF_TEST_FAILED = 0xC000_0511, V1_5Late, NoDetails,
        "the module's cryptographic self-test failed",
        "do not use the platform; report it";
    UPDATE_COMPATIBILITY_SENSITIVE = 0x8000_0512, V1_5Late, NoDetails,
        "an operation is in flight over which the module cannot be updated",
        "finish or abort it, then update";
    DEBUG_MEM_NOT_WRITABLE = 0xC000_060A, V1_5Late, OperandId,
        "the page of a debug TD cannot be written now, for example during export",
        "write after the export has ended";
    X2APIC_ID_NOT_UNIQUE = 0xC000_0621, V1_5_05, NoDetails,
        "two VCPUs have the same x2APIC id",
        "give each VCPU its own id in VP.INIT";
    INCOMPATIBLE_MRTD_CONTEXT = 0xC000_0622, V1_5Late, NoDetails,
        "the measurement was begun by a module whose hash context this one cannot continue",
        "build the TD from the start on this module";
    INTERRUPTIBILITY_BLOCKED = 0xC000_0707, V1_5Late, NoDetails,
        "the guest cannot take the event now",
        "enter again and retry later";
    VIRTUAL_MSR_VALUE_NOT_VALID = 0xC000_0C0D, V1_5Late, NoDetails,
        "the value is not valid for this virtual MSR",
        "correct the value";
    METADATA_FIELD_NOT_ALLOCATED = 0xC000_0C0E, V1_5Late, NoDetails,
        "the field exists only with a feature that this TD does not use",
        "create the TD with the feature, or do not access the field";
    INCOMPATIBLE_MBMD_MAC_CONTEXT = 0xC000_0E22, V1_5Late, NoDetails,
        "the migration bundle was begun by a module whose MAC context this one cannot continue",
        "start the bundle again";
    L2_VM_ENTRY_FAILED = 0x8000_1103, V1_5Late, VmxExitReason,
        "entering an L2 VM failed",
        "the L1 guest has to correct the L2 VM's state";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_by_its_value_and_by_its_name() {
        for info in TABLE {
            assert_eq!(info.code.info(), Some(info));
            assert_eq!(StatusCode::from_name(info.name), Some(info.code));
        }
        assert_eq!(StatusCode::from_name("TDX_OPERAND_BUSY"), Some(StatusCode::OPERAND_BUSY));
        assert_eq!(StatusCode::from_name("NO_SUCH_CODE"), None);
    }

    #[test]
    fn no_two_rows_have_the_same_code_or_name() {
        for (position, info) in TABLE.iter().enumerate() {
            for other in &TABLE[position + 1..] {
                assert!(info.code != other.code && info.name != other.name, "{}", info.name);
            }
        }
    }
}
