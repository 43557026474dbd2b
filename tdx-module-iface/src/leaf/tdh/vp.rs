//! The host leaves about one VCPU (TDH.VP.*).

use crate::leaf::info::{
    HostState,
    Kind::{Bits, Field, Hpa, HpaAndFlags, Number},
    VCPU, busy, leaves, reg, row,
};
use crate::metadata::Context;
use crate::op_state::{
    OpState::{
        FailedImport, Initialized, LiveExport, LiveImport, MemoryImport, PausedExport, PostExport,
        PostImport, Runnable, StateImport,
    },
    OpStates,
};
use crate::regs::Reg::{R8, R9, R10, R11, R12, R13, R14, R15, Rbp, Rbx, Rcx, Rdi, Rdx, Rsi};
use crate::release::Release::{V1_5_01, V1_5_05};
use crate::status::Operand;

leaves! {
    of super::TdhLeaf;

    VP_ENTER = 0, "TDH.VP.ENTER": row("run a VCPU until it leaves the guest",
        &[
            reg(Rcx, "TDVPR (bit 52 host-recoverability hint, bit 53 resume L1)", HpaAndFlags),
            reg(Rdx, "answer to a TDVMCALL", Bits),
            reg(Rbx, "answer to a TDVMCALL", Bits),
            reg(Rbp, "answer to a TDVMCALL", Bits),
            reg(Rsi, "answer to a TDVMCALL", Bits),
            reg(Rdi, "answer to a TDVMCALL", Bits),
            reg(R8, "answer to a TDVMCALL", Bits),
            reg(R9, "answer to a TDVMCALL", Bits),
            reg(R10, "answer to a TDVMCALL", Bits),
            reg(R11, "answer to a TDVMCALL", Bits),
            reg(R12, "answer to a TDVMCALL", Bits),
            reg(R13, "answer to a TDVMCALL", Bits),
            reg(R14, "answer to a TDVMCALL", Bits),
            reg(R15, "answer to a TDVMCALL", Bits),
        ],
        &[
            reg(Rcx, "TDVMCALL: register mask; else exit qualification", Bits),
            reg(Rdx, "TDVMCALL: register; else extended qualification", Bits),
            reg(Rbx, "TDVMCALL register", Bits),
            reg(Rbp, "TDVMCALL register", Bits),
            reg(Rsi, "TDVMCALL register", Bits),
            reg(Rdi, "TDVMCALL register", Bits),
            reg(R8, "TDVMCALL: register; else guest-physical address", Bits),
            reg(R9, "TDVMCALL: register; else interruption information", Bits),
            reg(R10, "TDVMCALL: 0 for GHCI, else a vendor call", Bits),
            reg(R11, "TDVMCALL: GHCI function", Bits),
            reg(R12, "TDVMCALL argument", Bits),
            reg(R13, "TDVMCALL argument", Bits),
            reg(R14, "TDVMCALL argument", Bits),
            reg(R15, "TDVMCALL argument", Bits),
        ])
        .op_states(OpStates::of(&[Runnable, LiveExport, LiveImport]))
        .transient(&[busy(Operand::RCX), busy(Operand::TDR), busy(Operand::TD_EPOCH), busy(Operand::SEPT_TREE)])
        .gives_up(HostState::ALL);
    VP_ADDCX = 4, "TDH.VP.ADDCX": row("add a control page to a VCPU",
        &[
            reg(Rcx, "new page", Hpa),
            reg(Rdx, "TDVPR", Hpa),
        ],
        &[])
        .op_states(OpStates::of(&[Initialized, StateImport]))
        .transient(VCPU);
    VP_CREATE = 10, "TDH.VP.CREATE": row("create a VCPU",
        &[
            reg(Rcx, "page that becomes the TDVPR", Hpa),
            reg(Rdx, "TDR", Hpa),
        ],
        &[])
        .op_states(OpStates::of(&[Initialized, StateImport]))
        .transient(VCPU);
    VP_FLUSH = 18, "TDH.VP.FLUSH": row("end the association of a VCPU with this LP",
        &[
            reg(Rcx, "TDVPR", Hpa),
        ],
        &[])
        .op_states(OpStates::ALL)
        .transient(VCPU);
    VP_INIT = 22, "TDH.VP.INIT": row("initialise a VCPU",
        &[
            reg(Rcx, "TDVPR", Hpa),
            reg(Rdx, "the guest's first RCX and R8", Bits),
            reg(R8, "newer modules, version 1: x2APIC id", Number),
        ],
        &[])
        .version(V1_5_05, 1)
        .op_states(OpStates::of(&[Initialized]))
        .transient(VCPU);
    VP_RD = 26, "TDH.VP.RD": row("read a VCPU's metadata",
        &[
            reg(Rcx, "TDVPR", Hpa),
            reg(Rdx, "field", Field(Context::Vcpu)),
        ],
        &[
            reg(Rdx, "version 1: next field", Field(Context::Vcpu)),
            reg(R8, "value", Bits),
        ])
        .version(V1_5_01, 1)
        .op_states(OpStates::of(&[Initialized, Runnable, LiveExport, PausedExport, PostExport, MemoryImport, StateImport, PostImport, LiveImport, FailedImport]))
        .transient(VCPU);
    VP_WR = 43, "TDH.VP.WR": row("write a VCPU's metadata",
        &[
            reg(Rcx, "TDVPR", Hpa),
            reg(Rdx, "field", Field(Context::Vcpu)),
            reg(R8, "value", Bits),
            reg(R9, "mask", Bits),
        ],
        &[
            reg(R8, "old value", Bits),
        ])
        .op_states(OpStates::of(&[Initialized, Runnable, LiveExport, MemoryImport, StateImport, PostImport, LiveImport, FailedImport]))
        .transient(VCPU);
}
