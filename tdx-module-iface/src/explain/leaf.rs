//! A leaf on one card: what it does, versions, registers, and the states in which it is allowed.

use core::fmt;

use super::Side;
use crate::leaf::{HostState, Interruption, LeafInfo, Readiness, RegUse};
use crate::release::Release;
use crate::status::Status;

/// Everything known about a leaf; printing it takes several lines.
#[derive(Clone, Copy, Debug)]
pub struct LeafCard {
    /// Whose leaf it is.
    pub side: Side,
    /// The leaf's row in the table of leaves.
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

/// A status without advice.
struct Short(Status);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.code())?;
        let details = self.0.typed_details();
        if details.is_empty() { Ok(()) } else { write!(f, " ({details})") }
    }
}

impl fmt::Display for LeafCard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = self.info;
        write!(f, "{} ({}): {}", info.name, info.number, info.summary)?;
        if info.since > Release::V1_5_01 {
            write!(f, "\n  from release {} on", info.since)?;
        }
        if let Some((since, greatest)) = info.versions {
            write!(f, "\n  versions  0 to {greatest}")?;
            if since > Release::V1_5_01 {
                write!(f, " from release {since} on")?;
            }
        }
        registers(f, "inputs", info.inputs)?;
        registers(f, "outputs", info.outputs)?;
        if info.gives_up != HostState::NONE {
            write!(f, "\n  gives up  {}", info.gives_up)?;
        }
        match info.ready {
            Readiness::Ready => {}
            Readiness::BringUp => f.write_str("\n  runs before the module is ready")?,
            Readiness::Always => f.write_str("\n  runs before the module is ready and after its shutdown")?,
        }
        match info.interruption {
            Interruption::Never => {}
            Interruption::Restartable => {
                f.write_str("\n  an interrupt of the host ends it with nothing done")?
            }
            Interruption::Resumable => {
                f.write_str("\n  an interrupt of the host ends it; its outputs resume it")?
            }
        }
        if let Some(since) = info.uninterrupted_since {
            write!(f, " before release {since}")?;
        }
        if let Some(states) = info.op_states {
            list(f, "allowed while the TD is", states.iter())?;
        }
        if let Some(states) = info.sept_states {
            list(f, "allowed on entries that are", states.iter())?;
        }
        if !info.transient.is_empty() {
            list(f, "worth repeating after", info.transient.iter().map(|status| Short(*status)))?;
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
            "OPERAND_BUSY",
        ] {
            assert!(card.contains(part), "{part:?} is missing in:\n{card}");
        }
        let accept = explain_leaf(Side::Guest, 6).unwrap().to_string();
        assert!(accept.contains("PENDING, PENDING_EXPORTED_DIRTY"), "{accept}");
        let enter = explain_leaf(Side::Host, 0).unwrap().to_string();
        assert!(enter.contains("gives up  extended state"), "{enter}");
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
