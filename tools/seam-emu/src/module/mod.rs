//! What the module keeps outside of TDs: its own state, TDMRs and their PAMT, key ownership, hash contexts.
//!
//! A snapshot forks all of it. Locks are free in a fork: nobody is inside a leaf of a machine that was just
//! made.

pub(crate) mod dynamic_pamt;
pub(crate) mod kot;
pub(crate) mod pamt;
pub(crate) mod random;
pub(crate) mod saved;
pub(crate) mod tdmr;

use std::collections::BTreeMap;

use sha2::Sha384;
use tdvisor_base::sync::{AtomicBool, AtomicU64, Mutex, Ordering};
use tdvisor_base::{Hpa, KeyId};
use tdx_module_iface::lifecycle::SysState;
use tdx_module_iface::report::ReportKey;

use crate::config::MachineConfig;
use crate::lock::{Busy, Guard, HostPriority, Mode, Side, TryLock};
use crate::migration::pending::PendingBundles;
use kot::Kot;
use random::Random;
use tdmr::TdmrTable;

/// Where a package's TDH.PHYMEM.CACHE.WB stands.
#[derive(Debug, Default)]
pub(crate) struct WriteBack {
    /// Lock of the operation on this package.
    lock: AtomicU64,
    /// Sub-blocks that are done.
    position: AtomicU64,
    /// The key ids of the operation under way.
    hkids: Mutex<Vec<u16>>,
}

impl WriteBack {
    pub(crate) fn lock(&self) -> Result<Guard<'_>, Busy> {
        TryLock::new(&self.lock, HostPriority::No).acquire(Mode::Exclusive, Side::Host)
    }

    pub(crate) fn position(&self) -> u64 {
        self.position.load(Ordering::Acquire)
    }

    pub(crate) fn set_position(&self, position: u64) {
        self.position.store(position, Ordering::Release);
    }

    pub(crate) fn hkids(&self) -> Vec<u16> {
        self.hkids.lock().clone()
    }

    pub(crate) fn set_hkids(&self, hkids: Vec<u16>) {
        *self.hkids.lock() = hkids;
    }

    fn fork(&self) -> Self {
        Self {
            lock: AtomicU64::new(0),
            position: AtomicU64::new(self.position()),
            hkids: Mutex::new(self.hkids()),
        }
    }
}

/// The module's global state.
#[derive(Debug)]
pub(crate) struct Module {
    state: AtomicU64,
    lock: AtomicU64,
    /// Bit n: TDH.SYS.LP.INIT ran on processor n.
    initialised_lps: Box<[AtomicU64]>,
    /// Bit n: TDH.SYS.KEY.CONFIG ran on package n.
    configured_packages: AtomicU64,
    global_hkid: AtomicU64,
    pub(crate) tdmrs: TdmrTable,
    pub(crate) kot: Kot,
    pub(crate) write_back: Box<[WriteBack]>,
    /// Running MRTD hashes of TDs that are being built, by TDR.
    mrtd: Mutex<BTreeMap<Hpa, Sha384>>,
    /// Pages of migration bundles whose call was interrupted.
    pub(crate) pending_bundles: PendingBundles,
    pub(crate) random: Random,
    /// Set once the module met memory that failed its integrity check.
    shut_down: AtomicBool,
    /// Key of the MAC of TDREPORTs.
    pub(crate) report_key: ReportKey,
}

impl Module {
    /// A module that was loaded and not initialised.
    pub(crate) fn new(config: &MachineConfig) -> Self {
        let words = config.lp_packages.len().div_ceil(64);
        Self {
            state: AtomicU64::new(u64::from(SysState::INIT_PENDING.0)),
            lock: AtomicU64::new(0),
            initialised_lps: (0..words).map(|_| AtomicU64::new(0)).collect(),
            configured_packages: AtomicU64::new(0),
            global_hkid: AtomicU64::new(0),
            tdmrs: TdmrTable::default(),
            kot: Kot::new(&config.private_hkids),
            write_back: (0..config.num_packages()).map(|_| WriteBack::default()).collect(),
            mrtd: Mutex::new(BTreeMap::new()),
            pending_bundles: PendingBundles::default(),
            random: Random::new(0x7464_7669_736f_7221),
            shut_down: AtomicBool::new(false),
            report_key: ReportKey(*b"tdvisor emulated SEAMREPORT key."),
        }
    }

