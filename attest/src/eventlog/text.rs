//! Events in words, on one line each.

use core::fmt::{self, Write};

use super::data::{EventData, Guid, Section, Utf16};
use super::event::{Event, EventType};
use crate::bytes::Cursor;

/// Longest text that a description quotes, characters.
const MAX_QUOTED: usize = 160;

/// Bytes as text on one line: controls and what is not ASCII become '.'; trailing NULs are left out.
#[derive(Clone, Copy)]
pub struct Printable<'a>(pub &'a [u8]);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let text = self.0.get(..end).unwrap_or_default();
        for byte in text.iter().take(MAX_QUOTED) {
            f.write_char(match byte {
                b' '..=b'~' => char::from(*byte),
                b'\n' | b'\t' => ' ',
                _ => '.',
            })?;
        }
        if text.len() > MAX_QUOTED { f.write_str("…") } else { Ok(()) }
    }
}

/// Bytes as text, all of them and line breaks kept; what is not printable is escaped as Rust escapes bytes.
#[derive(Clone, Copy)]
pub struct Whole<'a>(pub &'a [u8]);

impl fmt::Display for Whole<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        for chunk in self.0.get(..end).unwrap_or_default().utf8_chunks() {
            for char in chunk.valid().chars() {
                match char {
                    '\n' | '\t' => f.write_char(char)?,
                    char if char.is_control() => write!(f, "\\x{:02x}", u32::from(char))?,
                    char => f.write_char(char)?,
                }
            }
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

/// The value of a UEFI variable in words, where its name says what they are.
struct Value<'a>(Utf16<'a>, &'a [u8]);

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name, value) = self;
        let named = |text: &str| name.ascii().eq(text.bytes());
        match value {
            [] if named("SecureBoot") => f.write_str("not there (a build without Secure Boot)"),
            [0] if named("SecureBoot") => f.write_str("off"),
            [1] if named("SecureBoot") => f.write_str("on"),
            _ if named("BootOrder") && value.len().is_multiple_of(2) => {
                let mut separator = "";
                value.as_chunks::<2>().0.iter().try_for_each(|option| {
                    write!(f, "{separator}Boot{:04X}", u16::from_le_bytes(*option))?;
                    separator = ", ";
                    Ok(())
                })
            }
            _ => match load_option(*name, value) {
                Some((text, path)) => write!(f, "\"{text}\" from {path}"),
                None => write!(f, "{} bytes", value.len()),
            },
        }
    }
}

/// Description and path of a boot option (EFI_LOAD_OPTION), which is what variables `Boot####` hold.
fn load_option<'a>(name: Utf16<'a>, value: &'a [u8]) -> Option<(Utf16<'a>, DevicePath<'a>)> {
    let mut name = name.ascii();
    let is_option = b"Boot".iter().all(|letter| name.next() == Some(*letter))
        && (0..4).all(|_| name.next().is_some_and(|digit| digit.is_ascii_hexdigit()))
        && name.next().is_none();
    let mut option = Cursor::new(value);
    let _attributes = option.u32().ok()?;
    let path = usize::from(option.u16().ok()?);
    let text = option.rest();
    let length = text.as_chunks::<2>().0.iter().position(|unit| *unit == [0, 0])? * 2;
    let description = Utf16(text.get(..length)?);
    let path = DevicePath(text.get(length + 2..)?.get(..path)?);
    is_option.then_some((description, path))
}

/// An EFI device path; prints the nodes that say where an image came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DevicePath<'a>(pub &'a [u8]);

