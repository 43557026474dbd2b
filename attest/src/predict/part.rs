//! What an event measures: the name under which a log's event and a predicted one are the same thing.

use alloc::string::{String, ToString};
use core::fmt;

use crate::eventlog::{Event, EventData, EventType, Printable, Section};

/// A part of the boot that an event measures.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Part {
    /// The TD HOB.
    TdHob,
    /// The SMBIOS tables.
    Smbios,
    /// The variable store (CFV) of the firmware image.
    VariableStore,
    /// A variable of the Secure Boot configuration.
    SecureBootVariable(String),
    /// The certificate or list that allowed an image to start.
    Authority(String),
    /// A separator.
    Separator,
    /// One of the ACPI blobs of fw_cfg.
    Acpi,
    /// A file of fw_cfg that none of the other parts is.
    FirmwareConfig(String),
    /// A boot variable.
    BootVariable(String),
    /// A UEFI image: the kernel, or a boot loader.
    Image,
    /// A text about what the firmware did.
    Action(String),
    /// The partition table.
    PartitionTable,
    /// A boot loader's command or file.
    BootLoader(String),
    /// The kernel file, as the boot shim measures it: whole.
    Kernel,
    /// The command line of the kernel.
    CommandLine,
    /// The initrd of the kernel.
    Initrd,
    /// The name of a section of a unified kernel image, measured before its contents.
    SectionName(String),
    /// What a section of a unified kernel image holds.
    Section(String),
    /// td-shim's payload.
    Payload,
    /// The parameters of td-shim's payload.
    PayloadParameters,
    /// An extension made by the running system.
    Runtime(String),
    /// Anything else.
    Other(String),
}

/// Whether hand-off tables are those of SMBIOS: one pointer, whose table's GUID is that of SMBIOS 2 or 3 (UEFI 2.10,
/// "EFI Configuration Table").
fn is_smbios(data: &[u8]) -> bool {
    const SMBIOS_3: [u8; 16] =
        [0x44, 0x15, 0xfd, 0xf2, 0x94, 0x97, 0x2c, 0x4a, 0x99, 0x2e, 0xe5, 0xbb, 0xcf, 0x20, 0xe3, 0x94];
    const SMBIOS_2: [u8; 16] =
        [0x31, 0x2d, 0x9d, 0xeb, 0x88, 0x2d, 0xd3, 0x11, 0x9a, 0x16, 0x00, 0x90, 0x27, 0x3f, 0xc1, 0x4d];
    data.get(8..24).is_some_and(|guid| guid == SMBIOS_3 || guid == SMBIOS_2)
}

impl Part {
    /// The configuration of GRUB, wherever it lies.
    pub(crate) fn grub_configuration() -> Self {
        Self::BootLoader("grub.cfg".to_string())
    }

