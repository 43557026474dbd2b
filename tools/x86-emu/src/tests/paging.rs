//! Paging: rights, status bits, large pages, and what survives in the TLB (SDM vol. 3, "Paging").

use crate::exits::{Exit, InstructionExit};
use crate::testing::{Machine, layout};
use x86_arch::{Gpr, cr0, cr4, flags};

const P: u64 = 1;
const RW: u64 = 2;
const US: u64 = 4;
const A: u64 = 1 << 5;
const D: u64 = 1 << 6;
const PS: u64 = 1 << 7;
const NX: u64 = 1 << 63;

const VMCALL: [u8; 3] = [0x0F, 0x01, 0xC1];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Touch {
    Read,
    Write,
    Fetch,
}

#[derive(Clone, Copy, Debug)]
struct Setting {
    user: bool,
    wp: bool,
    smep: bool,
    smap: bool,
    ac: bool,
    nx: bool,
    writable: bool,
    user_page: bool,
    touch: Touch,
}

impl Setting {
    fn numbered(n: u32) -> Self {
        let bit = |k: u32| n >> k & 1 != 0;
        let touch = [Touch::Read, Touch::Write, Touch::Fetch][(n >> 8) as usize];
        Self {
            user: bit(0),
            wp: bit(1),
            smep: bit(2),
            smap: bit(3),
            ac: bit(4),
            nx: bit(5),
            writable: bit(6),
            user_page: bit(7),
            touch,
        }
    }

    /// "Determination of Access Rights", sentence by sentence.
    fn allowed(self) -> bool {
        if self.user {
            return self.user_page
                && match self.touch {
                    Touch::Read => true,
                    Touch::Write => self.writable,
                    Touch::Fetch => !self.nx,
                };
        }
        let smap_allows = !(self.user_page && self.smap && !self.ac);
        match self.touch {
            Touch::Read => smap_allows,
            Touch::Write => smap_allows && (self.writable || !self.wp),
            Touch::Fetch => !(self.nx || self.user_page && self.smep),
        }
    }

    fn error_code(self) -> u64 {
        let cause = match self.touch {
            Touch::Read => 0,
            Touch::Write => 2,
            Touch::Fetch => 16,
        };
        1 | cause | if self.user { 4 } else { 0 }
    }
}

fn pte(address: u64) -> u64 {
    layout::PT + 8 * (address >> 12)
}

/// `mov rax,[rbx]`, `mov [rbx],rax` or `jmp rbx`; then VMCALL.
fn touching(touch: Touch) -> Vec<u8> {
    let mut code = match touch {
        Touch::Read => vec![0x48, 0x8B, 0x03],
        Touch::Write => vec![0x48, 0x89, 0x03],
        Touch::Fetch => vec![0xFF, 0xE3],
    };
    code.extend_from_slice(&VMCALL);
    code
}

#[test]
fn every_combination_of_rights_gives_what_the_manual_says() {
    for n in 0..0x300 {
        let s = Setting::numbered(n);
        let mut m = Machine::long();
        m.gate(14, 0);
        if s.user {
            m.make_user();
        }
        let set = |on: bool, bit: u64| if on { bit } else { 0 };
        m.cpu.state.control.cr0 = m.cpu.state.control.cr0 & !cr0::WP | set(s.wp, cr0::WP);
        m.cpu.state.control.cr4 |= set(s.smep, cr4::SMEP) | set(s.smap, cr4::SMAP);
        m.cpu.state.flags.set(set(s.ac, flags::AC));
        for table in [layout::PML4, layout::PDPT, layout::PD] {
            m.poke(table, m.peek(table) | US);
        }
        // What the CPU itself reads and the handler belong to the supervisor.
        for page in [layout::IDT, layout::GDT, layout::TSS, layout::HANDLERS, 0x4_F000] {
            m.poke(pte(page), page | P | RW);
        }
        m.poke(
            pte(layout::DATA),
            layout::DATA | P | set(s.writable, RW) | set(s.user_page, US) | set(s.nx, NX),
        );
        m.code(&touching(s.touch));
        m.write(layout::DATA, &VMCALL);
        m.cpu.state.set_gpr(Gpr::Rbx, layout::DATA);
        if s.allowed() {
            let exit = m.run();
            let done = Exit::Instruction { what: InstructionExit::Vmcall, length: 3 };
            assert_eq!(exit, done, "{s:?} is allowed");
        } else {
            m.expect_handler(14);
            assert_eq!(m.peek(m.cpu.state.gpr(Gpr::Rsp)), s.error_code(), "the error code of {s:?}");
            assert_eq!(m.cpu.state.control.cr2, layout::DATA);
        }
    }
}

