//! A guest's memory, as a debugger sees it: through the guest's own page tables and both EPTs, without a trace.

use tdvisor_base::{Gpa, Hpa, KeyId, PAGE_SIZE};
use x86_arch::{Access, CpuState};
use x86_emu::guest_physical;

use super::DebugPort;
use crate::machine::{GuestSpace, Machine};

/// Where a piece of memory is, and how far it reaches.
struct Place {
    hpa: Hpa,
    key: KeyId,
    bytes: usize,
}

impl DebugPort {
    /// Reads what a processor's guest has at a linear address. The bytes read: fewer where a page is not mapped, has not
    /// been accepted, or cannot be read.
    pub fn read_memory(&self, machine: &Machine, lp: usize, linear: u64, out: &mut [u8]) -> usize {
        let mut done = 0;
        while let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let Some(place) = self.place(machine, lp, linear.wrapping_add(done as u64), Access::Read) else {
                break;
            };
            let Some(piece) = rest.get_mut(..place.bytes.min(rest.len())) else { break };
            let count = piece.len();
            if machine.memory().read(place.hpa, place.key, piece).is_err() {
                break;
            }
            done += count;
        }
        done
    }

    /// Writes into a guest's memory at a linear address. The bytes written: fewer where a page is not mapped, has not been
    /// accepted, or cannot be written.
    pub fn write_memory(&self, machine: &Machine, lp: usize, linear: u64, data: &[u8]) -> usize {
        let mut done = 0;
        while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
            let Some(place) = self.place(machine, lp, linear.wrapping_add(done as u64), Access::Write) else {
                break;
            };
            let Some(piece) = rest.get(..place.bytes.min(rest.len())) else { break };
            if machine.memory().write(place.hpa, place.key, piece).is_err() {
                break;
            }
            done += piece.len();
        }
        done
    }

    fn place(&self, machine: &Machine, lp: usize, linear: u64, access: Access) -> Option<Place> {
        let (state, space) = self.view(lp)?;
        let load = |gpa: Gpa| {
            let (hpa, key) = machine.look_up(&space, gpa, Access::WalkRead)?;
            machine.memory().load(hpa, key).ok()
        };
        let gpa = guest_physical(&state, linear, load)?;
        let (hpa, key) = machine.look_up(&space, gpa, access)?;
        Some(Place { hpa, key, bytes: (PAGE_SIZE - linear % PAGE_SIZE) as usize })
    }

    /// The state of a processor's guest, and its memory.
    fn view(&self, lp: usize) -> Option<(CpuState, GuestSpace)> {
        let inner = self.lock();
        let processor = inner.processors.get(lp)?;
        Some((processor.state.as_deref()?.clone(), processor.space?))
    }
}
