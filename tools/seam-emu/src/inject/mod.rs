//! Faults on demand: calls that fail where hardware cannot be made to fail.
//!
//! # Protocol
//! A [`FaultPlan`] is a list of [`Rule`]s and perhaps a seeded [`Chaos`]. Every SEAMCALL and TDCALL passes the
//! machine's [`Injector`] before its leaf runs. A rule that matches for the n-th time either makes the call
//! return a chosen status, with nothing done, or makes an interrupt pending on the calling processor for as
//! long as the call takes. The first rule that fires wins; chaos is asked last.
//!
//! # Invariants
//! - A call that gets an injected status changed nothing but registers: RAX, and RCX and RDX where the leaf
//!   clears them before its first check.
//! - With the same plan and the same calls per processor, the same faults happen; [`Injector::log`] says which.
//! - Without a plan, a call pays one relaxed load.

mod chaos;
mod grammar;
mod plan;

use tdvisor_base::sync::{AtomicBool, Mutex, Ordering};
use tdx_module_iface::leaf::LeafInfo;
use tdx_module_iface::{Gprs, LeafWord, Status, StatusCode, TdgLeaf, TdhLeaf};

pub use chaos::Chaos;
pub use grammar::PlanError;
pub use plan::{Effect, FaultPlan, Rule, Target};

/// A call as rules see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallId {
    /// The logical processor.
    pub lp: usize,
    /// The leaf.
    pub leaf: Leaf,
}

/// A leaf of either side.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Leaf {
    /// SEAMCALL.
    Host(TdhLeaf),
    /// TDCALL.
    Guest(TdgLeaf),
}

impl core::fmt::Display for Leaf {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Host(leaf) => leaf.fmt(f),
            Self::Guest(leaf) => leaf.fmt(f),
        }
    }
}

impl Leaf {
    /// What the ABI says about the leaf; `None` where the number is unknown.
    pub const fn info(self) -> Option<&'static LeafInfo> {
        match self {
            Self::Host(leaf) => leaf.info(),
            Self::Guest(leaf) => leaf.info(),
        }
    }

    /// The leaf of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        let host = TdhLeaf::from_name(name).map(Self::Host);
        host.or_else(|| TdgLeaf::from_name(name).map(Self::Guest))
    }
}

/// A fault that happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Injected {
    /// The call that it happened to.
    pub call: CallId,
    /// How many calls the processor had made before.
    pub sequence: u64,
    /// What happened.
    pub effect: Effect,
}

/// How many faults the log keeps.
const LOG_LEN: usize = 4096;

#[derive(Debug, Default)]
struct Active {
    plan: FaultPlan,
    /// How often each rule has matched.
    matches: Vec<u64>,
    /// Calls of each processor.
    calls: Vec<u64>,
    /// Faults in a row, for each processor.
    streak: Vec<u32>,
    log: Vec<Injected>,
}

/// Decides for every call whether it fails. Part of the machine.
#[derive(Debug, Default)]
pub struct Injector {
    armed: AtomicBool,
    active: Mutex<Active>,
}

fn slot<T: Default + Clone>(list: &mut Vec<T>, index: usize) -> Option<&mut T> {
    /// Processors beyond this get no faults: a machine has fewer.
    const MOST: usize = 4096;
    if index >= MOST {
        return None;
    }
    if list.len() <= index {
        list.resize(index + 1, T::default());
    }
    list.get_mut(index)
}

impl Injector {
    /// Starts to follow a plan; counts begin anew. An empty plan ends all injection.
    pub fn set_plan(&self, plan: FaultPlan) {
        let armed = !plan.is_empty();
        let mut active = self.active.lock();
        *active = Active { matches: vec![0; plan.rules.len()], plan, ..Active::default() };
        self.armed.store(armed, Ordering::Release);
    }

