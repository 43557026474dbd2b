//! What an event's data mean, by type, and whether its digest is theirs.
//!
//! A digest covers the data only for some types; for the rest it covers something that is not in the log (a
//! table, a kernel, a command line), and the data merely describe it.

use core::fmt;

use super::event::EventType;
use super::text::DevicePath;
use crate::bytes::Cursor;
use td_image::digest::{Digest384, Sha384};

/// A GUID in the byte order of memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// EFI_GLOBAL_VARIABLE: SecureBoot, PK, KEK, BootOrder, Boot####.
    pub const GLOBAL_VARIABLE: Self =
        Self([0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0, 0xe0, 0x98, 0x03, 0x2b, 0x8c]);
    /// EFI_IMAGE_SECURITY_DATABASE: db, dbx.
    pub const IMAGE_SECURITY_DATABASE: Self = Self([
        0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f,
    ]);
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, e @ ..] = self.0;
        let (a, b, c) = (
            u32::from_le_bytes([a0, a1, a2, a3]),
            u16::from_le_bytes([b0, b1]),
            u16::from_le_bytes([c0, c1]),
        );
        write!(f, "{a:08x}-{b:04x}-{c:04x}-{d0:02x}{d1:02x}-{}", crate::Hex(&e))
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// UTF-16LE text; what is not text prints as a replacement character.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Utf16<'a>(pub &'a [u8]);

impl Utf16<'_> {
    /// The text's characters before its NUL, one byte of each: all of it where the text is ASCII.
    pub(super) fn ascii(self) -> impl Iterator<Item = u8> {
        self.0.as_chunks::<2>().0.iter().map(|[low, _]| *low).take_while(|byte| *byte != 0)
    }

    /// Whether this is the name of a variable of EFI_GLOBAL_VARIABLE that the Secure Boot configuration has.
    pub(super) fn is_secure_boot(self) -> bool {
        const NAMES: [&[u8]; 5] = [b"SecureBoot", b"PK", b"KEK", b"AuditMode", b"DeployedMode"];
        NAMES.iter().any(|name| self.ascii().eq(name.iter().copied()))
    }
}

impl fmt::Display for Utf16<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        let units = self.0.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit));
        let chars = char::decode_utf16(units.take_while(|unit| *unit != 0));
        chars.into_iter().try_for_each(|next| match next {
            Ok(c) if !c.is_control() => f.write_char(c),
            _ => f.write_char(char::REPLACEMENT_CHARACTER),
        })
    }
}

