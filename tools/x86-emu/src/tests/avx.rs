//! AVX: when it may run, which operands have to be aligned, what becomes of upper halves, and what faults leave.

use crate::testing::{Machine, layout};
use x86_arch::{Gpr, cr0, cr4, vector};

const DATA: u64 = layout::DATA;
const PAGE: u64 = 0x1000;
/// VMOVDQU and VMOVDQA of YMM0 from [RBX]; VMOVDQU to it.
const LOAD: [u8; 4] = [0xC5, 0xFE, 0x6F, 0x03];
const LOAD_ALIGNED: [u8; 4] = [0xC5, 0xFD, 0x6F, 0x03];
const STORE: [u8; 4] = [0xC5, 0xFE, 0x7F, 0x03];
/// VPADDD XMM0, XMM1, XMM2.
const ADD: [u8; 4] = [0xC5, 0xF1, 0xFE, 0xC2];
/// VMASKMOVPS YMM0, YMM1, [RBX], and back.
const MASKED_LOAD: [u8; 5] = [0xC4, 0xE2, 0x75, 0x2C, 0x03];
const MASKED_STORE: [u8; 5] = [0xC4, 0xE2, 0x75, 0x2E, 0x03];
/// VPGATHERDD XMM0, [RBX + XMM2 * 4], XMM1.
const GATHER: [u8; 6] = [0xC4, 0xE2, 0x71, 0x90, 0x04, 0x93];
const ALL: u128 = u128::MAX;

/// A machine with AVX switched on, and RBX at the data.
fn machine(code: &[u8]) -> Machine {
    let mut m = Machine::long();
    for vector in [vector::UD, vector::NM, vector::GP, vector::PF] {
        m.gate(vector, 0);
    }
    m.cpu.state.control.cr4 |= cr4::OSXSAVE;
    m.cpu.state.control.xcr0 = 7;
    m.cpu.state.set_gpr(Gpr::Rbx, DATA);
    m.code(&[code, &[0xF4]].concat());
    m
}

/// Takes a page away.
fn unmap(m: &mut Machine, linear: u64) {
    m.poke(layout::PT + 8 * (linear >> 12), 0);
    m.cpu.tlb.flush_all();
}

fn map(m: &mut Machine, linear: u64) {
    m.poke(layout::PT + 8 * (linear >> 12), linear | 3);
    m.cpu.tlb.flush_all();
}

