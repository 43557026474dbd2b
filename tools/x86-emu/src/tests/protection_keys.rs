//! Protection keys: which accesses a key refuses, the error code, the two instructions, and PKRU as a component of XSAVE.

use crate::testing::{KERNEL_CODE, KERNEL_DATA, Machine, layout};
use x86_arch::{Attributes, Gpr, Seg, Segment, cr0, cr4, vector};

const DATA: u64 = layout::DATA;
const KEY: u64 = 5;
const ACCESS_DISABLE: u32 = 1 << (2 * KEY);
const WRITE_DISABLE: u32 = 2 << (2 * KEY);
const LOAD: [u8; 7] = [0x8B, 0x04, 0x25, 0, 0, 4, 0];
const STORE: [u8; 7] = [0x89, 0x04, 0x25, 0, 0, 4, 0];
const RDPKRU: [u8; 3] = [0x0F, 0x01, 0xEE];
const WRPKRU: [u8; 3] = [0x0F, 0x01, 0xEF];
/// Bits of the page-fault error code.
const PRESENT: u64 = 1;
const WRITE: u64 = 2;
const USER: u64 = 4;
const BY_KEY: u64 = 32;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Who {
    User,
    Supervisor,
}

/// A machine whose page of data has a key.
fn machine(who: Who, pkru: u32, code: &[u8]) -> Machine {
    let mut m = Machine::long();
    for vector in [vector::UD, vector::GP, vector::PF] {
        m.gate(vector, 3 << 45);
    }
    m.make_user();
    // The kernel's own code is not in user pages' way without SMEP and SMAP.
    if who == Who::Supervisor {
        *m.cpu.state.segment_mut(Seg::Cs) = Segment::flat(KERNEL_CODE, Attributes::CODE64);
        *m.cpu.state.segment_mut(Seg::Ss) = Segment::flat(KERNEL_DATA, Attributes::DATA);
    }
    let at = layout::PT + 8 * (DATA >> 12);
    m.poke(at, m.peek(at) | KEY << 59);
    m.cpu.state.control.cr4 |= cr4::PKE | cr4::OSXSAVE;
    m.cpu.state.control.xcr0 = 0x203;
    m.cpu.state.pkru = pkru;
    m.code(&[code, &[0x0F, 0x0B]].concat());
    m
}

/// The vector that the code ends in: #UD behind it, or what came before.
fn vector_of(m: &mut Machine) -> u8 {
    m.run_to_hlt();
    ((m.cpu.state.rip() - layout::HANDLERS) / 16) as u8
}

fn error_code(m: &Machine) -> u64 {
    m.peek(m.cpu.state.gpr(Gpr::Rsp))
}

#[test]
fn a_key_refuses_the_accesses_that_pkru_disables() {
    use Who::{Supervisor, User};
    const KEYED: u64 = PRESENT | BY_KEY;
    let cases: &[(&str, Who, u32, &[u8], u64)] = &[
        ("a load with all allowed", User, 0, &LOAD, 0),
        ("a store with all allowed", User, 0, &STORE, 0),
        ("a load with access disabled", User, ACCESS_DISABLE, &LOAD, KEYED | USER),
        ("a store with access disabled", User, ACCESS_DISABLE, &STORE, KEYED | USER | WRITE),
        ("a load with writes disabled", User, WRITE_DISABLE, &LOAD, 0),
        ("a store with writes disabled", User, WRITE_DISABLE, &STORE, KEYED | USER | WRITE),
        ("another key", User, ACCESS_DISABLE << 2, &STORE, 0),
        ("a kernel's load with access disabled", Supervisor, ACCESS_DISABLE, &LOAD, KEYED),
        ("a kernel's store with writes disabled", Supervisor, WRITE_DISABLE, &STORE, KEYED | WRITE),
    ];
    for (name, who, pkru, code, expected) in cases {
        let mut m = machine(*who, *pkru, code);
        let raised = vector_of(&mut m);
        if *expected == 0 {
            assert_eq!(raised, vector::UD, "{name}");
        } else {
            assert_eq!((raised, error_code(&m)), (vector::PF, *expected), "{name}");
            assert_eq!(m.cpu.state.control.cr2, DATA, "{name}");
        }
    }
}

#[test]
fn a_kernel_without_write_protection_ignores_disabled_writes_but_not_disabled_accesses() {
    for (pkru, raised) in [(WRITE_DISABLE, vector::UD), (ACCESS_DISABLE, vector::PF)] {
        let mut m = machine(Who::Supervisor, pkru, &STORE);
        m.cpu.state.control.cr0 &= !cr0::WP;
        assert_eq!(vector_of(&mut m), raised);
    }
}

#[test]
fn keys_count_for_user_pages_data_and_cr4_pke_only() {
    let disabled = u32::MAX;
    // All pages have a key that is disabled: code runs. A supervisor page has none.
    let mut m = machine(Who::Supervisor, disabled, &STORE);
    let at = layout::PT + 8 * (DATA >> 12);
    m.poke(at, m.peek(at) & !4);
    // The handler's stack and tables are the kernel's.
    for page in (1..8).chain([(layout::STACK - 1) >> 12]) {
        let at = layout::PT + 8 * page;
        m.poke(at, m.peek(at) & !4);
    }
    assert_eq!(vector_of(&mut m), vector::UD);
    let mut m = machine(Who::User, disabled, &STORE);
    m.cpu.state.control.cr4 &= !cr4::PKE;
    assert_eq!(vector_of(&mut m), vector::UD);
}

