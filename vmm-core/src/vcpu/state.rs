//! What the host reads and writes of a vCPU that is outside of the guest. Its LP has the vCPU associated.

use tdx_module_iface::metadata::FieldId;
use tdx_module_iface::tdh::{self, FieldWrite};

use super::Vcpu;
use crate::error::Error;
use crate::memory::Seat;
use crate::platform::Platform;
use crate::retry::{Bound, bounded};

/// TDVPS fields (metadata table of the VCPU).
mod field {
    use tdx_module_iface::metadata::FieldId;

    pub const PEND_NMI: FieldId = FieldId(0x2020_0000_0000_000b);
    pub const VCPU_STATE_DETAILS: FieldId = FieldId(0x9120_0003_0000_0100);
}

/// VCPU_STATE_DETAILS.VMXIP: the virtual APIC holds an interrupt that the guest could take.
const INTERRUPT_PENDING: u64 = 1;

/// Makes an NMI pending: the guest takes it as soon as it can.
pub(super) fn pend_nmi<P: Platform>(vcpu: &Vcpu, seat: &Seat<'_, '_, P>) -> Result<(), Error> {
    seat.with_lp(|lp| {
        bounded(Bound::MANAGEMENT, || {
            tdh::tdh_vp_wr(lp, vcpu.tdvpr(), field::PEND_NMI, FieldWrite { value: 1, mask: 1 })
        })
    })??;
    Ok(())
}

/// Whether an interrupt that the processor took into IRR waits for the guest.
pub(super) fn has_pending_interrupt<P: Platform>(vcpu: &Vcpu, seat: &Seat<'_, '_, P>) -> Result<bool, Error> {
    const DETAILS: FieldId = field::VCPU_STATE_DETAILS;
    let details =
        seat.with_lp(|lp| bounded(Bound::MANAGEMENT, || tdh::tdh_vp_rd(lp, vcpu.tdvpr(), DETAILS)))??;
    Ok(details & INTERRUPT_PENDING != 0)
}
