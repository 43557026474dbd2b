//! One entry of the log, and the numbers in it.

use core::fmt;

#[cfg(feature = "alloc")]
use super::data::command;
use super::data::{Consistency, EventData, Guid, Section};
use super::header::Header;
use crate::bytes::Cursor;
use td_image::digest::Digest384;

/// Type of an event; unknown numbers are kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventType(pub u32);

macro_rules! event_types {
    ($($(#[$doc:meta])* $name:ident = $value:literal => $text:literal),+ $(,)?) => {
        impl EventType {
            $($(#[$doc])* pub const $name: Self = Self($value);)+

            const fn text(self) -> Option<&'static str> {
                Some(match self.0 {
                    $($value => $text,)+
                    _ => return None,
                })
            }
        }
    };
}

event_types! {
    /// Certificate before boot; with index 0 it is how a log filled with zeros ends.
    PREBOOT_CERT = 0 => "EV_PREBOOT_CERT",
    /// Firmware of the platform.
    POST_CODE = 1 => "EV_POST_CODE",
    /// Information that is not extended.
    NO_ACTION = 3 => "EV_NO_ACTION",
    /// The border between two phases of the boot.
    SEPARATOR = 4 => "EV_SEPARATOR",
    /// A text about something that was done.
    ACTION = 5 => "EV_ACTION",
    /// Data with a tag: Linux's EFI stub uses it for command line and initrd.
    EVENT_TAG = 6 => "EV_EVENT_TAG",
    /// Contents of the root of trust.
    S_CRTM_CONTENTS = 7 => "EV_S_CRTM_CONTENTS",
    /// Version of the root of trust.
    S_CRTM_VERSION = 8 => "EV_S_CRTM_VERSION",
    /// Microcode.
    CPU_MICROCODE = 9 => "EV_CPU_MICROCODE",
    /// Configuration: OVMF's ACPI tables and fw_cfg files, td-shim's TD HOB.
    PLATFORM_CONFIG_FLAGS = 0xa => "EV_PLATFORM_CONFIG_FLAGS",
    /// List of devices.
    TABLE_OF_DEVICES = 0xb => "EV_TABLE_OF_DEVICES",
    /// Hash chosen by the program.
    COMPACT_HASH = 0xc => "EV_COMPACT_HASH",
    /// Boot loader code and configuration: shim's and grub's events.
    IPL = 0xd => "EV_IPL",
    /// Boot loader partition data.
    IPL_PARTITION_DATA = 0xe => "EV_IPL_PARTITION_DATA",
    /// Code outside the host.
    NONHOST_CODE = 0xf => "EV_NONHOST_CODE",
    /// Configuration outside the host.
    NONHOST_CONFIG = 0x10 => "EV_NONHOST_CONFIG",
    /// Information outside the host.
    NONHOST_INFO = 0x11 => "EV_NONHOST_INFO",
    /// Boot device events were left out.
    OMIT_BOOT_DEVICE_EVENTS = 0x12 => "EV_OMIT_BOOT_DEVICE_EVENTS",
    /// A UEFI variable of the secure boot configuration.
    EFI_VARIABLE_DRIVER_CONFIG = 0x8000_0001 => "EV_EFI_VARIABLE_DRIVER_CONFIG",
    /// A UEFI boot variable; the digest is of the variable's data.
    EFI_VARIABLE_BOOT = 0x8000_0002 => "EV_EFI_VARIABLE_BOOT",
    /// A UEFI application, by its Authenticode digest.
    EFI_BOOT_SERVICES_APPLICATION = 0x8000_0003 => "EV_EFI_BOOT_SERVICES_APPLICATION",
    /// A boot service driver.
    EFI_BOOT_SERVICES_DRIVER = 0x8000_0004 => "EV_EFI_BOOT_SERVICES_DRIVER",
    /// A run-time driver.
    EFI_RUNTIME_SERVICES_DRIVER = 0x8000_0005 => "EV_EFI_RUNTIME_SERVICES_DRIVER",
    /// The partition table.
    EFI_GPT_EVENT = 0x8000_0006 => "EV_EFI_GPT_EVENT",
    /// A text about something that UEFI did.
    EFI_ACTION = 0x8000_0007 => "EV_EFI_ACTION",
    /// A range of firmware.
    EFI_PLATFORM_FIRMWARE_BLOB = 0x8000_0008 => "EV_EFI_PLATFORM_FIRMWARE_BLOB",
    /// Tables handed over.
    EFI_HANDOFF_TABLES = 0x8000_0009 => "EV_EFI_HANDOFF_TABLES",
    /// A range of firmware with a description: OVMF's CFV, td-shim's payload.
    EFI_PLATFORM_FIRMWARE_BLOB2 = 0x8000_000a => "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
    /// Tables handed over with a description: OVMF's TD HOB.
    EFI_HANDOFF_TABLES2 = 0x8000_000b => "EV_EFI_HANDOFF_TABLES2",
    /// A UEFI boot variable, name included.
    EFI_VARIABLE_BOOT2 = 0x8000_000c => "EV_EFI_VARIABLE_BOOT2",
    /// The partition table without identifiers.
    EFI_GPT_EVENT2 = 0x8000_000d => "EV_EFI_GPT_EVENT2",
    /// The dynamic root of trust.
    EFI_HCRTM_EVENT = 0x8000_0010 => "EV_EFI_HCRTM_EVENT",
    /// The certificate or hash that allowed an image to start.
    EFI_VARIABLE_AUTHORITY = 0x8000_00e0 => "EV_EFI_VARIABLE_AUTHORITY",
    /// A run-time event of dstack: name, a colon, payload.
    DSTACK_RUNTIME = 0x0800_0001 => "dstack run-time event",
    /// Firmware of a device that answers SPDM.
    EFI_SPDM_FIRMWARE_BLOB = 0x8000_00e1 => "EV_EFI_SPDM_FIRMWARE_BLOB",
    /// Configuration of a device that answers SPDM.
    EFI_SPDM_FIRMWARE_CONFIG = 0x8000_00e2 => "EV_EFI_SPDM_FIRMWARE_CONFIG",
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            Some(text) => f.pad(text),
            None => write!(f, "event type {:#x}", self.0),
        }
    }
}

impl fmt::Debug for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A hash algorithm, as TPM numbers them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AlgorithmId(pub u16);

impl AlgorithmId {
    /// SHA-1.
    pub const SHA1: Self = Self(4);
    /// SHA-256.
    pub const SHA256: Self = Self(0xb);
    /// SHA-384, the one that RTMRs use.
    pub const SHA384: Self = Self(0xc);
    /// SHA-512.
    pub const SHA512: Self = Self(0xd);
    /// SM3-256.
    pub const SM3: Self = Self(0x12);

    /// Bytes of a digest; `None` for an algorithm this crate does not know.
    #[must_use]
    pub const fn digest_bytes(self) -> Option<usize> {
        Some(match self {
            Self::SHA1 => 20,
            Self::SHA256 | Self::SM3 => 32,
            Self::SHA384 => 48,
            Self::SHA512 => 64,
            _ => return None,
        })
    }
}

impl fmt::Display for AlgorithmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::SHA1 => "SHA-1",
            Self::SHA256 => "SHA-256",
            Self::SHA384 => "SHA-384",
            Self::SHA512 => "SHA-512",
            Self::SM3 => "SM3",
            Self(other) => return write!(f, "algorithm {other:#x}"),
        })
    }
}

