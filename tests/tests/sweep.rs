//! Every SEAMCALL of a conversion fails once: the 1st, the 2nd, ... the n-th of each leaf.
//!
//! It stays busy beyond the bound of its retries, so the hook reports a failure. After each the audit holds,
//! what is mapped agrees with the attributes, and the conversion succeeds when it is repeated.

mod memory;

use mirror_ept::GfnRange;
use seam_emu::inject::{Effect, FaultPlan, Leaf, Rule, Target};
use tdvisor_base::Level;
use tdx_module_iface::{Operand, Status, StatusCode, TdhLeaf};
use vmm_core::memory::Converted;
use vmm_core::memory::attributes::Attribute;
use vmm_core::retry::Bound;

use memory::{Belongings, SEAT, calls_of, convert, frames, host, module_maps, td, touch};

/// Cuts two huge pages, takes one whole, takes small ones, and frees a table that was emptied before.
fn range() -> GfnRange {
    frames(100, 3 * 512 + 300)
}

fn conversion_survives(leaf: TdhLeaf, status: Status) {
    let host = host(192 << 20);
    let before = Belongings::of(&host);
    let faults = |plan| host.platform().machine().faults().set_plan(plan);
    let mut nth = 1;
    loop {
        let td = td(&host, 16 << 20, Level::L2M);
        let mut seat = td.memory().take_seat(SEAT).expect("a processor is free");
        // A table to ride along.
        touch(&mut seat, frames(6 * 512, 1).start(), Level::L4K);
        convert(&mut seat, frames(6 * 512, 1), Attribute::Shared);
        for huge in [0, 512, 3 * 512] {
            touch(&mut seat, frames(huge, 1).start(), Level::L2M);
        }
        for small in 0..3 {
            touch(&mut seat, frames(2 * 512 + small, 1).start(), Level::L4K);
        }
        // The call and all that follow it in its hook.
        let calls = nth..=nth + u64::from(Bound::WITHOUT_VCPUS.0);
        let target = Target { leaf: Some(Leaf::Host(leaf)), lp: None };
        faults(FaultPlan::default().with(Rule { target, nth: calls, effect: Effect::Return(status) }));
        let (calls, first) = calls_of(&host, || td.memory().convert(&mut seat, range(), Attribute::Shared));
        faults(FaultPlan::default());
        let first = first.unwrap_or_else(|error| panic!("failure {nth} of {leaf} ended the TD: {error}"));
        td.audit().unwrap_or_else(|error| panic!("audit after failure {nth} of {leaf}: {error}"));
        let name = leaf.to_string();
        let failed = calls.of(name.trim_start_matches("TDH.")) > u64::from(Bound::WITHOUT_VCPUS.0);
        for i in 0..4 * 512 {
            let gfn = frames(i, 1).start();
            let private = td.memory().attribute(gfn) == Some(Attribute::Private);
            let touched = i / 512 != 2 || i % 512 < 3;
            let mapped = module_maps(&seat, &td, gfn).is_some();
            assert_eq!(mapped, private && touched, "frame {gfn} after failure {nth} of {leaf}: {first:?}");
        }
        if first != Converted::All {
            convert(&mut seat, range(), Attribute::Shared);
            td.audit().unwrap_or_else(|error| panic!("audit of the repeated conversion: {error}"));
        }
        drop(seat);
        assert!(td.teardown().is_clean());
        if !failed {
            break;
        }
        nth += 1;
    }
    assert!(nth > 1, "the conversion never calls {leaf}");
    assert_eq!(Belongings::of(&host), before);
    assert_eq!(host.platform().violations(), []);
}

fn busy() -> Status {
    Status::with_operand(StatusCode::OPERAND_BUSY, Operand::SEPT_TREE)
}

#[test]
fn a_conversion_survives_each_block_staying_busy() {
    conversion_survives(TdhLeaf::MEM_RANGE_BLOCK, busy());
}

#[test]
fn a_conversion_survives_each_track_staying_busy() {
    conversion_survives(TdhLeaf::MEM_TRACK, Status::new(StatusCode::PREVIOUS_TLB_EPOCH_BUSY));
}

#[test]
fn a_conversion_survives_each_removal_staying_busy() {
    conversion_survives(TdhLeaf::MEM_PAGE_REMOVE, busy());
    conversion_survives(TdhLeaf::MEM_SEPT_REMOVE, busy());
}

#[test]
fn a_conversion_survives_each_demotion_being_interrupted_or_busy() {
    conversion_survives(TdhLeaf::MEM_PAGE_DEMOTE, Status::new(StatusCode::INTERRUPTED_RESTARTABLE));
    conversion_survives(TdhLeaf::MEM_PAGE_DEMOTE, busy());
}
