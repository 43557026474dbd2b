//! Control registers, MSRs, XCR0, and what the owner's masks do.

use crate::exits::{CrAccess, CrOperation, Exit, InstructionExit};
use crate::registers::MsrError;
use crate::testing::{Machine, layout};
use x86_arch::{Event, Gpr, Seg, cr0, cr4, efer, msr, vector};

fn gp() -> Result<(), Event> {
    Err(Event::exception_with_code(vector::GP, 0))
}

#[test]
fn control_registers_refuse_what_the_manual_refuses() {
    use cr0::{CD, ET, NE, NW, PE, PG};
    use cr4::{LA57, PAE, PCIDE, SMXE};
    let cases: [(&str, u8, u64, bool); 16] = [
        ("CR0 with a bit above 31", 0, PE | PG | 1 << 32, false),
        ("PG without PE", 0, PG, false),
        ("NW without CD", 0, PE | PG | NW, false),
        ("NW with CD", 0, PE | PG | NW | CD | NE, true),
        ("paging off in 64-bit code", 0, PE | ET, false),
        ("CR0 as usual", 0, PE | PG | NE, true),
        ("CR3 with a reserved bit", 3, 1 << 46, false),
        ("CR3 in range", 3, 0x1000, true),
        ("CR4 without PAE in long mode", 4, 0, false),
        ("CR4 with a bit not offered", 4, PAE | SMXE, false),
        ("LA57 changed in long mode", 4, PAE | LA57, false),
        ("PCIDE with PCID zero", 4, PAE | PCIDE, true),
        ("CR4 with a bit above 31", 4, PAE | 1 << 40, false),
        ("CR8 in range", 8, 15, true),
        ("CR8 too large", 8, 16, false),
        ("CR4 as usual", 4, PAE | cr4::PGE, true),
    ];
    for (name, register, value, allowed) in cases {
        let mut m = Machine::long();
        m.cpu.controls.physical_bits = 46;
        let before = m.cpu.state.control;
        let result = m.cpu.write_cr(register, value);
        if allowed {
            assert_eq!(result, Ok(()), "{name}");
        } else {
            assert_eq!(result, gp(), "{name}");
            assert_eq!(m.cpu.state.control, before, "{name}: nothing changes");
        }
    }
}

#[test]
fn pcide_needs_a_zero_pcid_and_guards_paging() {
    let mut m = Machine::long();
    m.cpu.state.control.cr3 |= 5;
    assert_eq!(m.cpu.write_cr(4, m.cpu.state.control.cr4 | cr4::PCIDE), gp());
}

#[test]
fn owned_bits_read_from_the_shadow_and_exit_when_changed() {
    let mut m = Machine::long();
    m.cpu.controls.cr4_owned = cr4::MCE | cr4::VMXE;
    m.cpu.controls.cr4_shadow = 0;
    m.cpu.state.control.cr4 |= cr4::MCE | cr4::VMXE;
    // mov rax, cr4; or al, 0x80 (PGE); mov cr4, rax; or al, 0x40 (MCE); mov cr4, rax
    m.code(&[0x0F, 0x20, 0xE0, 0x0C, 0x80, 0x0F, 0x22, 0xE0, 0x0C, 0x40, 0x0F, 0x22, 0xE0]);
    let exit = m.run();
    assert_eq!(m.cpu.state.gpr(Gpr::Rax) & (cr4::MCE | cr4::VMXE), cr4::MCE, "the shadow was read");
    assert_eq!(m.cpu.state.rip(), layout::CODE + 10, "PGE is the guest's own");
    assert_ne!(m.cpu.state.control.cr4 & cr4::PGE, 0);
    assert_ne!(m.cpu.state.control.cr4 & cr4::VMXE, 0, "owned bits stay");
    let value = m.cpu.state.gpr(Gpr::Rax);
    let operation = CrOperation::Write { value, gpr: 0 };
    let what = InstructionExit::CrAccess(CrAccess { register: 4, operation });
    assert_eq!(exit, Exit::Instruction { what, length: 3 });
}

#[test]
fn clts_and_lmsw_respect_the_mask() {
    let mut m = Machine::long();
    m.cpu.state.control.cr0 |= cr0::TS;
    m.code(&[0x0F, 0x06, 0xF4]);
    m.run_to_hlt();
    assert_eq!(m.cpu.state.control.cr0 & cr0::TS, 0);
    m.cpu.state.control.cr0 |= cr0::TS;
    m.cpu.controls.cr0_owned = cr0::TS;
    m.cpu.controls.cr0_shadow = cr0::TS;
    m.cpu.state.set_rip(layout::CODE);
    let what = InstructionExit::CrAccess(CrAccess { register: 0, operation: CrOperation::Clts });
    assert_eq!(m.run(), Exit::Instruction { what, length: 2 });
}

