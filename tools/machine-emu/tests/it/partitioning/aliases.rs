//! Aliases of L2 VMs beside what the host does with a TD's memory.

use mirror_ept::GfnRange;
use td_host::memory::Converted;
use tdvisor_base::{Gfn, Gpa, Level, Side};
use tdvisor_guest_images::L1_VMM;
use tdx_module_iface::{Gprs, Status, TdgLeaf, TdhLeaf};

use super::world::{EmulatedHost, EmulatedTd, check, free_frames, host, page, td};
use crate::driven::tdcalls;

const READ: u64 = 1;
const READ_WRITE: u64 = 3;
const VALID: u64 = 1 << 15;
/// Attributes of one VM in RDX and R8.
const VM_BITS: u32 = 16;

fn call(leaf: TdgLeaf) -> Gprs {
    Gprs { rax: u64::from(leaf.0), ..Gprs::ZERO }
}

fn accept(gpa: Gpa, level: Level) -> Gprs {
    Gprs { rcx: gpa.get() | u64::from(level.index()), ..call(TdgLeaf::MEM_PAGE_ACCEPT) }
}

/// Attributes of VMs as RDX and R8 have them.
fn of_vms(vms: &[(u32, u64)]) -> u64 {
    vms.iter().fold(0, |all, (vm, attributes)| all | attributes << (VM_BITS * vm))
}

fn give(gpa: Gpa, level: Level, vms: &[(u32, u64)]) -> Gprs {
    let valid: Vec<_> = vms.iter().map(|(vm, attributes)| (*vm, attributes | VALID)).collect();
    let mask: Vec<_> = vms.iter().map(|(vm, _)| (*vm, 0x7f)).collect();
    let rcx = gpa.get() | u64::from(level.index());
    Gprs { rcx, rdx: of_vms(&valid), r8: of_vms(&mask), ..call(TdgLeaf::MEM_PAGE_ATTR_WR) }
}

/// What VMs have of a page: its level, and RDX.
fn read(host: &EmulatedHost, td: &EmulatedTd<'_>, gpa: Gpa) -> (u64, u64) {
    let got = tdcalls(host, td, vec![Gprs { rcx: gpa.get(), ..call(TdgLeaf::MEM_PAGE_ATTR_RD) }]);
    assert_eq!(Status::from_raw(got[0].rax), Status::SUCCESS);
    (got[0].rcx & 7, got[0].rdx)
}

fn succeed(host: &EmulatedHost, td: &EmulatedTd<'_>, calls: Vec<Gprs>) {
    let made = calls.len();
    for (number, gprs) in tdcalls(host, td, calls).iter().take(made).enumerate() {
        assert_eq!(Status::from_raw(gprs.rax), Status::SUCCESS, "call {number}");
    }
}

fn tables_added(host: &EmulatedHost) -> u64 {
    host.platform().trace().calls().get(&TdhLeaf::MEM_SEPT_ADD.to_string()).copied().unwrap_or_default()
}

fn frames_of(gpa: Gpa, frames: u64) -> GfnRange {
    GfnRange::new(gpa.frame(), Gfn::new(gpa.frame().get() + frames))
}

fn convert(td: &EmulatedTd<'_>, gpa: Gpa, to: Side) {
    let mut seat = td.memory().take_seat(td_host::platform::LpId(3)).unwrap();
    let converted = td.memory().convert(&mut seat, frames_of(gpa, 1), to).unwrap();
    assert_eq!(converted, Converted::All);
}

#[test]
fn inv_63_tables_of_an_l2_vm_are_added_where_it_needs_them_and_nowhere_else() {
    let host = host();
    let td = td(&host, &L1_VMM, 3, Level::L4K);
    succeed(&host, &td, vec![accept(page(0), Level::L4K), accept(page(1), Level::L4K)]);
    let mut before = tables_added(&host);
    // Below the root there are three levels of tables.
    for (vm, at, tables) in
        [(2, page(0), 3), (2, page(1), 0), (1, page(1), 3), (3, page(0), 3), (1, page(0), 0)]
    {
        succeed(&host, &td, vec![give(at, Level::L4K, &[(vm, READ)])]);
        assert_eq!(tables_added(&host) - before, tables, "VM {vm} at {at:?}");
        before = tables_added(&host);
        check(&host, &[&td]);
    }
    let (_, all) = read(&host, &td, page(0));
    assert_eq!(all, of_vms(&[(1, READ | VALID), (2, READ | VALID), (3, READ | VALID)]));
    assert!(td.teardown().is_clean());
}

