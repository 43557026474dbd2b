//! Data accesses by linear address.
//!
//! # Invariants
//! - The fast path is one TLB probe and one arena access; it is taken only inside one page.
//! - An access across two pages translates both before it touches either, so a fault changes nothing.
//! - A read-modify-write translates for writing before it reads, and commits flags after its store.
//! - After a store into a page with decoded code, `attention` ends the running block.

use phys_memory::{Atomic, MemoryFault, StoreEffect};
use tdvisor_base::{Gpa, Hpa, KeyId};

use crate::bus::Refused;
use crate::cpu::{Cpu, Env};
use crate::exits::RefusedBy;
use crate::op::Intent;
use crate::paging::Want;
use crate::stop::{Step, Stop};
use crate::tlb::View;
use x86_arch::{Access, Event, Width, flags::Flags, vector};

const OFFSET: u64 = 0xFFF;
const PAGE: u64 = 4096;

/// Where part of an operand is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) hpa: Hpa,
    pub(crate) key: KeyId,
}

/// Who answers at an address.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    Memory(Place),
    /// A device, at this byte.
    Device(Gpa),
}

/// An operand that may lie in two pages.
#[derive(Clone, Copy, Debug)]
struct Span {
    first: Target,
    first_bytes: usize,
    second: Target,
}

impl Cpu {
    /// Translates one linear address, where memory has to answer: code, locked accesses, descriptors.
    #[inline(always)]
    pub(crate) fn place(
        &mut self,
        env: &mut Env<'_>,
        linear: u64,
        want: Want,
        view: View,
    ) -> Result<Place, Stop> {
        match self.target_of(env, linear, want, view)? {
            Target::Memory(place) => Ok(place),
            Target::Device(_) => Err(self.unimplemented("a device in the place of memory")),
        }
    }

    /// Translates one linear address.
    #[inline(always)]
    pub(crate) fn target_of(
        &mut self,
        env: &mut Env<'_>,
        linear: u64,
        want: Want,
        view: View,
    ) -> Result<Target, Stop> {
        let (entry, tag) = self.tlb.probe(view, linear);
        let have = match want {
            Want::Read => entry.read,
            Want::Write => entry.write,
            Want::Execute => entry.execute,
        };
        if have == tag {
            return Ok(Target::Memory(entry.place(linear)));
        }
        self.find(env, linear, want, view)
    }

    /// The linear address `linear + offset`, wrapping at 4 GiB outside 64-bit mode.
    fn further(&self, linear: u64, offset: u64) -> u64 {
        let sum = linear.wrapping_add(offset);
        if self.is_long_mode() { sum } else { sum & 0xFFFF_FFFF }
    }

    fn span(
        &mut self,
        env: &mut Env<'_>,
        linear: u64,
        bytes: usize,
        want: Want,
        view: View,
    ) -> Result<Span, Stop> {
        let first = self.target_of(env, linear, want, view)?;
        let room = (PAGE - (linear & OFFSET)) as usize;
        if room >= bytes {
            return Ok(Span { first, first_bytes: bytes, second: first });
        }
        let next = self.further(linear, room as u64);
        let second = self.target_of(env, next, want, view)?;
        // The second translation may have evicted or changed what the first one found.
        let first = self.target_of(env, linear, want, view)?;
        Ok(Span { first, first_bytes: room, second })
    }

    #[cold]
    fn refused(&mut self, fault: MemoryFault, linear: u64, access: Access) -> Stop {
        let gpa = self
            .tlb
            .entries()
            .find(|e| e.linear == Some(linear & !OFFSET))
            .map_or(Gpa::new(0), |e| e.gpa.wrapping_add(linear & OFFSET));
        self.memory_fault(fault, gpa, access, linear)
    }

    pub(crate) fn note(&mut self, effect: StoreEffect) {
        if effect == StoreEffect::CodeModified {
            self.attention = true;
        }
    }

    /// Reads an operand that lies in one page which the TLB holds.
    #[inline(always)]
    pub(crate) fn quick_load<W: FromBytes>(&self, env: &Env<'_>, linear: u64) -> Option<W> {
        let (entry, tag) = self.tlb.probe(self.view, linear);
        if entry.read != tag {
            return None;
        }
        env.mem.load::<W>(entry.hpa.wrapping_add(linear & OFFSET), entry.key).ok()
    }

    /// Writes an operand to one page which the TLB holds; nothing was written otherwise.
    #[inline(always)]
    pub(crate) fn quick_store<W: FromBytes>(&mut self, env: &Env<'_>, linear: u64, value: W) -> bool {
        let (entry, tag) = self.tlb.probe(self.view, linear);
        if entry.write != tag {
            return false;
        }
        match env.mem.store::<W>(entry.hpa.wrapping_add(linear & OFFSET), entry.key, value) {
            Ok(effect) => {
                self.note(effect);
                true
            }
            Err(_) => false,
        }
    }

