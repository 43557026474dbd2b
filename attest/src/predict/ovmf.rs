//! OVMF with QEMU's direct kernel boot.
//!
//! RTMR0: TD HOB, variable store, Secure Boot variables, separator, the three ACPI blobs, boot variables.
//! RTMR1: kernel, "Calling EFI Application", separator, the two ExitBootServices texts.
//! RTMR2: command line and initrd, by Linux's EFI stub from 6.9 on (recorded logs; edk2 OvmfPkg).
//!
//! Builds differ in the number of boot variables and in the register of the second separator; a [`Profile`]
//! names the build, and [`PROFILES`] lists those that are known.

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use super::linux::{self, KernelError, Machine};
use super::smbios;
use super::variable_store::VariableStore;
use super::variables::{device_option, firmware_file_option, variable};
use super::{Alternative, Expectation, Part, Prediction};
use crate::eventlog::{Guid, Register};
use td_image::digest::Digest384;
use td_image::td_hob::{self, Acceptance, HobDialect};
use td_image::tdvf::{SectionKind, TdvfImage};

/// 7cb8bdc9-f8eb-4f34-aaea-3ee4af6516a1, OVMF's main firmware volume.
const MAIN_VOLUME: Guid =
    Guid([0xc9, 0xbd, 0xb8, 0x7c, 0xeb, 0xf8, 0x34, 0x4f, 0xaa, 0xea, 0x3e, 0xe4, 0xaf, 0x65, 0x16, 0xa1]);
/// 462caa21-7614-4503-836e-8ab6f4662331, edk2's UiApp.
const UI_APP: Guid =
    Guid([0x21, 0xaa, 0x2c, 0x46, 0x14, 0x76, 0x03, 0x45, 0x83, 0x6e, 0x8a, 0xb6, 0xf4, 0x66, 0x23, 0x31]);
/// eec25bdc-67f2-4d95-b1d5-f81b2039d11d, edk2's BootManagerMenuApp.
const BOOT_MANAGER_MENU: Guid =
    Guid([0xdc, 0x5b, 0xc2, 0xee, 0xf2, 0x67, 0x95, 0x4d, 0xb1, 0xd5, 0xf8, 0x1b, 0x20, 0x39, 0xd1, 0x1d]);
/// LOAD_OPTION_ACTIVE and the category "application".
const APPLICATION: u32 = 0x101;
const HIDDEN: u32 = 8;
/// What QEMU lists when it boots a kernel directly: its own option ROM.
const BOOT_ORDER_FILE: &[u8] = b"/rom@genroms/linuxboot_dma.bin\0";

/// fw_cfg's item that asks for a boot menu: nobody does.
const NO_BOOT_MENU: [u8; 2] = [0, 0];

/// Which events a build makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Generation {
    /// Before edk2-stable202505.
    Before202505,
    /// From edk2-stable202505 on: fw_cfg files are measured, and there is a second boot option.
    From202505,
    /// As edk2-stable202608 does it for a kernel of its host's: the SMBIOS tables are measured, and there is one boot option.
    From202608,
    /// None at all.
    Unmeasured,
}

/// Where a build extends the separator that closes the boot of RTMR1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SeparatorPlace {
    /// RTMR1, where it belongs.
    Rtmr1,
    /// RTMR0, as some builds did.
    Rtmr0,
}

/// A kind of OVMF build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Profile {
    /// The profile's name on the command line.
    pub name: &'static str,
    /// Which events firmware of this profile measures.
    pub generation: Generation,
    /// Where firmware of this profile has a second separator.
    pub separator: SeparatorPlace,
}

/// The builds that are known.
pub const PROFILES: [Profile; 4] = [
    Profile { name: "ovmf", generation: Generation::Before202505, separator: SeparatorPlace::Rtmr1 },
    Profile {
        name: "ovmf-separator-rtmr0",
        generation: Generation::Before202505,
        separator: SeparatorPlace::Rtmr0,
    },
    Profile { name: "ovmf-202505", generation: Generation::From202505, separator: SeparatorPlace::Rtmr1 },
    Profile { name: "ovmf-202608", generation: Generation::From202608, separator: SeparatorPlace::Rtmr1 },
];

/// A build without UEFI's measurement protocol for confidential computing, such as Debian's of 2022.11: it leaves RTMR0 and
/// RTMR1 zero, and a kernel that asks it to measure finds nobody. No reference value of such a build says anything about
/// what it started.
pub const UNMEASURED: Profile = Profile {
    name: "ovmf-without-measurement",
    generation: Generation::Unmeasured,
    separator: SeparatorPlace::Rtmr1,
};

