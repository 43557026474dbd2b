//! The bodies of the RD and WR leaves, after their gates (locks, TD state) were passed.

use tdx_module_iface::metadata::FieldId;
use tdx_module_iface::{Gprs, Status, StatusCode};

use super::{Accessor, Fields, first, is_null, next, read, write};
use crate::host::Step;

/// What a read leaves in RDX.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NextField {
    /// The identifier that was passed in: MNG.RD, VP.RD and TDG.VM.RD of version 0.
    Unchanged,
    /// The identifier of the next field: their version 1, SYS.RD, TDG.VP.RD and TDG.SYS.RD.
    Returned,
}

impl NextField {
    /// By the version bits of RAX, where the leaf has versions 0 and 1.
    pub const fn by_version(version: u8) -> Self {
        if version == 0 { Self::Unchanged } else { Self::Returned }
    }

    /// What a read does to its output registers before anything else can fail: R8 is zero, and RDX names no
    /// field.
    pub const fn prepare(self, gprs: &mut Gprs) {
        gprs.r8 = 0;
        if let Self::Returned = self {
            gprs.rdx = FieldId::NULL.0;
        }
    }
}

/// Reads the field that `id` (RDX on entry) names into R8.
pub(crate) fn read_field(
    fields: &dyn Fields,
    who: Accessor,
    mode: NextField,
    id: FieldId,
    gprs: &mut Gprs,
) -> Step {
    mode.prepare(gprs);
    if mode == NextField::Returned && is_null(id) {
        gprs.rdx = first(fields, who).0;
        return Err(Status::new(StatusCode::METADATA_FIRST_FIELD_ID_IN_CONTEXT));
    }
    gprs.r8 = read(fields, who, id)?;
    if mode == NextField::Returned {
        gprs.rdx = next(fields, who, id).0;
    }
    Ok(())
}

/// Writes the bits of `mask` (R9) of `value` (R8) to the field that `id` (RDX) names; R8 gets the old value.
pub(crate) fn write_field(
    fields: &dyn Fields,
    who: Accessor,
    id: FieldId,
    value: u64,
    mask: u64,
    gprs: &mut Gprs,
) -> Step {
    gprs.r8 = 0;
    gprs.r8 = write(fields, who, id, value, mask)?;
    Ok(())
}
