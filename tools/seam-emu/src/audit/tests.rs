//! The audit finds what is planted, and nothing else.

use tdvisor_base::sync::Ordering;
use tdvisor_base::{Gpa, Hpa, Level};
use tdx_module_iface::lifecycle::HkidState;
use tdx_module_iface::sept::SeptEntry;
use tdx_module_iface::tdmr::PageType;
use tdx_module_iface::{Operand, TdhLeaf};

use super::AuditFinding as Finding;
use crate::host::Call;
use crate::host::steps::lock_page;
use crate::lock::Mode;
use crate::module::pamt::PamtEntry;
use crate::td::Tdr;
use crate::td::sept::{SeptSlot, Walk};
use crate::testing::{Host, Td, mem};

const GPA: u64 = 0x8000_0000;

/// A TD with two small pages, a large one, and a vCPU.
fn machine() -> (Host, Td, [u64; 2]) {
    let host = Host::ready();
    let td = host.td(1);
    host.tables(&td, GPA, 0);
    let pages = [0, 0x1000].map(|offset| host.aug(&td, GPA + offset));
    host.ok(0, TdhLeaf::MEM_PAGE_AUG, mem(&td, GPA + (2 << 20), 1, host.large_page()));
    (host, td, pages)
}

fn entry(host: &Host, page: u64) -> PamtEntry<'_> {
    let tdmr = host.machine.module.tdmrs.of_page(Hpa::new(page)).unwrap();
    tdmr.entry(host.machine.memory(), Level::L4K, Hpa::new(page)).unwrap()
}

fn slot<'m>(host: &'m Host, td: &Td, gpa: u64) -> SeptSlot<'m> {
    let tdr = Tdr::at(host.machine.memory(), Hpa::new(td.tdr)).unwrap();
    match tdr.tdcs().walk(Gpa::new(gpa), Level::L4K) {
        Some(Walk::Found(slot)) => slot,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_machine_that_did_what_it_should_has_no_findings() {
    let (host, td, _) = machine();
    assert_eq!(host.machine.audit(), []);
    host.accept(0, td.vcpus[0], GPA);
    assert_eq!(host.machine.audit(), []);
}

#[test]
fn a_page_that_changes_its_owner_is_missed_by_the_old_one_and_has_no_new_one() {
    let (host, td, [page, _]) = machine();
    entry(&host, page).assign(PageType::REG, Hpa::new(0x4fff_f000));
    let findings = host.machine.audit();
    let tdr = Hpa::new(td.tdr);
    assert!(findings.contains(&Finding::NoOwner(Hpa::new(page))), "{findings:?}");
    assert!(
        findings.contains(&Finding::WrongTarget { tdr, gpa: Gpa::new(GPA), page: Hpa::new(page) }),
        "{findings:?}"
    );
    assert!(findings.iter().any(|finding| matches!(finding, Finding::ChildCount { .. })), "{findings:?}");
}

#[test]
fn an_entry_that_forgets_its_page_or_takes_another_ones_is_found() {
    let (host, td, [first, second]) = machine();
    let lock = slot(&host, &td, GPA).lock(crate::lock::Side::Host).unwrap();
    lock.set(SeptEntry::mapped(Hpa::new(second)));
    drop(lock);
    let lost = Finding::LostPage { page: Hpa::new(first), page_type: PageType::REG, level: Level::L4K };
    let findings = host.machine.audit();
    assert!(
        findings.contains(&lost) && findings.contains(&Finding::SharedPage(Hpa::new(second))),
        "{findings:?}"
    );
}

#[test]
fn a_lock_that_is_held_is_found() {
    let (host, td, [page, _]) = machine();
    let call = Call { machine: &host.machine, lp: 0 };
    let held = lock_page(&call, Hpa::new(page), Level::L4K, Mode::Exclusive, Operand::RCX).unwrap();
    assert!(host.machine.audit().contains(&Finding::LockHeld(Hpa::new(page))));
    drop(held);
    let held = slot(&host, &td, GPA).lock(crate::lock::Side::Guest).unwrap();
    let findings = host.machine.audit();
    assert!(matches!(findings[..], [Finding::BadEntry { .. }, ..]), "{findings:?}");
    drop(held);
    assert_eq!(host.machine.audit(), []);
}

#[test]
fn a_key_id_that_is_free_while_a_td_uses_it_is_found() {
    let (host, td, _) = machine();
    host.machine.module.kot.set(td.hkid as u16, HkidState::FREE, 0);
    let wrong = Finding::KeyState { hkid: td.hkid as u16, state: HkidState::FREE };
    assert_eq!(host.machine.audit(), [wrong]);
}

#[test]
fn a_stray_word_in_a_table_is_found() {
    let (host, td, _) = machine();
    let root = Tdr::at(host.machine.memory(), Hpa::new(td.tdr)).unwrap().tdcs().sept_root();
    host.machine.memory().table(root.frame()).unwrap()[7].store(0x1234_5000, Ordering::Relaxed);
    let findings = host.machine.audit();
    assert!(!findings.is_empty(), "an entry of the root points nowhere");
}
