//! What is known about a leaf: versions, the meaning of its registers, when it runs, and what it costs.

pub(super) use super::host_state::HostState;
use crate::metadata::Context;
use crate::op_state::OpStates;
use crate::regs::Reg;
use crate::release::Release;
use crate::sept::SeptStates;
use crate::status::{Operand, Status, StatusCode};

/// How to read the value of a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A host-physical address.
    Hpa,
    /// A host-physical address whose low bits are flags.
    HpaAndFlags,
    /// A host-physical address, or all-ones for none.
    OptionalHpa,
    /// A guest-physical address.
    Gpa,
    /// A guest-physical address with a level in its low bits.
    GpaLevel,
    /// A Secure-EPT entry as the module shows it.
    SeptEntry,
    /// Level and state of a Secure-EPT entry.
    LevelState,
    /// A metadata field identifier of this context.
    Field(Context),
    /// A PAMT page type.
    PageType,
    /// A page size as a level.
    PageSize,
    /// A key id.
    KeyId,
    /// A count, size or other number.
    Number,
    /// Bits, or anything that is best read in hexadecimal.
    Bits,
}

/// One register of a leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegUse {
    /// The register.
    pub reg: Reg,
    /// What the register holds, in a few words.
    pub what: &'static str,
    /// How to read it.
    pub kind: Kind,
}

/// In which states of the module a host leaf runs. Guest leaves run in a TD, which needs a ready module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Readiness {
    /// Once the module is ready; before it answers `SYS_NOT_READY`, afterwards `SYS_SHUTDOWN`.
    Ready,
    /// The leaf may be called while the module is brought up, too; after its shutdown it answers `SYS_SHUTDOWN`.
    BringUp,
    /// Always, also after the module's shutdown.
    Always,
}

/// Whether a leaf looks for pending interrupts of the host while it works, and what it then leaves behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interruption {
    /// The leaf does not look for interrupts.
    Never,
    /// The leaf ends with nothing done; an equal call begins anew (`INTERRUPTED_RESTARTABLE`, or the guest executes its
    /// TDCALL again).
    Restartable,
    /// The leaf ends with part of the work done, and its outputs are the operands of the call that goes on
    /// (`INTERRUPTED_RESUMABLE`).
    Resumable,
}

/// What is known about one leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeafInfo {
    /// The leaf number.
    pub number: u16,
    /// The name, such as `TDH.MEM.PAGE.AUG`.
    pub name: &'static str,
    /// The first release that has the leaf.
    pub since: Release,
    /// The release that first accepts versions above 0, and the greatest of them; `None`: only version 0 exists.
    pub versions: Option<(Release, u8)>,
    /// What the leaf does, in a few words.
    pub summary: &'static str,
    /// The registers that it reads beside RAX.
    pub inputs: &'static [RegUse],
    /// The registers that it writes beside RAX. All others keep their value.
    pub outputs: &'static [RegUse],
    /// The state of the calling processor, beside its outputs, that does not survive the call.
    pub gives_up: HostState,
    /// In which states of the module it runs.
    pub ready: Readiness,
    /// The states of the TD that it names in which it runs; `None`: it does not look.
    pub op_states: Option<OpStates>,
    /// The states of the Secure-EPT entry that it names in which it runs; `None`: it does not look.
    pub sept_states: Option<SeptStates>,
    /// What an interrupt of the host does to it.
    pub interruption: Interruption,
    /// The release from which on interrupts are not looked for any more.
    pub uninterrupted_since: Option<Release>,
    /// Statuses that say nothing about the call: another processor or the hardware was in the way, and the same
    /// call may succeed.
    pub transient: &'static [Status],
}

