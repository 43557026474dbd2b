//! What CPUs share: memory with LOCK, code that another CPU changes, and the owner's view of the caches.

use std::thread;

use tdvisor_base::sync::Ordering;
use tdvisor_base::{Gpa, Hpa, KeyId, Pfn};

use crate::engine::Engine;
use crate::exits::Exit;
use crate::testing::{Machine, layout};
use x86_arch::Gpr;

const TURNS: u64 = 20_000;

/// A second CPU on the memory of the first, with a stack of its own.
fn twin(of: &Machine) -> Machine {
    let mut other = Machine::long();
    other.bus.memory = of.bus.memory.clone();
    other.cpu.state.set_gpr(Gpr::Rsp, layout::STACK - 0x2000);
    other
}

fn run_both(code: &[u8]) -> u64 {
    let mut first = Machine::long();
    first.code(code);
    let mut second = twin(&first);
    thread::scope(|scope| {
        for m in [&mut first, &mut second] {
            m.cpu.state.set_gpr(Gpr::Rbx, layout::DATA);
            m.cpu.state.set_gpr(Gpr::Rcx, TURNS);
            scope.spawn(move || {
                let exit = m.run_for(u64::MAX);
                assert!(matches!(exit, Exit::Instruction { .. }), "{exit:?}");
            });
        }
    });
    first.peek(layout::DATA)
}

#[test]
fn locked_instructions_of_two_cpus_lose_no_update() {
    let cases: [(&str, &[u8]); 4] = [
        ("lock inc", &[0xF0, 0x48, 0xFF, 0x03, 0x48, 0xFF, 0xC9, 0x75, 0xF7, 0xF4]),
        // mov eax,1; lock xadd [rbx],rax; dec rcx; jnz
        ("lock xadd", &[0xB8, 1, 0, 0, 0, 0xF0, 0x48, 0x0F, 0xC1, 0x03, 0x48, 0xFF, 0xC9, 0x75, 0xF1, 0xF4]),
        // l: mov rax,[rbx]; lea rdx,[rax+1]; lock cmpxchg [rbx],rdx; jnz l; dec rcx; jnz l
        (
            "lock cmpxchg",
            &[
                0x48, 0x8B, 0x03, 0x48, 0x8D, 0x50, 0x01, 0xF0, 0x48, 0x0F, 0xB1, 0x13, 0x75, 0xF2, 0x48,
                0xFF, 0xC9, 0x75, 0xED, 0xF4,
            ],
        ),
        // A spin lock by xchg at [rbx+64] around a plain increment.
        (
            "xchg",
            &[
                0xB8, 1, 0, 0, 0, 0x87, 0x43, 0x40, 0x85, 0xC0, 0x75, 0xF4, 0x48, 0xFF, 0x03, 0xC7, 0x43,
                0x40, 0, 0, 0, 0, 0x48, 0xFF, 0xC9, 0x75, 0xE5, 0xF4,
            ],
        ),
    ];
    for (name, code) in cases {
        assert_eq!(run_both(code), 2 * TURNS, "{name}");
    }
}

#[test]
fn a_loop_that_another_cpu_rewrites_ends() {
    let mut looping = Machine::long();
    looping.code(&[0xEB, 0xFE]);
    let memory = looping.bus.memory.clone();
    thread::scope(|scope| {
        let kick = looping.kick.clone();
        let runner = scope.spawn(move || {
            loop {
                match looping.run_for(u64::MAX) {
                    Exit::ExternalInterrupt => looping.kick.store(false, Ordering::Relaxed),
                    exit => return exit,
                }
            }
        });
        // Whether the loop has begun or not: once it was told, it must see HLT.
        memory.write(Hpa::new(layout::CODE), KeyId::DEFAULT, &[0xF4, 0x90]).unwrap();
        kick.store(true, Ordering::Release);
        let exit = runner.join().unwrap();
        assert!(matches!(exit, Exit::Instruction { .. }), "{exit:?}");
    });
}

#[test]
fn a_loop_that_serialises_sees_what_another_cpu_wrote_into_it() {
    let mut looping = Machine::long();
    // serialize; jmp back to it
    looping.code(&[0x0F, 0x01, 0xE8, 0xEB, 0xFB]);
    let memory = looping.bus.memory.clone();
    assert_eq!(looping.run_for(100), Exit::BudgetExhausted);
    thread::scope(|scope| {
        let runner = scope.spawn(move || looping.run_for(u64::MAX));
        memory.write(Hpa::new(layout::CODE + 3), KeyId::DEFAULT, &[0xF4, 0x90]).unwrap();
        let exit = runner.join().unwrap();
        assert!(matches!(exit, Exit::Instruction { .. }), "{exit:?}");
    });
}

#[test]
fn the_owner_sees_every_cached_translation_and_no_flushed_one() {
    let mut m = Machine::long();
    m.code(&[0x48, 0x8B, 0x03, 0xF4]);
    m.cpu.state.set_gpr(Gpr::Rbx, layout::DATA);
    m.run_to_hlt();
    let data = Hpa::new(layout::DATA);
    let pages: Vec<_> = m.cpu.tlb.entries().filter(|e| e.hpa == data).collect();
    assert!(pages.iter().any(|e| e.linear == Some(layout::DATA) && !e.writable));
    assert!(pages.iter().any(|e| e.linear.is_none() && e.gpa == Gpa::new(layout::DATA)));
    let code = Pfn::new(layout::CODE >> 12);
    assert!(m.engine.reachable_code(&m.cpu).any(|(rip, pfn)| rip == layout::CODE && pfn == code));

    m.cpu.tlb.flush_guest_page(Gpa::new(layout::DATA));
    assert!(m.cpu.tlb.entries().all(|e| e.hpa != data));
    m.cpu.tlb.flush_all();
    assert_eq!(m.cpu.tlb.entries().count(), 0);
    assert_eq!(m.engine.reachable_code(&m.cpu).count(), 0);
}

#[test]
fn many_flushes_never_bring_an_old_translation_back() {
    let mut m = Machine::long();
    m.code(&[0x48, 0x8B, 0x03, 0xF4]);
    m.cpu.state.set_gpr(Gpr::Rbx, layout::DATA);
    m.poke(layout::DATA, 1);
    m.poke(layout::DATA + 0x1000, 2);
    m.run_to_hlt();
    let entry = layout::PT + 8 * (layout::DATA >> 12);
    m.poke(entry, (layout::DATA + 0x1000) | 3);
    // The generation is 12 bits wide and must not come round to the old entry.
    for _ in 0..0x1000 {
        m.cpu.tlb.flush_linear();
    }
    m.cpu.state.set_rip(layout::CODE);
    m.run_to_hlt();
    assert_eq!(m.cpu.state.gpr(Gpr::Rax), 2);
}
