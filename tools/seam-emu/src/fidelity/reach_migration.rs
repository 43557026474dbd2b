//! The leaves of migration in every wrong condition, and what no recording shows of them.

use tdvisor_base::{Hpa, Level};
use tdx_module_iface::lifecycle::VcpuState;
use tdx_module_iface::{Gprs, Operand, StatusCode as C, TdhLeaf};

use super::reach::{OUTSIDE, Seen, leaves};
use crate::ModuleProfile;
use crate::fields::layout::tdcs;
use crate::fields::{FieldStore, Width};
use crate::host::Call;
use crate::host::steps::lock_page;
use crate::lock::Mode;
use crate::migration::mbmd::BundleKind;
use crate::migration::session::Session;
use crate::migration::tests::{GPA, LIST, MBMD, Pair, R8, recorded, tdcs_of};
use crate::td::{Tdr, Tdvps};
use crate::testing::{Host, SCRATCH, Td};

/// R10: resume.
const RESUME: u64 = 1 << 63;

/// Registers that name this page where the leaf wants a TDR or a TDVPR.
fn naming(leaf: TdhLeaf, page: u64) -> Gprs {
    match leaf {
        TdhLeaf::EXPORT_BLOCKW | TdhLeaf::EXPORT_RESTORE | TdhLeaf::EXPORT_MEM | TdhLeaf::IMPORT_MEM => {
            Gprs { rcx: LIST, rdx: page, ..Gprs::ZERO }
        }
        TdhLeaf::EXPORT_UNBLOCKW => Gprs { rcx: GPA, rdx: page, ..Gprs::ZERO },
        _ => Gprs { rcx: page, ..Gprs::ZERO },
    }
}

fn each(seen: &mut Seen, host: &Host, page: u64) {
    for prefix in ["TDH.EXPORT.", "TDH.IMPORT."] {
        for leaf in leaves(prefix) {
            seen.call(host, 0, leaf, naming(leaf, page));
        }
    }
}

/// TDR and TDVPR pages that are not what they should be, or whose TD is not.
pub(super) fn wrong_tds(seen: &mut Seen) {
    let host = Host::with(recorded(ModuleProfile::V1_5_01));
    let td = host.td(1);
    let by = Call { machine: &host.machine, lp: 1 };
    for page in [OUTSIDE, SCRATCH + 1, host.page(), td.tdr, td.vcpus[0]] {
        each(seen, &host, page);
    }
    for page in [td.tdr, td.vcpus[0]] {
        let held = lock_page(&by, Hpa::new(page), Level::L4K, Mode::Exclusive, Operand::RCX).unwrap();
        each(seen, &host, page);
        drop(held);
    }
    let fresh = host.page();
    host.ok(0, TdhLeaf::MNG_CREATE, Gprs { rcx: fresh, rdx: 50, ..Gprs::ZERO });
    each(seen, &host, fresh);
    host.ok(0, TdhLeaf::MNG_KEY_CONFIG, Gprs { rcx: fresh, ..Gprs::ZERO });
    each(seen, &host, fresh);
    let fatal = host.td(1);
    Tdr::at(host.machine.memory(), Hpa::new(fatal.tdr)).unwrap().set_fatal();
    each(seen, &host, fatal.tdr);
    each(seen, &host, fatal.vcpus[0]);
    without_key(seen, &host, &td);
}

/// A TD that gave its key id back, and so did its VCPU.
fn without_key(seen: &mut Seen, host: &Host, td: &Td) {
    host.ok(0, TdhLeaf::VP_FLUSH, Gprs { rcx: td.vcpus[0], ..Gprs::ZERO });
    host.ok(0, TdhLeaf::MNG_VPFLUSHDONE, Gprs { rcx: td.tdr, ..Gprs::ZERO });
    each(seen, host, td.vcpus[0]);
    each(seen, host, td.tdr);
}

