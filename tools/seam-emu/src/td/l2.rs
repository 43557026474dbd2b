//! The Secure EPTs of L2 VMs (TD partitioning).
//!
//! An L2 tree has the shape of the TD's own. A leaf there is an *alias* of the leaf at the same place in the TD's own
//! tree, with attributes of its own; which VMs have one is in bits 60:58 of the TD's own entry, whose lock covers the
//! aliases, too. A free entry is zero. An entry that is blocked has no access rights and remembers them.
//!
//! | bits | meaning |
//! |---|---|
//! | 2:0, 10 | read, write, execute as a supervisor; execute as a user |
//! | 6:3, 7 | memory type and IPAT; leaf |
//! | 51:12 | host-physical address |
//! | 58:52 | the attributes of a leaf, blocked or not |
//! | 59 | blocked |
//! | 63 | suppress #VE |

use tdvisor_base::sync::{AtomicU64, Ordering};
use tdvisor_base::{Gpa, Hpa, Level};
use tdx_module_iface::sept::{L2SeptState, SeptEntry};
use tdx_module_iface::{Gprs, Status, StatusCode};

use super::Tdcs;
use crate::host::Step;
use crate::l2::Vm;
use tdx_module_iface::GpaLevel;

/// A free entry.
pub(crate) const FREE: SeptEntry = SeptEntry(0);

/// Execute as a user.
const EXECUTE_USER: u64 = 1 << 10;
const ATTRIBUTES_SHIFT: u32 = 52;
const BLOCKED: u64 = 1 << 59;
/// The lowest alias bit of the TD's own entries.
const ALIAS_SHIFT: u32 = 58;

/// How an L2 VM may use a page: bits 0 read, 1 write, 2 execute as a supervisor, 3 execute as a user, 4 verify guest
/// paging, 5 paging write, 6 supervisor shadow stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct L2Attributes(u64);

impl L2Attributes {
    const MASK: u64 = 0x7f;
    const READ: u64 = 1;
    const WRITE: u64 = 1 << 1;
    const ACCESS: u64 = 0xf;
    const PAGING_WRITE: u64 = 1 << 5;

    /// Attributes from their bits; `None` for a combination that no page can have.
    pub(crate) const fn new(bits: u64) -> Option<Self> {
        let needs_read = bits & (Self::WRITE | Self::PAGING_WRITE) != 0;
        if bits & !Self::MASK != 0 || (needs_read && bits & Self::READ == 0) {
            return None;
        }
        Some(Self(bits))
    }

    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    /// Whether attributes, possible or not, give any access.
    pub(crate) const fn ask_for_access(bits: u64) -> bool {
        bits & Self::ACCESS != 0
    }

    /// Whether the VM may access the page at all.
    pub(crate) const fn allow_access(self) -> bool {
        Self::ask_for_access(self.0)
    }

    /// The access rights of an entry that is not blocked.
    const fn rights(self) -> u64 {
        self.0 & SeptEntry::RWX | ((self.0 >> 3 & 1) * EXECUTE_USER)
    }
}

/// Whether aliases may be used at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Use {
    /// Yes.
    Open,
    /// Not before the page is unblocked or accepted.
    Blocked,
}

/// An entry of an L2 tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct L2Slot<'m> {
    word: &'m AtomicU64,
    vm: u16,
    pub(crate) level: Level,
}

impl<'m> L2Slot<'m> {
    fn entry(&self) -> SeptEntry {
        SeptEntry(self.word.load(Ordering::Acquire))
    }

    fn set(&self, entry: u64) {
        self.word.store(entry, Ordering::Release);
    }

    pub(crate) fn state(&self) -> L2SeptState {
        let entry = self.entry();
        match (entry.0 == FREE.0, entry.has(SeptEntry::LEAF), entry.has(BLOCKED)) {
            (true, ..) => L2SeptState::Free,
            (_, false, false) => L2SeptState::NlMapped,
            (_, false, true) => L2SeptState::NlBlocked,
            (_, true, false) => L2SeptState::Mapped,
            (_, true, true) => L2SeptState::Blocked,
        }
    }

    fn is_table(&self) -> bool {
        matches!(self.state(), L2SeptState::NlMapped | L2SeptState::NlBlocked)
    }

    pub(crate) fn is_leaf(&self) -> bool {
        matches!(self.state(), L2SeptState::Mapped | L2SeptState::Blocked)
    }

    /// The page that the entry leads to.
    pub(crate) fn page(&self) -> Hpa {
        self.entry().hpa()
    }

    /// The attributes of a leaf.
    pub(crate) fn attributes(&self) -> L2Attributes {
        L2Attributes(self.entry().0 >> ATTRIBUTES_SHIFT & L2Attributes::MASK)
    }

    /// Makes the entry point to a table page.
    pub(crate) fn link(&self, page: Hpa) {
        self.set(page.get() & SeptEntry::HPA | SeptEntry::RWX | EXECUTE_USER);
    }

    /// Maps a page.
    fn map(&self, page: Hpa, attributes: L2Attributes, how: Use) {
        self.set(leaf(page, attributes, how));
    }

