//! Scenarios that make leaves return the codes that no recording contains.
//!
//! Most of them are contention: a test holds the lock that another processor would hold.

use std::collections::BTreeSet;

use tdvisor_base::{Gpa, Hpa, Level};
use tdx_module_iface::metadata::{FieldId, td as td_fields};
use tdx_module_iface::op_state::OpState;
use tdx_module_iface::{Gprs, Operand, SeamCall, Status, StatusCode as C, TdgLeaf, TdhLeaf};

use super::{Degree, TABLE, reach_migration};
use crate::features::FeatureSet;
use crate::fields::layout::{tdcs as tdcs_fields, tdvps};
use crate::fields::{FieldStore, Width};
use crate::guest::{GuestRegisters, GuestState, ScriptedGuest, VmExit};
use crate::host::Call;
use crate::host::steps::lock_page;
use crate::lock::{Mode, Side};
use crate::machine::{GuestEnv, Machine};
use crate::td::sept::Walk;
use crate::td::{Tdcs, Tdr, Tdvps};
use crate::testing::{Host, SCRATCH, TDMR, Td, mem};
use crate::{MachineConfig, ModuleProfile};
use x86_arch::Gpr;

const GPA: u64 = 0x10_0000;
/// Outside every TDMR.
pub(super) const OUTSIDE: u64 = 0x20_0000;

/// Codes that dispatch gives for every leaf: reserved bits of RAX, and a module that is not ready.
const DISPATCH: [C; 3] = [C::OPERAND_INVALID, C::SYS_NOT_READY, C::SYS_SHUTDOWN];

#[derive(Default)]
pub(super) struct Seen(BTreeSet<(String, C)>);

impl Seen {
    pub(super) fn call(&mut self, host: &Host, lp: usize, leaf: TdhLeaf, gprs: Gprs) -> C {
        self.note(leaf.to_string(), host.call(lp, leaf, gprs).rax)
    }

    pub(super) fn note(&mut self, leaf: String, rax: u64) -> C {
        let code = Status::from_raw(rax).cause();
        self.0.insert((leaf, code));
        code
    }

    /// Runs a VCPU that makes these TDCALLs, each with a second of virtual time before it.
    fn guest(&mut self, host: &Host, tdvpr: u64, calls: &[(TdgLeaf, Gprs)]) -> Gprs {
        let mut made = 0;
        let mut answers = Vec::new();
        let mut guest = ScriptedGuest(|state: &mut GuestState, env: &GuestEnv<'_>| {
            state.enter_64_bit_mode();
            if made > 0
                && let Some((leaf, _)) = calls.get(made - 1)
            {
                answers.push((leaf.to_string(), state.regs[Gpr::Rax]));
            }
            env.machine().advance_tsc(host.machine.config().tsc_hz + 1);
            state.set_rip(state.rip() + 64);
            made += 1;
            match calls.get(made - 1) {
                Some((leaf, gprs)) => {
                    state.set_gprs(Gprs { rax: u64::from(leaf.0), ..*gprs });
                    VmExit::tdcall()
                }
                None => VmExit::plain(tdx_module_iface::exit::ExitReason::EXTERNAL_INTERRUPT),
            }
        });
        let mut gprs = Gprs { rcx: tdvpr, ..Gprs::ZERO };
        host.machine.lp(0).unwrap().seamcall_with(&mut gprs, &mut guest).unwrap();
        for (leaf, rax) in answers {
            self.note(leaf, rax);
        }
        self.note(TdhLeaf::VP_ENTER.to_string(), gprs.rax);
        gprs
    }
}

fn tdcs<'m>(host: &'m Host, td: &Td) -> Tdcs<'m> {
    Tdr::at(host.machine.memory(), Hpa::new(td.tdr)).unwrap().tdcs()
}

pub(super) fn named(leaf: TdhLeaf) -> String {
    leaf.to_string()
}

pub(super) fn leaves(prefix: &str) -> impl Iterator<Item = TdhLeaf> + '_ {
    let exists = |leaf: &TdhLeaf| {
        TABLE.iter().any(|row| row.leaf == named(*leaf) && row.claim.degree != Degree::Absent)
    };
    TdhLeaf::ALL.iter().copied().filter(move |leaf| named(*leaf).starts_with(prefix)).filter(exists)
}

