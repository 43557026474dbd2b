//! The fields of a VCPU that arrives.

use tdx_module_iface::Status;
use tdx_module_iface::lifecycle::LastTdExit;
use tdx_module_iface::metadata::{Carried, vp};

use super::list::Target;
use crate::fields::layout::tdcs;
use crate::fields::{FieldStore, Width};
use crate::metadata::single::Single;
use crate::metadata::vp::VpFields;
use crate::metadata::{Element, Fields, NOT_WRITABLE, VALUE_NOT_VALID, Write};
use crate::td::Tdcs;

/// Ways in which an exit of an L2 VM can be routed: none, asynchronous, TDVMCALL.
const MAX_ROUTING: u64 = 2;

/// A VCPU that arrives.
pub(super) struct VcpuTarget<'a, 'm> {
    pub(super) fields: VpFields<'a>,
    pub(super) tdcs: &'a Tdcs<'m>,
}

impl VcpuTarget<'_, '_> {
    /// What fields demand of their value beside what the tables say; false where it is not stored.
    fn check(&self, element: &Element, value: u64) -> Result<bool, Status> {
        let possible = match *element.field {
            // It is ready once all of it is there.
            vp::VCPU_STATE => return Ok(false),
            vp::VCPU_INDEX => value < self.tdcs.load(tdcs::NUM_VCPUS, Width::B4),
            vp::LAST_TD_EXIT => value <= u64::from(LastTdExit::TDVMCALL.0),
            vp::CURR_VM => value <= u64::from(self.tdcs.num_l2_vms()),
            vp::L2_EXIT_HOST_ROUTING => value <= MAX_ROUTING,
            vp::IA32_XSS => value & !self.tdcs.load_u64(tdcs::XFAM) == 0,
            _ => true,
        };
        if possible { Ok(true) } else { Err(VALUE_NOT_VALID) }
    }
}

impl Target for VcpuTarget<'_, '_> {
    fn fields(&self) -> &dyn Fields {
        &self.fields
    }

    fn take(&self, single: Single, carried: &Carried, values: &[u64], mask: u64) -> Result<(), Status> {
        let element = single.element(0);
        let size = element.width().mask();
        let importable = carried.imported & size;
        let taken = importable & mask;
        if taken == 0 {
            return Err(NOT_WRITABLE);
        }
        let value = values.first().copied().unwrap_or(0);
        let current = self.fields.load(&element)? & size;
        let old = if taken == size { 0 } else { current };
        if (old ^ value) & mask & !importable != 0 {
            return Err(VALUE_NOT_VALID);
        }
        let new = old & !taken | value & taken;
        if self.check(&element, new)? {
            self.fields.store(&Write { element, old: current, new, mask: taken })?;
        }
        Ok(())
    }
}