/// What firmware measures before it starts something.
pub(super) const CALLING: &str = "Calling EFI Application from Boot Option";
/// What firmware measures when the system wants to take over and has an old map of memory: it tries again.
pub(super) const NOT_LEFT: &str = "Exit Boot Services Returned with Failure";
/// What firmware measures when the system takes over.
pub(super) const LEAVING: [&str; 2] =
    ["Exit Boot Services Invocation", "Exit Boot Services Returned with Success"];

/// What a boot is made of. What is not given stays unknown in the prediction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inputs<'a> {
    /// The firmware.
    pub firmware: Option<TdvfImage<'a>>,
    /// Memory of the machine, bytes.
    pub memory: Option<u64>,
    /// fw_cfg's etc/table-loader.
    pub acpi_loader: Option<&'a [u8]>,
    /// fw_cfg's etc/acpi/rsdp.
    pub acpi_rsdp: Option<&'a [u8]>,
    /// fw_cfg's etc/acpi/tables.
    pub acpi_tables: Option<&'a [u8]>,
    /// The SMBIOS tables that firmware publishes on this machine: its own versions are in them.
    pub smbios: Option<&'a [u8]>,
    /// The device number on the first PCI bus of the disk that the machine names first in fw_cfg's `bootorder`, where firmware finds
    /// nothing else to boot from. Of use where a disk is booted.
    pub boot_disk: Option<u8>,
    /// The kernel.
    pub kernel: Option<&'a [u8]>,
    /// The initrd.
    pub initrd: Option<&'a [u8]>,
    /// The command line.
    pub command_line: Option<&'a str>,
}

/// Why nothing can be predicted from the inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InputError {
    /// The kernel.
    Kernel(KernelError),
    /// The TD HOB.
    TdHob(td_hob::HobTooLarge),
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(error) => write!(f, "kernel: {error}"),
            Self::TdHob(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for InputError {}

fn unknown(needs: &'static str) -> Expectation {
    Expectation::Unknown { needs: Cow::Borrowed(needs) }
}

/// The events of a direct boot.
///
/// # Errors
/// [`InputError`] for inputs that are no such thing; missing ones are no error.
pub fn direct_boot(inputs: &Inputs<'_>, profile: Profile) -> Result<Prediction, InputError> {
    let mut prediction = Prediction { events: Vec::new(), silent: vec![Register::Rtmr3] };
    if profile.generation == Generation::Unmeasured {
        return Ok(prediction);
    }
    configuration(&mut prediction, inputs, profile)?;
    started(&mut prediction, inputs, profile)?;
    if inputs.kernel.is_none() && inputs.command_line.is_none() && inputs.initrd.is_none() {
        prediction.silent.push(Register::Rtmr2);
        return Ok(prediction);
    }
    let command_line = inputs.command_line.map_or_else(|| unknown("the command line"), linux::command_line);
    prediction.push(Register::Rtmr2, Part::CommandLine, command_line);
    if let Some(initrd) = inputs.initrd {
        prediction.push(Register::Rtmr2, Part::Initrd, Expectation::Exactly(Digest384::of(initrd)));
    }
    Ok(prediction)
}

fn published(smbios: Option<&[u8]>) -> Expectation {
    match smbios.map(smbios::measured) {
        Some(Some(tables)) => Expectation::Exactly(Digest384::of(&tables)),
        Some(None) => unknown(
            "SMBIOS tables with structures of types 0, 1 and 127 alone, without serial number and UUID",
        ),
        None => unknown("the SMBIOS tables"),
    }
}

/// The option that starts edk2's boot menu.
fn boot_menu() -> Vec<u8> {
    firmware_file_option(APPLICATION | HIDDEN, "BootManagerMenuApp", MAIN_VOLUME, BOOT_MANAGER_MENU)
}

fn separator() -> Expectation {
    Expectation::Exactly(Digest384::of(&[0; 4]))
}

/// RTMR0 of a build that boots a disk, up to its boot variables and with them, where they are known.
pub(super) fn disk_configuration(
    prediction: &mut Prediction,
    inputs: &Inputs<'_>,
    profile: Profile,
) -> Result<(), InputError> {
    const NEEDS: &str = "the boot variables of the machine, which name its disk";
    let is_new = profile.generation == Generation::From202608;
    let order = inputs.boot_disk.map_or_else(
        || unknown(NEEDS),
        |device| Expectation::Exactly(Digest384::of(boot_order_of_disk(device).as_bytes())),
    );
    let menu = Expectation::Exactly(Digest384::of(&NO_BOOT_MENU));
    let files = [("BootMenu", menu), ("bootorder", order)];
    firmware(prediction, inputs, if is_new { &files } else { &[] })?;
    let mut add = |part, expectation| prediction.push(Register::Rtmr0, part, expectation);
    let boot = |name: &str| Part::BootVariable(name.to_string());
    if is_new {
        add(Part::Smbios, published(inputs.smbios));
    }
    let Some(device) = inputs.boot_disk.filter(|_| is_new) else {
        add(boot("BootOrder"), unknown(NEEDS));
        return Ok(());
    };
    let exactly = |bytes: &[u8]| Expectation::Exactly(Digest384::of(bytes));
    add(boot("BootOrder"), exactly(&[1, 0, 0, 0]));
    add(boot("Boot0001"), exactly(&device_option("UEFI Misc Device", device)));
    add(boot("Boot0000"), exactly(&boot_menu()));
    Ok(())
}

/// fw_cfg's `bootorder` where a disk behind a virtio function comes first: its Open Firmware path.
fn boot_order_of_disk(device: u8) -> String {
    alloc::format!("/pci@i0cf8/scsi@{device:x}/disk@0,0\0")
}

/// The variable store of the firmware: `None` where there is no firmware, or none with a store that can be read.
pub(super) fn enrolled<'a>(inputs: &Inputs<'a>) -> Option<VariableStore<'a>> {
    variable_store(inputs).and_then(VariableStore::of)
}