impl fmt::Debug for AlgorithmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The log's measurement register index: one more than the RTMR's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MrIndex(pub u32);

impl MrIndex {
    /// Whether the index is one of a TPM's PCRs and of no register that a TD can extend.
    #[must_use]
    pub const fn is_of_pcrs(self) -> bool {
        matches!(self.0, 0 | 5..=23)
    }

    /// The register that the index stands for; `None` if there is none.
    #[must_use]
    pub const fn register(self) -> Option<Register> {
        Some(match self.0 {
            0 => Register::Mrtd,
            1 => Register::Rtmr0,
            2 => Register::Rtmr1,
            3 => Register::Rtmr2,
            4 => Register::Rtmr3,
            _ => return None,
        })
    }
}

/// A measurement register of a TD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Register {
    /// The measurement of the build; nothing extends it after that.
    Mrtd,
    /// Firmware's configuration (PCR 1 and 7).
    Rtmr0,
    /// What the firmware started (PCR 2 to 6).
    Rtmr1,
    /// What the boot loader and the kernel's stub started (PCR 8 to 15).
    Rtmr2,
    /// The running system; it keeps no log here.
    Rtmr3,
}

impl Register {
    /// The four that can be extended.
    pub const RTMRS: [Self; 4] = [Self::Rtmr0, Self::Rtmr1, Self::Rtmr2, Self::Rtmr3];

