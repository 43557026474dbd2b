//! Stop points of the owner: where a run ends, and that the guest sees nothing of it.

use crate::exits::Exit;
use crate::stop_points::{StopOn, StopPoint};
use crate::testing::{Machine, layout};
use x86_arch::{Gpr, flags};

const CODE: u64 = layout::CODE;
const DATA: u64 = layout::DATA;
/// mov [DATA], eax
const STORE: [u8; 7] = [0x89, 0x04, 0x25, 0, 0, 4, 0];
/// mov eax, [DATA]
const LOAD: [u8; 7] = [0x8B, 0x04, 0x25, 0, 0, 4, 0];

fn machine(code: &[u8], points: &[StopPoint]) -> Machine {
    let mut m = Machine::long();
    m.gate(1, 0);
    m.gate(6, 0);
    m.code(&[code, &[0xF4]].concat());
    m.cpu.set_stop_points(points);
    m
}

const fn execute(address: u64) -> StopPoint {
    StopPoint { address, bytes: 1, on: StopOn::Execution }
}

const fn data(on: StopOn, address: u64, bytes: u64) -> StopPoint {
    StopPoint { address, bytes, on }
}

#[test]
fn a_run_ends_before_the_instruction_and_the_guest_keeps_its_state() {
    for before in [0usize, 1, 3, 40] {
        let point = execute(CODE + before as u64);
        let mut m = machine(&[0x90; 50], &[point]);
        let flags = m.cpu.state.flags.get();
        assert_eq!(m.run(), Exit::StopPoint(point), "{before} instructions before");
        assert_eq!((m.cpu.state.rip(), m.cpu.retired()), (point.address, before as u64));
        assert_eq!(m.run(), Exit::StopPoint(point), "it stays in force");
        assert_eq!((m.cpu.state.flags.get(), m.cpu.state.debug.dr6 & 0xF), (flags, 0));
        m.cpu.pass_stop_point();
        m.run_to_hlt();
        assert_eq!(m.cpu.state.rip(), CODE + 50);
    }
}

#[test]
fn a_pass_is_for_one_execution() {
    // dec ecx; jnz -4
    let mut m = machine(&[0xFF, 0xC9, 0x75, 0xFC], &[execute(CODE)]);
    m.cpu.state.set_gpr(Gpr::Rcx, 3);
    for left in [3, 2, 1] {
        assert_eq!(m.run(), Exit::StopPoint(execute(CODE)));
        assert_eq!(m.cpu.state.gpr(Gpr::Rcx), left);
        m.cpu.pass_stop_point();
    }
    m.run_to_hlt();
}

#[test]
fn data_points_end_a_run_behind_accesses_of_their_kind() {
    let cases: &[(&str, StopPoint, &[u8], bool)] = &[
        ("a write", data(StopOn::Write, DATA, 1), &STORE, true),
        ("a write whose last byte is covered", data(StopOn::Write, DATA + 3, 100), &STORE, true),
        ("a write before", data(StopOn::Write, DATA + 4, 4), &STORE, false),
        ("a read of what waits for writes", data(StopOn::Write, DATA, 4), &LOAD, false),
        ("a read", data(StopOn::Read, DATA, 4), &LOAD, true),
        ("a write of what waits for reads", data(StopOn::Read, DATA, 4), &STORE, false),
        ("a read as an access", data(StopOn::Access, DATA + 2, 1), &LOAD, true),
        ("a write as an access", data(StopOn::Access, DATA + 2, 1), &STORE, true),
        ("a large range", data(StopOn::Write, DATA - 0x800, 0x1000), &STORE, true),
    ];
    for (name, point, code, met) in cases {
        let mut m = machine(code, &[*point]);
        let exit = m.run();
        assert_eq!(exit == Exit::StopPoint(*point), *met, "{name}: {exit:?}");
        assert_eq!(m.cpu.state.rip(), CODE + 7, "{name}: behind the instruction");
        assert_eq!(m.cpu.state.debug.dr6 & 0xF, 0, "{name}");
        if *met {
            m.run_to_hlt();
        }
    }
}

#[test]
fn repeated_moves_stop_behind_the_iteration_and_go_on() {
    let point = data(StopOn::Write, DATA + 0x103, 1);
    let mut m = machine(&[0xF3, 0xA4], &[point]);
    m.cpu.state.set_gpr(Gpr::Rsi, DATA);
    m.cpu.state.set_gpr(Gpr::Rdi, DATA + 0x100);
    m.cpu.state.set_gpr(Gpr::Rcx, 64);
    assert_eq!(m.run(), Exit::StopPoint(point));
    assert_eq!(m.cpu.state.gpr(Gpr::Rcx), 60);
    m.run_to_hlt();
    assert_eq!(m.cpu.state.gpr(Gpr::Rcx), 0);
}

#[test]
fn an_instruction_that_faults_meets_nothing() {
    // push dword [DATA], with a stack that is not there
    let mut m = machine(&[0xFF, 0x34, 0x25, 0, 0, 4, 0], &[data(StopOn::Read, DATA, 4)]);
    m.cpu.state.set_gpr(Gpr::Rsp, 0x8000_0008);
    m.gate(14, 1 << 32);
    m.expect_handler(14);
}

#[test]
fn the_guests_own_breakpoints_work_beside_them() {
    let mut m = machine(&[&STORE[..], &[0x90]].concat(), &[data(StopOn::Write, DATA, 4)]);
    m.cpu.state.debug.dr7 |= 0xD_0001;
    m.cpu.state.debug.address[0] = DATA;
    assert_eq!(m.run(), Exit::StopPoint(data(StopOn::Write, DATA, 4)));
    assert!(m.cpu.state.event.is_some(), "the #DB is due");
    m.expect_handler(1);
    assert_eq!(m.cpu.state.debug.dr6 & 0xF, 1);
}

#[test]
fn code_that_ran_before_stops_when_a_point_is_set_and_runs_when_it_is_gone() {
    // nop; nop; dec ecx; jnz -6
    let mut m = machine(&[0x90, 0x90, 0xFF, 0xC9, 0x75, 0xFA], &[]);
    m.cpu.state.set_gpr(Gpr::Rcx, 3);
    m.run_to_hlt();
    m.cpu.state.set_gpr(Gpr::Rcx, 3);
    m.cpu.state.set_rip(CODE);
    m.cpu.set_stop_points(&[execute(CODE + 2)]);
    assert_eq!(m.run(), Exit::StopPoint(execute(CODE + 2)));
    m.cpu.set_stop_points(&[]);
    m.run_to_hlt();
}

#[test]
fn a_single_step_of_the_guest_goes_on_behind_a_stop_point() {
    let mut m = machine(&[0x90, 0x90], &[execute(CODE)]);
    m.cpu.state.flags.set(m.cpu.state.flags.get() | flags::TF);
    assert_eq!(m.run(), Exit::StopPoint(execute(CODE)));
    m.cpu.pass_stop_point();
    m.expect_handler(1);
    assert_eq!(m.peek(m.cpu.state.gpr(Gpr::Rsp)), CODE + 1);
}
