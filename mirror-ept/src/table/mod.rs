//! Table pages: what they are, how they are named, and who supplies them.
//!
//! # Protocol
//! - A *direct* table is a page of host memory that hardware walks; it is named by its [`Pfn`].
//! - A *mirror* table is a page of software memory in this crate's own slab; it is named by a [`TableRef`],
//!   and each one below the root has a *twin*: an external page, reserved beforehand, that the hook gives to
//!   the external table when the mirror table is linked.
//! - Pages are reserved into a [`crate::TableCache`] before the MMU lock is taken. A page that was never
//!   linked goes straight back (27c).

pub(crate) mod cache;
pub(crate) mod find;
pub(crate) mod once;
pub(crate) mod reclaim;
pub(crate) mod slab;
pub(crate) mod spte;
pub(crate) mod walk;

use core::fmt;

use tdvisor_base::Pfn;
use tdvisor_base::sync::AtomicU64;

/// Entries in one table. A model under loom has 4, so that it can be explored.
pub const ENTRIES: usize = if cfg!(loom) { 4 } else { 512 };

/// One table: 512 entries, the type of [`tdvisor_base::table::Table`] except in a model under loom.
pub type Table = [AtomicU64; ENTRIES];

/// Names a table inside an entry: a [`Pfn`] for direct tables, a slab index for mirror tables.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableRef(u64);

impl TableRef {
    /// The number as it stands in address bits 51:12 of an entry.
    pub const fn new(number: u64) -> Self {
        Self(number & ((1 << 40) - 1))
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The direct table in this host page.
    pub const fn from_pfn(pfn: Pfn) -> Self {
        Self::new(pfn.get())
    }

    /// The host page of a direct table.
    pub const fn pfn(self) -> Pfn {
        Pfn::new(self.0)
    }
}

impl fmt::Debug for TableRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TableRef({:#x})", self.0)
    }
}

/// No memory for a table or its twin. Nothing was changed; the operation may be repeated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoMemory;

impl fmt::Display for NoMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no memory for a page table")
    }
}

impl core::error::Error for NoMemory {}

/// The twin of a mirror table: a page that the hook may hand to the external table, with whatever was
/// reserved for it.
///
/// Linear: neither `Clone` nor `Copy` should be implemented. The MMU keeps it for as long as the table is
/// linked and gives it back through [`TablePages::return_external`] exactly once.
pub trait ExternalPage: Send + 'static {
    /// The host page, for the audit: what the external table must hold at this place.
    fn pfn(&self) -> Pfn;
}

/// In which state an external page comes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Returned {
    /// Never given to the external table.
    Unused,
    /// Offered to the external table, which did not keep it but may have written to it: clean it before
    /// any other use (57).
    Scribbled,
    /// The page was part of the external table and was removed from it.
    Removed,
}

/// The supplier of table memory.
pub trait TablePages: Send + Sync {
    /// The twin of a mirror table.
    type ExternalPage: ExternalPage;

    /// A host page for a direct table. Its contents do not matter.
    ///
    /// # Errors
    /// [`NoMemory`].
    fn alloc_direct(&self) -> Result<Pfn, NoMemory>;

    /// Takes back a page from [`Self::alloc_direct`]. No walker and no hardware refers to it any more.
    fn free_direct(&self, page: Pfn);

    /// The entries of a direct table. `None` only for a page that [`Self::alloc_direct`] never gave.
    fn direct_table(&self, page: Pfn) -> Option<&Table>;

    /// Reserves the twin of a mirror table, with all that linking it will need.
    ///
    /// # Errors
    /// [`NoMemory`].
    fn reserve_external(&self) -> Result<Self::ExternalPage, NoMemory>;

    /// Takes back a page from [`Self::reserve_external`].
    fn return_external(&self, page: Self::ExternalPage, state: Returned);
}