    /// The number of an RTMR; `None` for MRTD.
    #[must_use]
    pub const fn rtmr(self) -> Option<usize> {
        Some(match self {
            Self::Mrtd => return None,
            Self::Rtmr0 => 0,
            Self::Rtmr1 => 1,
            Self::Rtmr2 => 2,
            Self::Rtmr3 => 3,
        })
    }

    /// The index under which a log has the register.
    #[must_use]
    pub const fn index(self) -> MrIndex {
        MrIndex(match self {
            Self::Mrtd => 0,
            Self::Rtmr0 => 1,
            Self::Rtmr1 => 2,
            Self::Rtmr2 => 3,
            Self::Rtmr3 => 4,
        })
    }
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Mrtd => "MRTD",
            Self::Rtmr0 => "RTMR0",
            Self::Rtmr1 => "RTMR1",
            Self::Rtmr2 => "RTMR2",
            Self::Rtmr3 => "RTMR3",
        })
    }
}

/// The digests of one event, whose sizes have been checked.
#[derive(Clone, Copy, Debug)]
pub struct Digests<'a> {
    pub(super) raw: &'a [u8],
    pub(super) header: Header<'a>,
}

impl<'a> Digests<'a> {
    /// Algorithm and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (AlgorithmId, &'a [u8])> + Clone + use<'a> {
        let Self { raw, header } = *self;
        let mut rest = Cursor::new(raw);
        core::iter::from_fn(move || {
            let algorithm = AlgorithmId(rest.u16().ok()?);
            let value = rest.bytes(header.digest_bytes(algorithm)?).ok()?;
            Some((algorithm, value))
        })
    }
}

/// One entry of the log.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Position in the log, from 1; the header is 0.
    pub number: u32,
    /// Offset of the entry in the area, bytes.
    pub offset: usize,
    /// The index of the register that the event extends.
    pub mr: MrIndex,
    /// The event's type.
    pub kind: EventType,
    /// The event's digests, one for each algorithm.
    pub digests: Digests<'a>,
    /// What the log says about it; only its digest is protected by the registers.
    pub raw_data: &'a [u8],
    /// What the event measures of a unified kernel image; [`Section::None`] for all other events.
    pub section: Section,
}

impl<'a> Event<'a> {
    /// The SHA-384 digest, which is what a register was extended with.
    #[must_use]
    pub fn digest(&self) -> Option<Digest384> {
        let (_, value) = self.digests.iter().find(|(algorithm, _)| *algorithm == AlgorithmId::SHA384)?;
        value.try_into().ok().map(Digest384)
    }

    /// The RTMR that the event extends; `None` if it extends none.
    #[must_use]
    pub fn extends(&self) -> Option<Register> {
        let register = self.mr.register().filter(|register| *register != Register::Mrtd)?;
        (self.kind != EventType::NO_ACTION && self.digest().is_some()).then_some(register)
    }

