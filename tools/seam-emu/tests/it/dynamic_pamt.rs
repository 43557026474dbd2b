//! Release 2.0 with dynamic PAMT: 4 KiB entries exist only where the host gave memory for them.

use seam_emu::testing::{Host, TDMR, code, mem};
use tdvisor_base::Hpa;
use tdx_module_iface::{Gprs, Operand, SeamCall, Status, StatusCode, TdhLeaf};

const GPA: u64 = 0x8000_0000;
/// The last 2 MiB range of the TDMR: its pages serve as PAMT pages here.
const POOL: u64 = 2 * TDMR - 0x20_0000;

fn add(host: &Host, range: u64, pair: [u64; 2]) -> Status {
    host.status(0, TdhLeaf::PHYMEM_PAMT_ADD, Gprs { rcx: range | 1, rdx: pair[0], r8: pair[1], ..Gprs::ZERO })
}

/// A host with entries for the first two ranges, from which single pages come.
fn host() -> Host {
    let host = Host::with_dynamic_pamt();
    assert_eq!(add(&host, TDMR, [POOL, POOL + 0x1000]), Status::SUCCESS);
    assert_eq!(add(&host, TDMR + 0x20_0000, [POOL + 0x2000, POOL + 0x3000]), Status::SUCCESS);
    host
}

#[test]
fn a_small_page_without_entries_is_refused_until_the_host_brings_them() {
    let host = Host::with_dynamic_pamt();
    let create = Gprs { rcx: TDMR, rdx: 40, ..Gprs::ZERO };
    let missing = Status::with_operand(StatusCode::MISSING_PAMT_PAGE_PAIR, Operand::RCX);
    assert_eq!(host.status(0, TdhLeaf::MNG_CREATE, create), missing);
    assert_eq!(add(&host, TDMR, [POOL, POOL + 0x1000]), Status::SUCCESS);
    host.ok(0, TdhLeaf::MNG_CREATE, create);
}

#[test]
fn a_pair_is_given_once_and_comes_back_when_nothing_is_in_use() {
    let host = host();
    let again = Status::with_operand(StatusCode::HPA_RANGE_NOT_FREE, Operand::RCX);
    assert_eq!(add(&host, TDMR, [POOL + 0x4000, POOL + 0x5000]), again);
    let td = host.td(1);
    let remove = Gprs { rcx: TDMR | 1, ..Gprs::ZERO };
    let in_use = Status::with_operand(StatusCode::PAMT_PAGE_NOT_EMPTY, Operand::RCX);
    assert_eq!(host.status(0, TdhLeaf::PHYMEM_PAMT_REMOVE, remove), in_use);
    let second = Gprs { rcx: (TDMR + 0x20_0000) | 1, ..Gprs::ZERO };
    let out = host.ok(0, TdhLeaf::PHYMEM_PAMT_REMOVE, second);
    assert_eq!((out.rdx, out.r8), (POOL + 0x2000, POOL + 0x3000));
    let gone = Status::with_operand(StatusCode::NO_PAMT_PAGE_PAIR, Operand::RCX);
    assert_eq!(host.status(0, TdhLeaf::PHYMEM_PAMT_REMOVE, second), gone);
    let _ = td;
}

#[test]
fn a_page_that_holds_entries_serves_for_nothing_else() {
    let host = host();
    // Entries for the pool's own range, so that its pages have types at all.
    assert_eq!(add(&host, POOL, [TDMR + 0x30_0000, TDMR + 0x30_1000]), Status::SUCCESS);
    let create = Gprs { rcx: POOL, rdx: 40, ..Gprs::ZERO };
    let refused = Status::with_operand(StatusCode::PAGE_METADATA_INCORRECT, Operand::RCX);
    assert_eq!(host.status(0, TdhLeaf::MNG_CREATE, create), refused);
    let taken = Status::with_operand(StatusCode::PAGE_METADATA_INCORRECT, Operand::RDX);
    assert_eq!(add(&host, TDMR + 0x40_0000, [POOL, POOL + 0x6000]), taken);
    assert_eq!(add(&host, TDMR + 0x40_0000, [POOL + 0x6000, POOL + 0x7000]), Status::SUCCESS);
}

#[test]
fn a_large_page_needs_entries_only_when_it_is_split() {
    let host = host();
    let td = host.td(1);
    host.tables(&td, GPA, 1);
    let large = host.large_page();
    host.ok(0, TdhLeaf::MEM_PAGE_AUG, mem(&td, GPA, 1, large));
    host.ok(0, TdhLeaf::MEM_RANGE_BLOCK, mem(&td, GPA, 1, 0));
    host.ok(0, TdhLeaf::MEM_TRACK, Gprs { rcx: td.tdr, ..Gprs::ZERO });
    let table = host.page();
    let without = host.call(0, TdhLeaf::MEM_PAGE_DEMOTE, Gprs { r12: 1, ..mem(&td, GPA, 1, table) });
    assert_eq!(code(&without), StatusCode::OPERAND_INVALID);
    let pair = Gprs { r12: POOL + 0x8000, r13: POOL + 0x9000, ..mem(&td, GPA, 1, table) };
    host.ok(0, TdhLeaf::MEM_PAGE_DEMOTE, pair);
    let entry = host.ok(0, TdhLeaf::PHYMEM_PAGE_RDMD, Gprs { rcx: large + 0x5000, ..Gprs::ZERO });
    assert_eq!((entry.rcx, entry.rdx, entry.r8), (3, td.tdr, 0));
}

#[test]
fn older_releases_do_not_know_the_leaves() {
    let host = Host::ready();
    assert_eq!(add(&host, TDMR, [POOL, POOL + 0x1000]).code(), StatusCode::OPERAND_INVALID);
}

#[test]
fn a_host_that_writes_to_a_pair_ends_the_module() {
    let host = host();
    host.machine.host_write(Hpa::new(POOL + 8), &[1]).unwrap();
    let mut gprs = Gprs { rax: u64::from(TdhLeaf::PHYMEM_PAGE_RDMD.0), rcx: TDMR, ..Gprs::ZERO };
    assert!(host.machine.lp(0).unwrap().seamcall(&mut gprs).is_err());
}