/// Every leaf that names a TD, a VCPU or a page finds it locked by another processor.
fn locked_pages(seen: &mut Seen) {
    let host = Host::ready();
    let td = host.td(1);
    let page = host.page();
    let other = Call { machine: &host.machine, lp: 1 };
    let hold = |pa: u64| lock_page(&other, Hpa::new(pa), Level::L4K, Mode::Exclusive, Operand::RCX).unwrap();
    let _held = [hold(td.tdr), hold(td.vcpus[0]), hold(page)];
    for leaf in leaves("TDH.MEM.") {
        let gprs = match leaf {
            TdhLeaf::MEM_TRACK => Gprs { rcx: td.tdr, ..Gprs::ZERO },
            TdhLeaf::MEM_RD | TdhLeaf::MEM_WR => mem(&td, GPA, 0, 0),
            _ => mem(&td, 0, 1, page),
        };
        seen.call(&host, 0, leaf, gprs);
    }
    for prefix in ["TDH.MNG.", "TDH.MR."] {
        for leaf in leaves(prefix) {
            let gprs = match leaf {
                TdhLeaf::MNG_CREATE => Gprs { rcx: page, rdx: 40, ..Gprs::ZERO },
                TdhLeaf::MR_EXTEND | TdhLeaf::MNG_ADDCX => Gprs { rcx: GPA, rdx: td.tdr, ..Gprs::ZERO },
                _ => Gprs { rcx: td.tdr, ..Gprs::ZERO },
            };
            seen.call(&host, 0, leaf, gprs);
        }
    }
    for leaf in leaves("TDH.VP.") {
        let rdx = if leaf == TdhLeaf::VP_CREATE { td.tdr } else { td.vcpus[0] };
        seen.call(&host, 0, leaf, Gprs { rcx: td.vcpus[0], rdx, ..Gprs::ZERO });
    }
    for leaf in leaves("TDH.PHYMEM.PAGE.") {
        seen.call(&host, 0, leaf, Gprs { rcx: page, ..Gprs::ZERO });
    }
}

/// Every leaf that names a page names one that the module does not manage.
fn outside_of_tdmrs(seen: &mut Seen) {
    let host = Host::ready();
    let td = host.td_being_built(1, 0);
    let outside = |gpa: u64, level: u64| Gprs { rcx: gpa | level, rdx: OUTSIDE, ..Gprs::ZERO };
    for leaf in leaves("TDH.MEM.") {
        let track = Gprs { rcx: OUTSIDE, ..Gprs::ZERO };
        seen.call(&host, 0, leaf, if leaf == TdhLeaf::MEM_TRACK { track } else { outside(0, 1) });
    }
    for leaf in leaves("TDH.M").filter(|leaf| !named(*leaf).starts_with("TDH.MEM.")) {
        let rdx = match leaf {
            TdhLeaf::MNG_CREATE => 40,
            TdhLeaf::MNG_ADDCX | TdhLeaf::MR_EXTEND => OUTSIDE,
            _ => 0,
        };
        seen.call(&host, 0, leaf, Gprs { rcx: OUTSIDE, rdx, ..Gprs::ZERO });
    }
    for leaf in leaves("TDH.VP.") {
        let rdx = if leaf == TdhLeaf::VP_CREATE { td.tdr } else { OUTSIDE };
        seen.call(&host, 0, leaf, Gprs { rcx: OUTSIDE, rdx, ..Gprs::ZERO });
    }
    for leaf in leaves("TDH.PHYMEM.PAGE.") {
        seen.call(&host, 0, leaf, Gprs { rcx: OUTSIDE, ..Gprs::ZERO });
    }
}

