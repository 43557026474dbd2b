//! TDR, TDCS and TDVPS as fields across their pages.

use phys_memory::Arena;
use tdvisor_base::table::Table;
use tdvisor_base::{Hpa, KeyId, Level};
use tdx_module_iface::lifecycle::{LifecycleState, VcpuState};
use tdx_module_iface::op_state::{OpState, OpStates};
use tdx_module_iface::tdmr::pages;

use crate::fields::layout::{tdcs, tdr, tdvps};
use crate::fields::{FieldPage, FieldStore, Width};
use crate::lock::{HostPriority, TryLock};

/// Bytes of a page, as an offset.
const PAGE: u32 = 4096;

/// The root page of a TD.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tdr<'m> {
    pub(crate) hpa: Hpa,
    memory: &'m Arena,
    page: FieldPage<'m>,
}

impl<'m> Tdr<'m> {
    /// The TDR at `hpa`, which the PAMT says is one.
    pub(crate) fn at(memory: &'m Arena, hpa: Hpa) -> Option<Self> {
        let page = FieldPage::new(memory.table(hpa.frame()).ok()?);
        Some(Self { hpa, memory, page })
    }

    pub(crate) fn is_fatal(&self) -> bool {
        self.page.load(tdr::FATAL, Width::B1) != 0
    }

    pub(crate) fn set_fatal(&self) {
        self.page.store(tdr::FATAL, Width::B1, 1);
    }

    pub(crate) fn lifecycle(&self) -> LifecycleState {
        LifecycleState(self.page.load(tdr::LIFECYCLE_STATE, Width::B4) as u32)
    }

    pub(crate) fn set_lifecycle(&self, state: LifecycleState) {
        self.page.store(tdr::LIFECYCLE_STATE, Width::B4, u64::from(state.0));
    }

    pub(crate) fn num_tdcx(&self) -> usize {
        self.page.load(tdr::NUM_TDCX, Width::B4) as usize
    }

    pub(crate) fn tdcx(&self, index: u32) -> Hpa {
        Hpa::new(self.page.load_u64(tdr::TDCX_PA + 8 * index))
    }

    /// Appends a TDCX page.
    pub(crate) fn push_tdcx(&self, page: Hpa) {
        let count = self.num_tdcx() as u32;
        self.page.store_u64(tdr::TDCX_PA + 8 * count, page.get());
        self.page.store(tdr::NUM_TDCX, Width::B4, u64::from(count + 1));
    }

    pub(crate) fn hkid(&self) -> u16 {
        self.page.load(tdr::HKID, Width::B2) as u16
    }

    pub(crate) fn set_hkid(&self, hkid: u16) {
        self.page.store(tdr::HKID, Width::B2, u64::from(hkid));
    }

    pub(crate) fn key(&self) -> KeyId {
        KeyId::new(self.hkid())
    }

    pub(crate) fn configured_packages(&self) -> u64 {
        self.page.load_u64(tdr::PKG_CONFIG_BITMAP)
    }

    pub(crate) fn set_configured_packages(&self, packages: u64) {
        self.page.store_u64(tdr::PKG_CONFIG_BITMAP, packages);
    }

    pub(crate) fn child_count(&self) -> u64 {
        self.page.load_u64(tdr::CHLDCNT)
    }

    /// Pages came to the TD. Leaves on several processors do this at once.
    pub(crate) fn add_children(&self, count: u64) {
        self.change_children(|old| old.wrapping_add(count));
    }

    /// Pages left the TD.
    pub(crate) fn remove_children(&self, count: u64) {
        self.change_children(|old| old.wrapping_sub(count));
    }

    fn change_children(&self, change: impl Fn(u64) -> u64) {
        if let Some(word) = self.page.words().get((tdr::CHLDCNT / 8) as usize) {
            let _ = crate::lock::change(word, |old| Some(change(old)));
        }
    }

    /// The TDCS, whose pages may still be missing.
    pub(crate) const fn tdcs(&self) -> Tdcs<'m> {
        Tdcs { memory: self.memory, tdr: self.page }
    }
}

