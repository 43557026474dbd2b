//! The CC event log: what firmware and boot loaders say they extended the RTMRs with.
//!
//! The area that the CCEL table points to holds a TCG log (TCG PC Client Platform Firmware Profile, crypto-agile
//! format) in which the place of the PCR index holds a *measurement register index* (UEFI 2.10, CC measurement
//! protocol): 0 is MRTD, 1 to 4 are RTMR0 to RTMR3. The first entry has the old SHA-1 layout and names the
//! algorithms; the rest have a list of digests. The log itself is not protected: only its replay is, by
//! comparison with the registers of a quote or a TDREPORT.
//!
//! The walk is lenient where real logs are odd, says so each time ([`Warning`]), and never extends a register
//! with what is in doubt:
//! - it ends at a fill of 0xFF (OVMF), at a fill of zeros (td-shim), or where the area ends;
//! - EV_NO_ACTION is never extended, wherever it stands and whatever its index;
//! - an index that is no register is skipped; but a log that extends MRTD or a PCR is a TPM's, and is refused;
//! - an entry that does not fit the area ends the log there.
//!
//! Parsing allocates nothing.

#[cfg(feature = "alloc")]
mod build;
mod data;
mod event;
mod header;
mod replay;
mod text;
mod walk;

#[cfg(test)]
pub(crate) mod tests;

#[cfg(feature = "alloc")]
pub use build::LogBuilder;
pub use data::{Consistency, EventData, Guid, Section, Utf16};
pub use event::{AlgorithmId, Digests, Event, EventType, MrIndex, Register};
pub use header::{AlgorithmSize, Header, LogError};
pub use replay::{Registers, Replay};
pub use text::{DevicePath, Printable, Whole, Words};
pub use walk::{Found, LogEnd, Walk, Warning, WarningKind};

/// A log whose first entry has been read.
#[derive(Clone, Copy, Debug)]
pub struct EventLog<'a> {
    area: &'a [u8],
    header: Header<'a>,
}

impl<'a> EventLog<'a> {
    /// Reads the first entry of the log in `area` (the whole area or what of it was kept).
    ///
    /// # Errors
    /// [`LogError`] if there is no log with a header, or one that does not speak of RTMRs: it has no SHA-384
    /// digests, or is indexed by PCRs.
    pub fn parse(area: &'a [u8]) -> Result<Self, LogError> {
        let header = Header::parse(area)?;
        if header.algorithms().all(|entry| entry.algorithm != AlgorithmId::SHA384) {
            return Err(LogError::NoSha384);
        }
        let log = Self { area, header };
        let measured = || log.events().filter(|event| event.kind != EventType::NO_ACTION);
        if let Some(event) = measured().find(|event| event.mr.is_of_pcrs()) {
            return Err(LogError::OfPcrs(event.mr));
        }
        // A bank that is declared and empty.
        if measured().next().is_some() && measured().all(|event| event.digest().is_none()) {
            return Err(LogError::NoSha384);
        }
        Ok(log)
    }

    /// The first entry.
    #[must_use]
    pub const fn header(&self) -> &Header<'a> {
        &self.header
    }

    /// Everything behind the header, in order: events, warnings, and the end.
    #[must_use]
    pub const fn walk(&self) -> Walk<'a> {
        Walk::new(self.area, self.header)
    }

    /// The events alone, EV_NO_ACTION and events without a register included.
    pub fn events(&self) -> impl Iterator<Item = Event<'a>> + Clone + use<'a> {
        self.walk().filter_map(|found| match found {
            Found::Event(event) => Some(event),
            Found::Warning(_) | Found::End { .. } => None,
        })
    }

    /// The warnings alone.
    pub fn warnings(&self) -> impl Iterator<Item = Warning> + Clone + use<'a> {
        self.walk().filter_map(|found| match found {
            Found::Warning(warning) => Some(warning),
            Found::Event(_) | Found::End { .. } => None,
        })
    }

    /// What is wrong with what the log says, whatever the registers hold: text that is not what was measured, events
    /// where their register is closed.
    pub fn contradictions(&self) -> impl Iterator<Item = Warning> + Clone + use<'a> {
        self.warnings().filter(|warning| warning.kind.is_contradiction())
    }

    /// What the registers hold after all events.
    #[must_use]
    pub fn replay(&self) -> Replay {
        let mut replay = Replay::default();
        self.events().for_each(|event| {
            replay.extend(&event);
        });
        replay
    }
}
