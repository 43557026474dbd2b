//! Steps that many leaves share, each with its own failure.

use tdvisor_base::sync::preemption_point;
use tdvisor_base::{Gpa, Hpa, Level};
use tdx_module_iface::op_state::{self, OpStates};
use tdx_module_iface::sept::{SeptInfo, SeptState, SeptStates, allow};
use tdx_module_iface::tdmr::{PageType, pages};
use tdx_module_iface::{GpaLevel, Gprs, Operand, StatusCode, TdhLeaf};

use super::{Call, Step, at, busy, invalid, plain};
use crate::lock::{Guard, Mode, Side};
use crate::machine::PconfigMode;
use crate::module::pamt::{self, PamtPage, WalkError};
use crate::module::tdmr::Tdmr;
use crate::td::sept::{SeptLock, SeptSlot, Walk};
use crate::td::{Tdcs, Tdr, Tdvps};

/// The OP_STATE row of a leaf. A leaf without one looks at nothing.
pub(crate) const fn op_states(leaf: TdhLeaf) -> OpStates {
    match op_state::tdh_allowed(leaf) {
        Some(states) => states,
        None => OpStates::ALL,
    }
}

/// The Secure-EPT state row of a leaf.
pub(crate) const fn sept_states(leaf: TdhLeaf) -> SeptStates {
    match allow::tdh_allowed(leaf) {
        Some(states) => states,
        None => SeptStates::ALL,
    }
}

impl<'m> Call<'m> {
    /// The package of the calling processor.
    pub(crate) fn package(&self) -> u32 {
        self.machine.processors().get(self.lp).map_or(0, |processor| processor.package)
    }

    /// Whether an external interrupt waits for the VMM on the calling processor.
    pub(crate) fn interrupted(&self) -> bool {
        self.machine.interrupt_pending(self.lp)
    }
}

/// PCONFIG: programs a key on the calling package.
pub(crate) fn program_key(call: &Call<'_>) -> Step {
    match call.machine.pconfig_mode() {
        PconfigMode::Ok => Ok(()),
        PconfigMode::EntropyError => Err(plain(StatusCode::KEY_GENERATION_FAILED)),
        PconfigMode::DeviceBusy => Err(busy(Operand::KET)),
    }
}

/// An operand that names shared memory of the host, without its key id ([`Machine::shared_hpa`] has the rule).
///
/// [`Machine::shared_hpa`]: crate::machine::Machine::shared_hpa
pub(crate) fn shared_hpa(call: &Call<'_>, pa: u64, align: u64, operand: Operand) -> Step<Hpa> {
    call.machine.shared_hpa(pa, align).ok_or(invalid(operand))
}

/// Reads from shared memory. Outside the machine's memory there is only all-ones, as on a bus nobody drives.
pub(crate) fn read_shared<const N: usize>(call: &Call<'_>, hpa: Hpa) -> [u8; N] {
    let mut bytes = [0xff; N];
    let _ = call.machine.memory().read(hpa, tdvisor_base::KeyId::DEFAULT, &mut bytes);
    bytes
}

/// Checks the form of a private page address: aligned, without key-id bits, inside the width.
pub(crate) fn private_hpa(call: &Call<'_>, pa: u64, align: u64, operand: Operand) -> Step<Hpa> {
    let config = call.machine.config();
    let too_wide = config.hkid_start_bit < 64 && pa >> config.hkid_start_bit != 0;
    if !pa.is_multiple_of(align) || too_wide {
        return Err(invalid(operand));
    }
    Ok(Hpa::new(pa))
}

/// The TDMR of a page in initialised memory.
pub(crate) fn tdmr_of<'m>(call: &Call<'m>, hpa: Hpa, operand: Operand) -> Step<&'m Tdmr> {
    let tdmr = call.machine.module.tdmrs.of_page(hpa);
    tdmr.ok_or(at(StatusCode::OPERAND_ADDR_RANGE_ERROR, operand))
}

/// Finds and locks a page's PAMT entry.
pub(crate) fn lock_page<'m>(
    call: &Call<'m>,
    hpa: Hpa,
    target: Level,
    mode: Mode,
    operand: Operand,
) -> Step<PamtPage<'m>> {
    let tdmr = tdmr_of(call, hpa, operand)?;
    pamt::walk(call.machine.memory(), tdmr, hpa, target, mode, Side::Host).map_err(|error| match error {
        WalkError::Busy => busy(operand),
        WalkError::NoEntries => at(StatusCode::MISSING_PAMT_PAGE_PAIR, operand),
    })
}

/// Locks a 4 KiB page that must have this type.
pub(crate) fn lock_typed_page<'m>(
    call: &Call<'m>,
    pa: u64,
    page_type: PageType,
    mode: Mode,
    operand: Operand,
) -> Step<(Hpa, PamtPage<'m>)> {
    let hpa = private_hpa(call, pa, 4096, operand)?;
    let page = lock_page(call, hpa, Level::L4K, mode, operand)?;
    if page.level != Level::L4K || page.entry.page_type() != page_type {
        return Err(at(StatusCode::PAGE_METADATA_INCORRECT, operand));
    }
    Ok((hpa, page))
}

