//! Memory as the host reaches it: every address carries a key id in its upper bits.

use core::fmt;

use phys_memory::MemoryFault;
use tdvisor_base::sync::Arc;
use tdvisor_base::{Hpa, KeyId, Level, PAGE_SIZE, Pfn};
use tdx_module_iface::tdmr::PageType;

use super::{HostViolation, Machine};
use crate::module::pamt::PamtEntry;

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

    /// A host address that the module may use on the host's behalf: aligned, inside the physical-address width,
    /// outside the module's own range, and with a shared key id. Gives it without the key id; `None` where the
    /// host may not name it.
    pub(crate) fn shared_hpa(&self, pa: u64, align: u64) -> Option<Hpa> {
        let config = self.config();
        let (hpa, key) = self.split_pa(pa);
        let too_wide = config.max_pa < 64 && pa >> config.max_pa != 0;
        let is_private = key.get() >= *config.private_hkids.start();
        let allowed = pa.is_multiple_of(align) && !too_wide && !self.is_module_memory(hpa) && !is_private;
        allowed.then_some(hpa)
    }

    fn shared(&self, pa: Hpa) -> Result<(Hpa, KeyId), HostMemoryError> {
        let (hpa, key) = self.split_pa(pa.get());
        if self.config().private_hkids.contains(&key.get()) {
            return Err(HostMemoryError::PrivateKey(key));
        }
        Ok((hpa, key))
    }

    /// Reads memory as the host does; `pa` may carry a shared key id. A page held under another key reads as a
    /// pattern and is not harmed; the module's own range reads as ones.
    ///
    /// # Errors
    /// [`HostMemoryError`].
    pub fn host_read(&self, pa: Hpa, out: &mut [u8]) -> Result<(), HostMemoryError> {
        let (hpa, key) = self.shared(pa)?;
        if self.is_module_memory(hpa) {
            out.fill(0xff);
            return Ok(());
        }
        Ok(self.memory().read(hpa, key, out)?)
    }

    /// Writes memory as the host does. A page held under a private key loses its contents, and its owner's
    /// next access is a machine check; the owner of control structures and of the PAMT is the module, which
    /// ends with it. The module's own range ignores writes.
    ///
    /// # Errors
    /// [`HostMemoryError`].
    pub fn host_write(&self, pa: Hpa, data: &[u8]) -> Result<(), HostMemoryError> {
        let (hpa, key) = self.shared(pa)?;
        if self.is_module_memory(hpa) {
            return Ok(());
        }
        self.note_host_write(hpa, data.len() as u64);
        let _ = self.memory().write(hpa, key, data)?;
        Ok(())
    }

    /// Whether an address lies in the range that only the module reaches.
    fn is_module_memory(&self, hpa: Hpa) -> bool {
        let range = self.config().seam_range;
        hpa.get() >= range.base && hpa.get() - range.base < range.size
    }

    /// MOVDIR64B over a whole page: it becomes zero under the key id in `pa`, whatever it was before. A page in
    /// use is lost for its owner, as by [`Self::host_write`].
    ///
    /// # Errors
    /// [`HostMemoryError`].
    pub fn movdir64b_clear(&self, pa: Hpa) -> Result<(), HostMemoryError> {
        let (hpa, key) = self.shared(pa)?;
        if self.is_module_memory(hpa) {
            return Ok(());
        }
        self.note_key_change(hpa, key);
        self.note_host_write(hpa.align_down(PAGE_SIZE), PAGE_SIZE);
        Ok(self.memory().clear_page(hpa.frame(), key)?)
    }

    /// What the PAMT says that a page is used for.
    fn page_use(&self, hpa: Hpa) -> PageType {
        let Some(tdmr) = self.module.tdmrs.of_page(hpa) else { return PageType::NDA };
        [Level::L1G, Level::L2M, Level::L4K]
            .into_iter()
            .filter_map(|level| tdmr.entry(self.memory(), level, hpa))
            .map(PamtEntry::page_type)
            .find(|kind| *kind != PageType::NDA)
            .unwrap_or(PageType::NDA)
    }

    /// Whether a page holds PAMT entries.
    fn is_pamt(&self, hpa: Hpa) -> bool {
        self.module.tdmrs.all().iter().any(|tdmr| {
            let on_demand = tdmr.contains(hpa.get())
                && tdmr.dynamic().is_some_and(|dynamic| dynamic.holds_entries(self.memory(), hpa));
            on_demand
                || [Level::L4K, Level::L2M, Level::L1G].into_iter().any(|level| {
                    let (base, size) = tdmr.pamt(level);
                    hpa.get() >= base && hpa.get() - base < size
                })
        })
    }

    /// From now on reports what stores of processors outside of the module do to pages in use, as [`Self::host_write`] does for
    /// its own: such stores go to memory directly.
    pub fn observe_stores(self: &Arc<Self>) {
        let machine = Arc::downgrade(self);
        self.memory().observe_takeovers(Box::new(move |page| {
            if let Some(machine) = machine.upgrade() {
                machine.note_host_write(page.base(), 1);
            }
        }));
    }

    /// Reports pages in use that a write under a shared key is about to break, whoever does it.
    pub(crate) fn note_host_write(&self, hpa: Hpa, len: u64) {
        let first = hpa.frame().get();
        let Some(last) = hpa.checked_add(len.saturating_sub(1)) else { return };
        let end = last.frame().get().min(self.memory().bytes() / PAGE_SIZE);
        for pfn in first..=end {
            let page = Pfn::new(pfn).base();
            self.note_key_change(page, KeyId::DEFAULT);
            let Ok(key) = self.memory().page_key(page.frame()) else { continue };
            if !self.config().private_hkids.contains(&key.get()) {
                continue;
            }
            let kind = self.page_use(page);
            let control = matches!(kind, PageType::TDR | PageType::TDCX | PageType::TDVPR | PageType::EPT);
            if control || self.is_pamt(page) {
                self.module.shut_down();
            }
            if control || kind == PageType::REG || self.is_pamt(page) {
                self.report(HostViolation::WriteToPrivatePage { page, held_under: key });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Host;

    /// A machine with a TD, and its TDR and one of its pages.
    fn with_td() -> (Arc<Machine>, Hpa, Hpa) {
        const GPA: u64 = 0x8000_0000;
        let host = Host::ready();
        let td = host.td(1);
        let _ = host.tables(&td, GPA, 0);
        let page = host.aug(&td, GPA);
        let machine = Arc::new(host.machine);
        machine.observe_stores();
        (machine, Hpa::new(td.tdr), Hpa::new(page))
    }

    fn written(machine: &Machine) -> Vec<Hpa> {
        let page = |violation| match violation {
            HostViolation::WriteToPrivatePage { page, .. } => page,
            other => panic!("{other}"),
        };
        machine.violations().into_iter().map(page).collect()
    }

    #[test]
    fn a_processors_store_to_a_page_in_use_is_reported_once_and_breaks_what_it_breaks_on_hardware() {
        let (machine, tdr, page) = with_td();
        // The page of the guest was not accepted, so nothing holds it under the TD's key yet.
        let _ = machine.memory().store(page, KeyId::DEFAULT, 1u8).unwrap();
        assert!(!machine.module.has_shut_down());
        for _ in 0..2 {
            let _ = machine.memory().store(tdr, KeyId::DEFAULT, 1u8).unwrap();
        }
        assert_eq!(written(&machine), [tdr]);
        assert!(machine.module.has_shut_down(), "the module met broken memory");
    }

    #[test]
    fn what_the_host_writes_by_call_is_reported_once_although_memory_tells_it_too() {
        let (machine, tdr, _) = with_td();
        machine.host_write(tdr, &[1]).unwrap();
        assert_eq!(written(&machine), [tdr]);
    }
}
