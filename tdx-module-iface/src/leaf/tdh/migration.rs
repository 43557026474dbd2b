//! The host leaves of live migration (TDH.EXPORT.*, TDH.IMPORT.*, TDH.MIG.*).

use crate::leaf::info::{
    Kind::{Bits, GpaLevel, Hpa, LevelState, Number, OptionalHpa, SeptEntry},
    leaves, reg, row,
};
use crate::op_state::{
    OpState::{
        FailedImport, Initialized, LiveExport, LiveImport, MemoryImport, PausedExport, PostExport,
        PostImport, Runnable, StateImport, Uninitialized,
    },
    OpStates,
};
use crate::regs::Reg::{R8, R9, R10, R11, R12, R13, Rcx, Rdx};
use crate::sept::{
    SeptState::{
        BlockedW, ExportedBlockedW, ExportedDirty, ExportedDirtyBlockedW, Free, Mapped, Pending,
        PendingBlockedW, PendingExportedBlockedW, PendingExportedDirty, PendingExportedDirtyBlockedW,
        Removed,
    },
    SeptStates,
};

leaves! {
    of super::TdhLeaf;

    EXPORT_ABORT = 64, "TDH.EXPORT.ABORT": row("abort an export",
        &[
            reg(Rcx, "TDR", Hpa),
            reg(R8, "MBMD address and size", Bits),
            reg(R10, "stream and command", Bits),
        ],
        &[])
        .op_states(OpStates::of(&[LiveExport, PausedExport, PostExport]));
    EXPORT_BLOCKW = 65, "TDH.EXPORT.BLOCKW": row("block pages for writing",
        &[
            reg(Rcx, "GPA list", Bits),
            reg(Rdx, "TDR", Hpa),
        ],
        &[
            reg(Rcx, "list position", Bits),
        ])
        .op_states(OpStates::of(&[LiveExport]))
        .sept_states(SeptStates::of(&[Mapped, ExportedDirty, Pending, PendingExportedDirty]));
    EXPORT_RESTORE = 66, "TDH.EXPORT.RESTORE": row("return exported pages to the running TD",
        &[
            reg(Rcx, "GPA list", Bits),
            reg(Rdx, "TDR", Hpa),
        ],
        &[
            reg(Rcx, "list position", Bits),
        ])
        .op_states(OpStates::of(&[Runnable]))
        .sept_states(SeptStates::of(&[ExportedBlockedW, ExportedDirty, ExportedDirtyBlockedW, PendingExportedBlockedW, PendingExportedDirty, PendingExportedDirtyBlockedW]));
    EXPORT_MEM = 68, "TDH.EXPORT.MEM": row("export pages",
        &[
            reg(Rcx, "GPA list", Bits),
            reg(Rdx, "TDR", Hpa),
            reg(R8, "MBMD address and size", Bits),
            reg(R9, "buffer list", Hpa),
            reg(R10, "stream and command", Bits),
            reg(R11, "first MAC list", Hpa),
            reg(R12, "second MAC list", OptionalHpa),
        ],
        &[
            reg(Rcx, "list position", Bits),
            reg(Rdx, "pages exported", Number),
        ])
        .op_states(OpStates::of(&[LiveExport, PausedExport, PostExport]))
        .sept_states(SeptStates::of(&[Mapped, BlockedW, ExportedBlockedW, ExportedDirty, ExportedDirtyBlockedW, Pending, PendingBlockedW, PendingExportedBlockedW, PendingExportedDirty, PendingExportedDirtyBlockedW]));
    EXPORT_PAUSE = 70, "TDH.EXPORT.PAUSE": row("pause a TD for export",
        &[
            reg(Rcx, "TDR", Hpa),
        ],
        &[])
        .op_states(OpStates::of(&[LiveExport]));
    EXPORT_TRACK = 71, "TDH.EXPORT.TRACK": row("start a new migration epoch",
        &[
            reg(Rcx, "TDR", Hpa),
            reg(R8, "MBMD address and size", Bits),
            reg(R10, "stream and command", Bits),
        ],
        &[])
        .op_states(OpStates::of(&[LiveExport, PausedExport]));
    EXPORT_STATE_IMMUTABLE = 72, "TDH.EXPORT.STATE.IMMUTABLE": row("export a TD's immutable state",
        &[
            reg(Rcx, "TDR", Hpa),
            reg(R8, "MBMD address and size", Bits),
            reg(R9, "page list", Bits),
            reg(R10, "stream and command", Bits),
        ],
        &[
            reg(Rdx, "pages written", Number),
        ])
        .op_states(OpStates::of(&[Runnable, LiveImport]));
    EXPORT_STATE_TD = 73, "TDH.EXPORT.STATE.TD": row("export a TD's mutable state",
        &[
            reg(Rcx, "TDR", Hpa),
            reg(R8, "MBMD address and size", Bits),
            reg(R9, "page list", Bits),
            reg(R10, "stream and command", Bits),
        ],
        &[
            reg(Rdx, "pages written", Number),
        ])
        .op_states(OpStates::of(&[PausedExport]));
    EXPORT_STATE_VP = 74, "TDH.EXPORT.STATE.VP": row("export a VCPU's state",
        &[
            reg(Rcx, "TDVPR", Hpa),
            reg(R8, "MBMD address and size", Bits),
            reg(R9, "page list", Bits),
            reg(R10, "stream and command", Bits),
        ],
        &[
            reg(Rdx, "pages written", Number),
        ])
        .op_states(OpStates::of(&[PausedExport]));
    EXPORT_UNBLOCKW = 75, "TDH.EXPORT.UNBLOCKW": row("unblock a page for writing",
        &[
            reg(Rcx, "entry", GpaLevel),
            reg(Rdx, "TDR", Hpa),
        ],
        &[
            reg(Rcx, "entry", SeptEntry),
            reg(Rdx, "its level and state", LevelState),
        ])
        .op_states(OpStates::of(&[Runnable, LiveExport, PausedExport, PostExport]))
        .sept_states(SeptStates::of(&[BlockedW, ExportedBlockedW, ExportedDirtyBlockedW, PendingBlockedW, PendingExportedBlockedW, PendingExportedDirtyBlockedW]));
    IMPORT_ABORT = 80, "TDH.IMPORT.ABORT": row("abort an import",
        &[
            reg(Rcx, "TDR", Hpa),
            reg(R8, "MBMD address and size", Bits),
            reg(R10, "stream and command", Bits),
        ],
        &[])
        .op_states(OpStates::of(&[MemoryImport, StateImport, PostImport, FailedImport]));
    IMPORT_END = 81, "TDH.IMPORT.END": row("end an import",
        &[
            reg(Rcx, "TDR", Hpa),
        ],
        &[])
        .op_states(OpStates::of(&[PostImport, LiveImport]));
    IMPORT_COMMIT = 82, "TDH.IMPORT.COMMIT": row("commit an import; the TD may run",
        &[
            reg(Rcx, "TDR", Hpa),
        ],
        &[])
        .op_states(OpStates::of(&[PostImport]));
    IMPORT_MEM = 83, "TDH.IMPORT.MEM": row("import pages",
        &[
            reg(Rcx, "GPA list", Bits),
            reg(Rdx, "TDR", Hpa),
            reg(R8, "MBMD address and size", Bits),
            reg(R9, "buffer list", Hpa),
            reg(R10, "stream and command", Bits),
            reg(R11, "first MAC list", Hpa),
            reg(R12, "second MAC list", OptionalHpa),
            reg(R13, "new page list", OptionalHpa),
        ],
        &[
            reg(Rcx, "list position", Bits),
            reg(Rdx, "pages imported", Number),
        ])
        .op_states(OpStates::of(&[MemoryImport, StateImport, PostImport, LiveImport]))
        .sept_states(SeptStates::of(&[Free, Removed, Mapped, Pending]));
    IMPORT_TRACK = 84, "TDH.IMPORT.TRACK": row("take over a migration epoch",
        &[
            reg(Rcx, "TDR", Hpa),
            reg(R8, "MBMD address and size", Bits),
            reg(R10, "stream and command", Bits),
        ],
        &[])
        .op_states(OpStates::of(&[MemoryImport, StateImport]));
    IMPORT_STATE_IMMUTABLE = 85, "TDH.IMPORT.STATE.IMMUTABLE": row("import a TD's immutable state",
        &[
            reg(Rcx, "TDR", Hpa),
            reg(R8, "MBMD address and size", Bits),
            reg(R9, "page list", Bits),
            reg(R10, "stream and command", Bits),
        ],
        &[
            reg(Rcx, "more about the field at fault", Bits),
            reg(Rdx, "more about the field at fault", Bits),
        ])
        .op_states(OpStates::of(&[Uninitialized]));
    IMPORT_STATE_TD = 86, "TDH.IMPORT.STATE.TD": row("import a TD's mutable state",
        &[
            reg(Rcx, "TDR", Hpa),
            reg(R8, "MBMD address and size", Bits),
            reg(R9, "page list", Bits),
            reg(R10, "stream and command", Bits),
        ],
        &[
            reg(Rcx, "more about the field at fault", Bits),
            reg(Rdx, "more about the field at fault", Bits),
        ])
        .op_states(OpStates::of(&[MemoryImport]));
    IMPORT_STATE_VP = 87, "TDH.IMPORT.STATE.VP": row("import a VCPU's state",
        &[
            reg(Rcx, "TDVPR", Hpa),
            reg(R8, "MBMD address and size", Bits),
            reg(R9, "page list", Bits),
            reg(R10, "stream and command", Bits),
        ],
        &[
            reg(Rcx, "more about the field at fault", Bits),
            reg(Rdx, "more about the field at fault", Bits),
        ])
        .op_states(OpStates::of(&[StateImport]));
    MIG_STREAM_CREATE = 96, "TDH.MIG.STREAM.CREATE": row("create a migration stream",
        &[
            reg(Rcx, "new page", Hpa),
            reg(Rdx, "TDR", Hpa),
        ],
        &[])
        .op_states(OpStates::of(&[Uninitialized, Initialized, Runnable]));
}