impl FieldStore for Tdr<'_> {
    fn load(&self, offset: u32, width: Width) -> u64 {
        self.page.load(offset, width)
    }

    fn store(&self, offset: u32, width: Width, value: u64) {
        self.page.store(offset, width, value);
    }
}

/// The control structure of a TD, across its TDCX pages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tdcs<'m> {
    memory: &'m Arena,
    tdr: FieldPage<'m>,
}

impl<'m> Tdcs<'m> {
    fn page(&self, index: u32) -> Option<FieldPage<'m>> {
        if index as usize >= pages::TDCX_MAX {
            return None;
        }
        let hpa = Hpa::new(self.tdr.load_u64(tdr::TDCX_PA + 8 * index));
        if hpa.get() == 0 {
            return None;
        }
        Some(FieldPage::new(self.memory.table(hpa.frame()).ok()?))
    }

    fn word(&self, offset: u32) -> Option<&'m tdvisor_base::sync::AtomicU64> {
        self.page(offset / PAGE)?.words().get((offset % PAGE / 8) as usize)
    }

    fn try_lock(&self, offset: u32, priority: HostPriority) -> Option<TryLock<'m>> {
        Some(TryLock::new(self.word(offset)?, priority))
    }

    /// The lock of OP_STATE.
    pub(crate) fn op_state_lock(&self) -> Option<TryLock<'m>> {
        self.try_lock(tdcs::OP_STATE_LOCK, HostPriority::Yes)
    }

    /// The lock of the Secure-EPT tree.
    pub(crate) fn tree_lock(&self) -> Option<TryLock<'m>> {
        self.try_lock(tdcs::SEPT_TREE_LOCK, HostPriority::No)
    }

    /// The lock of the TD epoch.
    pub(crate) fn epoch_lock(&self) -> Option<TryLock<'m>> {
        self.try_lock(tdcs::EPOCH_LOCK, HostPriority::No)
    }

    /// The lock of the RTMRs.
    pub(crate) fn rtmr_lock(&self) -> Option<TryLock<'m>> {
        self.try_lock(tdcs::RTMR_LOCK, HostPriority::Yes)
    }

    /// The lock of the service TD bindings.
    pub(crate) fn servtd_lock(&self) -> Option<TryLock<'m>> {
        self.try_lock(tdcs::SERVTD_LOCK, HostPriority::No)
    }

    /// The lock of the migration session.
    pub(crate) fn migration_lock(&self) -> Option<TryLock<'m>> {
        self.try_lock(tdcs::MIG_LOCK, HostPriority::No)
    }

    /// The word that leads to a migration stream's page, in the order in which streams were created.
    pub(crate) fn stream_link(&self, stream: u32) -> Option<&'m tdvisor_base::sync::AtomicU64> {
        self.word(tdcs::MIGSC_LINKS + 8 * stream)
    }

    /// The word that stands for an entry before the TD has a Secure EPT: an import that failed early leaves it so.
    pub(super) fn missing_tree(&self) -> Option<&'m tdvisor_base::sync::AtomicU64> {
        if self.load_u64(tdcs::EPTP) == 0 { self.word(tdcs::NO_SEPT_ENTRY) } else { None }
    }

    /// A page of this TD as fields.
    pub(crate) fn field_page(&self, page: Hpa) -> Option<FieldPage<'m>> {
        self.table(page).map(FieldPage::new)
    }

    /// The word that holds both epoch reference counts.
    pub(super) fn refcount_word(&self) -> Option<&'m tdvisor_base::sync::AtomicU64> {
        self.word(tdcs::REFCOUNT)
    }

    pub(crate) fn op_state(&self) -> OpState {
        OpState::from_value(self.load(tdcs::OP_STATE, Width::B4) as u32).unwrap_or(OpState::Uninitialized)
    }

    pub(crate) fn set_op_state(&self, state: OpState) {
        self.store(tdcs::OP_STATE, Width::B4, state as u64);
    }

    /// Whether removing a mapping needs blocking and tracking.
    pub(crate) fn needs_tracking(&self) -> bool {
        OpStates::TLB_TRACKING_REQUIRED.contains(self.op_state())
    }

    pub(crate) fn num_l2_vms(&self) -> u16 {
        self.load(tdcs::NUM_L2_VMS, Width::B2) as u16
    }

    pub(crate) fn attributes(&self) -> u64 {
        self.load_u64(tdcs::ATTRIBUTES)
    }

    pub(crate) fn is_debug(&self) -> bool {
        self.attributes() & tdx_module_iface::td_params::attributes::DEBUG != 0
    }

    /// Whether guest addresses have 52 bits instead of 48.
    pub(crate) fn has_wide_gpa(&self) -> bool {
        self.load(tdcs::GPAW, Width::B1) != 0
    }

    /// Bits of a guest-physical address, the SHARED bit included.
    pub(crate) fn gpa_bits(&self) -> u32 {
        if self.has_wide_gpa() { 52 } else { 48 }
    }

    /// The SHARED bit.
    pub(crate) fn shared_bit(&self) -> u64 {
        1 << (self.gpa_bits() - 1)
    }

    /// The level of the entries in the Secure-EPT root page.
    pub(crate) fn root_level(&self) -> Level {
        // EPTP bits 5:3 hold the number of levels minus one.
        if self.load_u64(tdcs::EPTP) >> 3 & 7 == 4 { Level::L256T } else { Level::L512G }
    }

    /// The Secure-EPT root page.
    pub(crate) fn sept_root(&self) -> Hpa {
        Hpa::new(self.tdr.load_u64(tdr::TDCX_PA + 8 * (tdcs::SEPT_ROOT / PAGE)))
    }

    /// The root page of the L2 Secure EPT of VM `vm`, 1 to 3.
    pub(crate) fn l2_sept_root(&self, vm: u16) -> Option<Hpa> {
        if vm == 0 || vm > self.num_l2_vms() {
            return None;
        }
        let index = tdcs::L2_SEPT_ROOT / PAGE + u32::from(vm) - 1;
        Some(Hpa::new(self.tdr.load_u64(tdr::TDCX_PA + 8 * index)))
    }

    /// A table page of this TD.
    pub(crate) fn table(&self, page: Hpa) -> Option<&'m Table> {
        self.memory.table(page.frame()).ok()
    }

    /// Reads `out.len()` bytes from an 8-aligned offset on.
    pub(crate) fn load_bytes(&self, offset: u32, out: &mut [u8]) {
        for (at, piece) in (offset..).step_by(8).zip(out.chunks_mut(8)) {
            let word = self.load_u64(at).to_le_bytes();
            for (to, from) in piece.iter_mut().zip(word) {
                *to = from;
            }
        }
    }

    /// Writes bytes from an 8-aligned offset on; their number must be a multiple of 8.
    pub(crate) fn store_bytes(&self, offset: u32, data: &[u8]) {
        for (at, piece) in (offset..).step_by(8).zip(data.chunks_exact(8)) {
            if let Ok(word) = piece.try_into() {
                self.store_u64(at, u64::from_le_bytes(word));
            }
        }
    }
}

