//! The host leaves that bind service TDs (TDH.SERVTD.*).

use crate::leaf::info::{
    Kind::{Bits, Hpa, Number},
    leaves, reg, row,
};
use crate::op_state::{
    OpState::{Initialized, LiveExport, LiveImport, PostImport, Runnable, Uninitialized},
    OpStates,
};
use crate::regs::Reg::{R8, R9, R10, R11, R12, R13, Rcx, Rdx};
use crate::release::Release::V1_5Late;

leaves! {
    of super::TdhLeaf;

    SERVTD_BIND = 48, "TDH.SERVTD.BIND": row("bind a service TD",
        &[
            reg(Rcx, "target TDR", Hpa),
            reg(Rdx, "service TDR", Hpa),
            reg(R8, "slot", Number),
            reg(R9, "type", Number),
            reg(R10, "attributes", Bits),
        ],
        &[
            reg(Rcx, "binding handle", Bits),
            reg(R10, "target UUID 63:0", Bits),
            reg(R11, "target UUID 127:64", Bits),
            reg(R12, "target UUID 191:128", Bits),
            reg(R13, "target UUID 255:192", Bits),
        ])
        .op_states(OpStates::of(&[Uninitialized, Initialized, Runnable, LiveExport, PostImport, LiveImport]));
    SERVTD_PREBIND = 49, "TDH.SERVTD.PREBIND": row("bind a service TD by its hash",
        &[
            reg(Rcx, "target TDR", Hpa),
            reg(Rdx, "hash buffer", Hpa),
            reg(R8, "slot", Number),
            reg(R9, "type", Number),
            reg(R10, "attributes", Bits),
        ],
        &[])
        .op_states(OpStates::of(&[Uninitialized, Initialized]));
    SERVTD_REBIND = 97, "TDH.SERVTD.REBIND": row("bind another service TD to a running TD",
        &[
            reg(Rcx, "target TDR", Hpa),
        ],
        &[])
        .since(V1_5Late);
}
