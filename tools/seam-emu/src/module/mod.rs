//! What the module keeps outside of TDs.

use tdvisor_base::KeyId;
use tdvisor_base::sync::{AtomicU64, Ordering};

use crate::config::MachineConfig;

/// The module's global state.
#[derive(Debug)]
pub struct Module {
    global_hkid: AtomicU64,
}

impl Module {
    /// A module that was loaded and not initialised.
    pub(crate) fn new(_config: &MachineConfig) -> Self {
        Self { global_hkid: AtomicU64::new(0) }
    }

    /// A copy that goes its own way from here.
    pub(crate) fn fork(&self) -> Self {
        Self { global_hkid: AtomicU64::new(self.global_hkid.load(Ordering::Acquire)) }
    }

    pub(crate) fn global_key(&self) -> KeyId {
        KeyId::new(self.global_hkid.load(Ordering::Acquire) as u16)
    }
}
