//! MapGPA: the guest converts memory between private and shared.
//!
//! The SHARED bit of the address says to what. Address and size are multiples of 4 KiB, the range lies on one
//! side of the SHARED bit and has memory behind it; otherwise INVALID_OPERAND or ALIGN_ERROR, and nothing
//! changes. A long conversion is answered with RETRY and the address to go on from, so that no vCPU waits
//! longer than one piece takes.

use base::{Gpa, PAGE_SIZE};
use mirror_ept::GfnRange;
use tdx_module_iface::ghci::CallStatus;

use super::Reply;
use crate::error::Error;
use crate::memory::attributes::Attribute;
use crate::memory::{Converted, Seat};
use crate::platform::Platform;

/// Answers a request; `shared_bit` is the TD's SHARED bit as an address.
pub(crate) fn map_gpa<P: Platform>(
    seat: &mut Seat<'_, '_, P>,
    shared_bit: u64,
    gpa: Gpa,
    size: u64,
) -> Result<Reply, Error> {
    if !gpa.is_aligned(PAGE_SIZE) || !size.is_multiple_of(PAGE_SIZE) {
        return Ok(Reply::with_r11(CallStatus::ALIGN_ERROR, gpa.get()));
    }
    let invalid = Reply::with_r11(CallStatus::INVALID_OPERAND, gpa.get());
    let to = if gpa.get() & shared_bit != 0 { Attribute::Shared } else { Attribute::Private };
    let start = gpa.get() & !shared_bit;
    let Some(end) = start.checked_add(size).filter(|end| size != 0 && *end <= shared_bit) else {
        return Ok(invalid);
    };
    let range = GfnRange::new(Gpa::new(start).frame(), Gpa::new(end).frame());
    match seat.memory().convert(seat, range, to) {
        Ok(Converted::All) => Ok(Reply::SUCCESS),
        Ok(Converted::Upto(gfn)) => {
            let next = gfn.base().get() | (gpa.get() & shared_bit);
            Ok(Reply::with_r11(CallStatus::RETRY, next))
        }
        Err(Error::NoSlot(_)) => Ok(invalid),
        Err(error) => Err(error),
    }
}
