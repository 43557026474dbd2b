//! The order in which reads walk the fields of a context.

use tdx_module_iface::Release;
use tdx_module_iface::metadata::cpuid::CpuidTable;
use tdx_module_iface::metadata::{Field, FieldId};

use super::{Accessor, Fields, cpuid_values, locate};

/// Fields of a context from the first on, and only those that exist and that `who` may read.
fn readable(fields: &dyn Fields, who: Accessor) -> impl Iterator<Item = &'static Field> {
    fields
        .tables()
        .iter()
        .flat_map(|table| table.iter())
        .filter(move |field| fields.exists(field) && who.masks(field, fields.release()).rd != 0)
}

fn first_of(field: &Field, release: Release) -> FieldId {
    let id = field.id_in(release);
    if field.is_sparse() { cpuid_values::first(&CpuidTable::of(release), id) } else { id }
}

/// The first element that `who` may read; [`FieldId::NULL`] if there is none.
pub fn first(fields: &dyn Fields, who: Accessor) -> FieldId {
    readable(fields, who).next().map_or(FieldId::NULL, |field| first_of(field, fields.release()))
}

/// The element that `who` may read next; [`FieldId::NULL`] after the last.
///
/// Inside a field the identifier keeps everything but code and context; otherwise it is the table's own.
pub fn next(fields: &dyn Fields, who: Accessor, id: FieldId) -> FieldId {
    let Ok(element) = locate(fields, id) else { return FieldId::NULL };
    let field = element.field;
    let inside = if field.is_sparse() {
        cpuid_values::next(&CpuidTable::of(fields.release()), id)
    } else if element.index + 1 < field.elements() {
        Some(id.with_code(id.code() + field.code_step()))
    } else {
        None
    };
    if let Some(inside) = inside {
        let context = u64::from(field.id.context_number()) << 52;
        return FieldId(inside.0 & !(7 << 52) | context);
    }
    readable(fields, who)
        .skip_while(|other| !core::ptr::eq(*other, field))
        .nth(1)
        .map_or(FieldId::NULL, |field| first_of(field, fields.release()))
}
