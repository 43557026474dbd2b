//! Lists of fields, as SYS.RDALL writes them.
//!
//! A list is a header (16 bits of size in bytes, 16 bits of number of sequences, 32 bits zero) and sequences; a
//! sequence is an identifier, with the numbers of its last element and last field filled in, and the values of
//! its elements, eight bytes each. Fields follow each other in a sequence as long as their codes are
//! consecutive and their elements equal in number and size.

use core::cmp::Ordering;

use tdx_module_iface::metadata::{Field, FieldId, find};

use super::{Accessor, Element, Fields, ID_INCORRECT};
use tdx_module_iface::{Status, StatusCode};

/// Bytes of a list: one page.
pub const LIST_BYTES: usize = 4096;
/// Fields in one sequence: its last number has nine bits.
const MAX_FIELDS_IN_SEQUENCE: u64 = 512;

/// A list as it was written, and where the next one goes on.
pub struct List {
    /// The page.
    pub bytes: Vec<u8>,
    /// The first field that did not fit; [`FieldId::NULL`] if all did.
    pub next: FieldId,
}

/// One field of an array.
#[derive(Clone, Copy)]
struct Single {
    field: &'static Field,
    /// The identifier of the array's first element in the release that answers.
    array: FieldId,
    /// Number of its first element.
    index: u32,
}

impl Single {
    fn code(self) -> u32 {
        self.array.code() + self.index * self.field.code_step()
    }

    fn id(self) -> FieldId {
        self.array.with_code(self.code())
    }

    fn continues(self, before: Self) -> bool {
        self.array.class() == before.array.class()
            && self.field.elems == before.field.elems
            && self.array.element_bytes() == before.array.element_bytes()
            && self.code() == before.code() + u32::from(before.field.elems) * before.field.code_step()
    }
}

/// Where a list begins: a field by its position in the context's tables, and the element of an array.
struct Start {
    position: Option<usize>,
    index: u32,
}

fn position(fields: &dyn Fields, field: &Field) -> Option<usize> {
    fields.tables().iter().flat_map(|table| table.iter()).position(|other| core::ptr::eq(other, field))
}

/// The field that an identifier names as the first of a list: by class, code and element size; nothing else of it is
/// looked at. A field that the reader may not read stands for the next one that it may.
fn start_of(fields: &dyn Fields, id: FieldId) -> Result<Start, Status> {
    let found = fields.tables().iter().find_map(|table| find(table, id)).ok_or(ID_INCORRECT)?;
    let starts_field = found.index.is_multiple_of(u32::from(found.field.elems));
    if !fields.exists(found.field) || !starts_field || id.element_bytes() != found.field.id.element_bytes() {
        return Err(ID_INCORRECT);
    }
    Ok(Start { position: position(fields, found.field), index: found.index })
}

/// Writes as many fields as fit into a page, from `start` on (all ones: from the first).
///
/// # Errors
/// `METADATA_FIELD_ID_INCORRECT` if `start` is not the first element of a field.
pub fn write_list(fields: &dyn Fields, who: Accessor, start: FieldId) -> Result<List, Status> {
    let release = fields.release();
    let mut singles = fields
        .tables()
        .iter()
        .flat_map(|table| table.iter())
        .filter(|field| fields.exists(field) && who.masks(field, release).rd != 0 && !field.is_sparse())
        .flat_map(|field| {
            (0..u32::from(field.fields)).map(move |number| Single {
                field,
                array: field.id_in(release),
                index: number * u32::from(field.elems),
            })
        })
        .peekable();
    if !super::is_null(start) {
        let begin = start_of(fields, start)?;
        let is_before = |single: &Single| match position(fields, single.field).cmp(&begin.position) {
            Ordering::Less => true,
            Ordering::Equal => single.index < begin.index,
            Ordering::Greater => false,
        };
        while singles.next_if(is_before).is_some() {}
    }
    let mut writer = Writer::new();
    let mut before: Option<Single> = None;
    while let Some(single) = singles.peek().copied() {
        let continues = before.is_some_and(|before| single.continues(before));
        if !writer.has_room(single, continues) {
            break;
        }
        writer.push(fields, who, single, continues)?;
        before = Some(single);
        singles.next();
    }
    let next = singles.peek().map_or(FieldId::NULL, |single| single.id());
    Ok(List { bytes: writer.finish(), next })
}

/// What a caller that got a list reports.
impl List {
    /// SUCCESS for a complete list; `METADATA_LIST_OVERFLOW` where fields are left.
    pub fn status(&self) -> Status {
        if self.next == FieldId::NULL {
            Status::SUCCESS
        } else {
            Status::new(StatusCode::METADATA_LIST_OVERFLOW)
        }
    }
}

struct Writer {
    bytes: Vec<u8>,
    sequences: u16,
    /// Offset of the header of the open sequence, and fields in it.
    open: Option<(usize, u64)>,
}

impl Writer {
    fn new() -> Self {
        Self { bytes: vec![0; 8], sequences: 0, open: None }
    }

    fn has_room(&self, single: Single, continues: bool) -> bool {
        let values = usize::from(single.field.elems) * 8;
        let header = if continues && self.can_extend() { 0 } else { 8 };
        self.bytes.len() + header + values <= LIST_BYTES
    }

    fn can_extend(&self) -> bool {
        self.open.is_some_and(|(_, fields)| fields < MAX_FIELDS_IN_SEQUENCE)
    }

    fn push(
        &mut self,
        fields: &dyn Fields,
        who: Accessor,
        single: Single,
        continues: bool,
    ) -> Result<(), Status> {
        if !continues || !self.can_extend() {
            self.open = Some((self.bytes.len(), 0));
            self.sequences += 1;
            let header = single.id().0 | u64::from(single.field.elems.saturating_sub(1) & 0xf) << 34;
            self.bytes.extend_from_slice(&header.to_le_bytes());
        }
        if let Some((at, count)) = &mut self.open {
            *count += 1;
            let (at, last) = (*at, *count - 1);
            if let Some(header) = self.bytes.get_mut(at..at + 8) {
                let mut raw = [0; 8];
                raw.copy_from_slice(header);
                let with_count = u64::from_le_bytes(raw) & !(0x1ff << 38) | last << 38;
                header.copy_from_slice(&with_count.to_le_bytes());
            }
        }
        for number in 0..u32::from(single.field.elems) {
            let index = single.index + number;
            let id = single.field.element_id(index).unwrap_or(single.field.id);
            let element = Element { field: single.field, index, id };
            let value = fields.load(&element)?
                & who.masks(single.field, fields.release()).rd
                & element.width().mask();
            self.bytes.extend_from_slice(&value.to_le_bytes());
        }
        Ok(())
    }

    fn finish(mut self) -> Vec<u8> {
        let header = self.bytes.len() as u64 | u64::from(self.sequences) << 16;
        if let Some(slot) = self.bytes.get_mut(..8) {
            slot.copy_from_slice(&header.to_le_bytes());
        }
        self.bytes
    }
}
