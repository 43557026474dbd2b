//! x87 and MMX where the development machine cannot judge: waiting exceptions, pointers, images, transcendental
//! functions, and where vendors differ.

use crate::testing::{Machine, layout};
use x86_arch::{Gpr, cr0, vector};

const HLT: u8 = 0xF4;
const FLD1: [u8; 2] = [0xD9, 0xE8];
const FLDZ: [u8; 2] = [0xD9, 0xEE];
const FLDPI: [u8; 2] = [0xD9, 0xEB];
const FSIN: [u8; 2] = [0xD9, 0xFE];
const FCOS: [u8; 2] = [0xD9, 0xFF];
const FPTAN: [u8; 2] = [0xD9, 0xF2];
const FSINCOS: [u8; 2] = [0xD9, 0xFB];
const FPATAN: [u8; 2] = [0xD9, 0xF3];
const F2XM1: [u8; 2] = [0xD9, 0xF0];
const FYL2X: [u8; 2] = [0xD9, 0xF1];
const FYL2XP1: [u8; 2] = [0xD9, 0xF9];
/// FDIVP ST(1), ST(0).
const FDIVP: [u8; 2] = [0xDE, 0xF9];
const FWAIT: [u8; 1] = [0x9B];
const EMMS: [u8; 2] = [0x0F, 0x77];
/// PXOR MM1, MM1.
const PXOR: [u8; 3] = [0x0F, 0xEF, 0xC9];

const ONE: u128 = 0x3FFF_8000_0000_0000_0000;
const PI: u128 = 0x4000_C90F_DAA2_2168_C235;
const INDEFINITE: u128 = 0xFFFF_C000_0000_0000_0000;
const MASK_ZERO_DIVIDE: u16 = 1 << 2;
const ES_AND_B: u16 = 0x8080;
const C1: u16 = 1 << 9;
const C2: u16 = 1 << 10;

/// A machine with RBX at the data, whose code is these pieces and HLT.
fn with_code(pieces: &[&[u8]]) -> Machine {
    let mut m = Machine::long();
    m.cpu.state.set_gpr(Gpr::Rbx, layout::DATA);
    let mut code = pieces.concat();
    code.push(HLT);
    m.code(&code);
    for vector in [vector::UD, vector::NM, vector::MF, vector::PF] {
        m.gate(vector, 0);
    }
    m
}

fn st(m: &Machine, n: u8) -> u128 {
    m.cpu.state.simd.x87.st(n)
}

#[test]
fn an_exception_that_is_not_masked_is_raised_by_the_next_instruction_that_waits() {
    let waiting: [&[u8]; 5] = [&FWAIT, &FLD1, &EMMS, &PXOR, &[0xD9, 0x2B]];
    for instruction in waiting {
        let mut m = with_code(&[&FLD1, &FLDZ, &FDIVP, instruction]);
        m.cpu.state.simd.x87.control &= !MASK_ZERO_DIVIDE;
        m.expect_handler(vector::MF);
        let frame_rip = m.peek(m.cpu.state.gpr(Gpr::Rsp));
        assert_eq!(frame_rip, layout::CODE + 6, "{instruction:02x?} is where #MF is raised");
        assert_eq!(m.cpu.state.simd.x87.status & ES_AND_B, ES_AND_B);
        assert_eq!((st(&m, 0), st(&m, 1)), (0, ONE), "the operands of the division are as they were");
    }
}

#[test]
fn the_forms_that_do_not_wait_run_with_an_exception_pending() {
    // fnstsw ax, fnstcw [rbx], fnclex, fninit, fxsave [rbx], fneni.
    let forms: [&[u8]; 6] =
        [&[0xDF, 0xE0], &[0xD9, 0x3B], &[0xDB, 0xE2], &[0xDB, 0xE3], &[0x0F, 0xAE, 0x03], &[0xDB, 0xE0]];
    for instruction in forms {
        let mut m = with_code(&[&FLD1, &FLDZ, &FDIVP, instruction]);
        m.cpu.state.simd.x87.control &= !MASK_ZERO_DIVIDE;
        m.run_to_hlt();
        assert_eq!(m.cpu.state.rip(), layout::CODE + 6 + instruction.len() as u64, "{instruction:02x?}");
    }
}

