//! No host-side interface shows a guest's plaintext; a host that writes where it must not breaks the owner.

use seam_emu::guest::ExitReason;
use seam_emu::testing::{Host, Td, code, mem};
use seam_emu::{GuestEnv, GuestState, ScriptedGuest, VmExit};
use tdvisor_base::{Gpa, Hpa, KeyId};
use tdx_module_iface::{Gprs, SeamCall, SeamCallFault, StatusCode, TdgLeaf, TdhLeaf};

const GPA: u64 = 0x8000_0000;
const SECRET: [u8; 32] = *b"the guest's secret, 32 bytes ...";

/// A TD whose page holds the secret.
fn td_with_a_secret(host: &Host) -> (Td, u64) {
    let td = host.td(1);
    host.tables(&td, GPA, 0);
    let page = host.aug(&td, GPA);
    host.accept(0, td.vcpus[0], GPA);
    host.run(0, td.vcpus[0], |script| script.env.write(Gpa::new(GPA), &SECRET).unwrap());
    (td, page)
}

fn contains_secret(bytes: &[u8]) -> bool {
    bytes.windows(8).any(|window| SECRET.windows(8).any(|secret| secret == window))
}

#[test]
fn reading_a_private_page_under_any_shared_key_shows_nothing_and_harms_nothing() {
    let host = Host::ready();
    let (td, page) = td_with_a_secret(&host);
    for key in [0u64, 1, 31] {
        let mut bytes = [0; 4096];
        host.machine.host_read(Hpa::new(page | key << 46), &mut bytes).unwrap();
        assert!(!contains_secret(&bytes), "key {key}");
    }
    for key in [td.hkid, td.hkid + 1, 32] {
        assert!(host.machine.host_read(Hpa::new(page | key << 46), &mut [0; 8]).is_err(), "key {key}");
    }
    let mut back = [0; 32];
    host.run(0, td.vcpus[0], |script| script.env.read(Gpa::new(GPA), &mut back).unwrap());
    assert_eq!(back, SECRET);
}

#[test]
fn a_removed_page_shows_nothing_either() {
    let host = Host::ready();
    let (td, page) = td_with_a_secret(&host);
    host.ok(0, TdhLeaf::MEM_RANGE_BLOCK, mem(&td, GPA, 0, 0));
    host.ok(0, TdhLeaf::MEM_TRACK, Gprs { rcx: td.tdr, ..Gprs::ZERO });
    host.ok(0, TdhLeaf::MEM_PAGE_REMOVE, mem(&td, GPA, 0, 0));
    let mut bytes = [0; 4096];
    host.machine.host_read(Hpa::new(page), &mut bytes).unwrap();
    assert!(!contains_secret(&bytes));
    host.machine.host_write(Hpa::new(page), &[1]).unwrap();
    host.machine.host_read(Hpa::new(page), &mut bytes).unwrap();
    assert!(!contains_secret(&bytes), "writing it does not bring the old contents out");
}

#[test]
fn another_td_gets_the_page_zeroed() {
    let host = Host::ready();
    let (td, page) = td_with_a_secret(&host);
    host.ok(0, TdhLeaf::MEM_RANGE_BLOCK, mem(&td, GPA, 0, 0));
    host.ok(0, TdhLeaf::MEM_TRACK, Gprs { rcx: td.tdr, ..Gprs::ZERO });
    host.ok(0, TdhLeaf::MEM_PAGE_REMOVE, mem(&td, GPA, 0, 0));
    let other = host.td(1);
    host.tables(&other, GPA, 0);
    host.ok(0, TdhLeaf::MEM_PAGE_AUG, mem(&other, GPA, 0, page));
    host.accept(0, other.vcpus[0], GPA);
    let mut bytes = [1; 4096];
    host.run(0, other.vcpus[0], |script| script.env.read(Gpa::new(GPA), &mut bytes).unwrap());
    assert_eq!(bytes, [0; 4096]);
}

#[test]
fn mem_rd_serves_debug_tds_only() {
    let host = Host::ready();
    let (td, _) = td_with_a_secret(&host);
    let out = host.call(0, TdhLeaf::MEM_RD, mem(&td, GPA, 0, 0));
    assert_eq!((code(&out), out.r8), (StatusCode::TD_NON_DEBUG, 0));
}

