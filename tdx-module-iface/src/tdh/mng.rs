//! `TDH.MNG.*`: creating, keying, initialising and tearing down a TD.

use tdvisor_base::{Hpa, KeyId};

use super::metadata::{FieldWrite, MetadataStep};
use super::{issue, metadata};
use crate::handles::Tdr;
use crate::leaf::TdhLeaf;
use crate::metadata::FieldId;
use crate::outcome::SeamError;
use crate::regs::{Gprs, SeamCall};
use crate::status::{Operand, StatusCode};

fn on_tdr<S: SeamCall + ?Sized>(lp: &mut S, leaf: TdhLeaf, tdr: Tdr) -> Result<(), SeamError> {
    let gprs = Gprs { rcx: tdr.0.get(), ..Gprs::ZERO };
    issue(lp, leaf, leaf.word(), gprs)?.plain().map(drop)
}

/// Makes `page` the root page of a new TD with this private key id.
///
/// # Errors
/// `OPERAND_INVALID | RDX` for a key id that is not private, `HKID_NOT_FREE` for one in use.
pub fn tdh_mng_create<S: SeamCall + ?Sized>(lp: &mut S, page: Hpa, key: KeyId) -> Result<Tdr, SeamError> {
    let leaf = TdhLeaf::MNG_CREATE;
    let gprs = Gprs { rcx: page.get(), rdx: u64::from(key.get()), ..Gprs::ZERO };
    issue(lp, leaf, leaf.word(), gprs)?.plain()?;
    Ok(Tdr(page))
}

/// Whether configuring the key on a package changed something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyConfigOutcome {
    /// The key is configured on this package now.
    Configured,
    /// The package's key was configured before; nothing changed.
    AlreadyConfigured,
}

/// Configures a TD's key on the package of this LP. To be called once per package.
///
/// # Errors
/// `LIFECYCLE_STATE_INCORRECT` once all packages are done.
pub fn tdh_mng_key_config<S: SeamCall + ?Sized>(lp: &mut S, tdr: Tdr) -> Result<KeyConfigOutcome, SeamError> {
    let leaf = TdhLeaf::MNG_KEY_CONFIG;
    let gprs = Gprs { rcx: tdr.0.get(), ..Gprs::ZERO };
    let answer = issue(lp, leaf, leaf.word(), gprs)?;
    if answer.is(StatusCode::KEY_CONFIGURED) {
        return Ok(KeyConfigOutcome::AlreadyConfigured);
    }
    answer.plain().map(|_| KeyConfigOutcome::Configured)
}

/// Adds a control page to a TD.
///
/// # Errors
/// `TDCX_NUM_INCORRECT` beyond the greatest number.
pub fn tdh_mng_addcx<S: SeamCall + ?Sized>(lp: &mut S, tdr: Tdr, page: Hpa) -> Result<(), SeamError> {
    let leaf = TdhLeaf::MNG_ADDCX;
    let gprs = Gprs { rcx: page.get(), rdx: tdr.0.get(), ..Gprs::ZERO };
    issue(lp, leaf, leaf.word(), gprs)?.plain().map(drop)
}

/// The CPUID leaf whose configuration `TDH.MNG.INIT` refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RefusedCpuid {
    /// Leaf number.
    pub leaf: u32,
    /// Subleaf number; all-ones where the leaf has none.
    pub subleaf: u32,
}

impl core::fmt::Display for RefusedCpuid {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.subleaf {
            u32::MAX => write!(f, "CPUID leaf {:#x}", self.leaf),
            subleaf => write!(f, "CPUID leaf {:#x} subleaf {subleaf:#x}", self.leaf),
        }
    }
}

/// Initialises a TD from the [`TdParams`](crate::td_params::TdParams) at this address (shared, 1 KiB aligned).
///
/// # Errors
/// `OPERAND_INVALID` with the TD_PARAMS field as its operand; for CPUID_CONFIG the details name the leaf.
pub fn tdh_mng_init<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdr: Tdr,
    td_params: Hpa,
) -> Result<(), SeamError<RefusedCpuid>> {
    let leaf = TdhLeaf::MNG_INIT;
    let gprs = Gprs { rcx: tdr.0.get(), rdx: td_params.get(), ..Gprs::ZERO };
    issue(lp, leaf, leaf.word(), gprs)?
        .check(|status, gprs| {
            (status.code() == StatusCode::OPERAND_INVALID && status.operand() == Operand::CPUID_CONFIG)
                .then_some(RefusedCpuid {
                    leaf: (gprs.rcx & 0xffff_ffff) as u32,
                    subleaf: (gprs.rcx >> 32) as u32,
                })
        })
        .map(drop)
}

/// Declares that every VCPU of the TD is flushed. The TD cannot run any more.
///
/// # Errors
/// `FLUSHVP_NOT_DONE` while a VCPU is associated with an LP.
pub fn tdh_mng_vpflushdone<S: SeamCall + ?Sized>(lp: &mut S, tdr: Tdr) -> Result<(), SeamError> {
    on_tdr(lp, TdhLeaf::MNG_VPFLUSHDONE, tdr)
}

/// Frees the TD's key id, after the caches of every package were written back.
///
/// # Errors
/// `WBCACHE_NOT_COMPLETE` before that.
pub fn tdh_mng_key_freeid<S: SeamCall + ?Sized>(lp: &mut S, tdr: Tdr) -> Result<(), SeamError> {
    on_tdr(lp, TdhLeaf::MNG_KEY_FREEID, tdr)
}

/// Does nothing: kept by the module for compatibility.
///
/// # Errors
/// Those of any leaf.
pub fn tdh_mng_key_reclaimid<S: SeamCall + ?Sized>(lp: &mut S, tdr: Tdr) -> Result<(), SeamError> {
    on_tdr(lp, TdhLeaf::MNG_KEY_RECLAIMID, tdr)
}

/// Reads a TD's metadata element.
///
/// # Errors
/// `METADATA_FIELD_NOT_READABLE`, `METADATA_FIELD_ID_INCORRECT`.
pub fn tdh_mng_rd<S: SeamCall + ?Sized>(lp: &mut S, tdr: Tdr, field: FieldId) -> Result<u64, SeamError> {
    metadata::read(lp, TdhLeaf::MNG_RD, tdr.0.get(), field)
}

/// Reads a TD's metadata element and learns the next one; start with [`FieldId::NULL`].
///
/// # Errors
/// As for [`tdh_mng_rd`].
pub fn tdh_mng_rd_next<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdr: Tdr,
    field: FieldId,
) -> Result<MetadataStep, SeamError> {
    metadata::read_next(lp, TdhLeaf::MNG_RD, tdr.0.get(), field)
}

/// Writes a TD's metadata element and returns its old value.
///
/// # Errors
/// `METADATA_FIELD_NOT_WRITABLE`, `METADATA_FIELD_ID_INCORRECT`, `METADATA_FIELD_VALUE_NOT_VALID`.
pub fn tdh_mng_wr<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdr: Tdr,
    field: FieldId,
    write: FieldWrite,
) -> Result<u64, SeamError> {
    metadata::write(lp, TdhLeaf::MNG_WR, tdr.0.get(), field, write)
}
