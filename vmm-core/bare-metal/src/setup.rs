//! From the image's entry to a machine that a TD host runs on.
//!
//! # Protocol
//! 1. [`Found::look`]: what the boot loader and firmware say.
//! 2. [`Found::take_over`]: the host's own page tables, stacks and handlers on the first processor. From here on a fault has a
//!    name.
//! 3. The image makes its heap ([`Machine::heap`]).
//! 4. [`Machine::start_others`].
//! 5. [`Machine::into_platform`]: the conditions are checked on every processor, in order; then VMX operation begins on
//!    each.

use core::fmt;

use alloc::vec::Vec;
use td_host::host::MemoryRange;
use tdvisor_base::{Hpa, Level, PAGE_SIZE};

use crate::acpi::{MAX_PROCESSORS, Madt, PowerOff, Tables, WakeUp};
use crate::boot::{BadBoot, BootInfo, Loader, MemoryMap};
use crate::calls;
use crate::conditions::{self, Missing};
use crate::machine::BareMetal;
use crate::ring0::Ring0;
use crate::ring0::apic::{self, Apic};
use crate::ring0::cpu::{self, ThisProcessor, VmxonFailed};
use crate::ring0::identity::IdentityMapped;
use crate::ring0::paging::{self, Image};
use crate::ring0::start::{self, DidNotStart, Starter, TRAMPOLINE_LIMIT};

/// Memory below this is firmware's and the trampoline's: it is never given to a TD.
const FIRST_FRAME: u64 = 0x10_0000;
/// The heap gets this part of the memory, within these limits, in bytes.
const HEAP_SHARE: u64 = 64;
const HEAP_MIN: u64 = 4 << 20;
const HEAP_MAX: u64 = 256 << 20;

/// Why there is no machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetupError {
    /// The boot loader's structure.
    Boot(BadBoot),
    /// There are not enough page tables for this memory.
    PageTables,
    /// There is no room for the heap.
    NoHeap,
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boot(bad) => bad.fmt(f),
            Self::PageTables => f.write_str("the memory needs more page tables than the image has"),
            Self::NoHeap => write!(f, "no {} MiB of memory lie together", HEAP_MIN >> 20),
        }
    }
}

/// What the boot loader and firmware say.
#[derive(Debug)]
pub struct Found {
    ring0: Ring0,
    image: Image,
    /// The boot loader's structure.
    pub boot: BootInfo,
    /// Processors.
    pub madt: Option<Madt>,
    /// How the machine is switched off.
    pub power_off: Option<PowerOff>,
}

impl Found {
    /// Reads it.
    ///
    /// # Errors
    /// [`SetupError::Boot`].
    pub fn look(ring0: Ring0, image: Image, loader: Loader, info: u64) -> Result<Self, SetupError> {
        let memory = IdentityMapped::at_entry(ring0);
        let mut boot = BootInfo::read(loader, info, &memory).map_err(SetupError::Boot)?;
        let tables = Tables::find(boot.root_pointer, &memory);
        boot.memory.remove(0, PAGE_SIZE);
        boot.memory.remove(image.text, image.end - image.text);
        if let Some(file) = boot.file {
            boot.memory.remove(file.base.get(), file.size);
        }
        boot.memory.truncate(paging::reach(&ThisProcessor));
        Ok(Self {
            ring0,
            image,
            madt: tables.and_then(|tables| Madt::read(&tables, &memory)),
            power_off: tables.and_then(|tables| PowerOff::read(&tables, &memory)),
            boot,
        })
    }

    /// Gives the first processor the host's own page tables, stack, and handlers.
    ///
    /// # Errors
    /// [`SetupError`].
    #[expect(
        unsafe_code,
        reason = "the tables were just built to map everything; it is done once, on the stack of area 0"
    )]
    pub fn take_over(mut self) -> Result<Machine, SetupError> {
        let low = self.boot.memory.ranges().iter().filter(|range| range.base.get() < TRAMPOLINE_LIMIT);
        let trampoline = low.map(|range| Hpa::new(range.end().min(TRAMPOLINE_LIMIT) - PAGE_SIZE)).next_back();
        if let Some(page) = trampoline {
            self.boot.memory.remove(page.get(), PAGE_SIZE);
        }
        let root = paging::build(self.image, &self.boot.memory, trampoline, &ThisProcessor)
            .map_err(|paging::OutOfTables| SetupError::PageTables)?;
        // SAFETY: `Ring0` says that this is the first processor; `entry.s` of the image put it on the stack of area 0.
        let apic = unsafe { start::set_up(0, root) }.ok_or(SetupError::PageTables)?;
        calls::introduce(0, apic.id());

        let mut memory = self.boot.memory;
        memory.remove(0, FIRST_FRAME);
        let bytes =
            (memory.bytes() / HEAP_SHARE).clamp(HEAP_MIN, HEAP_MAX).next_multiple_of(Level::L2M.bytes());
        let base = memory.find(bytes, Level::L2M.bytes()).ok_or(SetupError::NoHeap)?;
        memory.remove(base.get(), bytes);
        let wake_up = self.madt.as_ref().map_or(WakeUp::InitSipi, |madt| madt.wake_up);
        Ok(Machine {
            ring0: self.ring0,
            heap: MemoryRange { base, size: bytes },
            memory,
            madt: self.madt,
            starter: Starter { apic, root, wake_up, trampoline },
            processors: 1,
        })
    }
}

