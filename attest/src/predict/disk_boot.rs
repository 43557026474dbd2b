//! OVMF that starts a disk's boot loader, or a unified kernel image.
//!
//! RTMR1: "Calling EFI Application", separator, the disk's partition table, every image that firmware starts for itself or
//! for a boot loader, the two ExitBootServices texts. RTMR2: what systemd's stub measures of a unified kernel image; or the lists
//! that shim keeps, and what GRUB runs and reads where its configuration is known ([`grub`]). RTMR0 has the boot variables of the machine,
//! which name its disk, and the keys by which images start: predicted of edk2-stable202608 that enforces Secure Boot, starts shim from a
//! disk whose place is known, and finds nothing else to boot from (recorded logs; edk2 DxeTpm2MeasureBootLib; systemd `src/boot/stub.c`).

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use super::gpt::{self, GptError};
use super::grub::{self, Grub};
use super::ovmf::{self, Generation, PROFILES, Profile, SeparatorPlace};
use super::uki::{Uki, UkiError};
use super::variables::variable;
use super::{Expectation, Part, Prediction, authenticode, linux, secure_boot, shim};
use crate::eventlog::{Guid, Register};
use td_image::digest::Digest384;

/// What is booted.
#[derive(Clone, Copy, Debug)]
pub enum Loaded<'a> {
    /// Boot loaders in the order in which they start (shim, GRUB), then this kernel.
    Chain {
        /// The boot loaders.
        loaders: &'a [&'a [u8]],
        /// The kernel.
        kernel: Option<&'a [u8]>,
        /// The configuration of GRUB, if it is the last of them: all of the file.
        grub: Option<&'a [u8]>,
    },
    /// A unified kernel image, behind these boot loaders, if any.
    Uki {
        /// The boot loaders.
        loaders: &'a [&'a [u8]],
        /// The image.
        image: &'a Uki<'a>,
    },
}

/// Who starts the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelStart {
    /// Firmware, for a boot loader or a stub: it is an image in RTMR1.
    Firmware,
    /// The boot loader or stub itself.
    Loader,
}

/// What a unified kernel image measures into RTMR2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StubMeasures {
    /// Nothing: a stub without UEFI's protocol for confidential computing, and a kernel without it (before 6.9).
    Nothing,
    /// The stub its sections, the kernel nothing.
    Sections,
    /// The stub its sections, the kernel (from 6.9 on) its command line and initrd.
    SectionsAndKernel,
}

/// How a kernel gets out of boot services. Its first call fails where the memory map changed since it read it, which depends on
/// what boot loaders left to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// With its first call.
    AtOnce,
    /// With its second call: firmware measures that the first one failed.
    AtSecondCall,
}

/// One kind of build of firmware, boot loader and kernel, and one course of its boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// The build of the firmware.
    pub profile: Profile,
    /// Who starts the kernel.
    pub start: KernelStart,
    /// What reaches RTMR2 behind boot loaders; behind GRUB there are no sections, and its own events are there in any case.
    pub stub: StubMeasures,
    /// How the kernel gets out of boot services.
    pub leaving: Leaving,
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.profile.name)?;
        f.write_str(match self.start {
            KernelStart::Firmware => ", kernel started by firmware",
            KernelStart::Loader => ", kernel started by its loader",
        })?;
        f.write_str(match self.leaving {
            Leaving::AtOnce => "",
            Leaving::AtSecondCall => ", out of boot services at the second call",
        })
    }
}

/// Why nothing can be predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BootError {
    /// What firmware measures before.
    Firmware(ovmf::InputError),
    /// A boot loader, by its place from 0, that is no PE image.
    Loader(usize, authenticode::PeError),
    /// A kernel that is no PE image.
    Kernel(authenticode::PeError),
    /// A unified kernel image that is none.
    Uki(UkiError),
    /// The disk's partition table.
    Disk(GptError),
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Firmware(error) => error.fmt(f),
            Self::Loader(place, error) => write!(f, "boot loader {}: {error}", place + 1),
            Self::Kernel(error) => write!(f, "kernel: {error}"),
            Self::Uki(error) => error.fmt(f),
            Self::Disk(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for BootError {}

/// What a boot is made of.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Firmware and machine.
    pub machine: ovmf::Inputs<'a>,
    /// The beginning of the disk, with its partition table.
    pub disk: Option<&'a [u8]>,
    /// What is booted.
    pub loaded: Loaded<'a>,
}

