//! Metadata access: single fields of the module, of a TD and of a VCPU, named by a 64-bit identifier.
//!
//! # Protocol
//! - An identifier is looked up by class and field code alone; reserved bits, last-element and last-field must
//!   be zero, everything else of it is ignored.
//! - Who asks decides which bits may be read and written: the host of a production or of a debuggable TD, the
//!   guest itself, a migration TD. No readable bit: `METADATA_FIELD_NOT_READABLE`; no bit that is both writable
//!   and asked for: `METADATA_FIELD_NOT_WRITABLE`.
//! - A write may name bits that are not writable as long as it does not change them
//!   (`METADATA_FIELD_VALUE_NOT_VALID` otherwise), and gives the readable bits of the old value back.
//! - Reads of version 1 walk: the answer names the next element that the same reader may read, in the order of
//!   the module's own tables; an identifier of all ones asks for the first.
//!
//! The tables are [`tdx_module_iface::metadata`]; values lie where the tables say, in the control structures
//! seen as [`FieldStore`](crate::fields::FieldStore)s, as the field's `Transform` says.

mod cpuid_values;
pub(crate) mod guest_leaves;
pub mod leaves;
mod list;
mod order;
pub(crate) mod single;
pub mod sys;
pub(crate) mod sys_leaves;
pub mod td;
pub(crate) mod td_leaves;
pub mod vp;
pub(crate) mod vp_leaves;

use tdx_module_iface::metadata::{ALL, Field, FieldId, NONE, RdWr, StateList, find};
use tdx_module_iface::{Release, Status, StatusCode};

pub use list::{List, write_list};
pub use order::{first, next};

use crate::fields::Width;

/// The highest version of the RD leaves that have versions.
pub(crate) const LATEST_VERSION: u8 = 1;

/// Who reads or writes a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accessor {
    /// The host; the TD is not debuggable.
    Host,
    /// The host of a debuggable TD.
    DebugHost,
    /// The guest about itself.
    Guest,
    /// A migration TD that is bound to the TD.
    MigrationTd,
    /// The module, which writes this list of a TD that leaves.
    Exporter(StateList),
    /// The module, which reads this list of a TD that arrives.
    Importer(StateList),
}

impl Accessor {
    /// The host's side of a TD with these ATTRIBUTES.
    pub const fn host_of(attributes: u64) -> Self {
        if attributes & tdx_module_iface::td_params::attributes::DEBUG == 0 {
            Self::Host
        } else {
            Self::DebugHost
        }
    }

    /// Which bits of a field this accessor may read and write in a release.
    pub fn masks(self, field: &Field, release: Release) -> RdWr {
        let masks = field.masks_in(release);
        let carried = |list| field.carried(release).filter(|carried| carried.list == list);
        match self {
            Self::Host => masks.host,
            Self::DebugHost => masks.host_debug,
            Self::Guest => masks.guest,
            Self::MigrationTd => masks.migtd,
            Self::Exporter(list) => {
                RdWr { rd: carried(list).map_or(NONE, |carried| carried.exported), wr: NONE }
            }
            Self::Importer(list) => {
                RdWr { rd: ALL, wr: carried(list).map_or(NONE, |carried| carried.imported) }
            }
        }
    }
}

/// One element of a field that exists.
#[derive(Clone, Copy, Debug)]
pub struct Element {
    /// The field.
    pub field: &'static Field,
    /// Which element of it.
    pub index: u32,
    /// The identifier that named it.
    pub id: FieldId,
}

impl Element {
    /// Size of the element.
    pub const fn width(&self) -> Width {
        width_of(self.field)
    }

    /// Byte offset of the element in its control structure, where it has one.
    pub const fn offset(&self) -> Option<u32> {
        match self.field.offset() {
            Some(offset) => Some(offset + self.index * self.width() as u32),
            None => None,
        }
    }
}

const fn width_of(field: &Field) -> Width {
    match field.id.element_bytes() {
        1 => Width::B1,
        2 => Width::B2,
        4 => Width::B4,
        _ => Width::B8,
    }
}

/// A write that passed all general checks.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    /// The element.
    pub element: Element,
    /// The value before the write.
    pub old: u64,
    /// The value that it would get.
    pub new: u64,
    /// The bits that are written.
    pub mask: u64,
}

