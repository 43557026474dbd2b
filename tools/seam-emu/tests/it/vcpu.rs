//! Virtual processors: interrupts without exits, 2 MiB accepts that are interrupted, host priority, snapshots.

use seam_emu::guest::{GuestError, GuestProgram, GuestRegisters};
use seam_emu::testing::{Host, Td, code, mem};
use seam_emu::{GuestEnv, GuestState, ScriptedGuest, VmExit};
use tdvisor_base::{Gpa, Hpa, Level};
use tdx_module_iface::exit::ExitReason;
use tdx_module_iface::{Gprs, StatusCode, TdgLeaf, TdhLeaf};
use x86_arch::{Event, EventKind, Gpr};

const GPA: u64 = 0x8000_0000;
const DESCRIPTOR: u64 = 0x40_0000;

fn vp_write(host: &Host, td: &Td, field: u64, value: u64, mask: u64) {
    host.ok(0, TdhLeaf::VP_WR, Gprs { rcx: td.vcpus[0], rdx: field, r8: value, r9: mask, ..Gprs::ZERO });
}

/// Sets up a posted-interrupt descriptor as a VMM does.
fn with_descriptor(host: &Host, td: &Td) {
    vp_write(host, td, 0x0024_0001_0000_0002, 0xf2, 0xffff);
    vp_write(host, td, 0x0024_0003_0000_2016, DESCRIPTOR, 0xffff_ffff_ffff_ffc0);
    vp_write(host, td, 0x0024_0002_0000_4000, 0x80, 0x80);
}

fn post(host: &Host, vector: u64) {
    let word = DESCRIPTOR + vector / 64 * 8;
    host.machine.host_write(Hpa::new(word), &(1u64 << (vector % 64)).to_le_bytes()).unwrap();
    host.machine.host_write(Hpa::new(DESCRIPTOR + 32), &1u64.to_le_bytes()).unwrap();
}

/// Enters a vCPU whose guest looks at what was injected and is interrupted.
fn injected(host: &Host, td: &Td, interrupts: bool) -> Option<Event> {
    let mut seen = None;
    let mut guest = ScriptedGuest(|state: &mut GuestState, _: &GuestEnv<'_>| {
        state.enter_64_bit_mode();
        state.flags.set(if interrupts { 0x202 } else { 2 });
        seen = state.event.take();
        VmExit::plain(ExitReason::EXTERNAL_INTERRUPT)
    });
    let mut gprs = Gprs { rcx: td.vcpus[0], ..Gprs::ZERO };
    host.machine.lp(0).unwrap().seamcall_with(&mut gprs, &mut guest).unwrap();
    assert_eq!(gprs.rax, 1);
    seen
}

#[test]
fn a_posted_interrupt_reaches_the_guest_once_it_takes_interrupts() {
    let host = Host::ready();
    let td = host.td(1);
    with_descriptor(&host, &td);
    post(&host, 0x51);
    assert_eq!(injected(&host, &td, true), None, "interrupts are off at the first entry");
    let got = injected(&host, &td, true).expect("now they are on");
    assert_eq!((got.vector, got.kind), (0x51, EventKind::ExternalInterrupt));
    assert_eq!(injected(&host, &td, true), None, "it is in service");
}

#[test]
fn a_lower_interrupt_waits_for_the_end_of_a_higher_one() {
    let host = Host::ready();
    let td = host.td(1);
    with_descriptor(&host, &td);
    injected(&host, &td, true);
    post(&host, 0x81);
    assert_eq!(injected(&host, &td, true).map(|event| event.vector), Some(0x81));
    post(&host, 0x41);
    assert_eq!(injected(&host, &td, true), None);
    // WRMSR of 0 to the EOI register ends the higher one; the lower one follows at once.
    let mut step = 0;
    let mut seen = None;
    let mut guest = ScriptedGuest(|state: &mut GuestState, _: &GuestEnv<'_>| {
        step += 1;
        if step == 1 {
            state.set_gprs(Gprs { rcx: 0x80b, ..Gprs::ZERO });
            return VmExit::instruction(ExitReason::WRMSR, 2, 0);
        }
        seen = state.event.take();
        VmExit::plain(ExitReason::EXTERNAL_INTERRUPT)
    });
    let mut gprs = Gprs { rcx: td.vcpus[0], ..Gprs::ZERO };
    host.machine.lp(0).unwrap().seamcall_with(&mut gprs, &mut guest).unwrap();
    assert_eq!(seen.map(|event| event.vector), Some(0x41));
}