impl fmt::Debug for Utf16<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// The data of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventData<'a> {
    /// UEFI_VARIABLE_DATA.
    Variable {
        /// The variable's vendor.
        guid: Guid,
        /// The variable's name.
        name: Utf16<'a>,
        /// The variable's value.
        value: &'a [u8],
    },
    /// EV_SEPARATOR: zero, or an error code.
    Separator(u32),
    /// A text.
    Text(&'a [u8]),
    /// A text in UTF-16LE, as systemd's stub writes: the name of a section, a command line.
    WideText(Utf16<'a>),
    /// A run-time event of dstack.
    Runtime {
        /// The event's name.
        name: &'a [u8],
        /// The event's payload.
        payload: &'a [u8],
    },
    /// A range of firmware (UEFI_PLATFORM_FIRMWARE_BLOB2).
    Blob {
        /// What the range is, in the firmware's words.
        description: &'a [u8],
        /// Where the range lies in guest-physical memory.
        base: u64,
        /// The blob's size, bytes.
        length: u64,
    },
    /// Tables handed over (UEFI_HANDOFF_TABLE_POINTERS2).
    Tables {
        /// What the tables are, in the firmware's words.
        description: &'a [u8],
        /// How many there are.
        count: u64,
    },
    /// A loaded image (UEFI_IMAGE_LOAD_EVENT).
    Image {
        /// The image's size in memory, bytes.
        length: u64,
        /// Where the image came from.
        path: DevicePath<'a>,
    },
    /// The partition table (UEFI_GPT_DATA).
    Gpt {
        /// Identity of the disk.
        disk: Guid,
        /// Partitions in the event.
        partitions: u64,
    },
    /// A tagged event.
    Tagged {
        /// The event's tag.
        id: u32,
        /// What the tag's owner says.
        data: &'a [u8],
    },
    /// td-shim's named block.
    Named {
        /// The block's name.
        name: &'a [u8],
        /// The block.
        data: &'a [u8],
    },
    /// Anything else.
    Opaque(&'a [u8]),
}

/// What an event measures of a unified kernel image (systemd's stub: first a section's name, then what it holds).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Nothing of one.
    None,
    /// The name of a section.
    Name,
    /// What the section holds that the event before named.
    Contents,
}

/// The name of a section that UTF-16LE data give, such as `.cmdline` with its final NUL; ASCII, without the NUL.
pub(super) fn section_name(data: &[u8]) -> Option<Utf16<'_>> {
    /// The longest name that the PE format has.
    const MAX_NAME: usize = 8;
    let (units, rest) = data.as_chunks::<2>();
    let text = units.strip_suffix(&[[0, 0]]).unwrap_or(units);
    let is_name = |unit: &[u8; 2]| matches!(unit, [b'.' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_', 0]);
    let fits = rest.is_empty() && text.first() == Some(&[b'.', 0]) && (2..=MAX_NAME).contains(&text.len());
    (fits && text.iter().all(is_name)).then_some(Utf16(data))
}

impl<'a> EventData<'a> {
    /// Tag of the events of confidential containers' attestation agent ("AAEL").
    pub const TAG_AAEL: u32 = 0x4141_454c;
    /// Tag of the command line in Linux's EFI stub.
    pub const TAG_LOAD_OPTIONS: u32 = 0x8f3b_22ed;
    /// Tag of the initrd in Linux's EFI stub.
    pub const TAG_INITRD: u32 = 0x8f3b_22ec;

    /// Reads `data` as an event of this kind has it; [`Self::Opaque`] if it does not.
    #[must_use]
    pub fn of(kind: EventType, data: &'a [u8]) -> Self {
        let read = match kind {
            EventType::EFI_VARIABLE_DRIVER_CONFIG
            | EventType::EFI_VARIABLE_BOOT
            | EventType::EFI_VARIABLE_BOOT2
            | EventType::EFI_VARIABLE_AUTHORITY => variable(data),
            EventType::SEPARATOR => {
                data.try_into().ok().map(|word| Self::Separator(u32::from_le_bytes(word)))
            }
            EventType::EFI_PLATFORM_FIRMWARE_BLOB2 => blob(data),
            EventType::EFI_HANDOFF_TABLES2 => tables(data),
            EventType::EFI_BOOT_SERVICES_APPLICATION
            | EventType::EFI_BOOT_SERVICES_DRIVER
            | EventType::EFI_RUNTIME_SERVICES_DRIVER => image(data),
            EventType::EFI_GPT_EVENT | EventType::EFI_GPT_EVENT2 => gpt(data),
            EventType::EVENT_TAG => tagged(data).or_else(|| text(data)),
            EventType::PLATFORM_CONFIG_FLAGS => named(data).or_else(|| text(data)),
            EventType::IPL => wide_text(data).or_else(|| text(data)),
            EventType::EFI_ACTION | EventType::ACTION | EventType::NONHOST_INFO => text(data),
            EventType::DSTACK_RUNTIME => runtime(data),
            _ => None,
        };
        read.unwrap_or(Self::Opaque(data))
    }
}

fn variable(data: &[u8]) -> Option<EventData<'_>> {
    let mut rest = Cursor::new(data);
    let guid = Guid(*rest.array().ok()?);
    let mut length =
        || rest.array::<8>().ok().and_then(|bytes| usize::try_from(u64::from_le_bytes(*bytes)).ok());
    let (characters, bytes) = (length()?, length()?);
    let name = Utf16(rest.bytes(characters.checked_mul(2)?).ok()?);
    // shim declares one byte more than it writes for some variables, so the rest is the value either way.
    let _declared = bytes;
    Some(EventData::Variable { guid, name, value: rest.rest() })
}

fn word64(rest: &mut Cursor<'_>) -> Option<u64> {
    rest.array::<8>().ok().map(|bytes| u64::from_le_bytes(*bytes))
}

fn short_text<'a>(rest: &mut Cursor<'a>) -> Option<&'a [u8]> {
    let [length] = *rest.array::<1>().ok()?;
    rest.bytes(usize::from(length)).ok()
}