/// The leaves that serialise on the module's own lock, and those that own a resource of their own.
fn module_locks(seen: &mut Seen) {
    let host = Host::ready();
    let latest = Host::with_dynamic_pamt();
    for host in [&host, &latest] {
        let _held = host.machine.module.lock(Mode::Exclusive).unwrap();
        for leaf in leaves("TDH.SYS.") {
            seen.call(host, 0, leaf, Gprs::ZERO);
        }
    }
    seen.call(&latest, 0, TdhLeaf::SYS_DISABLE, Gprs::ZERO);
    let _write_back = host.machine.module.write_back[0].lock().unwrap();
    seen.call(&host, 0, TdhLeaf::PHYMEM_CACHE_WB, Gprs::ZERO);
    let mut fresh = Host::ready();
    let tdmr = fresh.machine.module.tdmrs.of_page(Hpa::new(TDMR)).unwrap();
    let _initialising = tdmr.lock().unwrap();
    seen.call(&fresh, 0, TdhLeaf::SYS_TDMR_INIT, Gprs { rcx: TDMR, ..Gprs::ZERO });
    drop(_initialising);
    fresh = Host::ready();
    seen.call(&fresh, 0, TdhLeaf::SYS_RDALL, Gprs { rdx: SCRATCH, r8: 0x123, ..Gprs::ZERO });
    seen.call(&fresh, 0, TdhLeaf::MNG_WR, Gprs { rcx: fresh.td(1).tdr, rdx: 0x123, ..Gprs::ZERO });
}

/// A second package has its key already when it is asked again.
fn keys_of_two_packages(seen: &mut Seen) {
    let two =
        MachineConfig { lp_packages: vec![0, 1], profile: ModuleProfile::V1_5_01, ..MachineConfig::small() };
    let host = Host::with(two.clone());
    let page = host.page();
    seen.call(&host, 0, TdhLeaf::MNG_CREATE, Gprs { rcx: page, rdx: 40, ..Gprs::ZERO });
    for _ in 0..2 {
        seen.call(&host, 0, TdhLeaf::MNG_KEY_CONFIG, Gprs { rcx: page, ..Gprs::ZERO });
    }
    let machine = Machine::new(two);
    let mut call = |lp: usize, leaf: TdhLeaf, gprs: Gprs| {
        let mut gprs = Gprs { rax: u64::from(leaf.0), ..gprs };
        machine.lp(lp).unwrap().seamcall(&mut gprs).unwrap();
        seen.note(leaf.to_string(), gprs.rax)
    };
    call(0, TdhLeaf::SYS_INIT, Gprs::ZERO);
    call(0, TdhLeaf::SYS_LP_INIT, Gprs::ZERO);
    call(1, TdhLeaf::SYS_LP_INIT, Gprs::ZERO);
    let info = [TDMR, 1 << 30, 0x8110_0000, 0x1000, 0x8100_0000, 0x2000, 0x8000_0000, 0x40_0000];
    let bytes: Vec<u8> = info.iter().flat_map(|word: &u64| word.to_le_bytes()).collect();
    machine.host_write(Hpa::new(SCRATCH + 0x1000), &bytes).unwrap();
    machine.host_write(Hpa::new(SCRATCH), &(SCRATCH + 0x1000).to_le_bytes()).unwrap();
    call(0, TdhLeaf::SYS_CONFIG, Gprs { rcx: SCRATCH, rdx: 1, r8: 32, ..Gprs::ZERO });
    call(0, TdhLeaf::SYS_KEY_CONFIG, Gprs::ZERO);
    assert_eq!(call(0, TdhLeaf::SYS_KEY_CONFIG, Gprs::ZERO), C::KEY_CONFIGURED);
}

