//! The leaf table of the guest side: what answers each leaf, and what is claimed about it.
//!
//! Versions and registers are in the leaf's row of [`TDG`]; adding a leaf takes a row there, a row here and its
//! function.

use tdx_module_iface::leaf::{LeafInfo, TDG};
use tdx_module_iface::{Operand, StatusCode as C, TdgLeaf};

use super::{Call, Step, accept, attributes, metadata, report, rtmr, vcpu, verify};
use crate::fidelity::Gate::{FieldId, FieldRead, FieldWrite};
use crate::fidelity::claim::{Claim, LATER_RELEASE, absent, exact, partial};
use crate::guest::GuestState;
use crate::{l2, servtd};

/// What answers a leaf.
#[derive(Clone, Copy)]
pub(crate) enum Run {
    /// A function of the guest's registers.
    Leaf(fn(&Call<'_, '_, '_>, &mut GuestState) -> Step),
    /// A function of the registers and the version.
    Versioned(fn(&Call<'_, '_, '_>, &mut GuestState, u8) -> Step),
    /// OPERAND_INVALID: what this operand names cannot exist.
    Refused(Operand),
}

/// One row.
#[derive(Clone, Copy)]
pub(crate) struct GuestLeaf {
    /// What the ABI says about the leaf.
    pub(crate) info: &'static LeafInfo,
    /// What answers it.
    pub(crate) run: Run,
    /// What is claimed about it.
    pub(crate) claim: Claim,
}

const fn row(leaf: TdgLeaf, run: Run, claim: Claim) -> GuestLeaf {
    match leaf.info() {
        Some(info) => GuestLeaf { info, run, claim },
        None => panic!("a leaf without a row in the table of the ABI"),
    }
}

/// One row per leaf, by number.
#[rustfmt::skip]
pub(crate) const LEAVES: &[GuestLeaf] = &[
    row(TdgLeaf::VP_VMCALL, Run::Leaf(vcpu::vmcall), exact(&[], &[C::OPERAND_INVALID], "XMM registers are passed by rule; none is recorded")),
    row(TdgLeaf::VP_INFO, Run::Leaf(vcpu::info), exact(&[], &[], "")),
    row(TdgLeaf::MR_RTMR_EXTEND, Run::Leaf(rtmr::extend), exact(&[], &[C::OPERAND_INVALID, C::OPERAND_BUSY], "")),
    row(TdgLeaf::VP_VEINFO_GET, Run::Leaf(vcpu::veinfo_get), exact(&[], &[C::NO_VALID_VE_INFO], "")),
    row(TdgLeaf::MR_REPORT, Run::Leaf(report::report), exact(&[], &[C::OPERAND_INVALID, C::OPERAND_BUSY], "MAC, CPUSVN and TEE_TCB_INFO are the emulator's own")),
    row(TdgLeaf::VP_CPUIDVE_SET, Run::Leaf(vcpu::cpuidve_set), exact(&[], &[C::OPERAND_INVALID], "")),
    row(TdgLeaf::MEM_PAGE_ACCEPT, Run::Leaf(accept::accept), exact(&[], &[C::OPERAND_INVALID, C::OPERAND_BUSY, C::PAGE_ALREADY_ACCEPTED, C::PAGE_SIZE_MISMATCH], "")),
    row(TdgLeaf::VM_RD, Run::Versioned(metadata::vm_read), exact(&[FieldId, FieldRead], &[C::OPERAND_INVALID], "")),
    row(TdgLeaf::VM_WR, Run::Leaf(metadata::vm_write), exact(&[FieldId, FieldWrite], &[C::OPERAND_INVALID], "")),
    row(TdgLeaf::VP_RD, Run::Leaf(metadata::vp_read), exact(&[FieldId, FieldRead], &[C::OPERAND_INVALID], "")),
    row(TdgLeaf::VP_WR, Run::Leaf(metadata::vp_write), exact(&[FieldId, FieldWrite], &[C::OPERAND_INVALID], "")),
    row(TdgLeaf::SYS_RD, Run::Leaf(metadata::sys_read), exact(&[FieldId, FieldRead], &[], "")),
    row(TdgLeaf::SYS_RDALL, Run::Leaf(metadata::sys_read_all), exact(&[], &[C::OPERAND_INVALID, C::METADATA_FIELD_ID_INCORRECT], "")),
    row(TdgLeaf::SERVTD_RD, Run::Leaf(servtd::access::read), exact(&[FieldId, FieldRead], &[C::OPERAND_INVALID, C::OPERAND_BUSY, C::TARGET_UUID_MISMATCH, C::TARGET_UUID_UPDATED], "recorded from 1.5.01; for later releases by rule")),
    row(TdgLeaf::SERVTD_WR, Run::Leaf(servtd::access::write), exact(&[FieldId, FieldWrite], &[C::OPERAND_INVALID, C::OPERAND_BUSY, C::TARGET_UUID_MISMATCH, C::TARGET_UUID_UPDATED], "recorded from 1.5.01; for later releases by rule")),
    row(TdgLeaf::MR_VERIFYREPORT, Run::Leaf(verify::verify), exact(&[], &[C::OPERAND_INVALID, C::INVALID_CPUSVN, C::INVALID_REPORTMACSTRUCT], "")),
    row(TdgLeaf::MEM_PAGE_ATTR_RD, Run::Leaf(attributes::read), exact(&[], &[C::OPERAND_INVALID], "")),
    row(TdgLeaf::MEM_PAGE_ATTR_WR, Run::Leaf(attributes::write), exact(&[], &[C::OPERAND_INVALID, C::OPERAND_BUSY, C::PAGE_SIZE_MISMATCH, C::PAGE_ATTR_INVALID, C::L2_SEPT_WALK_FAILED], "")),
    row(TdgLeaf::VP_ENTER, Run::Leaf(l2::enter::enter), partial(&[], &[C::OPERAND_INVALID, C::PENDING_INTERRUPT, C::L2_EXIT_PENDING_INTERRUPT, C::L2_EXIT_HOST_ROUTED_ASYNC, C::L2_EXIT_HOST_ROUTED_TDVMCALL], "the processor that decodes instructions applies a part of L1's controls and stops at others: partitioning is offered on request")),
    row(TdgLeaf::VP_INVEPT, Run::Leaf(l2::invalidate::invept), exact(&[], &[C::OPERAND_INVALID], "")),
    row(TdgLeaf::VP_INVVPID, Run::Leaf(l2::invalidate::invvpid), exact(&[], &[C::OPERAND_INVALID, C::GLA_NOT_CANONICAL], "")),
    row(TdgLeaf::SERVTD_REBIND_APPROVE, Run::Refused(Operand::RAX), absent(LATER_RELEASE)),
];

// Every leaf of the ABI has its row, in the same order.
const _: () = {
    assert!(LEAVES.len() == TDG.len(), "a leaf of the ABI that nothing answers");
    let mut index = 0;
    while index < TDG.len() {
        assert!(LEAVES[index].info.number == TDG[index].number, "rows out of order");
        index += 1;
    }
};

/// The row of a leaf; `None` where the number is unknown.
pub(super) fn find(leaf: TdgLeaf) -> Option<&'static GuestLeaf> {
    LEAVES.iter().find(|row| row.info.number == leaf.0)
}