impl FieldStore for Tdcs<'_> {
    fn load(&self, offset: u32, width: Width) -> u64 {
        self.page(offset / PAGE).map_or(0, |page| page.load(offset % PAGE, width))
    }

    fn store(&self, offset: u32, width: Width, value: u64) {
        if let Some(page) = self.page(offset / PAGE) {
            page.store(offset % PAGE, width, value);
        }
    }
}

/// The state of a vCPU, across its pages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tdvps<'m> {
    memory: &'m Arena,
    root: FieldPage<'m>,
}

impl<'m> Tdvps<'m> {
    /// The TDVPS whose root page, a TDVPR, is at `hpa`.
    pub(crate) fn at(memory: &'m Arena, hpa: Hpa) -> Option<Self> {
        let root = FieldPage::new(memory.table(hpa.frame()).ok()?);
        Some(Self { memory, root })
    }

    fn page(&self, index: u32) -> Option<FieldPage<'m>> {
        if index == 0 {
            return Some(self.root);
        }
        if index as usize >= pages::TDVPS_MAX {
            return None;
        }
        let hpa = Hpa::new(self.root.load_u64(tdvps::TDVPS_PAGE_PA + 8 * index));
        if hpa.get() == 0 {
            return None;
        }
        Some(FieldPage::new(self.memory.table(hpa.frame()).ok()?))
    }

    pub(crate) fn state(&self) -> VcpuState {
        VcpuState(self.root.load(tdvps::VCPU_STATE, Width::B1) as u8)
    }

    pub(crate) fn set_state(&self, state: VcpuState) {
        self.root.store(tdvps::VCPU_STATE, Width::B1, u64::from(state.0));
    }

    pub(crate) fn num_pages(&self) -> usize {
        self.root.load(tdvps::NUM_TDVPS_PAGES, Width::B1) as usize
    }

    /// The addresses of its pages, the TDVPR first.
    pub(crate) fn pages(&self) -> impl Iterator<Item = Hpa> {
        (0..self.num_pages().min(pages::TDVPS_MAX) as u32)
            .map(|index| Hpa::new(self.root.load_u64(tdvps::TDVPS_PAGE_PA + 8 * index)))
    }

    /// Appends a page.
    pub(crate) fn push_page(&self, page: Hpa) {
        let count = self.num_pages() as u32;
        self.root.store_u64(tdvps::TDVPS_PAGE_PA + 8 * count, page.get());
        self.root.store(tdvps::NUM_TDVPS_PAGES, Width::B1, u64::from(count + 1));
    }

    /// The logical processor that the vCPU is associated with.
    pub(crate) fn associated_lp(&self) -> Option<usize> {
        let lp = self.root.load(tdvps::ASSOC_LPID, Width::B4) as u32;
        (lp != u32::MAX).then_some(lp as usize)
    }

    pub(crate) fn set_associated_lp(&self, lp: Option<usize>) {
        let value = lp.map_or(u64::from(u32::MAX), |lp| lp as u64);
        self.root.store(tdvps::ASSOC_LPID, Width::B4, value);
    }

    /// The TDVPS_STATE lock-free transition from one state to another; false where it was in a third.
    pub(crate) fn change_state(&self, from: VcpuState, to: VcpuState) -> bool {
        let Some(word) = self.root.words().get((tdvps::VCPU_STATE / 8) as usize) else { return false };
        crate::lock::change(word, |old| (old as u8 == from.0).then_some(old & !0xff | u64::from(to.0)))
            .is_some()
    }
}

