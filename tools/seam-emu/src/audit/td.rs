//! TDs against the PAMT and the key ownership table.

use std::collections::{BTreeMap, BTreeSet};

use tdvisor_base::sync::Ordering;
use tdvisor_base::{Gpa, Hpa, Level};
use tdx_module_iface::lifecycle::{HkidState, LifecycleState, VcpuState};
use tdx_module_iface::op_state::OpState;
use tdx_module_iface::sept::{SeptEntry, SeptState};
use tdx_module_iface::tdmr::{PageType, pages as sizes};

use super::pages::{Page, Pages};
use super::{AuditFinding, Findings};
use crate::fields::layout::tdcs;
use crate::fields::{FieldStore, Width};
use crate::l2::Vm;
use crate::machine::Machine;
use crate::td::l2::{self, alias};
use crate::td::sept::Walk;
use crate::td::{Tdcs, Tdr, Tdvps};

pub(super) fn check_all(machine: &Machine, pages: &Pages, findings: &mut Findings) {
    let mut keys: BTreeMap<u16, LifecycleState> = BTreeMap::new();
    for (at, page) in pages.iter() {
        if page.page_type != PageType::TDR {
            if pages.get(page.owner).is_none_or(|owner| owner.page_type != PageType::TDR) {
                findings.push(AuditFinding::NoOwner(at));
            }
            continue;
        }
        let Some(tdr) = Tdr::at(machine.memory(), at) else { continue };
        let mut td = Td { machine, pages, tdr: &tdr, seen: BTreeSet::new(), findings };
        td.check();
        let lifecycle = tdr.lifecycle();
        if lifecycle != LifecycleState::TEARDOWN && keys.insert(tdr.hkid(), lifecycle).is_some() {
            let state = machine.module.kot.state(tdr.hkid());
            findings.push(AuditFinding::KeyState { hkid: tdr.hkid(), state });
        }
    }
    for hkid in machine.config().private_hkids.clone() {
        let state = machine.module.kot.state(hkid);
        let agrees = match keys.get(&hkid) {
            None => matches!(state, HkidState::FREE | HkidState::RESERVED),
            Some(&LifecycleState::BLOCKED) => state == HkidState::FLUSHED,
            Some(_) => state == HkidState::ASSIGNED,
        };
        if !agrees {
            findings.push(AuditFinding::KeyState { hkid, state });
        }
    }
}

struct Td<'a, 'm> {
    machine: &'m Machine,
    pages: &'a Pages,
    tdr: &'a Tdr<'m>,
    /// Pages that something points to.
    seen: BTreeSet<Hpa>,
    findings: &'a mut Findings,
}

impl Td<'_, '_> {
    fn check(&mut self) {
        let found = self.pages.of(self.tdr.hpa).map(|(_, page)| page.level.frames()).sum();
        let counted = self.tdr.child_count();
        if counted != found {
            self.findings.push(AuditFinding::ChildCount { tdr: self.tdr.hpa, counted, found });
        }
        // In a TD that is torn down, pages go one by one and leave pointers behind.
        let lives = matches!(
            self.tdr.lifecycle(),
            LifecycleState::HKID_ASSIGNED | LifecycleState::KEYS_CONFIGURED | LifecycleState::BLOCKED
        );
        if !lives {
            return;
        }
        for index in 0..self.tdr.num_tdcx() as u32 {
            self.point_to(self.tdr.tdcx(index), PageType::TDCX, Level::L4K, Gpa::new(0));
        }
        self.vcpus();
        let tdcs = self.tdr.tdcs();
        if self.tdr.num_tdcx() >= sizes::TDCX_MIN {
            self.rest(&tdcs);
            for stream in crate::migration::stream::pages(&tdcs) {
                self.point_to(stream, PageType::TDCX, Level::L4K, Gpa::new(0));
            }
        }
        if self.tdr.num_tdcx() >= sizes::TDCX_MIN && tdcs.op_state() != OpState::Uninitialized {
            self.table(tdcs.sept_root(), tdcs.root_level(), Gpa::new(0));
            for vm in 1..=tdcs.num_l2_vms() {
                if let Some((vm, root)) = Vm::l2(vm as u8).zip(tdcs.l2_sept_root(vm)) {
                    self.l2_table(vm, root, tdcs.root_level(), Gpa::new(0));
                }
            }
        }
        for (page, Page { page_type, level, .. }) in self.pages.of(self.tdr.hpa) {
            if !self.seen.contains(&page) {
                self.findings.push(AuditFinding::LostPage { page, page_type, level });
            }
        }
    }

    /// Notes that something of this TD points to a page, at `gpa` if it is a Secure EPT; whether the page is what
    /// it is taken for.
    fn point_to(&mut self, at: Hpa, page_type: PageType, level: Level, gpa: Gpa) -> bool {
        if !self.seen.insert(at) {
            self.findings.push(AuditFinding::SharedPage(at));
            return false;
        }
        let right = self.pages.get(at) == Some(Page { page_type, level, owner: self.tdr.hpa });
        if !right {
            self.findings.push(AuditFinding::WrongTarget { tdr: self.tdr.hpa, gpa, page: at });
        }
        right
    }

