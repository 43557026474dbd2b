//! Looking at a guest from outside: its page tables walked without a trace.

use tdvisor_base::Gpa;
use x86_arch::{CpuState, cr0, cr4};

use crate::paging::{ADDRESS, PAGE_SIZE, PRESENT};

/// Where a linear address of a guest lies in its physical memory: paging as the state has it, without rights, without
/// Accessed and Dirty bits, without the TLB. `load` reads eight aligned bytes of the guest's physical memory.
///
/// `None`: nothing is mapped there, a table cannot be read, or the guest pages in a mode that this CPU does not implement.
pub fn guest_physical(
    state: &CpuState,
    linear: u64,
    mut load: impl FnMut(Gpa) -> Option<u64>,
) -> Option<Gpa> {
    if state.control.cr0 & cr0::PG == 0 {
        return Some(Gpa::new(linear & 0xFFFF_FFFF));
    }
    if !state.is_ia32e() {
        return None;
    }
    let mut level = if state.control.cr4 & cr4::LA57 != 0 { 5 } else { 4 };
    let mut table = state.control.cr3 & ADDRESS;
    loop {
        level -= 1;
        let shift = 12 + 9 * level;
        let entry = load(Gpa::new(table + (linear >> shift & 511) * 8))?;
        if entry & PRESENT == 0 {
            return None;
        }
        if level == 0 || entry & PAGE_SIZE != 0 {
            let inside = (1u64 << shift) - 1;
            return Some(Gpa::new(entry & ADDRESS & !inside | linear & inside));
        }
        table = entry & ADDRESS;
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Machine, layout};

    use super::*;

    #[test]
    fn an_address_leads_where_the_cpu_goes_and_nothing_is_marked() {
        let m = Machine::long();
        let load = |gpa: Gpa| Some(m.peek(gpa.get()));
        assert_eq!(guest_physical(&m.cpu.state, layout::DATA + 5, load), Some(Gpa::new(layout::DATA + 5)));
        let leaf = layout::PT + 8 * (layout::DATA >> 12);
        assert_eq!(m.peek(leaf), layout::DATA | 3, "no Accessed bit");
        m.poke(leaf, 0);
        assert_eq!(guest_physical(&m.cpu.state, layout::DATA + 5, load), None);
        assert_eq!(guest_physical(&m.cpu.state, layout::CODE, |_| None), None, "a table out of reach");
    }

    #[test]
    fn without_paging_an_address_is_itself() {
        let state = CpuState::default();
        assert_eq!(guest_physical(&state, 0x1_0000_1234, |_| None), Some(Gpa::new(0x1234)));
    }
}