/// Locks a free 4 KiB page for a new use.
pub(crate) fn lock_free_page<'m>(call: &Call<'m>, pa: u64, operand: Operand) -> Step<(Hpa, PamtPage<'m>)> {
    let (hpa, page) = lock_typed_page(call, pa, PageType::NDA, Mode::Exclusive, operand)?;
    if let Some(dynamic) = tdmr_of(call, hpa, operand)?.dynamic()
        && dynamic.holds_entries(call.machine.memory(), hpa)
    {
        return Err(at(StatusCode::PAGE_METADATA_INCORRECT, operand));
    }
    Ok((hpa, page))
}

/// A TDR with its lock.
#[derive(Debug)]
pub(crate) struct LockedTdr<'m> {
    pub(crate) tdr: Tdr<'m>,
    _page: PamtPage<'m>,
}

/// Locks the TDR that an operand names.
pub(crate) fn lock_tdr<'m>(call: &Call<'m>, pa: u64, mode: Mode, operand: Operand) -> Step<LockedTdr<'m>> {
    let (hpa, page) = lock_typed_page(call, pa, PageType::TDR, mode, operand)?;
    let tdr = Tdr::at(call.machine.memory(), hpa).ok_or(at(StatusCode::OPERAND_ADDR_RANGE_ERROR, operand))?;
    Ok(LockedTdr { tdr, _page: page })
}

/// Locks the TDR that owns a page another operand names.
pub(crate) fn lock_owner<'m>(call: &Call<'m>, page: &PamtPage<'_>, mode: Mode) -> Step<LockedTdr<'m>> {
    let hpa = page.entry.owner();
    let page = lock_page(call, hpa, Level::L4K, mode, Operand::TDR)?;
    let tdr = Tdr::at(call.machine.memory(), hpa).ok_or(busy(Operand::TDR))?;
    Ok(LockedTdr { tdr, _page: page })
}

/// FATAL, then the key.
pub(crate) fn check_keys(tdr: &Tdr<'_>) -> Step {
    use tdx_module_iface::lifecycle::LifecycleState;
    if tdr.is_fatal() {
        return Err(plain(StatusCode::TD_FATAL));
    }
    if tdr.lifecycle() != LifecycleState::KEYS_CONFIGURED {
        return Err(plain(StatusCode::TD_KEYS_NOT_CONFIGURED));
    }
    Ok(())
}

/// FATAL, key, TDCX pages: whether the TD has a TDCS that can be used.
pub(crate) fn check_tdcs<'m>(tdr: &Tdr<'m>) -> Step<Tdcs<'m>> {
    check_keys(tdr)?;
    if tdr.num_tdcx() < pages::TDCX_MIN {
        return Err(plain(StatusCode::TDCS_NOT_ALLOCATED));
    }
    Ok(tdr.tdcs())
}

/// Checks the TDCS and OP_STATE, which is read without its lock: the caller holds the TDR exclusively.
pub(crate) fn check_state<'m>(tdr: &Tdr<'m>, leaf: OpStates) -> Step<Tdcs<'m>> {
    let tdcs = check_tdcs(tdr)?;
    if !leaf.contains(tdcs.op_state()) {
        return Err(plain(StatusCode::OP_STATE_INCORRECT));
    }
    Ok(tdcs)
}

/// Checks the TDCS and OP_STATE, under the lock of OP_STATE.
pub(crate) fn check_and_lock_state<'m>(
    tdr: &Tdr<'m>,
    leaf: OpStates,
    mode: Mode,
) -> Step<(Tdcs<'m>, Guard<'m>)> {
    let tdcs = check_tdcs(tdr)?;
    let lock = tdcs.op_state_lock().ok_or(plain(StatusCode::TDCS_NOT_ALLOCATED))?;
    let guard = lock.acquire(mode, Side::Host).map_err(|_| busy(Operand::OP_STATE))?;
    if !leaf.contains(tdcs.op_state()) {
        return Err(plain(StatusCode::OP_STATE_INCORRECT));
    }
    Ok((tdcs, guard))
}

/// Splits and checks RCX of the memory leaves: level in 2:0, address in 51:12, nothing else.
pub(crate) fn gpa_level(
    tdcs: &Tdcs<'_>,
    rcx: u64,
    levels: core::ops::RangeInclusive<Level>,
) -> Step<GpaLevel> {
    let refused = invalid(Operand::RCX);
    let what = GpaLevel::from_word(rcx).filter(|what| levels.contains(&what.level())).ok_or(refused)?;
    private_gpa(tdcs, what.gpa())?;
    Ok(what)
}

/// Whether an address is private and inside the TD's width.
pub(crate) fn private_gpa(tdcs: &Tdcs<'_>, gpa: Gpa) -> Step {
    if gpa.get() >= tdcs.shared_bit() { Err(invalid(Operand::RCX)) } else { Ok(()) }
}