fn blob(data: &[u8]) -> Option<EventData<'_>> {
    let mut rest = Cursor::new(data);
    let description = short_text(&mut rest)?;
    let (base, length) = (word64(&mut rest)?, word64(&mut rest)?);
    rest.rest().is_empty().then_some(EventData::Blob { description, base, length })
}

fn tables(data: &[u8]) -> Option<EventData<'_>> {
    let mut rest = Cursor::new(data);
    let description = short_text(&mut rest)?;
    Some(EventData::Tables { description, count: word64(&mut rest)? })
}

fn image(data: &[u8]) -> Option<EventData<'_>> {
    let mut rest = Cursor::new(data);
    let (_location, length, _link_time) = (word64(&mut rest)?, word64(&mut rest)?, word64(&mut rest)?);
    let path = usize::try_from(word64(&mut rest)?).ok()?;
    Some(EventData::Image { length, path: DevicePath(rest.bytes(path).ok()?) })
}

/// Offsets of the UEFI specification's EFI_PARTITION_TABLE_HEADER, 92 bytes, then the count.
fn gpt(data: &[u8]) -> Option<EventData<'_>> {
    let disk = Guid(*data.get(56..)?.first_chunk()?);
    let partitions = u64::from_le_bytes(*data.get(92..)?.first_chunk()?);
    data.starts_with(b"EFI PART").then_some(EventData::Gpt { disk, partitions })
}

fn tagged(data: &[u8]) -> Option<EventData<'_>> {
    let mut rest = Cursor::new(data);
    let id = rest.u32().ok()?;
    let data = rest.sized_u32().ok()?;
    rest.rest().is_empty().then_some(EventData::Tagged { id, data })
}

/// Sixteen bytes of name, a length, and exactly so many bytes.
fn named(data: &[u8]) -> Option<EventData<'_>> {
    let mut rest = Cursor::new(data);
    let name = rest.array::<16>().ok()?;
    let block = rest.sized_u32().ok()?;
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    rest.rest().is_empty().then_some(EventData::Named { name: name.get(..end)?, data: block })
}

fn text(data: &[u8]) -> Option<EventData<'_>> {
    let end = data.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let text = data.get(..end)?;
    let printable = |byte: &u8| matches!(byte, b' '..=b'~' | b'\n' | b'\t' | b'\r' | 0x80..);
    (!text.is_empty() && text.iter().all(printable)).then_some(EventData::Text(text))
}

/// UTF-16LE text that is printable ASCII at its beginning: what is not cannot be told from other data.
fn wide_text(data: &[u8]) -> Option<EventData<'_>> {
    let (units, rest) = data.as_chunks::<2>();
    let text = units.strip_suffix(&[[0, 0]]).unwrap_or(units);
    let plain = |unit: &[u8; 2]| matches!(unit, [b' '..=b'~' | b'\t' | b'\n', 0]);
    let is_text = rest.is_empty() && text.len() >= 2 && text.iter().all(|unit| *unit != [0, 0]);
    (is_text && text.iter().take(2).all(plain)).then_some(EventData::WideText(Utf16(data)))
}

fn runtime(data: &[u8]) -> Option<EventData<'_>> {
    let colon = data.iter().position(|byte| *byte == b':')?;
    Some(EventData::Runtime { name: data.get(..colon)?, payload: data.get(colon + 1..)? })
}

/// What Linux's EFI stub writes beside its tags: constant texts, whatever was measured.
const LINUX_TAGS: [(u32, &[u8]); 2] = [
    (EventData::TAG_LOAD_OPTIONS, b"LOADED_IMAGE::LoadOptions\0"),
    (EventData::TAG_INITRD, b"Linux initrd\0"),
];

/// The texts before what grub and the boot shim measured of a command.
const COMMANDS: [&[u8]; 3] = [b"grub_cmd: ", b"kernel_cmdline: ", b"module_cmdline: "];

/// The command in a boot loader's text.
pub(super) fn command(text: &[u8]) -> Option<&[u8]> {
    COMMANDS.iter().find_map(|prefix| text.strip_prefix(*prefix))
}

