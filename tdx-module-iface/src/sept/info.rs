//! What a memory leaf says about the entry at which it stopped: RCX (the entry) and RDX (level and state).

use core::fmt;

use tdvisor_base::Level;

use super::entry::SeptEntry;
use super::state::{SeptState, SeptStateId};

/// RCX and RDX of a memory leaf that describes a Secure-EPT entry.
///
/// RDX: level in bits 2:0, public state in bits 15:8, VM index in bits 17:16 (0 is the TD itself).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SeptInfo {
    /// RCX: the architectural view of the entry; no address for a table.
    pub entry: u64,
    /// RDX, as the module returned it.
    pub level_state: u64,
}

impl SeptInfo {
    /// What the module reports about this entry of a TD's own tree; an undefined state reports as FREE.
    pub fn of(entry: SeptEntry, level: Level) -> Self {
        let state = entry.state().unwrap_or(SeptState::Free);
        Self {
            entry: entry.arch_view(),
            level_state: u64::from(level.index()) | u64::from(state.public()) << 8,
        }
    }

    /// The level; `None` where the number is above five-level paging.
    pub const fn level(self) -> Option<Level> {
        Level::from_index((self.level_state & 7) as u8)
    }

    /// The state number.
    pub const fn state_id(self) -> SeptStateId {
        SeptStateId((self.level_state >> 8 & 0xff) as u8)
    }

    /// The state of an entry of the TD's own tree.
    pub const fn state(self) -> Option<SeptState> {
        self.state_id().state()
    }

    /// Which VM's tree: 0 the TD itself, 1..3 an L2 VM.
    pub const fn vm(self) -> u8 {
        (self.level_state >> 16 & 3) as u8
    }
}

impl fmt::Display for SeptInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.level() {
            Some(level) => write!(f, "{level} entry {:#x} {}", self.entry, self.state_id())?,
            None => {
                write!(f, "level-{} entry {:#x} {}", self.level_state & 7, self.entry, self.state_id())?;
            }
        }
        match self.vm() {
            0 => Ok(()),
            vm => write!(f, " of L2 VM {vm}"),
        }
    }
}

impl fmt::Debug for SeptInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SeptInfo({self})")
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use tdvisor_base::Hpa;

    use super::*;

    #[test]
    fn level_and_state_are_packed_as_recorded() {
        let page = Hpa::new(0x1_0020_d000);
        assert_eq!(SeptInfo::of(SeptEntry::mapped(page), Level::L4K).level_state, 0x400);
        assert_eq!(SeptInfo::of(SeptEntry::pending(page), Level::L2M).level_state, 0x201);
        assert_eq!(SeptInfo::of(SeptEntry::table(page), Level::L1G).level_state, 0x8402);
        assert_eq!(SeptInfo::of(SeptEntry::FREE, Level::L4K).level_state, 0);
    }

    #[test]
    fn an_entry_description_reads_as_a_sentence_part() {
        let info = SeptInfo::of(SeptEntry::table(Hpa::new(0x1000)), Level::L2M);
        assert_eq!(info.to_string(), "2M entry 0x7 NL_MAPPED");
        let odd = SeptInfo { entry: 1, level_state: 0x2_ee06 };
        assert_eq!(odd.to_string(), "level-6 entry 0x1 state 0xee of L2 VM 2");
        assert_eq!(odd.level(), None);
        assert_eq!(odd.state(), None);
    }
}