    /// Reads an operand.
    #[inline(always)]
    pub(crate) fn load<W: FromBytes>(&mut self, env: &mut Env<'_>, linear: u64) -> Result<W, Stop> {
        match self.quick_load(env, linear) {
            Some(value) => Ok(value),
            None => self.load_slow(env, linear, self.view),
        }
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn load_slow<W: FromBytes>(
        &mut self,
        env: &mut Env<'_>,
        linear: u64,
        view: View,
    ) -> Result<W, Stop> {
        self.check_alignment(linear, size_of::<W>(), view)?;
        if linear & OFFSET <= PAGE - size_of::<W>() as u64
            && let Target::Memory(place) = self.target_of(env, linear, Want::Read, view)?
        {
            self.meet(linear, size_of::<W>(), Intent::Read);
            return env.mem.load(place.hpa, place.key).map_err(|f| self.refused(f, linear, Access::Read));
        }
        let mut bytes = [0u8; 16];
        if let Some(part) = bytes.get_mut(..size_of::<W>()) {
            self.read_bytes(env, linear, part, Want::Read, view)?;
        }
        Ok(W::from_low_bytes(u128::from_le_bytes(bytes)))
    }

    /// Reads up to one page of bytes.
    pub(crate) fn read_bytes(
        &mut self,
        env: &mut Env<'_>,
        linear: u64,
        out: &mut [u8],
        want: Want,
        view: View,
    ) -> Step {
        let span = self.span(env, linear, out.len(), want, view)?;
        if want == Want::Read {
            self.meet(linear, out.len(), Intent::Read);
        }
        let (first, second) = out.split_at_mut(span.first_bytes.min(out.len()));
        self.read_part(env, linear, span.first, first)?;
        self.read_part(env, linear, span.second, second)
    }

    fn read_part(&mut self, env: &mut Env<'_>, linear: u64, target: Target, out: &mut [u8]) -> Step {
        if out.is_empty() {
            return Ok(());
        }
        match target {
            Target::Memory(place) => env
                .mem
                .read(place.hpa, place.key, out)
                .map_err(|fault| self.refused(fault, linear, Access::Read)),
            Target::Device(gpa) => env
                .bus
                .load(gpa, out)
                .map_err(|refused| self.refused_by_device(gpa, linear, Access::Read, refused)),
        }
    }

    fn write_part(&mut self, env: &mut Env<'_>, linear: u64, target: Target, data: &[u8]) -> Step {
        if data.is_empty() {
            return Ok(());
        }
        match target {
            Target::Memory(place) => {
                let effect = env
                    .mem
                    .write(place.hpa, place.key, data)
                    .map_err(|fault| self.refused(fault, linear, Access::Write))?;
                self.note(effect);
                Ok(())
            }
            Target::Device(gpa) => env
                .bus
                .store(gpa, data)
                .map_err(|refused| self.refused_by_device(gpa, linear, Access::Write, refused)),
        }
    }

    #[cold]
    fn refused_by_device(&mut self, gpa: Gpa, linear: u64, access: Access, refused: Refused) -> Stop {
        self.refused_access(gpa, access, linear, RefusedBy::Bus(refused))
    }

    /// Writes up to one page of bytes; both pages are translated before the first byte.
    pub(crate) fn write_bytes(&mut self, env: &mut Env<'_>, linear: u64, data: &[u8], view: View) -> Step {
        let span = self.span(env, linear, data.len(), Want::Write, view)?;
        self.meet(linear, data.len(), Intent::Write);
        let (first, second) = data.split_at(span.first_bytes.min(data.len()));
        self.write_part(env, linear, span.first, first)?;
        self.write_part(env, linear, span.second, second)
    }

    /// Writes an operand.
    #[inline(always)]
    pub(crate) fn store<W: FromBytes>(&mut self, env: &mut Env<'_>, linear: u64, value: W) -> Step {
        if self.quick_store(env, linear, value) {
            return Ok(());
        }
        self.store_slow(env, linear, value, self.view)
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn store_slow<W: FromBytes>(
        &mut self,
        env: &mut Env<'_>,
        linear: u64,
        value: W,
        view: View,
    ) -> Step {
        self.check_alignment(linear, size_of::<W>(), view)?;
        if linear & OFFSET <= PAGE - size_of::<W>() as u64
            && let Target::Memory(place) = self.target_of(env, linear, Want::Write, view)?
        {
            self.meet(linear, size_of::<W>(), Intent::Write);
            let effect = env
                .mem
                .store::<W>(place.hpa, place.key, value)
                .map_err(|f| self.refused(f, linear, Access::Write))?;
            self.note(effect);
            return Ok(());
        }
        let bytes = value.to_low_bytes().to_le_bytes();
        let part = bytes.get(..size_of::<W>()).unwrap_or(&bytes);
        self.write_bytes(env, linear, part, view)
    }

    /// #AC for an access that alignment checks forbid (SDM vol. 3, "Alignment Check Exception"). Operands of other sizes
    /// than these have rules of their own, under which a misaligned one is #GP or allowed.
    fn check_alignment(&mut self, linear: u64, bytes: usize, view: View) -> Step {
        if view == View::UserAligned && matches!(bytes, 2 | 4 | 8) && linear & (bytes as u64 - 1) != 0 {
            return Err(self.raise(Event::exception_with_code(vector::AC, 0)));
        }
        Ok(())
    }

    /// Checks that a later store of this size cannot fault.
    pub(crate) fn prepare_store(&mut self, env: &mut Env<'_>, linear: u64, bytes: usize) -> Step {
        self.check_alignment(linear, bytes, self.view)?;
        self.span(env, linear, bytes, Want::Write, self.view).map(drop)
    }

    /// Replaces an operand by a function of it and of the flags, without atomicity.
    #[inline(always)]
    pub(crate) fn modify<W: Width + FromBytes>(
        &mut self,
        env: &mut Env<'_>,
        linear: u64,
        mut update: impl FnMut(&mut Flags, W) -> W,
    ) -> Step {
        let (entry, tag) = self.tlb.probe(self.view, linear);
        if entry.write == tag {
            let hpa = entry.hpa.wrapping_add(linear & OFFSET);
            let mut flags = self.state.flags;
            if let Ok(effect) = env.mem.update::<W>(hpa, entry.key, |old| update(&mut flags, old)) {
                self.note(effect);
                self.state.flags = flags;
                return Ok(());
            }
        }
        self.prepare_store(env, linear, size_of::<W>())?;
        let old = self.load_slow::<W>(env, linear, self.view)?;
        let mut flags = self.state.flags;
        let new = update(&mut flags, old);
        self.store_slow(env, linear, new, self.view)?;
        self.state.flags = flags;
        Ok(())
    }

    /// Replaces an operand by a function of it and of the flags, in one locked operation. `update` may run more than once.
    pub(crate) fn modify_locked<W: Width + FromBytes>(
        &mut self,
        env: &mut Env<'_>,
        linear: u64,
        mut update: impl FnMut(&mut Flags, W) -> W,
    ) -> Step {
        self.check_alignment(linear, size_of::<W>(), self.view)?;
        if linear & OFFSET > PAGE - W::BYTES {
            let memory = env.mem;
            let _bus = memory.lock_bus();
            return self.modify(env, linear, update);
        }
        let Target::Memory(place) = self.target_of(env, linear, Want::Write, self.view)? else {
            // The bus takes a device's accesses one after the other.
            return self.modify(env, linear, update);
        };
        self.meet(linear, size_of::<W>(), Intent::Write);
        let before = self.state.flags;
        let mut after = before;
        let done = env.mem.fetch_update::<W>(place.hpa, place.key, |old| {
            after = before;
            update(&mut after, old)
        });
        let (_, effect) = done.map_err(|f| self.refused(f, linear, Access::Write))?;
        self.note(effect);
        self.state.flags = after;
        Ok(())
    }

    /// One LOCK CMPXCHG; gives what was found.
    pub(crate) fn exchange_if<W: FromBytes>(
        &mut self,
        env: &mut Env<'_>,
        linear: u64,
        current: W,
        new: W,
    ) -> Result<W, Stop> {
        self.check_alignment(linear, size_of::<W>(), self.view)?;
        if linear & OFFSET > PAGE - size_of::<W>() as u64 {
            let memory = env.mem;
            let _bus = memory.lock_bus();
            self.prepare_store(env, linear, size_of::<W>())?;
            let found: W = self.load(env, linear)?;
            self.store(env, linear, if found == current { new } else { found })?;
            return Ok(found);
        }
        let Target::Memory(place) = self.target_of(env, linear, Want::Write, self.view)? else {
            let found: W = self.load(env, linear)?;
            // As on hardware, there is a write in either case.
            self.store(env, linear, if found == current { new } else { found })?;
            return Ok(found);
        };
        self.meet(linear, size_of::<W>(), Intent::Write);
        let (found, _, effect) = env
            .mem
            .compare_exchange::<W>(place.hpa, place.key, current, new)
            .map_err(|f| self.refused(f, linear, Access::Write))?;
        self.note(effect);
        Ok(found)
    }

    /// The view of accesses that the CPU makes on its own behalf (descriptor tables, TSS, IDT stacks).
    pub(crate) fn system_view(&self) -> View {
        if self.state.control.cr4 & x86_arch::cr4::SMAP != 0 {
            View::Supervisor
        } else {
            View::SupervisorNoSmap
        }
    }

    /// Reads from a descriptor table or the TSS.
    pub(crate) fn load_system<W: FromBytes>(&mut self, env: &mut Env<'_>, linear: u64) -> Result<W, Stop> {
        let view = self.system_view();
        let met = self.met;
        let value = self.load_slow(env, linear, view);
        self.met = met;
        value
    }
}

/// A word as the low bytes of a 16-byte buffer.
pub(crate) trait FromBytes: Atomic {
    fn from_low_bytes(bytes: u128) -> Self;
    fn to_low_bytes(self) -> u128;
}

macro_rules! from_bytes {
    ($($word:ty),*) => {$(
        impl FromBytes for $word {
            #[inline(always)]
            fn from_low_bytes(bytes: u128) -> Self {
                bytes as $word
            }
            #[inline(always)]
            fn to_low_bytes(self) -> u128 {
                u128::from(self)
            }
        }
    )*};
}
from_bytes!(u8, u16, u32, u64, u128);
