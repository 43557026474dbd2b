//! Posted interrupts: how a host gives a TD's vCPU an interrupt.
//!
//! The descriptor (SDM volume 3, "Posted-Interrupt Processing") is 64 bytes in host memory: 256 bits of
//! requests (PIR), and bit 256, "outstanding notification". The host sets a vector's bit in PIR, then ON; if
//! ON was clear it notifies the LP. The processor takes PIR into the virtual APIC when it sees the
//! notification, or at the next VP.ENTER.

use tdvisor_base::sync::{AtomicU64, Ordering};
use tdvisor_base::{Hpa, Level, Pfn};

use crate::error::Error;
use crate::host::Host;
use crate::platform::Platform;
use crate::td::teardown::TeardownReport;

/// The notification vector. Nothing else uses it on the host.
pub const NOTIFICATION_VECTOR: u8 = 0xf2;

/// Index of the 64-bit word that holds the ON bit.
const CONTROL_WORD: usize = 4;
const OUTSTANDING: u64 = 1;

/// The lowest vector that is not an exception.
pub(crate) const FIRST_VECTOR: u8 = 16;

/// Requests a vector in a descriptor. Whether its LP has to be notified.
pub fn request(descriptor: &[AtomicU64], vector: u8) -> bool {
    let (word, bit) = (usize::from(vector) / 64, u32::from(vector) % 64);
    if let Some(request) = descriptor.get(word) {
        request.fetch_or(1 << bit, Ordering::SeqCst);
    }
    let control = descriptor.get(CONTROL_WORD);
    control.is_some_and(|control| control.fetch_or(OUTSTANDING, Ordering::SeqCst) & OUTSTANDING == 0)
}

/// Whether a descriptor has requests that the processor has not taken.
pub fn is_outstanding(descriptor: &[AtomicU64]) -> bool {
    let control = descriptor.get(CONTROL_WORD);
    control.is_some_and(|control| control.load(Ordering::SeqCst) & OUTSTANDING != 0)
}

/// One vCPU's descriptor, at the start of a page of its own.
#[derive(Debug)]
pub(crate) struct PostedInterrupts {
    page: Pfn,
}

impl PostedInterrupts {
    pub(crate) fn new<P: Platform>(host: &Host<P>) -> Result<Self, Error> {
        host.give_page().map(|page| Self { page })
    }

    /// The descriptor in a page that has one.
    pub(crate) const fn at(page: Pfn) -> Self {
        Self { page }
    }

    /// The descriptor's page.
    pub(crate) const fn page(&self) -> Pfn {
        self.page
    }

    pub(crate) fn descriptor(&self) -> Hpa {
        self.page.base()
    }

    /// Posts a vector. Whether the LP has to be notified.
    pub(crate) fn post<P: Platform>(&self, host: &Host<P>, vector: u8) -> Result<bool, Error> {
        if vector < FIRST_VECTOR {
            return Err(Error::Caller("vectors below 16 are exceptions, not interrupts"));
        }
        Ok(request(host.platform.table(self.page)?, vector))
    }

    /// Whether something is posted that the vCPU has not taken yet.
    pub(crate) fn is_pending<P: Platform>(&self, host: &Host<P>) -> bool {
        host.platform.table(self.page).is_ok_and(|words| is_outstanding(words))
    }

    /// The vectors that are requested and that the processor has not taken, as the four words of PIR. The vCPU is
    /// outside of the guest.
    pub(crate) fn requested<P: Platform>(&self, host: &Host<P>) -> Result<[u64; CONTROL_WORD], Error> {
        let words = host.platform.table(self.page)?;
        Ok(core::array::from_fn(|word| words.get(word).map_or(0, |word| word.load(Ordering::SeqCst))))
    }

    /// Quarantines the descriptor's page.
    pub(crate) fn abandon<P: Platform>(self, host: &Host<P>, report: &mut TeardownReport) {
        host.quarantine(self.page, Level::L4K);
        report.quarantined_frames += 1;
    }

    pub(crate) fn free<P: Platform>(self, host: &Host<P>) {
        host.platform.free_page(self.page, Level::L4K);
    }
}