/// A machine whose first processor is the host's.
#[derive(Debug)]
pub struct Machine {
    ring0: Ring0,
    heap: MemoryRange,
    memory: MemoryMap,
    madt: Option<Madt>,
    starter: Starter,
    processors: u32,
}

/// Why a machine is no TDX host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHost {
    /// A condition is not met.
    Missing {
        /// By this processor.
        processor: u32,
        /// Which.
        what: Missing,
    },
    /// VMX operation could not begin.
    Vmxon {
        /// On this processor.
        processor: u32,
        /// What happened.
        error: VmxonFailed,
    },
    /// The memory is used up before anything ran.
    NoMemory,
}

impl fmt::Display for NoHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { processor: 0, what } => what.fmt(f),
            Self::Missing { processor, what } => write!(f, "{what}, on processor {processor}"),
            Self::Vmxon { processor, error } => write!(f, "{error} on processor {processor}"),
            Self::NoMemory => f.write_str("there is no memory above 1 MiB"),
        }
    }
}

impl Machine {
    /// Memory for the image's heap. Nobody else has it.
    pub const fn heap(&self) -> MemoryRange {
        self.heap
    }

    /// Bytes of memory that TDs and their tables may have.
    pub fn memory_bytes(&self) -> u64 {
        self.memory.bytes()
    }

    /// How other processors are started.
    pub const fn wake_up(&self) -> WakeUp {
        self.starter.wake_up
    }

    /// Starts the other processors, as far as firmware names them. Gives how many processors there are then, and the one
    /// that did not start, after which no further one was tried.
    pub fn start_others(&mut self) -> (u32, Option<DidNotStart>) {
        let first = self.starter.apic.id();
        let ids: Vec<u32> = self.madt.iter().flat_map(|madt| madt.apic_ids.iter().copied()).collect();
        for apic_id in ids.into_iter().filter(|id| *id != first).take(MAX_PROCESSORS - 1) {
            let index = self.processors;
            calls::introduce(index, apic_id);
            if let Err(late) = self.starter.start(self.ring0, apic_id, index, calls::serve_forever) {
                return (self.processors, Some(late));
            }
            self.processors += 1;
        }
        (self.processors, None)
    }

    /// Checks the conditions on every processor, and begins VMX operation.
    ///
    /// # Errors
    /// [`NoHost`]: the first that is missing.
    pub fn into_platform(mut self) -> Result<BareMetal, NoHost> {
        let missing = |processor| move |what| NoHost::Missing { processor, what };
        let facts = conditions::check(&ThisProcessor).map_err(missing(0))?;
        debug_assert_eq!(self.starter.apic, Apic::X2Apic);
        let mut packages = Vec::new();
        for processor in 0..self.processors {
            calls::on(processor, || conditions::check(&ThisProcessor)).map_err(missing(processor))?;
            let page = self.take_page().ok_or(NoHost::NoMemory)?;
            let package =
                calls::on(processor, || begin(page)).map_err(|error| NoHost::Vmxon { processor, error })?;
            packages.push(package);
        }
        Ok(BareMetal::new(packages.into_iter(), facts, self.memory))
    }

    /// A page of memory, for ever.
    fn take_page(&mut self) -> Option<Hpa> {
        let page = self.memory.ranges().first()?.base;
        self.memory.remove(page.get(), PAGE_SIZE);
        Some(page)
    }
}

/// VMX operation, and the timer, on this processor. Gives its package.
#[expect(unsafe_code, reason = "the page was taken out of the memory map for this")]
fn begin(region: Hpa) -> Result<u32, VmxonFailed> {
    // SAFETY: the page is this processor's from now on.
    unsafe { cpu::begin_vmx(region.get()) }?;
    apic::set_timer_up();
    let own = Apic::X2Apic.id();
    let package = own.checked_shr(conditions::package_shift(&ThisProcessor)).unwrap_or(0);
    Ok(package)
}
