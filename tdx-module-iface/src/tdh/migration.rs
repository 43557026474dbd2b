//! Operands that the leaves of live migration share (`TDH.EXPORT.*`, `TDH.IMPORT.*`, `TDH.MIG.*`).
//!
//! Buffers are named by host-physical addresses of shared memory (no private key id). Layouts: *TD Migration
//! Architecture Specification*; the GPA list is the ABI specification's `GPA_LIST_INFO` and `GPA_LIST_ENTRY`.

use tdvisor_base::{Gfn, Hpa};

use super::issue;
use crate::handles::Tdr;
use crate::leaf::TdhLeaf;
use crate::outcome::SeamError;
use crate::regs::{Gprs, SeamCall};
use crate::status::Status;

/// Bytes of the head of a migration bundle (MBMD).
pub const MBMD_BYTES: usize = 48;
/// What the address of an MBMD is a multiple of.
pub const MBMD_ALIGNMENT: u64 = 128;
/// Entries of a list that fills a page.
pub const LIST_ENTRIES: usize = 512;
/// Bytes of an authentication tag of a page.
pub const TAG_BYTES: usize = 16;
/// Tags that fill a page: entries of a list from this on have theirs in a second one.
pub const TAGS_PER_PAGE: usize = 256;

const RESUME: u64 = 1 << 63;
const LAST_SHIFT: u32 = 55;

/// Whether a call begins, or goes on with what an interrupt ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// A new bundle.
    New,
    /// The call that returned `INTERRUPTED_RESUMABLE`, with the operands that it left.
    Resume,
}

/// A forward migration stream, by its number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Stream(pub u16);

impl Stream {
    /// The stream that state, tokens and, unless there are more, memory go by.
    pub const FIRST: Self = Self(0);

    pub(super) const fn word(self, command: Command) -> u64 {
        let resume = match command {
            Command::New => 0,
            Command::Resume => RESUME,
        };
        self.0 as u64 | resume
    }
}

/// R8: the buffer of an MBMD.
pub(super) const fn mbmd_word(buffer: Hpa) -> u64 {
    buffer.get() | (MBMD_BYTES as u64) << 52
}

/// A page of addresses of the pages of a bundle of state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageList {
    /// The page.
    pub list: Hpa,
    /// How many of its entries count, 1 to 512.
    pub entries: u16,
}

impl PageList {
    pub(super) fn word(self) -> u64 {
        self.list.get() | u64::from(self.entries.saturating_sub(1)) << LAST_SHIFT
    }
}

/// A page of guest pages, and how far a call came with it.
///
/// Bits 2:0 format 0, 11:3 first entry, 51:12 address, 63:55 last entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GpaList(u64);

impl GpaList {
    const FIRST: u64 = 0x1ff << 3;

    /// The first `entries` (1 to 512) of the page at `list`.
    pub fn new(list: Hpa, entries: usize) -> Self {
        Self(list.get() | (entries.clamp(1, LIST_ENTRIES) as u64 - 1) << LAST_SHIFT)
    }

    /// The entry at which a call goes on: all before it are done with. After the last of 512 it is 0 again.
    pub const fn next(self) -> usize {
        ((self.0 & Self::FIRST) >> 3) as usize
    }

    /// Whether anything is left to do after an interrupted call.
    pub const fn is_done(self) -> bool {
        self.next() > (self.0 >> LAST_SHIFT) as usize
    }

    /// RCX.
    pub const fn word(self) -> u64 {
        self.0
    }
}

/// What is to be done with a guest page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Nothing.
    Nothing,
    /// The page's first export or import in a session.
    Migrate,
    /// The page leaves the session.
    Cancel,
    /// A later export or import.
    Remigrate,
}

/// One guest page of a [`GpaList`].
///
/// Bits 1:0 level 0, 2 pending, 51:12 address, 53:52 operation, 60:56 what came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GpaEntry(pub u64);

impl GpaEntry {
    const PENDING: u64 = 1 << 2;
    const GPA: u64 = 0x000f_ffff_ffff_f000;

    /// A 4 KiB page.
    pub const fn new(gfn: Gfn, operation: Operation) -> Self {
        Self(gfn.base().get() & Self::GPA | (operation as u64) << 52)
    }

