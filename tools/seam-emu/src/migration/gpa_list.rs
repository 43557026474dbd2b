//! Lists of guest pages, as RCX of the leaves about memory names them.
//!
//! | bits of RCX | meaning |
//! |---|---|
//! | 2:0 | format, 0 |
//! | 11:3 | first entry |
//! | 51:12 | address of the list |
//! | 63:55 | last entry |
//!
//! | bits of an entry | meaning |
//! |---|---|
//! | 1:0 | level, 0 |
//! | 2 | the page is pending |
//! | 9:7 | VMs that alias it |
//! | 51:12 | guest-physical address |
//! | 53:52 | what to do |
//! | 60:56 | what came of it |

use tdvisor_base::{Gpa, Level};
use tdx_module_iface::{Operand, Status, StatusCode};

use super::operands::Entries;
use crate::host::steps::{lock_tree, private_gpa};
use crate::host::{Call, Step, invalid, plain};
use crate::lock::{Mode, Side};
use crate::td::Tdcs;
use crate::td::sept::{SeptLock, Walk};

/// RCX.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct GpaList(u64);

impl GpaList {
    const FORMAT_AND_RESERVED: u64 = 7 << 52 | 7;
    const FIRST: u64 = 0x1ff << 3;
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

    /// The list that RCX names, unchecked.
    pub(crate) const fn new(rcx: u64) -> Self {
        Self(rcx)
    }

    /// RCX.
    pub(crate) const fn raw(self) -> u64 {
        self.0
    }

    pub(crate) const fn first(self) -> u64 {
        (self.0 & Self::FIRST) >> 3
    }

    pub(crate) const fn last(self) -> u64 {
        self.0 >> 55
    }

    /// This list from another entry on. Behind the last of 512 it begins anew.
    pub(crate) const fn from(self, entry: u64) -> Self {
        Self(self.0 & !Self::FIRST | entry << 3 & Self::FIRST)
    }

    /// Checks the fields and the address.
    pub(crate) fn check(self, call: &Call<'_>) -> Step<Entries> {
        if self.0 & Self::FORMAT_AND_RESERVED != 0 || self.first() > self.last() {
            return Err(invalid(Operand::RCX));
        }
        Entries::new(call, self.0 & Self::ADDRESS, Operand::RCX)
    }
}

/// What is to be done with a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operation {
    Nothing,
    /// The page's first export or import.
    Migrate,
    /// The page does not belong to the session any more.
    Cancel,
    /// A later one.
    Remigrate,
}

/// What came of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum EntryStatus {
    Done = 0,
    Skipped = 1,
    WalkFailed = 2,
    EntryBusy = 3,
    StateIncorrect = 4,
    NotTracked = 5,
    OpStateIncorrect = 6,
    MigratedInEpoch = 7,
    NoBuffer = 8,
    NoNewPage = 9,
    WrongTag = 10,
    OverRemoved = 11,
    PageBusy = 12,
    Invalid = 15,
}

/// An entry of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct GpaEntry(pub(crate) u64);

impl GpaEntry {
    const LEVEL_AND_RESERVED: u64 = 7 << 61 | 3 << 54 | 0xf << 3 | 3;
    const PENDING: u64 = 1 << 2;
    const ALIASES: u64 = 7 << 7;
    const GPA: u64 = 0x000f_ffff_ffff_f000;
    const OPERATION: u64 = 3 << 52;
    const STATUS: u64 = 0x1f << 56;

    /// Whether its fields are possible.
    pub(crate) const fn is_valid(self) -> bool {
        self.0 & Self::LEVEL_AND_RESERVED == 0
    }

    /// The address of the entry; `None` where fields or address are not possible.
    pub(crate) fn gpa(self, tdcs: &Tdcs<'_>) -> Option<Gpa> {
        let gpa = Gpa::new(self.0 & Self::GPA);
        (self.is_valid() && private_gpa(tdcs, gpa).is_ok()).then_some(gpa)
    }

    pub(crate) const fn is_pending(self) -> bool {
        self.0 & Self::PENDING != 0
    }