#[test]
fn msrs_are_checked_as_wrmsr_checks_them() {
    const BAD: u64 = 1 << 47;
    let cases: [(u32, u64, bool); 14] = [
        (msr::IA32_LSTAR, BAD, false),
        (msr::IA32_LSTAR, 0xFFFF_8000_0000_0000, true),
        (msr::IA32_FS_BASE, BAD, false),
        (msr::IA32_GS_BASE, 0x7FFF_FFFF_F000, true),
        (msr::IA32_KERNEL_GSBASE, BAD, false),
        (msr::IA32_PAT, 0x0007_0406_0007_0402, false),
        (msr::IA32_PAT, 0x0007_0406_0007_0406, true),
        (msr::IA32_EFER, efer::LMA | efer::LME | efer::NXE, true),
        (msr::IA32_EFER, efer::LMA | efer::NXE, false),
        (msr::IA32_EFER, efer::LME | 1 << 5, false),
        (msr::IA32_TSC_AUX, 1 << 32, false),
        (msr::IA32_FMASK, 1 << 32, false),
        (msr::IA32_STAR, u64::MAX, true),
        (msr::IA32_XSS, 1, false),
    ];
    for (index, value, allowed) in cases {
        let mut m = Machine::long();
        let result = m.cpu.write_msr(index, value);
        if allowed {
            assert_eq!(result, Ok(()), "{index:#x} = {value:#x}");
            assert_eq!(m.cpu.read_msr(index), Ok(value), "{index:#x}");
        } else {
            let event = Event::exception_with_code(vector::GP, 0);
            assert_eq!(result, Err(MsrError::Refused(event)), "{index:#x} = {value:#x}");
        }
    }
    assert_eq!(Machine::long().cpu.read_msr(0x1B), Err(MsrError::NotKept));
}

#[test]
fn xcr0_keeps_x87_and_takes_only_what_is_offered() {
    let mut m = Machine::long();
    m.cpu.controls.xcr0_supported = 3;
    for (index, value, allowed) in [(0, 3, true), (0, 1, true), (0, 2, false), (0, 7, false), (1, 3, false)] {
        assert_eq!(m.cpu.write_xcr0(index, value), if allowed { Ok(()) } else { gp() }, "{index} {value}");
    }
}

#[test]
fn swapgs_exchanges_the_bases_and_fs_relative_operands_use_theirs() {
    let mut m = Machine::long();
    m.cpu.state.segment_mut(Seg::Gs).base = 0x1111;
    m.cpu.state.msrs.kernel_gs_base = layout::DATA;
    m.poke(layout::DATA + 0x10, 0xABCD);
    // swapgs; mov rax, gs:[0x10]; hlt
    m.code(&[0x0F, 0x01, 0xF8, 0x65, 0x48, 0x8B, 0x04, 0x25, 0x10, 0, 0, 0, 0xF4]);
    m.run_to_hlt();
    assert_eq!(m.cpu.state.gpr(Gpr::Rax), 0xABCD);
    assert_eq!(m.cpu.state.msrs.kernel_gs_base, 0x1111);
}

#[test]
fn table_registers_round_trip_through_memory() {
    let mut m = Machine::long();
    m.poke(layout::DATA, 0x8765_4321_0000_1234 << 16 | 0x4F);
    // The base must be canonical: 0x4321_0000_1234.
    m.poke(layout::DATA, 0x4321_0000_1234 << 16 | 0x4F);
    m.poke(layout::DATA + 8, 0);
    m.cpu.state.set_gpr(Gpr::Rbx, layout::DATA);
    // lidt [rbx]; sidt [rbx+0x10]; hlt
    m.code(&[0x0F, 0x01, 0x1B, 0x0F, 0x01, 0x4B, 0x10, 0xF4]);
    m.run_to_hlt();
    assert_eq!((m.cpu.state.idtr.base, m.cpu.state.idtr.limit), (0x4321_0000_1234, 0x4F));
    assert_eq!(m.peek(layout::DATA + 0x10), m.peek(layout::DATA));
}