#[test]
fn accessed_and_dirty_bits_are_set_when_used_and_not_before() {
    let mut m = Machine::long();
    m.cpu.state.set_gpr(Gpr::Rbx, layout::DATA);
    m.code(&[0x48, 0x8B, 0x03, 0xF4, 0x48, 0x89, 0x03, 0xF4]);
    assert_eq!(m.peek(pte(layout::DATA)) & (A | D), 0);
    m.run_to_hlt();
    assert_eq!(m.peek(pte(layout::DATA)) & (A | D), A, "a read sets Accessed only");
    for table in [layout::PML4, layout::PDPT, layout::PD] {
        assert_eq!(m.peek(table) & (A | D), A, "every table entry on the path was used");
    }
    m.cpu.advance(1);
    m.run_to_hlt();
    assert_eq!(m.peek(pte(layout::DATA)) & (A | D), A | D, "a write after a cached read sets Dirty");
}

#[test]
fn a_refused_write_leaves_the_page_clean() {
    let mut m = Machine::long();
    m.gate(14, 0);
    m.poke(pte(layout::DATA), layout::DATA | P);
    m.cpu.state.set_gpr(Gpr::Rbx, layout::DATA);
    m.code(&touching(Touch::Write));
    m.expect_handler(14);
    assert_eq!(m.peek(pte(layout::DATA)) & D, 0);
}

#[test]
fn reserved_bits_are_told_apart_from_missing_pages() {
    // (entry of the page, error code)
    let cases = [(layout::DATA & !P, 0), (layout::DATA | P | RW | 1 << 51, 9)];
    for (entry, code) in cases {
        let mut m = Machine::long();
        m.cpu.controls.physical_bits = 46;
        m.gate(14, 0);
        m.poke(pte(layout::DATA), entry);
        m.cpu.state.set_gpr(Gpr::Rbx, layout::DATA);
        m.code(&touching(Touch::Read));
        m.expect_handler(14);
        assert_eq!(m.peek(m.cpu.state.gpr(Gpr::Rsp)), code, "entry {entry:#x}");
    }
}

#[test]
fn without_nxe_the_execute_disable_bit_is_reserved() {
    let mut m = Machine::long();
    m.cpu.state.control.efer &= !x86_arch::efer::NXE;
    m.gate(14, 0);
    m.poke(pte(layout::DATA), layout::DATA | P | RW | NX);
    m.cpu.state.set_gpr(Gpr::Rbx, layout::DATA);
    m.code(&touching(Touch::Read));
    m.expect_handler(14);
    assert_eq!(m.peek(m.cpu.state.gpr(Gpr::Rsp)), 9);
}

#[test]
fn large_pages_map_where_they_say() {
    // 2 MiB at linear 4 MiB, 1 GiB at linear 1 GiB; both lead to guest-physical 2 MiB or 0.
    let mut m = Machine::long();
    m.poke(layout::PD + 16, 0x20_0000 | P | RW | PS);
    m.poke(layout::PDPT + 8, P | RW | PS);
    m.poke(0x2A_BCD8, 0x1122_3344_5566_7788);
    m.code(&[0x48, 0x8B, 0x03, 0x48, 0x8B, 0x0A, 0xF4]);
    m.cpu.state.set_gpr(Gpr::Rbx, 0x4A_BCD8);
    m.cpu.state.set_gpr(Gpr::Rdx, 0x4000_0000 + 0x2A_BCD8);
    m.run_to_hlt();
    assert_eq!(m.cpu.state.gpr(Gpr::Rax), 0x1122_3344_5566_7788);
    assert_eq!(m.cpu.state.gpr(Gpr::Rcx), 0x1122_3344_5566_7788);
    assert_eq!(m.peek(layout::PD + 16) & (A | D), A);
}

#[test]
fn five_levels_are_walked_where_la57_says_so() {
    let mut m = Machine::long();
    m.cpu.state.control.cr4 |= cr4::LA57;
    m.poke(0x8000, layout::PML4 | P | RW);
    m.poke(0x8000 + 8, layout::PML4 | P | RW);
    m.cpu.state.control.cr3 = 0x8000;
    m.poke(layout::DATA, 77);
    m.code(&[0x48, 0x8B, 0x03, 0xF4]);
    m.cpu.state.set_gpr(Gpr::Rbx, 1 << 48 | layout::DATA);
    m.run_to_hlt();
    assert_eq!(m.cpu.state.gpr(Gpr::Rax), 77);
}

#[test]
fn addresses_that_are_not_canonical_are_protection_faults() {
    // mov rax,[rbx] is #GP; mov rax,[rsp] and push are #SS.
    for (code, vector) in [(vec![0x48, 0x8B, 0x03], 13), (vec![0x48, 0x8B, 0x04, 0x24], 12), (vec![0x50], 12)]
    {
        let mut m = Machine::long();
        m.gate(13, 1 << 32);
        m.gate(12, 1 << 32);
        m.code(&code);
        m.cpu.state.set_gpr(Gpr::Rbx, 1 << 47);
        m.cpu.state.set_gpr(Gpr::Rsp, 1 << 62);
        m.expect_handler(vector);
        assert_eq!(m.peek(m.cpu.state.gpr(Gpr::Rsp)), 0);
    }
}

