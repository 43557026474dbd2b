//! The leaves of TDCALL.

use super::LeafInfo;
use super::info::{
    Interruption::Restartable,
    Kind::{Bits, Field, Gpa, GpaLevel, Number},
    OPERAND, leaves, reg, row,
};
use super::number::leaf_number;
use crate::metadata::Context;
use crate::op_state::{
    OpState::{
        FailedImport, Initialized, LiveExport, LiveImport, MemoryImport, PostImport, Runnable, StateImport,
        Uninitialized,
    },
    OpStates,
};
use crate::regs::Reg::{R8, R9, R10, R11, R12, R13, R14, R15, Rbp, Rbx, Rcx, Rdi, Rdx, Rsi};
use crate::release::Release::{V1_5_01, V1_5Late};
use crate::sept::{
    SeptState::{
        BlockedW, ExportedBlockedW, ExportedDirty, ExportedDirtyBlockedW, Mapped, Pending, PendingBlockedW,
        PendingExportedBlockedW, PendingExportedDirty, PendingExportedDirtyBlockedW,
    },
    SeptStates,
};

leaf_number! {
    /// A guest-side leaf number (RAX bits 15:0 of a TDCALL).
    pub struct TdgLeaf of TABLE;
}

/// Every known leaf, by number.
pub(super) const TABLE: &[LeafInfo] = ROWS;