#[test]
fn an_interrupted_large_accept_goes_on_where_it_stopped() {
    let host = Host::ready();
    let td = host.td(1);
    host.tables(&td, GPA, 1);
    let large = host.large_page();
    host.ok(0, TdhLeaf::MEM_PAGE_AUG, mem(&td, GPA, 1, large));
    let mut calls = 0;
    let mut guest = ScriptedGuest(|state: &mut GuestState, env: &GuestEnv<'_>| {
        state.enter_64_bit_mode();
        calls += 1;
        if calls > 1 && state.regs[Gpr::Rax] == 0 {
            return VmExit::plain(ExitReason::EXTERNAL_INTERRUPT);
        }
        env.machine().set_interrupt_pending(0, calls < 20);
        state.set_gprs(Gprs { rax: u64::from(TdgLeaf::MEM_PAGE_ACCEPT.0), rcx: GPA | 1, ..Gprs::ZERO });
        VmExit::tdcall()
    });
    let mut gprs = Gprs { rcx: td.vcpus[0], ..Gprs::ZERO };
    host.machine.lp(0).unwrap().seamcall_with(&mut gprs, &mut guest).unwrap();
    assert!(calls > 19, "it was interrupted every time while an interrupt was pending");
    let entry = host.ok(0, TdhLeaf::MEM_SEPT_RD, mem(&td, GPA, 1, 0));
    assert_eq!((entry.rcx, entry.rdx), (large | 0x8000_0000_0000_00f7, 0x401));
}

#[test]
fn a_machine_made_from_a_snapshot_goes_its_own_way() {
    let mut host = Host::ready();
    let td = host.td(1);
    host.tables(&td, GPA, 0);
    let snapshot = host.machine.snapshot().unwrap();
    let page = host.aug(&td, GPA);
    let mut other = Gprs { rax: u64::from(TdhLeaf::MEM_SEPT_RD.0), ..mem(&td, GPA, 0, 0) };
    let fork = snapshot.to_machine();
    tdx_module_iface::SeamCall::seamcall(&mut fork.lp(0).unwrap(), &mut other).unwrap();
    assert_eq!((other.rax, other.rdx), (0, 0), "free in the fork");
    let here = host.ok(0, TdhLeaf::MEM_SEPT_RD, mem(&td, GPA, 0, 0));
    assert_eq!(here.rcx, page | 0x8000_0000_0000_00f0);
}

#[test]
fn a_vcpu_on_a_processor_without_a_guest_cpu_is_not_entered() {
    let host = Host::ready();
    let td = host.td(1);
    let out = host.call(0, TdhLeaf::VP_ENTER, Gprs { rcx: td.vcpus[0], ..Gprs::ZERO });
    assert_eq!(code(&out), StatusCode::VCPU_STATE_INCORRECT);
}

