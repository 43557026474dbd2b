//! Instructions restart after a refused access as if it had never been tried.

use crate::exits::Exit;
use crate::testing::{Machine, layout};
use x86_arch::{Access, Gpr};

/// An instruction, the page that is refused, and how.
struct Case {
    name: &'static str,
    code: &'static [u8],
    page: u64,
    access: Access,
}

/// Data in the last bytes of one page and the first of the next.
const EDGE: u64 = layout::DATA + 0x1000 - 4;
const NEXT: u64 = layout::DATA + 0x1000;
const STACK_PAGE: u64 = layout::STACK - 0x1000;

const CASES: &[Case] = &[
    Case { name: "load", code: &[0x48, 0x8B, 0x03], page: layout::DATA, access: Access::Read },
    Case { name: "store", code: &[0x48, 0x89, 0x03], page: layout::DATA, access: Access::Write },
    Case { name: "store across pages", code: &[0x48, 0x89, 0x06], page: NEXT, access: Access::Write },
    Case { name: "load across pages", code: &[0x48, 0x8B, 0x06], page: NEXT, access: Access::Read },
    Case { name: "add to memory", code: &[0x48, 0x01, 0x03], page: layout::DATA, access: Access::Write },
    Case { name: "add across pages", code: &[0x48, 0x01, 0x06], page: NEXT, access: Access::Write },
    Case { name: "locked add", code: &[0xF0, 0x48, 0x01, 0x03], page: layout::DATA, access: Access::Write },
    Case { name: "xchg", code: &[0x48, 0x87, 0x03], page: layout::DATA, access: Access::Write },
    Case { name: "cmpxchg", code: &[0x48, 0x0F, 0xB1, 0x0B], page: layout::DATA, access: Access::Write },
    Case { name: "xadd", code: &[0x48, 0x0F, 0xC1, 0x0B], page: layout::DATA, access: Access::Write },
    Case { name: "push", code: &[0x50], page: STACK_PAGE, access: Access::Write },
    Case { name: "push memory", code: &[0xFF, 0x33], page: STACK_PAGE, access: Access::Write },
    Case { name: "pop memory", code: &[0x8F, 0x03], page: layout::DATA, access: Access::Write },
    Case { name: "pop memory across pages", code: &[0x8F, 0x06], page: NEXT, access: Access::Write },
    Case { name: "call", code: &[0xE8, 0, 0, 0, 0], page: STACK_PAGE, access: Access::Write },
    Case { name: "enter", code: &[0xC8, 0x20, 0, 0], page: STACK_PAGE, access: Access::Write },
    Case { name: "inc", code: &[0xFF, 0x03], page: layout::DATA, access: Access::Write },
    Case { name: "shift", code: &[0xC1, 0x23, 3], page: layout::DATA, access: Access::Write },
    Case { name: "bts", code: &[0x0F, 0xAB, 0x0B], page: layout::DATA, access: Access::Write },
    Case { name: "movs", code: &[0x48, 0xA5], page: layout::DATA, access: Access::Write },
    Case { name: "stos", code: &[0x48, 0xAB], page: layout::DATA, access: Access::Write },
    Case { name: "movaps", code: &[0x0F, 0x29, 0x03], page: layout::DATA, access: Access::Write },
    Case { name: "movups across pages", code: &[0x0F, 0x11, 0x06], page: NEXT, access: Access::Write },
    Case { name: "fxsave", code: &[0x0F, 0xAE, 0x03], page: layout::DATA, access: Access::Write },
    Case { name: "div", code: &[0x48, 0xF7, 0x33], page: layout::DATA, access: Access::Read },
    Case { name: "page table", code: &[0x48, 0x8B, 0x03], page: layout::PT, access: Access::WalkRead },
    Case { name: "accessed bit", code: &[0x48, 0x8B, 0x03], page: layout::PT, access: Access::WalkWrite },
];