fn before(step: &str) -> Pair {
    Pair::before(ModuleProfile::V1_5_01, step)
}

/// A call that an interrupt ends, and one that claims to go on with it and does not.
fn interrupted(seen: &mut Seen, host: &Host, leaf: TdhLeaf, gprs: Gprs) {
    host.machine.set_interrupt_pending(0, true);
    assert_eq!(seen.call(host, 0, leaf, gprs), C::INTERRUPTED_RESUMABLE, "{leaf}");
    host.machine.set_interrupt_pending(0, false);
    let other = Gprs { r9: gprs.r9 - (1 << 55), r10: gprs.r10 | RESUME, ..gprs };
    seen.call(host, 0, leaf, other);
}

/// Exports as no recording has them.
pub(super) fn exports(seen: &mut Seen) {
    let pair = before("write-blocking");
    let blockw = Gprs { rcx: pair.list(), rdx: pair.source.tdr, r9: 1 << 63, ..Gprs::ZERO };
    interrupted(seen, &pair.host, TdhLeaf::EXPORT_BLOCKW, blockw);
    let pair = before("an epoch at the sender");
    Session(&tdcs_of(&pair.host, &pair.source)).set_epoch(u32::MAX - 1);
    let track = Gprs { rcx: pair.source.tdr, r8: R8, ..Gprs::ZERO };
    assert_eq!(seen.call(&pair.host, 0, TdhLeaf::EXPORT_TRACK, track), C::MIGRATION_EPOCH_OVERFLOW);
    immutable_exports(seen);
    let (pair, leaf) = (before("export of the VCPU"), TdhLeaf::EXPORT_STATE_VP);
    interrupted(seen, &pair.host, leaf, pair.export_operands(leaf));
    let pair = before("export of the VCPU");
    let mut export = || seen.call(&pair.host, 0, leaf, pair.export_operands(leaf));
    let tdvps = Tdvps::at(pair.host.machine.memory(), Hpa::new(pair.source.vcpus[0])).unwrap();
    tdvps.set_state(VcpuState::UNINITIALIZED);
    assert_eq!(export(), C::VCPU_STATE_INCORRECT);
    tdcs_of(&pair.host, &pair.source).store(tdcs::NUM_L2_VMS, Width::B2, 1);
    assert_eq!(export(), C::TDCX_NUM_INCORRECT);
}

fn immutable_exports(seen: &mut Seen) {
    let leaf = TdhLeaf::EXPORT_STATE_IMMUTABLE;
    let pair = Pair::new(ModuleProfile::V1_5_01);
    let operands = pair.export_operands(leaf);
    let tdcs = tdcs_of(&pair.host, &pair.source);
    let session = Session(&tdcs);
    session.change_exported_pages(1);
    let refused = seen.call(&pair.host, 0, leaf, operands);
    assert_eq!(refused, C::PREVIOUS_EXPORT_CLEANUP_INCOMPLETE);
    session.change_exported_pages(-1);
    interrupted(seen, &pair.host, leaf, operands);
    pair.agree();
    session.set_exports(u32::MAX >> 1);
    assert_eq!(seen.call(&pair.host, 0, leaf, operands), C::MAX_EXPORTS_EXCEEDED);
}