#[test]
fn without_numeric_errors_in_cr0_nothing_is_raised() {
    let mut m = with_code(&[&FLD1, &FLDZ, &FDIVP, &FLD1]);
    m.cpu.state.simd.x87.control &= !MASK_ZERO_DIVIDE;
    m.cpu.state.control.cr0 &= !cr0::NE;
    m.run_to_hlt();
    assert_eq!(m.cpu.state.rip(), layout::CODE + 8);
}

#[test]
fn a_task_switch_or_emulation_makes_the_device_unavailable() {
    let rows: [(&[u8], u64, u8); 7] = [
        (&FLD1, cr0::TS, vector::NM),
        (&FLD1, cr0::EM, vector::NM),
        (&PXOR, cr0::TS, vector::NM),
        (&PXOR, cr0::EM, vector::UD),
        (&EMMS, cr0::EM | cr0::TS, vector::UD),
        (&FWAIT, cr0::TS, vector::NM),
        // fnstsw ax
        (&[0xDF, 0xE0], cr0::TS, vector::NM),
    ];
    for (instruction, bits, vector) in rows {
        let mut m = with_code(&[instruction]);
        m.cpu.state.control.cr0 |= bits;
        m.expect_handler(vector);
    }
    let mut m = with_code(&[&FWAIT]);
    m.cpu.state.control.cr0 |= cr0::TS;
    m.cpu.state.control.cr0 &= !cr0::MP;
    m.run_to_hlt();
    assert_eq!(m.cpu.state.rip(), layout::CODE + 1, "WAIT looks at TS only with MP");
}

#[test]
fn pointers_follow_instructions_that_are_no_control_instructions() {
    // fld qword [rbx+8]; fnstsw ax
    let mut m = with_code(&[&[0xDD, 0x43, 0x08], &[0xDF, 0xE0]]);
    m.run_to_hlt();
    let x87 = m.cpu.state.simd.x87;
    assert_eq!(x87.instruction, layout::CODE);
    assert_eq!((x87.data, x87.opcode), (0, 0), "kept for exceptions that are not masked");
    // fld1; fdiv qword [rbx+8], divides by zero
    let mut m = with_code(&[&FLD1, &[0xDC, 0x73, 0x08]]);
    m.cpu.state.simd.x87.control &= !MASK_ZERO_DIVIDE;
    m.run_to_hlt();
    let x87 = m.cpu.state.simd.x87;
    assert_eq!(x87.instruction, layout::CODE + 2);
    assert_eq!((x87.data, x87.opcode), (layout::DATA + 8, 0x473));
}

/// A stack with every kind of tag, TOP at 5, and pointers.
fn filled(m: &mut Machine) {
    let x87 = &mut m.cpu.state.simd.x87;
    x87.status = 5 << 11 | 0x4100;
    x87.control = 0x27F;
    x87.tags = 0b1110_0011;
    for (n, bits) in
        [ONE, 0, INDEFINITE, PI, 1, ONE + 1, 0x7FFF_8000_0000_0000_0000, 5].into_iter().enumerate()
    {
        x87.registers[n] = bits;
    }
    x87.instruction = 0x1234_5678;
    x87.data = 0x8765_4321;
    x87.opcode = 0x123;
}

/// Physical registers 0 to 7: valid, zero, empty, empty, empty, valid, special, special.
const TAGS: u16 = 0b10_10_00_11_11_11_01_00;

#[test]
fn the_environment_has_a_32_bit_and_a_16_bit_image() {
    // fnstenv [rbx]
    let mut m = with_code(&[&[0xD9, 0x33]]);
    filled(&mut m);
    m.run_to_hlt();
    let dword = |n: u64| m.peek(layout::DATA + 4 * n) as u32;
    assert_eq!(
        std::array::from_fn(|n| dword(n as u64)),
        [
            0xFFFF_027F,
            0xFFFF_6900,
            0xFFFF_0000 | u32::from(TAGS),
            0x1234_5678,
            0x0123_0000,
            0x8765_4321,
            0xFFFF_0000
        ]
    );
    assert_eq!(m.cpu.state.simd.x87.control, 0x27F | 0x3F, "FNSTENV masks every exception");
    // 16-bit fnstenv [rbx]
    let mut m = with_code(&[&[0x66, 0xD9, 0x33]]);
    m.poke(layout::DATA + 14, u64::MAX);
    filled(&mut m);
    m.run_to_hlt();
    let word = |n: u64| m.peek(layout::DATA + 2 * n) as u16;
    assert_eq!(
        std::array::from_fn(|n| word(n as u64)),
        [0x027F, 0x6900, TAGS, 0x5678, 0, 0x4321, 0, 0xFFFF],
        "fourteen bytes and no more"
    );
}