/// The fields of one context, with the values that are not simply stored.
pub trait Fields {
    /// The module's tables of this context, in the order in which reads walk them.
    fn tables(&self) -> &'static [&'static [Field]];

    /// The release whose rows hold.
    fn release(&self) -> Release;

    /// How many L2 VMs the TD has; 0 where there is no TD.
    fn num_l2_vms(&self) -> u16;

    /// Whether a field exists here: its release has it, and so does the TD the L2 VM that it belongs to.
    fn exists(&self, field: &Field) -> bool {
        field.exists_in(self.release()) && u16::from(field.l2_vm) <= self.num_l2_vms()
    }

    /// The value of an element, all bits.
    ///
    /// # Errors
    /// The status that the read ends with.
    fn load(&self, element: &Element) -> Result<u64, Status>;

    /// Carries out a write that passed the general checks.
    ///
    /// # Errors
    /// The status that the write ends with; nothing was changed.
    fn store(&self, write: &Write) -> Result<(), Status>;

    /// The old value that a write starts from. Addresses that nobody set yet count as having no bits outside
    /// the writable ones.
    fn value_to_write_over(&self, element: &Element, old: u64, writable: u64) -> u64 {
        let _ = (element, writable);
        old
    }
}

/// Whether an identifier asks for the first field: all ones, whatever its context.
pub const fn is_null(id: FieldId) -> bool {
    id.0 | 7 << 52 == u64::MAX
}

pub(crate) const ID_INCORRECT: Status = Status::new(StatusCode::METADATA_FIELD_ID_INCORRECT);
const NOT_READABLE: Status = Status::new(StatusCode::METADATA_FIELD_NOT_READABLE);
pub(crate) const NOT_WRITABLE: Status = Status::new(StatusCode::METADATA_FIELD_NOT_WRITABLE);
pub(crate) const VALUE_NOT_VALID: Status = Status::new(StatusCode::METADATA_FIELD_VALUE_NOT_VALID);

/// The element that an identifier names.
fn locate(fields: &dyn Fields, id: FieldId) -> Result<Element, Status> {
    if id.reserved_bits() != 0 || id.last_element() != 0 || id.last_field() != 0 {
        return Err(ID_INCORRECT);
    }
    let found = fields.tables().iter().find_map(|table| find(table, id)).ok_or(ID_INCORRECT)?;
    if !fields.exists(found.field) {
        return Err(ID_INCORRECT);
    }
    Ok(Element { field: found.field, index: found.index, id })
}

/// Reads one element; bits that the accessor may not read are zero.
///
/// # Errors
/// `METADATA_FIELD_ID_INCORRECT`, `METADATA_FIELD_NOT_READABLE`.
pub fn read(fields: &dyn Fields, who: Accessor, id: FieldId) -> Result<u64, Status> {
    let element = locate(fields, id)?;
    let readable = who.masks(element.field, fields.release()).rd;
    let value = fields.load(&element)?;
    if readable == 0 {
        return Err(NOT_READABLE);
    }
    Ok(value & readable & element.width().mask())
}

/// Writes the bits of `mask` of one element and gives the readable bits of its old value.
///
/// # Errors
/// `METADATA_FIELD_ID_INCORRECT`, `METADATA_FIELD_NOT_WRITABLE`, `METADATA_FIELD_VALUE_NOT_VALID`, and what the
/// field's own checks say.
pub fn write(fields: &dyn Fields, who: Accessor, id: FieldId, value: u64, mask: u64) -> Result<u64, Status> {
    let element = locate(fields, id)?;
    let masks = who.masks(element.field, fields.release());
    let size = element.width().mask();
    let current = fields.load(&element)? & size;
    let writable = masks.wr & size;
    let written = writable & mask;
    if written == 0 {
        return Err(NOT_WRITABLE);
    }
    let old = fields.value_to_write_over(&element, current, writable);
    let forbidden = mask & !writable;
    let unchanged = if written == size { 0 } else { old };
    if (unchanged ^ value) & forbidden != 0 {
        return Err(VALUE_NOT_VALID);
    }
    let new = old & !written | value & written;
    fields.store(&Write { element, old: current, new, mask: written })?;
    Ok(current & masks.rd)
}