impl LeafInfo {
    /// The meaning of a register on entry.
    pub fn input(&self, reg: Reg) -> Option<&'static RegUse> {
        self.inputs.iter().find(|entry| entry.reg == reg)
    }

    /// The meaning of a register on return.
    pub fn output(&self, reg: Reg) -> Option<&'static RegUse> {
        self.outputs.iter().find(|entry| entry.reg == reg)
    }

    /// Whether a release has the leaf.
    pub const fn exists_in(&self, release: Release) -> bool {
        release.is_from(self.since)
    }

    /// The greatest version that a release accepts.
    pub const fn max_version(&self, release: Release) -> u8 {
        match self.versions {
            Some((since, version)) if release.is_from(since) => version,
            _ => 0,
        }
    }

    /// What an interrupt of the host does to the leaf in a release.
    pub const fn interruption_in(&self, release: Release) -> Interruption {
        match self.uninterrupted_since {
            Some(since) if release.is_from(since) => Interruption::Never,
            _ => self.interruption,
        }
    }

    /// Whether the leaf describes a Secure-EPT entry in RCX and RDX, and therefore clears both on entry.
    pub fn describes_entry(&self) -> bool {
        self.output(Reg::Rdx).is_some_and(|entry| entry.kind == Kind::LevelState)
    }

    /// The row, with number and name.
    pub(super) const fn named(self, number: u16, name: &'static str) -> Self {
        Self { number, name, ..self }
    }

    /// The row, with the greatest version that exists from this release on.
    pub(super) const fn version(self, since: Release, greatest: u8) -> Self {
        Self { versions: Some((since, greatest)), ..self }
    }

    /// The row, of a leaf that exists from this release on.
    pub(super) const fn since(self, since: Release) -> Self {
        Self { since, ..self }
    }

    /// The row, with the state that does not survive.
    pub(super) const fn gives_up(self, gives_up: HostState) -> Self {
        Self { gives_up, ..self }
    }

    /// The row, with the states of the module.
    pub(super) const fn ready(self, ready: Readiness) -> Self {
        Self { ready, ..self }
    }

    /// The row, with the states of the TD.
    pub(super) const fn op_states(self, states: OpStates) -> Self {
        Self { op_states: Some(states), ..self }
    }

    /// The row, with the states of the entry.
    pub(super) const fn sept_states(self, states: SeptStates) -> Self {
        Self { sept_states: Some(states), ..self }
    }

    /// The row, with what an interrupt does.
    pub(super) const fn interruption(self, interruption: Interruption) -> Self {
        Self { interruption, ..self }
    }

    /// The row, of a leaf that does not look for interrupts from this release on.
    pub(super) const fn not_interrupted_since(self, since: Release) -> Self {
        Self { uninterrupted_since: Some(since), ..self }
    }

    /// The row, with its transient statuses.
    pub(super) const fn transient(self, transient: &'static [Status]) -> Self {
        Self { transient, ..self }
    }
}

/// One register use of a row.
pub(super) const fn reg(reg: Reg, what: &'static str, kind: Kind) -> RegUse {
    RegUse { reg, what, kind }
}

/// One row: a leaf of every release, at version 0, of a ready module, that looks at no state.
pub(super) const fn row(
    summary: &'static str,
    inputs: &'static [RegUse],
    outputs: &'static [RegUse],
) -> LeafInfo {
    LeafInfo {
        number: 0,
        name: "",
        since: Release::V1_5_01,
        versions: None,
        summary,
        inputs,
        outputs,
        gives_up: HostState::NONE,
        ready: Readiness::Ready,
        op_states: None,
        sept_states: None,
        interruption: Interruption::Never,
        uninterrupted_since: None,
        transient: &[],
    }
}

/// `OPERAND_BUSY`: another processor holds the lock of an operand.
pub(super) const fn busy(operand: Operand) -> Status {
    Status::with_operand(StatusCode::OPERAND_BUSY, operand)
}

/// `INTERRUPTED_RESTARTABLE`.
pub(super) const RESTARTABLE: Status = Status::new(StatusCode::INTERRUPTED_RESTARTABLE);
/// `RND_NO_ENTROPY`.
pub(super) const NO_ENTROPY: Status = Status::new(StatusCode::RND_NO_ENTROPY);
/// Transient statuses of a leaf that locks its first operand.
pub(super) const OPERAND: &[Status] = &[busy(Operand::RCX)];
/// Transient statuses of a leaf that locks a VCPU and its TD.
pub(super) const VCPU: &[Status] = &[busy(Operand::RCX), busy(Operand::TDR)];
/// Transient statuses of a leaf that locks a Secure-EPT entry.
pub(super) const MEMORY: &[Status] =
    &[busy(Operand::RDX), busy(Operand::OP_STATE), busy(Operand::SEPT_TREE), busy(Operand::RCX)];
/// Transient statuses of a leaf that locks a Secure-EPT entry and a page.
pub(super) const MEMORY_WITH_PAGE: &[Status] = &[
    busy(Operand::RDX),
    busy(Operand::OP_STATE),
    busy(Operand::SEPT_TREE),
    busy(Operand::RCX),
    busy(Operand::R8),
];
/// Transient statuses of a leaf that brings the module up.
pub(super) const BRING_UP: &[Status] = &[Status::new(StatusCode::SYS_BUSY), NO_ENTROPY];

/// Declares leaves: the number as a constant of its side's type, and its row in the table [`ROWS`] of the module.
macro_rules! leaves {
    (of $side:ty; $( $constant:ident = $number:literal, $name:literal: $row:expr; )*) => {
        impl $side {
            $(
                #[doc = concat!("`", $name, "`.")]
                pub const $constant: Self = Self($number);
            )*
        }

        /// What is known about these leaves.
        pub(in crate::leaf) const ROWS: &[$crate::leaf::LeafInfo] =
            &[ $( $row.named($number, $name) ),* ];
    };
}

pub(super) use leaves;
