//! Memory as a debugger sees it, without a trace: a guest's through its own page tables and both EPTs, a host's through its page
//! tables.

use std::ops::Range;
use std::sync::Arc;

use tdvisor_base::{Gpa, Hpa, KeyId, PAGE_SIZE};
use x86_arch::{Access, CpuState};
use x86_emu::guest_physical;

use super::DebugPort;
use crate::machine::{GuestSpace, Machine};

/// The memory that a processor's instructions see.
#[derive(Clone, Debug)]
pub struct Space(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Guest(GuestSpace),
    Host(HostMemory),
}

/// Where a host has memory: neither devices, nor what is the TDX module's own.
#[derive(Clone, Debug)]
pub struct HostMemory(Arc<[Range<u64>]>);

impl HostMemory {
    /// Memory in these ranges.
    #[must_use]
    pub fn new(ranges: &[Range<u64>]) -> Self {
        Self(ranges.into())
    }
}

impl Space {
    pub(super) const fn of_guest(space: GuestSpace) -> Self {
        Self(Kind::Guest(space))
    }

    /// The memory of a host.
    #[must_use]
    pub const fn of_host(memory: HostMemory) -> Self {
        Self(Kind::Host(memory))
    }

    fn look_up(&self, machine: &Machine, gpa: Gpa, access: Access) -> Option<(Hpa, KeyId)> {
        match &self.0 {
            Kind::Guest(space) => machine.look_up(space, gpa, access),
            Kind::Host(memory) => {
                let (hpa, key) = machine.split_pa(gpa.get());
                // A key of TDs is a reserved bit of a host's address.
                let is_private = machine.config().private_hkids.contains(&key.get());
                let is_there = memory.0.iter().any(|range| range.contains(&hpa.get()));
                (is_there && !is_private).then_some((hpa, key))
            }
        }
    }
}

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
            let (hpa, key) = space.look_up(machine, gpa, Access::WalkRead)?;
            machine.memory().load(hpa, key).ok()
        };
        let gpa = guest_physical(&state, linear, load)?;
        let (hpa, key) = space.look_up(machine, gpa, access)?;
        Some(Place { hpa, key, bytes: (PAGE_SIZE - linear % PAGE_SIZE) as usize })
    }

    /// The state of a processor's guest, and its memory.
    fn view(&self, lp: usize) -> Option<(CpuState, Space)> {
        let inner = self.lock();
        let processor = inner.processors.get(lp)?;
        Some((processor.state.as_deref()?.clone(), processor.space.clone()?))
    }
}
