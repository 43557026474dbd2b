//! Random faults from a seed: the ones that a host must survive, at a chosen rate.

use tdx_module_iface::leaf::Interruption;

use super::{CallId, Effect};
use crate::module::random::mix;

/// Faults in a row that one processor gets at most, so that every bounded retry ends.
pub(super) const MAX_STREAK: u32 = 3;

/// A seed and a rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chaos {
    /// Decides which calls fail and how.
    pub seed: u64,
    /// One call in this many fails.
    pub one_in: u64,
}

impl Chaos {
    /// What happens to call number `sequence` of its processor, after `streak` faults in a row.
    pub(super) fn decide(&self, call: CallId, sequence: u64, streak: u32) -> Option<Effect> {
        if streak >= MAX_STREAK {
            return None;
        }
        let dice = mix(self.seed ^ mix(call.lp as u64 + 1) ^ sequence);
        if !dice.is_multiple_of(self.one_in.max(1)) {
            return None;
        }
        let choice = mix(dice);
        let info = call.leaf.info()?;
        if info.interruption != Interruption::Never && choice & 1 == 0 {
            return Some(Effect::Interrupt);
        }
        let statuses = info.transient;
        let index = (choice >> 1).checked_rem(statuses.len() as u64)?;
        statuses.get(index as usize).map(|status| Effect::Return(*status))
    }
}
