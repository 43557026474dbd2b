//! The guest leaves: what each does and what its registers mean.

use super::TdgLeaf;
use super::info::{Kind::*, LeafInfo, reg, row};
use crate::metadata::Context;
use crate::regs::Reg::*;

/// Every known leaf, by number.
#[rustfmt::skip]
pub const TABLE: &[LeafInfo] = &[
    row(TdgLeaf::VP_VMCALL.0, TdgLeaf::VP_VMCALL.name(), "ask the host for a service",
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
        ]),
    row(TdgLeaf::VP_INFO.0, TdgLeaf::VP_INFO.name(), "facts about this TD and VCPU",
        &[],
        &[
            reg(Rcx, "GPA width", Number),
            reg(Rdx, "ATTRIBUTES", Bits),
            reg(R8, "VCPUs, greatest number in the high half", Bits),
            reg(R9, "VCPU index", Number),
            reg(R10, "bit 0: SYS.RD exists", Bits),
            reg(R11, "zero", Bits),
        ]),
    row(TdgLeaf::MR_RTMR_EXTEND.0, TdgLeaf::MR_RTMR_EXTEND.name(), "extend a runtime measurement register",
        &[
            reg(Rcx, "data", Gpa),
            reg(Rdx, "register index", Number),
        ],
        &[]),
    row(TdgLeaf::VP_VEINFO_GET.0, TdgLeaf::VP_VEINFO_GET.name(), "information about the last #VE",
        &[],
        &[
            reg(Rcx, "exit reason", Number),
            reg(Rdx, "exit qualification", Bits),
            reg(R8, "guest-linear address", Bits),
            reg(R9, "guest-physical address", Gpa),
            reg(R10, "instruction length, information in the high half", Bits),
        ]),
    row(TdgLeaf::MR_REPORT.0, TdgLeaf::MR_REPORT.name(), "make a TDREPORT",
        &[
            reg(Rcx, "report", Gpa),
            reg(Rdx, "report data", Gpa),
            reg(R8, "subtype", Number),
        ],
        &[]),
    row(TdgLeaf::VP_CPUIDVE_SET.0, TdgLeaf::VP_CPUIDVE_SET.name(), "choose when CPUID raises #VE",
        &[
            reg(Rcx, "bit 0 supervisor, bit 1 user", Bits),
        ],
        &[]),
    row(TdgLeaf::MEM_PAGE_ACCEPT.0, TdgLeaf::MEM_PAGE_ACCEPT.name(), "accept a pending page",
        &[
            reg(Rcx, "entry", GpaLevel),
        ],
        &[]),
    row(TdgLeaf::VM_RD.0, TdgLeaf::VM_RD.name(), "read the TD's metadata",
        &[
            reg(Rcx, "zero", Bits),
            reg(Rdx, "field", Field(Context::Td)),
        ],
        &[
            reg(Rdx, "version 1: next field", Field(Context::Td)),
            reg(R8, "value", Bits),
        ]).versions(1, 1),
    row(TdgLeaf::VM_WR.0, TdgLeaf::VM_WR.name(), "write the TD's metadata",
        &[
            reg(Rcx, "zero", Bits),
            reg(Rdx, "field", Field(Context::Td)),
            reg(R8, "value", Bits),
            reg(R9, "mask", Bits),
        ],
        &[
            reg(R8, "old value", Bits),
        ]),
    row(TdgLeaf::VP_RD.0, TdgLeaf::VP_RD.name(), "read the VCPU's metadata",
        &[
            reg(Rcx, "zero", Bits),
            reg(Rdx, "field", Field(Context::Vcpu)),
        ],
        &[
            reg(Rdx, "next field", Field(Context::Vcpu)),
            reg(R8, "value", Bits),
        ]),
    row(TdgLeaf::VP_WR.0, TdgLeaf::VP_WR.name(), "write the VCPU's metadata",
        &[
            reg(Rcx, "zero", Bits),
            reg(Rdx, "field", Field(Context::Vcpu)),
            reg(R8, "value", Bits),
            reg(R9, "mask", Bits),
        ],
        &[
            reg(R8, "old value", Bits),
        ]),
    row(TdgLeaf::SYS_RD.0, TdgLeaf::SYS_RD.name(), "read the module's metadata",
        &[
            reg(Rdx, "field", Field(Context::System)),
        ],
        &[
            reg(Rdx, "next field", Field(Context::System)),
            reg(R8, "value", Bits),
        ]),
    row(TdgLeaf::SYS_RDALL.0, TdgLeaf::SYS_RDALL.name(), "write the module's metadata to a page",
        &[
            reg(Rdx, "page", Gpa),
            reg(R8, "first field", Field(Context::System)),
        ],
        &[
            reg(Rdx, "page", Gpa),
            reg(R8, "field to continue with", Field(Context::System)),
        ]),
    row(TdgLeaf::SERVTD_RD.0, TdgLeaf::SERVTD_RD.name(), "service TD: read the target's metadata",
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
        ]),
    row(TdgLeaf::SERVTD_WR.0, TdgLeaf::SERVTD_WR.name(), "service TD: write the target's metadata",
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
        ]),
    row(TdgLeaf::MR_VERIFYREPORT.0, TdgLeaf::MR_VERIFYREPORT.name(), "check a report's MAC",
        &[
            reg(Rcx, "REPORTMACSTRUCT", Gpa),
        ],
        &[]),
    row(TdgLeaf::MEM_PAGE_ATTR_RD.0, TdgLeaf::MEM_PAGE_ATTR_RD.name(), "read a page's attributes for L2 VMs",
        &[
            reg(Rcx, "entry", GpaLevel),
        ],
        &[
            reg(Rcx, "entry", GpaLevel),
            reg(Rdx, "attributes", Bits),
        ]),
    row(TdgLeaf::MEM_PAGE_ATTR_WR.0, TdgLeaf::MEM_PAGE_ATTR_WR.name(), "write a page's attributes for L2 VMs",
        &[
            reg(Rcx, "entry", GpaLevel),
            reg(Rdx, "attributes", Bits),
            reg(R8, "mask", Bits),
        ],
        &[
            reg(Rcx, "entry", GpaLevel),
            reg(Rdx, "attributes", Bits),
        ]),
    row(TdgLeaf::VP_ENTER.0, TdgLeaf::VP_ENTER.name(), "run an L2 VM",
        &[
            reg(Rcx, "VM and flags", Bits),
            reg(Rdx, "guest state", Gpa),
        ],
        &[
            reg(Rcx, "exit qualification", Bits),
            reg(Rdx, "guest-linear address", Bits),
            reg(R8, "guest-physical address", Gpa),
            reg(R9, "interruption information", Bits),
        ]),
    row(TdgLeaf::VP_INVEPT.0, TdgLeaf::VP_INVEPT.name(), "invalidate translations of L2 VMs",
        &[
            reg(Rcx, "VMs", Bits),
        ],
        &[]),
    row(TdgLeaf::VP_INVVPID.0, TdgLeaf::VP_INVVPID.name(), "invalidate linear translations of an L2 VM",
        &[
            reg(Rcx, "VM and type", Bits),
            reg(Rdx, "linear address", Bits),
        ],
        &[
            reg(Rcx, "VM and type", Bits),
            reg(Rdx, "next linear address", Bits),
        ]),
    row(TdgLeaf::SERVTD_REBIND_APPROVE.0, TdgLeaf::SERVTD_REBIND_APPROVE.name(), "service TD: approve its replacement",
        &[],
        &[]).newer(),
];
