//! The module's state outside of memory, as a snapshot on a disk holds it.
//!
//! Locks are free in it: a snapshot is taken between two SEAMCALLs. Every field of [`Module`] is named, so that one that is
//! added does not compile until it is decided what becomes of it.

use serde::{Deserialize, Serialize};
use sha2::Sha384;
use sha2::digest::common::hazmat::SerializableState;
use tdvisor_base::Hpa;
use tdvisor_base::sync::{AtomicBool, AtomicU64, Mutex, Ordering};

use super::kot::Kot;
use super::random::Random;
use super::tdmr::{SavedTdmr, TdmrTable};
use super::{Module, WriteBack};
use crate::config::MachineConfig;
use crate::migration::pending::{PendingBundles, SavedBundles};

/// A package's TDH.PHYMEM.CACHE.WB.
#[derive(Debug, Serialize, Deserialize)]
struct SavedWriteBack {
    position: u64,
    hkids: Vec<u16>,
}

/// The module's state.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedModule {
    state: u64,
    initialised_lps: Vec<u64>,
    configured_packages: u64,
    global_hkid: u64,
    tdmrs: Option<Vec<SavedTdmr>>,
    kot: Vec<u64>,
    write_back: Vec<SavedWriteBack>,
    /// Running MRTD hashes, by TDR.
    mrtd: Vec<(u64, Vec<u8>)>,
    pending_bundles: SavedBundles,
    random: u64,
    shut_down: bool,
}

impl Module {
    /// The state. Nobody is inside a leaf.
    pub(crate) fn save(&self) -> SavedModule {
        let Self {
            state,
            lock: _,
            initialised_lps,
            configured_packages,
            global_hkid,
            tdmrs,
            kot,
            write_back: packages,
            mrtd,
            pending_bundles,
            random,
            shut_down,
            // The same for every module.
            report_key: _,
        } = self;
        let word = |word: &AtomicU64| word.load(Ordering::Acquire);
        let write_back = |package: &WriteBack| {
            let WriteBack { lock: _, position, hkids } = package;
            SavedWriteBack { position: word(position), hkids: hkids.lock().clone() }
        };
        SavedModule {
            state: word(state),
            initialised_lps: initialised_lps.iter().map(word).collect(),
            configured_packages: word(configured_packages),
            global_hkid: word(global_hkid),
            tdmrs: tdmrs.save(),
            kot: kot.save(),
            write_back: packages.iter().map(write_back).collect(),
            mrtd: mrtd.lock().iter().map(|(tdr, hash)| (tdr.get(), hash.serialize().to_vec())).collect(),
            pending_bundles: pending_bundles.save(),
            random: random.seed(),
            shut_down: shut_down.load(Ordering::Acquire),
        }
    }

    /// A module of this machine in a state; `None` where that is of another machine, or does not fit together.
    pub(crate) fn restore(config: &MachineConfig, saved: SavedModule) -> Option<Self> {
        let fresh = Self::new(config);
        let SavedModule {
            state,
            initialised_lps,
            configured_packages,
            global_hkid,
            tdmrs,
            kot,
            write_back,
            mrtd,
            pending_bundles,
            random,
            shut_down,
        } = saved;
        if initialised_lps.len() != fresh.initialised_lps.len() || write_back.len() != fresh.write_back.len()
        {
            return None;
        }
        let package = |SavedWriteBack { position, hkids }| WriteBack {
            lock: AtomicU64::new(0),
            position: AtomicU64::new(position),
            hkids: Mutex::new(hkids),
        };
        let hash = |(tdr, state): (u64, Vec<u8>)| {
            let state = state.as_slice().try_into().ok()?;
            Some((Hpa::new(tdr), <Sha384 as SerializableState>::deserialize(state).ok()?))
        };
        Some(Self {
            state: AtomicU64::new(state),
            lock: AtomicU64::new(0),
            initialised_lps: initialised_lps.into_iter().map(AtomicU64::new).collect(),
            configured_packages: AtomicU64::new(configured_packages),
            global_hkid: AtomicU64::new(global_hkid),
            tdmrs: TdmrTable::restore(tdmrs.as_deref())?,
            kot: Kot::new(&config.private_hkids).restore(&kot)?,
            write_back: write_back.into_iter().map(package).collect(),
            mrtd: Mutex::new(mrtd.into_iter().map(hash).collect::<Option<_>>()?),
            pending_bundles: PendingBundles::restore(pending_bundles),
            random: Random::new(random),
            shut_down: AtomicBool::new(shut_down),
            report_key: fresh.report_key,
        })
    }
}
