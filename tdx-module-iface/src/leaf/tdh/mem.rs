//! The host leaves about a TD's private memory (TDH.MEM.*).

use crate::leaf::info::{
    Interruption::{Restartable, Resumable},
    Kind::{Bits, Gpa, GpaLevel, Hpa, HpaAndFlags, LevelState, OptionalHpa, SeptEntry},
    MEMORY, MEMORY_WITH_PAGE, RESTARTABLE, busy, leaves, reg, row,
};
use crate::op_state::{
    OpState::{
        FailedImport, Initialized, LiveExport, LiveImport, MemoryImport, PausedExport, PostExport,
        PostImport, Runnable, StateImport,
    },
    OpStates,
};
use crate::regs::Reg::{R8, R9, R10, R11, R12, R13, Rcx, Rdx};
use crate::release::Release::{V1_5_01, V1_5Late};
use crate::sept::{
    SeptState::{
        Blocked, BlockedW, ExportedBlockedW, ExportedDirty, ExportedDirtyBlockedW, Free, Mapped, NlBlocked,
        NlMapped, Pending, PendingBlocked, PendingBlockedW, PendingExportedBlockedW, PendingExportedDirty,
        PendingExportedDirtyBlockedW, Removed,
    },
    SeptStates,
};
use crate::status::{Operand, Status, StatusCode};

