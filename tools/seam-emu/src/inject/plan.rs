//! What shall fail.

use core::ops::RangeInclusive;

use tdx_module_iface::Status;

use super::{CallId, Chaos, Leaf};

/// What happens to a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// The call returns this and does nothing.
    Return(Status),
    /// An interrupt for the VMM is pending on the processor while the call runs: leaves that look for one end
    /// with INTERRUPTED_RESUMABLE or INTERRUPTED_RESTARTABLE as they do on hardware.
    Interrupt,
}

/// Which calls a rule is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Target {
    /// Only this leaf.
    pub leaf: Option<Leaf>,
    /// Only this processor.
    pub lp: Option<usize>,
}

impl Target {
    /// Whether a call is one of them.
    pub fn covers(&self, call: CallId) -> bool {
        self.leaf.is_none_or(|leaf| leaf == call.leaf) && self.lp.is_none_or(|lp| lp == call.lp)
    }
}

/// One fault, or a run of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Which calls.
    pub target: Target,
    /// Which of the matching calls, counted from 1.
    pub nth: RangeInclusive<u64>,
    /// What happens to them.
    pub effect: Effect,
}

impl Rule {
    /// The `nth` call of a leaf (counted from 1) returns `status`.
    pub fn nth(leaf: Leaf, nth: u64, status: Status) -> Self {
        let target = Target { leaf: Some(leaf), lp: None };
        Self { target, nth: nth..=nth, effect: Effect::Return(status) }
    }

    /// Whether the rule fires at its match number `matches`.
    pub fn fires(&self, matches: u64) -> bool {
        self.nth.contains(&matches)
    }
}

/// Everything that shall fail.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FaultPlan {
    /// Single faults; the first that fires wins.
    pub rules: Vec<Rule>,
    /// Random faults, where no rule fires.
    pub chaos: Option<Chaos>,
}

impl FaultPlan {
    /// Whether nothing shall fail.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.chaos.is_none()
    }

    /// Adds a rule.
    #[must_use]
    pub fn with(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }
}