leaves! {
    of TdgLeaf;

    VP_VMCALL = 0, "TDG.VP.VMCALL": row("ask the host for a service",
        &[
            reg(Rcx, "mask of exposed registers", Bits),
            reg(Rdx, "exposed to the host if in the mask", Bits),
            reg(Rbx, "exposed to the host if in the mask", Bits),
            reg(Rbp, "exposed to the host if in the mask", Bits),
            reg(Rsi, "exposed to the host if in the mask", Bits),
            reg(Rdi, "exposed to the host if in the mask", Bits),
            reg(R8, "exposed to the host if in the mask", Bits),
            reg(R9, "exposed to the host if in the mask", Bits),
            reg(R10, "0 for GHCI, else a vendor call", Bits),
            reg(R11, "GHCI function", Bits),
            reg(R12, "argument", Bits),
            reg(R13, "argument", Bits),
            reg(R14, "argument", Bits),
            reg(R15, "argument", Bits),
        ],
        &[
            reg(Rdx, "answer of the host if in the mask", Bits),
            reg(Rbx, "answer of the host if in the mask", Bits),
            reg(Rbp, "answer of the host if in the mask", Bits),
            reg(Rsi, "answer of the host if in the mask", Bits),
            reg(Rdi, "answer of the host if in the mask", Bits),
            reg(R8, "answer of the host if in the mask", Bits),
            reg(R9, "answer of the host if in the mask", Bits),
            reg(R10, "answer of the host if in the mask", Bits),
            reg(R11, "answer of the host if in the mask", Bits),
            reg(R12, "answer of the host if in the mask", Bits),
            reg(R13, "answer of the host if in the mask", Bits),
            reg(R14, "answer of the host if in the mask", Bits),
            reg(R15, "answer of the host if in the mask", Bits),
        ]);
    VP_INFO = 1, "TDG.VP.INFO": row("facts about this TD and VCPU",
        &[],
        &[
            reg(Rcx, "GPA width", Number),
            reg(Rdx, "ATTRIBUTES", Bits),
            reg(R8, "VCPUs, greatest number in the high half", Bits),
            reg(R9, "VCPU index", Number),
            reg(R10, "bit 0: SYS.RD exists", Bits),
            reg(R11, "zero", Bits),
        ]);
    MR_RTMR_EXTEND = 2, "TDG.MR.RTMR.EXTEND": row("extend a runtime measurement register",
        &[
            reg(Rcx, "data", Gpa),
            reg(Rdx, "register index", Number),
        ],
        &[]);
    VP_VEINFO_GET = 3, "TDG.VP.VEINFO.GET": row("information about the last #VE",
        &[],
        &[
            reg(Rcx, "exit reason", Number),
            reg(Rdx, "exit qualification", Bits),
            reg(R8, "guest-linear address", Bits),
            reg(R9, "guest-physical address", Gpa),
            reg(R10, "instruction length, information in the high half", Bits),
        ]);
    MR_REPORT = 4, "TDG.MR.REPORT": row("make a TDREPORT",
        &[
            reg(Rcx, "report", Gpa),
            reg(Rdx, "report data", Gpa),
            reg(R8, "subtype", Number),
        ],
        &[]);
    VP_CPUIDVE_SET = 5, "TDG.VP.CPUIDVE.SET": row("choose when CPUID raises #VE",
        &[
            reg(Rcx, "bit 0 supervisor, bit 1 user", Bits),
        ],
        &[]);
    MEM_PAGE_ACCEPT = 6, "TDG.MEM.PAGE.ACCEPT": row("accept a pending page",
        &[
            reg(Rcx, "entry", GpaLevel),
        ],
        &[])
        .sept_states(SeptStates::of(&[Pending, PendingExportedDirty]))
        .interruption(Restartable)
        .transient(OPERAND);
    VM_RD = 7, "TDG.VM.RD": row("read the TD's metadata",
        &[
            reg(Rcx, "zero", Bits),
            reg(Rdx, "field", Field(Context::Td)),
        ],
        &[
            reg(Rdx, "version 1: next field", Field(Context::Td)),
            reg(R8, "value", Bits),
        ])
        .version(V1_5_01, 1);
    VM_WR = 8, "TDG.VM.WR": row("write the TD's metadata",
        &[
            reg(Rcx, "zero", Bits),
            reg(Rdx, "field", Field(Context::Td)),
            reg(R8, "value", Bits),
            reg(R9, "mask", Bits),
        ],
        &[
            reg(R8, "old value", Bits),
        ]);
    VP_RD = 9, "TDG.VP.RD": row("read the VCPU's metadata",
        &[
            reg(Rcx, "zero", Bits),
            reg(Rdx, "field", Field(Context::Vcpu)),
        ],
        &[
            reg(Rdx, "next field", Field(Context::Vcpu)),
            reg(R8, "value", Bits),
        ]);
    VP_WR = 10, "TDG.VP.WR": row("write the VCPU's metadata",
        &[
            reg(Rcx, "zero", Bits),
            reg(Rdx, "field", Field(Context::Vcpu)),
            reg(R8, "value", Bits),
            reg(R9, "mask", Bits),
        ],
        &[
            reg(R8, "old value", Bits),
        ]);
    SYS_RD = 11, "TDG.SYS.RD": row("read the module's metadata",
        &[
            reg(Rdx, "field", Field(Context::System)),
        ],
        &[
            reg(Rdx, "next field", Field(Context::System)),
            reg(R8, "value", Bits),
        ]);
    SYS_RDALL = 12, "TDG.SYS.RDALL": row("write the module's metadata to a page",
        &[
            reg(Rdx, "page", Gpa),
            reg(R8, "first field", Field(Context::System)),
        ],
        &[
            reg(Rdx, "page", Gpa),
            reg(R8, "field to continue with", Field(Context::System)),
        ]);
    SERVTD_RD = 18, "TDG.SERVTD.RD": row("service TD: read the target's metadata",
        &[
            reg(Rcx, "binding handle", Bits),
            reg(Rdx, "field", Field(Context::Td)),
            reg(R10, "target UUID 63:0", Bits),
            reg(R11, "target UUID 127:64", Bits),
            reg(R12, "target UUID 191:128", Bits),
            reg(R13, "target UUID 255:192", Bits),
        ],
        &[
            reg(Rdx, "next field", Field(Context::Td)),
            reg(R8, "value", Bits),
            reg(R10, "target UUID 63:0", Bits),
            reg(R11, "target UUID 127:64", Bits),
            reg(R12, "target UUID 191:128", Bits),
            reg(R13, "target UUID 255:192", Bits),
        ])
        .op_states(OpStates::ALL);
    SERVTD_WR = 20, "TDG.SERVTD.WR": row("service TD: write the target's metadata",
        &[
            reg(Rcx, "binding handle", Bits),
            reg(Rdx, "field", Field(Context::Td)),
            reg(R8, "value", Bits),
            reg(R9, "mask", Bits),
            reg(R10, "target UUID 63:0", Bits),
            reg(R11, "target UUID 127:64", Bits),
            reg(R12, "target UUID 191:128", Bits),
            reg(R13, "target UUID 255:192", Bits),
        ],
        &[
            reg(R8, "old value", Bits),
            reg(R10, "target UUID 63:0", Bits),
            reg(R11, "target UUID 127:64", Bits),
            reg(R12, "target UUID 191:128", Bits),
            reg(R13, "target UUID 255:192", Bits),
        ])
        .op_states(OpStates::of(&[Uninitialized, Initialized, Runnable, LiveExport, MemoryImport, StateImport, PostImport, LiveImport, FailedImport]));
    MR_VERIFYREPORT = 22, "TDG.MR.VERIFYREPORT": row("check a report's MAC",
        &[
            reg(Rcx, "REPORTMACSTRUCT", Gpa),
        ],
        &[]);
    MEM_PAGE_ATTR_RD = 23, "TDG.MEM.PAGE.ATTR.RD": row("read a page's attributes for L2 VMs",
        &[
            reg(Rcx, "entry", GpaLevel),
        ],
        &[
            reg(Rcx, "entry", GpaLevel),
            reg(Rdx, "attributes", Bits),
        ])
        .sept_states(SeptStates::of(&[Mapped, BlockedW, ExportedBlockedW, ExportedDirty, ExportedDirtyBlockedW, Pending, PendingBlockedW, PendingExportedBlockedW, PendingExportedDirty, PendingExportedDirtyBlockedW]));
    MEM_PAGE_ATTR_WR = 24, "TDG.MEM.PAGE.ATTR.WR": row("write a page's attributes for L2 VMs",
        &[
            reg(Rcx, "entry", GpaLevel),
            reg(Rdx, "attributes", Bits),
            reg(R8, "mask", Bits),
        ],
        &[
            reg(Rcx, "entry", GpaLevel),
            reg(Rdx, "attributes", Bits),
        ])
        .sept_states(SeptStates::of(&[Mapped, ExportedDirty, Pending, PendingExportedDirty]));
    VP_ENTER = 25, "TDG.VP.ENTER": row("run an L2 VM",
        &[
            reg(Rcx, "VM and flags", Bits),
            reg(Rdx, "guest state", Gpa),
        ],
        &[
            reg(Rcx, "exit qualification", Bits),
            reg(Rdx, "guest-linear address", Bits),
            reg(R8, "guest-physical address", Gpa),
            reg(R9, "interruption information", Bits),
        ]);
    VP_INVEPT = 26, "TDG.VP.INVEPT": row("invalidate translations of L2 VMs",
        &[
            reg(Rcx, "VMs", Bits),
        ],
        &[]);
    VP_INVVPID = 27, "TDG.VP.INVVPID": row("invalidate linear translations of an L2 VM",
        &[
            reg(Rcx, "VM and type", Bits),
            reg(Rdx, "linear address", Bits),
        ],
        &[
            reg(Rcx, "VM and type", Bits),
            reg(Rdx, "next linear address", Bits),
        ]);
    SERVTD_REBIND_APPROVE = 33, "TDG.SERVTD.REBIND.APPROVE": row("service TD: approve its replacement",
        &[],
        &[])
        .since(V1_5Late);
}
