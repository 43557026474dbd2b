//! Process-context identifiers: which translations a load of CR3 and INVPCID leave (SDM vol. 3, "Process-Context Identifiers").

use crate::testing::{Machine, layout};
use x86_arch::{Gpr, cr4, vector};

const NO_FLUSH: u64 = 1 << 63;
/// A second set of tables that maps the page of data elsewhere.
const OTHER_PML4: u64 = 0x9000;
const OTHER_PDPT: u64 = 0xA000;
const OTHER_PD: u64 = 0xB000;
const OTHER_PT: u64 = 0xC000;
const DESCRIPTOR: u64 = layout::DATA + 0x800;

/// A kernel with PCIDs on; 1 is at the page of data in its own space, 2 in the other one.
fn machine(code: &[u8]) -> Machine {
    let mut m = Machine::long();
    m.gate(vector::GP, 1 << 32);
    m.poke(OTHER_PML4, OTHER_PDPT | 3);
    m.poke(OTHER_PDPT, OTHER_PD | 3);
    m.poke(OTHER_PD, OTHER_PT | 3);
    for n in 0..512 {
        m.poke(OTHER_PT + 8 * n, n << 12 | 3);
    }
    m.poke(OTHER_PT + 8 * (layout::DATA >> 12), (layout::DATA + 0x1000) | 3);
    m.poke(layout::DATA, 1);
    m.poke(layout::DATA + 0x1000, 2);
    m.cpu.state.control.cr4 |= cr4::PCIDE;
    m.code(code);
    m.cpu.state.set_gpr(Gpr::Rbx, layout::DATA);
    m
}

#[test]
fn translations_of_one_identifier_are_not_used_under_another() {
    // mov rax,[rbx]; mov cr3,rcx; mov rdx,[rbx]; mov cr3,rdi; mov rsi,[rbx]; hlt
    let code =
        [0x48, 0x8B, 0x03, 0x0F, 0x22, 0xD9, 0x48, 0x8B, 0x13, 0x0F, 0x22, 0xDF, 0x48, 0x8B, 0x33, 0xF4];
    for keep in [0, NO_FLUSH] {
        let mut m = machine(&code);
        m.cpu.state.set_gpr(Gpr::Rcx, OTHER_PML4 | 5 | keep);
        m.cpu.state.set_gpr(Gpr::Rdi, layout::PML4 | keep);
        m.run_to_hlt();
        let seen = [Gpr::Rax, Gpr::Rdx, Gpr::Rsi].map(|r| m.cpu.state.gpr(r));
        assert_eq!(seen, [1, 2, 1], "bit 63 {}", keep != 0);
        assert_eq!(m.cpu.state.control.cr3, layout::PML4, "bit 63 is not kept");
    }
}

#[test]
fn bit_63_of_cr3_is_reserved_without_identifiers() {
    let mut m = machine(&[0x0F, 0x22, 0xD9]);
    m.cpu.state.control.cr4 &= !cr4::PCIDE;
    m.cpu.state.set_gpr(Gpr::Rcx, layout::PML4 | NO_FLUSH);
    m.expect_handler(vector::GP);
}

/// Type, descriptor, and whether INVPCID takes them.
#[test]
fn invpcid_takes_what_the_manual_takes() {
    let cases: &[(&str, u64, u64, u64, u64, bool)] = &[
        ("one address", 0, 5, layout::DATA, cr4::PCIDE, true),
        ("an address that is not canonical", 0, 5, 1 << 47, cr4::PCIDE, false),
        ("one identifier", 1, 5, 1 << 47, cr4::PCIDE, true),
        ("an identifier of 13 bits", 1, 1 << 12, 0, cr4::PCIDE, false),
        ("everything", 2, 0, 0, cr4::PCIDE, true),
        ("everything that is not global", 3, 0, 0, cr4::PCIDE, true),
        ("a reserved bit with everything", 2, 1 << 63, 0, cr4::PCIDE, false),
        ("no such type", 4, 0, 0, cr4::PCIDE, false),
        ("a type of 33 bits", 1 << 32, 0, 0, cr4::PCIDE, false),
        ("an identifier where there are none", 1, 5, 0, 0, false),
        ("identifier 0 where there are none", 1, 0, 0, 0, true),
    ];
    for (name, kind, pcid, linear, pcide, taken) in cases {
        // invpcid rcx,[rdx]; hlt
        let mut m = machine(&[0x66, 0x0F, 0x38, 0x82, 0x0A, 0xF4]);
        m.cpu.state.control.cr4 = m.cpu.state.control.cr4 & !cr4::PCIDE | pcide;
        m.poke(DESCRIPTOR, *pcid);
        m.poke(DESCRIPTOR + 8, *linear);
        m.cpu.state.set_gpr(Gpr::Rcx, *kind);
        m.cpu.state.set_gpr(Gpr::Rdx, DESCRIPTOR);
        if *taken {
            m.run_to_hlt();
            assert_eq!(m.cpu.state.rip(), layout::CODE + 5, "{name}");
        } else {
            m.expect_handler(vector::GP);
        }
    }
}

#[test]
fn invpcid_makes_changed_tables_count() {
    // mov rax,[rbx]; mov [rdi],rsi (rewrites the entry); invpcid rcx,[rdx]; mov rbp,[rbx]; hlt
    let code = [0x48, 0x8B, 0x03, 0x48, 0x89, 0x37, 0x66, 0x0F, 0x38, 0x82, 0x0A, 0x48, 0x8B, 0x2B, 0xF4];
    for kind in 0..4 {
        let mut m = machine(&code);
        m.poke(DESCRIPTOR, 0);
        m.poke(DESCRIPTOR + 8, layout::DATA);
        m.cpu.state.set_gpr(Gpr::Rcx, kind);
        m.cpu.state.set_gpr(Gpr::Rdx, DESCRIPTOR);
        m.cpu.state.set_gpr(Gpr::Rdi, layout::PT + 8 * (layout::DATA >> 12));
        m.cpu.state.set_gpr(Gpr::Rsi, (layout::DATA + 0x1000) | 3);
        m.run_to_hlt();
        assert_eq!((m.cpu.state.gpr(Gpr::Rax), m.cpu.state.gpr(Gpr::Rbp)), (1, 2), "type {kind}");
    }
}