#[test]
fn a_host_that_lost_a_lock_comes_first_and_a_guest_that_waits_too_long_leaves() {
    const HOST_PRIORITY: u64 = 1 << 52;
    let host = Host::ready();
    let td = host.td(1);
    let tables = host.tables(&td, GPA, 0);
    host.aug(&td, GPA);
    // The state that a lost host lock leaves behind.
    let table = Hpa::new(*tables.last().unwrap()).frame();
    let entry = &host.machine.memory().table(table).unwrap()[0];
    entry.store(
        entry.load(tdvisor_base::sync::Ordering::Relaxed) | HOST_PRIORITY,
        tdvisor_base::sync::Ordering::Relaxed,
    );
    let mut answers = Vec::new();
    let mut guest = ScriptedGuest(|state: &mut GuestState, env: &GuestEnv<'_>| {
        state.enter_64_bit_mode();
        answers.push(state.regs[Gpr::Rax]);
        env.machine().advance_tsc(env.machine().config().tsc_hz / 2);
        state.set_gprs(Gprs { rax: u64::from(TdgLeaf::MEM_PAGE_ACCEPT.0), rcx: GPA, ..Gprs::ZERO });
        VmExit::tdcall()
    });
    let mut gprs = Gprs { rcx: td.vcpus[0], ..Gprs::ZERO };
    host.machine.lp(0).unwrap().seamcall_with(&mut gprs, &mut guest).unwrap();
    assert_eq!(code(&gprs), StatusCode::HOST_PRIORITY_BUSY_TIMEOUT);
    assert!(answers.len() > 2, "the guest saw OPERAND_BUSY before: {answers:x?}");
    assert!(answers[1..].iter().all(|rax| *rax == 0x8000_0200_0000_0001), "{answers:x?}");
    // Any host lock of the entry lets the guest in again; the hint bit is legal after this exit.
    host.ok(0, TdhLeaf::MEM_SEPT_RD, mem(&td, GPA, 0, 0));
    let hinted = host.accept(0, td.vcpus[0] | 1 << 52, GPA);
    assert_eq!(hinted.rax, 1);
    let now = host.ok(0, TdhLeaf::MEM_SEPT_RD, mem(&td, GPA, 0, 0));
    assert_eq!(now.rdx, 0x400, "accepted");
    let again = host.call(0, TdhLeaf::VP_ENTER, Gprs { rcx: td.vcpus[0] | 1 << 52, ..Gprs::ZERO });
    assert_eq!(code(&again), StatusCode::OPERAND_INVALID, "no trap-like exit came before");
}

#[test]
fn a_guest_program_faults_pages_in_accepts_them_and_sees_what_it_wrote() {
    let host = Host::ready();
    let td = host.td(1);
    host.tables(&td, GPA, 0);
    host.machine.set_guest_cpu(
        0,
        Box::new(GuestProgram::new(|guest| {
            let gpa = Gpa::new(GPA);
            guest.mem_page_accept(gpa, Level::L4K).unwrap();
            guest.write(gpa, b"hello").unwrap();
            assert_eq!(guest.read(gpa, 5).unwrap(), b"hello");
            let pending = guest.read(Gpa::new(GPA + 0x1000), 1).unwrap_err();
            assert!(matches!(pending, GuestError::Injected(event) if event.vector == 20), "#VE: {pending}");
            let ve = guest.tdcall(TdgLeaf::VP_VEINFO_GET, Gprs::ZERO).unwrap();
            assert_eq!((ve.rcx, ve.r9), (48, GPA + 0x1000));
            let answer = guest.vp_vmcall(Gprs { rcx: 1 << 12, r12: 7, ..Gprs::ZERO }).unwrap();
            assert_eq!(answer.r12, 8, "the VMM's answer");
        })),
    );
    let enter = |gprs: Gprs| host.call(0, TdhLeaf::VP_ENTER, Gprs { rcx: td.vcpus[0], ..gprs });
    let violation = enter(Gprs::ZERO);
    assert_eq!((violation.rax, violation.r8), (48, GPA));
    host.aug(&td, GPA);
    host.aug(&td, GPA + 0x1000);
    let vmcall = enter(Gprs::ZERO);
    assert_eq!((vmcall.rax, vmcall.rcx, vmcall.r12), (77, 1 << 12, 7));
    assert_eq!(enter(Gprs { r12: 8, ..Gprs::ZERO }).rax, 1, "the function has returned");
}

#[test]
fn a_vmcall_passes_the_vector_registers_of_its_mask_and_no_others() {
    let host = Host::ready();
    let td = host.td(1);
    const XMM1_AND_3: u64 = 1 << 17 | 1 << 19;
    let enter = |answered: &mut [u128; 16]| {
        let mut guest = ScriptedGuest(|state: &mut GuestState, _: &GuestEnv<'_>| {
            state.enter_64_bit_mode();
            *answered = state.simd.xmm;
            state.simd.xmm = std::array::from_fn(|index| index as u128 + 100);
            state.set_gprs(Gprs { rax: u64::from(TdgLeaf::VP_VMCALL.0), rcx: XMM1_AND_3, ..Gprs::ZERO });
            VmExit::tdcall()
        });
        let mut gprs = Gprs { rcx: td.vcpus[0], ..Gprs::ZERO };
        host.machine.lp(0).unwrap().seamcall_with(&mut gprs, &mut guest).unwrap();
        assert_eq!((gprs.rax, gprs.rcx), (77, XMM1_AND_3));
    };
    let mut seen = [0; 16];
    host.machine.set_host_xmm(0, [7; 16]);
    enter(&mut seen);
    assert_eq!(seen, [0; 16], "nothing is passed before the guest asked");
    let passed = std::array::from_fn(|index| if matches!(index, 1 | 3) { index as u128 + 100 } else { 0 });
    assert_eq!(host.machine.host_xmm(0), passed);
    host.machine.set_host_xmm(0, [7; 16]);
    enter(&mut seen);
    let answered = std::array::from_fn(|index| if matches!(index, 1 | 3) { 7 } else { index as u128 + 100 });
    assert_eq!(seen, answered);
}