    fn block(&self) {
        let entry = self.entry();
        if entry.0 != FREE.0 {
            self.set(entry.0 & !(SeptEntry::RWX | EXECUTE_USER) | BLOCKED);
        }
    }

    fn unblock(&self) {
        if self.is_leaf() {
            self.map(self.page(), self.attributes(), Use::Open);
        } else if self.is_table() {
            self.link(self.page());
        }
    }

    fn free(&self) {
        self.set(FREE.0);
    }

    /// What the module shows of the entry in RCX and RDX. Access rights of a leaf are the VM's own affair.
    pub(crate) fn report(&self, regs: &mut Gprs) {
        const ALL_RIGHTS: u64 = SeptEntry::RWX | EXECUTE_USER;
        let entry = self.entry();
        regs.rcx = match self.state() {
            L2SeptState::Free => SeptEntry::SUPPRESS_VE,
            L2SeptState::NlMapped => ALL_RIGHTS,
            L2SeptState::NlBlocked => 0,
            L2SeptState::Mapped => entry.0 & SHOWN | ALL_RIGHTS,
            L2SeptState::Blocked => entry.0 & SHOWN,
        };
        regs.rdx =
            u64::from(self.level.index()) | u64::from(self.state().public()) << 8 | u64::from(self.vm) << 16;
    }

    fn details(&self) -> u32 {
        u32::from(self.vm) << 16 | u32::from(self.level.index())
    }

    /// L2_SEPT_WALK_FAILED.
    pub(crate) fn walk_failed(&self) -> Status {
        Status::with_details(StatusCode::L2_SEPT_WALK_FAILED, self.details())
    }
}

const SHOWN: u64 =
    SeptEntry::MEMORY_TYPE | SeptEntry::IPAT | SeptEntry::LEAF | SeptEntry::HPA | SeptEntry::SUPPRESS_VE;

const fn leaf(page: Hpa, attributes: L2Attributes, how: Use) -> u64 {
    let access = match how {
        Use::Open => attributes.rights(),
        Use::Blocked => BLOCKED,
    };
    page.get() & SeptEntry::HPA
        | SeptEntry::MEMORY_TYPE_WB
        | SeptEntry::IPAT
        | SeptEntry::LEAF
        | SeptEntry::SUPPRESS_VE
        | attributes.bits() << ATTRIBUTES_SHIFT
        | access
}

/// The bit of an alias in the TD's own entry.
pub(crate) const fn alias(vm: Vm) -> u64 {
    if vm.is_l2() { 1 << (ALIAS_SHIFT + vm.number() as u32 - 1) } else { 0 }
}

/// The L2 VMs of a TD.
pub(crate) fn vms(tdcs: &Tdcs<'_>) -> impl Iterator<Item = Vm> + use<> {
    (1..=tdcs.num_l2_vms()).filter_map(|number| Vm::l2(number as u8))
}

/// The VMs that alias a page, by the TD's own entry.
fn aliasing(entry: SeptEntry) -> impl Iterator<Item = Vm> {
    (1..=Vm::MAX_L2).filter_map(Vm::l2).filter(move |vm| entry.0 & alias(*vm) != 0)
}

/// Walks the tree of a VM; ends above the wanted level where there is no table.
pub(crate) fn walk<'m>(tdcs: &Tdcs<'m>, vm: Vm, gpa: Gpa, target: Level) -> Option<L2Slot<'m>> {
    let number = u16::from(vm.number());
    let mut table = tdcs.l2_sept_root(number)?;
    let mut level = tdcs.root_level();
    loop {
        let word = tdcs.table(table)?.get(level.table_index(gpa.frame()))?;
        let slot = L2Slot { word, vm: number, level };
        if level <= target || !slot.is_table() {
            return Some(slot);
        }
        table = slot.page();
        level = level.down()?;
    }
}

/// The entry of a VM at a place, if the walk gets there.
fn find<'m>(tdcs: &Tdcs<'m>, vm: Vm, gpa: Gpa, level: Level) -> Option<L2Slot<'m>> {
    walk(tdcs, vm, gpa, level).filter(|slot| slot.level == level)
}

/// Whether a table that is there already will do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Existing {
    /// Yes.
    Allowed,
    /// No: the call fails.
    Refused,
}

/// The free entry into which a table page of a VM goes; `None` where one is there and may be.
pub(crate) fn entry_for_table<'m>(
    tdcs: &Tdcs<'m>,
    vm: Vm,
    what: GpaLevel,
    existing: Existing,
    regs: &mut Gprs,
) -> Step<Option<L2Slot<'m>>> {
    let missing = u32::from(vm.number()) << 16 | u32::from(what.level().index());
    let slot = walk(tdcs, vm, what.gpa(), what.level())
        .ok_or(Status::with_details(StatusCode::L2_SEPT_WALK_FAILED, missing))?;
    if slot.level != what.level() {
        slot.report(regs);
        return Err(slot.walk_failed());
    }
    match slot.state() {
        L2SeptState::Free => Ok(Some(slot)),
        L2SeptState::NlMapped | L2SeptState::NlBlocked if existing == Existing::Allowed => Ok(None),
        _ => {
            slot.report(regs);
            Err(Status::with_details(StatusCode::L2_SEPT_ENTRY_NOT_FREE, slot.details()))
        }
    }
}