leaves! {
    of super::TdhLeaf;

    MEM_PAGE_ADD = 2, "TDH.MEM.PAGE.ADD": row("add a measured 4K page to a TD that is being built",
        &[
            reg(Rcx, "entry", GpaLevel),
            reg(Rdx, "TDR", Hpa),
            reg(R8, "new page", Hpa),
            reg(R9, "source page", Hpa),
        ],
        &[
            reg(Rcx, "entry", SeptEntry),
            reg(Rdx, "its level and state", LevelState),
        ])
        .op_states(OpStates::of(&[Initialized]))
        .sept_states(SeptStates::of(&[Free]))
        .transient(MEMORY_WITH_PAGE);
    MEM_SEPT_ADD = 3, "TDH.MEM.SEPT.ADD": row("add a Secure-EPT page",
        &[
            reg(Rcx, "entry", GpaLevel),
            reg(Rdx, "TDR (bit 0 allow existing)", HpaAndFlags),
            reg(R8, "new page", OptionalHpa),
            reg(R9, "version 1: page for L2 VM 1", OptionalHpa),
            reg(R10, "version 1: page for L2 VM 2", OptionalHpa),
            reg(R11, "version 1: page for L2 VM 3", OptionalHpa),
        ],
        &[
            reg(Rcx, "entry", SeptEntry),
            reg(Rdx, "its level and state", LevelState),
            reg(R8, "version 1: page if not used", OptionalHpa),
            reg(R9, "version 1: page if not used", OptionalHpa),
            reg(R10, "version 1: page if not used", OptionalHpa),
            reg(R11, "version 1: page if not used", OptionalHpa),
        ])
        .version(V1_5_01, 1)
        .op_states(OpStates::of(&[Initialized, Runnable, LiveExport, MemoryImport, StateImport, PostImport, LiveImport]))
        .sept_states(SeptStates::of(&[Free, NlMapped]))
        .interruption(Resumable)
        .transient(MEMORY_WITH_PAGE);
    MEM_PAGE_RELOCATE = 5, "TDH.MEM.PAGE.RELOCATE": row("move a blocked 4K page",
        &[
            reg(Rcx, "entry", GpaLevel),
            reg(Rdx, "TDR", Hpa),
            reg(R8, "new page", Hpa),
        ],
        &[
            reg(Rcx, "old page, or entry on failure", Bits),
            reg(Rdx, "its level and state", LevelState),
        ])
        .op_states(OpStates::of(&[Initialized, Runnable, LiveExport, PausedExport, PostExport, PostImport, LiveImport]))
        .sept_states(SeptStates::of(&[Mapped, Blocked, BlockedW, ExportedBlockedW, ExportedDirty, ExportedDirtyBlockedW, Pending, PendingBlocked, PendingBlockedW, PendingExportedBlockedW, PendingExportedDirty, PendingExportedDirtyBlockedW]))
        .transient(MEMORY_WITH_PAGE);
    MEM_PAGE_AUG = 6, "TDH.MEM.PAGE.AUG": row("add a page that the guest has to accept",
        &[
            reg(Rcx, "entry", GpaLevel),
            reg(Rdx, "TDR", Hpa),
            reg(R8, "new page", Hpa),
        ],
        &[
            reg(Rcx, "entry", SeptEntry),
            reg(Rdx, "its level and state", LevelState),
        ])
        .op_states(OpStates::of(&[Initialized, Runnable, LiveExport, LiveImport]))
        .sept_states(SeptStates::of(&[Free, Removed]))
        .transient(MEMORY_WITH_PAGE);
    MEM_RANGE_BLOCK = 7, "TDH.MEM.RANGE.BLOCK": row("block new translations through an entry",
        &[
            reg(Rcx, "entry", GpaLevel),
            reg(Rdx, "TDR", Hpa),
        ],
        &[
            reg(Rcx, "entry", SeptEntry),
            reg(Rdx, "its level and state", LevelState),
        ])
        .op_states(OpStates::of(&[Initialized, Runnable, LiveExport, PausedExport, PostExport, PostImport, LiveImport]))
        .sept_states(SeptStates::of(&[NlMapped, Mapped, BlockedW, Pending, PendingBlockedW]))
        .transient(MEMORY);
    MEM_RD = 12, "TDH.MEM.RD": row("read a debug TD's memory",
        &[
            reg(Rcx, "address", Gpa),
            reg(Rdx, "TDR", Hpa),
        ],
        &[
            reg(Rcx, "entry", SeptEntry),
            reg(Rdx, "its level and state", LevelState),
            reg(R8, "value", Bits),
        ])
        .op_states(OpStates::of(&[Initialized, Runnable, LiveExport, PausedExport, PostExport, MemoryImport, StateImport, PostImport, LiveImport, FailedImport]))
        .sept_states(SeptStates::of(&[Mapped, BlockedW, ExportedBlockedW, ExportedDirty, ExportedDirtyBlockedW]))
        .transient(MEMORY);
    MEM_WR = 14, "TDH.MEM.WR": row("write a debug TD's memory",
        &[
            reg(Rcx, "address", Gpa),
            reg(Rdx, "TDR", Hpa),
            reg(R8, "value", Bits),
        ],
        &[
            reg(Rcx, "entry", SeptEntry),
            reg(Rdx, "its level and state", LevelState),
            reg(R8, "old value", Bits),
        ])
        .op_states(OpStates::of(&[Initialized, Runnable, LiveExport, MemoryImport, StateImport, PostImport, LiveImport, FailedImport]))
        .sept_states(SeptStates::of(&[Mapped, ExportedDirty]))
        .transient(MEMORY);
    MEM_PAGE_DEMOTE = 15, "TDH.MEM.PAGE.DEMOTE": row("split a blocked large page",
        &[
            reg(Rcx, "entry", GpaLevel),
            reg(Rdx, "TDR (bit 0 L2 pages mode)", HpaAndFlags),
            reg(R8, "new Secure-EPT page", Hpa),
            reg(R9, "page for L2 VM 1", OptionalHpa),
            reg(R10, "page for L2 VM 2", OptionalHpa),
            reg(R11, "page for L2 VM 3", OptionalHpa),
            reg(R12, "newer modules: first PAMT page", OptionalHpa),
            reg(R13, "newer modules: second PAMT page", OptionalHpa),
        ],
        &[
            reg(Rcx, "entry", SeptEntry),
            reg(Rdx, "its level and state", LevelState),
            reg(R9, "page if not used", OptionalHpa),
            reg(R10, "page if not used", OptionalHpa),
            reg(R11, "page if not used", OptionalHpa),
        ])
        .op_states(OpStates::of(&[Initialized, Runnable, LiveExport, PausedExport, PostExport, PostImport, LiveImport]))
        .sept_states(SeptStates::of(&[Mapped, Blocked, Pending, PendingBlocked]))
        .interruption(Restartable)
        .not_interrupted_since(V1_5Late)
        .transient(&[busy(Operand::SEPT_TREE), busy(Operand::RCX), busy(Operand::R8), RESTARTABLE]);
    MEM_PAGE_PROMOTE = 23, "TDH.MEM.PAGE.PROMOTE": row("merge 512 pages",
        &[
            reg(Rcx, "entry", GpaLevel),
            reg(Rdx, "TDR", Hpa),
        ],
        &[
            reg(Rcx, "freed Secure-EPT page, or entry on failure", Bits),
            reg(Rdx, "its level and state", LevelState),
            reg(R9, "version 1: freed page of L2 VM 1", OptionalHpa),
            reg(R10, "version 1: freed page of L2 VM 2", OptionalHpa),
            reg(R11, "version 1: freed page of L2 VM 3", OptionalHpa),
        ])
        .version(V1_5_01, 1)
        .op_states(OpStates::of(&[Initialized, Runnable, LiveExport, PausedExport, PostExport, PostImport, LiveImport]))
        .sept_states(SeptStates::of(&[NlMapped, NlBlocked]))
        .interruption(Restartable)
        .transient(&[busy(Operand::SEPT_TREE), busy(Operand::RCX), RESTARTABLE]);
    MEM_SEPT_RD = 25, "TDH.MEM.SEPT.RD": row("read a Secure-EPT entry",
        &[
            reg(Rcx, "entry", GpaLevel),
            reg(Rdx, "TDR (bit 0 L2 attributes too)", HpaAndFlags),
        ],
        &[
            reg(Rcx, "entry", SeptEntry),
            reg(Rdx, "its level and state", LevelState),
            reg(R8, "L2 attributes, where asked for", Bits),
        ])
        .op_states(OpStates::of(&[Initialized, Runnable, LiveExport, PausedExport, PostExport, MemoryImport, StateImport, PostImport, LiveImport, FailedImport]))
        .sept_states(SeptStates::ALL)
        .transient(MEMORY);
    MEM_PAGE_REMOVE = 29, "TDH.MEM.PAGE.REMOVE": row("remove a page",
        &[
            reg(Rcx, "entry", GpaLevel),
            reg(Rdx, "TDR", Hpa),
        ],
        &[
            reg(Rcx, "removed page, or entry on failure", Bits),
            reg(Rdx, "its level and state", LevelState),
        ])
        .op_states(OpStates::of(&[Initialized, Runnable, LiveExport, PausedExport, PostExport, PostImport, LiveImport, FailedImport]))
        .sept_states(SeptStates::of(&[Mapped, Blocked, BlockedW, Pending, PendingBlocked, PendingBlockedW]))
        .transient(MEMORY);
    MEM_SEPT_REMOVE = 30, "TDH.MEM.SEPT.REMOVE": row("remove a Secure-EPT page",
        &[
            reg(Rcx, "entry", GpaLevel),
            reg(Rdx, "TDR", Hpa),
        ],
        &[
            reg(Rcx, "removed page, or entry on failure", Bits),
            reg(Rdx, "its level and state", LevelState),
            reg(R9, "version 1: removed page of L2 VM 1", OptionalHpa),
            reg(R10, "version 1: removed page of L2 VM 2", OptionalHpa),
            reg(R11, "version 1: removed page of L2 VM 3", OptionalHpa),
        ])
        .version(V1_5_01, 1)
        .op_states(OpStates::of(&[Initialized, Runnable, LiveExport, PausedExport, PostExport, MemoryImport, StateImport, PostImport, LiveImport, FailedImport]))
        .sept_states(SeptStates::of(&[NlMapped, NlBlocked]))
        .transient(MEMORY);
    MEM_TRACK = 38, "TDH.MEM.TRACK": row("start a new TLB epoch",
        &[
            reg(Rcx, "TDR", Hpa),
        ],
        &[])
        .op_states(OpStates::of(&[Initialized, Runnable, LiveExport, PausedExport, PostExport, MemoryImport, StateImport, PostImport, LiveImport]))
        .transient(&[busy(Operand::RCX), busy(Operand::TD_EPOCH), Status::new(StatusCode::PREVIOUS_TLB_EPOCH_BUSY)]);
    MEM_RANGE_UNBLOCK = 39, "TDH.MEM.RANGE.UNBLOCK": row("undo blocking",
        &[
            reg(Rcx, "entry", GpaLevel),
            reg(Rdx, "TDR", Hpa),
        ],
        &[
            reg(Rcx, "entry", SeptEntry),
            reg(Rdx, "its level and state", LevelState),
        ])
        .op_states(OpStates::of(&[Initialized, Runnable, LiveExport, PausedExport, PostExport, PostImport, LiveImport]))
        .sept_states(SeptStates::of(&[NlBlocked, Blocked, PendingBlocked]))
        .transient(MEMORY);
}
