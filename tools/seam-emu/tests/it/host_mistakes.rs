//! A host that forgets one step of a removal is caught each time, by name.

use seam_emu::guest::GuestRegisters;
use seam_emu::testing::{Host, Td, code, mem};
use seam_emu::{GuestCpu, GuestEnv, GuestState, HostViolation, VmExit};
use tdvisor_base::{Gpa, Hpa, Level};
use tdx_module_iface::exit::ExitReason;
use tdx_module_iface::{Gprs, StatusCode, TdhLeaf};

const GPA: u64 = 0x8000_0000;

/// A TD with one accepted page, which its vCPU on processor 0 has touched.
fn td_with_a_page(host: &Host) -> (Td, u64) {
    let td = host.td(2);
    host.tables(&td, GPA, 0);
    let page = host.aug(&td, GPA);
    assert_eq!(host.accept(0, td.vcpus[0], GPA).rax, 1, "accepted, then interrupted");
    (td, page)
}

fn block(host: &Host, td: &Td) {
    host.ok(0, TdhLeaf::MEM_RANGE_BLOCK, mem(td, GPA, 0, 0));
}

fn track(host: &Host, td: &Td) -> StatusCode {
    code(&host.call(0, TdhLeaf::MEM_TRACK, Gprs { rcx: td.tdr, ..Gprs::ZERO }))
}

fn remove(host: &Host, td: &Td) -> StatusCode {
    code(&host.call(0, TdhLeaf::MEM_PAGE_REMOVE, mem(td, GPA, 0, 0)))
}

/// A guest that lets another processor work while it runs.
struct Meanwhile<F>(Option<F>);

impl<F: FnOnce(&GuestEnv<'_>)> GuestCpu for Meanwhile<F> {
    fn run(&mut self, state: &mut GuestState, env: &GuestEnv<'_>) -> VmExit {
        state.enter_64_bit_mode();
        if let Some(act) = self.0.take() {
            act(env);
        }
        VmExit::plain(ExitReason::EXTERNAL_INTERRUPT)
    }
}

fn while_running(host: &Host, lp: usize, tdvpr: u64, act: impl FnOnce(&GuestEnv<'_>)) {
    let mut gprs = Gprs { rcx: tdvpr, ..Gprs::ZERO };
    host.machine.lp(lp).unwrap().seamcall_with(&mut gprs, &mut Meanwhile(Some(act))).unwrap();
    assert_eq!(gprs.rax, 1);
}

#[test]
fn the_whole_sequence_is_accepted_and_leaves_nothing_behind() {
    let host = Host::ready();
    let (td, page) = td_with_a_page(&host);
    block(&host, &td);
    assert_eq!(track(&host, &td), StatusCode::SUCCESS);
    assert_eq!(remove(&host, &td), StatusCode::SUCCESS);
    host.ok(0, TdhLeaf::PHYMEM_PAGE_WBINVD, Gprs { rcx: page | td.hkid << 46, ..Gprs::ZERO });
    host.machine.movdir64b_clear(Hpa::new(page)).unwrap();
    assert_eq!(host.machine.violations(), []);
}

#[test]
fn a_missing_block_is_refused() {
    let host = Host::ready();
    let (td, _) = td_with_a_page(&host);
    assert_eq!(remove(&host, &td), StatusCode::GPA_RANGE_NOT_BLOCKED);
}

#[test]
fn a_missing_track_is_refused() {
    let host = Host::ready();
    let (td, _) = td_with_a_page(&host);
    block(&host, &td);
    assert_eq!(remove(&host, &td), StatusCode::TLB_TRACKING_NOT_DONE);
}

#[test]
fn a_missing_kick_is_refused_until_the_vcpu_has_left() {
    let host = Host::ready();
    let (td, _) = td_with_a_page(&host);
    while_running(&host, 0, td.vcpus[0], |env| {
        let before = env.translate(Gpa::new(GPA), x86_arch::Access::Read).unwrap();
        block(&host, &td);
        let after = env.translate(Gpa::new(GPA), x86_arch::Access::Read);
        assert_eq!(after, Ok(before), "the translation outlives the block");
        assert_eq!(track(&host, &td), StatusCode::SUCCESS);
        assert_eq!(remove(&host, &td), StatusCode::TLB_TRACKING_NOT_DONE);
        assert_eq!(track(&host, &td), StatusCode::PREVIOUS_TLB_EPOCH_BUSY);
    });
    assert_eq!(remove(&host, &td), StatusCode::SUCCESS);
    while_running(&host, 0, td.vcpus[0], |env| {
        assert!(env.translate(Gpa::new(GPA), x86_arch::Access::Read).is_err());
    });
    assert_eq!(host.machine.violations(), []);
}

#[test]
fn a_missing_write_back_is_named_when_the_page_changes_its_key() {
    let host = Host::ready();
    let (td, page) = td_with_a_page(&host);
    block(&host, &td);
    track(&host, &td);
    assert_eq!(remove(&host, &td), StatusCode::SUCCESS);
    host.machine.movdir64b_clear(Hpa::new(page)).unwrap();
    let [HostViolation::DirtyLinesOfOldKey { page: at, old, .. }] = host.machine.violations()[..] else {
        panic!("{:?}", host.machine.violations())
    };
    assert_eq!((at, u64::from(old.get())), (Hpa::new(page), td.hkid));
}

#[test]
fn a_missing_invept_is_named_when_the_page_is_freed() {
    let host = Host::ready();
    let (td, _) = td_with_a_page(&host);
    // A shared EPT of four levels that maps one page, built by hand.
    let (root, target) = (0x20_0000u64, 0x30_0000u64);
    for level in 0..4u64 {
        let table = root + level * 0x1000;
        let next = if level == 3 { target | 0x37 } else { (table + 0x1000) | 7 };
        let index = if level == 0 { 256 } else { 0 };
        host.machine.host_write(Hpa::new(table + 8 * index), &next.to_le_bytes()).unwrap();
    }
    let shared_eptp = Gprs {
        rcx: td.vcpus[0],
        rdx: 0x0024_0003_0000_203c,
        r8: root,
        r9: 0x000f_ffff_ffff_f000,
        ..Gprs::ZERO
    };
    host.ok(0, TdhLeaf::VP_WR, shared_eptp);
    let shared = Gpa::new(1 << 47);
    while_running(&host, 0, td.vcpus[0], |env| {
        env.write(shared, b"to the host").unwrap();
    });
    let freed = Hpa::new(target).frame();
    host.machine.note_host_page_freed(freed, Level::L4K);
    let [HostViolation::StaleSharedTranslation(stale)] = host.machine.violations()[..] else {
        panic!("{:?}", host.machine.violations())
    };
    assert_eq!((stale.lp, stale.gpa, stale.hpa), (0, shared, Hpa::new(target)));
    host.machine.invept(0);
    host.machine.note_host_page_freed(freed, Level::L4K);
    assert_eq!(host.machine.violations().len(), 1, "nothing is stale after INVEPT");
}

#[test]
fn a_write_to_a_page_in_use_is_named() {
    let host = Host::ready();
    let (_, page) = td_with_a_page(&host);
    host.machine.host_write(Hpa::new(page), b"x").unwrap();
    assert!(matches!(
        host.machine.violations()[..],
        [HostViolation::WriteToPrivatePage { page: at, .. }] if at == Hpa::new(page)
    ));
}