#[test]
fn a_translation_lives_until_it_is_invalidated() {
    // mov rax,[rbx]; mov [rcx],rdx (rewrites the entry); mov rsi,[rbx]; invlpg [rbx]; mov rdi,[rbx]; hlt
    let mut m = Machine::long();
    m.code(&[0x48, 0x8B, 0x03, 0x48, 0x89, 0x11, 0x48, 0x8B, 0x33, 0x0F, 0x01, 0x3B, 0x48, 0x8B, 0x3B, 0xF4]);
    m.poke(layout::DATA, 1);
    m.poke(layout::DATA + 0x1000, 2);
    m.cpu.state.set_gpr(Gpr::Rbx, layout::DATA);
    m.cpu.state.set_gpr(Gpr::Rcx, pte(layout::DATA));
    m.cpu.state.set_gpr(Gpr::Rdx, (layout::DATA + 0x1000) | P | RW);
    m.run_to_hlt();
    assert_eq!(m.cpu.state.gpr(Gpr::Rax), 1);
    assert_eq!(m.cpu.state.gpr(Gpr::Rsi), 1, "nothing noticed the changed entry yet");
    assert_eq!(m.cpu.state.gpr(Gpr::Rdi), 2);
}

#[test]
fn invalidating_any_part_of_a_large_page_drops_all_of_it() {
    let mut m = Machine::long();
    m.poke(layout::PD + 16, 0x20_0000 | P | RW | PS);
    m.poke(0x20_0000, 1);
    m.poke(0x40_0000, 2);
    // mov rax,[rbx]; mov [rcx],rdx; invlpg [rsi]; mov rdi,[rbx]; hlt
    m.code(&[0x48, 0x8B, 0x03, 0x48, 0x89, 0x11, 0x0F, 0x01, 0x3E, 0x48, 0x8B, 0x3B, 0xF4]);
    m.cpu.state.set_gpr(Gpr::Rbx, 0x40_0000);
    m.cpu.state.set_gpr(Gpr::Rcx, layout::PD + 16);
    m.cpu.state.set_gpr(Gpr::Rdx, 0x40_0000 | P | RW | PS);
    m.cpu.state.set_gpr(Gpr::Rsi, 0x5F_F000);
    m.run_to_hlt();
    assert_eq!((m.cpu.state.gpr(Gpr::Rax), m.cpu.state.gpr(Gpr::Rdi)), (1, 2));
}

#[test]
fn second_stage_translations_live_until_the_owner_flushes() {
    let mut m = Machine::long();
    m.code(&[0x48, 0x8B, 0x03, 0x0F, 0x20, 0xD8, 0x0F, 0x22, 0xD8, 0xEB, 0xF5]); // load; reload CR3; again
    m.cpu.state.set_gpr(Gpr::Rbx, layout::DATA);
    assert_eq!(m.run_for(4), Exit::BudgetExhausted);
    let asked = m.bus.asked.len();
    assert_eq!(m.run_for(8), Exit::BudgetExhausted);
    assert_eq!(m.bus.asked.len(), asked, "the guest's own flushes do not reach the second stage");
    m.cpu.tlb.flush_all();
    assert_eq!(m.run_for(4), Exit::BudgetExhausted);
    assert!(m.bus.asked.len() > asked);
}

#[test]
fn a_write_of_cr3_keeps_global_pages_and_only_those() {
    const UPPER: u64 = 0xFFFF_8000_0000_0000;
    const G: u64 = 1 << 8;
    for (global, pge, kept) in [(true, true, true), (true, false, false), (false, true, false)] {
        let mut m = Machine::long();
        let shared = m.peek(layout::PML4);
        m.poke(layout::PML4 + 256 * 8, shared);
        let bits = P | RW | if global { G } else { 0 };
        m.poke(pte(layout::DATA), layout::DATA | bits);
        m.poke(layout::DATA, 1);
        m.poke(layout::DATA + 0x1000, 2);
        // mov rax,[rbx]; mov [rcx],rdx; mov rbp,cr3; mov cr3,rbp; mov rsi,[rbx]; hlt
        m.code(&[
            0x48, 0x8B, 0x03, 0x48, 0x89, 0x11, 0x0F, 0x20, 0xDD, 0x0F, 0x22, 0xDD, 0x48, 0x8B, 0x33, 0xF4,
        ]);
        if pge {
            m.cpu.state.control.cr4 |= cr4::PGE;
        }
        m.cpu.state.set_gpr(Gpr::Rbx, UPPER | layout::DATA);
        m.cpu.state.set_gpr(Gpr::Rcx, pte(layout::DATA));
        m.cpu.state.set_gpr(Gpr::Rdx, (layout::DATA + 0x1000) | bits);
        m.run_to_hlt();
        assert_eq!(m.cpu.state.gpr(Gpr::Rax), 1);
        let expected = if kept { 1 } else { 2 };
        assert_eq!(m.cpu.state.gpr(Gpr::Rsi), expected, "global {global}, CR4.PGE {pge}");
    }
}
