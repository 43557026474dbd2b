//! From linear to guest-physical addresses: 4- and 5-level paging (SDM vol. 3, chapter "Paging").
//!
//! # Invariants
//! - Rights are those of the whole path: a page is user or writable only if every entry says so.
//! - Accessed bits are set in every entry used, the Dirty bit in the leaf of a write, each by a locked
//!   compare-and-exchange; an entry that changed meanwhile restarts the walk.
//! - Nothing is cached here: the result goes into the [`crate::tlb::Tlb`].

use phys_memory::MemoryFault;
use tdvisor_base::{Gpa, Hpa, KeyId};

use crate::bus::{Answer, Translation};
use crate::cpu::{Cpu, Env};
use crate::exits::RefusedBy;
use crate::memory::{Place, Target};
use crate::stop::Stop;
use crate::tlb::{Fill, View};
use x86_arch::{Access, cr0, cr4, efer};

pub(crate) const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
pub(crate) const PAGE_SIZE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
pub(crate) const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

/// Bits of the page-fault error code.
mod code {
    pub(super) const PRESENT: u32 = 1;
    pub(super) const WRITE: u32 = 1 << 1;
    pub(super) const USER: u32 = 1 << 2;
    pub(super) const RESERVED: u32 = 1 << 3;
    pub(super) const FETCH: u32 = 1 << 4;
    pub(super) const PROTECTION_KEY: u32 = 1 << 5;
}

/// What the linear address is wanted for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Want {
    Read,
    Write,
    Execute,
}

impl Want {
    const fn access(self) -> Access {
        match self {
            Self::Read => Access::Read,
            Self::Write => Access::Write,
            Self::Execute => Access::Execute,
        }
    }
}

enum Refusal {
    /// With the error code.
    PageFault(u32),
    /// An entry changed while it was being updated.
    Retry,
    Stop(Stop),
}

impl From<Stop> for Refusal {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

struct Leaf {
    gpa: Gpa,
    read: bool,
    write: bool,
    execute: bool,
    dirty: bool,
    page_bytes: u64,
    global: bool,
}

impl Cpu {
    /// Whether a linear address is canonical for the paging mode.
    #[inline]
    pub(crate) fn canonical(&self, linear: u64) -> bool {
        let unused = if self.state.control.cr4 & cr4::LA57 != 0 { 64 - 57 } else { 64 - 48 };
        ((linear as i64) << unused >> unused) as u64 == linear
    }

    /// Walks the guest's tables for `linear`, asks the bus, and fills the TLB where memory answers.
    #[cold]
    pub(crate) fn find(
        &mut self,
        env: &mut Env<'_>,
        linear: u64,
        want: Want,
        view: View,
    ) -> Result<Target, Stop> {
        if let Some(entry) = self.tlb.older(view, linear)
            && entry.allows(want)
        {
            return Ok(Target::Memory(entry.place(linear)));
        }
        if self.is_long_mode() && !self.canonical(linear) {
            return Err(self.non_canonical());
        }
        loop {
            let leaf = match self.walk(env, linear, want, view) {
                Ok(leaf) => leaf,
                Err(Refusal::Retry) => continue,
                Err(Refusal::Stop(stop)) => return Err(stop),
                Err(Refusal::PageFault(error_code)) => return Err(self.page_fault(linear, error_code)),
            };
            let at = leaf.gpa.wrapping_add(linear & 0xFFF);
            let translation = match self.guest_page(env, at, want.access(), linear)? {
                Answer::Memory(translation) => translation,
                Answer::Device => return Ok(Target::Device(at)),
            };
            if view == View::UserAligned {
                return Ok(Target::Memory(Place { hpa: translation.byte(at), key: translation.key }));
            }
            let free = !self.breakpoints.watch_page(linear);
            let fill = Fill {
                gpa: leaf.gpa,
                translation,
                read: free && leaf.read && translation.readable,
                write: free && leaf.write && leaf.dirty && translation.writable,
                execute: leaf.execute && translation.executable,
                page_bytes: leaf.page_bytes,
                global: leaf.global,
            };
            let entry = self.tlb.fill(view, linear, &fill);
            return Ok(Target::Memory(entry.place(linear)));
        }
    }

    /// Finds out who answers at a guest-physical address, from the cache or from the bus.
    fn guest_page(
        &mut self,
        env: &mut Env<'_>,
        gpa: Gpa,
        access: Access,
        linear: u64,
    ) -> Result<Answer, Stop> {
        if let Some(cached) = self.tlb.guest(gpa)
            && cached.allows(access)
        {
            return Ok(Answer::Memory(*cached));
        }
        match env.bus.translate(gpa, access) {
            Ok(Answer::Memory(translation)) => {
                let page = Translation { hpa: translation.hpa.align_down(4096), ..translation };
                let page = page.allowing(access);
                self.tlb.fill_guest(gpa, page);
                Ok(Answer::Memory(page))
            }
            Ok(Answer::Device) => Ok(Answer::Device),
            Err(refused) => Err(self.refused_access(gpa, access, linear, RefusedBy::Bus(refused))),
        }
    }

    /// Finds the memory of a page-table entry.
    fn table_page(
        &mut self,
        env: &mut Env<'_>,
        gpa: Gpa,
        access: Access,
        linear: u64,
    ) -> Result<Translation, Stop> {
        match self.guest_page(env, gpa, access, linear)? {
            Answer::Memory(translation) => Ok(translation),
            Answer::Device => Err(self.unimplemented("page tables in a device")),
        }
    }

    /// A refusal by memory itself becomes a machine check for the owner.
    #[cold]
    pub(crate) fn memory_fault(&mut self, fault: MemoryFault, gpa: Gpa, access: Access, linear: u64) -> Stop {
        let (MemoryFault::OutOfRange(hpa) | MemoryFault::Misaligned(hpa) | MemoryFault::Integrity(hpa)) =
            fault;
        self.refused_access(gpa, access, linear, RefusedBy::Memory(hpa))
    }

