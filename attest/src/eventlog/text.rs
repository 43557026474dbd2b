//! Events in words, on one line each.

use core::fmt::{self, Write};

use super::data::{EventData, Guid, Utf16};
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
            Self::Variable { name, value, .. } => write!(f, "variable {name} ({} bytes)", value.len()),
            Self::Separator(0) => f.write_str("separator"),
            Self::Separator(code) => write!(f, "separator with code {code:#x}"),
            Self::Text(text) => write!(f, "\"{}\"", Printable(text)),
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

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mr.register() {
            Some(register) => write!(f, "{register} ")?,
            None => write!(f, "MR {:#x} ", self.mr.0)?,
        }
        write!(f, "{} {}", self.kind, self.data())
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
