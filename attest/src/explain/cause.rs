//! The likely cause of a difference.

use alloc::vec::Vec;
use core::fmt;

use super::{Line, Standing};
use crate::eventlog::Register;
use crate::predict::{Expectation, Part};
use td_image::digest::Digest384;

/// Why an event is not the predicted one, as far as its kind tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The TD HOB: memory size, or the firmware's sections.
    MemorySize,
    /// The CFV: another firmware build, or changed variables.
    VariableStore,
    /// SecureBoot, PK, KEK, db, dbx, or an authority.
    SecureBoot,
    /// The ACPI blobs: vCPU count, devices, QEMU's version.
    Acpi,
    /// The SMBIOS tables: firmware's version, or the machine's names.
    Smbios,
    /// A fw_cfg file.
    FirmwareConfig,
    /// BootOrder or Boot####.
    BootVariables,
    /// The kernel: the only image that firmware started.
    Kernel,
    /// A boot loader or a kernel that it started.
    BootLoaderImage,
    /// The command line.
    CommandLine,
    /// The initrd.
    Initrd,
    /// The partition table.
    PartitionTable,
    /// Commands or files of a boot loader.
    BootLoaderConfiguration,
    /// A separator was extended into another register.
    SeparatorMoved {
        /// Where the log has it.
        to: Register,
    },
    /// The event is in another register.
    Moved {
        /// Where the log has it.
        to: Register,
    },
    /// The event is at another place of its register.
    OrderChanged,
    /// A separator that signals an error, or one more or less.
    Separator,
    /// The boot took another way: boot option, boot loader, or an aborted start.
    BootPath,
    /// A section of a unified kernel image that is not the predicted one was measured.
    ImageSection,
    /// td-shim's payload.
    Payload,
    /// The parameters of td-shim's payload.
    PayloadParameters,
    /// The running system.
    Runtime,
    /// Nothing known.
    Unknown,
}

impl Cause {
    /// The name that scripts see.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::MemorySize => "memory-size-differs",
            Self::VariableStore => "variable-store-differs",
            Self::SecureBoot => "secure-boot-differs",
            Self::Acpi => "acpi-differs",
            Self::Smbios => "smbios-differs",
            Self::FirmwareConfig => "fw-cfg-differs",
            Self::BootVariables => "boot-variables-differ",
            Self::Kernel => "kernel-differs",
            Self::BootLoaderImage => "boot-image-differs",
            Self::CommandLine => "command-line-differs",
            Self::Initrd => "initrd-differs",
            Self::PartitionTable => "partition-table-differs",
            Self::BootLoaderConfiguration => "boot-loader-configuration-differs",
            Self::SeparatorMoved { .. } => "separator-moved",
            Self::Moved { .. } => "event-moved",
            Self::OrderChanged => "order-changed",
            Self::Separator => "separator-differs",
            Self::BootPath => "boot-path-differs",
            Self::ImageSection => "image-section-differs",
            Self::Payload => "payload-differs",
            Self::PayloadParameters => "payload-parameters-differ",
            Self::Runtime => "runtime-event-differs",
            Self::Unknown => "unknown",
        }
    }

    /// What a person can check first.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::MemorySize => "compare the machine's memory size and the firmware build",
            Self::VariableStore => "compare the firmware image: its CFV section is measured as it is",
            Self::SecureBoot => "compare the enrolled Secure Boot keys and whether it is on",
            Self::Acpi => "compare vCPU count, devices and QEMU version, and dump etc/acpi/tables again",
            Self::Smbios => "compare firmware versions and what the host says of the machine",
            Self::FirmwareConfig => "compare the boot devices and the boot menu option",
            Self::BootVariables => "compare boot order and boot devices",
            Self::Kernel => "compare the kernel file; QEMU before 10.2 also writes into its header",
            Self::BootLoaderImage => "compare shim, grub and kernel on the disk",
            Self::CommandLine => "compare the command line character by character, initrd= included",
            Self::Initrd => "compare the initrd file",
            Self::PartitionTable => "compare the disk image's partition table",
            Self::BootLoaderConfiguration => "compare grub.cfg and the files it names",
            Self::SeparatorMoved { .. } => "predict with the profile of this OVMF build",
            Self::Moved { .. } => "another firmware or boot loader measures into another register",
            Self::OrderChanged => "the same parts were started in another order",
            Self::Separator => "an error separator means that the firmware failed to boot",
            Self::BootPath => "the firmware tried another boot option, or a boot failed before",
            Self::ImageSection => "compare the unified kernel image section by section",
            Self::Payload => "compare the payload file",
            Self::PayloadParameters => "compare the payload's command line",
            Self::Runtime => "compare the application's own list",
            Self::Unknown => "compare what made this event",
        }
    }

    fn of(part: &Part, images: Images) -> Self {
        match part {
            Part::TdHob => Self::MemorySize,
            Part::Smbios => Self::Smbios,
            Part::VariableStore => Self::VariableStore,
            Part::SecureBootVariable(_) | Part::Authority(_) => Self::SecureBoot,
            Part::Separator => Self::Separator,
            Part::Acpi => Self::Acpi,
            Part::FirmwareConfig(_) => Self::FirmwareConfig,
            Part::BootVariable(_) => Self::BootVariables,
            Part::Image => match images {
                Images::Kernel => Self::Kernel,
                Images::Chain => Self::BootLoaderImage,
            },
            Part::Action(_) => Self::BootPath,
            Part::PartitionTable => Self::PartitionTable,
            Part::BootLoader(_) => Self::BootLoaderConfiguration,
            Part::Kernel => Self::Kernel,
            Part::CommandLine => Self::CommandLine,
            Part::Initrd => Self::Initrd,
            Part::Section(name) | Part::SectionName(name) => match name.as_str() {
                ".linux" => Self::Kernel,
                ".initrd" => Self::Initrd,
                ".cmdline" => Self::CommandLine,
                _ => Self::ImageSection,
            },
            Part::Payload => Self::Payload,
            Part::PayloadParameters => Self::PayloadParameters,
            Part::Runtime(_) => Self::Runtime,
            Part::Other(_) => Self::Unknown,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MemorySize => "memory size or firmware sections differ",
            Self::VariableStore => "variable store differs: another firmware build, or changed variables",
            Self::SecureBoot => "Secure Boot configuration differs",
            Self::Acpi => "vCPU count or ACPI differs",
            Self::Smbios => "SMBIOS tables differ: firmware version or machine",
            Self::FirmwareConfig => "fw_cfg differs",
            Self::BootVariables => "boot order or boot options differ",
            Self::Kernel => "kernel differs",
            Self::BootLoaderImage => "boot loader or kernel image differs",
            Self::CommandLine => "command line differs",
            Self::Initrd => "initrd differs",
            Self::PartitionTable => "partition table differs",
            Self::BootLoaderConfiguration => "boot loader configuration differs",
            Self::SeparatorMoved { to } => return write!(f, "separator moved to {to}"),
            Self::Moved { to } => return write!(f, "event moved to {to}"),
            Self::OrderChanged => "order of events changed",
            Self::Separator => "separator differs",
            Self::BootPath => "boot took another way",
            Self::ImageSection => "section of the unified kernel image differs",
            Self::Payload => "payload differs",
            Self::PayloadParameters => "payload parameters differ",
            Self::Runtime => "run-time event differs",
            Self::Unknown => "cause unknown",
        })
    }
}

