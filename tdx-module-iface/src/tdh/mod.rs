//! One typed function per host leaf.
//!
//! Every function takes the LP that issues the call first, then the leaf's operands as types, and returns the
//! leaf's outputs as types. The register assignment of each leaf is written once, here, from the tables of
//! [`crate::leaf`]. No wrapper retries: see [`SeamError::Retry`].

mod export;
mod import;
mod mem;
mod mem_page;
mod mem_range;
mod mem_sept;
mod metadata;
mod migration;
mod mng;
mod mr;
mod phymem;
mod servtd;
mod sys;
mod vp;
mod vp_enter;

pub use export::*;
pub use import::*;
pub use mem::*;
pub use mem_page::*;
pub use mem_range::*;
pub use mem_sept::*;
pub use metadata::{FieldWrite, MetadataStep};
pub use migration::{
    Command, EntryStatus, GpaEntry, GpaList, LIST_ENTRIES, MBMD_ALIGNMENT, MBMD_BYTES, MemoryCall, Operation,
    PageList, Stream, TAG_BYTES, TAGS_PER_PAGE, tdh_mig_stream_create,
};
pub use mng::*;
pub use mr::*;
pub use phymem::*;
pub use servtd::*;
pub use sys::*;
pub use vp::*;
pub use vp_enter::*;

use core::convert::Infallible;

use crate::leaf::{LeafWord, TdhLeaf};
use crate::outcome::{Retry, SeamError};
use crate::regs::{Gprs, SeamCall};
use crate::sept::SeptInfo;
use crate::status::{Status, StatusClass, StatusCode};

/// What the module answered: status, and all registers as it left them.
struct Answer {
    leaf: TdhLeaf,
    status: Status,
    gprs: Gprs,
}

/// Issues one call. RAX of `gprs` is overwritten with the leaf.
fn issue<S, D>(lp: &mut S, leaf: TdhLeaf, word: LeafWord, mut gprs: Gprs) -> Result<Answer, SeamError<D>>
where
    S: SeamCall + ?Sized,
{
    gprs.rax = word.0;
    lp.seamcall(&mut gprs).map_err(|fault| SeamError::Fault { leaf, fault })?;
    Ok(Answer { leaf, status: Status::from_raw(gprs.rax), gprs })
}

impl Answer {
    /// Success, or the error with the details that `details` finds in the registers.
    fn check<D>(self, details: impl FnOnce(Status, &Gprs) -> Option<D>) -> Result<Gprs, SeamError<D>> {
        let Self { leaf, status, gprs } = self;
        if status.is_success() {
            return Ok(gprs);
        }
        Err(match Retry::of(status) {
            Some(retry) => SeamError::Retry { leaf, status, retry },
            None => SeamError::Refused { leaf, status, details: details(status, &gprs) },
        })
    }

    /// Success, or the error of a leaf that reports nothing beside the status.
    fn plain(self) -> Result<Gprs, SeamError> {
        self.check(|_, _| None::<Infallible>)
    }

    /// Success, or the error of a leaf that describes a Secure-EPT entry.
    fn sept(self) -> Result<Gprs, SeamError<SeptInfo>> {
        self.check(sept_details)
    }

    fn is(&self, code: StatusCode) -> bool {
        self.status.code() == code
    }
}

/// RCX and RDX describe an entry for every status of the Secure-EPT class except that of missing TLB tracking
/// (recorded: those two registers are zero for it, and for the other classes).
fn sept_details(status: Status, gprs: &Gprs) -> Option<SeptInfo> {
    (status.code().class() == StatusClass::SECURE_EPT && status.code() != StatusCode::TLB_TRACKING_NOT_DONE)
        .then_some(SeptInfo { entry: gprs.rcx, level_state: gprs.rdx })
}

#[cfg(test)]
mod tests;