#[test]
fn a_write_to_a_page_that_was_read_only_tells_of_the_key_too() {
    let mut m = machine(Who::User, WRITE_DISABLE, &STORE);
    let at = layout::PT + 8 * (DATA >> 12);
    m.poke(at, m.peek(at) & !2);
    assert_eq!(vector_of(&mut m), vector::PF);
    assert_eq!(error_code(&m), PRESENT | WRITE | USER | BY_KEY);
}

#[test]
fn wrpkru_takes_effect_at_once_and_rdpkru_reads_it_back() {
    // load; wrpkru; rdpkru; load
    let code = [&LOAD[..], &[0x89, 0xD8], &WRPKRU, &RDPKRU, &[0x89, 0xC6], &LOAD].concat();
    let mut m = machine(Who::User, 0, &code);
    m.cpu.state.set_gpr(Gpr::Rbx, u64::from(ACCESS_DISABLE));
    m.cpu.state.set_gpr(Gpr::Rdx, 0xFFFF_FFFF_0000_0000);
    assert_eq!(vector_of(&mut m), vector::PF);
    assert_eq!(m.cpu.state.gpr(Gpr::Rsi), u64::from(ACCESS_DISABLE));
    assert_eq!(m.cpu.state.gpr(Gpr::Rdx), 0);
    assert_eq!(m.peek(m.cpu.state.gpr(Gpr::Rsp) + 8), layout::CODE + code.len() as u64 - 7);
}

#[test]
fn an_owner_that_brings_another_pkru_is_noticed() {
    let mut m = machine(Who::User, 0, &LOAD);
    assert_eq!(vector_of(&mut m), vector::UD);
    let mut again = machine(Who::User, ACCESS_DISABLE, &LOAD);
    again.cpu.state.set_gpr(Gpr::Rsp, layout::STACK);
    core::mem::swap(&mut m.cpu.state, &mut again.cpu.state);
    assert_eq!(vector_of(&mut m), vector::PF);
}

#[test]
fn the_instructions_need_ecx_and_edx_zero() {
    for (code, rcx, rdx) in [(RDPKRU, 1, 0), (WRPKRU, 1, 0), (WRPKRU, 0, 1)] {
        let mut m = machine(Who::User, 0, &code);
        m.cpu.state.set_gpr(Gpr::Rcx, rcx);
        m.cpu.state.set_gpr(Gpr::Rdx, rdx);
        assert_eq!(vector_of(&mut m), vector::GP, "{code:02x?} {rcx} {rdx}");
    }
}

#[test]
fn pkru_is_saved_where_each_form_of_the_area_has_it_and_comes_back() {
    const AREA: u64 = 0x4_8000;
    // xsave [AREA]; xsavec [AREA]
    for (opcode, at) in [([0x0F, 0xAE, 0x24, 0x25], 2688u64), ([0x0F, 0xC7, 0x24, 0x25], 576)] {
        let save = [&opcode[..], &[0, 0x80, 4, 0]].concat();
        // mov eax, ebx; wrpkru (with edx 0); mov eax, 0x203; xrstor [AREA]
        let restore = [
            &[0x31, 0xC9, 0x31, 0xD2, 0x89, 0xD8][..],
            &WRPKRU,
            &[0xB8, 3, 2, 0, 0, 0x0F, 0xAE, 0x2C, 0x25, 0, 0x80, 4, 0],
        ]
        .concat();
        let mut m = machine(Who::User, 0x1234_5678 & !3, &[save, restore].concat());
        m.cpu.state.set_gpr(Gpr::Rax, 0x203);
        assert_eq!(vector_of(&mut m), vector::UD, "{opcode:02x?}");
        assert_eq!(m.peek(AREA + at), 0x1234_5678 & !3, "{opcode:02x?}");
        assert_ne!(m.peek(AREA + 512) & 1 << 9, 0, "{opcode:02x?}: XSTATE_BV");
        assert_eq!(m.cpu.state.pkru, 0x1234_5678 & !3, "{opcode:02x?}: restored");
        // With its bit clear in XSTATE_BV the component is initial.
        let rstor = [0x0F, 0xAE, 0x2C, 0x25, 0, 0x80, 4, 0, 0x0F, 0x0B];
        m.poke(AREA + 512, m.peek(AREA + 512) & !(1 << 9));
        let mut again = machine(Who::User, 0xC, &[]);
        core::mem::swap(&mut m.cpu.state, &mut again.cpu.state);
        m.code(&rstor);
        m.cpu.state.set_gpr(Gpr::Rax, 0x200);
        assert_eq!(vector_of(&mut m), vector::UD);
        assert_eq!(m.cpu.state.pkru, 0);
    }
}