fn prepare(code: &[u8]) -> Machine {
    let mut m = Machine::long();
    let mut bytes = code.to_vec();
    bytes.push(0xF4);
    m.code(&bytes);
    for at in [layout::DATA, EDGE, NEXT + 8] {
        m.poke(at, 0x0102_0304_0506_0708);
    }
    m.poke(layout::STACK, 0x99);
    for register in Gpr::ALL {
        m.cpu.state.set_gpr(register, 0x11 * (register as u64 + 1));
    }
    m.cpu.state.set_gpr(Gpr::Rbx, layout::DATA);
    m.cpu.state.set_gpr(Gpr::Rsi, EDGE);
    m.cpu.state.set_gpr(Gpr::Rdi, layout::DATA);
    m.cpu.state.set_gpr(Gpr::Rsp, layout::STACK);
    m.cpu.state.set_gpr(Gpr::Rdx, 0);
    m.cpu.state.flags.set(0x8D5);
    m
}

fn memory(m: &Machine) -> Vec<u64> {
    let words = (layout::DATA..layout::DATA + 0x2000).chain(STACK_PAGE..layout::STACK + 0x1000);
    words.step_by(8).map(|at| m.peek(at)).collect()
}

#[test]
fn a_refused_access_changes_nothing_and_is_repeated() {
    for case in CASES {
        let mut undisturbed = prepare(case.code);
        undisturbed.run_to_hlt();

        let mut m = prepare(case.code);
        // The code's own page is translated first, so that only the operand is refused.
        m.bus.refused.push((case.page, case.access));
        if case.page == layout::PT {
            // Let the code page through: it is reached by the same table.
            m.bus.refused.clear();
            let hlt = [0xF4];
            m.write(layout::CODE + 0x100, &hlt);
            m.cpu.state.set_rip(layout::CODE + 0x100);
            m.run_to_hlt();
            m.cpu.state.set_rip(layout::CODE);
            m.cpu.tlb.flush_guest_page(tdvisor_base::Gpa::new(layout::PT));
            m.cpu.tlb.flush_linear();
            for n in 0..512 {
                m.poke(
                    layout::PT + 8 * n,
                    m.peek(layout::PT + 8 * n) | if n == layout::DATA >> 12 { 0 } else { 0x20 },
                );
            }
            if case.access == Access::WalkRead {
                m.cpu.tlb.flush_all();
            }
            m.bus.refused.push((case.page, case.access));
        }
        let before: Vec<u64> = Gpr::ALL.map(|r| m.cpu.state.gpr(r)).to_vec();
        let flags = m.cpu.state.flags.get();
        let contents = memory(&m);
        let Exit::Refused(fault) = m.run() else { panic!("{}: the access is refused", case.name) };
        assert_eq!(fault.gpa.get() & !0xFFF, case.page, "{}", case.name);
        assert_eq!(fault.access.is_walk(), case.access.is_walk(), "{}", case.name);
        assert_eq!(m.cpu.state.rip(), layout::CODE, "{}", case.name);
        assert_eq!(Gpr::ALL.map(|r| m.cpu.state.gpr(r)).to_vec(), before, "{}: registers", case.name);
        assert_eq!(m.cpu.state.flags.get(), flags, "{}: flags", case.name);
        assert_eq!(memory(&m), contents, "{}: memory", case.name);

        m.bus.refused.clear();
        m.run_to_hlt();
        assert_eq!(
            Gpr::ALL.map(|r| m.cpu.state.gpr(r)),
            Gpr::ALL.map(|r| undisturbed.cpu.state.gpr(r)),
            "{}: registers after the restart",
            case.name
        );
        assert_eq!(m.cpu.state.flags.get(), undisturbed.cpu.state.flags.get(), "{}", case.name);
        assert_eq!(memory(&m), memory(&undisturbed), "{}", case.name);
    }
}

