//! The leaf table of the host side: what answers each leaf, and what is claimed about it.
//!
//! When a leaf runs, with which versions and in which states, is in its row of
//! [`TDH`]; adding a leaf takes a row there, a row here and its function.

use tdx_module_iface::leaf::{LeafInfo, TDH};
use tdx_module_iface::{Gprs, StatusCode as C, TdhLeaf};

use super::{Call, Step, mem, mng, mr, phymem, sys, vp};
use crate::fidelity::Degree;
use crate::fidelity::Gate::{FieldId, FieldRead, FieldWrite, Keys, OpState, Page, Tdcs, VcpuPages, Walk};
use crate::fidelity::claim::{
    Claim, LATER_RELEASE, MEMORY, REMOVING, absent, by_rule, exact, never, partial,
};
use crate::metadata;
use crate::migration::{export, import};

/// What answers a leaf.
#[derive(Clone, Copy)]
pub(crate) enum Run {
    /// A function of the registers that changes none but RAX.
    Reads(fn(&Call<'_>, &Gprs) -> Step),
    /// A function of the registers.
    Leaf(fn(&Call<'_>, &mut Gprs) -> Step),
    /// A function of the registers and the version.
    Versioned(fn(&Call<'_>, &mut Gprs, u8) -> Step),
    /// The one that runs a guest.
    Enter,
    /// Success, and nothing else.
    Nothing,
    /// As if the leaf were unknown.
    Absent,
}

/// One row.
#[derive(Clone, Copy)]
pub(crate) struct HostLeaf {
    /// What the ABI says about the leaf.
    pub(crate) info: &'static LeafInfo,
    /// What answers it.
    pub(crate) run: Run,
    /// What is claimed about it.
    pub(crate) claim: Claim,
}

const fn row(leaf: TdhLeaf, run: Run, claim: Claim) -> HostLeaf {
    match leaf.info() {
        Some(info) => HostLeaf { info, run, claim },
        None => panic!("a leaf without a row in the table of the ABI"),
    }
}

/// One row per leaf, by family.
#[rustfmt::skip]
pub(crate) const LEAVES: &[HostLeaf] = &[
    row(TdhLeaf::VP_ENTER, Run::Enter, partial(&[Page, Keys, OpState, VcpuPages], &[C::VCPU_STATE_INCORRECT, C::VCPU_ASSOCIATED, C::TSC_ROLLBACK, C::NON_RECOVERABLE_VCPU, C::NON_RECOVERABLE_TD, C::NON_RECOVERABLE_TD_NON_ACCESSIBLE, C::HOST_PRIORITY_BUSY_TIMEOUT, C::TD_EXIT_BEFORE_L2_ENTRY, C::TD_EXIT_ON_L2_VM_EXIT, C::TD_EXIT_ON_L2_TO_L1, C::CROSS_TD_TRAP], "exits that need SMM or the bus-lock and notify detectors do not occur")),
    row(TdhLeaf::VP_ADDCX, Run::Reads(vp::addcx::addcx), exact(&[Page, Keys, OpState], &[C::TDCX_NUM_INCORRECT, C::VCPU_STATE_INCORRECT], "")),
    row(TdhLeaf::VP_CREATE, Run::Reads(vp::create::create), exact(&[Page, Keys, Tdcs, OpState], &[], "")),
    row(TdhLeaf::VP_FLUSH, Run::Reads(vp::flush::flush), exact(&[Page], &[C::TD_KEYS_NOT_CONFIGURED, C::TDCX_NUM_INCORRECT, C::VCPU_NOT_ASSOCIATED], "")),
    row(TdhLeaf::VP_INIT, Run::Versioned(vp::init::init), exact(&[Page, Keys, OpState, VcpuPages], &[C::VCPU_STATE_INCORRECT, C::MAX_VCPUS_EXCEEDED, C::X2APIC_ID_NOT_UNIQUE], "")),
    row(TdhLeaf::VP_RD, Run::Versioned(metadata::vp_leaves::read), partial(&[Page, Keys, VcpuPages, FieldId, FieldRead], &[C::VCPU_STATE_INCORRECT, C::VCPU_ASSOCIATED], "VMCS fields that the emulator does not use hold what was written to them")),
    row(TdhLeaf::VP_WR, Run::Leaf(metadata::vp_leaves::write), exact(&[Page, Keys, VcpuPages, FieldId, FieldWrite], &[C::VCPU_STATE_INCORRECT, C::VCPU_ASSOCIATED, C::TD_VMCS_FIELD_NOT_INITIALIZED], "")),
    row(TdhLeaf::MNG_ADDCX, Run::Reads(mng::addcx::addcx), exact(&[Page, Keys, OpState], &[C::TDCX_NUM_INCORRECT, C::RND_NO_ENTROPY], "")),
    row(TdhLeaf::MNG_KEY_CONFIG, Run::Reads(mng::key_config::key_config), exact(&[Page], &[C::TD_FATAL, C::LIFECYCLE_STATE_INCORRECT, C::KEY_CONFIGURED, C::KEY_GENERATION_FAILED], "")),
    row(TdhLeaf::MNG_CREATE, Run::Reads(mng::create::create), exact(&[Page], &[C::HKID_NOT_FREE, C::RND_NO_ENTROPY], "")),
    row(TdhLeaf::MNG_RD, Run::Versioned(metadata::td_leaves::read), partial(&[Page, Keys, Tdcs, OpState, FieldId, FieldRead], &[], "the fields of TD-preserving update read as zero")),
    row(TdhLeaf::MNG_WR, Run::Leaf(metadata::td_leaves::write), exact(&[Page, Keys, Tdcs, OpState, FieldId, FieldWrite], &[C::METADATA_WR_MASK_NOT_VALID], "")),
    row(TdhLeaf::MNG_VPFLUSHDONE, Run::Reads(mng::vpflushdone::vpflushdone), exact(&[Page], &[C::LIFECYCLE_STATE_INCORRECT, C::FLUSHVP_NOT_DONE], "")),
    row(TdhLeaf::MNG_KEY_FREEID, Run::Reads(mng::key_freeid::key_freeid), exact(&[Page], &[C::LIFECYCLE_STATE_INCORRECT, C::WBCACHE_NOT_COMPLETE], "")),
    row(TdhLeaf::MNG_INIT, Run::Leaf(crate::td_params::leaf::init), exact(&[Page, Keys, Tdcs, OpState], &[C::CPUID_LEAF_1F_FORMAT_UNRECOGNIZED], "values that depend on the processor's CPUID are those of the emulated processor")),
    // Kept for compatibility; the module does nothing (Intel 348551, TDH.MNG.KEY.RECLAIMID).
    row(TdhLeaf::MNG_KEY_RECLAIMID, Run::Nothing, exact(&[], &[], "does nothing, as in the module")),
    row(TdhLeaf::MR_EXTEND, Run::Leaf(mr::extend::extend), exact(&[Page, Keys, Tdcs, OpState], &[C::EPT_ENTRY_NOT_PRESENT], "")),
    row(TdhLeaf::MR_FINALIZE, Run::Reads(mr::finalize::finalize), exact(&[Page, Keys, Tdcs, OpState], &[C::NO_VCPUS], "")),
    row(TdhLeaf::MEM_PAGE_ADD, Run::Leaf(mem::page_add::page_add), exact(MEMORY, &[], "")),
    row(TdhLeaf::MEM_SEPT_ADD, Run::Versioned(mem::sept_add::sept_add), exact(MEMORY, &[C::INTERRUPTED_RESUMABLE, C::L2_SEPT_WALK_FAILED, C::L2_SEPT_ENTRY_NOT_FREE], "")),
    row(TdhLeaf::MEM_PAGE_RELOCATE, Run::Leaf(mem::page_relocate::page_relocate), exact(REMOVING, &[], "")),
    row(TdhLeaf::MEM_PAGE_AUG, Run::Leaf(mem::page_aug::page_aug), exact(MEMORY, &[], "")),
    row(TdhLeaf::MEM_RANGE_BLOCK, Run::Leaf(mem::range_block::range_block), exact(MEMORY, &[C::GPA_RANGE_ALREADY_BLOCKED], "")),
    row(TdhLeaf::MEM_RD, Run::Leaf(mem::rd_wr::read), exact(&[Page, Keys, Tdcs, OpState], &[C::TD_NON_DEBUG, C::EPT_ENTRY_NOT_PRESENT], "")),
    row(TdhLeaf::MEM_WR, Run::Leaf(mem::rd_wr::write), exact(&[Page, Keys, Tdcs, OpState], &[C::TD_NON_DEBUG, C::EPT_ENTRY_NOT_PRESENT], "")),
    row(TdhLeaf::MEM_PAGE_DEMOTE, Run::Leaf(mem::page_demote::page_demote), exact(REMOVING, &[C::INTERRUPTED_RESTARTABLE, C::L2_SEPT_WALK_FAILED, C::L2_SEPT_PAGE_NOT_PROVIDED], "late 1.5 and 2.0 profiles are not interrupted")),
    row(TdhLeaf::MEM_PAGE_PROMOTE, Run::Versioned(mem::page_promote::page_promote), exact(REMOVING, &[C::INTERRUPTED_RESTARTABLE, C::EPT_INVALID_PROMOTE_CONDITIONS], "")),
    row(TdhLeaf::MEM_SEPT_RD, Run::Leaf(mem::sept_rd::sept_rd), exact(&[Page, Keys, Tdcs, OpState, Walk], &[], "")),
    row(TdhLeaf::MEM_PAGE_REMOVE, Run::Leaf(mem::page_remove::page_remove), exact(REMOVING, &[], "")),
    row(TdhLeaf::MEM_SEPT_REMOVE, Run::Versioned(mem::sept_remove::sept_remove), exact(REMOVING, &[C::EPT_PAGE_NOT_FREE], "")),
    row(TdhLeaf::MEM_TRACK, Run::Reads(mem::track::track), exact(&[Page, Keys, Tdcs, OpState], &[C::PREVIOUS_TLB_EPOCH_BUSY], "")),
    row(TdhLeaf::MEM_RANGE_UNBLOCK, Run::Leaf(mem::range_unblock::range_unblock), exact(MEMORY, &[C::TLB_TRACKING_NOT_DONE], "")),
    row(TdhLeaf::PHYMEM_PAGE_RDMD, Run::Leaf(phymem::rdmd::rdmd), exact(&[], &[C::OPERAND_INVALID, C::OPERAND_ADDR_RANGE_ERROR, C::OPERAND_BUSY], "owner and epoch of a free page are whatever was there before")),
    row(TdhLeaf::PHYMEM_PAGE_RECLAIM, Run::Leaf(phymem::reclaim::reclaim), exact(&[Page], &[C::LIFECYCLE_STATE_INCORRECT, C::TD_ASSOCIATED_PAGES_EXIST], "")),
    row(TdhLeaf::PHYMEM_CACHE_WB, Run::Reads(phymem::cache_wb::cache_wb), exact(&[], &[C::OPERAND_INVALID, C::OPERAND_BUSY, C::NO_HKID_READY_TO_WBCACHE, C::WBCACHE_RESUME_ERROR, C::INTERRUPTED_RESUMABLE], "how often it looks for interrupts is a parameter of the machine")),
    row(TdhLeaf::PHYMEM_PAGE_WBINVD, Run::Reads(phymem::wbinvd::wbinvd), exact(&[Page], &[], "")),
    row(TdhLeaf::PHYMEM_PAMT_ADD, Run::Reads(phymem::pamt::add), by_rule(&[Page], &[C::HPA_RANGE_NOT_FREE], "release 2.0 with dynamic PAMT; otherwise OPERAND_INVALID on RAX")),
    row(TdhLeaf::PHYMEM_PAMT_REMOVE, Run::Leaf(phymem::pamt::remove), by_rule(&[], &[C::OPERAND_INVALID, C::OPERAND_ADDR_RANGE_ERROR, C::OPERAND_BUSY, C::NO_PAMT_PAGE_PAIR, C::PAMT_PAGE_NOT_EMPTY], "release 2.0 with dynamic PAMT; otherwise OPERAND_INVALID on RAX")),
    row(TdhLeaf::SYS_KEY_CONFIG, Run::Leaf(|call, _| sys::key_config::key_config(call)), exact(&[], &[C::OPERAND_BUSY, C::SYS_BUSY, C::SYS_KEY_CONFIG_NOT_PENDING, C::KEY_CONFIGURED, C::KEY_GENERATION_FAILED], "")),
    row(TdhLeaf::SYS_INFO, Run::Leaf(metadata::sys::info), exact(&[], &[C::OPERAND_INVALID, C::SYS_LP_INIT_NOT_DONE], "")),
    row(TdhLeaf::SYS_INIT, Run::Leaf(sys::init::init), partial(&[], &[C::OPERAND_INVALID, C::SYS_BUSY, C::SYS_INIT_NOT_PENDING, C::RND_NO_ENTROPY], "the checks of the platform's registers always pass")),
    row(TdhLeaf::SYS_RD, Run::Leaf(metadata::sys::read), exact(&[FieldId], &[C::METADATA_FIRST_FIELD_ID_IN_CONTEXT, C::SYS_LP_INIT_NOT_DONE], "")),
    row(TdhLeaf::SYS_LP_INIT, Run::Leaf(|call, _| sys::lp_init::lp_init(call)), partial(&[], &[C::SYS_BUSY, C::SYS_LP_INIT_NOT_PENDING, C::SYS_LP_INIT_DONE], "the checks of the platform's registers always pass")),
    row(TdhLeaf::SYS_TDMR_INIT, Run::Leaf(sys::tdmr_init::tdmr_init), exact(&[], &[C::OPERAND_INVALID, C::OPERAND_BUSY, C::TDMR_ALREADY_INITIALIZED], "")),
    row(TdhLeaf::SYS_RDALL, Run::Leaf(metadata::sys::read_all), exact(&[], &[C::OPERAND_INVALID, C::SYS_LP_INIT_NOT_DONE, C::METADATA_FIELD_ID_INCORRECT], "")),
    // No state of the processor depends on it here (recorded: no effect).
    row(TdhLeaf::SYS_LP_SHUTDOWN, Run::Nothing, exact(&[], &[], "no state of the processor depends on it")),
    row(TdhLeaf::SYS_CONFIG, Run::Leaf(sys::config::config), exact(&[], &[C::OPERAND_INVALID, C::SYS_BUSY, C::SYS_CONFIG_NOT_PENDING, C::INVALID_TDMR, C::NON_ORDERED_TDMR, C::INVALID_RESERVED_IN_TDMR, C::NON_ORDERED_RESERVED_IN_TDMR, C::INVALID_PAMT, C::PAMT_OVERLAP, C::PAMT_OUTSIDE_CMRS, C::TDMR_OUTSIDE_CMRS], "")),
    row(TdhLeaf::SYS_SHUTDOWN, Run::Leaf(sys::shutdown::shutdown), partial(&[], &[C::OPERAND_INVALID, C::SYS_BUSY], "no handoff data is written")),
    row(TdhLeaf::SYS_UPDATE, Run::Leaf(|call, _| sys::update::update(call)), never(&[C::SYS_BUSY, C::SYS_STATE_INCORRECT, C::SYS_INVALID_HANDOFF], "always fails: there is no handoff data")),
    row(TdhLeaf::SYS_DISABLE, Run::Leaf(|call, _| sys::shutdown::disable(call)), Claim { degree: Degree::Partial, ..by_rule(&[], &[C::SYS_BUSY], "release 2.0; never interrupted; later calls find what they find after TDH.SYS.SHUTDOWN") }),
    row(TdhLeaf::SERVTD_BIND, Run::Leaf(crate::servtd::bind::bind), exact(&[Page, Keys, Tdcs, OpState], &[C::SERVTD_ATTR_MISMATCH, C::SERVTD_INFO_HASH_MISMATCH, C::SERVTD_UUID_MISMATCH], "recorded from 1.5.01; for later releases by rule")),
    row(TdhLeaf::SERVTD_PREBIND, Run::Reads(crate::servtd::bind::prebind), exact(&[Page, Keys, Tdcs, OpState], &[C::SERVTD_BOUND], "recorded from 1.5.01; for later releases by rule")),
    row(TdhLeaf::SERVTD_REBIND, Run::Absent, absent(LATER_RELEASE)),
    row(TdhLeaf::MIG_STREAM_CREATE, Run::Reads(crate::migration::stream_create::create), exact(&[Page, Keys, Tdcs, OpState], &[C::MAX_MIGS_NUM_EXCEEDED], "recorded from 1.5.01; for later releases by rule")),
    row(TdhLeaf::EXPORT_ABORT, Run::Reads(export::abort::abort), exact(&[Page, Keys, Tdcs, OpState], &[C::INVALID_MBMD, C::INCORRECT_MBMD_MAC], "recorded from 1.5.01; for later releases by rule")),
    row(TdhLeaf::EXPORT_BLOCKW, Run::Leaf(export::blockw::blockw), exact(&[Page, Keys, Tdcs, OpState], &[C::INTERRUPTED_RESUMABLE], "recorded from 1.5.01; for later releases by rule")),
    row(TdhLeaf::EXPORT_RESTORE, Run::Leaf(export::restore::restore), exact(&[Page, Keys, Tdcs, OpState], &[C::INTERRUPTED_RESUMABLE], "recorded from 1.5.01; for later releases by rule")),
    row(TdhLeaf::EXPORT_MEM, Run::Leaf(export::mem::export), exact(&[Page, Keys, Tdcs, OpState], &[C::INTERRUPTED_RESUMABLE, C::INVALID_RESUMPTION, C::MIGRATION_STREAM_STATE_INCORRECT], "recorded from 1.5.01; for later releases by rule")),
    row(TdhLeaf::EXPORT_PAUSE, Run::Reads(export::pause::pause), exact(&[Page, Keys, Tdcs, OpState], &[], "recorded from 1.5.01; for later releases by rule")),
    row(TdhLeaf::EXPORT_TRACK, Run::Reads(export::track::track), exact(&[Page, Keys, Tdcs, OpState], &[C::EXPORTED_DIRTY_PAGES_REMAIN, C::MIGRATION_EPOCH_OVERFLOW], "recorded from 1.5.01; for later releases by rule")),
    row(TdhLeaf::EXPORT_STATE_IMMUTABLE, Run::Leaf(export::immutable::export), exact(&[Page, Keys, Tdcs, OpState], &[C::INTERRUPTED_RESUMABLE, C::INVALID_RESUMPTION, C::TD_NOT_MIGRATABLE, C::PREVIOUS_EXPORT_CLEANUP_INCOMPLETE, C::MIN_MIGS_NOT_CREATED, C::MIGRATION_STREAM_STATE_INCORRECT, C::MIGRATION_DECRYPTION_KEY_NOT_SET, C::MAX_EXPORTS_EXCEEDED], "recorded from 1.5.01; for later releases by rule")),
    row(TdhLeaf::EXPORT_STATE_TD, Run::Leaf(export::td::export), exact(&[Page, Keys, Tdcs, OpState], &[C::INVALID_RESUMPTION], "recorded from 1.5.01; for later releases by rule")),
    row(TdhLeaf::EXPORT_STATE_VP, Run::Leaf(export::vp::export), exact(&[Page, Keys, OpState, VcpuPages], &[C::INTERRUPTED_RESUMABLE, C::INVALID_RESUMPTION, C::VCPU_STATE_INCORRECT, C::VCPU_ASSOCIATED, C::VCPU_ALREADY_EXPORTED, C::MIGRATION_STREAM_STATE_INCORRECT], "recorded from 1.5.01; for later releases by rule")),
    row(TdhLeaf::EXPORT_UNBLOCKW, Run::Leaf(export::unblockw::unblockw), exact(MEMORY, &[], "recorded from 1.5.01; for later releases by rule")),
    row(TdhLeaf::IMPORT_ABORT, Run::Reads(import::abort::abort), exact(&[Page, Keys, Tdcs, OpState], &[], "recorded from 1.5.01; for later releases by rule")),
    row(TdhLeaf::IMPORT_END, Run::Reads(import::end::end), exact(&[Page, Keys, Tdcs, OpState], &[], "recorded from 1.5.01; for later releases by rule")),
    row(TdhLeaf::IMPORT_COMMIT, Run::Reads(import::end::commit), exact(&[Page, Keys, Tdcs, OpState], &[], "recorded from 1.5.01; for later releases by rule")),
    row(TdhLeaf::IMPORT_MEM, Run::Leaf(import::mem::import), exact(&[Page, Keys, Tdcs, OpState], &[C::INTERRUPTED_RESUMABLE, C::INVALID_RESUMPTION, C::MIGRATION_STREAM_STATE_INCORRECT, C::INVALID_MBMD, C::INCORRECT_MBMD_MAC, C::EPT_WALK_FAILED, C::EPT_ENTRY_STATE_INCORRECT, C::INVALID_PAGE_MAC, C::MIGRATED_IN_CURRENT_EPOCH, C::DISALLOWED_IMPORT_OVER_REMOVED, C::IMPORT_MISMATCH], "recorded from 1.5.01; for later releases by rule")),
    row(TdhLeaf::IMPORT_TRACK, Run::Reads(import::track::track), exact(&[Page, Keys, Tdcs, OpState], &[C::INVALID_MBMD, C::INCORRECT_MBMD_MAC, C::SOME_VCPUS_NOT_MIGRATED], "recorded from 1.5.01; for later releases by rule")),
    row(TdhLeaf::IMPORT_STATE_IMMUTABLE, Run::Leaf(import::immutable::import), exact(&[Page, Keys, Tdcs, OpState], &[C::INTERRUPTED_RESUMABLE, C::INVALID_RESUMPTION, C::MIN_MIGS_NOT_CREATED, C::MIGRATION_STREAM_STATE_INCORRECT, C::MIGRATION_DECRYPTION_KEY_NOT_SET, C::INVALID_MBMD, C::INCORRECT_MBMD_MAC, C::NUM_MIGS_HIGHER_THAN_CREATED, C::METADATA_FIELD_ID_INCORRECT, C::METADATA_FIELD_VALUE_NOT_VALID, C::METADATA_LIST_OVERFLOW, C::INVALID_METADATA_LIST_HEADER, C::REQUIRED_METADATA_FIELD_MISSING], "recorded from 1.5.01; for later releases by rule")),
    row(TdhLeaf::IMPORT_STATE_TD, Run::Leaf(import::td::import), exact(&[Page, Keys, Tdcs, OpState], &[C::INTERRUPTED_RESUMABLE, C::INVALID_RESUMPTION, C::INVALID_MBMD, C::INCORRECT_MBMD_MAC, C::METADATA_FIELD_ID_INCORRECT, C::METADATA_FIELD_VALUE_NOT_VALID, C::METADATA_LIST_OVERFLOW, C::INVALID_METADATA_LIST_HEADER, C::REQUIRED_METADATA_FIELD_MISSING], "recorded from 1.5.01; for later releases by rule")),
    row(TdhLeaf::IMPORT_STATE_VP, Run::Leaf(import::vp::import), exact(&[Page, Keys, OpState, VcpuPages], &[C::INTERRUPTED_RESUMABLE, C::INVALID_RESUMPTION, C::VCPU_STATE_INCORRECT, C::VCPU_ASSOCIATED, C::INVALID_MBMD, C::INCORRECT_MBMD_MAC, C::ALL_VCPUS_IMPORTED, C::METADATA_FIELD_ID_INCORRECT, C::METADATA_FIELD_VALUE_NOT_VALID, C::METADATA_LIST_OVERFLOW, C::INVALID_METADATA_LIST_HEADER, C::REQUIRED_METADATA_FIELD_MISSING], "recorded from 1.5.01; for later releases by rule")),
];

/// The rows by leaf number, and the proof that every leaf of the ABI has one.
static BY_NUMBER: [Option<HostLeaf>; NUMBERS] = {
    let mut rows = [None; NUMBERS];
    let mut index = 0;
    while index < LEAVES.len() {
        let number = LEAVES[index].info.number as usize;
        assert!(rows[number].is_none(), "two rows for one leaf");
        rows[number] = Some(LEAVES[index]);
        index += 1;
    }
    let mut index = 0;
    while index < TDH.len() {
        assert!(rows[TDH[index].number as usize].is_some(), "a leaf of the ABI that nothing answers");
        index += 1;
    }
    rows
};

/// One more than the greatest leaf number.
const NUMBERS: usize = TDH[TDH.len() - 1].number as usize + 1;

/// The row of a leaf; `None` where the number is unknown.
pub(super) fn find(leaf: TdhLeaf) -> Option<&'static HostLeaf> {
    BY_NUMBER.get(usize::from(leaf.0))?.as_ref()
}