/// Guest leaves against locks that the host holds, the time-out that follows, and bad identifiers.
fn guest_contention(seen: &mut Seen) {
    let host = Host::ready();
    let td = host.td(1);
    host.tables(&td, GPA, 0);
    host.aug(&td, GPA);
    host.aug(&td, GPA + 0x1000);
    let accept = (TdgLeaf::MEM_PAGE_ACCEPT, Gprs { rcx: GPA, ..Gprs::ZERO });
    let entry = || match tdcs(&host, &td).walk(Gpa::new(GPA), Level::L4K) {
        Some(Walk::Found(slot)) => slot,
        _ => panic!("the page is mapped"),
    };
    let held = entry().lock(Side::Host).unwrap();
    let attributes = (TdgLeaf::MEM_PAGE_ATTR_WR, Gprs { rcx: GPA, ..Gprs::ZERO });
    seen.guest(&host, td.vcpus[0], &[accept, attributes]);
    drop(held);
    // A host attempt that loses comes first from then on; a guest that meets only that gives up in the end.
    let held = entry().lock(Side::Guest).unwrap();
    let busy = seen.call(&host, 1, TdhLeaf::MEM_SEPT_RD, mem(&td, GPA, 0, 0));
    assert_eq!(busy, C::OPERAND_BUSY);
    drop(held);
    let out = seen.guest(&host, td.vcpus[0], &[accept, accept, accept]);
    assert_eq!(Status::from_raw(out.rax).code(), C::HOST_PRIORITY_BUSY_TIMEOUT);
    seen.call(&host, 1, TdhLeaf::MEM_SEPT_RD, mem(&td, GPA, 0, 0));
    let second = (TdgLeaf::MEM_PAGE_ACCEPT, Gprs { rcx: GPA + 0x1000, ..Gprs::ZERO });
    seen.guest(&host, td.vcpus[0], &[accept, second]);
    let rtmr = tdcs(&host, &td).rtmr_lock().unwrap().acquire(Mode::Exclusive, Side::Host).unwrap();
    let extend = (TdgLeaf::MR_RTMR_EXTEND, Gprs { rcx: GPA, ..Gprs::ZERO });
    let report = (TdgLeaf::MR_REPORT, Gprs { rcx: GPA, rdx: GPA + 0x1000, ..Gprs::ZERO });
    seen.guest(&host, td.vcpus[0], &[extend, report]);
    drop(rtmr);
    let bad = (TdgLeaf::SYS_RD, Gprs { rdx: 0x123, ..Gprs::ZERO });
    let bad_list = (TdgLeaf::SYS_RDALL, Gprs { rdx: GPA, r8: 0x123, ..Gprs::ZERO });
    seen.guest(&host, td.vcpus[0], &[bad, bad_list]);
}

/// A TDCALL that left the TD returns to the guest with success; a page that the host broke kills the TD; a clock
/// that goes back is refused.
fn entry_and_exit(seen: &mut Seen) {
    let host = Host::ready();
    let td = host.td(1);
    host.tables(&td, GPA, 0);
    let page = host.aug(&td, GPA);
    let accept = (TdgLeaf::MEM_PAGE_ACCEPT, Gprs { rcx: GPA, ..Gprs::ZERO });
    let zeros = (TdgLeaf::MR_VERIFYREPORT, Gprs { rcx: GPA, ..Gprs::ZERO });
    seen.guest(&host, td.vcpus[0], &[accept, zeros]);
    seen.guest(&host, td.vcpus[0], &[(TdgLeaf::VP_VMCALL, Gprs { rcx: 4, rdx: 7, ..Gprs::ZERO })]);
    let mut answer = u64::MAX;
    let mut guest = ScriptedGuest(|state: &mut GuestState, _: &GuestEnv<'_>| {
        answer = state.regs[Gpr::Rax];
        VmExit::plain(tdx_module_iface::exit::ExitReason::EXTERNAL_INTERRUPT)
    });
    let mut gprs = Gprs { rcx: td.vcpus[0], ..Gprs::ZERO };
    host.machine.lp(0).unwrap().seamcall_with(&mut gprs, &mut guest).unwrap();
    seen.note(TdgLeaf::VP_VMCALL.to_string(), answer);
    let tdvps = Tdvps::at(host.machine.memory(), Hpa::new(td.vcpus[0])).unwrap();
    let last = tdvps.load_u64(tdvps::LAST_EXIT_TSC);
    tdvps.store_u64(tdvps::LAST_EXIT_TSC, u64::MAX);
    let enter = Gprs { rcx: td.vcpus[0], ..Gprs::ZERO };
    assert_eq!(seen.call(&host, 0, TdhLeaf::VP_ENTER, enter), C::TSC_ROLLBACK);
    tdvps.store_u64(tdvps::LAST_EXIT_TSC, last);
    host.machine.host_write(Hpa::new(page), &[0]).unwrap();
    seen.guest(&host, td.vcpus[0], &[(TdgLeaf::MR_RTMR_EXTEND, Gprs { rcx: GPA, ..Gprs::ZERO })]);
}