/// The builds whose boots of disks are known.
fn profiles() -> impl Iterator<Item = Profile> {
    let known = [Generation::Before202505, Generation::From202608];
    PROFILES.into_iter().filter(move |profile| known.contains(&profile.generation))
}

/// Every variant that a boot may be, each with its name and prediction.
///
/// # Errors
/// [`BootError`].
pub fn all(inputs: &Inputs<'_>) -> Result<Vec<(String, Prediction)>, BootError> {
    use StubMeasures::{Nothing, Sections, SectionsAndKernel};
    let stubs: &[(StubMeasures, &str)] = match inputs.loaded {
        Loaded::Chain { grub: None, .. } => &[(Nothing, "")],
        Loaded::Chain { grub: Some(_), .. } => {
            &[(SectionsAndKernel, ", its kernel measures"), (Nothing, ", its kernel measures nothing")]
        }
        Loaded::Uki { .. } => &[
            (Sections, ", its stub measures"),
            (SectionsAndKernel, ", its stub and kernel measure"),
            (Nothing, ", neither stub nor kernel measures"),
        ],
    };
    let mut predictions = Vec::new();
    for (stub, name) in stubs {
        for start in [KernelStart::Firmware, KernelStart::Loader] {
            for profile in profiles() {
                for leaving in [Leaving::AtOnce, Leaving::AtSecondCall] {
                    let variant = Variant { profile, start, stub: *stub, leaving };
                    predictions.push((alloc::format!("{variant}{name}"), boot(inputs, variant)?));
                }
            }
        }
    }
    Ok(predictions)
}

