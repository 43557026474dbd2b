//! What is saved is what is loaded, and no two fields share a byte.

use phys_memory::{Arena, KeySpace};
use tdvisor_base::Pfn;
use x86_arch::{Event, EventKind, Shadow};

use super::*;
use crate::fields::FieldPage;
use crate::module::random::Random;

/// Pages of a TDVPS that hold CPU state.
const PAGES: usize = 6;

struct Pages<'m>([FieldPage<'m>; PAGES]);

impl FieldStore for Pages<'_> {
    fn load(&self, offset: u32, width: Width) -> u64 {
        self.0[(offset >> 12) as usize].load(offset & 0xfff, width)
    }
    fn store(&self, offset: u32, width: Width, value: u64) {
        self.0[(offset >> 12) as usize].store(offset & 0xfff, width, value);
    }
}

fn any_segment(next: &mut impl FnMut() -> u64) -> Segment {
    Segment {
        selector: next() as u16,
        base: next(),
        limit: next() as u32,
        attributes: Attributes(next() as u32),
    }
}

fn any_event(next: &mut impl FnMut() -> u64) -> Option<Event> {
    let kinds = [
        EventKind::ExternalInterrupt,
        EventKind::Nmi,
        EventKind::HardwareException,
        EventKind::SoftwareInterrupt,
        EventKind::PrivilegedSoftwareException,
        EventKind::SoftwareException,
    ];
    let kind = kinds.get(next() as usize % 8).copied()?;
    let error_code = (next() & 1 != 0).then_some(next() as u32);
    Some(Event { vector: next() as u8, kind, error_code, instruction_length: next() as u8 & 15 })
}

/// Any state that a vCPU can have between two instructions.
fn any_state(next: &mut impl FnMut() -> u64) -> CpuState {
    let mut x87 = X87State {
        control: next() as u16,
        status: next() as u16,
        tags: next() as u8,
        opcode: next() as u16,
        instruction: next(),
        data: next(),
        registers: [0; 8],
    };
    for n in 0..8 {
        x87.set_st(n, u128::from(next()) << 64 | u128::from(next()));
    }
    let mut state = CpuState {
        segments: std::array::from_fn(|_| any_segment(next)),
        ldtr: any_segment(next),
        tr: any_segment(next),
        gdtr: TableRegister { base: next(), limit: next() as u16 },
        idtr: TableRegister { base: next(), limit: next() as u16 },
        control: ControlRegisters {
            cr0: next(),
            cr2: next(),
            cr3: next(),
            cr4: next(),
            cr8: next() & 15,
            efer: next(),
            xcr0: next(),
        },
        msrs: Msrs {
            star: next(),
            lstar: next(),
            cstar: 0,
            fmask: next(),
            kernel_gs_base: next(),
            sysenter_cs: next(),
            sysenter_esp: next(),
            sysenter_eip: next(),
            tsc_aux: next(),
            pat: next(),
            xss: next(),
            debugctl: next(),
            spec_ctrl: next(),
        },
        debug: DebugRegisters { address: std::array::from_fn(|_| next()), dr6: next(), dr7: next() },
        simd: SimdState {
            x87,
            mxcsr: next() as u32,
            xmm: std::array::from_fn(|_| u128::from(next()) << 64 | u128::from(next())),
            ymm_high: std::array::from_fn(|_| u128::from(next()) << 64 | u128::from(next())),
        },
        pkru: next() as u32,
        interruptibility: Interruptibility {
            shadow: [Shadow::None, Shadow::Sti, Shadow::MovSs][next() as usize % 3],
            nmi_blocked: next() & 1 != 0,
        },
        activity: Activity::unpack(next() as u32 & 3),
        event: any_event(next),
        ..CpuState::default()
    };
    for index in 0..16 {
        state.set_gpr(Gpr::from_index(index), next());
    }
    state.set_rip(next());
    state.flags.set(next());
    state
}

fn with_pages(test: impl FnOnce(&Pages<'_>)) {
    let memory = Arena::new(2 << 20, KeySpace::SHARED_ONLY);
    let page = |n: usize| FieldPage::new(memory.table(Pfn::new(n as u64 + 3)).unwrap());
    test(&Pages(std::array::from_fn(page)));
}

#[test]
fn a_saved_state_is_loaded_as_it_was_whatever_it_was() {
    with_pages(|pages| {
        let random = Random::new(0x5eed);
        let mut next = || random.next();
        for round in 0..500 {
            let state = any_state(&mut next);
            // x87, SSE, AVX, PKRU.
            pages.store_u64(tdvps::XFAM, 0x207);
            save(pages, &state);
            assert_eq!(load(pages), state, "round {round}");
        }
    });
}

#[test]
fn no_two_fields_of_the_state_share_a_byte() {
    let mut seen = std::collections::BTreeMap::new();
    CPU.each(&mut |row, offset, n| {
        for byte in offset..offset + row.width as u32 {
            if let Some(other) = seen.insert(byte, (row.offset, n)) {
                panic!("byte {byte:#x} belongs to {other:x?} and to {:x?}", (row.offset, n));
            }
        }
    });
    assert!(seen.len() > 900, "the table is whole: {} bytes", seen.len());
}