impl<'a> DevicePath<'a> {
    /// Type, subtype and data of each node, up to the end node or the first that does not fit.
    pub fn nodes(&self) -> impl Iterator<Item = (u8, u8, &'a [u8])> + use<'a> {
        let mut rest = Cursor::new(self.0);
        core::iter::from_fn(move || {
            let [kind, subtype] = *rest.array::<2>().ok()?;
            let length = rest.u16().ok()?;
            let data = rest.bytes(usize::from(length).checked_sub(4)?).ok()?;
            (kind != 0x7f).then_some((kind, subtype, data))
        })
    }
}

impl fmt::Display for DevicePath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut empty = true;
        for (kind, subtype, data) in self.nodes() {
            if !empty {
                f.write_char('/')?;
            }
            empty = false;
            match (kind, subtype, data.first_chunk::<16>()) {
                (2, 1, _) => f.write_str("PciRoot")?,
                (1, 1, _) => match data {
                    [function, device, ..] => write!(f, "Pci({device:#x},{function:#x})")?,
                    _ => f.write_str("Pci")?,
                },
                (3, 0x17, _) => f.write_str("NVMe")?,
                (4, 1, _) => match data.first_chunk::<4>() {
                    Some(number) => write!(f, "HD({})", u32::from_le_bytes(*number))?,
                    None => f.write_str("HD")?,
                },
                (4, 3, Some(guid)) => write!(f, "VenMedia({})", Guid(*guid))?,
                (4, 4, _) => Utf16(data).fmt(f)?,
                (4, 6, Some(guid)) => write!(f, "FvFile({})", Guid(*guid))?,
                (4, 7, Some(guid)) => write!(f, "Fv({})", Guid(*guid))?,
                _ => write!(f, "Path({kind},{subtype})")?,
            }
        }
        if empty { f.write_str("no path") } else { Ok(()) }
    }
}

impl fmt::Display for EventData<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable { name, value, .. } => write!(f, "variable {name}: {}", Value(*name, value)),
            Self::Separator(0) => f.write_str("separator"),
            Self::Separator(code) => write!(f, "separator with code {code:#x}"),
            Self::Text(text) => write!(f, "\"{}\"", Printable(text)),
            Self::WideText(text) => write!(f, "\"{text}\""),
            Self::Runtime { name, payload } => {
                write!(f, "{} ({} bytes)", Printable(name), payload.len())
            }
            Self::Blob { description, base, length } => {
                write!(f, "firmware {} ({length:#x} bytes at {base:#x})", Printable(description))
            }
            Self::Tables { description, count } => {
                write!(f, "{count} hand-off table(s) {}", Printable(description))
            }
            Self::Image { length, path } => write!(f, "image {path} ({length} bytes)"),
            Self::Gpt { disk, partitions } => {
                write!(f, "partition table of {disk}, {partitions} partition(s)")
            }
            Self::Tagged { id: Self::TAG_LOAD_OPTIONS, .. } => f.write_str("command line (Linux EFI stub)"),
            Self::Tagged { id: Self::TAG_INITRD, .. } => f.write_str("initrd (Linux EFI stub)"),
            Self::Tagged { id, data } => write!(f, "tag {id:#x} \"{}\"", Printable(data)),
            Self::Named { name, data } => write!(f, "{} ({} bytes)", Printable(name), data.len()),
            Self::Opaque(data) => write!(f, "{} bytes", data.len()),
        }
    }
}

/// An event without its register: type and data in words.
pub struct Words<'a>(Event<'a>);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0.kind, self.0.data())?;
        match self.0.section {
            Section::None => Ok(()),
            Section::Name => f.write_str(" (name of a section)"),
            Section::Contents => f.write_str(" (what the section holds)"),
        }
    }
}

impl<'a> Event<'a> {
    /// Type and data in words, on one line.
    #[must_use]
    pub const fn words(&self) -> Words<'a> {
        Words(*self)
    }
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mr.register() {
            Some(register) => write!(f, "{register} ")?,
            None => write!(f, "MR {:#x} ", self.mr.0)?,
        }
        self.words().fmt(f)
    }
}

impl EventType {
    /// Whether the type names a UEFI image that was started.
    #[must_use]
    pub const fn is_image(self) -> bool {
        matches!(
            self,
            Self::EFI_BOOT_SERVICES_APPLICATION
                | Self::EFI_BOOT_SERVICES_DRIVER
                | Self::EFI_RUNTIME_SERVICES_DRIVER
        )
    }
}