/// A table page for an L2 VM where there is one already.
fn tables_of_l2_vms(seen: &mut Seen) {
    let host = Host::with(MachineConfig { features: FeatureSet::Recorded, ..MachineConfig::small() });
    let tdr = host.page();
    host.ok(0, TdhLeaf::MNG_CREATE, Gprs { rcx: tdr, rdx: 40, ..Gprs::ZERO });
    host.ok(0, TdhLeaf::MNG_KEY_CONFIG, Gprs { rcx: tdr, ..Gprs::ZERO });
    for _ in 0..7 {
        host.ok(0, TdhLeaf::MNG_ADDCX, Gprs { rcx: host.page(), rdx: tdr, ..Gprs::ZERO });
    }
    let one_l2_vm = 1 << 16;
    let words: [u64; 128] = std::array::from_fn(|at| match at {
        1 => 3,
        2 => 8 | one_l2_vm,
        3 => 0x1e,
        5 => 100,
        _ => 0,
    });
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    host.machine.host_write(Hpa::new(SCRATCH), &bytes).unwrap();
    host.ok(0, TdhLeaf::MNG_INIT, Gprs { rcx: tdr, rdx: SCRATCH, ..Gprs::ZERO });
    let mut add = |r8: u64, r9: u64| {
        let mut gprs =
            Gprs { rax: u64::from(TdhLeaf::MEM_SEPT_ADD.0) | 1 << 16, rcx: 3, rdx: tdr, ..Gprs::ZERO };
        (gprs.r8, gprs.r9, gprs.r10, gprs.r11) = (r8, r9, u64::MAX, u64::MAX);
        host.machine.lp(0).unwrap().seamcall(&mut gprs).unwrap();
        seen.note(TdhLeaf::MEM_SEPT_ADD.to_string(), gprs.rax)
    };
    assert_eq!(add(host.page(), host.page()), C::SUCCESS);
    assert_eq!(add(u64::MAX, host.page()), C::L2_SEPT_ENTRY_NOT_FREE);
    // The TD has a table there that its L2 VM has not.
    let at = |level: u64, page: u64| Gprs { rcx: level, rdx: tdr, r8: page, ..Gprs::ZERO };
    host.ok(0, TdhLeaf::MEM_SEPT_ADD, at(2, host.page()));
    host.ok(0, TdhLeaf::MEM_PAGE_AUG, at(1, host.large_page()));
    let demote = Gprs { r9: host.page(), r10: u64::MAX, r11: u64::MAX, ..at(1, host.page()) };
    assert_eq!(seen.call(&host, 0, TdhLeaf::MEM_PAGE_DEMOTE, demote), C::L2_SEPT_WALK_FAILED);
}

