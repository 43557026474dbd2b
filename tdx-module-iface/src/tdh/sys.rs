//! `TDH.SYS.*`: bringing up the module.
//!
//! Order: SYS.INIT once, SYS.LP.INIT on every LP, SYS.CONFIG once, SYS.KEY.CONFIG once per package, and
//! SYS.TDMR.INIT until every TDMR is initialised.

use tdvisor_base::{Hpa, KeyId};

use super::metadata::MetadataStep;
use super::{issue, metadata};
use crate::leaf::TdhLeaf;
use crate::metadata::FieldId;
use crate::outcome::SeamError;
use crate::regs::{Gprs, SeamCall};
use crate::status::StatusCode;

fn without_operands<S: SeamCall + ?Sized>(lp: &mut S, leaf: TdhLeaf) -> Result<(), SeamError> {
    issue(lp, leaf, leaf.word(), Gprs::ZERO)?.plain().map(drop)
}

/// Initialises the module.
///
/// # Errors
/// `SYS_INIT_NOT_PENDING` the second time; platform-class codes where the machine is not set up for TDX.
pub fn tdh_sys_init<S: SeamCall + ?Sized>(lp: &mut S) -> Result<(), SeamError> {
    without_operands(lp, TdhLeaf::SYS_INIT)
}

/// Initialises the module on this LP.
///
/// # Errors
/// `SYS_LP_INIT_DONE` the second time; `INCONSISTENT_MSR` and `INCONSISTENT_CPUID_FIELD` where the LP differs from
/// the first LP.
pub fn tdh_sys_lp_init<S: SeamCall + ?Sized>(lp: &mut S) -> Result<(), SeamError> {
    without_operands(lp, TdhLeaf::SYS_LP_INIT)
}

/// Gives the module its memory and its own key id. `tdmr_addresses` is a 512-byte aligned array of `count`
/// addresses of [`TdmrInfo`](crate::tdmr::TdmrInfo), in ascending order of the TDMRs.
///
/// # Errors
/// Those of class 0x0A, whose details name TDMR and reserved area; `SYS_CONFIG_NOT_PENDING` while an LP is not
/// initialised.
pub fn tdh_sys_config<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdmr_addresses: Hpa,
    count: u64,
    key: KeyId,
) -> Result<(), SeamError> {
    let leaf = TdhLeaf::SYS_CONFIG;
    let gprs = Gprs { rcx: tdmr_addresses.get(), rdx: count, r8: u64::from(key.get()), ..Gprs::ZERO };
    issue(lp, leaf, leaf.word(), gprs)?.plain().map(drop)
}

/// Gives a module with dynamic PAMT (release 2.0) its memory and its own key id. Each TDMR's area for 4 KiB entries is
/// a bitmap, one bit for each 4 KiB page, and the entries come with [`super::tdh_phymem_pamt_add`].
/// `tdmr_addresses` is a 512-byte aligned array of `count` addresses of [`TdmrInfo`](crate::tdmr::TdmrInfo), in
/// ascending order of the TDMRs.
///
/// # Errors
/// Those of class 0x0A, whose details name TDMR and reserved area; `SYS_CONFIG_NOT_PENDING` while an LP is not
/// initialised; `OPERAND_INVALID` from a module without the feature.
pub fn tdh_sys_config_with_dynamic_pamt<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdmr_addresses: Hpa,
    count: u64,
    key: KeyId,
) -> Result<(), SeamError> {
    /// R8 bit 16 (Linux, TDX host code).
    const DYNAMIC_PAMT: u64 = 1 << 16;
    let leaf = TdhLeaf::SYS_CONFIG;
    let r8 = u64::from(key.get()) | DYNAMIC_PAMT;
    let gprs = Gprs { rcx: tdmr_addresses.get(), rdx: count, r8, ..Gprs::ZERO };
    issue(lp, leaf, leaf.word(), gprs)?.plain().map(drop)
}

/// Configures the module's own key on the package of this LP.
///
/// # Errors
/// `SYS_KEY_CONFIG_NOT_PENDING` before `TDH.SYS.CONFIG`; `KEY_CONFIGURED` is a success here.
pub fn tdh_sys_key_config<S: SeamCall + ?Sized>(lp: &mut S) -> Result<super::KeyConfigOutcome, SeamError> {
    let leaf = TdhLeaf::SYS_KEY_CONFIG;
    let answer = issue(lp, leaf, leaf.word(), Gprs::ZERO)?;
    if answer.is(StatusCode::KEY_CONFIGURED) {
        return Ok(super::KeyConfigOutcome::AlreadyConfigured);
    }
    answer.plain().map(|_| super::KeyConfigOutcome::Configured)
}

/// How far the initialisation of a TDMR is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TdmrInitOutcome {
    /// One more step is done. Everything below this address may be used; call again until it reaches the end of
    /// the TDMR.
    UsableBelow(Hpa),
    /// The TDMR was initialised before.
    AlreadyInitialized,
}