/// Unlinks the table pages of all L2 VMs at an entry; gives their addresses, all ones where there was none.
pub(crate) fn unlink_tables(tdcs: &Tdcs<'_>, what: GpaLevel) -> [u64; 3] {
    let mut pages = [u64::MAX; 3];
    for (vm, page) in vms(tdcs).zip(&mut pages) {
        if let Some(slot) = find(tdcs, vm, what.gpa(), what.level()).filter(L2Slot::is_table) {
            *page = slot.page().get();
            slot.free();
        }
    }
    pages
}

/// An entry of the TD was blocked: so are its aliases, or the tables of L2 VMs at its place.
pub(crate) fn block(tdcs: &Tdcs<'_>, what: GpaLevel) {
    for vm in vms(tdcs) {
        if let Some(slot) = find(tdcs, vm, what.gpa(), what.level()) {
            slot.block();
        }
    }
}

/// A block was taken back, or a page accepted.
pub(crate) fn unblock(tdcs: &Tdcs<'_>, what: GpaLevel) {
    for vm in vms(tdcs) {
        if let Some(slot) = find(tdcs, vm, what.gpa(), what.level()) {
            slot.unblock();
        }
    }
}

/// The page of an entry was removed: its aliases go with it.
pub(crate) fn remove_aliases(tdcs: &Tdcs<'_>, entry: SeptEntry, what: GpaLevel) {
    for vm in aliasing(entry) {
        if let Some(slot) = find(tdcs, vm, what.gpa(), what.level()) {
            slot.free();
        }
    }
}

/// The page of an entry lies somewhere else now.
pub(crate) fn relocate_aliases(tdcs: &Tdcs<'_>, entry: SeptEntry, what: GpaLevel, page: Hpa, how: Use) {
    for vm in aliasing(entry) {
        if let Some(slot) = find(tdcs, vm, what.gpa(), what.level()) {
            slot.map(page, slot.attributes(), how);
        }
    }
}

/// Gives a page to a VM with these attributes, or takes it away. The caller keeps the alias bit of the TD's own
/// entry.
pub(crate) fn set_alias(slot: &L2Slot<'_>, page: Hpa, attributes: L2Attributes, how: Use) {
    if attributes.allow_access() { slot.map(page, attributes, how) } else { slot.free() }
}

/// A large leaf becomes a table: 512 smaller leaves with its attributes, or with none while the page is pending
/// (recorded).
pub(crate) fn split(tdcs: &Tdcs<'_>, slot: &L2Slot<'_>, table: Hpa, how: Use) {
    let attributes = match how {
        Use::Open => slot.attributes(),
        Use::Blocked => L2Attributes::default(),
    };
    let large = slot.page();
    let Some((below, words)) = slot.level.down().zip(tdcs.table(table)) else { return };
    if slot.is_leaf() {
        for (index, word) in (0u64..).zip(words) {
            let piece = large.wrapping_add(index * below.bytes());
            word.store(leaf(piece, attributes, how), Ordering::Release);
        }
    }
    slot.link(table);
}

/// The leaf or free entry of a VM at the place of a large page that is to be split; `None` where the VM has neither.
pub(crate) fn large_entry<'m>(tdcs: &Tdcs<'m>, vm: Vm, what: GpaLevel) -> Option<L2Slot<'m>> {
    find(tdcs, vm, what.gpa(), what.level())
}

/// What the pieces of a large page in the tree of one VM come to.
pub(crate) enum Merged {
    /// Every piece is aliased with these attributes.
    Aliased(L2Attributes),
    /// None is.
    NotAliased,
    /// The entries differ, so that they do not make a large page.
    Mixed,
}

/// Whether the tables of a VM at a place merge. `aliased`: whether the TD's own entries say that the VM has the pieces.
pub(crate) fn merge(tdcs: &Tdcs<'_>, vm: Vm, what: GpaLevel, aliased: bool) -> Merged {
    if !aliased {
        return Merged::NotAliased;
    }
    let Some(slot) = find(tdcs, vm, what.gpa(), what.level()).filter(L2Slot::is_table) else {
        return Merged::Mixed;
    };
    let Some((below, words)) = slot.level.down().zip(tdcs.table(slot.page())) else { return Merged::Mixed };
    let mut common = None;
    for word in words {
        let piece = L2Slot { word, vm: slot.vm, level: below };
        let attributes = piece.attributes();
        if !piece.is_leaf() || *common.get_or_insert(attributes) != attributes {
            return Merged::Mixed;
        }
    }
    common.map_or(Merged::Mixed, Merged::Aliased)
}

/// Maps a merged page for a VM.
pub(crate) fn map_merged(
    tdcs: &Tdcs<'_>,
    vm: Vm,
    what: GpaLevel,
    page: Hpa,
    attributes: L2Attributes,
    how: Use,
) {
    if let Some(slot) = find(tdcs, vm, what.gpa(), what.level()) {
        slot.map(page, attributes, how);
    }
}
