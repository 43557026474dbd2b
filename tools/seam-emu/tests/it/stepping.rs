//! A host that would step its guest by mapping and unmapping pages, and what the guest learns of it.

use seam_emu::guest::GuestRegisters;
use seam_emu::testing::{Host, Td, code, mem};
use seam_emu::{GuestEnv, GuestState, ScriptedGuest, VmExit};
use tdvisor_base::Gpa;
use tdx_module_iface::exit::ExitReason;
use tdx_module_iface::td_params::attributes::SEPT_VE_DISABLE;
use tdx_module_iface::{Gprs, StatusCode, TdgLeaf, TdhLeaf};
use x86_arch::{Access, Event, vector};

const GPA: u64 = 0x8000_0000;
/// After so many violations at one place their addresses are remembered.
const UNREMEMBERED: usize = 6;
const NOTIFY_ENABLES: u64 = 0x9110_0003_0000_0010;

/// A TD with one page.
fn td_with_a_page(host: &Host) -> Td {
    let mut td = host.td_being_built(0, SEPT_VE_DISABLE);
    host.add_vcpu(&mut td, 0);
    host.tables(&td, GPA, 0);
    host.add(&td, GPA, &[]);
    host.ok(0, TdhLeaf::MR_FINALIZE, Gprs { rcx: td.tdr, ..Gprs::ZERO });
    td
}

fn block(host: &Host, td: &Td) {
    host.ok(0, TdhLeaf::MEM_RANGE_BLOCK, mem(td, GPA, 0, 0));
    host.ok(0, TdhLeaf::MEM_TRACK, Gprs { rcx: td.tdr, ..Gprs::ZERO });
}

fn unblock(host: &Host, td: &Td) {
    host.ok(0, TdhLeaf::MEM_RANGE_UNBLOCK, mem(td, GPA, 0, 0));
}

/// Enters a vCPU whose guest, where it stands, leaves it by this exit and is interrupted next: what was injected, and
/// the host's registers.
fn enter(host: &Host, td: &Td, exit: impl Fn(&mut GuestState) -> VmExit) -> (Option<Event>, Gprs) {
    let mut first = true;
    let mut injected = None;
    let mut guest = ScriptedGuest(|state: &mut GuestState, _: &GuestEnv<'_>| {
        state.enter_64_bit_mode();
        if core::mem::take(&mut first) {
            injected = state.event.take();
            return exit(state);
        }
        VmExit::plain(ExitReason::EXTERNAL_INTERRUPT)
    });
    let mut gprs = Gprs { rcx: td.vcpus[0], rbp: 0x77, ..Gprs::ZERO };
    host.machine.lp(0).unwrap().seamcall_with(&mut gprs, &mut guest).unwrap();
    (injected, gprs)
}

fn touch(_: &mut GuestState) -> VmExit {
    VmExit::ept_violation(Gpa::new(GPA + 0x123), GPA + 0x123, Access::Read, 0)
}

fn interrupted(_: &mut GuestState) -> VmExit {
    VmExit::plain(ExitReason::EXTERNAL_INTERRUPT)
}

/// A guest that stands where a host has made it touch a page too often.
fn stepped(notify: bool) -> (Host, Td) {
    let host = Host::ready();
    let td = td_with_a_page(&host);
    if notify {
        let rax = u64::from(TdgLeaf::VM_WR.0);
        let call = Gprs { rax, rdx: NOTIFY_ENABLES, r8: 1, r9: 1, ..Gprs::ZERO };
        enter(&host, &td, |state| {
            state.set_gprs(call);
            VmExit::tdcall()
        });
    }
    block(&host, &td);
    for _ in 0..=UNREMEMBERED {
        assert_eq!(enter(&host, &td, touch).1.rax, u64::from(ExitReason::EPT_VIOLATION.0));
    }
    (host, td)
}

