//! The host leaves about one TD as a whole, and about its measurement (TDH.MNG.*, TDH.MR.*).

use crate::leaf::info::{
    Kind::{Bits, Field, Gpa, Hpa, KeyId, LevelState, SeptEntry},
    NO_ENTROPY, OPERAND, busy, leaves, reg, row,
};
use crate::metadata::Context;
use crate::op_state::{
    OpState::{
        FailedImport, Initialized, LiveExport, LiveImport, MemoryImport, PausedExport, PostExport,
        PostImport, Runnable, StateImport, Uninitialized,
    },
    OpStates,
};
use crate::regs::Reg::{R8, R9, Rcx, Rdx};
use crate::release::Release::V1_5_01;
use crate::sept::{SeptState::Mapped, SeptStates};
use crate::status::{Operand, Status, StatusCode};

leaves! {
    of super::TdhLeaf;

    MNG_ADDCX = 1, "TDH.MNG.ADDCX": row("add a control page to a TD",
        &[
            reg(Rcx, "new page", Hpa),
            reg(Rdx, "TDR", Hpa),
        ],
        &[])
        .op_states(OpStates::of(&[Uninitialized]))
        .transient(OPERAND);
    MNG_KEY_CONFIG = 8, "TDH.MNG.KEY.CONFIG": row("configure a TD's key on this package",
        &[
            reg(Rcx, "TDR", Hpa),
        ],
        &[])
        .transient(&[busy(Operand::RCX), busy(Operand::KET), Status::new(StatusCode::KEY_GENERATION_FAILED)]);
    MNG_CREATE = 9, "TDH.MNG.CREATE": row("create a TD",
        &[
            reg(Rcx, "page that becomes the TDR", Hpa),
            reg(Rdx, "private key id", KeyId),
        ],
        &[])
        .transient(&[busy(Operand::RCX), busy(Operand::KOT), NO_ENTROPY]);
    MNG_RD = 11, "TDH.MNG.RD": row("read a TD's metadata",
        &[
            reg(Rcx, "TDR", Hpa),
            reg(Rdx, "field", Field(Context::Td)),
        ],
        &[
            reg(Rdx, "version 1: next field", Field(Context::Td)),
            reg(R8, "value", Bits),
        ])
        .version(V1_5_01, 1)
        .op_states(OpStates::of(&[Initialized, Runnable, LiveExport, PausedExport, PostExport, MemoryImport, StateImport, PostImport, LiveImport, FailedImport]))
        .transient(OPERAND);
    MNG_WR = 13, "TDH.MNG.WR": row("write a TD's metadata",
        &[
            reg(Rcx, "TDR", Hpa),
            reg(Rdx, "field", Field(Context::Td)),
            reg(R8, "value", Bits),
            reg(R9, "mask", Bits),
        ],
        &[
            reg(R8, "old value", Bits),
        ])
        .op_states(OpStates::of(&[Initialized, Runnable, LiveExport, MemoryImport, StateImport, PostImport, LiveImport, FailedImport]))
        .transient(OPERAND);
    MR_EXTEND = 16, "TDH.MR.EXTEND": row("measure 256 bytes",
        &[
            reg(Rcx, "address", Gpa),
            reg(Rdx, "TDR", Hpa),
        ],
        &[
            reg(Rcx, "entry", SeptEntry),
            reg(Rdx, "its level and state", LevelState),
        ])
        .op_states(OpStates::of(&[Initialized]))
        .sept_states(SeptStates::of(&[Mapped]))
        .transient(OPERAND);
    MR_FINALIZE = 17, "TDH.MR.FINALIZE": row("complete the measurement; the TD may run",
        &[
            reg(Rcx, "TDR", Hpa),
        ],
        &[])
        .op_states(OpStates::of(&[Initialized]))
        .transient(OPERAND);
    MNG_VPFLUSHDONE = 19, "TDH.MNG.VPFLUSHDONE": row("declare that all of a TD's VCPUs are flushed",
        &[
            reg(Rcx, "TDR", Hpa),
        ],
        &[])
        .transient(OPERAND);
    MNG_KEY_FREEID = 20, "TDH.MNG.KEY.FREEID": row("free a TD's key id",
        &[
            reg(Rcx, "TDR", Hpa),
        ],
        &[])
        .transient(OPERAND);
    MNG_INIT = 21, "TDH.MNG.INIT": row("initialise a TD",
        &[
            reg(Rcx, "TDR", Hpa),
            reg(Rdx, "TD_PARAMS", Hpa),
        ],
        &[
            reg(Rcx, "refused CPUID leaf, subleaf in the high half", Bits),
        ])
        .op_states(OpStates::of(&[Uninitialized]))
        .transient(OPERAND);
    MNG_KEY_RECLAIMID = 27, "TDH.MNG.KEY.RECLAIMID": row("nothing; kept for compatibility",
        &[
            reg(Rcx, "TDR", Hpa),
        ],
        &[]);
}
