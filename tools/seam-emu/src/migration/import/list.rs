//! Reads metadata lists. They come from another machine and must be taken for hostile: every length in them is only a
//! claim, and what lies behind the page reads as zero.

use tdvisor_base::PAGE_SIZE;
use tdx_module_iface::metadata::{Carried, Demand, FieldId, StateList};
use tdx_module_iface::{Operand, Status, StatusCode};

use crate::host::{invalid, plain};
use crate::metadata::single::{Single, singles};
use crate::metadata::{Fields, ID_INCORRECT, NOT_WRITABLE};

/// A decrypted page.
pub(super) type Page = [u8; PAGE_SIZE as usize];

/// Bytes of a word, of a list's header, of a sequence's header.
const WORD: usize = 8;
/// Details of a status whose number of the sequence stands behind it.
const IN_SEQUENCE: u32 = 0xffff_0000;
/// The context bits of an identifier that names nothing.
const NO_CONTEXT: u8 = 7;

/// The first thing that is wrong with a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fault {
    pub(super) status: Status,
    /// The field at fault; zero where there is none.
    pub(super) field: u64,
}

impl Fault {
    const fn new(status: Status, field: FieldId) -> Self {
        Self { status, field: field.0 }
    }
}

/// What takes the values.
pub(super) trait Target {
    /// The fields that it has.
    fn fields(&self) -> &dyn Fields;

    /// Takes the bits of `mask` of a field's values. METADATA_FIELD_NOT_WRITABLE passes over it.
    fn take(&self, single: Single, carried: &Carried, values: &[u64], mask: u64) -> Result<(), Status>;
}

/// The lists of one context.
pub(super) struct Reader<'a> {
    target: &'a dyn Target,
    /// Every field, in order, and how it crosses in these lists.
    all: Vec<(Single, Option<Carried>)>,
}

/// A place in the order of fields: the number of the next.
#[derive(Clone, Copy)]
struct Position(usize);

impl<'a> Reader<'a> {
    pub(super) fn new(target: &'a dyn Target, list: StateList) -> Self {
        let fields = target.fields();
        let carried =
            |single: Single| single.field.carried(fields.release()).filter(|carried| carried.list == list);
        let all = singles(fields).map(|single| (single, carried(single))).collect();
        Self { target, all }
    }

    fn single(&self, at: Position) -> Option<Single> {
        self.all.get(at.0).map(|(single, _)| *single)
    }

    fn id(&self, at: Position) -> FieldId {
        self.single(at).map_or(FieldId::NULL, Single::id)
    }

    fn carried(&self, at: Position) -> Option<&Carried> {
        self.all.get(at.0)?.1.as_ref()
    }

    fn is_required(&self, at: Position) -> bool {
        self.carried(at).is_some_and(|carried| carried.demand == Demand::Required)
    }

    /// The place of a field; of the first that is taken at all where it names none.
    fn position(&self, field: FieldId) -> Position {
        let taken = |carried: &Option<Carried>| carried.is_some_and(|carried| carried.imported != 0);
        let found = self.all.iter().position(|(single, carried)| match field {
            FieldId::NULL => taken(carried),
            _ => single.is(field),
        });
        Position(found.unwrap_or(self.all.len()))
    }

    /// Passes over fields until one is there that must not be left out.
    fn skip_to_required(&self, mut at: Position) -> Position {
        while self.single(at).is_some() && !self.is_required(at) {
            at.0 += 1;
        }
        at
    }

    /// Reads a page that goes on with `field`; gives the field with which the next one does. `last`: there is none.
    pub(super) fn read(&self, page: &Page, field: FieldId, last: bool) -> Result<FieldId, Fault> {
        let header = word(page, 0);
        let (size, sequences, reserved) = (header as u16, header >> 16 & 0xffff, header >> 32);
        if sequences == 0 || reserved != 0 {
            return Err(Fault::new(plain(StatusCode::INVALID_METADATA_LIST_HEADER), FieldId(0)));
        }
        let mut cursor = Cursor { page, at: WORD, left: size.min(PAGE_SIZE as u16).wrapping_sub(8) };
        let mut at = self.position(field);
        for number in 0..sequences as u32 {
            at = self.sequence(&mut cursor, at, number)?;
        }
        let at = self.skip_to_required(at);
        let missing = |at| Err(Fault::new(plain(StatusCode::REQUIRED_METADATA_FIELD_MISSING), self.id(at)));
        match (last, self.single(at).is_some()) {
            // A list that goes on after its last field, or ends before.
            (false, false) | (true, true) => missing(at),
            _ => Ok(self.id(at)),
        }
    }