    /// What an event of a log measures.
    #[must_use]
    pub fn of(event: &Event<'_>) -> Self {
        match (event.kind, event.data()) {
            (EventType::SEPARATOR, _) => Self::Separator,
            (EventType::EFI_HANDOFF_TABLES, _) if is_smbios(event.raw_data) => Self::Smbios,
            (EventType::EFI_HANDOFF_TABLES | EventType::EFI_HANDOFF_TABLES2, _)
            | (_, EventData::Named { name: b"td_hob", .. }) => Self::TdHob,
            (_, EventData::Named { name: b"td_payload_info", .. }) => Self::PayloadParameters,
            (_, EventData::Blob { description, .. }) if description.starts_with(b"td_payload") => {
                Self::Payload
            }
            (EventType::EFI_PLATFORM_FIRMWARE_BLOB | EventType::EFI_PLATFORM_FIRMWARE_BLOB2, _) => {
                Self::VariableStore
            }
            (EventType::EFI_VARIABLE_DRIVER_CONFIG, EventData::Variable { name, .. }) => {
                Self::SecureBootVariable(name.to_string())
            }
            (EventType::EFI_VARIABLE_AUTHORITY, EventData::Variable { name, .. }) => {
                Self::Authority(name.to_string())
            }
            (EventType::EFI_VARIABLE_AUTHORITY, _) => Self::Authority(String::new()),
            (
                EventType::EFI_VARIABLE_BOOT | EventType::EFI_VARIABLE_BOOT2,
                EventData::Variable { name, .. },
            ) => Self::BootVariable(name.to_string()),
            (EventType::PLATFORM_CONFIG_FLAGS, EventData::Text(b"ACPI DATA")) => Self::Acpi,
            (EventType::PLATFORM_CONFIG_FLAGS, EventData::Text(name)) => {
                Self::FirmwareConfig(Printable(name).to_string())
            }
            (kind, _) if kind.is_image() => Self::Image,
            (EventType::EFI_ACTION | EventType::ACTION, EventData::Text(text)) => {
                Self::Action(Printable(text).to_string())
            }
            (EventType::EFI_GPT_EVENT | EventType::EFI_GPT_EVENT2, _) => Self::PartitionTable,
            (EventType::EVENT_TAG, EventData::Tagged { id: EventData::TAG_LOAD_OPTIONS, .. }) => {
                Self::CommandLine
            }
            (EventType::EVENT_TAG, EventData::Tagged { id: EventData::TAG_INITRD, .. }) => Self::Initrd,
            (EventType::EVENT_TAG, EventData::Text(b"LOADED_IMAGE::LoadOptions")) => Self::CommandLine,
            (EventType::EVENT_TAG, EventData::Text(b"Linux initrd")) => Self::Initrd,
            (EventType::IPL, EventData::WideText(text)) => match event.section {
                Section::Name => Self::SectionName(text.to_string()),
                Section::Contents => Self::Section(text.to_string()),
                Section::None => Self::BootLoader(text.to_string()),
            },
            (EventType::DSTACK_RUNTIME, EventData::Runtime { name, .. }) => {
                Self::Runtime(Printable(name).to_string())
            }
            (EventType::IPL, EventData::Text(b"kernel")) => Self::Kernel,
            (EventType::IPL, EventData::Text(b"initrd")) => Self::Initrd,
            // grub and the boot shim write it alike.
            (EventType::IPL, EventData::Text(text)) if text.starts_with(b"kernel_cmdline: ") => {
                Self::CommandLine
            }
            // GRUB names the device and the folder, which no prediction knows.
            (EventType::IPL, EventData::Text(text)) if text.ends_with(b"/grub.cfg") => {
                Self::grub_configuration()
            }
            (EventType::IPL, EventData::Text(text)) => Self::BootLoader(Printable(text).to_string()),
            (kind, data) => Self::Other(alloc::format!("{kind} {data}")),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TdHob => f.write_str("TD HOB"),
            Self::Smbios => f.write_str("SMBIOS tables"),
            Self::VariableStore => f.write_str("variable store (CFV)"),
            Self::SecureBootVariable(name) => write!(f, "Secure Boot variable {name}"),
            Self::Authority(name) => write!(f, "authority {name}"),
            Self::Separator => f.write_str("separator"),
            Self::Acpi => f.write_str("ACPI data"),
            Self::FirmwareConfig(name) => write!(f, "fw_cfg {name}"),
            Self::BootVariable(name) => write!(f, "boot variable {name}"),
            Self::Image => f.write_str("UEFI image"),
            Self::Action(text) => write!(f, "action \"{text}\""),
            Self::PartitionTable => f.write_str("partition table"),
            Self::BootLoader(text) => write!(f, "boot loader \"{text}\""),
            Self::Kernel => f.write_str("kernel"),
            Self::CommandLine => f.write_str("command line"),
            Self::Initrd => f.write_str("initrd"),
            Self::SectionName(name) => write!(f, "name of section {name}"),
            Self::Section(name) => write!(f, "section {name}"),
            Self::Payload => f.write_str("payload"),
            Self::PayloadParameters => f.write_str("payload parameters"),
            Self::Runtime(name) => write!(f, "run-time event {name}"),
            Self::Other(text) => f.write_str(text),
        }
    }
}