/// Whether an event's digest is the hash of its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// The digest is of the data: what the log says is what was measured.
    Measured,
    /// The digest is of the value in the data; the name before the value is only the log's word.
    ValueMeasured,
    /// The measured object is not in the log.
    NotInLog,
    /// The digest is not of the data, although events of this type are measured with their data.
    Differs,
}

impl Consistency {
    pub(crate) fn of(kind: EventType, data: &[u8], digest: &Digest384) -> Self {
        let is = |bytes: &[u8]| Digest384::of(bytes) == *digest;
        let must = |holds: bool| if holds { Self::Measured } else { Self::Differs };
        let value_must = |value: &[u8]| match (is(data), is(value)) {
            (true, _) => Self::Measured,
            (false, true) => Self::ValueMeasured,
            (false, false) => Self::Differs,
        };
        match (kind, EventData::of(kind, data)) {
            (
                EventType::SEPARATOR
                | EventType::ACTION
                | EventType::EFI_ACTION
                | EventType::S_CRTM_VERSION
                | EventType::EFI_VARIABLE_DRIVER_CONFIG
                | EventType::EFI_VARIABLE_AUTHORITY
                | EventType::EFI_GPT_EVENT
                | EventType::EFI_GPT_EVENT2
                | EventType::EFI_VARIABLE_BOOT2,
                _,
            ) => must(is(data)),
            (EventType::EFI_VARIABLE_BOOT, EventData::Variable { value, .. }) => value_must(value),
            (EventType::EFI_VARIABLE_BOOT, _) => must(is(data)),
            (EventType::PLATFORM_CONFIG_FLAGS, EventData::Named { data: block, .. }) => value_must(block),
            (EventType::PLATFORM_CONFIG_FLAGS, _) => Self::of_optional(is(data)),
            (EventType::DSTACK_RUNTIME, _) => {
                let mut hasher = Sha384::new();
                hasher.update(&kind.0.to_le_bytes());
                hasher.update(b":");
                hasher.update(data);
                must(hasher.finish() == *digest)
            }
            // Name and NUL in ASCII, whatever the description is written in.
            (EventType::IPL, EventData::WideText(text)) if section_name(data).is_some() => {
                must(Digest384::of_bytes(text.ascii().chain([0])) == *digest)
            }
            (EventType::IPL, EventData::WideText(_)) => {
                Self::of_optional(is(data) || data.strip_suffix(&[0, 0]).is_some_and(is))
            }
            (EventType::IPL, _) => Self::of_loader(data, is),
            (EventType::EVENT_TAG, EventData::Tagged { id, data: text }) => {
                match LINUX_TAGS.iter().find(|(tag, _)| *tag == id) {
                    Some((_, constant)) if text != *constant => Self::Differs,
                    // The tagged event whole, as the attestation agent of Confidential Containers extends it; the text
                    // alone says as much.
                    None if id == EventData::TAG_AAEL && !is(data) => {
                        let text_without_nul = text.strip_suffix(&[0]).unwrap_or(text);
                        if is(text_without_nul) { Self::ValueMeasured } else { value_must(text) }
                    }
                    None if id == EventData::TAG_AAEL => Self::Measured,
                    _ => Self::of_optional(is(data)),
                }
            }
            _ => Self::of_optional(is(data)),
        }
    }

    /// A boot loader's text. Commands are measured as text, without the NUL; files by their contents, under their name.
    fn of_loader(data: &[u8], is: impl Fn(&[u8]) -> bool) -> Self {
        let without_nul = data.strip_suffix(&[0]).unwrap_or(data);
        let command = command(without_nul);
        if is(data) || is(without_nul) {
            return Self::Measured;
        }
        match command {
            Some(command) if is(command) => Self::ValueMeasured,
            Some(_) => Self::Differs,
            None => Self::NotInLog,
        }
    }

    const fn of_optional(matches: bool) -> Self {
        if matches { Self::Measured } else { Self::NotInLog }
    }

    /// The name that scripts see.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::Measured => "data-measured",
            Self::ValueMeasured => "value-measured",
            Self::NotInLog => "object-not-in-log",
            Self::Differs => "digest-not-of-data",
        }
    }
}
