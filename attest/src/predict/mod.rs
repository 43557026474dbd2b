//! Predicted events: which extensions a boot will make, from its inputs alone.
//!
//! A prediction is a list of events per register, each with what it is ([`Part`]) and what its digest must be
//! ([`Expectation`]). Never is an expected value taken from the evidence that is to be judged: an input that was
//! not given leaves an event whose digest is [`Expectation::Unknown`], and that is told apart from a match.
//!
//! | module | predicts |
//! |---|---|
//! | [`ovmf`] | RTMR0 and RTMR1 of OVMF with QEMU's direct kernel boot, RTMR2 of Linux's EFI stub |
//! | [`disk_boot`] | RTMR1 and RTMR2 of OVMF that boots shim and GRUB, or a unified kernel image; RTMR0 of one kind of them |
//! | [`boot_shim`] | RTMR0, RTMR1 and RTMR2 of Linux under this project's boot shim |
//! | [`td_shim`] | RTMR0 and RTMR1 of td-shim |
//! | [`guest`] | the registers of this project's own guests |
//! | [`Prediction::from_log`] | the events of a reference log, to compare one boot with another |
//! | [`list`] | events from a list that an application keeps (RTMR3) |
//! | [`ima`] | events from the list of Linux's integrity measurements (RTMR2) |

pub mod authenticode;
pub mod boot_shim;
pub mod disk_boot;
pub mod gpt;
pub mod grub;
pub mod guest;
pub mod ima;
pub mod linux;
pub mod list;
pub mod ovmf;
mod part;
mod secure_boot;
mod shim;
pub mod smbios;
pub mod td_shim;
pub mod uki;
mod variable_store;
pub mod variables;

#[cfg(test)]
mod tests;

use alloc::borrow::Cow;
use alloc::string::ToString;
use alloc::vec::Vec;

use crate::eventlog::{EventLog, Register, Replay};
use td_image::digest::Digest384;

pub use part::Part;

/// A digest that an event may have, and under which circumstance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alternative {
    /// When the event has this digest.
    pub when: Cow<'static, str>,
    /// The digest.
    pub digest: Digest384,
}

/// What is known about an event's digest before it happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// The digest follows from the inputs.
    Exactly(Digest384),
    /// The digest is one of these, depending on something that the inputs do not say.
    OneOf(Vec<Alternative>),
    /// An input is missing.
    Unknown {
        /// Which input would tell.
        needs: Cow<'static, str>,
    },
}

impl Expectation {
    /// Whether a digest meets the expectation; `None` if nothing is known.
    #[must_use]
    pub fn admits(&self, digest: &Digest384) -> Option<bool> {
        match self {
            Self::Exactly(expected) => Some(expected == digest),
            Self::OneOf(alternatives) => Some(alternatives.iter().any(|one| one.digest == *digest)),
            Self::Unknown { .. } => None,
        }
    }

    /// The circumstance under which the digest is expected, where there are several.
    #[must_use]
    pub fn circumstance(&self, digest: &Digest384) -> Option<&str> {
        match self {
            Self::OneOf(alternatives) => {
                alternatives.iter().find(|one| one.digest == *digest).map(|one| &*one.when)
            }
            Self::Exactly(_) | Self::Unknown { .. } => None,
        }
    }

    /// The digest, where there is only one.
    #[must_use]
    pub const fn only(&self) -> Option<&Digest384> {
        match self {
            Self::Exactly(digest) => Some(digest),
            Self::OneOf(_) | Self::Unknown { .. } => None,
        }
    }

    fn of_optional(bytes: Option<&[u8]>, needs: &'static str) -> Self {
        match bytes {
            Some(bytes) => Self::Exactly(Digest384::of(bytes)),
            None => Self::Unknown { needs: Cow::Borrowed(needs) },
        }
    }
}