    /// The page.
    pub const fn gfn(self) -> Gfn {
        Gfn::new((self.0 & Self::GPA) >> 12)
    }

    /// What is, or was, done with it.
    pub const fn operation(self) -> Operation {
        match self.0 >> 52 & 3 {
            0 => Operation::Nothing,
            1 => Operation::Migrate,
            2 => Operation::Cancel,
            _ => Operation::Remigrate,
        }
    }

    /// Whether the guest has yet to accept the page: it has no contents then.
    pub const fn is_pending(self) -> bool {
        self.0 & Self::PENDING != 0
    }

    /// What came of it.
    pub const fn status(self) -> EntryStatus {
        EntryStatus((self.0 >> 56 & 0x1f) as u8)
    }
}

/// What came of an entry of a [`GpaList`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EntryStatus(pub u8);

impl EntryStatus {
    /// What the entry asked for was done.
    pub const DONE: Self = Self(0);
    /// Nothing was asked for.
    pub const SKIPPED: Self = Self(1);
    /// The guest, or somebody else, held the Secure-EPT entry.
    pub const ENTRY_BUSY: Self = Self(3);
    /// The page was blocked for writing, and not tracked since.
    pub const NOT_TRACKED: Self = Self(5);
}

/// Adds a migration stream, whose state the module keeps in `page`. The first that a TD gets is the importer's
/// way back; those after it are [`Stream`] 0, 1, …
///
/// # Errors
/// `MAX_MIGS_NUM_EXCEEDED` beyond the greatest number; `OP_STATE_INCORRECT` once a session has begun.
pub fn tdh_mig_stream_create<S: SeamCall + ?Sized>(lp: &mut S, tdr: Tdr, page: Hpa) -> Result<(), SeamError> {
    let leaf = TdhLeaf::MIG_STREAM_CREATE;
    let gprs = Gprs { rcx: page.get(), rdx: tdr.0.get(), ..Gprs::ZERO };
    issue(lp, leaf, leaf.word(), gprs)?.plain().map(drop)
}

/// A call about the memory of a TD: `TDH.EXPORT.MEM` and `TDH.IMPORT.MEM`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryCall {
    /// The TD.
    pub tdr: Tdr,
    /// Which guest pages; after an interrupt, from where on.
    pub list: GpaList,
    /// The buffer of the MBMD, [`MBMD_ALIGNMENT`]-aligned.
    pub mbmd: Hpa,
    /// A page of addresses of the buffers of contents, one per entry.
    pub buffers: Hpa,
    /// The stream.
    pub stream: Stream,
    /// Pages of tags: of entries below [`TAGS_PER_PAGE`], and of those from it on.
    pub tags: [Hpa; 2],
}

impl MemoryCall {
    pub(super) fn gprs(&self, command: Command) -> Gprs {
        Gprs {
            rcx: self.list.word(),
            rdx: self.tdr.0.get(),
            r8: mbmd_word(self.mbmd),
            r9: self.buffers.get(),
            r10: self.stream.word(command),
            r11: self.tags[0].get(),
            r12: self.tags[1].get(),
            ..Gprs::ZERO
        }
    }
}

/// Entries that a call could not do, as the low half of its status counts them.
pub(super) const fn problems(rax: u64) -> u32 {
    Status::from_raw(rax).details()
}

pub(super) fn take_list(list: &mut GpaList, rcx: u64) {
    *list = GpaList(rcx);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_done_when_the_next_entry_is_behind_the_last() {
        let mut list = GpaList::new(Hpa::new(0x7000), 3);
        assert_eq!(list.word(), 0x7000 | 2 << 55);
        assert!(!list.is_done());
        take_list(&mut list, 0x7000 | 2 << 55 | 3 << 3);
        assert_eq!((list.next(), list.is_done()), (3, true));
    }

    #[test]
    fn an_entry_says_what_was_written_into_it() {
        for operation in [Operation::Nothing, Operation::Migrate, Operation::Cancel, Operation::Remigrate] {
            let entry = GpaEntry::new(Gfn::new(0x1234), operation);
            assert_eq!((entry.gfn(), entry.operation()), (Gfn::new(0x1234), operation));
            assert_eq!(entry.status(), EntryStatus::DONE);
        }
        assert_eq!(GpaEntry(5 << 56).status(), EntryStatus::NOT_TRACKED);
    }
}
