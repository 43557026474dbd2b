//! What one machine tells the other.
//!
//! Everything here is owned, and as large as it is allowed to be by construction: what comes from the other machine has
//! passed the same constructors. Whether it is *true* the module says (the bundles' tags) and
//! [`super::destination`] (everything else).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use mirror_ept::GfnRange;
use tdvisor_base::{Gfn, Level, PAGE_SIZE, to_usize};
use tdx_module_iface::tdh::{GpaEntry, MBMD_BYTES, TAG_BYTES};

use crate::interrupts::local_apic::LocalApic;
use crate::td::config::MAX_VCPUS;
use crate::vcpu::NextEntry;
use crate::vcpu::mtrr::Mtrrs;

/// Guest pages of one bundle, at most.
pub const PAGES_AT_ONCE: usize = 128;
/// Pages of a bundle of state, at most.
pub const STATE_PAGES: usize = 16;
/// Memory slots of a TD that moves, at most.
pub const SLOTS: usize = 512;
/// Shared runs of one slot, at most.
pub const SHARED_RUNS: usize = 65_536;
/// Words of a vCPU's posted-interrupt requests.
pub const POSTED_WORDS: usize = 4;

/// A page of bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Page(Box<[u8]>);

impl Page {
    /// A page of zeros.
    pub fn zeroed() -> Self {
        Self(alloc::vec![0; to_usize(PAGE_SIZE)].into_boxed_slice())
    }

    /// A page with these bytes.
    ///
    /// # Errors
    /// [`Oversized`] unless there are 4096.
    pub fn new(bytes: Vec<u8>) -> Result<Self, Oversized> {
        if bytes.len() == to_usize(PAGE_SIZE) { Ok(Self(bytes.into_boxed_slice())) } else { Err(Oversized) }
    }

    /// The bytes of the page.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes of the page, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Page(..)")
    }
}

/// Something has more parts than it may have, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oversized;

impl fmt::Display for Oversized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a part of a migration message is larger than it may be, or empty")
    }
}

impl core::error::Error for Oversized {}

/// The head of a bundle (MBMD): opaque to hosts.
pub type Head = [u8; MBMD_BYTES];

/// A bundle of state: its pages are ciphertext.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateBundle {
    head: Head,
    pages: Vec<Page>,
}

impl StateBundle {
    /// A bundle with these pages.
    ///
    /// # Errors
    /// [`Oversized`] unless there are 1 to [`STATE_PAGES`].
    pub fn new(head: Head, pages: Vec<Page>) -> Result<Self, Oversized> {
        if (1..=STATE_PAGES).contains(&pages.len()) { Ok(Self { head, pages }) } else { Err(Oversized) }
    }

    /// The head.
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// The pages.
    pub fn pages(&self) -> &[Page] {
        &self.pages
    }
}

/// A guest page in a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryEntry {
    /// Which, and what is to be done with it. The tag covers it.
    pub entry: GpaEntry,
    /// The tag.
    pub tag: [u8; TAG_BYTES],
    /// Ciphertext; `None` for a page without contents.
    pub contents: Option<Page>,
}

/// A bundle of guest pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryBundle {
    head: Head,
    entries: Vec<MemoryEntry>,
}

impl MemoryBundle {
    /// A bundle with these entries.
    ///
    /// # Errors
    /// [`Oversized`] unless there are 1 to [`PAGES_AT_ONCE`].
    pub fn new(head: Head, entries: Vec<MemoryEntry>) -> Result<Self, Oversized> {
        if (1..=PAGES_AT_ONCE).contains(&entries.len()) { Ok(Self { head, entries }) } else { Err(Oversized) }
    }

    /// The head.
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// The entries.
    pub fn entries(&self) -> &[MemoryEntry] {
        &self.entries
    }
}

/// A memory slot: its frames, and which runs of them are shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotShape {
    frames: GfnRange,
    shared: Vec<GfnRange>,
}