/// Service TDs and migration streams: targets in every wrong condition, other instances, and what a bound TD may not do.
fn service_tds(seen: &mut Seen) {
    const INSTANCE: u64 = 1;
    let host = Host::ready();
    let (service, other) = (host.td(1), host.td(1));
    let target = host.td_being_built(1, 0).tdr;
    let fresh = host.page();
    host.ok(0, TdhLeaf::MNG_CREATE, Gprs { rcx: fresh, rdx: 40, ..Gprs::ZERO });
    let each = |seen: &mut Seen, target: u64| {
        let bind = |rdx: u64| Gprs { rcx: target, rdx, ..Gprs::ZERO };
        seen.call(&host, 0, TdhLeaf::SERVTD_BIND, bind(service.tdr));
        seen.call(&host, 0, TdhLeaf::SERVTD_PREBIND, bind(SCRATCH));
        seen.call(&host, 0, TdhLeaf::MIG_STREAM_CREATE, Gprs { rcx: host.page(), ..bind(target) });
    };
    each(seen, fresh);
    host.ok(0, TdhLeaf::MNG_KEY_CONFIG, Gprs { rcx: fresh, ..Gprs::ZERO });
    each(seen, fresh);
    let at = |tdr: u64| Tdr::at(host.machine.memory(), Hpa::new(tdr)).unwrap();
    at(fresh).set_fatal();
    for tdr in [fresh, OUTSIDE, SCRATCH + 1, host.page()] {
        each(seen, tdr);
    }
    let by = Call { machine: &host.machine, lp: 1 };
    let hold = |tdr: u64| lock_page(&by, Hpa::new(tdr), Level::L4K, Mode::Exclusive, Operand::RCX).unwrap();
    let held = hold(target);
    each(seen, target);
    drop(held);
    at(target).tdcs().store(tdcs_fields::NUM_MIGS, Width::B2, 512);
    seen.call(&host, 0, TdhLeaf::MIG_STREAM_CREATE, Gprs { rcx: host.page(), rdx: target, ..Gprs::ZERO });
    at(target).tdcs().set_op_state(OpState::FailedImport);
    each(seen, target);
    at(target).tdcs().set_op_state(OpState::Initialized);
    let mut bind = |service: u64, r10: u64| {
        let out = host.call(0, TdhLeaf::SERVTD_BIND, Gprs { rcx: target, rdx: service, r10, ..Gprs::ZERO });
        (seen.note(TdhLeaf::SERVTD_BIND.to_string(), out.rax), out)
    };
    host.ok(0, TdhLeaf::SERVTD_PREBIND, Gprs { rcx: target, rdx: SCRATCH, r10: INSTANCE, ..Gprs::ZERO });
    assert_eq!(bind(service.tdr, INSTANCE).0, C::SERVTD_INFO_HASH_MISMATCH);
    at(target).tdcs().store(tdcs_fields::SERVTD_BINDINGS, Width::B1, 0);
    let (bound, handle) = bind(service.tdr, INSTANCE);
    assert_eq!(bound, C::SUCCESS);
    assert_eq!(bind(other.tdr, INSTANCE).0, C::SERVTD_UUID_MISMATCH);
    assert_eq!(bind(service.tdr, 0).0, C::SERVTD_ATTR_MISMATCH);
    let known = Gprs { rax: 0, rdx: FieldId::NULL.0, r9: u64::MAX, ..handle };
    let of_field = |id: u64, r8: u64| Gprs { rdx: id, r8, ..known };
    let accesses = |gprs: Gprs| [(TdgLeaf::SERVTD_RD, gprs), (TdgLeaf::SERVTD_WR, gprs)];
    let mut calls = Vec::new();
    for gprs in [
        known,
        of_field(td_fields::MIG_DEC_KEY.id.0, 1),
        of_field(td_fields::MIG_VERSION.id.0, 1),
        of_field(td_fields::OP_STATE.id.0, 1),
        of_field(0x123, 0),
        Gprs { rcx: known.rcx + 1, ..known },
        Gprs { r10: !known.r10, ..known },
        Gprs { r10: 1, r11: 2, r12: 3, r13: 4, ..known },
    ] {
        calls.extend(accesses(gprs));
    }
    for (word, value) in (0u32..).zip(1u64..5) {
        at(target).tdcs().store_u64(tdcs_fields::PRE_IMPORT_UUID + 8 * word, value);
    }
    seen.guest(&host, service.vcpus[0], &calls);
    let held = hold(target);
    seen.guest(&host, service.vcpus[0], &accesses(known));
    drop(held);
    seen.guest(&host, other.vcpus[0], &accesses(Gprs { rcx: known.rcx, ..known }));
}