fn variable_store<'a>(inputs: &Inputs<'a>) -> Option<&'a [u8]> {
    let firmware = inputs.firmware?;
    let cfv = firmware.sections().find(|section| section.kind == SectionKind::CFV)?;
    Some(firmware.raw(&cfv))
}

/// The TD HOB, the variable store, these files of fw_cfg, the Secure Boot configuration, and ACPI.
fn firmware(
    prediction: &mut Prediction,
    inputs: &Inputs<'_>,
    files: &[(&str, Expectation)],
) -> Result<(), InputError> {
    let mut add = |part, expectation| prediction.push(Register::Rtmr0, part, expectation);
    add(Part::TdHob, hob(inputs).map_err(InputError::TdHob)?);
    let store = variable_store(inputs);
    add(Part::VariableStore, Expectation::of_optional(store, "the firmware image"));
    for (name, contents) in files {
        add(Part::FirmwareConfig((*name).to_string()), contents.clone());
    }
    let enrolled = store.map(VariableStore::of);
    add(Part::SecureBootVariable("SecureBoot".to_string()), secure_boot(enrolled));
    for (name, vendor) in [
        ("PK", Guid::GLOBAL_VARIABLE),
        ("KEK", Guid::GLOBAL_VARIABLE),
        ("db", Guid::IMAGE_SECURITY_DATABASE),
        ("dbx", Guid::IMAGE_SECURITY_DATABASE),
    ] {
        let value = match enrolled {
            // Whose keys nobody knows are expected to be none.
            None => Expectation::Exactly(variable(vendor, name, &[])),
            Some(Some(store)) => Expectation::Exactly(variable(vendor, name, store.value(vendor, name))),
            Some(None) => unknown("a variable store in the firmware image that can be read"),
        };
        add(Part::SecureBootVariable(name.to_string()), value);
    }
    add(Part::Separator, separator());
    for (bytes, needs) in [
        (inputs.acpi_loader, "etc/table-loader"),
        (inputs.acpi_rsdp, "etc/acpi/rsdp"),
        (inputs.acpi_tables, "etc/acpi/tables"),
    ] {
        add(Part::Acpi, Expectation::of_optional(bytes, needs));
    }
    Ok(())
}