impl FieldStore for Tdvps<'_> {
    fn load(&self, offset: u32, width: Width) -> u64 {
        self.page(offset / PAGE).map_or(0, |page| page.load(offset % PAGE, width))
    }

    fn store(&self, offset: u32, width: Width, value: u64) {
        if let Some(page) = self.page(offset / PAGE) {
            page.store(offset % PAGE, width, value);
        }
    }
}

impl Tdcs<'_> {
    /// Changes a field that several processors change at once, atomically.
    pub(crate) fn update(&self, offset: u32, width: Width, change: impl Fn(u64) -> u64) -> u64 {
        let shift = offset % 8 * 8;
        let mask = width.mask();
        self.word(offset)
            .and_then(|word| {
                crate::lock::change(word, |old| {
                    Some(old & !(mask << shift) | (change(old >> shift & mask) & mask) << shift)
                })
            })
            .map_or(0, |old| old >> shift & mask)
    }
}

impl Tdvps<'_> {
    /// Ties the vCPU to a processor unless it is tied to one.
    pub(crate) fn try_associate(&self, lp: usize) -> bool {
        const NONE: u64 = u32::MAX as u64;
        let Some(word) = self.root.words().get((tdvps::ASSOC_LPID / 8) as usize) else { return false };
        crate::lock::change(word, |old| (old & NONE == NONE).then_some(old & !NONE | lp as u64 & NONE))
            .is_some()
    }
}