    pub(crate) const fn operation(self) -> Operation {
        match (self.0 & Self::OPERATION) >> 52 {
            0 => Operation::Nothing,
            1 => Operation::Migrate,
            2 => Operation::Cancel,
            _ => Operation::Remigrate,
        }
    }

    /// This entry with another operation.
    #[must_use]
    pub(crate) const fn with_operation(self, operation: Operation) -> Self {
        Self(self.0 & !Self::OPERATION | (operation as u64) << 52)
    }

    /// This entry for a page that is pending or not, and that no L2 VM aliases.
    #[must_use]
    pub(crate) const fn of_page(self, pending: bool) -> Self {
        let bit = if pending { Self::PENDING } else { 0 };
        Self(self.0 & !(Self::PENDING | Self::ALIASES) | bit)
    }

    /// This entry with what came of it.
    #[must_use]
    pub(crate) const fn with_status(self, status: EntryStatus) -> Self {
        Self(self.0 & !Self::STATUS | (status as u64) << 56)
    }

    /// This entry with no operation, and why nothing was done.
    #[must_use]
    pub(crate) const fn failed(self, status: EntryStatus) -> Self {
        self.with_operation(Operation::Nothing).with_status(status)
    }
}

/// OPERAND_INVALID for an entry whose fields are not possible.
pub(crate) const INVALID_ENTRY: Status = invalid(Operand::GPA_LIST_ENTRY);

/// Walks to the entry of a 4 KiB page and locks it.
pub(crate) fn lock_entry<'m>(tdcs: &Tdcs<'m>, gpa: Gpa) -> Result<SeptLock<'m>, EntryStatus> {
    match tdcs.walk(gpa, Level::L4K) {
        Some(Walk::Found(slot)) => slot.lock(Side::Host).map_err(|_| EntryStatus::EntryBusy),
        _ => Err(EntryStatus::WalkFailed),
    }
}

/// How many entries of a list came to nothing, beside those that were skipped.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Problems(u32);

impl Problems {
    pub(crate) const fn note(&mut self, status: EntryStatus) {
        if !matches!(status, EntryStatus::Done | EntryStatus::Skipped) {
            self.0 += 1;
        }
    }

    /// Success, with the number of them.
    pub(crate) const fn status(self) -> Status {
        Status::with_details(StatusCode::SUCCESS, self.0)
    }
}

/// Does something with each page of a list whose bit 52 asks for it, and writes down what came of it. Gives RCX and how
/// the call ends.
pub(crate) fn for_each_page(
    call: &Call<'_>,
    tdcs: &Tdcs<'_>,
    list: GpaList,
    change: impl Fn(&SeptLock<'_>) -> Result<(), EntryStatus>,
) -> (GpaList, Status) {
    let prepared = lock_tree(tdcs, Mode::Shared).and_then(|tree| Ok((tree, list.check(call)?)));
    let (_tree, entries) = match prepared {
        Ok(prepared) => prepared,
        Err(status) => return (list, status),
    };
    let mut problems = Problems::default();
    for number in list.first()..=list.last() {
        let entry = GpaEntry(entries.load(call, number));
        let asked = matches!(entry.operation(), Operation::Migrate | Operation::Remigrate);
        let gpa = if asked { entry.gpa(tdcs) } else { None };
        let result = match gpa {
            Some(gpa) => lock_entry(tdcs, gpa).and_then(|lock| change(&lock)),
            None if !asked && entry.is_valid() => Err(EntryStatus::Skipped),
            None => {
                entries.store(call, number, entry.failed(EntryStatus::Invalid).0);
                return (list.from(number), INVALID_ENTRY);
            }
        };
        let written = match result {
            Ok(()) => entry.with_status(EntryStatus::Done),
            Err(status) => {
                problems.note(status);
                entry.failed(status)
            }
        };
        entries.store(call, number, written.0);
        if number < list.last() && call.interrupted() {
            return (list.from(number + 1), plain(StatusCode::INTERRUPTED_RESUMABLE));
        }
    }
    (list.from(list.last() + 1), problems.status())
}