#[test]
fn a_repeated_move_keeps_what_it_did_before_the_refused_page() {
    for step in [1u64, 8] {
        let opcode = if step == 1 { vec![0xF3, 0xA4, 0xF4] } else { vec![0xF3, 0x48, 0xA5, 0xF4] };
        let mut m = Machine::long();
        m.code(&opcode);
        for n in 0..0x400 {
            m.poke(layout::DATA + 8 * n, n + 1);
        }
        let target = layout::DATA + 0x4000;
        m.cpu.state.set_gpr(Gpr::Rsi, layout::DATA);
        m.cpu.state.set_gpr(Gpr::Rdi, target);
        m.cpu.state.set_gpr(Gpr::Rcx, 0x2000 / step);
        m.bus.refused.push((target + 0x1000, Access::Write));
        let Exit::Refused(fault) = m.run() else { panic!("the second page is refused") };
        assert_eq!(fault.gla, target + 0x1000);
        assert_eq!(m.cpu.state.gpr(Gpr::Rcx), 0x1000 / step);
        assert_eq!(m.cpu.state.gpr(Gpr::Rdi), target + 0x1000);
        assert_eq!(m.cpu.state.gpr(Gpr::Rsi), layout::DATA + 0x1000);
        m.bus.refused.clear();
        m.run_to_hlt();
        assert_eq!(m.cpu.state.gpr(Gpr::Rcx), 0);
        for n in 0..0x400 {
            assert_eq!(m.peek(target + 8 * n), n + 1);
        }
    }
}

#[test]
fn a_repeated_move_onto_itself_repeats_its_pattern() {
    let mut m = Machine::long();
    m.code(&[0xF3, 0xA4, 0xF4]);
    m.poke(layout::DATA, 0x0000_0000_00CC_BBAA);
    m.cpu.state.set_gpr(Gpr::Rsi, layout::DATA);
    m.cpu.state.set_gpr(Gpr::Rdi, layout::DATA + 3);
    m.cpu.state.set_gpr(Gpr::Rcx, 9);
    m.run_to_hlt();
    assert_eq!(m.peek(layout::DATA), 0xBBAA_CCBB_AACC_BBAA);
}

#[test]
fn a_refused_fetch_names_the_instruction_and_the_second_page_of_one() {
    let mut m = Machine::long();
    let start = layout::CODE + 0xFFC;
    m.write(start, &[0x48, 0xB8, 1, 2, 3, 4, 5, 6, 7, 8, 0xF4]);
    m.cpu.state.set_rip(start);
    m.bus.refused.push((layout::CODE + 0x1000, Access::Execute));
    let Exit::Refused(fault) = m.run() else { panic!("the second page is refused") };
    assert_eq!((fault.access, fault.gla), (Access::Execute, layout::CODE + 0x1000));
    assert_eq!(m.cpu.state.rip(), start);
    m.bus.refused.clear();
    m.run_to_hlt();
    assert_eq!(m.cpu.state.gpr(Gpr::Rax), 0x0807_0605_0403_0201);
}

#[test]
fn code_changed_from_outside_is_seen_at_the_next_block() {
    let mut m = Machine::long();
    m.code(&[0x48, 0xFF, 0xC0, 0xEB, 0xFB]);
    assert_eq!(m.run_for(100), Exit::BudgetExhausted);
    assert_eq!(m.cpu.state.gpr(Gpr::Rax), 50);
    m.write(layout::CODE + 2, &[0xC3]); // inc rax becomes inc rbx
    assert_eq!(m.run_for(100), Exit::BudgetExhausted);
    assert_eq!((m.cpu.state.gpr(Gpr::Rax), m.cpu.state.gpr(Gpr::Rbx)), (50, 50));
}

#[test]
fn a_budget_is_exact() {
    for budget in 0..12 {
        let mut m = Machine::long();
        m.code(&[0x48, 0xFF, 0xC0, 0x48, 0xFF, 0xC3, 0xEB, 0xF8]);
        assert_eq!(m.run_for(budget), Exit::BudgetExhausted);
        assert_eq!(m.cpu.retired(), budget);
        assert_eq!(m.cpu.state.gpr(Gpr::Rax) + m.cpu.state.gpr(Gpr::Rbx), budget - budget / 3);
    }
}
