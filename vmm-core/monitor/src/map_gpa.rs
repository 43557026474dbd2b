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

use tdvisor_base::sync::pause;
use tdvisor_base::{Gpa, PAGE_SIZE, SharedBit, Side};
use tdvisor_vm::{Answer, ConvertError, Partition, Vcpu};

/// How often a conversion may get no further before the guest is told so.
const PATIENCE: u32 = 100_000;

/// Answers a request.
pub(crate) fn map_gpa<P: Partition>(
    vm: &P,
    vcpu: &mut P::Vcpu<'_>,
    gpa: Gpa,
    size: u64,
) -> Result<Answer, P::Death> {
    if !gpa.is_aligned(PAGE_SIZE) || !size.is_multiple_of(PAGE_SIZE) {
        return Ok(Answer::Misaligned);
    }
    let bit = vm.shared_bit();
    let (side, _) = bit.split(gpa);
    let Some(start) = bit.locate(gpa.get(), size).filter(|_| size != 0) else { return Ok(Answer::Invalid) };
    let (mut next, end) = (start.frame(), start.wrapping_add(size).frame());
    let mut stalled = 0;
    loop {
        match vcpu.convert(next, end, side) {
            Ok(reached) if reached == end => return Ok(Answer::Done),
            Ok(reached) if vm.ending().is_some() || stalled > PATIENCE => {
                return Ok(Answer::Retry(bit.join(side, reached.base())));
            }
            Ok(reached) => {
                stalled = if reached > next { 0 } else { stalled + 1 };
                pause(stalled);
                next = reached;
            }
            Err(ConvertError::NoMemory(_)) => return Ok(Answer::Invalid),
            Err(ConvertError::Died(death)) => return Err(death),
        }
    }
}

/// What of a request was done, by its answer: the side that memory is on now, where it begins, and how many bytes it has.
pub(crate) fn converted(bit: SharedBit, gpa: Gpa, size: u64, answer: Answer) -> Option<(Side, Gpa, u64)> {
    let (side, start) = bit.split(gpa);
    let bytes = match answer {
        Answer::Done => size,
        Answer::Retry(reached) => bit.split(reached).1.get().checked_sub(start.get())?,
        _ => return None,
    };
    (bytes != 0).then_some((side, start, bytes))
}