fn configuration(
    prediction: &mut Prediction,
    inputs: &Inputs<'_>,
    profile: Profile,
) -> Result<(), InputError> {
    let exactly = |bytes: &[u8]| Expectation::Exactly(Digest384::of(bytes));
    let files = [("BootMenu", exactly(&NO_BOOT_MENU)), ("bootorder", exactly(BOOT_ORDER_FILE))];
    let files: &[(&str, Expectation)] = match profile.generation {
        Generation::From202505 | Generation::From202608 => &files,
        Generation::Before202505 | Generation::Unmeasured => &[],
    };
    firmware(prediction, inputs, files)?;
    let mut add = |part, expectation| prediction.push(Register::Rtmr0, part, expectation);
    let boot = |name: &str| Part::BootVariable(name.to_string());
    match profile.generation {
        Generation::Unmeasured => {}
        Generation::From202608 => {
            add(Part::Smbios, published(inputs.smbios));
            add(boot("BootOrder"), exactly(&[0, 0]));
            add(boot("Boot0000"), exactly(&boot_menu()));
        }
        Generation::Before202505 => {
            let ui_app = firmware_file_option(APPLICATION | HIDDEN, "UiApp", MAIN_VOLUME, UI_APP);
            add(boot("BootOrder"), exactly(&[0, 0]));
            add(boot("Boot0000"), exactly(&ui_app));
        }
        Generation::From202505 => {
            let setup = firmware_file_option(APPLICATION, "EFI Firmware Setup", MAIN_VOLUME, UI_APP);
            add(Part::Authority(alloc::string::String::new()), unknown("the firmware's own authority event"));
            add(boot("BootOrder"), exactly(&[0, 0, 1, 0]));
            add(boot("Boot0000"), exactly(&boot_menu()));
            add(boot("Boot0001"), exactly(&setup));
        }
    }
    if profile.separator == SeparatorPlace::Rtmr0 {
        add(Part::Separator, separator());
    }
    Ok(())
}

fn started(prediction: &mut Prediction, inputs: &Inputs<'_>, profile: Profile) -> Result<(), InputError> {
    let mut add = |part, expectation| prediction.push(Register::Rtmr1, part, expectation);
    let machine = inputs.memory.and_then(|memory| {
        let initrd = u32::try_from(inputs.initrd.map_or(0, <[u8]>::len)).ok()?;
        Some(Machine { memory, initrd })
    });
    let kernel = match inputs.kernel {
        Some(image) => linux::kernel(image, machine).map_err(InputError::Kernel)?,
        None => unknown("the kernel"),
    };
    add(Part::Image, kernel);
    let action =
        |text: &str| (Part::Action(text.to_string()), Expectation::Exactly(Digest384::of(text.as_bytes())));
    let (part, expectation) = action(CALLING);
    add(part, expectation);
    if profile.separator == SeparatorPlace::Rtmr1 {
        add(Part::Separator, separator());
    }
    for text in LEAVING {
        let (part, expectation) = action(text);
        add(part, expectation);
    }
    Ok(())
}

fn hob(inputs: &Inputs<'_>) -> Result<Expectation, td_hob::HobTooLarge> {
    let (Some(firmware), Some(memory)) = (inputs.firmware, inputs.memory) else {
        return Ok(unknown("the firmware image and the machine's memory size"));
    };
    let mut alternatives = Vec::new();
    let mut add = |when: &'static str, ram: &[td_hob::MemoryRange], dialect| {
        if let Some(list) = td_hob::list(&firmware, ram, dialect) {
            let when = Cow::Borrowed(when);
            alternatives.push(Alternative { when, digest: Digest384::of(td_hob::measured_part(&list?)) });
        }
        Ok(())
    };
    add("QEMU", &td_hob::qemu_ram(memory), HobDialect::Qemu)?;
    let gce = td_hob::gce_ram(memory);
    add("Google Compute Engine", &gce, HobDialect::Gce { acceptance: Acceptance::Lazy })?;
    add("Google Compute Engine, early acceptance", &gce, HobDialect::Gce { acceptance: Acceptance::Early })?;
    Ok(Expectation::OneOf(alternatives))
}

/// What SecureBoot may be. The variable store says it where it is known; whether the build has Secure Boot at all, nothing.
fn secure_boot(enrolled: Option<Option<VariableStore<'_>>>) -> Expectation {
    let of = |value: &[u8]| variable(Guid::GLOBAL_VARIABLE, "SecureBoot", value);
    let none = || Alternative { when: Cow::Borrowed("no Secure Boot in the build"), digest: of(&[]) };
    let off = || Alternative { when: Cow::Borrowed("Secure Boot off"), digest: of(&[0]) };
    let on = || Alternative { when: Cow::Borrowed("Secure Boot on"), digest: of(&[1]) };
    match enrolled {
        Some(None) => unknown("a variable store in the firmware image that can be read"),
        Some(Some(store)) if store.enforces_secure_boot() => Expectation::OneOf(vec![none(), on()]),
        Some(Some(_)) => Expectation::OneOf(vec![none(), off()]),
        None => Expectation::OneOf(vec![none(), off(), on()]),
    }
}
