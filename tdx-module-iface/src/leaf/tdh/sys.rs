//! The host leaves about the module itself (TDH.SYS.*).

use crate::leaf::info::{
    BRING_UP,
    Kind::{Bits, Field, Hpa, Number},
    Readiness::{Always, BringUp},
    leaves, reg, row,
};
use crate::metadata::Context;
use crate::regs::Reg::{R8, R9, Rcx, Rdx};
use crate::release::Release::{V1_5Late, V2_0};

leaves! {
    of super::TdhLeaf;

    SYS_KEY_CONFIG = 31, "TDH.SYS.KEY.CONFIG": row("configure the module's key on this package",
        &[],
        &[])
        .ready(BringUp)
        .transient(BRING_UP);
    SYS_INFO = 32, "TDH.SYS.INFO": row("write the module's capabilities and the CMR table",
        &[
            reg(Rcx, "buffer", Hpa),
            reg(Rdx, "bytes of the buffer", Number),
            reg(R8, "CMR table", Hpa),
            reg(R9, "entries of the table", Number),
        ],
        &[
            reg(Rdx, "bytes written", Number),
            reg(R9, "CMRs written", Number),
        ])
        .ready(BringUp);
    SYS_INIT = 33, "TDH.SYS.INIT": row("initialise the module",
        &[
            reg(Rcx, "zero", Bits),
        ],
        &[
            reg(Rcx, "more about some platform errors", Bits),
        ])
        .version(V1_5Late, 1)
        .ready(BringUp)
        .transient(BRING_UP);
    SYS_RD = 34, "TDH.SYS.RD": row("read the module's metadata",
        &[
            reg(Rdx, "field", Field(Context::System)),
        ],
        &[
            reg(Rdx, "next field", Field(Context::System)),
            reg(R8, "value", Bits),
        ])
        .ready(BringUp);
    SYS_LP_INIT = 35, "TDH.SYS.LP.INIT": row("initialise this LP",
        &[],
        &[])
        .ready(BringUp)
        .transient(BRING_UP);
    SYS_TDMR_INIT = 36, "TDH.SYS.TDMR.INIT": row("initialise the next part of a TDMR's PAMT",
        &[
            reg(Rcx, "TDMR", Hpa),
        ],
        &[
            reg(Rdx, "end of what may be used", Hpa),
        ]);
    SYS_RDALL = 37, "TDH.SYS.RDALL": row("write the module's metadata to a page",
        &[
            reg(Rdx, "page", Hpa),
            reg(R8, "first field", Field(Context::System)),
        ],
        &[
            reg(R8, "field to continue with", Field(Context::System)),
        ])
        .ready(BringUp);
    SYS_LP_SHUTDOWN = 44, "TDH.SYS.LP.SHUTDOWN": row("end the use of the module on this LP",
        &[],
        &[])
        .ready(Always);
    SYS_CONFIG = 45, "TDH.SYS.CONFIG": row("give the module its memory and its key id",
        &[
            reg(Rcx, "array of TDMR_INFO addresses", Hpa),
            reg(Rdx, "number of TDMRs", Number),
            reg(R8, "key id (newer modules: bit 16 dynamic PAMT)", Bits),
        ],
        &[])
        .ready(BringUp)
        .transient(BRING_UP);
    SYS_SHUTDOWN = 52, "TDH.SYS.SHUTDOWN": row("shut the module down for an update",
        &[
            reg(Rcx, "handoff version", Number),
        ],
        &[]);
    SYS_UPDATE = 53, "TDH.SYS.UPDATE": row("take over the TDs of the module before",
        &[],
        &[])
        .ready(BringUp);
    SYS_DISABLE = 69, "TDH.SYS.DISABLE": row("end the module for good, before another kernel takes the machine",
        &[],
        &[])
        .transient(BRING_UP)
        .since(V2_0);
}
