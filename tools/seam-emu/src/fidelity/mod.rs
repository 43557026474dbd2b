//! How faithful the emulated module is, leaf by leaf, and what that claim rests on.
//!
//! [`TABLE`] is the claim, gathered from the rows of the leaves; FIDELITY.md is generated from it ([`to_markdown`]) and a test holds the two together.
//! Another test asks, for every status code that a row lists, who has seen the leaf return it: a recording of
//! the real module ([`RECORDED`]) or a scenario of this crate's tests.

pub(crate) mod claim;
mod markdown;
mod recorded;
mod server;
mod table;

#[cfg(test)]
mod reach;
#[cfg(test)]
mod reach_migration;

use core::fmt;
use std::collections::BTreeSet;

use tdx_module_iface::StatusCode;

pub use claim::Claim;
pub use markdown::to_markdown;
pub use recorded::RECORDED;
pub use server::SERVER;
pub use table::{NOT_COMPARED, NOT_MODELLED, TABLE};

/// How much of a leaf is there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Degree {
    /// Inputs, outputs, order of checks, status, state changes, interruption.
    Exact,
    /// Some of it; the note says what is missing.
    Partial,
    /// Nothing: the leaf answers as the note says.
    Absent,
}

/// What a claim rests on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Backing {
    /// Calls of the real module, replayed with equal registers.
    Recording,
    /// The published rules; nobody has compared.
    Rule,
    /// Nothing.
    None,
}

impl fmt::Display for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Recording => "recording",
            Self::Rule => "rule",
            Self::None => "none",
        })
    }
}

/// Status codes that come from steps which many leaves share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gate {
    /// A control page named by address: form, range, lock, type.
    Page,
    /// The TD is not dead and has its key.
    Keys,
    /// The TD has its TDCX pages.
    Tdcs,
    /// OP_STATE allows the leaf.
    OpState,
    /// The VCPU has its pages.
    VcpuPages,
    /// The Secure-EPT walk reaches the entry.
    Walk,
    /// The entry is in a state that the leaf accepts.
    EntryState,
    /// Blocked, and tracked.
    Tracked,
    /// A field is named.
    FieldId,
    /// A field is read and may name the first one.
    FieldRead,
    /// A field is written.
    FieldWrite,
}

impl Gate {
    /// The codes of the step.
    pub const fn codes(self) -> &'static [StatusCode] {
        use StatusCode as C;
        match self {
            Self::Page => &[
                C::OPERAND_INVALID,
                C::OPERAND_ADDR_RANGE_ERROR,
                C::OPERAND_BUSY,
                C::PAGE_METADATA_INCORRECT,
            ],
            Self::Keys => &[C::TD_FATAL, C::TD_KEYS_NOT_CONFIGURED],
            Self::Tdcs => &[C::TDCS_NOT_ALLOCATED],
            Self::OpState => &[C::OP_STATE_INCORRECT],
            Self::VcpuPages => &[C::TDCX_NUM_INCORRECT],
            Self::Walk => &[C::EPT_WALK_FAILED],
            Self::EntryState => &[C::EPT_ENTRY_STATE_INCORRECT],
            Self::Tracked => &[C::GPA_RANGE_NOT_BLOCKED, C::TLB_TRACKING_NOT_DONE],
            Self::FieldId => &[C::METADATA_FIELD_ID_INCORRECT],
            Self::FieldRead => &[C::METADATA_FIELD_NOT_READABLE, C::METADATA_FIRST_FIELD_ID_IN_CONTEXT],
            Self::FieldWrite => &[C::METADATA_FIELD_NOT_WRITABLE, C::METADATA_FIELD_VALUE_NOT_VALID],
        }
    }
}

/// A leaf and the claim about it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Name of the leaf.
    pub leaf: &'static str,
    /// The claim.
    pub claim: Claim,
}

impl Row {
    /// Every status code that the leaf can return once the module is ready, SUCCESS included for leaves that
    /// exist.
    pub fn all_codes(&self) -> BTreeSet<StatusCode> {
        let own = self.claim.codes.iter().copied();
        let shared = self.claim.gates.iter().flat_map(|gate| gate.codes().iter().copied());
        let success = (self.claim.degree != Degree::Absent).then_some(StatusCode::SUCCESS);
        own.chain(shared).chain(success).collect()
    }

    /// The codes that recordings of the real module contain.
    pub fn recorded_codes(&self) -> BTreeSet<StatusCode> {
        RECORDED
            .iter()
            .filter(|(leaf, _)| *leaf == self.leaf)
            .flat_map(|(_, codes)| codes.iter().copied())
            .collect()
    }
}
