//! `TDH.VP.*` except entry: creating, flushing and inspecting a VCPU.

use tdvisor_base::Hpa;

use super::metadata::{FieldWrite, MetadataStep};
use super::{issue, metadata};
use crate::handles::{Tdr, Tdvpr};
use crate::leaf::TdhLeaf;
use crate::metadata::FieldId;
use crate::outcome::SeamError;
use crate::regs::{Gprs, SeamCall};

/// Makes `page` the root page of a new VCPU.
///
/// # Errors
/// `OP_STATE_INCORRECT` once the TD is finalised.
pub fn tdh_vp_create<S: SeamCall + ?Sized>(lp: &mut S, tdr: Tdr, page: Hpa) -> Result<Tdvpr, SeamError> {
    let leaf = TdhLeaf::VP_CREATE;
    let gprs = Gprs { rcx: page.get(), rdx: tdr.0.get(), ..Gprs::ZERO };
    issue(lp, leaf, leaf.word(), gprs)?.plain()?;
    Ok(Tdvpr(page))
}

/// Adds a control page to a VCPU.
///
/// # Errors
/// `TDCX_NUM_INCORRECT` beyond the greatest number, `VCPU_STATE_INCORRECT` once it is initialised.
pub fn tdh_vp_addcx<S: SeamCall + ?Sized>(lp: &mut S, tdvpr: Tdvpr, page: Hpa) -> Result<(), SeamError> {
    let leaf = TdhLeaf::VP_ADDCX;
    let gprs = Gprs { rcx: page.get(), rdx: tdvpr.0.get(), ..Gprs::ZERO };
    issue(lp, leaf, leaf.word(), gprs)?.plain().map(drop)
}

/// Initialises a VCPU, which also associates it with this LP. The guest starts with `initial_rcx` in RCX and
/// R8: by convention the GPA of the TD HOB.
///
/// # Errors
/// `MAX_VCPUS_EXCEEDED`; `TDCX_NUM_INCORRECT` while control pages are missing.
pub fn tdh_vp_init<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdvpr: Tdvpr,
    initial_rcx: u64,
) -> Result<(), SeamError> {
    let leaf = TdhLeaf::VP_INIT;
    let gprs = Gprs { rcx: tdvpr.0.get(), rdx: initial_rcx, ..Gprs::ZERO };
    issue(lp, leaf, leaf.word(), gprs)?.plain().map(drop)
}

/// Initialises a VCPU as [`tdh_vp_init`] does, and gives it its x2APIC id: releases from 1.5.05 on.
///
/// # Errors
/// `X2APIC_ID_NOT_UNIQUE` where another VCPU of the TD has the id; `MAX_VCPUS_EXCEEDED`; `TDCX_NUM_INCORRECT` while
/// control pages are missing.
pub fn tdh_vp_init_x2apic<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdvpr: Tdvpr,
    initial_rcx: u64,
    x2apic_id: u32,
) -> Result<(), SeamError> {
    let leaf = TdhLeaf::VP_INIT;
    let gprs = Gprs { rcx: tdvpr.0.get(), rdx: initial_rcx, r8: x2apic_id.into(), ..Gprs::ZERO };
    issue(lp, leaf, leaf.word_version(1), gprs)?.plain().map(drop)
}

/// Ends the association of a VCPU with this LP.
///
/// # Errors
/// `VCPU_NOT_ASSOCIATED` where it is associated with none or with another.
pub fn tdh_vp_flush<S: SeamCall + ?Sized>(lp: &mut S, tdvpr: Tdvpr) -> Result<(), SeamError> {
    let leaf = TdhLeaf::VP_FLUSH;
    let gprs = Gprs { rcx: tdvpr.0.get(), ..Gprs::ZERO };
    issue(lp, leaf, leaf.word(), gprs)?.plain().map(drop)
}

/// Reads a VCPU's metadata element, which also associates the VCPU with this LP.
///
/// # Errors
/// `VCPU_ASSOCIATED` where it is associated with another LP; the metadata codes.
pub fn tdh_vp_rd<S: SeamCall + ?Sized>(lp: &mut S, tdvpr: Tdvpr, field: FieldId) -> Result<u64, SeamError> {
    metadata::read(lp, TdhLeaf::VP_RD, tdvpr.0.get(), field)
}

/// Reads a VCPU's metadata element and learns the next one; start with [`FieldId::NULL`].
///
/// # Errors
/// As for [`tdh_vp_rd`].
pub fn tdh_vp_rd_next<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdvpr: Tdvpr,
    field: FieldId,
) -> Result<MetadataStep, SeamError> {
    metadata::read_next(lp, TdhLeaf::VP_RD, tdvpr.0.get(), field)
}

/// Writes a VCPU's metadata element and returns its old value; associates the VCPU with this LP.
///
/// # Errors
/// As for [`tdh_vp_rd`]; `METADATA_FIELD_NOT_WRITABLE`.
pub fn tdh_vp_wr<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdvpr: Tdvpr,
    field: FieldId,
    write: FieldWrite,
) -> Result<u64, SeamError> {
    metadata::write(lp, TdhLeaf::VP_WR, tdvpr.0.get(), field, write)
}