/// What tells that an event on one side is an event of the other.
struct Lone {
    line: usize,
    register: Register,
    part: Part,
    digests: Vec<Digest384>,
    in_log: bool,
}

/// Gives every difference its cause: first what moved, then by what the event measures.
pub(super) fn assign(lines: &mut [Line]) {
    for (line, cause) in moved(lines) {
        if let Some(line) = lines.get_mut(line) {
            line.cause = Some(cause);
        }
    }
    let images = Register::RTMRS.map(|register| images_of(lines, register));
    for line in lines.iter_mut().filter(|line| line.standing.is_difference() && line.cause.is_none()) {
        let part = match (&line.logged, &line.predicted) {
            (Some(event), _) => &event.part,
            (None, Some(predicted)) => &predicted.part,
            (None, None) => continue,
        };
        let images = line.register.rtmr().and_then(|number| images.get(number));
        line.cause = Some(Cause::of(part, images.copied().unwrap_or(Images::Chain)));
    }
}

/// Which images a register has seen.
#[derive(Clone, Copy)]
enum Images {
    /// One on either side: a kernel that firmware started itself.
    Kernel,
    /// Several: shim, grub, kernel.
    Chain,
}

fn images_of(lines: &[Line], register: Register) -> Images {
    let of = |part: Option<&Part>| usize::from(part == Some(&Part::Image));
    let count = |side: fn(&Line) -> Option<&Part>| -> usize {
        lines.iter().filter(|line| line.register == register).map(|line| of(side(line))).sum()
    };
    let logged = count(|line| line.logged.as_ref().map(|event| &event.part));
    let predicted = count(|line| line.predicted.as_ref().map(|event| &event.part));
    if logged.max(predicted) > 1 { Images::Chain } else { Images::Kernel }
}

fn moved(lines: &[Line]) -> Vec<(usize, Cause)> {
    let mut lone: Vec<Lone> = lines
        .iter()
        .enumerate()
        .filter_map(|(index, line)| match (line.standing, &line.logged, &line.predicted) {
            (Standing::OnlyInLog, Some(event), _) => Some(Lone {
                line: index,
                register: line.register,
                part: event.part.clone(),
                digests: alloc::vec![event.digest],
                in_log: true,
            }),
            (Standing::OnlyPredicted, _, Some(predicted)) => Some(Lone {
                line: index,
                register: line.register,
                part: predicted.part.clone(),
                digests: match &predicted.expectation {
                    Expectation::Exactly(digest) => alloc::vec![*digest],
                    Expectation::OneOf(list) => list.iter().map(|one| one.digest).collect(),
                    Expectation::Unknown { .. } => Vec::new(),
                },
                in_log: false,
            }),
            _ => None,
        })
        .collect();
    let mut causes = Vec::new();
    while let Some(one) = lone.pop() {
        let twin = lone.iter().position(|other| {
            other.in_log != one.in_log
                && other.part == one.part
                && other.digests.iter().any(|digest| one.digests.contains(digest))
        });
        let Some(twin) = twin.map(|at| lone.swap_remove(at)) else { continue };
        let to = if one.in_log { one.register } else { twin.register };
        let cause = match (one.register == twin.register, &one.part) {
            (true, _) => Cause::OrderChanged,
            (false, Part::Separator) => Cause::SeparatorMoved { to },
            (false, _) => Cause::Moved { to },
        };
        causes.push((one.line, cause));
        causes.push((twin.line, cause));
    }
    causes
}