    /// Whether a plan is followed.
    pub fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Acquire)
    }

    /// The faults so far, oldest first (the first 4096).
    pub fn log(&self) -> Vec<Injected> {
        self.active.lock().log.clone()
    }

    /// What happens to this call.
    #[inline]
    pub fn decide(&self, call: CallId) -> Option<Effect> {
        if self.is_armed() { self.follow(call) } else { None }
    }

    /// What the plan says of this call. Apart from the question whether there is one, which every call asks.
    #[cold]
    fn follow(&self, call: CallId) -> Option<Effect> {
        let mut active = self.active.lock();
        let active = &mut *active;
        let sequence = {
            let count = slot(&mut active.calls, call.lp)?;
            *count += 1;
            *count - 1
        };
        let mut effect = None;
        for (rule, matches) in active.plan.rules.iter().zip(&mut active.matches) {
            if rule.target.covers(call) {
                *matches += 1;
                if effect.is_none() && rule.fires(*matches) {
                    effect = Some(rule.effect);
                }
            }
        }
        let streak = slot(&mut active.streak, call.lp)?;
        if effect.is_none()
            && let Some(chaos) = &active.plan.chaos
        {
            effect = chaos.decide(call, sequence, *streak);
        }
        *streak = if effect.is_some() { streak.saturating_add(1) } else { 0 };
        if let Some(effect) = effect
            && active.log.len() < LOG_LEN
        {
            active.log.push(Injected { call, sequence, effect });
        }
        effect
    }

    /// What is to become of a SEAMCALL, by the leaf that RAX names.
    pub(crate) fn decide_seamcall(&self, lp: usize, regs: &Gprs) -> Option<Effect> {
        self.decide(CallId { lp, leaf: Leaf::Host(TdhLeaf(LeafWord(regs.rax).leaf())) })
    }

    /// What is to become of a TDCALL, by the leaf that RAX names.
    pub(crate) fn decide_tdcall(&self, lp: usize, regs: &Gprs) -> Option<Effect> {
        self.decide(CallId { lp, leaf: Leaf::Guest(TdgLeaf(LeafWord(regs.rax).leaf())) })
    }
}

/// Leaves the registers as a call does that ends with `status` before it changed anything.
pub(crate) fn fail(regs: &mut Gprs, leaf: Leaf, status: Status) {
    let restarts =
        matches!(status.code(), StatusCode::INTERRUPTED_RESTARTABLE | StatusCode::INTERRUPTED_RESUMABLE);
    if clears_rcx_and_rdx(leaf) && !restarts {
        regs.rcx = 0;
        regs.rdx = 0;
    }
    regs.rax = status.raw();
}

/// Whether a leaf describes a Secure-EPT entry in RCX and RDX, and therefore clears them first.
fn clears_rcx_and_rdx(leaf: Leaf) -> bool {
    matches!(leaf, Leaf::Host(_)) && leaf.info().is_some_and(LeafInfo::describes_entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aug(lp: usize) -> CallId {
        CallId { lp, leaf: Leaf::Host(TdhLeaf::MEM_PAGE_AUG) }
    }

    fn follow(plan: &str) -> Injector {
        let injector = Injector::default();
        injector.set_plan(plan.parse().unwrap());
        injector
    }

    #[test]
    fn the_nth_matching_call_fails_and_no_other() {
        let injector = follow("TDH.MEM.PAGE.AUG#3=OPERAND_BUSY:R8");
        let effects: Vec<_> = (0..5).map(|_| injector.decide(aug(0))).collect();
        let busy = Status::from_raw(0x8000_0200_0000_0008);
        assert_eq!(effects, [None, None, Some(Effect::Return(busy)), None, None]);
        assert_eq!(injector.log().len(), 1);
        assert_eq!(injector.log()[0].sequence, 2);
    }

    #[test]
    fn a_rule_can_name_a_processor_and_a_range() {
        let injector = follow("TDH.MEM.PAGE.AUG@1#2..3=irq");
        assert_eq!(injector.decide(aug(0)), None);
        let effects: Vec<_> = (0..4).map(|_| injector.decide(aug(1)).is_some()).collect();
        assert_eq!(effects, [false, true, true, false]);
    }

    #[test]
    fn an_empty_plan_ends_injection() {
        let injector = follow("*#1..=RND_NO_ENTROPY");
        assert!(injector.decide(aug(0)).is_some());
        injector.set_plan(FaultPlan::default());
        assert_eq!(injector.decide(aug(0)), None);
    }

    #[test]
    fn chaos_with_the_same_seed_does_the_same_and_never_fails_for_ever() {
        let run = || {
            let injector = follow("chaos:42/3");
            (0..300).map(|_| injector.decide(aug(0))).collect::<Vec<_>>()
        };
        let effects = run();
        assert_eq!(effects, run());
        assert!(effects.iter().any(Option::is_some));
        let longest = effects.split(Option::is_none).map(<[_]>::len).max().unwrap();
        assert!(longest <= chaos::MAX_STREAK as usize, "{longest} faults in a row");
    }

    #[test]
    fn a_failed_memory_leaf_shows_no_entry_and_an_interrupted_one_keeps_its_operands() {
        let mut regs = Gprs { rcx: 1, rdx: 2, ..Gprs::ZERO };
        fail(
            &mut regs,
            Leaf::Host(TdhLeaf::MEM_PAGE_DEMOTE),
            Status::new(StatusCode::INTERRUPTED_RESTARTABLE),
        );
        assert_eq!((regs.rcx, regs.rdx), (1, 2));
        fail(&mut regs, Leaf::Host(TdhLeaf::MEM_PAGE_DEMOTE), Status::new(StatusCode::OPERAND_BUSY));
        assert_eq!((regs.rcx, regs.rdx), (0, 0));
    }
}