#[test]
fn inv_64_a_page_that_is_taken_away_leaves_every_l2_vm_with_it() {
    let host = host();
    let before = free_frames(&host);
    let td = td(&host, &L1_VMM, 3, Level::L4K);
    let vms = [(1, READ), (3, READ_WRITE)];
    succeed(&host, &td, (0..4).map(|number| accept(page(number), Level::L4K)).collect());
    succeed(&host, &td, (0..4).map(|number| give(page(number), Level::L4K, &vms)).collect());
    convert(&td, page(1), Side::Shared);
    check(&host, &[&td]);
    convert(&td, page(1), Side::Private);
    succeed(&host, &td, vec![accept(page(1), Level::L4K)]);
    assert_eq!(read(&host, &td, page(1)), (0, 0), "what comes back is nobody's");
    let kept = of_vms(&[(1, READ | VALID), (3, READ_WRITE | VALID)]);
    assert_eq!(read(&host, &td, page(2)), (0, kept), "a neighbour");
    check(&host, &[&td]);
    assert!(td.teardown().is_clean());
    assert_eq!(free_frames(&host), before);
}

#[test]
fn inv_64_a_large_page_is_cut_and_merged_with_its_aliases() {
    let host = host();
    let before = free_frames(&host);
    let td = td(&host, &L1_VMM, 3, Level::L2M);
    let vms = [(1, READ), (3, READ_WRITE)];
    let have = of_vms(&[(1, READ | VALID), (3, READ_WRITE | VALID)]);
    succeed(&host, &td, vec![accept(page(0), Level::L2M), give(page(0), Level::L2M, &vms)]);
    assert_eq!(read(&host, &td, page(7)), (1, have));
    check(&host, &[&td]);
    convert(&td, page(7), Side::Shared);
    assert_eq!(read(&host, &td, page(6)), (0, have), "a piece has what the whole had");
    check(&host, &[&td]);
    convert(&td, page(7), Side::Private);
    succeed(&host, &td, vec![accept(page(7), Level::L4K)]);
    let merge = || {
        let mut seat = td.memory().take_seat(td_host::platform::LpId(3)).unwrap();
        td.memory().collapse(&mut seat, frames_of(page(0), 512)).unwrap()
    };
    assert_eq!(merge().merged, 0, "one piece has no aliases");
    check(&host, &[&td]);
    succeed(&host, &td, vec![give(page(7), Level::L4K, &[(1, READ_WRITE), (3, READ_WRITE)])]);
    assert_eq!(merge().merged, 0, "one piece has other attributes");
    check(&host, &[&td]);
    succeed(&host, &td, vec![give(page(7), Level::L4K, &vms)]);
    assert_eq!(merge().merged, 1);
    assert_eq!(read(&host, &td, page(7)), (1, have));
    check(&host, &[&td]);
    assert!(td.teardown().is_clean());
    assert_eq!(free_frames(&host), before);
}

#[test]
fn attributes_of_a_small_page_in_a_large_one_have_it_cut() {
    let host = host();
    let td = td(&host, &L1_VMM, 1, Level::L2M);
    succeed(&host, &td, vec![accept(page(0), Level::L2M)]);
    succeed(&host, &td, vec![give(page(3), Level::L4K, &[(1, READ)])]);
    assert_eq!(read(&host, &td, page(3)), (0, of_vms(&[(1, READ | VALID)])));
    assert_eq!(read(&host, &td, page(4)), (0, 0));
    check(&host, &[&td]);
}

#[test]
fn attributes_of_a_page_that_is_not_there_have_it_added() {
    let host = host();
    let td = td(&host, &L1_VMM, 1, Level::L4K);
    succeed(&host, &td, vec![give(page(0), Level::L4K, &[(1, READ)])]);
    check(&host, &[&td]);
    succeed(&host, &td, vec![accept(page(0), Level::L4K)]);
    assert_eq!(read(&host, &td, page(0)), (0, of_vms(&[(1, READ | VALID)])));
    check(&host, &[&td]);
}