/// One extension to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PredictedEvent {
    /// The register that it extends.
    pub register: Register,
    /// What is measured.
    pub part: Part,
    /// What is known of the event's digest.
    pub expectation: Expectation,
}

/// The most values of a register that are told apart; no boot that is predicted here has a fourth of them.
const MAX_VALUES: usize = 256;

/// A value that a register may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PredictedValue {
    /// The circumstances, one for each event that has several digests.
    pub when: Vec<Cow<'static, str>>,
    /// The value.
    pub value: Digest384,
}

/// All extensions of a boot, in the order of each register.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prediction {
    /// The events. Their order counts within a register only.
    pub events: Vec<PredictedEvent>,
    /// Registers about which the prediction says nothing.
    pub silent: Vec<Register>,
}

impl Prediction {
    /// Appends an event.
    pub fn push(&mut self, register: Register, part: Part, expectation: Expectation) {
        self.events.push(PredictedEvent { register, part, expectation });
    }

    /// The events of one register.
    pub fn of(&self, register: Register) -> impl Iterator<Item = &PredictedEvent> {
        self.events.iter().filter(move |event| event.register == register)
    }

    /// The value of a register, if every digest of it is known.
    #[must_use]
    pub fn value(&self, register: Register) -> Option<Digest384> {
        if self.silent.contains(&register) {
            return None;
        }
        let mut replay = Replay::default();
        for event in self.of(register) {
            replay.extend_with(register, event.expectation.only()?);
        }
        Some(replay[register])
    }

    /// Every value that a register may have, each with the circumstances under which it has it.
    ///
    /// # Errors
    /// The first input that is missing to know any of them; `None` where the prediction is silent about the register.
    pub fn values(&self, register: Register) -> Result<Vec<PredictedValue>, Option<Cow<'static, str>>> {
        if self.silent.contains(&register) {
            return Err(None);
        }
        let mut values = Vec::from([PredictedValue { when: Vec::new(), value: Digest384::ZERO }]);
        for event in self.of(register) {
            let alternatives: Vec<(Option<&Cow<'static, str>>, &Digest384)> = match &event.expectation {
                Expectation::Exactly(digest) => Vec::from([(None, digest)]),
                Expectation::OneOf(list) => list.iter().map(|one| (Some(&one.when), &one.digest)).collect(),
                Expectation::Unknown { needs } => return Err(Some(needs.clone())),
            };
            values = values
                .iter()
                .flat_map(|before| {
                    alternatives.iter().map(|(when, digest)| {
                        let when = before.when.iter().cloned().chain(when.cloned()).collect();
                        PredictedValue { when, value: before.value.extended_by(digest) }
                    })
                })
                .take(MAX_VALUES)
                .collect();
        }
        Ok(values)
    }

    /// The events of a reference log as a prediction: what another boot, known to be good, did.
    #[must_use]
    pub fn from_log(log: &EventLog<'_>) -> Self {
        let mut prediction = Self::default();
        for event in log.events() {
            if let (Some(register), Some(digest)) = (event.extends(), event.digest()) {
                prediction.push(register, Part::of(&event), Expectation::Exactly(digest));
            }
        }
        // Run-time extensions write no log, so a log is silent about them.
        if prediction.of(Register::Rtmr3).next().is_none() {
            prediction.silent.push(Register::Rtmr3);
        }
        prediction
    }

    /// Appends the events of another prediction, such as an application's list after the boot's.
    pub fn extend(&mut self, other: Self) {
        self.silent.retain(|register| other.of(*register).next().is_none());
        self.events.extend(other.events);
    }
}

impl core::fmt::Display for PredictedEvent {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let digest = match &self.expectation {
            Expectation::Exactly(digest) => digest.to_string(),
            Expectation::OneOf(alternatives) => alloc::format!("one of {}", alternatives.len()),
            Expectation::Unknown { needs } => alloc::format!("unknown without {needs}"),
        };
        write!(f, "{} {}: {digest}", self.register, self.part)
    }
}
