//! The guest `l1-vmm`: an L2 VM that executes instructions.

use std::collections::BTreeMap;

use seam_emu::inject::{Chaos, FaultPlan};
use td_host::vcpu::ExitKind;
use tdvisor_base::Level;
use tdvisor_guest_images::L1_VMM;
use tdvisor_vm::Ending;
use tdx_module_iface::exit::ExitReason;

use super::world::{RELEASES, check, free_frames, host, host_with, run_to_the_end, td};

#[test]
fn an_l2_vm_runs_with_page_attributes_of_its_own_and_its_exits_go_where_they_were_recorded_to_go() {
    for release in RELEASES {
        let host = host_with(release);
        let before = free_frames(&host);
        for (largest, l2_vms) in [(Level::L2M, 1), (Level::L2M, 3), (Level::L4K, 2)] {
            let td = td(&host, &L1_VMM, l2_vms, largest);
            let (console, ending) = run_to_the_end(&td);
            assert_eq!(ending, Ending::PoweredOff { code: 0 }, "{release:?}, {largest}: {console}");
            assert!(console.contains("L2: \"hello from an L2 VM\""), "{console}");
            let exits: BTreeMap<_, _> = td.vcpus()[0].exits();
            // Of 19 letters, HLT, CPUID and the attributes the host hears nothing; of memory that is not there it does.
            let of_l2 = |kind: &ExitKind| {
                matches!(kind, ExitKind::L2Exit(_) | ExitKind::L2Call | ExitKind::L2UnknownExit)
            };
            let heard: Vec<_> = exits.keys().filter(|kind| of_l2(kind)).collect();
            let known = [ExitReason::EXTERNAL_INTERRUPT, ExitReason::EPT_VIOLATION].map(ExitKind::L2Exit);
            assert!(heard.iter().all(|kind| known.contains(kind)), "{heard:?}");
            assert_eq!(exits.get(&ExitKind::L2Exit(ExitReason::EPT_VIOLATION)), Some(&1), "{exits:?}");
            let counted =
                "L2: exits to L1: 19 I/O, 1 CPUID, 4 HLT, 5 EPT violations, 1 of them by way of the host";
            assert!(console.contains(counted), "{console}");
            check(&host, &[&td]);
            assert!(td.teardown().is_clean());
            check(&host, &[]);
            assert_eq!(free_frames(&host), before, "{release:?}, {largest}");
        }
    }
}

#[test]
fn transient_refusals_of_the_module_change_nothing_for_an_l2_vm() {
    let mut refused = 0;
    for seed in 1..=4 {
        let host = host();
        let td = td(&host, &L1_VMM, 2, Level::L2M);
        let plan = FaultPlan { chaos: Some(Chaos { seed, one_in: 2 }), ..FaultPlan::default() };
        host.platform().machine().faults().set_plan(plan);
        let (console, ending) = run_to_the_end(&td);
        refused += host.platform().machine().faults().log().len();
        host.platform().machine().faults().set_plan(FaultPlan::default());
        assert_eq!(ending, Ending::PoweredOff { code: 0 }, "seed {seed}: {console}");
        check(&host, &[&td]);
        assert!(td.teardown().is_clean(), "seed {seed}");
        check(&host, &[]);
    }
    assert!(refused > 20, "only {refused} calls were refused");
}

#[test]
fn a_td_without_l2_vms_says_so() {
    let host = host();
    let td = td(&host, &L1_VMM, 0, Level::L2M);
    let (console, ending) = run_to_the_end(&td);
    assert_eq!(ending, Ending::PoweredOff { code: 1 });
    assert!(console.contains("this TD has no L2 VM"), "{console}");
    assert!(td.teardown().is_clean());
}