/// The events of a boot.
///
/// # Errors
/// [`BootError`] for inputs that are no such thing; missing ones are no error.
pub fn boot(inputs: &Inputs<'_>, variant: Variant) -> Result<Prediction, BootError> {
    let unknown = |needs| Expectation::Unknown { needs: Cow::Borrowed(needs) };
    let mut prediction = Prediction { events: Vec::new(), silent: vec![Register::Rtmr3] };
    let configured = ovmf::disk_configuration(&mut prediction, &inputs.machine, variant.profile);
    configured.map_err(BootError::Firmware)?;
    if variant.profile.generation == Generation::From202608 {
        authorities(inputs, &mut prediction)?;
    }

    let mut add = |part, expectation| prediction.push(Register::Rtmr1, part, expectation);
    let action = |text: &str| {
        let measured = Expectation::Exactly(Digest384::of(text.as_bytes()));
        (Part::Action(text.to_string()), measured)
    };
    let (part, expectation) = action(ovmf::CALLING);
    add(part, expectation);
    if variant.profile.separator == SeparatorPlace::Rtmr1 {
        add(Part::Separator, Expectation::Exactly(Digest384::of(&[0; 4])));
    }
    let table = match inputs.disk {
        Some(disk) => Expectation::Exactly(Digest384::of(&gpt::measured(disk).map_err(BootError::Disk)?)),
        None => unknown("the disk image"),
    };
    add(Part::PartitionTable, table);
    let (Loaded::Chain { loaders, .. } | Loaded::Uki { loaders, .. }) = inputs.loaded;
    for (place, loader) in loaders.iter().enumerate() {
        let digest = authenticode::sha384(loader).map_err(|error| BootError::Loader(place, error))?;
        add(Part::Image, Expectation::Exactly(digest));
    }
    let kernel = match inputs.loaded {
        Loaded::Chain { kernel: None, .. } => None,
        Loaded::Chain { kernel: Some(kernel), .. } => Some(authenticode::sha384(kernel)),
        Loaded::Uki { image, .. } => {
            let started = image.image().map_err(|error| BootError::Uki(UkiError::Pe(error)))?;
            add(Part::Image, Expectation::Exactly(started));
            Some(image.kernel())
        }
    };
    if variant.start == KernelStart::Firmware {
        match kernel {
            Some(kernel) => add(Part::Image, Expectation::Exactly(kernel.map_err(BootError::Kernel)?)),
            None => add(Part::Image, unknown("the kernel")),
        }
    }
    let failed = (variant.leaving == Leaving::AtSecondCall).then_some(ovmf::NOT_LEFT);
    for text in failed.into_iter().chain(ovmf::LEAVING) {
        let (part, expectation) = action(text);
        add(part, expectation);
    }

    match (inputs.loaded, variant.stub) {
        (Loaded::Chain { loaders, kernel, grub: Some(configuration) }, stub) => {
            for (place, loader) in loaders.iter().enumerate() {
                shim::measure(loader, &mut prediction).map_err(|error| BootError::Loader(place, error))?;
            }
            let measures = match stub {
                StubMeasures::Nothing => grub::Kernel::DoesNotMeasure,
                StubMeasures::Sections | StubMeasures::SectionsAndKernel => grub::Kernel::Measures,
            };
            Grub { configuration, kernel, initrd: inputs.machine.initrd }.measure(measures, &mut prediction);
        }
        (Loaded::Chain { grub: None, .. }, _) => {
            let part = Part::BootLoader("commands".to_string());
            let needs =
                "what the boot loader runs and reads: GRUB's configuration, or the log of a good boot";
            prediction.push(Register::Rtmr2, part, unknown(needs));
        }
        (Loaded::Uki { .. }, StubMeasures::Nothing) => {}
        (Loaded::Uki { image, .. }, StubMeasures::Sections) => image.measure(&mut prediction),
        (Loaded::Uki { image, .. }, StubMeasures::SectionsAndKernel) => {
            image.measure(&mut prediction);
            let line = image
                .command_line()
                .map_or_else(|| unknown("the command line"), |line| linux::given_command_line(&line));
            prediction.push(Register::Rtmr2, Part::CommandLine, line);
            let needs = "what the stub adds to the initrd";
            prediction.push(Register::Rtmr2, Part::Initrd, unknown(needs));
        }
    }
    Ok(prediction)
}