/// What TDG.MEM.PAGE.ACCEPT says to an entry, at the size that it asks for and at the smaller one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Accepted {
    /// The TDCALL came back with this.
    Status(StatusCode),
    /// The host has to map the page first.
    Exit,
}

#[test]
fn an_accept_leaves_the_td_only_where_no_page_and_no_table_is_in_its_way() {
    use Accepted::{Exit, Status};
    use StatusCode as C;
    const LARGE: u64 = 1;
    type Prepare = fn(&Host, &Td);
    fn blocked(host: &Host, td: &Td, level: u64) {
        host.ok(0, TdhLeaf::MEM_RANGE_BLOCK, mem(td, GPA, level, 0));
    }
    fn large(host: &Host, td: &Td) {
        host.ok(0, TdhLeaf::MEM_PAGE_AUG, mem(td, GPA, LARGE, host.large_page()));
    }
    fn small(host: &Host, td: &Td) {
        host.tables(td, GPA, 0);
        host.aug(td, GPA);
    }
    // State of the entry; answers to an accept of 2 MiB and of 4 KiB.
    let states: [(&str, Prepare, Accepted, Accepted); 11] = [
        ("free", |_, _| (), Exit, Exit),
        ("pending, 2M", large, Status(C::SUCCESS), Exit),
        ("pending, 2M, blocked", |host, td| (large(host, td), blocked(host, td, LARGE)).1, Exit, Exit),
        (
            "mapped, 2M",
            |host, td| {
                large(host, td);
                host.accept(0, td.vcpus[0], GPA | LARGE);
            },
            Status(C::PAGE_ALREADY_ACCEPTED),
            Status(C::PAGE_ALREADY_ACCEPTED),
        ),
        (
            "mapped, 2M, blocked",
            |host, td| {
                large(host, td);
                host.accept(0, td.vcpus[0], GPA | LARGE);
                blocked(host, td, LARGE);
            },
            Exit,
            Exit,
        ),
        ("table, empty", |host, td| drop(host.tables(td, GPA, 0)), Status(C::PAGE_SIZE_MISMATCH), Exit),
        ("table, pending", small, Status(C::PAGE_SIZE_MISMATCH), Status(C::SUCCESS)),
        (
            "table, pending, blocked",
            |host, td| (small(host, td), blocked(host, td, 0)).1,
            Status(C::PAGE_SIZE_MISMATCH),
            Exit,
        ),
        (
            "table, mapped",
            |host, td| {
                small(host, td);
                host.accept(0, td.vcpus[0], GPA);
            },
            Status(C::PAGE_SIZE_MISMATCH),
            Status(C::PAGE_ALREADY_ACCEPTED),
        ),
        (
            "table, mapped, blocked",
            |host, td| {
                small(host, td);
                host.accept(0, td.vcpus[0], GPA);
                blocked(host, td, 0);
            },
            Status(C::PAGE_SIZE_MISMATCH),
            Exit,
        ),
        (
            "blocked table",
            |host, td| (small(host, td), blocked(host, td, LARGE)).1,
            Status(C::PAGE_SIZE_MISMATCH),
            Exit,
        ),
    ];
    for (name, prepare, as_large, as_small) in states {
        for (level, expected) in [(LARGE, as_large), (0, as_small)] {
            let host = Host::ready();
            let td = host.td(1);
            host.tables(&td, GPA, LARGE);
            prepare(&host, &td);
            assert_eq!(accepted(&host, &td, GPA | level), expected, "{name}, accept of level {level}");
        }
    }
}

