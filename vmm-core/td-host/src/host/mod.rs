//! The host side of the module: bring-up, and what all TDs share.

mod bring_up;
pub mod hkid;
mod memory_map;
mod pages;
pub(crate) mod pamt;
pub(crate) mod saved;

use alloc::vec::Vec;

use tdvisor_base::sync::Mutex;
use tdvisor_base::{Level, Pfn};
use tdx_module_iface::tdsysinfo::TdhSysInfo;

pub use bring_up::Progress;
pub(crate) use bring_up::{on_lp, one_lp_per_package};
pub use memory_map::{MemoryRange, PlanError, SmallPagePamt, TdmrLimits, TdmrPlan, pamt_bytes, plan_tdmrs};

use crate::platform::Platform;
use hkid::{Hkid, HkidPool};

/// A machine whose module is up: TDs can be created on it.
#[derive(Debug)]
pub struct Host<P> {
    pub(crate) platform: P,
    pub(crate) hkids: HkidPool,
    /// The module's own key: held for as long as the host exists.
    module_key: Hkid,
    info: TdhSysInfo,
    cmrs: Vec<MemoryRange>,
    tdmrs: Vec<TdmrPlan>,
    pub(crate) pamt: pamt::Pamt,
    quarantined: Mutex<Vec<(Pfn, Level)>>,
}

impl<P: Platform> Host<P> {
    fn assemble(
        platform: P,
        hkids: HkidPool,
        module_key: Hkid,
        info: TdhSysInfo,
        cmrs: Vec<MemoryRange>,
        tdmrs: Vec<TdmrPlan>,
        pamt: pamt::Pamt,
    ) -> Self {
        Self { platform, hkids, module_key, info, cmrs, tdmrs, pamt, quarantined: Mutex::new(Vec::new()) }
    }

    /// The machine.
    pub fn platform(&self) -> &P {
        &self.platform
    }

    /// What the module says of itself.
    pub fn module_info(&self) -> &TdhSysInfo {
        &self.info
    }

    /// The key that the module keeps its own data and every TDR under.
    pub fn module_key(&self) -> tdvisor_base::KeyId {
        self.module_key.key()
    }

    /// Convertible memory.
    pub fn cmrs(&self) -> &[MemoryRange] {
        &self.cmrs
    }

    /// The TDMRs that the module was given.
    pub fn tdmrs(&self) -> &[TdmrPlan] {
        &self.tdmrs
    }

    /// Private key ids: free, in all, lost.
    pub fn hkid_counts(&self) -> hkid::HkidCounts {
        self.hkids.counts()
    }
}