/// Takes the Secure-EPT tree lock.
pub(crate) fn lock_tree<'m>(tdcs: &Tdcs<'m>, mode: Mode) -> Step<Guard<'m>> {
    let refused = busy(Operand::SEPT_TREE);
    tdcs.tree_lock().ok_or(refused)?.acquire(mode, Side::Host).map_err(|_| refused)
}

/// Puts what an entry shows into RCX and RDX.
pub(crate) fn report_entry(regs: &mut Gprs, slot: &SeptSlot<'_>) {
    let info = SeptInfo::of(slot.entry(), slot.level);
    regs.rcx = info.entry;
    regs.rdx = info.level_state;
}

/// Walks to an entry; EPT_WALK_FAILED with its details where the walk stops before.
pub(crate) fn walk<'m>(tdcs: &Tdcs<'m>, what: GpaLevel, regs: &mut Gprs) -> Step<SeptSlot<'m>> {
    preemption_point();
    match tdcs.walk(what.gpa(), what.level()) {
        Some(Walk::Found(slot)) => Ok(slot),
        Some(Walk::Stopped(slot)) => {
            report_entry(regs, &slot);
            Err(at(StatusCode::EPT_WALK_FAILED, Operand::RCX))
        }
        None => Err(at(StatusCode::EPT_WALK_FAILED, Operand::RCX)),
    }
}

/// Locks an entry for the host.
pub(crate) fn lock_entry<'m>(slot: SeptSlot<'m>) -> Step<SeptLock<'m>> {
    slot.lock(Side::Host).map_err(|_| busy(Operand::RCX))
}

/// EPT_ENTRY_STATE_INCORRECT with details.
pub(crate) fn state_incorrect(regs: &mut Gprs, slot: &SeptSlot<'_>) -> tdx_module_iface::Status {
    report_entry(regs, slot);
    at(StatusCode::EPT_ENTRY_STATE_INCORRECT, Operand::RCX)
}

/// Whether an entry's state is in a leaf's row.
pub(crate) fn check_entry_state(
    regs: &mut Gprs,
    slot: &SeptSlot<'_>,
    allowed: SeptStates,
) -> Step<SeptState> {
    let state = slot.state();
    if allowed.contains(state) { Ok(state) } else { Err(state_incorrect(regs, slot)) }
}

/// Where tracking is required: the entry must be blocked, and its block older than every running vCPU.
pub(crate) fn check_blocked(tdcs: &Tdcs<'_>, regs: &mut Gprs, slot: &SeptSlot<'_>) -> Step {
    if tdcs.needs_tracking() && !slot.state().is_blocked() {
        report_entry(regs, slot);
        return Err(at(StatusCode::GPA_RANGE_NOT_BLOCKED, Operand::RCX));
    }
    Ok(())
}

/// Where tracking is required: BEPOCH of the page must be tracked.
pub(crate) fn check_tracked(tdcs: &Tdcs<'_>, bepoch: u64, operand: Operand) -> Step {
    if tdcs.needs_tracking() && !tdcs.is_tracked(bepoch) {
        return Err(at(StatusCode::TLB_TRACKING_NOT_DONE, operand));
    }
    Ok(())
}

/// A vCPU with the locks of its TDVPR and TDR.
#[derive(Debug)]
pub(crate) struct LockedVcpu<'m> {
    pub(crate) tdvps: Tdvps<'m>,
    pub(crate) owner: LockedTdr<'m>,
    _page: PamtPage<'m>,
}

/// Locks the TDVPR that an operand names, and its TDR shared.
pub(crate) fn lock_vcpu<'m>(call: &Call<'m>, pa: u64, mode: Mode, operand: Operand) -> Step<LockedVcpu<'m>> {
    lock_vcpu_of(call, pa, mode, Mode::Shared, operand)
}

/// Locks the TDVPR that an operand names, and its TDR in a mode of its own.
pub(crate) fn lock_vcpu_of<'m>(
    call: &Call<'m>,
    pa: u64,
    mode: Mode,
    owner: Mode,
    operand: Operand,
) -> Step<LockedVcpu<'m>> {
    let (hpa, page) = lock_typed_page(call, pa, PageType::TDVPR, mode, operand)?;
    let owner = lock_owner(call, &page, owner)?;
    let tdvps = Tdvps::at(call.machine.memory(), hpa);
    let tdvps = tdvps.ok_or(at(StatusCode::OPERAND_ADDR_RANGE_ERROR, operand))?;
    Ok(LockedVcpu { tdvps, owner, _page: page })
}

/// Whether a vCPU has all of its pages.
pub(crate) fn check_vcpu_pages(tdvps: &Tdvps<'_>, tdcs: &Tdcs<'_>) -> Step {
    let needed = pages::TDVPS_MIN + pages::TDVPS_PER_L2_VM * usize::from(tdcs.num_l2_vms());
    if tdvps.num_pages() < needed { Err(plain(StatusCode::TDCX_NUM_INCORRECT)) } else { Ok(()) }
}