fn accepted(host: &Host, td: &Td, gpa_level: u64) -> Accepted {
    let mut answer = None;
    let mut guest = ScriptedGuest(|state: &mut GuestState, _: &GuestEnv<'_>| {
        state.enter_64_bit_mode();
        if answer.is_some() {
            answer = Some(state.regs[Gpr::Rax]);
            return VmExit::plain(ExitReason::EXTERNAL_INTERRUPT);
        }
        answer = Some(0);
        state.set_gprs(Gprs { rax: u64::from(TdgLeaf::MEM_PAGE_ACCEPT.0), rcx: gpa_level, ..Gprs::ZERO });
        VmExit::tdcall()
    });
    let mut gprs = Gprs { rcx: td.vcpus[0], ..Gprs::ZERO };
    host.machine.lp(0).unwrap().seamcall_with(&mut gprs, &mut guest).unwrap();
    if gprs.rax == u64::from(ExitReason::EPT_VIOLATION.0) {
        return Accepted::Exit;
    }
    Accepted::Status(tdx_module_iface::Status::from_raw(answer.unwrap()).code())
}

#[test]
fn a_guest_that_gave_up_once_on_a_host_may_wait_as_long_again() {
    const HOST_PRIORITY: u64 = 1 << 52;
    let host = Host::ready();
    let td = host.td(1);
    let tables = host.tables(&td, GPA, 0);
    host.aug(&td, GPA);
    let table = Hpa::new(*tables.last().unwrap()).frame();
    let entry = &host.machine.memory().table(table).unwrap()[0];
    let relaxed = tdvisor_base::sync::Ordering::Relaxed;
    entry.store(entry.load(relaxed) | HOST_PRIORITY, relaxed);
    let second = host.machine.config().tsc_hz;
    let enter = |waits: u64| {
        let mut refusals = 0;
        let mut guest = ScriptedGuest(|state: &mut GuestState, env: &GuestEnv<'_>| {
            state.enter_64_bit_mode();
            if refusals == waits {
                return VmExit::plain(ExitReason::EXTERNAL_INTERRUPT);
            }
            refusals += 1;
            env.machine().advance_tsc(second / 2);
            state.set_gprs(Gprs { rax: u64::from(TdgLeaf::MEM_PAGE_ACCEPT.0), rcx: GPA, ..Gprs::ZERO });
            VmExit::tdcall()
        });
        let mut gprs = Gprs { rcx: td.vcpus[0], ..Gprs::ZERO };
        host.machine.lp(0).unwrap().seamcall_with(&mut gprs, &mut guest).unwrap();
        code(&gprs)
    };
    assert_eq!(enter(8), StatusCode::HOST_PRIORITY_BUSY_TIMEOUT);
    assert_eq!(enter(2), StatusCode::SUCCESS, "half a second since it was first refused anew");
    assert_eq!(
        enter(1),
        StatusCode::HOST_PRIORITY_BUSY_TIMEOUT,
        "an exit in between does not stop the clock"
    );
}

#[test]
fn a_list_that_cannot_be_written_costs_the_guest_the_field_that_it_named() {
    const FIELD: u64 = 0x0a00_0003_0000_0008;
    let host = Host::ready();
    let td = host.td(1);
    host.tables(&td, GPA, 0);
    for page in [GPA + 0x2040, 1 << 47, GPA + 0x1000] {
        let mut r8 = None;
        let mut asked = false;
        let mut enter = || {
            let mut guest = ScriptedGuest(|state: &mut GuestState, _: &GuestEnv<'_>| {
                state.enter_64_bit_mode();
                if asked {
                    r8 = Some(state.regs[Gpr::R8]);
                    return VmExit::plain(ExitReason::EXTERNAL_INTERRUPT);
                }
                asked = true;
                let rax = u64::from(TdgLeaf::SYS_RDALL.0);
                state.set_gprs(Gprs { rax, rdx: page, r8: FIELD, ..Gprs::ZERO });
                VmExit::tdcall()
            });
            let mut gprs = Gprs { rcx: td.vcpus[0], ..Gprs::ZERO };
            host.machine.lp(0).unwrap().seamcall_with(&mut gprs, &mut guest).unwrap();
            gprs.rax
        };
        // A page that is not mapped exits first; the guest sees its registers at the next entry.
        if enter() == u64::from(ExitReason::EPT_VIOLATION.0) {
            enter();
        }
        assert_eq!(r8, Some(u64::MAX), "RDX {page:#x}");
    }
}
