//! What firmware leaves in memory for the processors: page tables, descriptors and the parking code.
//!
//! Every processor begins in 64-bit mode at privilege level 0, with interrupts off, its stack pointer undefined, and
//! all physical addresses below 512 GiB mapped to themselves. That is the state that the 64-bit Linux boot protocol asks
//! for, and that the multiprocessor wake-up mailbox promises.

use tdvisor_base::Hpa;
use x86_arch::{Attributes, CpuState, Seg, cr0, cr4, efer};

use crate::layout::FIRMWARE;

/// The root of the page tables; the next page is the table below it.
const PML4: u64 = FIRMWARE;
const PDPT: u64 = FIRMWARE + 0x1000;
const GDT: u64 = FIRMWARE + 0x2000;
/// Where a processor that goes offline jumps to.
pub const RESET_VECTOR: u64 = FIRMWARE + 0x3000;

/// A write to this port parks the processor that writes.
pub const PARK_PORT: u16 = 0x50A;

const PRESENT_WRITABLE: u64 = 0b11;
const LARGE: u64 = 1 << 7;

/// Selectors as the Linux boot protocol has them.
const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;
/// Null, unused, 64-bit code, flat data.
const DESCRIPTORS: [u64; 4] = [0, 0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF];

/// The parking code: `mov dx, PARK_PORT; out dx, al; cli; hlt; jmp` back.
const PARKING: [u8; 9] = {
    let [low, high] = PARK_PORT.to_le_bytes();
    [0x66, 0xBA, low, high, 0xEE, 0xFA, 0xF4, 0xEB, 0xF7]
};

/// What is to be written, and where.
pub fn contents() -> Vec<(Hpa, Vec<u8>)> {
    let bytes = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let pages: Vec<u64> = (0..512u64).map(|gib| gib << 30 | LARGE | PRESENT_WRITABLE).collect();
    vec![
        (Hpa::new(PML4), bytes(&[PDPT | PRESENT_WRITABLE])),
        (Hpa::new(PDPT), bytes(&pages)),
        (Hpa::new(GDT), bytes(&DESCRIPTORS)),
        (Hpa::new(RESET_VECTOR), PARKING.to_vec()),
    ]
}

/// The state in which a processor begins at this physical address.
pub fn entry_state(entry: u64) -> CpuState {
    let mut state = CpuState::default();
    state.control.cr3 = PML4;
    state.control.cr4 = cr4::PAE;
    // No-execute is on, as UEFI firmware leaves it: Linux's trampoline does not turn it on where a mailbox starts
    // a processor, and its page tables use it.
    state.control.efer = efer::LME | efer::LMA | efer::NXE;
    state.control.cr0 |= cr0::PG | cr0::WP;
    state.gdtr.base = GDT;
    state.gdtr.limit = (size_of_val(&DESCRIPTORS) - 1) as u16;
    let code = state.segment_mut(Seg::Cs);
    code.selector = CODE_SELECTOR;
    code.attributes = Attributes::CODE64;
    for data in [Seg::Ds, Seg::Es, Seg::Ss] {
        state.segment_mut(data).selector = DATA_SELECTOR;
    }
    state.set_rip(entry);
    state
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::CONVERTIBLE;

    #[test]
    fn firmware_stays_in_its_range_and_nothing_overlaps() {
        let contents = contents();
        let mut last = FIRMWARE;
        for (at, bytes) in &contents {
            assert!(at.get() >= last && at.get() + bytes.len() as u64 <= CONVERTIBLE, "{at}");
            last = at.get() + bytes.len() as u64;
        }
    }

    #[test]
    fn the_parking_code_jumps_back_to_its_port_write() {
        let jump = PARKING.len() as i64;
        assert_eq!(jump + i64::from(PARKING[8] as i8), 0);
        assert_eq!(PARKING[4], 0xEE, "OUT DX, AL");
    }
}