/// Imports as no recording has them.
pub(super) fn imports(seen: &mut Seen) {
    let pair = before("import of memory");
    let stream_1 = Gprs { r10: 1 | RESUME, ..pair.import_memory_operands() };
    let refused = seen.call(&pair.host, 0, TdhLeaf::IMPORT_MEM, stream_1);
    assert_eq!(refused, C::MIGRATION_STREAM_STATE_INCORRECT);
    let pair = before("an epoch at the receiver");
    pair.host.write(MBMD + 32, &[0; 16]);
    let track = Gprs { rcx: pair.destination.tdr, r8: R8, ..Gprs::ZERO };
    assert_eq!(seen.call(&pair.host, 0, TdhLeaf::IMPORT_TRACK, track), C::INCORRECT_MBMD_MAC);
    let pair = before("import of the immutable state");
    let leaf = TdhLeaf::IMPORT_STATE_IMMUTABLE;
    let resumed = Gprs { r10: RESUME, ..pair.import_operands(leaf) };
    assert_eq!(seen.call(&pair.host, 0, leaf, resumed), C::MIGRATION_STREAM_STATE_INCORRECT);
    for (step, leaf, kind) in [
        ("import of the immutable state", leaf, BundleKind::ImmutableState),
        ("import of the TD", TdhLeaf::IMPORT_STATE_TD, BundleKind::TdState),
        ("import of the VCPU", TdhLeaf::IMPORT_STATE_VP, BundleKind::VcpuState),
    ] {
        state_imports(seen, step, leaf, kind);
    }
    vcpu_imports(seen);
}

/// A session before an import of state.
fn before_import(step: &str, leaf: TdhLeaf) -> (Pair, Gprs) {
    let mut pair = before(step);
    pair.prepare(leaf);
    let operands = pair.import_operands(leaf);
    (pair, operands)
}

fn state_imports(seen: &mut Seen, step: &str, leaf: TdhLeaf, kind: BundleKind) {
    let (pair, operands) = before_import(step, leaf);
    // A list may be longer than what is in it.
    interrupted(seen, &pair.host, leaf, Gprs { r9: operands.r9 + (1 << 55), ..operands });
    for (at, code) in [(2, C::INVALID_MBMD), (32, C::INCORRECT_MBMD_MAC)] {
        let (pair, operands) = before_import(step, leaf);
        pair.host.write(MBMD + at, &[0x5a]);
        assert_eq!(seen.call(&pair.host, 0, leaf, operands), code, "{leaf}");
    }
    // The first page of the TD's, or the VCPU's, own.
    let page = if kind == BundleKind::ImmutableState { 0x1000 } else { 0 };
    for (at, bytes, code) in
        [(0, 8u64, C::METADATA_LIST_OVERFLOW), (8, u64::MAX, C::METADATA_FIELD_ID_INCORRECT)]
    {
        let (pair, operands) = before_import(step, leaf);
        let bytes = &bytes.to_le_bytes()[..if at == 0 { 2 } else { 8 }];
        pair.forge(kind, |_, plain| plain[page + at..page + at + bytes.len()].copy_from_slice(bytes));
        assert_eq!(seen.call(&pair.host, 0, leaf, operands), code, "{leaf}");
    }
}

fn vcpu_imports(seen: &mut Seen) {
    let (step, leaf) = ("import of the VCPU", TdhLeaf::IMPORT_STATE_VP);
    let (pair, operands) = before_import(step, leaf);
    let tdcs = tdcs_of(&pair.host, &pair.destination);
    tdcs.store(tdcs::NUM_MIGRATED_VCPUS, Width::B4, 1);
    assert_eq!(seen.call(&pair.host, 0, leaf, operands), C::ALL_VCPUS_IMPORTED);
    let (pair, operands) = before_import(step, leaf);
    pair.host.machine.set_interrupt_pending(0, true);
    seen.call(&pair.host, 0, leaf, operands);
    pair.host.machine.set_interrupt_pending(0, false);
    let resumed = Gprs { r10: operands.r10 | RESUME, ..operands };
    assert_eq!(seen.call(&pair.host, 1, leaf, resumed), C::VCPU_ASSOCIATED);
    let refused = (2..512).any(|word| {
        let (pair, operands) = before_import(step, leaf);
        pair.forge(BundleKind::VcpuState, |_, plain| {
            plain[8 * word..8 * word + 8].iter_mut().for_each(|byte| *byte = !*byte);
        });
        seen.call(&pair.host, 0, leaf, operands) == C::METADATA_FIELD_VALUE_NOT_VALID
    });
    assert!(refused);
}
