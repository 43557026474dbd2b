//! What the CPU asks of the machine around it.
//!
//! A linear address becomes a [`Gpa`] by the guest's own page tables, which this crate walks; the [`Bus`]
//! turns the [`Gpa`] into a place in the [`Arena`], or says that a device answers there. It is asked for memory on a
//! miss of the software TLB only, once per 4 KiB page; everything after that goes straight to the arena. An entry lives
//! until somebody flushes it: the CPU does so where the architecture says, the owner through [`crate::Tlb`] where a
//! second-stage mapping changed (INVEPT, a new TLB epoch). Devices are asked at every access.

use phys_memory::Arena;
use tdvisor_base::sync::Arc;
use tdvisor_base::{Gpa, Hpa, KeyId, Level};
use x86_arch::Access;

/// Where a 4 KiB guest page is, and what may be done with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// First byte of the 4 KiB page that holds the address asked for.
    pub hpa: Hpa,
    /// The key that accesses carry.
    pub key: KeyId,
    /// Size of the second-stage mapping that the page is part of.
    pub level: Level,
    /// Data reads and page walks are allowed.
    pub readable: bool,
    /// Data writes are allowed.
    pub writable: bool,
    /// Instruction fetches are allowed.
    pub executable: bool,
}

impl Translation {
    /// Whether an access needs no further question.
    pub const fn allows(&self, access: Access) -> bool {
        match access {
            Access::Read | Access::WalkRead => self.readable,
            Access::Write | Access::WalkWrite => self.writable,
            Access::Execute => self.executable,
        }
    }

    /// Where a byte of the page is.
    pub const fn byte(&self, gpa: Gpa) -> Hpa {
        self.hpa.wrapping_add(gpa.page_offset())
    }

    /// The translation with this access allowed as well.
    #[must_use]
    pub(crate) const fn allowing(mut self, access: Access) -> Self {
        match access {
            Access::Read | Access::WalkRead => self.readable = true,
            Access::Write | Access::WalkWrite => self.writable = true,
            Access::Execute => self.executable = true,
        }
        self
    }
}

/// Who answers at a guest-physical address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Memory. The access asked for is granted; the rights say what else is.
    Memory(Translation),
    /// A device: the CPU goes on with [`Bus::load`] or [`Bus::store`] of the operand. Only data can be there; a device
    /// as page table or as code is something that this crate does not do.
    Device,
}

/// The machine around one CPU.
pub trait Bus {
    /// Why an access does not happen: what an EPT violation is to hardware. The CPU passes it on unread.
    type Refusal;

    /// Physical memory. Called once per [`crate::Engine::run`].
    fn memory(&self) -> Arc<Arena>;

    /// Finds out who answers at `gpa`.
    ///
    /// # Errors
    /// What [`crate::Exit::Refused`] then carries to the owner. No part of the instruction has been done.
    fn translate(&mut self, gpa: Gpa, access: Access) -> Result<Answer, Self::Refusal>;

    /// A load from a device; `gpa` is byte-exact and the access does not leave its page. A bus without devices is one
    /// that nobody drives: it reads as ones.
    ///
    /// # Errors
    /// As for [`Self::translate`].
    fn load(&mut self, gpa: Gpa, data: &mut [u8]) -> Result<(), Self::Refusal> {
        let _ = gpa;
        data.fill(0xFF);
        Ok(())
    }

    /// A store to a device; `gpa` is byte-exact and the access does not leave its page.
    ///
    /// # Errors
    /// As for [`Self::translate`].
    fn store(&mut self, gpa: Gpa, data: &[u8]) -> Result<(), Self::Refusal> {
        let _ = (gpa, data);
        Ok(())
    }

    /// The time-stamp counter as this CPU sees it.
    fn tsc(&mut self) -> u64;

    /// A word for RDRAND and RDSEED; `None` makes the instruction report that none was ready.
    fn random(&mut self) -> Option<u64>;
}

/// A refusal whose reason waits in the [`Port`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refused(());

/// A [`Bus`] whose refusals have lost their type, so that one set of operations serves every bus.
pub(crate) trait Surroundings {
    fn translate(&mut self, gpa: Gpa, access: Access) -> Result<Answer, Refused>;
    fn load(&mut self, gpa: Gpa, data: &mut [u8]) -> Result<(), Refused>;
    fn store(&mut self, gpa: Gpa, data: &[u8]) -> Result<(), Refused>;
    fn tsc(&mut self) -> u64;
    fn random(&mut self) -> Option<u64>;
}

/// A bus for one run, with the refusal that ends it.
pub(crate) struct Port<'b, B: Bus> {
    bus: &'b mut B,
    refusal: Option<B::Refusal>,
}

impl<'b, B: Bus> Port<'b, B> {
    pub(crate) const fn new(bus: &'b mut B) -> Self {
        Self { bus, refusal: None }
    }

    /// Why the last access was refused.
    pub(crate) fn into_refusal(self) -> Option<B::Refusal> {
        self.refusal
    }

    fn keep<T>(&mut self, result: Result<T, B::Refusal>) -> Result<T, Refused> {
        result.map_err(|refusal| {
            self.refusal = Some(refusal);
            Refused(())
        })
    }
}

impl<B: Bus> Surroundings for Port<'_, B> {
    fn translate(&mut self, gpa: Gpa, access: Access) -> Result<Answer, Refused> {
        let result = self.bus.translate(gpa, access);
        self.keep(result)
    }

    fn load(&mut self, gpa: Gpa, data: &mut [u8]) -> Result<(), Refused> {
        let result = self.bus.load(gpa, data);
        self.keep(result)
    }

    fn store(&mut self, gpa: Gpa, data: &[u8]) -> Result<(), Refused> {
        let result = self.bus.store(gpa, data);
        self.keep(result)
    }

    fn tsc(&mut self) -> u64 {
        self.bus.tsc()
    }

    fn random(&mut self) -> Option<u64> {
        self.bus.random()
    }
}