/// PAMT entries on demand.
fn pamt_pairs(seen: &mut Seen) {
    const POOL: u64 = 2 * TDMR - 0x20_0000;
    let older = Host::ready();
    let host = Host::with_dynamic_pamt();
    let add = |range: u64, low: u64| Gprs { rcx: range | 1, rdx: low, r8: POOL + 0x1000, ..Gprs::ZERO };
    let other = Call { machine: &host.machine, lp: 1 };
    for leaf in leaves("TDH.PHYMEM.PAMT.") {
        seen.call(&older, 0, leaf, add(TDMR, POOL));
        seen.call(&host, 0, leaf, add(0, POOL));
        let held = lock_page(&other, Hpa::new(TDMR), Level::L2M, Mode::Exclusive, Operand::RCX).unwrap();
        seen.call(&host, 0, leaf, add(TDMR, POOL));
        drop(held);
        seen.call(&host, 0, leaf, add(TDMR, TDMR));
        seen.call(&host, 0, TdhLeaf::PHYMEM_PAMT_ADD, add(TDMR, POOL));
    }
    seen.call(&host, 0, TdhLeaf::PHYMEM_PAMT_ADD, add(TDMR, POOL));
    host.ok(0, TdhLeaf::MNG_CREATE, Gprs { rcx: TDMR, rdx: 40, ..Gprs::ZERO });
    let in_use = seen.call(&host, 0, TdhLeaf::PHYMEM_PAMT_REMOVE, add(TDMR, 0));
    assert_eq!(in_use, C::PAMT_PAGE_NOT_EMPTY);
    seen.call(&host, 0, TdhLeaf::PHYMEM_PAMT_REMOVE, add(TDMR + 0x20_0000, 0));
}

#[test]
fn every_status_code_that_a_leaf_can_return_was_returned_by_it() {
    let mut seen = Seen::default();
    locked_pages(&mut seen);
    outside_of_tdmrs(&mut seen);
    module_locks(&mut seen);
    keys_of_two_packages(&mut seen);
    guest_contention(&mut seen);
    entry_and_exit(&mut seen);
    pamt_pairs(&mut seen);
    tables_of_l2_vms(&mut seen);
    service_tds(&mut seen);
    reach_migration::wrong_tds(&mut seen);
    reach_migration::exports(&mut seen);
    reach_migration::imports(&mut seen);
    let mut missing = Vec::new();
    let (mut recorded, mut reached) = (0, 0);
    for row in TABLE.iter().filter(|row| row.claim.degree != Degree::Absent) {
        let known = row.recorded_codes();
        for code in row.all_codes() {
            if known.contains(&code) {
                recorded += 1;
            } else if seen.0.contains(&(row.leaf.to_owned(), code)) {
                reached += 1;
            } else {
                missing.push(format!("{} {code}", row.leaf));
            }
        }
    }
    println!("{recorded} codes are in recordings, {reached} more are reached by scenarios");
    assert!(missing.is_empty(), "nobody has seen: {missing:#?}");
    for (leaf, code) in &seen.0 {
        let listed = TABLE.iter().any(|row| row.leaf == leaf && row.all_codes().contains(code));
        assert!(listed || DISPATCH.contains(code), "{leaf} returned {code}, which its row does not list");
    }
}

#[test]
fn no_leaf_returned_a_code_that_its_row_does_not_list() {
    for row in TABLE {
        let all = row.all_codes();
        for code in row.recorded_codes() {
            assert!(all.contains(&code) || DISPATCH.contains(&code), "{} returned {code}", row.leaf);
        }
    }
}

#[test]
fn absent_leaves_are_refused_and_change_nothing() {
    let host = Host::ready();
    let given = Gprs { rcx: 1, rdx: 2, r8: 3, r9: 4, r10: 5, ..Gprs::ZERO };
    for row in TABLE.iter().filter(|row| row.claim.degree == Degree::Absent && row.leaf.starts_with("TDH.")) {
        let leaf = *TdhLeaf::ALL.iter().find(|leaf| leaf.name() == Some(row.leaf)).unwrap();
        let out = host.call(0, leaf, given);
        assert!(row.all_codes().contains(&Status::from_raw(out.rax).code()), "{}: {out:?}", row.leaf);
        assert_eq!(Gprs { rax: 0, ..out }, given, "{}", row.leaf);
    }
}

#[test]
fn the_document_is_what_the_table_generates() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../FIDELITY.md");
    let document = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        document == super::to_markdown(),
        "FIDELITY.md is out of date: cargo run -p seam-emu --example fidelity > FIDELITY.md"
    );
}

#[test]
fn an_unknown_field_id_is_not_the_null_id() {
    assert!(!crate::metadata::is_null(FieldId(0x123)));
    assert!(crate::metadata::is_null(FieldId::NULL));
}
