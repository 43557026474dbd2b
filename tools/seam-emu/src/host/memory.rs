//! What leaves do with page contents, and what hardware would notice about it: keys, caches, TLBs.
//!
//! A page of a TD that the host broke is a machine check for whoever uses it. If that is the module itself, on
//! behalf of the host, the module ends; if it is the guest, its TD does.

use phys_memory::MemoryFault;
use tdvisor_base::{Gpa, Hpa, KeyId, Level, PAGE_SIZE};

use super::Call;

impl Call<'_> {
    /// MOVDIR64B: the page becomes zero under `key`.
    pub(crate) fn take_page(&self, hpa: Hpa, key: KeyId) {
        self.machine.note_key_change(hpa, key);
        // Pages that the PAMT knows are in memory; outside of it there is nothing to clear.
        let _ = self.machine.memory().clear_page(hpa.frame(), key);
    }

    /// Copies a page of shared memory into a page that the TD gets.
    pub(crate) fn copy_into_td(&self, source: Hpa, target: Hpa, key: KeyId) {
        let mut bytes = [0; PAGE_SIZE as usize];
        // The host may name memory that is not there; it reads as zero then.
        let _ = self.machine.memory().read(source, KeyId::DEFAULT, &mut bytes);
        self.take_page(target, key);
        let _ = self.machine.memory().write(target, key, &bytes);
    }

    /// Copies a page of the TD to a page that it gets in exchange.
    pub(crate) fn copy_inside_td(&self, source: Hpa, target: Hpa, key: KeyId) {
        let mut bytes = [0; PAGE_SIZE as usize];
        let _ = self.read_td(source, key, &mut bytes);
        self.take_page(target, key);
        let _ = self.machine.memory().write(target, key, &bytes);
    }

    /// Reads a TD's memory by its host address.
    pub(crate) fn read_td(&self, hpa: Hpa, key: KeyId, out: &mut [u8]) -> Result<(), MemoryFault> {
        self.machine.memory().read(hpa, key, out).inspect_err(|_| self.machine.module.shut_down())
    }

    /// Reads eight bytes of a TD.
    pub(crate) fn load_td_word(&self, hpa: Hpa, key: KeyId) -> u64 {
        let mut bytes = [0; 8];
        let _ = self.read_td(hpa, key, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Writes eight bytes of a TD.
    pub(crate) fn store_td_word(&self, hpa: Hpa, key: KeyId, value: u64) {
        if self.machine.memory().store(hpa, key, value).is_err() {
            self.machine.module.shut_down();
        }
    }

    /// A page has left a TD: no processor may reach it any more, and its cache lines are still the TD's.
    pub(crate) fn page_left_td(&self, tdr: Hpa, hpa: Hpa, level: Level) {
        self.machine.check_stale_pages(tdr, hpa, level);
        self.machine.note_page_left(hpa, level);
    }

    /// A Secure-EPT page has left a TD.
    pub(crate) fn table_left_td(&self, tdr: Hpa, gpa: Gpa, level: Level, table: Hpa) {
        self.machine.check_stale_range(tdr, gpa, level);
        self.machine.note_page_left(table, Level::L4K);
    }

    /// A large mapping was replaced by smaller ones.
    pub(crate) fn mapping_was_split(&self, tdr: Hpa, gpa: Gpa, level: Level) {
        self.machine.check_stale_range(tdr, gpa, level);
    }
}