/// Initialises the next part of the PAMT of the TDMR that starts at `tdmr`.
///
/// # Errors
/// `OPERAND_INVALID | RCX` where no TDMR starts there.
pub fn tdh_sys_tdmr_init<S: SeamCall + ?Sized>(lp: &mut S, tdmr: Hpa) -> Result<TdmrInitOutcome, SeamError> {
    let leaf = TdhLeaf::SYS_TDMR_INIT;
    let gprs = Gprs { rcx: tdmr.get(), ..Gprs::ZERO };
    let answer = issue(lp, leaf, leaf.word(), gprs)?;
    if answer.is(StatusCode::TDMR_ALREADY_INITIALIZED) {
        return Ok(TdmrInitOutcome::AlreadyInitialized);
    }
    answer.plain().map(|gprs| TdmrInitOutcome::UsableBelow(Hpa::new(gprs.rdx)))
}

/// Where `TDH.SYS.INFO` writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SysInfoBuffers {
    /// For [`TdhSysInfo`](crate::tdsysinfo::TdhSysInfo): 1 KiB aligned.
    pub info: Hpa,
    /// The size of the buffer for the structure, bytes, at least 1024.
    pub info_bytes: u64,
    /// For the table of [`CmrInfo`](crate::tdmr::CmrInfo): 512-byte aligned.
    pub cmrs: Hpa,
    /// The number of entries in the list of CMRs, at least 32.
    pub cmr_entries: u64,
}

/// What `TDH.SYS.INFO` has written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SysInfoSizes {
    /// Bytes of the information.
    pub info_bytes: u64,
    /// Entries of the CMR table.
    pub cmr_entries: u64,
}

/// Writes the module's capabilities and the CMR table.
///
/// # Errors
/// `SYS_LP_INIT_NOT_DONE` on an LP that is not initialised.
pub fn tdh_sys_info<S: SeamCall + ?Sized>(
    lp: &mut S,
    buffers: SysInfoBuffers,
) -> Result<SysInfoSizes, SeamError> {
    let leaf = TdhLeaf::SYS_INFO;
    let gprs = Gprs {
        rcx: buffers.info.get(),
        rdx: buffers.info_bytes,
        r8: buffers.cmrs.get(),
        r9: buffers.cmr_entries,
        ..Gprs::ZERO
    };
    let gprs = issue(lp, leaf, leaf.word(), gprs)?.plain()?;
    Ok(SysInfoSizes { info_bytes: gprs.rdx, cmr_entries: gprs.r9 })
}

/// Reads one of the module's metadata elements and learns the next one; start with [`FieldId::NULL`].
///
/// # Errors
/// `METADATA_FIELD_ID_INCORRECT`; `SYS_LP_INIT_NOT_DONE` on an LP that is not initialised.
pub fn tdh_sys_rd<S: SeamCall + ?Sized>(lp: &mut S, field: FieldId) -> Result<MetadataStep, SeamError> {
    let leaf = TdhLeaf::SYS_RD;
    let gprs = Gprs { rdx: field.0, ..Gprs::ZERO };
    metadata::step(issue(lp, leaf, leaf.word(), gprs)?)
}

/// Writes the module's metadata, from `start` on, as a list into a 4 KiB page, and returns the identifier with
/// which the next call continues ([`FieldId::NULL`] at the end).
///
/// # Errors
/// As for [`tdh_sys_rd`].
pub fn tdh_sys_rdall<S: SeamCall + ?Sized>(
    lp: &mut S,
    page: Hpa,
    start: FieldId,
) -> Result<FieldId, SeamError> {
    let leaf = TdhLeaf::SYS_RDALL;
    let gprs = Gprs { rdx: page.get(), r8: start.0, ..Gprs::ZERO };
    Ok(FieldId(issue(lp, leaf, leaf.word(), gprs)?.plain()?.r8))
}

/// Ends the use of the module on this LP.
///
/// # Errors
/// Those of any leaf.
pub fn tdh_sys_lp_shutdown<S: SeamCall + ?Sized>(lp: &mut S) -> Result<(), SeamError> {
    without_operands(lp, TdhLeaf::SYS_LP_SHUTDOWN)
}

/// Shuts the module down and prepares what the next one needs to take over the TDs.
///
/// # Errors
/// `OPERAND_INVALID | RCX` for a handoff version that the module cannot write.
pub fn tdh_sys_shutdown<S: SeamCall + ?Sized>(lp: &mut S, handoff_version: u16) -> Result<(), SeamError> {
    let leaf = TdhLeaf::SYS_SHUTDOWN;
    let gprs = Gprs { rcx: u64::from(handoff_version), ..Gprs::ZERO };
    issue(lp, leaf, leaf.word(), gprs)?.plain().map(drop)
}

/// Takes over the TDs of the module before this one.
///
/// # Errors
/// `SYS_STATE_INCORRECT`, `SYS_INVALID_HANDOFF`.
pub fn tdh_sys_update<S: SeamCall + ?Sized>(lp: &mut S) -> Result<(), SeamError> {
    without_operands(lp, TdhLeaf::SYS_UPDATE)
}
