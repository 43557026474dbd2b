//! What is known about a leaf: versions, and the meaning of its registers.

use crate::metadata::Context;
use crate::regs::Reg;
use crate::status::Release;

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
    /// What it holds, in a few words.
    pub what: &'static str,
    /// How to read it.
    pub kind: Kind,
}

/// What is known about one leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeafInfo {
    /// The leaf number.
    pub number: u16,
    /// The name, such as `TDH.MEM.PAGE.AUG`.
    pub name: &'static str,
    /// The greatest version that module 1.5.01 accepts (that the first module with the leaf accepts, for newer
    /// leaves).
    pub max_version: u8,
    /// The greatest version that newer modules accept.
    pub newer_max_version: u8,
    /// Which modules have the leaf.
    pub release: Release,
    /// What it does, in a few words.
    pub summary: &'static str,
    /// The registers that it reads beside RAX.
    pub inputs: &'static [RegUse],
    /// The registers that it writes beside RAX. All others keep their value.
    pub outputs: &'static [RegUse],
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

    /// The same row with a greater accepted version.
    pub(super) const fn versions(self, max_version: u8, newer_max_version: u8) -> Self {
        Self { max_version, newer_max_version, ..self }
    }

    /// The same row, of a leaf that module 1.5.01 lacks.
    pub(super) const fn newer(self) -> Self {
        Self { release: Release::Newer, ..self }
    }
}

/// One register use of a row.
pub(super) const fn reg(reg: Reg, what: &'static str, kind: Kind) -> RegUse {
    RegUse { reg, what, kind }
}

/// One row at version 0, known to module 1.5.01.
pub(super) const fn row(
    number: u16,
    name: Option<&'static str>,
    summary: &'static str,
    inputs: &'static [RegUse],
    outputs: &'static [RegUse],
) -> LeafInfo {
    let name = match name {
        Some(name) => name,
        None => "UNKNOWN",
    };
    LeafInfo {
        number,
        name,
        max_version: 0,
        newer_max_version: 0,
        release: Release::Base,
        summary,
        inputs,
        outputs,
    }
}