impl SlotShape {
    /// A slot with these shared runs.
    ///
    /// # Errors
    /// [`Oversized`] where there are more than [`SHARED_RUNS`], or one leaves the slot.
    pub fn new(frames: GfnRange, shared: Vec<GfnRange>) -> Result<Self, Oversized> {
        let fits = shared.len() <= SHARED_RUNS && shared.iter().all(|run| frames.covers(*run));
        if fits && !frames.is_empty() { Ok(Self { frames, shared }) } else { Err(Oversized) }
    }

    /// The slot's frames.
    pub const fn frames(&self) -> GfnRange {
        self.frames
    }

    /// The shared runs.
    pub fn shared(&self) -> &[GfnRange] {
        &self.shared
    }
}

/// What a machine has to know of a TD before anything of it arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    slots: Vec<SlotShape>,
    vcpus: u32,
    largest_page: Level,
}

impl Announcement {
    /// A TD of this shape.
    ///
    /// # Errors
    /// [`Oversized`] unless there are 1 to [`SLOTS`] slots and 1 to [`MAX_VCPUS`] vCPUs.
    pub fn new(slots: Vec<SlotShape>, vcpus: u32, largest_page: Level) -> Result<Self, Oversized> {
        if (1..=SLOTS).contains(&slots.len()) && (1..=MAX_VCPUS).contains(&vcpus) {
            Ok(Self { slots, vcpus, largest_page })
        } else {
            Err(Oversized)
        }
    }

    /// The slots.
    pub fn slots(&self) -> &[SlotShape] {
        &self.slots
    }

    /// How many vCPUs.
    pub const fn vcpus(&self) -> u32 {
        self.vcpus
    }

    /// The largest page that its memory is mapped with.
    pub const fn largest_page(&self) -> Level {
        self.largest_page
    }

    /// All frames together.
    pub fn frames(&self) -> u64 {
        self.slots.iter().map(|slot| slot.frames.frames()).fold(0, u64::saturating_add)
    }
}

/// A shared page: the host's own business, and as readable on the way as it is anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedPage {
    /// Which frame.
    pub gfn: Gfn,
    /// The page's contents.
    pub contents: Page,
}

/// Shared pages, at most [`PAGES_AT_ONCE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedPages(Vec<SharedPage>);

impl SharedPages {
    /// A list of these pages.
    ///
    /// # Errors
    /// [`Oversized`].
    pub fn new(pages: Vec<SharedPage>) -> Result<Self, Oversized> {
        if (1..=PAGES_AT_ONCE).contains(&pages.len()) { Ok(Self(pages)) } else { Err(Oversized) }
    }

    /// The pages.
    pub fn pages(&self) -> &[SharedPage] {
        &self.0
    }
}

/// What the host keeps of a vCPU beside the module.
#[derive(Clone, Debug)]
pub struct VcpuHost {
    /// How the vCPU is entered next: with the answer to what it asked last, or plainly.
    pub next: NextEntry,
    /// The registers of its APIC that the host models.
    pub apic: LocalApic,
    /// The vCPU's memory-type range registers.
    pub mtrrs: Mtrrs,
    /// Interrupts that were posted and not taken: PIR.
    pub posted: [u64; POSTED_WORDS],
}

/// A vCPU: the module's part of it, and the host's.
#[derive(Clone, Debug)]
pub struct VcpuBundle {
    /// The module's.
    pub state: StateBundle,
    /// The host's.
    pub host: VcpuHost,
}

/// What the source says, in this order; see [`super`].
#[derive(Clone, Debug)]
pub enum Message {
    /// A TD of this shape will come.
    Announce(Announcement),
    /// What of the TD does not change: the session begins.
    Immutable(StateBundle),
    /// Private pages.
    Memory(MemoryBundle),
    /// A new epoch.
    Epoch(Head),
    /// What of the TD changes.
    TdState(StateBundle),
    /// A vCPU; they come in order.
    Vcpu(Box<VcpuBundle>),
    /// Shared pages.
    Shared(SharedPages),
    /// The in-order phase is over: the TD may be started there, and not here any more.
    Start(Head),
    /// Nothing is missing.
    Complete,
}

/// What the destination says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The TD runs there.
    Committed,
    /// The other machine will never run the TD. With the module's token, once a session had begun.
    Aborted(Option<Head>),
}