/// The keys by which images start.
fn authorities(inputs: &Inputs<'_>, prediction: &mut Prediction) -> Result<(), BootError> {
    let mut unknown = |needs| {
        let expectation = Expectation::Unknown { needs: Cow::Borrowed(needs) };
        prediction.push(Register::Rtmr0, Part::Authority(String::new()), expectation);
    };
    let Some(store) = ovmf::enrolled(&inputs.machine) else {
        unknown("the firmware image, with a variable store that can be read");
        return Ok(());
    };
    let (true, Loaded::Chain { loaders: [first, others @ ..], kernel, .. }) =
        (store.enforces_secure_boot(), inputs.loaded)
    else {
        unknown("which keys let images start without shim, or where Secure Boot is not enforced");
        return Ok(());
    };
    let database = store.value(Guid::IMAGE_SECURITY_DATABASE, "db");
    let key = secure_boot::authority(database, first).map_err(|error| BootError::Loader(0, error))?;
    let expectation = match key {
        Some(entry) => Expectation::Exactly(variable(Guid::IMAGE_SECURITY_DATABASE, "db", entry.whole)),
        None => Expectation::Unknown {
            needs: Cow::Borrowed("a boot loader signed by a certificate in the firmware's db"),
        },
    };
    prediction.push(Register::Rtmr0, Part::Authority("db".to_string()), expectation);
    let started: Vec<_> = others.iter().copied().map(Some).chain([kernel]).collect();
    shim::authorities(first, &started, database, prediction).map_err(|error| BootError::Loader(0, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::tests::pe_image;

    const NAMES: [(&str, &[u8]); 5] = [
        (".cmdline", b"quiet\0"),
        (".osrel", b"ID=test\n"),
        (".pcrsig", b"{}"),
        (".initrd", b"070701"),
        (".sbat", b"sbat,1\n"),
    ];

    /// A unified kernel image with these sections and the kernel.
    fn uki(kernel: &[u8], more: &[(&str, &[u8])]) -> Vec<u8> {
        let sections: Vec<(&str, &[u8])> = more.iter().copied().chain([(".linux", kernel)]).collect();
        let mut file = pe_image();
        file.truncate(0x400);
        // No certificates.
        file[0x98 + 112 + 32..0x98 + 112 + 40].fill(0);
        file[0x86..0x88].copy_from_slice(&(sections.len() as u16).to_le_bytes());
        let table = 0x98 + 240;
        for (index, (name, contents)) in sections.iter().enumerate() {
            let start = file.len();
            let padded = contents.len().next_multiple_of(0x200);
            file.extend(*contents);
            file.resize(start + padded, 0);
            let entry = &mut file[table + index * 40..table + index * 40 + 40];
            entry.fill(0);
            entry[..name.len()].copy_from_slice(name.as_bytes());
            for (at, value) in [(8, contents.len()), (16, padded), (20, start)] {
                entry[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
            }
        }
        file
    }

    fn of_uki(file: &[u8], variant: Variant) -> Prediction {
        let image = Uki::parse(file).unwrap();
        let loaded = Loaded::Uki { loaders: &[], image: &image };
        boot(&Inputs { machine: ovmf::Inputs::default(), disk: None, loaded }, variant).unwrap()
    }

    fn variant(start: KernelStart, stub: StubMeasures) -> Variant {
        Variant { profile: PROFILES[0], start, stub, leaving: Leaving::AtOnce }
    }

    #[test]
    fn a_unified_kernel_image_measures_its_sections_in_the_stubs_order_without_padding() {
        let kernel = pe_image();
        let file = uki(&kernel, &NAMES);
        let sections = variant(KernelStart::Firmware, StubMeasures::Sections);
        let prediction = of_uki(&file, sections);
        let mut expected = Digest384::ZERO;
        let held: [(&str, &[u8]); 5] = [
            (".linux", &kernel),
            (".osrel", b"ID=test\n"),
            (".cmdline", b"quiet\0"),
            (".initrd", b"070701"),
            (".sbat", b"sbat,1\n"),
        ];
        for (name, contents) in held {
            expected = expected.extended_by(&Digest384::of(&[name.as_bytes(), &[0]].concat()));
            expected = expected.extended_by(&Digest384::of(contents));
        }
        assert_eq!(prediction.value(Register::Rtmr2), Some(expected));
        let images: Vec<_> =
            prediction.of(Register::Rtmr1).filter(|event| event.part == Part::Image).collect();
        let digest = |file: &[u8]| Expectation::Exactly(authenticode::sha384(file).unwrap());
        assert_eq!(images[0].expectation, digest(&file), "the image as a whole");
        assert_eq!(images[1].expectation, digest(&kernel), "and the kernel in it");
        let by_stub = of_uki(&file, variant(KernelStart::Loader, StubMeasures::Nothing));
        assert_eq!(by_stub.of(Register::Rtmr1).filter(|event| event.part == Part::Image).count(), 1);
        assert_eq!(by_stub.value(Register::Rtmr2), Some(Digest384::ZERO));
    }

    #[test]
    fn a_kernel_that_measures_sees_the_line_of_the_image_and_an_initrd_that_nobody_knows() {
        let file = uki(&pe_image(), &NAMES);
        let prediction = of_uki(&file, variant(KernelStart::Loader, StubMeasures::SectionsAndKernel));
        let line = prediction.of(Register::Rtmr2).find(|event| event.part == Part::CommandLine).unwrap();
        let wide: Vec<u8> = "quiet\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(line.expectation.only(), Some(&Digest384::of(&wide)));
        assert_eq!(prediction.value(Register::Rtmr2), None);
        assert!(prediction.values(Register::Rtmr2).is_err());
    }

    #[test]
    fn what_depends_on_the_machine_is_not_predicted() {
        let file = uki(&pe_image(), &[(".profile", b"ID=main"), (".cmdline", b"quiet")]);
        let prediction = of_uki(&file, variant(KernelStart::Firmware, StubMeasures::Sections));
        assert!(prediction.values(Register::Rtmr2).unwrap_err().unwrap().contains(".profile"));
        assert!(prediction.values(Register::Rtmr1).unwrap_err().unwrap().contains("disk"));
        assert!(prediction.values(Register::Rtmr0).is_err());
    }

    /// GCE's Ubuntu with a unified kernel image: the events of RTMR1 are these, in this order.
    #[test]
    #[ignore = "needs recordings"]
    fn a_recorded_boot_of_a_unified_kernel_image_has_the_predicted_events() {
        use crate::eventlog::EventLog;
        let folder = tdvisor_test_data::vectors::folder(tdvisor_test_data::vectors::ATTESTATION);
        let area = std::fs::read(folder.join("eventlogs/ccel-gcp.bin")).expect("the log");
        let log = EventLog::parse(&area).unwrap();
        let logged: Vec<Part> = log
            .events()
            .filter(|event| event.extends() == Some(Register::Rtmr1))
            .map(|event| Part::of(&event))
            .collect();
        let file = uki(&pe_image(), &NAMES);
        let prediction = of_uki(&file, variant(KernelStart::Firmware, StubMeasures::Nothing));
        let predicted: Vec<Part> = prediction.of(Register::Rtmr1).map(|event| event.part.clone()).collect();
        assert_eq!(predicted, logged);
    }

    #[test]
    fn boot_loaders_are_images_in_their_order_and_what_they_run_is_not_guessed() {
        let (shim, mut grub, kernel) = (pe_image(), pe_image(), pe_image());
        grub[0x500] ^= 1;
        let loaders: [&[u8]; 2] = [&shim, &grub];
        let loaded = Loaded::Chain { loaders: &loaders, kernel: Some(&kernel), grub: None };
        let inputs = Inputs { machine: ovmf::Inputs::default(), disk: None, loaded };
        let all = all(&inputs).unwrap();
        assert_eq!(all.len(), 12);
        for (name, prediction) in &all {
            let images = prediction.of(Register::Rtmr1).filter(|event| event.part == Part::Image).count();
            assert_eq!(images, if name.contains("by firmware") { 3 } else { 2 }, "{name}");
            assert!(prediction.values(Register::Rtmr2).is_err(), "{name}");
        }
        let grub = Some(&b"linux /K\nboot\n"[..]);
        let loaded = Loaded::Chain { loaders: &loaders, kernel: Some(&kernel), grub };
        let told = super::all(&Inputs { loaded, ..inputs }).unwrap();
        assert_eq!(told.len(), 24);
        assert!(told.iter().all(|(_, prediction)| prediction.value(Register::Rtmr2).is_some()));
        let broken: [&[u8]; 2] = [&shim, b"no image"];
        let loaded = Loaded::Chain { loaders: &broken, kernel: None, grub: None };
        assert!(matches!(
            super::all(&Inputs { loaded, ..inputs }),
            Err(BootError::Loader(1, authenticode::PeError::NoPe))
        ));
    }

    #[test]
    fn what_is_no_unified_kernel_image_is_said_to_be_none() {
        assert_eq!(Uki::parse(b"text").unwrap_err(), UkiError::Pe(authenticode::PeError::NoPe));
        assert_eq!(Uki::parse(&pe_image()).unwrap_err(), UkiError::NoKernel);
        let twice = uki(&pe_image(), &[(".cmdline", b"a"), (".cmdline", b"b")]);
        assert_eq!(Uki::parse(&twice).unwrap_err(), UkiError::Twice(".cmdline"));
        let whole = uki(&pe_image(), &NAMES);
        for length in (0..whole.len()).step_by(97) {
            assert!(Uki::parse(&whole[..length]).is_err(), "{length}");
        }
    }
}
