//! What is claimed about a leaf. The claim stands in the leaf's row, beside what answers it.

use tdx_module_iface::StatusCode as C;

use super::Gate::{EntryState, Keys, OpState, Page, Tdcs, Tracked, Walk};
use super::{Backing, Degree, Gate};

/// The claim about one leaf.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// How much of it is there.
    pub degree: Degree,
    /// What that rests on.
    pub backing: Backing,
    /// Shared steps whose codes it can return.
    pub gates: &'static [Gate],
    /// Further codes that it can return, beside SUCCESS.
    pub codes: &'static [C],
    /// What is missing, or worth knowing.
    pub note: &'static str,
}

/// All of it is there, and was replayed.
pub(crate) const fn exact(gates: &'static [Gate], codes: &'static [C], note: &'static str) -> Claim {
    Claim { degree: Degree::Exact, backing: Backing::Recording, gates, codes, note }
}

/// Some of it is there, and was replayed.
pub(crate) const fn partial(gates: &'static [Gate], codes: &'static [C], note: &'static str) -> Claim {
    Claim { degree: Degree::Partial, backing: Backing::Recording, gates, codes, note }
}

/// All of it is there; nobody has compared.
pub(crate) const fn by_rule(gates: &'static [Gate], codes: &'static [C], note: &'static str) -> Claim {
    Claim { degree: Degree::Exact, backing: Backing::Rule, gates, codes, note }
}

/// The leaf only fails, as it did when it was recorded.
pub(crate) const fn never(codes: &'static [C], note: &'static str) -> Claim {
    Claim { degree: Degree::Absent, backing: Backing::Recording, gates: &[], codes, note }
}

/// Nothing is there.
pub(crate) const fn absent(note: &'static str) -> Claim {
    let codes = &[C::OPERAND_INVALID];
    Claim { degree: Degree::Absent, backing: Backing::None, gates: &[], codes, note }
}

/// Note: a leaf that no emulated release has.
pub(crate) const LATER_RELEASE: &str = "of a release that is not emulated: OPERAND_INVALID on RAX";
/// The steps of a leaf that names a Secure-EPT entry.
pub(crate) const MEMORY: &[Gate] = &[Page, Keys, Tdcs, OpState, Walk, EntryState];
/// The steps of a leaf that takes a mapping away.
pub(crate) const REMOVING: &[Gate] = &[Page, Keys, Tdcs, OpState, Walk, EntryState, Tracked];