/// A change of the machine, and the vector that AVX then ends in.
type Case = (&'static str, fn(&mut Machine), Option<u8>);

#[test]
fn avx_is_undefined_until_software_has_switched_it_on() {
    let cases: [Case; 6] = [
        ("switched on", |_| (), None),
        ("without OSXSAVE", |m| m.cpu.state.control.cr4 &= !cr4::OSXSAVE, Some(vector::UD)),
        ("without its component", |m| m.cpu.state.control.xcr0 = 3, Some(vector::UD)),
        ("with TS", |m| m.cpu.state.control.cr0 |= cr0::TS, Some(vector::NM)),
        ("with EM, which is about SSE", |m| m.cpu.state.control.cr0 |= cr0::EM, None),
        ("without OSFXSR, which is about SSE", |m| m.cpu.state.control.cr4 &= !cr4::OSFXSR, None),
    ];
    for (name, change, fault) in cases {
        for code in [&ADD[..], &LOAD, &[0xC5, 0xF8, 0x77]] {
            let mut m = machine(code);
            change(&mut m);
            m.run_to_hlt();
            let at = m.cpu.state.rip();
            let expected = match fault {
                Some(vector) => layout::HANDLERS + 16 * u64::from(vector),
                None => layout::CODE + code.len() as u64,
            };
            assert_eq!(at & !1, expected & !1, "{name}: {code:02x?}");
        }
    }
}

#[test]
fn no_prefix_stands_before_vex_and_registers_of_a_gather_differ() {
    let prefixed = [0xF0, 0x66, 0xF2, 0xF3, 0x48].map(|prefix| [&[prefix][..], &ADD].concat());
    // The mask is the destination, or the index.
    let gathers = [vec![0xC4, 0xE2, 0x79, 0x90, 0x04, 0x93], vec![0xC4, 0xE2, 0x69, 0x90, 0x04, 0x93]];
    for code in prefixed.iter().chain(&gathers) {
        machine(code).expect_handler(vector::UD);
    }
}

#[test]
fn only_moves_that_say_so_want_their_operand_aligned() {
    for (code, offset, fault) in
        [(LOAD_ALIGNED, 32, false), (LOAD_ALIGNED, 16, true), (LOAD, 16, false), (LOAD, PAGE - 7, false)]
    {
        let mut m = machine(&code);
        m.poke(DATA + offset, 0x1234);
        m.cpu.state.set_gpr(Gpr::Rbx, DATA + offset);
        if fault {
            m.expect_handler(vector::GP);
        } else {
            m.run_to_hlt();
            assert_eq!(m.cpu.state.simd.xmm[0], 0x1234, "{offset:#x}");
        }
    }
}

#[test]
fn sse_keeps_upper_halves_and_vex_clears_what_it_does_not_make() {
    for (code, kept) in [(&[0x66, 0x0F, 0xFE, 0xC2][..], true), (&ADD, false)] {
        let mut m = machine(code);
        m.cpu.state.simd.ymm_high = [7; 16];
        m.run_to_hlt();
        assert_eq!(m.cpu.state.simd.ymm_high[0], if kept { 7 } else { 0 });
        assert_eq!(m.cpu.state.simd.ymm_high[1], 7, "a source");
    }
}

#[test]
fn elements_that_are_not_chosen_cannot_fault() {
    // The two elements before the border, or the first behind it.
    for (mask, fault) in [(0x8000_0000_8000_0000, false), (1 << 95, true), (0, false)] {
        for code in [MASKED_LOAD, MASKED_STORE] {
            let mut m = machine(&code);
            unmap(&mut m, DATA + PAGE);
            let at = DATA + PAGE - 8;
            m.poke(at, 0x1111_1111_2222_2222);
            m.cpu.state.set_gpr(Gpr::Rbx, at);
            m.cpu.state.simd.xmm[0] = 0x3333_3333_4444_4444;
            m.cpu.state.simd.xmm[1] = mask;
            if fault {
                m.expect_handler(vector::PF);
                assert_eq!(m.cpu.state.control.cr2, DATA + PAGE);
                continue;
            }
            m.run_to_hlt();
            let loads = code == MASKED_LOAD;
            let seen = if loads { m.cpu.state.simd.xmm[0] as u64 } else { m.peek(at) };
            let expected = match (mask != 0, loads) {
                (true, true) => 0x1111_1111_2222_2222,
                (true, false) => 0x3333_3333_4444_4444,
                (false, true) => 0,
                (false, false) => 0x1111_1111_2222_2222,
            };
            assert_eq!(seen, expected, "{mask:#x}, {code:02x?}");
        }
    }
}

#[test]
fn a_store_that_faults_stores_nothing() {
    for code in [&STORE[..], &MASKED_STORE] {
        let mut m = machine(code);
        unmap(&mut m, DATA + PAGE);
        let at = DATA + PAGE - 16;
        m.cpu.state.set_gpr(Gpr::Rbx, at);
        m.cpu.state.simd.xmm[..2].fill(ALL);
        m.cpu.state.simd.ymm_high[1] = ALL;
        m.expect_handler(vector::PF);
        assert_eq!((m.cpu.state.control.cr2, m.peek(at)), (DATA + PAGE, 0), "{code:02x?}");
    }
}

#[test]
fn a_gather_that_faulted_goes_on_where_it_was() {
    let mut m = machine(&GATHER);
    unmap(&mut m, DATA + PAGE);
    m.poke(DATA + 8, 0x11);
    m.poke(DATA + 16, 0x22);
    // Indices 2, 4, 1024 (in the missing page), 2; all elements are asked for but the second.
    m.cpu.state.simd.xmm[2] = 2 | 4 << 32 | 1024 << 64 | 2 << 96;
    m.cpu.state.simd.xmm[1] = ALL & !(0xFFFF_FFFF << 32);
    m.cpu.state.simd.xmm[0] = 0x99 << 32;
    m.expect_handler(vector::PF);
    assert_eq!(m.cpu.state.control.cr2, DATA + PAGE);
    let (mask, done) = (m.cpu.state.simd.xmm[1], m.cpu.state.simd.xmm[0]);
    assert_eq!(
        (mask as u64, done as u64),
        (0, 0x99 << 32 | 0x11),
        "the first is done, the second not asked for"
    );

    map(&mut m, DATA + PAGE);
    m.poke(DATA + PAGE, 0x33);
    // What was loaded is not loaded again.
    m.poke(DATA + 8, 0x44);
    m.cpu.state.simd.ymm_high[0] = 5;
    m.cpu.state.set_rip(layout::CODE);
    m.run_to_hlt();
    assert_eq!(m.cpu.state.simd.xmm[0], 0x11 | 0x99 << 32 | 0x33 << 64 | 0x44 << 96);
    assert_eq!((m.cpu.state.simd.xmm[1], m.cpu.state.simd.ymm_high[0]), (0, 0));
}

#[test]
fn code_outside_64_bit_mode_reaches_eight_registers() {
    let mut m = Machine::protected();
    m.cpu.state.control.cr4 |= cr4::OSXSAVE;
    m.cpu.state.control.xcr0 = 7;
    m.cpu.state.simd.ymm_high = [7; 16];
    m.cpu.state.simd.xmm = [9; 16];
    // vzeroall
    m.code(&[0xC5, 0xFC, 0x77, 0xF4]);
    m.run_to_hlt();
    let simd = &m.cpu.state.simd;
    assert_eq!((simd.xmm[7], simd.ymm_high[7], simd.xmm[8], simd.ymm_high[8]), (0, 0, 9, 7));
}
