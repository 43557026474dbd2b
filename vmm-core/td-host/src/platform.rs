//! The machine under the hypervisor, as the hypervisor sees it.
//!
//! [`SeamCall`] is one instruction; a host needs more than that from its machine: to hold a logical
//! processor, to interrupt another one, to allocate and touch memory, to write caches back, to know the
//! time. [`Platform`] is the whole of it, in four parts that each machine implements for itself: [`Processors`],
//! [`Clock`], [`Frames`] and [`PhysMem`]. The emulated machine and a bare-metal host implement them; nothing
//! here, and nothing above, can tell which.
//!
//! # Logical processors
//! An [`Lp`] token is possession of one logical processor: while a thread holds it, nobody else runs on
//! that LP. SEAMCALLs are methods of the token, because the module cares which LP a leaf runs on (LP
//! initialisation, per-package keys, VCPU association). A VP.ENTER on an LP ends with exit reason 1
//! (external interrupt) when an IPI or a timer is pending there, including one that arrived before the
//! entry: an IPI sent to an LP is never lost between the last check and the entry.

pub use tdvisor_base::clock::Clock;
use tdvisor_base::table::Table;
use tdvisor_base::{Hpa, KeyId, Level, Pfn, Ticks};
use tdx_module_iface::SeamCall;

use crate::host::MemoryRange;

/// Number of a logical processor, counted from zero without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LpId(pub u32);

/// Number of a processor package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackageId(pub u32);

/// Key ids that the firmware set aside for TDX (IA32_MKTME_KEYID_PARTITIONING), inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrivateKeyIds {
    /// The lowest private key id.
    pub first: KeyId,
    /// The highest.
    pub last: KeyId,
}

/// Possession of one logical processor.
pub trait Lp: SeamCall + Send {
    /// Which one it is.
    fn id(&self) -> LpId;

    /// INVEPT, single context: drops what this LP cached through a shared EPT root.
    fn invept(&mut self, root: Hpa);

    /// WBINVD: writes back and drops this package's caches.
    fn wbinvd(&mut self);

    /// Asks for a timer interrupt on this LP when the time-stamp counter reaches `deadline`; `None` cancels.
    fn set_timer(&mut self, deadline: Option<Ticks>);

    /// Waits, outside any guest, until an IPI or the timer is pending on this LP.
    ///
    /// Returns at once if one already is: the check and the sleep are one step, so that a wake-up sent
    /// after the caller's last look is not lost.
    fn wait_for_event(&mut self);

    /// A point between two entries at which the machine may let others go first: the vCPU on this LP is outside of
    /// its guest and holds no lock. A machine whose LPs are independent does nothing.
    fn give_way(&mut self);

    /// Takes the pending IPI or timer of this LP, if there is one, so that the next VP.ENTER may run.
    fn acknowledge_events(&mut self) -> PendingEvents;

    /// Whether the machine has stopped for good, to be saved. Asked right after [`Self::give_way`] and
    /// [`Self::wait_for_event`]: the vCPU then leaves, and touches nothing more. A machine that cannot be saved never has.
    fn is_frozen(&self) -> bool {
        false
    }

    /// The vCPU on this LP was saved where it had given way, or waited for an event: returns when that would have returned.
    fn rejoin(&mut self) {}
}

/// What was pending on an LP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PendingEvents {
    /// An IPI had been sent to the LP.
    pub ipi: bool,
    /// The LP's timer had expired.
    pub timer: bool,
}

/// A failed access to physical memory: the address is not memory of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotMemory(pub Hpa);

/// The machine: all four parts of it.
pub trait Platform: Processors + Clock + Frames + PhysMem {}

impl<M: Processors + Clock + Frames + PhysMem> Platform for M {}

/// The machine's logical processors.
pub trait Processors: Send + Sync {
    /// The token of one LP.
    type Lp<'p>: Lp
    where
        Self: 'p;

    /// How many LPs there are; ids run from 0 to one less.
    fn lp_count(&self) -> u32;

    /// The package of an LP. For an unknown LP, the answer is that of LP 0.
    fn package_of(&self, lp: LpId) -> PackageId;

    /// Takes an LP, waiting until its holder gives it back.
    ///
    /// `None` for an LP that does not exist.
    fn take_lp(&self, lp: LpId) -> Option<Self::Lp<'_>>;

    /// Sends an IPI: a VP.ENTER running on that LP, or the next one to start there, ends.
    fn send_ipi(&self, lp: LpId);
}

/// The machine's memory as something to be had: which there is, and which is free.
pub trait Frames: Send + Sync {
    /// Memory that the firmware reports as usable, ascending. The module's own list of convertible memory
    /// is asked of the module, not of the platform.
    fn memory_map(&self) -> &[MemoryRange];

    /// Allocates one naturally aligned page of this size, contents undefined.
    fn allocate_page(&self, level: Level) -> Option<Pfn>;

    /// Gives a page back. The platform may check that no processor still has a translation to it.
    fn free_page(&self, pfn: Pfn, level: Level);

    /// Allocates contiguous frames, aligned to their number rounded up to a power of two.
    fn allocate_contiguous(&self, frames: u64) -> Option<Pfn>;

    /// Pages that the allocator has left, in 4 KiB frames.
    fn free_frames(&self) -> u64;
}

/// The machine's memory as something to be touched, and the keys that it may be under.
pub trait PhysMem: Send + Sync {
    /// Private key ids.
    fn private_key_ids(&self) -> PrivateKeyIds;

    /// Bits of a physical address that name the key start here.
    fn key_id_shift(&self) -> u32;

    /// Reads memory under the default key.
    ///
    /// # Errors
    /// [`NotMemory`]; what precedes the bad address may have been read.
    fn read(&self, hpa: Hpa, out: &mut [u8]) -> Result<(), NotMemory>;

    /// Writes memory under the default key.
    ///
    /// # Errors
    /// [`NotMemory`]; nothing was written.
    fn write(&self, hpa: Hpa, data: &[u8]) -> Result<(), NotMemory>;

    /// MOVDIR64B over a page: zero under the default key, whatever key held it before.
    ///
    /// # Errors
    /// [`NotMemory`].
    fn clear_page(&self, pfn: Pfn) -> Result<(), NotMemory>;

    /// A page as an array of atomic words, for tables that hardware walks.
    ///
    /// # Errors
    /// [`NotMemory`].
    fn table(&self, pfn: Pfn) -> Result<&Table, NotMemory>;
}