    /// TDVPRs are found by the PAMT alone; their other pages by them.
    fn vcpus(&mut self) {
        let of_td = self.pages.of(self.tdr.hpa);
        let roots: Vec<_> = of_td.filter(|(_, page)| page.page_type == PageType::TDVPR).collect();
        let mut associated = 0;
        for (root, _) in roots {
            let Some(tdvps) = Tdvps::at(self.machine.memory(), root) else { continue };
            for (index, page) in tdvps.pages().enumerate() {
                let page_type = if index == 0 { PageType::TDVPR } else { PageType::TDCX };
                self.point_to(page, page_type, Level::L4K, Gpa::new(0));
            }
            associated += u64::from(tdvps.associated_lp().is_some());
            if tdvps.state() == VcpuState::ACTIVE {
                self.findings.push(AuditFinding::VcpuRuns(root));
            }
        }
        let counted = self.tdr.tdcs().load(tdcs::NUM_ASSOC_VCPUS, Width::B4);
        if counted != associated {
            let tdr = self.tdr.hpa;
            self.findings.push(AuditFinding::AssociatedVcpus { tdr, counted, found: associated });
        }
    }

    /// Locks and epochs at rest.
    fn rest(&mut self, tdcs: &Tdcs<'_>) {
        let locks = [tdcs.op_state_lock(), tdcs.tree_lock(), tdcs.epoch_lock(), tdcs.rtmr_lock()];
        if locks.into_iter().flatten().any(|lock| lock.is_held()) {
            self.findings.push(AuditFinding::LockHeld(self.tdr.hpa));
        }
        if tdcs.refcount(0) != 0 || tdcs.refcount(1) != 0 {
            self.findings.push(AuditFinding::VcpuRuns(self.tdr.hpa));
        }
    }

    fn table(&mut self, table: Hpa, level: Level, base: Gpa) {
        let Ok(words) = self.machine.memory().table(table.frame()) else { return };
        let tdr = self.tdr.hpa;
        for (index, word) in (0u64..).zip(words) {
            let raw = word.load(Ordering::Acquire);
            let entry = SeptEntry(raw & !SeptEntry::HOST_PRIORITY);
            let gpa = base.wrapping_add(index * level.bytes());
            if entry.0 == SeptEntry::FREE.0 {
                continue;
            }
            let state = entry.state().filter(|_| !entry.has(SeptEntry::LOCK));
            let below = level.down();
            match (state, below) {
                (Some(SeptState::NlMapped | SeptState::NlBlocked), Some(below)) => {
                    if self.point_to(entry.hpa(), PageType::EPT, Level::L4K, gpa) {
                        self.table(entry.hpa(), below, gpa);
                    }
                }
                (Some(state), _) if state.is_leaf() && level <= Level::L1G => {
                    self.point_to(entry.hpa().align_down(level.bytes()), PageType::REG, level, gpa);
                    self.aliases(entry, level, gpa);
                }
                _ => self.findings.push(AuditFinding::BadEntry { tdr, gpa, raw }),
            }
        }
    }

    /// Each VM that the TD's own entry names has an alias at its place.
    fn aliases(&mut self, entry: SeptEntry, level: Level, gpa: Gpa) {
        let tdcs = self.tdr.tdcs();
        for vm in (1..=Vm::MAX_L2).filter_map(Vm::l2).filter(|vm| entry.0 & alias(*vm) != 0) {
            let there =
                l2::walk(&tdcs, vm, gpa, level).is_some_and(|slot| slot.level == level && slot.is_leaf());
            if !there {
                let (tdr, vm) = (self.tdr.hpa, vm.number());
                self.findings.push(AuditFinding::MissingAlias { tdr, vm, gpa, level });
            }
        }
    }

    /// The tree of an L2 VM: tables where the TD has some, and aliases of the TD's own leaves.
    fn l2_table(&mut self, vm: Vm, table: Hpa, level: Level, base: Gpa) {
        let Ok(words) = self.machine.memory().table(table.frame()) else { return };
        let tdr = self.tdr.hpa;
        for (index, word) in (0u64..).zip(words) {
            let raw = word.load(Ordering::Acquire);
            let entry = SeptEntry(raw);
            let gpa = base.wrapping_add(index * level.bytes());
            if raw == 0 {
                continue;
            }
            match level.down() {
                Some(below) if !entry.has(SeptEntry::LEAF) => {
                    let own = self.own_entry(gpa, level);
                    if own.is_none_or(|(_, state)| state.is_leaf()) {
                        self.findings.push(AuditFinding::StrayAlias { tdr, vm: vm.number(), gpa, level });
                    }
                    if self.point_to(entry.hpa(), PageType::EPT, Level::L4K, gpa) {
                        self.l2_table(vm, entry.hpa(), below, gpa);
                    }
                }
                _ if entry.has(SeptEntry::LEAF) => {
                    let own = self.own_entry(gpa, level);
                    let agrees = own.is_some_and(|(own, state)| {
                        state.is_leaf()
                            && own.0 & alias(vm) != 0
                            && own.hpa().align_down(level.bytes()) == entry.hpa().align_down(level.bytes())
                            && (entry.0 & SeptEntry::RWX == 0 || !state.is_blocked() && !state.is_pending())
                    });
                    if !agrees {
                        self.findings.push(AuditFinding::StrayAlias { tdr, vm: vm.number(), gpa, level });
                    }
                }
                _ => self.findings.push(AuditFinding::BadEntry { tdr, gpa, raw }),
            }
        }
    }

    /// The TD's own entry at a place.
    fn own_entry(&self, gpa: Gpa, level: Level) -> Option<(SeptEntry, SeptState)> {
        match self.tdr.tdcs().walk(gpa, level)? {
            Walk::Found(slot) if slot.level == level => Some((slot.entry(), slot.state())),
            _ => None,
        }
    }
}