    /// A copy that goes its own way from here.
    pub(crate) fn fork(&self) -> Self {
        Self {
            state: AtomicU64::new(self.state.load(Ordering::Acquire)),
            lock: AtomicU64::new(0),
            initialised_lps: self
                .initialised_lps
                .iter()
                .map(|word| AtomicU64::new(word.load(Ordering::Acquire)))
                .collect(),
            configured_packages: AtomicU64::new(self.configured_packages.load(Ordering::Acquire)),
            global_hkid: AtomicU64::new(self.global_hkid.load(Ordering::Acquire)),
            tdmrs: self.tdmrs.fork(),
            kot: self.kot.fork(),
            write_back: self.write_back.iter().map(WriteBack::fork).collect(),
            mrtd: Mutex::new(self.mrtd.lock().clone()),
            pending_bundles: self.pending_bundles.fork(),
            random: self.random.fork(),
            shut_down: AtomicBool::new(self.has_shut_down()),
            report_key: self.report_key.clone(),
        }
    }

    /// The module's own memory failed its integrity check: no SEAMCALL reaches it any more.
    pub(crate) fn shut_down(&self) {
        self.shut_down.store(true, Ordering::Release);
    }

    pub(crate) fn has_shut_down(&self) -> bool {
        self.shut_down.load(Ordering::Relaxed)
    }

    pub(crate) fn state(&self) -> SysState {
        SysState(self.state.load(Ordering::Acquire) as u8)
    }

    pub(crate) fn set_state(&self, state: SysState) {
        self.state.store(u64::from(state.0), Ordering::Release);
    }

    /// The lock that serialises the leaves which change the module's own state.
    pub(crate) fn lock(&self, mode: Mode) -> Result<Guard<'_>, Busy> {
        TryLock::new(&self.lock, HostPriority::No).acquire(mode, Side::Host)
    }

    pub(crate) fn lp_is_initialised(&self, lp: usize) -> bool {
        self.initialised_lps
            .get(lp / 64)
            .is_some_and(|word| word.load(Ordering::Acquire) >> (lp % 64) & 1 != 0)
    }

    pub(crate) fn set_lp_initialised(&self, lp: usize) {
        if let Some(word) = self.initialised_lps.get(lp / 64) {
            word.fetch_or(1 << (lp % 64), Ordering::AcqRel);
        }
    }

    pub(crate) fn num_initialised_lps(&self) -> u32 {
        self.initialised_lps.iter().map(|word| word.load(Ordering::Acquire).count_ones()).sum()
    }

    pub(crate) fn package_is_configured(&self, package: u32) -> bool {
        self.configured_packages.load(Ordering::Acquire) >> package.min(63) & 1 != 0
    }

    /// Marks a package as having the module's key; gives how many have it now.
    pub(crate) fn set_package_configured(&self, package: u32) -> u32 {
        let bit = 1 << package.min(63);
        (self.configured_packages.fetch_or(bit, Ordering::AcqRel) | bit).count_ones()
    }

    pub(crate) fn set_global_hkid(&self, hkid: u16) {
        self.global_hkid.store(u64::from(hkid), Ordering::Release);
    }

    pub(crate) fn global_key(&self) -> KeyId {
        KeyId::new(self.global_hkid.load(Ordering::Acquire) as u16)
    }

    /// Starts the MRTD of a TD.
    pub(crate) fn start_mrtd(&self, tdr: Hpa) {
        self.mrtd.lock().insert(tdr, Sha384::default());
    }

    /// Adds to the MRTD of a TD. The caller holds its TDR exclusively.
    pub(crate) fn extend_mrtd(&self, tdr: Hpa, data: &[&[u8]]) {
        use sha2::Digest as _;
        if let Some(hash) = self.mrtd.lock().get_mut(&tdr) {
            for piece in data {
                hash.update(piece);
            }
        }
    }

    /// Ends the MRTD of a TD.
    pub(crate) fn finish_mrtd(&self, tdr: Hpa) -> [u8; 48] {
        use sha2::Digest as _;
        let hash = self.mrtd.lock().remove(&tdr).unwrap_or_default();
        hash.finalize().into()
    }

    /// Forgets the MRTD of a TD that ends unfinished.
    pub(crate) fn drop_mrtd(&self, tdr: Hpa) {
        self.mrtd.lock().remove(&tdr);
    }
}
