//! What the host reads and writes of a vCPU that is outside of the guest. Its LP has the vCPU associated.

use tdx_module_iface::metadata::vp;
use tdx_module_iface::tdh::{self, FieldWrite};

use super::Vcpu;
use crate::error::Error;
use crate::memory::Seat;
use crate::platform::Platform;
use crate::retry::{Bound, bounded};

/// VCPU_STATE_DETAILS.VMXIP: the virtual APIC holds an interrupt that the guest could take.
const INTERRUPT_PENDING: u64 = 1;

/// Makes an NMI pending: the guest takes it as soon as it can.
pub(super) fn pend_nmi<P: Platform>(vcpu: &Vcpu, seat: &mut Seat<'_, '_, P>) -> Result<(), Error> {
    bounded(Bound::MANAGEMENT, || {
        tdh::tdh_vp_wr(seat.lp(), vcpu.tdvpr(), vp::PEND_NMI.id, FieldWrite { value: 1, mask: 1 })
    })?;
    Ok(())
}

/// Whether an interrupt that the processor took into IRR waits for the guest.
pub(super) fn has_pending_interrupt<P: Platform>(
    vcpu: &Vcpu,
    seat: &mut Seat<'_, '_, P>,
) -> Result<bool, Error> {
    let details =
        bounded(Bound::MANAGEMENT, || tdh::tdh_vp_rd(seat.lp(), vcpu.tdvpr(), vp::VCPU_STATE_DETAILS.id))?;
    Ok(details & INTERRUPT_PENDING != 0)
}
