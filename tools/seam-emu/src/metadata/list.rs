//! Lists of fields, as SYS.RDALL writes them.
//!
//! A list is a header (16 bits of size in bytes, 16 bits of number of sequences, 32 bits zero) and sequences; a
//! sequence is an identifier, with the numbers of its last element and last field filled in, and the values of
//! its elements, eight bytes each. Fields follow each other in a sequence as long as their codes are
//! consecutive and their elements equal in number and size.

use tdx_module_iface::metadata::{FieldId, find};
use tdx_module_iface::{Status, StatusCode};

use super::single::{Single, singles};
use super::{Accessor, Fields, ID_INCORRECT};

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

/// Whether an identifier names the first element of a field: by class, code and element size; nothing else of it is
/// looked at.
fn check_start(fields: &dyn Fields, id: FieldId) -> Result<(), Status> {
    let found = fields.tables().iter().find_map(|table| find(table, id)).ok_or(ID_INCORRECT)?;
    let starts_field = found.index.is_multiple_of(u32::from(found.field.elems));
    if !fields.exists(found.field) || !starts_field || id.element_bytes() != found.field.id.element_bytes() {
        return Err(ID_INCORRECT);
    }
    Ok(())
}

/// Writes as many fields as fit into a page, from `start` on (all ones: from the first). A `start` that `who` may not
/// read stands for the next one that it may.
///
/// # Errors
/// `METADATA_FIELD_ID_INCORRECT` if `start` is not the first element of a field.
pub fn write_list(fields: &dyn Fields, who: Accessor, start: FieldId) -> Result<List, Status> {
    let release = fields.release();
    let from_first = super::is_null(start);
    if !from_first {
        check_start(fields, start)?;
    }
    // A CPUID leaf that a TD does not have has no value to write.
    let has_value = |single: &Single| !single.field.is_sparse() || fields.load(&single.element(0)).is_ok();
    let mut singles = singles(fields)
        .skip_while(|single| !from_first && !single.is(start))
        .filter(|single| who.masks(single.field, release).rd != 0 && has_value(single))
        .peekable();
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
            let element = single.element(number);
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