    /// Reads one sequence that is expected at a place.
    fn sequence(&self, cursor: &mut Cursor<'_>, mut at: Position, number: u32) -> Result<Position, Fault> {
        let header = FieldId(cursor.peek());
        let context = self.single(at).map_or(NO_CONTEXT, |single| single.id().context_number());
        if header.context_number() != context {
            let status = Status::with_details(StatusCode::METADATA_FIELD_ID_INCORRECT, IN_SEQUENCE | number);
            return Err(Fault::new(status, header));
        }
        let names = |at: Position| self.single(at).is_some_and(|single| single.is(header));
        while self.single(at).is_some() && !names(at) && !self.is_required(at) {
            at.0 += 1;
        }
        if !names(at) {
            return Err(Fault::new(plain(StatusCode::REQUIRED_METADATA_FIELD_MISSING), self.id(at)));
        }
        self.fields(cursor, header, at).map_err(|fault| {
            let status = Status::from_raw(fault.status.raw() | u64::from(number));
            Fault { status, ..fault }
        })
    }

    /// Reads the fields of a sequence whose first one is that of the place.
    fn fields(&self, cursor: &mut Cursor<'_>, header: FieldId, mut at: Position) -> Result<Position, Fault> {
        let numbered = |code| Status::with_details(code, IN_SEQUENCE);
        let overflow = |at| Fault::new(numbered(StatusCode::METADATA_LIST_OVERFLOW), self.id(at));
        if usize::from(cursor.left) < 2 * WORD {
            return Err(overflow(at));
        }
        if header.reserved_bits() != 0 {
            return Err(Fault::new(numbered(StatusCode::METADATA_FIELD_ID_INCORRECT), header));
        }
        if header.element_bytes() != self.id(at).element_bytes() {
            return Err(Fault::new(ID_INCORRECT, header));
        }
        cursor.next();
        let first = cursor.peek();
        let count = header.last_field() + 1;
        for field in 0..count {
            let Some(single) = self.single(at) else { return Err(Fault::new(ID_INCORRECT, header)) };
            let mask = if header.has_write_mask() {
                // Each field has a word for its mask; the first one's holds for all (so the module reads it).
                cursor.next();
                first
            } else {
                u64::MAX
            };
            let elems = usize::from(single.field.elems);
            if usize::from(cursor.left) < elems * WORD {
                return Err(overflow(at));
            }
            let values: Vec<u64> = (0..elems).map(|_| cursor.next()).collect();
            if let Some(carried) = self.carried(at).filter(|carried| carried.demand != Demand::Ignored) {
                match self.target.take(single, carried, &values, mask) {
                    Err(status) if status != NOT_WRITABLE => return Err(Fault::new(status, single.id())),
                    _ => {}
                }
            }
            at.0 += 1;
            let goes_on = self.single(at).is_some_and(|next| next.id().class() == single.id().class());
            if field + 1 < count && !goes_on {
                return Err(Fault::new(ID_INCORRECT, header));
            }
        }
        Ok(at)
    }
}

/// Where the reading of a page is.
struct Cursor<'a> {
    page: &'a Page,
    at: usize,
    /// Bytes that the list claims to have left.
    left: u16,
}

impl Cursor<'_> {
    fn peek(&self) -> u64 {
        word(self.page, self.at)
    }

    fn next(&mut self) -> u64 {
        let value = self.peek();
        self.at += WORD;
        self.left = self.left.wrapping_sub(WORD as u16);
        value
    }
}

fn word(page: &Page, at: usize) -> u64 {
    let bytes = page.get(at..at + WORD).and_then(|bytes| bytes.try_into().ok());
    u64::from_le_bytes(bytes.unwrap_or_default())
}

/// Whether a list's header claims more than a page.
pub(super) fn is_too_long(page: &Page) -> bool {
    word(page, 0) as u16 > PAGE_SIZE as u16
}

/// The fault of such a list.
pub(super) const TOO_LONG: Fault = Fault { status: invalid(Operand::PAGE), field: 0 };
