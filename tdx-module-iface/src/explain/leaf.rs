//! A leaf on one card: what it does, versions, registers, and the states in which it is allowed.

use core::fmt;

use super::Side;
use crate::leaf::{LeafInfo, RegUse, TdgLeaf, TdhLeaf};
use crate::status::Release;
use crate::{op_state, sept};

/// Everything known about a leaf; printing it takes several lines.
#[derive(Clone, Copy, Debug)]
pub struct LeafCard {
    /// Whose leaf it is.
    pub side: Side,
    /// Its row.
    pub info: &'static LeafInfo,
}

fn registers(f: &mut fmt::Formatter<'_>, title: &str, uses: &[RegUse]) -> fmt::Result {
    for (position, entry) in uses.iter().enumerate() {
        let title = if position == 0 { title } else { "" };
        write!(f, "\n  {title:<9} {:<4} {}", entry.reg.name(), entry.what)?;
    }
    Ok(())
}

fn list<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    states: impl Iterator<Item = T>,
) -> fmt::Result {
    write!(f, "\n  {title}")?;
    let mut separator = " ";
    for state in states {
        write!(f, "{separator}{state}")?;
        separator = ", ";
    }
    Ok(())
}

impl fmt::Display for LeafCard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = self.info;
        write!(f, "{} ({}): {}", info.name, info.number, info.summary)?;
        if info.release == Release::Newer {
            f.write_str("\n  only in modules after 1.5.01")?;
        }
        if info.max_version > 0 {
            write!(f, "\n  versions  0 to {}", info.max_version)?;
        }
        if info.newer_max_version > info.max_version {
            write!(f, "\n  newer modules accept versions up to {}", info.newer_max_version)?;
        }
        registers(f, "inputs", info.inputs)?;
        registers(f, "outputs", info.outputs)?;
        let (op_states, sept_states) = match self.side {
            Side::Host => {
                let leaf = TdhLeaf(info.number);
                (op_state::tdh_allowed(leaf), sept::allow::tdh_allowed(leaf))
            }
            Side::Guest => {
                let leaf = TdgLeaf(info.number);
                (op_state::tdg_allowed(leaf), sept::allow::tdg_allowed(leaf))
            }
        };
        if let Some(states) = op_states {
            list(f, "allowed while the TD is", states.iter())?;
        }
        if let Some(states) = sept_states {
            list(f, "allowed on entries that are", states.iter())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::super::{Side, explain_leaf};

    #[test]
    fn a_card_says_what_the_leaf_does_with_which_registers_and_when() {
        let card = explain_leaf(Side::Host, 6).unwrap().to_string();
        for part in [
            "TDH.MEM.PAGE.AUG (6)",
            "has to accept",
            "rcx  entry",
            "r8   new page",
            "INITIALIZED, RUNNABLE, LIVE_EXPORT, LIVE_IMPORT",
            "FREE, REMOVED",
        ] {
            assert!(card.contains(part), "{part:?} is missing in:\n{card}");
        }
        let accept = explain_leaf(Side::Guest, 6).unwrap().to_string();
        assert!(accept.contains("PENDING, PENDING_EXPORTED_DIRTY"), "{accept}");
        assert!(explain_leaf(Side::Host, 42).is_none());
    }

    #[test]
    fn every_leaf_has_a_card() {
        for side in [Side::Host, Side::Guest] {
            for info in side.table() {
                let card = explain_leaf(side, info.number).unwrap().to_string();
                assert!(card.starts_with(info.name), "{card}");
            }
        }
    }
}
