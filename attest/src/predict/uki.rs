//! Unified kernel images: a PE file of systemd's stub whose sections are what it boots.
//!
//! The stub measures each section that it knows, first the name and then what it holds, in an order of its own whatever the
//! file's is, and not the signature of the registers to come (systemd, `src/fundamental/uki.h`).

use alloc::borrow::Cow;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt;

use super::authenticode::{self, PeError, PeSection};
use super::{Expectation, Part, Prediction};
use crate::eventlog::Register;
use td_image::digest::Digest384;

/// The sections that the stub measures, in its order.
const MEASURED: [&str; 10] =
    [".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname", ".sbat", ".pcrpkey"];
/// Sections by which the stub chooses among others: what it then measures depends on the machine or the boot menu.
const CHOOSING: [&str; 4] = [".profile", ".dtbauto", ".hwids", ".efifw"];

/// Why a file is no unified kernel image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UkiError {
    /// Not a PE file.
    Pe(PeError),
    /// No section with a kernel.
    NoKernel,
    /// A section of this name is there twice.
    Twice(&'static str),
}

impl From<PeError> for UkiError {
    fn from(error: PeError) -> Self {
        Self::Pe(error)
    }
}

impl fmt::Display for UkiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pe(error) => error.fmt(f),
            Self::NoKernel => f.write_str("no unified kernel image: it has no section .linux"),
            Self::Twice(name) => write!(f, "no unified kernel image: it has two sections {name}"),
        }
    }
}

impl core::error::Error for UkiError {}

/// A unified kernel image.
#[derive(Clone, Debug)]
pub struct Uki<'a> {
    file: &'a [u8],
    sections: Vec<(&'static str, PeSection<'a>)>,
    chooses_by: Option<&'static str>,
}

impl<'a> Uki<'a> {
    /// Reads an image.
    ///
    /// # Errors
    /// [`UkiError`].
    pub fn parse(file: &'a [u8]) -> Result<Self, UkiError> {
        let all = authenticode::sections(file)?;
        let named = |name: &'static str| all.iter().filter(move |section| section.is_named(name)).copied();
        let mut sections = Vec::new();
        for name in MEASURED {
            let mut found = named(name);
            if let Some(section) = found.next() {
                sections.push((name, section));
            }
            if found.next().is_some() {
                return Err(UkiError::Twice(name));
            }
        }
        if !sections.iter().any(|(name, _)| *name == ".linux") {
            return Err(UkiError::NoKernel);
        }
        let chooses_by = CHOOSING.into_iter().find(|name| named(name).next().is_some());
        Ok(Self { file, sections, chooses_by })
    }

    /// The digest of the whole file, which firmware starts.
    ///
    /// # Errors
    /// [`PeError`].
    pub fn image(&self) -> Result<Digest384, PeError> {
        authenticode::sha384(self.file)
    }

    fn section(&self, name: &str) -> Option<&PeSection<'a>> {
        self.sections.iter().find(|(of, _)| *of == name).map(|(_, section)| section)
    }

    /// The digest of the kernel in it, which the stub may have firmware start.
    ///
    /// # Errors
    /// [`PeError`].
    pub fn kernel(&self) -> Result<Digest384, PeError> {
        let section = self.section(".linux").ok_or(PeError::NoPe)?;
        authenticode::sha384(&section.contents())
    }

    /// Appends what the stub measures of the sections, for a boot without anything beside the image: no add-ons, no
    /// credentials, and no command line of the boot menu.
    pub(super) fn measure(&self, prediction: &mut Prediction) {
        if let Some(name) = self.chooses_by {
            let needs = Cow::Owned(alloc::format!("what the stub chooses by its section {name}"));
            let part = Part::Section(name.to_string());
            return prediction.push(Register::Rtmr2, part, Expectation::Unknown { needs });
        }
        for (name, section) in &self.sections {
            let with_nul = [name.as_bytes(), &[0]].concat();
            let named = Expectation::Exactly(Digest384::of(&with_nul));
            prediction.push(Register::Rtmr2, Part::SectionName((*name).to_string()), named);
            let holds = Expectation::Exactly(Digest384::of(&section.contents()));
            prediction.push(Register::Rtmr2, Part::Section((*name).to_string()), holds);
        }
    }

    /// The command line that the stub hands to the kernel, where the image has one.
    pub(super) fn command_line(&self) -> Option<alloc::string::String> {
        let contents = self.section(".cmdline")?.contents();
        let text = core::str::from_utf8(&contents).ok()?;
        Some(text.trim_end_matches(['\0', '\n', ' ']).to_string())
    }
}
