//! MapGPA: the guest converts memory between private and shared.
//!
//! The SHARED bit of the address says to what. Address and size are multiples of 4 KiB, the range lies on one
//! side of the SHARED bit and has memory behind it; otherwise INVALID_OPERAND or ALIGN_ERROR, and nothing
//! changes.
//!
//! The range is converted piece by piece, and no lock is held from one piece to the next; the answer comes when all
//! of it is done. RETRY, with the address to go on from, is for a TD that is ending meanwhile, and for a range
//! that does not get on: guests exist that take it for a failure (Linux before 6.7 does), so it is no way to keep
//! answers short.

use base::{Gpa, PAGE_SIZE, SharedBit};
use mirror_ept::GfnRange;
use tdx_module_iface::ghci::CallStatus;

use super::Reply;
use crate::error::Error;
use crate::memory::{Converted, Seat};
use crate::platform::Platform;
use crate::retry::{Bound, pause};

/// Answers a request.
pub(crate) fn map_gpa<P: Platform>(
    seat: &mut Seat<'_, '_, P>,
    shared_bit: SharedBit,
    gpa: Gpa,
    size: u64,
    is_ending: impl Fn() -> bool,
) -> Result<Reply, Error> {
    if !gpa.is_aligned(PAGE_SIZE) || !size.is_multiple_of(PAGE_SIZE) {
        return Ok(Reply::with_r11(CallStatus::ALIGN_ERROR, gpa.get()));
    }
    let invalid = Reply::with_r11(CallStatus::INVALID_OPERAND, gpa.get());
    let (side, _) = shared_bit.split(gpa);
    let Some(start) = shared_bit.locate(gpa.get(), size).filter(|_| size != 0) else {
        return Ok(invalid);
    };
    let mut range = GfnRange::new(start.frame(), start.wrapping_add(size).frame());
    let mut stalled = 0;
    loop {
        match seat.memory().convert(seat, range, side) {
            Ok(Converted::All) => return Ok(Reply::SUCCESS),
            Ok(Converted::Upto(gfn)) if is_ending() || stalled > Bound::MANAGEMENT.0 => {
                let next = shared_bit.join(side, gfn.base());
                return Ok(Reply::with_r11(CallStatus::RETRY, next.get()));
            }
            Ok(Converted::Upto(gfn)) => {
                stalled = if gfn > range.start() { 0 } else { stalled + 1 };
                pause(stalled);
                range = GfnRange::new(gfn, range.end());
            }
            Err(Error::NoSlot(_)) => return Ok(invalid),
            Err(error) => return Err(error),
        }
    }
}