#[test]
fn extended_state_survives_save_and_restore() {
    // fxsave64, xsave64, xsavec64, xsaveopt64 and xsaves64, each with its restore.
    let pairs: [(&str, [u8; 4], [u8; 4]); 5] = [
        ("fxsave64", [0x48, 0x0F, 0xAE, 0x03], [0x48, 0x0F, 0xAE, 0x0B]),
        ("xsave64", [0x48, 0x0F, 0xAE, 0x23], [0x48, 0x0F, 0xAE, 0x2B]),
        ("xsaveopt64", [0x48, 0x0F, 0xAE, 0x33], [0x48, 0x0F, 0xAE, 0x2B]),
        ("xsavec64", [0x48, 0x0F, 0xC7, 0x23], [0x48, 0x0F, 0xAE, 0x2B]),
        ("xsaves64", [0x48, 0x0F, 0xC7, 0x2B], [0x48, 0x0F, 0xC7, 0x1B]),
    ];
    for (name, save, restore) in pairs {
        let mut m = Machine::long();
        m.cpu.state.control.cr4 |= cr4::OSXSAVE;
        m.cpu.state.control.xcr0 = 7;
        m.cpu.state.set_gpr(Gpr::Rbx, layout::DATA);
        m.cpu.state.set_gpr(Gpr::Rax, 7);
        for n in 0..16 {
            m.cpu.state.simd.xmm[n] = 0x0123_4567 << 64 | (n as u128 + 1);
            // FXSAVE does not know them.
            let high = if name == "fxsave64" { 0 } else { 0x89AB << 96 | (n as u128 + 1) };
            m.cpu.state.simd.ymm_high[n] = high;
        }
        m.cpu.state.simd.mxcsr = 0x1FA0;
        m.cpu.state.simd.x87.control = 0x27F;
        m.cpu.state.simd.x87.set_st(3, 0x4000_8000_0000_0000_0000);
        m.cpu.state.simd.x87.tags = 8;
        let saved = m.cpu.state.simd;
        let mut code = save.to_vec();
        code.push(0xF4);
        m.code(&code);
        m.run_to_hlt();
        m.cpu.state.simd = Default::default();
        let mut code = restore.to_vec();
        code.push(0xF4);
        m.code(&code);
        m.cpu.state.set_rip(layout::CODE);
        m.run_to_hlt();
        assert_eq!(m.cpu.state.simd, saved, "{name}");
    }
}

#[test]
fn restoring_an_area_without_components_resets_them() {
    let mut m = Machine::long();
    m.cpu.state.control.cr4 |= cr4::OSXSAVE;
    m.cpu.state.control.xcr0 = 3;
    m.poke(layout::DATA + 24, 0x1F80);
    m.cpu.state.simd.xmm[5] = 7;
    m.cpu.state.simd.x87.control = 0x27F;
    m.cpu.state.set_gpr(Gpr::Rbx, layout::DATA);
    m.cpu.state.set_gpr(Gpr::Rax, 3);
    m.code(&[0x48, 0x0F, 0xAE, 0x2B, 0xF4]);
    m.run_to_hlt();
    assert_eq!(m.cpu.state.simd, Default::default());
}

/// Where the AVX component lies, whatever the form: behind legacy region and header.
const AVX_AREA: u64 = layout::DATA + 576;

#[test]
fn upper_halves_lie_behind_the_header_and_pkru_behind_them() {
    // xsave64 [rbx]; xsavec64 [rbx]
    for (code, pkru) in [([0x48, 0x0F, 0xAE, 0x23, 0xF4], 2688), ([0x48, 0x0F, 0xC7, 0x23, 0xF4], 832)] {
        let mut m = Machine::long();
        m.cpu.state.control.cr4 |= cr4::OSXSAVE | cr4::PKE;
        m.cpu.state.control.xcr0 = 0x207;
        m.cpu.state.simd.ymm_high[15] = 0x77;
        m.cpu.state.pkru = 0x55;
        m.cpu.state.set_gpr(Gpr::Rbx, layout::DATA);
        m.cpu.state.set_gpr(Gpr::Rax, 0x207);
        m.code(&code);
        m.run_to_hlt();
        assert_eq!(m.peek(AVX_AREA + 15 * 16), 0x77, "{code:02x?}");
        assert_eq!(m.peek(layout::DATA + pkru), 0x55, "{code:02x?}");
        let header = m.peek(layout::DATA + 512);
        assert_eq!(header & 4, 4, "{code:02x?}: the component is in use");
    }
}

#[test]
fn upper_halves_that_are_zero_are_in_their_initial_state() {
    // xgetbv with RCX 1, which names the components in use.
    for (high, in_use) in [(0, 0), (1, 4)] {
        let mut m = Machine::long();
        m.cpu.state.control.cr4 |= cr4::OSXSAVE;
        m.cpu.state.control.xcr0 = 7;
        m.cpu.state.simd.ymm_high[9] = high;
        m.cpu.state.set_gpr(Gpr::Rcx, 1);
        m.code(&[0x0F, 0x01, 0xD0, 0xF4]);
        m.run_to_hlt();
        assert_eq!(m.cpu.state.gpr(Gpr::Rax) & 4, in_use);
    }
}
