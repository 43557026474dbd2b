//! Random faults from a seed: the ones that a host must survive, at a chosen rate.

use tdx_module_iface::{Operand, Status, StatusCode, TdgLeaf, TdhLeaf};

use super::{CallId, Effect, Leaf};
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

const fn busy(operand: Operand) -> Status {
    Status::with_operand(StatusCode::OPERAND_BUSY, operand)
}

const fn plain(code: StatusCode) -> Status {
    Status::new(code)
}

/// The transient faults that a leaf can have.
fn transient(leaf: Leaf) -> &'static [Status] {
    const MEMORY: &[Status] =
        &[busy(Operand::RDX), busy(Operand::OP_STATE), busy(Operand::SEPT_TREE), busy(Operand::RCX)];
    const MEMORY_WITH_PAGE: &[Status] = &[
        busy(Operand::RDX),
        busy(Operand::OP_STATE),
        busy(Operand::SEPT_TREE),
        busy(Operand::RCX),
        busy(Operand::R8),
    ];
    const DEMOTE: &[Status] = &[
        busy(Operand::SEPT_TREE),
        busy(Operand::RCX),
        busy(Operand::R8),
        plain(StatusCode::INTERRUPTED_RESTARTABLE),
    ];
    const PROMOTE: &[Status] =
        &[busy(Operand::SEPT_TREE), busy(Operand::RCX), plain(StatusCode::INTERRUPTED_RESTARTABLE)];
    const TRACK: &[Status] =
        &[busy(Operand::RCX), busy(Operand::TD_EPOCH), plain(StatusCode::PREVIOUS_TLB_EPOCH_BUSY)];
    const OPERAND: &[Status] = &[busy(Operand::RCX)];
    const CREATE: &[Status] = &[busy(Operand::RCX), busy(Operand::KOT), plain(StatusCode::RND_NO_ENTROPY)];
    const KEY: &[Status] =
        &[busy(Operand::RCX), busy(Operand::KET), plain(StatusCode::KEY_GENERATION_FAILED)];
    const SYS: &[Status] = &[plain(StatusCode::SYS_BUSY), plain(StatusCode::RND_NO_ENTROPY)];
    const VCPU: &[Status] = &[busy(Operand::RCX), busy(Operand::TDR)];
    const ENTER: &[Status] =
        &[busy(Operand::RCX), busy(Operand::TDR), busy(Operand::TD_EPOCH), busy(Operand::SEPT_TREE)];
    let leaf = match leaf {
        Leaf::Host(leaf) => leaf,
        Leaf::Guest(TdgLeaf::MEM_PAGE_ACCEPT) => return OPERAND,
        Leaf::Guest(_) => return &[],
    };
    match leaf {
        TdhLeaf::MEM_SEPT_ADD
        | TdhLeaf::MEM_PAGE_ADD
        | TdhLeaf::MEM_PAGE_AUG
        | TdhLeaf::MEM_PAGE_RELOCATE => MEMORY_WITH_PAGE,
        TdhLeaf::MEM_PAGE_REMOVE
        | TdhLeaf::MEM_SEPT_REMOVE
        | TdhLeaf::MEM_SEPT_RD
        | TdhLeaf::MEM_RANGE_BLOCK
        | TdhLeaf::MEM_RANGE_UNBLOCK
        | TdhLeaf::MEM_RD
        | TdhLeaf::MEM_WR => MEMORY,
        TdhLeaf::MEM_PAGE_DEMOTE => DEMOTE,
        TdhLeaf::MEM_PAGE_PROMOTE => PROMOTE,
        TdhLeaf::MEM_TRACK => TRACK,
        TdhLeaf::MNG_CREATE => CREATE,
        TdhLeaf::MNG_KEY_CONFIG => KEY,
        TdhLeaf::MNG_ADDCX
        | TdhLeaf::MNG_INIT
        | TdhLeaf::MNG_RD
        | TdhLeaf::MNG_WR
        | TdhLeaf::MNG_VPFLUSHDONE
        | TdhLeaf::MNG_KEY_FREEID
        | TdhLeaf::MR_EXTEND
        | TdhLeaf::MR_FINALIZE
        | TdhLeaf::PHYMEM_PAGE_RECLAIM
        | TdhLeaf::PHYMEM_PAGE_WBINVD => OPERAND,
        TdhLeaf::SYS_INIT | TdhLeaf::SYS_LP_INIT | TdhLeaf::SYS_CONFIG | TdhLeaf::SYS_KEY_CONFIG => SYS,
        TdhLeaf::VP_CREATE
        | TdhLeaf::VP_ADDCX
        | TdhLeaf::VP_INIT
        | TdhLeaf::VP_FLUSH
        | TdhLeaf::VP_RD
        | TdhLeaf::VP_WR => VCPU,
        TdhLeaf::VP_ENTER => ENTER,
        _ => &[],
    }
}

/// Leaves that look for interrupts while they work.
fn is_interruptible(leaf: Leaf) -> bool {
    matches!(
        leaf,
        Leaf::Host(
            TdhLeaf::PHYMEM_CACHE_WB
                | TdhLeaf::MEM_SEPT_ADD
                | TdhLeaf::MEM_PAGE_DEMOTE
                | TdhLeaf::MEM_PAGE_PROMOTE
        ) | Leaf::Guest(TdgLeaf::MEM_PAGE_ACCEPT)
    )
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
        if is_interruptible(call.leaf) && choice & 1 == 0 {
            return Some(Effect::Interrupt);
        }
        let statuses = transient(call.leaf);
        let index = (choice >> 1).checked_rem(statuses.len() as u64)?;
        statuses.get(index as usize).map(|status| Effect::Return(*status))
    }
}