#[test]
fn a_saved_state_is_restored_and_saving_initialises() {
    // fnsave [rbx]; hlt; frstor [rbx], in both sizes.
    for prefix in [&[][..], &[0x66]] {
        let mut m = with_code(&[prefix, &[0xDD, 0x33], &[HLT], prefix, &[0xDD, 0x23]]);
        filled(&mut m);
        let mut before = m.cpu.state.simd.x87;
        m.run_to_hlt();
        let initial = m.cpu.state.simd.x87;
        assert_eq!((initial.control, initial.status, initial.tags), (0x37F, 0, 0));
        m.cpu.state.simd.x87.registers = [0; 8];
        m.cpu.advance(1);
        m.run_to_hlt();
        if !prefix.is_empty() {
            before.instruction &= 0xFFFF;
            before.data &= 0xFFFF;
            before.opcode = 0;
        }
        assert_eq!(m.cpu.state.simd.x87, before, "prefix {prefix:02x?}");
    }
}

#[test]
fn loading_a_state_makes_its_exceptions_pending_as_the_masks_say() {
    for (control, status, pending) in
        [(0x37B_u16, 0x0004_u16, true), (0x37F, 0x8084, false), (0x37B, 0x8081, false)]
    {
        // fldenv [rbx]
        let mut m = with_code(&[&[0xD9, 0x23]]);
        m.poke(layout::DATA, u64::from(control) | u64::from(status) << 32);
        m.poke(layout::DATA + 8, 0xFFFF);
        m.run_to_hlt();
        let summary = m.cpu.state.simd.x87.status & ES_AND_B;
        assert_eq!(summary == ES_AND_B, pending, "{control:#x} {status:#x}: {summary:#x}");
        assert!(summary == 0 || summary == ES_AND_B);
    }
}

#[test]
fn a_store_that_faults_leaves_the_stack() {
    // fld1; fstp tbyte [rbx]
    let mut m = with_code(&[&FLD1, &[0xDB, 0x3B]]);
    m.cpu.state.set_gpr(Gpr::Rbx, 0x40_0000);
    m.expect_handler(vector::PF);
    assert_eq!(st(&m, 0), ONE);
    assert_eq!(m.cpu.state.simd.x87.tags, 0x80);
}

#[test]
fn transcendental_functions_take_their_operands_from_the_stack() {
    let rows: [(&[&[u8]], u128); 8] = [
        // Pi rounded up to 64 bits less the 66-bit one is a quarter of the last place: 2^-64.
        (&[&FLDPI, &FSIN], 0xBFBF_8000_0000_0000_0000),
        (&[&FLDZ, &FSIN], 0),
        (&[&FLDZ, &FCOS], ONE),
        (&[&FLD1, &FLD1, &FPATAN], 0x3FFE_C90F_DAA2_2168_C235),
        (&[&FLD1, &F2XM1], ONE),
        (&[&FLD1, &FLD1, &FYL2X], 0),
        (&[&FLD1, &FLDZ, &FYL2XP1], 0),
        (&[&FLDZ, &FLD1, &FYL2XP1], 0),
    ];
    for (pieces, wanted) in rows {
        let mut m = with_code(pieces);
        m.run_to_hlt();
        assert_eq!(st(&m, 0), wanted, "{pieces:02x?}: {:#x}", st(&m, 0));
        assert_eq!(m.cpu.state.simd.x87.top(), 7, "one value is left");
    }
}

#[test]
fn the_tangent_is_pushed_over_one_and_the_cosine_after_the_sine() {
    let mut m = with_code(&[&FLDZ, &FPTAN]);
    m.run_to_hlt();
    assert_eq!((st(&m, 0), st(&m, 1)), (ONE, 0));
    let mut m = with_code(&[&FLDZ, &FSINCOS]);
    m.run_to_hlt();
    assert_eq!((st(&m, 0), st(&m, 1)), (ONE, 0));
}