#[test]
fn an_entry_that_would_be_a_step_is_refused_and_leaves_the_host_its_registers() {
    let (host, td) = stepped(false);
    let (_, out) = enter(&host, &td, |_| panic!("the guest was run"));
    assert_eq!((out.rax, out.rcx, out.r8), (u64::from(ExitReason::EPT_VIOLATION.0), 2, GPA));
    assert_eq!(out.rbp, 0x77, "the guest did not run");
    unblock(&host, &td);
    assert_eq!(enter(&host, &td, interrupted).1.rax, u64::from(ExitReason::EXTERNAL_INTERRUPT.0));
}

#[test]
fn a_guest_is_told_of_steps_if_it_wants_to_be() {
    for notify in [false, true] {
        let (host, td) = stepped(notify);
        unblock(&host, &td);
        let (injected, _) = enter(&host, &td, |state| {
            state.set_gprs(Gprs { rax: u64::from(TdgLeaf::VP_VEINFO_GET.0), ..Gprs::ZERO });
            VmExit::tdcall()
        });
        assert_eq!(injected.map(|event| event.vector), notify.then_some(vector::VE), "asked: {notify}");
    }
}

#[test]
fn a_guest_that_moved_between_two_violations_is_not_being_stepped() {
    let host = Host::ready();
    let td = td_with_a_page(&host);
    block(&host, &td);
    for _ in 0..3 * UNREMEMBERED {
        assert_eq!(enter(&host, &td, touch).1.rax, u64::from(ExitReason::EPT_VIOLATION.0));
        for place in [0x1000, 0] {
            let (_, out) = enter(&host, &td, |state| {
                state.set_rip(place);
                VmExit::plain(ExitReason::EXTERNAL_INTERRUPT)
            });
            assert_eq!(out.rax, u64::from(ExitReason::EXTERNAL_INTERRUPT.0), "the entry was let through");
        }
    }
}

#[test]
fn a_leaf_whose_operand_is_not_there_is_no_step() {
    let host = Host::ready();
    let td = td_with_a_page(&host);
    block(&host, &td);
    for _ in 0..3 * UNREMEMBERED {
        let (_, out) = enter(&host, &td, |state| {
            let rax = u64::from(TdgLeaf::SYS_RDALL.0);
            state.set_gprs(Gprs { rax, rdx: GPA, r8: u64::MAX, ..Gprs::ZERO });
            VmExit::tdcall()
        });
        assert_eq!(
            (out.rax, out.rcx),
            (u64::from(ExitReason::EPT_VIOLATION.0), 3),
            "read and write of what is not there"
        );
    }
    unblock(&host, &td);
    assert_eq!(enter(&host, &td, interrupted).1.rax, u64::from(ExitReason::EXTERNAL_INTERRUPT.0));
}

#[test]
fn a_table_is_the_wrong_size_for_attributes_also_when_it_is_blocked() {
    let host = Host::ready();
    let td = td_with_a_page(&host);
    for blocked in [false, true] {
        if blocked {
            host.ok(0, TdhLeaf::MEM_RANGE_BLOCK, mem(&td, GPA, 1, 0));
        }
        for leaf in [TdgLeaf::MEM_PAGE_ATTR_WR, TdgLeaf::MEM_PAGE_ACCEPT] {
            let mut answer = None;
            let mut first = true;
            let mut guest = ScriptedGuest(|state: &mut GuestState, _: &GuestEnv<'_>| {
                state.enter_64_bit_mode();
                if core::mem::take(&mut first) {
                    state.set_gprs(Gprs { rax: u64::from(leaf.0), rcx: GPA | 1, ..Gprs::ZERO });
                    return VmExit::tdcall();
                }
                answer = answer.or(Some(code(&state.gprs())));
                VmExit::plain(ExitReason::EXTERNAL_INTERRUPT)
            });
            let mut gprs = Gprs { rcx: td.vcpus[0], ..Gprs::ZERO };
            host.machine.lp(0).unwrap().seamcall_with(&mut gprs, &mut guest).unwrap();
            assert_eq!(answer, Some(StatusCode::PAGE_SIZE_MISMATCH), "{leaf}, blocked: {blocked}");
        }
    }
}