#[test]
fn a_page_that_the_host_wrote_kills_the_td_at_its_next_use() {
    let host = Host::ready();
    let (td, page) = td_with_a_secret(&host);
    host.machine.host_write(Hpa::new(page), &[0]).unwrap();
    // A leaf that reads the page takes the machine-check path.
    let (_, out) = host.run(0, td.vcpus[0], |script| script.tdcall(TdgLeaf::MR_RTMR_EXTEND, GPA));
    assert_eq!(code(&out), StatusCode::NON_RECOVERABLE_TD_NON_ACCESSIBLE);
    let again = host.call(0, TdhLeaf::VP_ENTER, Gprs { rcx: td.vcpus[0], ..Gprs::ZERO });
    assert_eq!(code(&again), StatusCode::TD_FATAL);
}

#[test]
fn a_guest_access_to_a_broken_page_is_a_machine_check() {
    let host = Host::ready();
    let (td, page) = td_with_a_secret(&host);
    host.machine.host_write(Hpa::new(page), &[0]).unwrap();
    let mut guest = ScriptedGuest(|_: &mut GuestState, env: &GuestEnv<'_>| {
        assert!(env.read(Gpa::new(GPA), &mut [0; 8]).is_err());
        let mut exit = VmExit::plain(ExitReason::EXCEPTION_NMI);
        exit.interruption_info = 0x8000_0312;
        exit
    });
    let mut gprs = Gprs { rcx: td.vcpus[0], ..Gprs::ZERO };
    host.machine.lp(0).unwrap().seamcall_with(&mut gprs, &mut guest).unwrap();
    assert_eq!(code(&gprs), StatusCode::NON_RECOVERABLE_TD_NON_ACCESSIBLE);
}

#[test]
fn clearing_a_broken_page_makes_it_usable_for_its_next_owner() {
    let host = Host::ready();
    let (td, page) = td_with_a_secret(&host);
    host.machine.host_write(Hpa::new(page), &[0]).unwrap();
    host.machine.movdir64b_clear(Hpa::new(page)).unwrap();
    host.machine.host_write(Hpa::new(page), b"mine").unwrap();
    let mut bytes = [0; 4];
    host.machine.host_read(Hpa::new(page), &mut bytes).unwrap();
    assert_eq!(&bytes, b"mine");
    assert_eq!(host.machine.memory().page_key(Hpa::new(page).frame()), Ok(KeyId::DEFAULT));
    let _ = td;
}

#[test]
fn a_write_to_a_control_page_ends_the_module() {
    for (which, cleared) in [(0, false), (1, false), (2, false), (0, true), (1, true), (2, true)] {
        let host = Host::ready();
        let (td, _) = td_with_a_secret(&host);
        let page = [td.tdr, td.tdcx[3], td.vcpus[0]][which];
        if cleared {
            host.machine.movdir64b_clear(Hpa::new(page)).unwrap();
        } else {
            host.machine.host_write(Hpa::new(page + 8), &[0]).unwrap();
        }
        let mut gprs = Gprs { rax: u64::from(TdhLeaf::MEM_TRACK.0), rcx: td.tdr, ..Gprs::ZERO };
        let answer = host.machine.lp(0).unwrap().seamcall(&mut gprs);
        assert_eq!(answer, Err(SeamCallFault::VmFailInvalid));
    }
}

#[test]
fn the_module_does_not_read_zeros_where_the_host_broke_a_page() {
    let host = Host::ready();
    let (td, page) = td_with_a_secret(&host);
    host.ok(0, TdhLeaf::MEM_RANGE_BLOCK, mem(&td, GPA, 0, 0));
    host.ok(0, TdhLeaf::MEM_TRACK, Gprs { rcx: td.tdr, ..Gprs::ZERO });
    host.machine.host_write(Hpa::new(page), &[0]).unwrap();
    let mut gprs = Gprs { rax: u64::from(TdhLeaf::MEM_PAGE_RELOCATE.0), ..mem(&td, GPA, 0, host.page()) };
    let answer = host.machine.lp(0).unwrap().seamcall(&mut gprs);
    assert_eq!(
        answer,
        Err(SeamCallFault::VmFailInvalid),
        "the copy would be zeros that the guest takes for its own"
    );
}