    fn walk(&mut self, env: &mut Env<'_>, linear: u64, want: Want, view: View) -> Result<Leaf, Refusal> {
        if self.state.control.cr0 & cr0::PG == 0 {
            return Ok(Leaf {
                gpa: Gpa::new(linear & 0xFFFF_F000),
                read: true,
                write: true,
                execute: true,
                dirty: true,
                page_bytes: 4096,
                global: false,
            });
        }
        if !self.state.is_ia32e() {
            return Err(self.unimplemented("paging without IA-32e mode").into());
        }
        let user_access = view.is_user();
        let context = if user_access { code::USER } else { 0 }
            | match want {
                Want::Read => 0,
                Want::Write => code::WRITE,
                Want::Execute
                    if self.state.control.efer & efer::NXE != 0
                        || self.state.control.cr4 & cr4::SMEP != 0 =>
                {
                    code::FETCH
                }
                Want::Execute => 0,
            };
        let levels = if self.state.control.cr4 & cr4::LA57 != 0 { 5 } else { 4 };
        let mut table = Gpa::new(self.state.control.cr3 & ADDRESS);
        let mut path = WRITABLE | USER;
        let mut no_execute = false;
        let mut level = levels;
        loop {
            level -= 1;
            let shift = 12 + 9 * level;
            let at = table.wrapping_add((linear >> shift & 511) * 8);
            let home = self.table_page(env, at, Access::WalkRead, linear)?;
            let hpa = home.hpa.wrapping_add(at.page_offset());
            let entry: u64 = env
                .mem
                .load(hpa, home.key)
                .map_err(|fault| self.memory_fault(fault, at, Access::WalkRead, linear))?;
            if entry & PRESENT == 0 {
                return Err(Refusal::PageFault(context));
            }
            let leaf = level == 0 || entry & PAGE_SIZE != 0;
            if entry & self.reserved_bits(level, leaf) != 0 {
                return Err(Refusal::PageFault(context | code::PRESENT | code::RESERVED));
            }
            path &= entry;
            no_execute |= entry & NO_EXECUTE != 0;
            if !leaf {
                self.mark(env, at, hpa, home.key, entry, ACCESSED, linear)?;
                table = Gpa::new(entry & ADDRESS);
                continue;
            }
            let keyed = self.key_rights(entry, path & USER != 0, view);
            let rights = self.rights(path, no_execute, view);
            let rights = (rights.0 && keyed.read, rights.1 && keyed.write, rights.2);
            let granted = match want {
                Want::Read => rights.0,
                Want::Write => rights.1,
                Want::Execute => rights.2,
            };
            if !granted {
                let by_key = if keyed.denies(want) { code::PROTECTION_KEY } else { 0 };
                return Err(Refusal::PageFault(context | code::PRESENT | by_key));
            }
            let marks = if want == Want::Write { ACCESSED | DIRTY } else { ACCESSED };
            self.mark(env, at, hpa, home.key, entry, marks, linear)?;
            let inside = (1u64 << shift) - 1;
            return Ok(Leaf {
                gpa: Gpa::new(entry & ADDRESS & !inside | linear & inside & !0xFFF),
                read: rights.0,
                write: rights.1,
                execute: rights.2,
                dirty: (entry | marks) & DIRTY != 0,
                page_bytes: inside + 1,
                global: entry & GLOBAL != 0 && self.state.control.cr4 & cr4::PGE != 0,
            });
        }
    }

    /// Read, write and execute rights of a path (SDM vol. 3, "Determination of Access Rights").
    fn rights(&self, path: u64, no_execute: bool, view: View) -> (bool, bool, bool) {
        let user_page = path & USER != 0;
        let writable = path & WRITABLE != 0;
        let executable = !(no_execute && self.state.control.efer & efer::NXE != 0);
        if view.is_user() {
            return (user_page, user_page && writable, user_page && executable);
        }
        let data = !(user_page && view == View::Supervisor);
        let write = writable || self.state.control.cr0 & cr0::WP == 0;
        let fetch = !(user_page && self.state.control.cr4 & cr4::SMEP != 0);
        (data, data && write, fetch && executable)
    }

    fn reserved_bits(&self, level: u32, leaf: bool) -> u64 {
        let width = u32::from(self.controls.physical_bits.clamp(32, 52));
        let mut reserved = ADDRESS & !((1u64 << width) - 1);
        if self.state.control.efer & efer::NXE == 0 {
            reserved |= NO_EXECUTE;
        }
        match (level, leaf) {
            (0, _) => {}
            (1 | 2, true) => reserved |= ((1u64 << (12 + 9 * level)) - 1) & !0x1FFF,
            (1 | 2, false) => {}
            // A PML4E or PML5E has no page-size bit.
            _ => reserved |= PAGE_SIZE,
        }
        reserved
    }

    #[expect(clippy::too_many_arguments, reason = "one entry, where it is, and on whose behalf")]
    fn mark(
        &mut self,
        env: &mut Env<'_>,
        at: Gpa,
        hpa: Hpa,
        key: KeyId,
        entry: u64,
        bits: u64,
        linear: u64,
    ) -> Result<(), Refusal> {
        if entry & bits == bits {
            return Ok(());
        }
        self.table_page(env, at, Access::WalkWrite, linear)?;
        let (_, replaced, _) = env
            .mem
            .compare_exchange(hpa, key, entry, entry | bits)
            .map_err(|fault| self.memory_fault(fault, at, Access::WalkWrite, linear))?;
        if replaced { Ok(()) } else { Err(Refusal::Retry) }
    }
}