#[test]
fn an_angle_out_of_range_sets_c2_and_changes_nothing_else() {
    const TWO_TO_63: u128 = 0x403E_8000_0000_0000_0000;
    for instruction in [FSIN, FCOS, FPTAN, FSINCOS] {
        let mut m = with_code(&[&FLD1, &instruction]);
        m.cpu.state.simd.x87.registers[7] = TWO_TO_63;
        m.code(&[instruction[0], instruction[1], HLT]);
        m.cpu.state.simd.x87.set_top(7);
        m.cpu.state.simd.x87.tags = 0x80;
        m.run_to_hlt();
        let x87 = m.cpu.state.simd.x87;
        assert_eq!((x87.st(0), x87.tags, x87.status & C2), (TWO_TO_63, 0x80, C2), "{instruction:02x?}");
    }
}

#[test]
fn a_full_stack_overflows_and_an_empty_one_underflows() {
    for instruction in [FPTAN, FSINCOS, FLD1] {
        let mut m = with_code(&[&instruction]);
        m.cpu.state.simd.x87.tags = 0xFF;
        m.run_to_hlt();
        let x87 = m.cpu.state.simd.x87;
        assert_eq!((x87.st(0), x87.status & 0x0241), (INDEFINITE, C1 | 0x41), "{instruction:02x?}");
    }
    for instruction in [FPATAN, FYL2X, FYL2XP1, F2XM1, FSIN, FCOS] {
        let mut m = with_code(&[&instruction]);
        m.run_to_hlt();
        let x87 = m.cpu.state.simd.x87;
        assert_eq!((x87.st(0), x87.status & 0x0241), (INDEFINITE, 0x41), "{instruction:02x?}");
    }
}

#[test]
fn a_comparison_with_an_exception_that_is_not_masked_leaves_codes_and_flags() {
    // fcom st1, and fcomi st0, st1, of a NaN.
    for (instruction, pops) in [([0xD8, 0xD1], false), ([0xD8, 0xD9], true), ([0xDB, 0xF1], false)] {
        let mut m = with_code(&[&FLD1, &FLD1, &instruction]);
        m.code(&[instruction[0], instruction[1], HLT]);
        let x87 = &mut m.cpu.state.simd.x87;
        (x87.control, x87.tags, x87.registers[0]) = (0x37E, 0xFF, INDEFINITE);
        x87.status = 0x4100;
        let flags = m.cpu.state.flags.get();
        m.run_to_hlt();
        let x87 = m.cpu.state.simd.x87;
        assert_eq!(x87.status, 0x4100 | ES_AND_B | 1, "pops: {pops}");
        assert_eq!((x87.tags, m.cpu.state.flags.get()), (0xFF, flags));
    }
}

#[test]
fn comparisons_into_the_flags_clear_c1() {
    let mut m = with_code(&[&FLD1, &FLD1, &[0xDB, 0xF1]]);
    m.cpu.state.simd.x87.status = C1;
    m.run_to_hlt();
    assert_eq!(m.cpu.state.simd.x87.status & C1, 0);
}

#[test]
fn a_denormal_operand_that_is_not_masked_is_not_pushed() {
    // fld dword [rbx]
    let mut m = with_code(&[&[0xD9, 0x03]]);
    m.poke(layout::DATA, 1);
    m.cpu.state.simd.x87.control &= !2;
    m.run_to_hlt();
    let x87 = m.cpu.state.simd.x87;
    assert_eq!((x87.tags, x87.status), (0, ES_AND_B | 2));
}

#[test]
fn a_conversion_from_packed_integers_in_memory_enters_mmx() {
    // cvtpi2ps xmm0, [rbx]; cvtpi2pd xmm0, [rbx] does not.
    for (code, tags) in [(&[0x0F, 0x2A, 0x03][..], 0xFF), (&[0x66, 0x0F, 0x2A, 0x03], 0)] {
        let mut m = with_code(&[code]);
        m.run_to_hlt();
        assert_eq!(m.cpu.state.simd.x87.tags, tags, "{code:02x?}");
    }
}
