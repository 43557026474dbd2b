//! What an asynchronous TD exit carries: reason, exit qualification, extended exit qualification.

use core::fmt;

use tdvisor_base::{Level, open_enum};
pub use x86_arch::exit::{EptViolation, ExitReason, ExitReasonField};

use crate::sept::SeptStateId;

open_enum! {
    /// The type of an extended exit qualification, bits 3:0.
    pub enum ExtendedType : u8 {
        /// Nothing more is known.
        NONE = 0, "none";
        /// `TDG.MEM.PAGE.ACCEPT` could not accept.
        ACCEPT = 1, "ACCEPT";
        /// Details about the GPA.
        GPA_DETAILS = 2, "GPA_DETAILS";
        /// An MSR could not be loaded at TD entry.
        MSR_LOAD = 3, "TD entry: MSR load failure";
        /// Extended state could not be loaded at TD entry.
        XSTATE_LOAD = 4, "TD entry: extended state load failure";
        /// `TDG.MEM.PAGE.ATTR.WR` could not write.
        ATTR_WR = 5, "ATTR_WR";
        /// The guest touched a pending page.
        PENDING_EPT_VIOLATION = 6, "PENDING_EPT_VIOLATION";
    }
}

/// The extended exit qualification: RDX of an asynchronous exit.
///
/// For ACCEPT and ATTR_WR: requested level in bits 34:32, level at which the walk ended in 37:35, state of
/// that entry in 45:38, whether it is a leaf in 46, VM in 53:52.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(transparent)]
pub struct ExtendedQualification(pub u64);

impl ExtendedQualification {
    /// Nothing more is known.
    pub const NONE: Self = Self(0);
    /// The guest touched a pending page.
    pub const PENDING: Self = Self(ExtendedType::PENDING_EPT_VIOLATION.0 as u64);

    /// The qualification of a failed accept: what was asked, and the entry at which the walk ended.
    ///
    /// ```
    /// use tdvisor_base::Level;
    /// use tdx_module_iface::exit::{EntryIs, ExtendedQualification};
    /// use tdx_module_iface::sept::SeptStateId;
    ///
    /// let (large, free) = (Level::L2M, SeptStateId(0));
    /// let qualification = ExtendedQualification::accept(large, large, free, EntryIs::NotLeaf, 0);
    /// assert_eq!(qualification.to_string(), "ACCEPT of a 2M page, walk ended at a 2M entry in state FREE");
    /// ```
    pub fn accept(requested: Level, found: Level, state: SeptStateId, leaf: EntryIs, vm: u8) -> Self {
        Self::with_info(ExtendedType::ACCEPT, requested, found, state, leaf, vm)
    }

    /// The qualification of a failed attribute write.
    pub fn attr_wr(requested: Level, found: Level, state: SeptStateId, leaf: EntryIs, vm: u8) -> Self {
        Self::with_info(ExtendedType::ATTR_WR, requested, found, state, leaf, vm)
    }

    /// The qualification of an attribute write that needs tables of an L2 VM.
    pub fn gpa_details(requested: Level, found: Level, state: SeptStateId, leaf: EntryIs, vm: u8) -> Self {
        Self::with_info(ExtendedType::GPA_DETAILS, requested, found, state, leaf, vm)
    }

    fn with_info(
        kind: ExtendedType,
        requested: Level,
        found: Level,
        state: SeptStateId,
        leaf: EntryIs,
        vm: u8,
    ) -> Self {
        let leaf_bit = match leaf {
            EntryIs::Leaf => 1,
            EntryIs::NotLeaf => 0,
        };
        let info = u64::from(requested.index())
            | u64::from(found.index()) << 3
            | u64::from(state.0) << 6
            | leaf_bit << 14
            | u64::from(vm & 3) << 20;
        Self(u64::from(kind.0) | info << 32)
    }

    /// Bits 3:0.
    pub const fn kind(self) -> ExtendedType {
        ExtendedType((self.0 & 0xf) as u8)
    }

    /// The level that the guest asked for (ACCEPT and ATTR_WR).
    pub const fn requested_level(self) -> Option<Level> {
        Level::from_index((self.0 >> 32 & 7) as u8)
    }

    /// The level at which the walk ended (ACCEPT and ATTR_WR).
    pub const fn found_level(self) -> Option<Level> {
        Level::from_index((self.0 >> 35 & 7) as u8)
    }

    /// The state of the entry at which the walk ended (ACCEPT and ATTR_WR).
    pub const fn found_state(self) -> SeptStateId {
        SeptStateId((self.0 >> 38 & 0xff) as u8)
    }

    /// Whether that entry is a leaf (ACCEPT and ATTR_WR).
    pub const fn found_leaf(self) -> EntryIs {
        if self.0 >> 46 & 1 != 0 { EntryIs::Leaf } else { EntryIs::NotLeaf }
    }

    /// The VM whose tree was walked (ACCEPT and ATTR_WR).
    pub const fn vm(self) -> u8 {
        (self.0 >> 52 & 3) as u8
    }
}

impl fmt::Display for ExtendedQualification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind())?;
        if matches!(self.kind(), ExtendedType::ACCEPT | ExtendedType::ATTR_WR)
            && let (Some(requested), Some(found)) = (self.requested_level(), self.found_level())
        {
            write!(
                f,
                " of a {requested} page, walk ended at a {found} entry in state {}",
                self.found_state()
            )?;
        }
        Ok(())
    }
}

/// Whether a Secure-EPT entry is a leaf.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EntryIs {
    /// The entry maps a page.
    Leaf,
    /// The entry is free or points to a table.
    NotLeaf,
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn accept_qualifications_are_packed_as_recorded() {
        let free = SeptStateId(0);
        let small = ExtendedQualification::accept(Level::L4K, Level::L4K, free, EntryIs::NotLeaf, 0);
        assert_eq!(small.0, 1);
        let large = ExtendedQualification::accept(Level::L2M, Level::L2M, free, EntryIs::NotLeaf, 0);
        assert_eq!(large.0, 0x9_0000_0001);
        assert_eq!(large.requested_level(), Some(Level::L2M));
        assert_eq!(large.found_level(), Some(Level::L2M));
        assert_eq!(large.to_string(), "ACCEPT of a 2M page, walk ended at a 2M entry in state FREE");
    }
}