    /// The event's data by its type.
    #[must_use]
    pub fn data(&self) -> EventData<'a> {
        EventData::of(self.kind, self.raw_data)
    }

    /// Whether firmware measures this before the separator of its register and never after it: the Secure Boot
    /// configuration, its own version, the TD HOB and its variable store (TCG PC Client Platform Firmware Profile; edk2
    /// OvmfPkg).
    #[must_use]
    pub fn belongs_before_separator(&self) -> bool {
        match self.kind {
            EventType::EFI_VARIABLE_DRIVER_CONFIG
            | EventType::S_CRTM_CONTENTS
            | EventType::S_CRTM_VERSION => true,
            EventType::EFI_HANDOFF_TABLES2 => {
                matches!(self.data(), EventData::Tables { description, .. } if description.starts_with(b"TdxTable"))
            }
            // td-shim measures its payload into RTMR1, and after the separator.
            EventType::EFI_PLATFORM_FIRMWARE_BLOB | EventType::EFI_PLATFORM_FIRMWARE_BLOB2 => {
                self.mr.register() == Some(Register::Rtmr0)
            }
            _ => false,
        }
    }

    /// Whether a variable of the Secure Boot configuration stands here under a type that is not of the configuration, with
    /// the digest of a variable or of its value.
    #[must_use]
    pub fn is_renamed_variable(&self) -> bool {
        let of_variable = EventType::EFI_VARIABLE_DRIVER_CONFIG;
        let (is_of_boot, is_of_variables) = match self.kind {
            EventType::EFI_VARIABLE_BOOT | EventType::EFI_VARIABLE_BOOT2 => (true, true),
            EventType::EFI_VARIABLE_DRIVER_CONFIG | EventType::EFI_VARIABLE_AUTHORITY => (false, true),
            _ => (false, false),
        };
        let (is_configuration, is_secure_boot) = match EventData::of(of_variable, self.raw_data) {
            EventData::Variable { guid, name, .. } => {
                let of_lists = guid == Guid::IMAGE_SECURITY_DATABASE;
                (guid == Guid::GLOBAL_VARIABLE || of_lists, of_lists || name.is_secure_boot())
            }
            _ => (false, false),
        };
        if is_of_boot {
            return is_secure_boot;
        }
        let digest = self.digest();
        !is_of_variables
            && is_configuration
            && digest.is_some_and(|digest| {
                Consistency::of(of_variable, self.raw_data, &digest) == Consistency::Measured
            })
    }

    /// The text that was measured: all of it, and nothing that is only the log's word. `None` where the log does not have
    /// what was measured, or it is no text.
    #[cfg(feature = "alloc")]
    #[must_use]
    pub fn measured_text(&self) -> Option<alloc::string::String> {
        use super::text::Whole;
        use alloc::string::ToString;
        match (self.consistency(), self.data()) {
            (Consistency::Measured, EventData::Text(text) | EventData::Tagged { data: text, .. }) => {
                Some(Whole(text).to_string())
            }
            (Consistency::Measured, EventData::WideText(text)) => Some(text.to_string()),
            (Consistency::Measured, EventData::Runtime { .. }) => Some(Whole(self.raw_data).to_string()),
            (Consistency::ValueMeasured, EventData::Text(text)) => Some(Whole(command(text)?).to_string()),
            (Consistency::ValueMeasured, EventData::Tagged { data: text, .. }) => {
                Some(Whole(text).to_string())
            }
            _ => None,
        }
    }

    /// Whether the digest is a hash of the data.
    #[must_use]
    pub fn consistency(&self) -> Consistency {
        match self.digest() {
            // Whose contents they are, the event before says.
            Some(_) if self.section == Section::Contents => Consistency::NotInLog,
            Some(digest) => Consistency::of(self.kind, self.raw_data, &digest),
            None => Consistency::NotInLog,
        }
    }
}
