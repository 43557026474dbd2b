//! The fields of a context one by one: each field of an array, each leaf of the virtual CPUID values.

use tdx_module_iface::metadata::cpuid::CpuidTable;
use tdx_module_iface::metadata::{Field, FieldId};

use super::cpuid_values::encode;
use super::{Element, Fields};

/// One field of an array.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Single {
    /// The array.
    pub(crate) field: &'static Field,
    /// The identifier of its first element, in the form of the release that answers.
    id: FieldId,
    /// The position of its first element among all elements of the array.
    index: u32,
}

impl Single {
    /// The identifier of its first element.
    pub(crate) const fn id(self) -> FieldId {
        self.id
    }

    /// Whether an identifier names its first element, by class and code.
    pub(crate) const fn is(self, id: FieldId) -> bool {
        self.id.class() == id.class() && self.id.code() == id.code()
    }

    /// Element `number` of it.
    pub(crate) const fn element(self, number: u32) -> Element {
        let code = self.id.code() + number * self.field.code_step();
        Element { field: self.field, index: self.index + number, id: self.id.with_code(code) }
    }

    /// Whether a sequence that ends with `before` may go on with it.
    pub(crate) const fn continues(self, before: Self) -> bool {
        !self.field.is_sparse()
            && self.id.class() == before.id.class()
            && self.field.elems == before.field.elems
            && self.id.element_bytes() == before.id.element_bytes()
            && self.id.code() == before.id.code() + before.field.elems as u32 * before.field.code_step()
    }
}

/// Every field of a context that exists, in the order of the module's tables.
pub(crate) fn singles(fields: &dyn Fields) -> impl Iterator<Item = Single> {
    let release = fields.release();
    fields.tables().iter().flat_map(|table| table.iter()).filter(|field| fields.exists(field)).flat_map(
        move |field| {
            let array = field.id_in(release);
            let elems = u32::from(field.elems);
            let leaves = CpuidTable::of(release);
            let count = if field.is_sparse() { leaves.len() as u32 } else { u32::from(field.fields) };
            (0..count).filter_map(move |number| {
                let index = number * elems;
                let code = match field.is_sparse() {
                    true => encode(leaves.at(number as usize)?),
                    false => array.code() + index * field.code_step(),
                };
                Some(Single { field, id: array.with_code(code), index })
            })
        },
    )
}
