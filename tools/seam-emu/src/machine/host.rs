//! Memory as the host reaches it: every address carries a key id in its upper bits.

use core::fmt;

use tdvisor_base::arena::MemoryFault;
use tdvisor_base::{Hpa, KeyId, Level, PAGE_SIZE};
use tdx_module_iface::tdmr::PageType;

use super::{HostViolation, Machine};

/// Why a host access did not happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostMemoryError {
    /// The address names a private key id: the processor raises a fault outside SEAM mode.
    PrivateKey(KeyId),
    /// The memory controller refused.
    Memory(MemoryFault),
}

impl fmt::Display for HostMemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PrivateKey(key) => write!(f, "the host used private key id {key}"),
            Self::Memory(fault) => write!(f, "{fault}"),
        }
    }
}

impl core::error::Error for HostMemoryError {}

impl From<MemoryFault> for HostMemoryError {
    fn from(fault: MemoryFault) -> Self {
        Self::Memory(fault)
    }
}

impl Machine {
    /// Splits a physical address into where and under which key.
    pub fn split_pa(&self, pa: u64) -> (Hpa, KeyId) {
        let hpa = Hpa::new(pa & !self.config().hkid_mask());
        (hpa, KeyId::new(self.config().hkid_of(pa)))
    }

    fn shared(&self, pa: Hpa) -> Result<(Hpa, KeyId), HostMemoryError> {
        let (hpa, key) = self.split_pa(pa.get());
        if self.config().private_hkids.contains(&key.get()) {
            return Err(HostMemoryError::PrivateKey(key));
        }
        Ok((hpa, key))
    }

    /// Reads memory as the host does; `pa` may carry a shared key id. A page held under another key reads as a
    /// pattern and is not harmed.
    ///
    /// # Errors
    /// [`HostMemoryError`].
    pub fn host_read(&self, pa: Hpa, out: &mut [u8]) -> Result<(), HostMemoryError> {
        let (hpa, key) = self.shared(pa)?;
        Ok(self.memory().read(hpa, key, out)?)
    }

    /// Writes memory as the host does. A page held under a private key loses its contents, and its owner's
    /// next access is a machine check.
    ///
    /// # Errors
    /// [`HostMemoryError`].
    pub fn host_write(&self, pa: Hpa, data: &[u8]) -> Result<(), HostMemoryError> {
        let (hpa, key) = self.shared(pa)?;
        self.note_host_write(hpa, data.len() as u64);
        let _ = self.memory().write(hpa, key, data)?;
        Ok(())
    }

    /// MOVDIR64B over a whole page: it becomes zero under the key id in `pa`, whatever it was before.
    ///
    /// # Errors
    /// [`HostMemoryError`].
    pub fn movdir64b_clear(&self, pa: Hpa) -> Result<(), HostMemoryError> {
        let (hpa, key) = self.shared(pa)?;
        self.note_key_change(hpa, key);
        Ok(self.memory().clear_page(hpa.frame(), key)?)
    }

    /// Whether the PAMT says that a TD or the module uses a page.
    fn page_is_in_use(&self, hpa: Hpa) -> bool {
        let Some(tdmr) = self.module.tdmrs.of_page(hpa) else { return false };
        [Level::L4K, Level::L2M, Level::L1G].into_iter().any(|level| {
            tdmr.entry(self.memory(), level, hpa)
                .is_some_and(|entry| !matches!(entry.page_type(), PageType::NDA | PageType::RSVD))
        })
    }

    /// Reports pages under a private key that a host write is about to break.
    fn note_host_write(&self, hpa: Hpa, len: u64) {
        let first = hpa.frame().get();
        let Some(last) = hpa.checked_add(len.saturating_sub(1)) else { return };
        let end = last.frame().get().min(self.memory().bytes() / PAGE_SIZE);
        for pfn in first..=end {
            let page = tdvisor_base::Pfn::new(pfn);
            self.note_key_change(page.base(), KeyId::DEFAULT);
            let in_use = self.page_is_in_use(page.base());
            if in_use
                && let Ok(key) = self.memory().page_key(page)
                && self.config().private_hkids.contains(&key.get())
            {
                self.report(HostViolation::WriteToPrivatePage { page: page.base(), held_under: key });
            }
        }
    }
}
