//! `TDH.MR.*`: the measurement of a TD that is being built.

use tdvisor_base::Gpa;

use super::issue;
use crate::handles::Tdr;
use crate::leaf::TdhLeaf;
use crate::outcome::SeamError;
use crate::regs::{Gprs, SeamCall};
use crate::sept::SeptInfo;

/// Bytes that one `TDH.MR.EXTEND` measures.
pub const EXTEND_CHUNK: u64 = 256;

/// Extends MRTD with 256 bytes of a page that was added; `gpa` is 256-byte aligned.
///
/// # Errors
/// `EPT_ENTRY_NOT_PRESENT` where no page is mapped.
pub fn tdh_mr_extend<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdr: Tdr,
    gpa: Gpa,
) -> Result<(), SeamError<SeptInfo>> {
    let leaf = TdhLeaf::MR_EXTEND;
    let gprs = Gprs { rcx: gpa.get(), rdx: tdr.0.get(), ..Gprs::ZERO };
    issue(lp, leaf, leaf.word(), gprs)?.sept().map(drop)
}

/// Completes MRTD. The TD may run from now on.
///
/// # Errors
/// `NO_VCPUS` where no VCPU was initialised.
pub fn tdh_mr_finalize<S: SeamCall + ?Sized>(lp: &mut S, tdr: Tdr) -> Result<(), SeamError> {
    let leaf = TdhLeaf::MR_FINALIZE;
    let gprs = Gprs { rcx: tdr.0.get(), ..Gprs::ZERO };
    issue(lp, leaf, leaf.word(), gprs)?.plain().map(drop)
}
