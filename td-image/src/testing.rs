//! Images made by hand, for tests of this crate and of those that use it.

use alloc::vec::Vec;

use crate::tdvf::{Attributes, SectionKind};

const FOOTER: [u8; 16] =
    [0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d];
const TDX_ENTRY: [u8; 16] =
    [0x35, 0x65, 0x7a, 0xe4, 0x4a, 0x98, 0x98, 0x47, 0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2];

/// One section to write.
#[derive(Clone, Copy)]
pub struct Entry {
    /// Where the section's bytes lie in the image.
    pub data_offset: u32,
    /// How many bytes of the image it has.
    pub raw_size: u32,
    /// Where the section lies in guest-physical memory.
    pub gpa: u64,
    /// How much memory it takes, bytes.
    pub mem_size: u64,
    /// The section's type.
    pub kind: SectionKind,
    /// The section's attributes.
    pub attributes: Attributes,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            data_offset: 0,
            raw_size: 0,
            gpa: 0,
            mem_size: 0x1000,
            kind: SectionKind::TEMP_MEM,
            attributes: Attributes(0),
        }
    }
}

/// How an image names its metadata.
#[derive(Clone, Copy)]
pub enum Style {
    /// By a table of GUIDs at its end.
    Ovmf,
    /// With such a table, and no entry for TDX in it.
    OvmfWithoutTdx,
    /// By an offset at its end.
    TdShim,
}

/// An image to write.
#[derive(Clone)]
pub struct Image {
    /// The image's size, bytes.
    pub size: usize,
    /// The image's sections.
    pub entries: Vec<Entry>,
    /// How the image names its metadata.
    pub style: Style,
    /// Version of the metadata.
    pub version: u32,
    /// Number of sections that it declares, if that is not how many it has.
    pub count: Option<u32>,
    /// Length of the metadata that it declares, if that is not what it has.
    pub length: Option<u32>,
}

impl Image {
    /// The shape of this project's guests: firmware, own memory, TD HOB, a pool to accept.
    #[must_use]
    pub fn hello() -> Self {
        let size = 0x4000;
        let entries = alloc::vec![
            Entry {
                raw_size: size as u32,
                gpa: 0x1_0000_0000 - size as u64,
                mem_size: size as u64,
                kind: SectionKind::BFV,
                attributes: Attributes::MR_EXTEND,
                ..Entry::default()
            },
            Entry { gpa: 0x10_0000, mem_size: 0x3000, ..Entry::default() },
            Entry { gpa: 0x1f_0000, mem_size: 0x2000, kind: SectionKind::TD_HOB, ..Entry::default() },
            Entry {
                gpa: 0x20_0000,
                mem_size: 0x20_0000,
                kind: SectionKind::PERM_MEM,
                attributes: Attributes::PAGE_AUG,
                ..Entry::default()
            },
        ];
        Self { size, entries, style: Style::Ovmf, version: 1, count: None, length: None }
    }

    /// The shape of OVMF: a variable store in front of the firmware, which is not measured.
    #[must_use]
    pub fn ovmf() -> Self {
        const STORE: u32 = 0x1000;
        let mut image = Self::hello();
        if let Some(firmware) = image.entries.first_mut() {
            let store = Entry {
                raw_size: STORE,
                mem_size: STORE.into(),
                kind: SectionKind::CFV,
                attributes: Attributes(0),
                ..*firmware
            };
            *firmware = Entry {
                data_offset: STORE,
                raw_size: firmware.raw_size - STORE,
                gpa: firmware.gpa + u64::from(STORE),
                mem_size: firmware.mem_size - u64::from(STORE),
                ..*firmware
            };
            image.entries.push(store);
        }
        image
    }

    /// The image.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let mut image: Vec<u8> = (0..self.size).map(|at| (at * 7 + at / 256) as u8).collect();
        let count = self.count.unwrap_or(self.entries.len() as u32);
        let mut descriptor = Vec::from(*b"TDVF");
        for word in [self.length.unwrap_or(16 + 32 * count), self.version, count] {
            descriptor.extend(word.to_le_bytes());
        }
        for entry in &self.entries {
            descriptor.extend(entry.data_offset.to_le_bytes());
            descriptor.extend(entry.raw_size.to_le_bytes());
            descriptor.extend(entry.gpa.to_le_bytes());
            descriptor.extend(entry.mem_size.to_le_bytes());
            descriptor.extend(entry.kind.0.to_le_bytes());
            descriptor.extend(entry.attributes.0.to_le_bytes());
        }
        let at = self.size - 0x200 - descriptor.len();
        image[at..at + descriptor.len()].copy_from_slice(&descriptor);
        let mut tail = Vec::new();
        match self.style {
            Style::Ovmf => {
                // An entry of no interest first: the chain has to be walked.
                tail.extend([9; 4]);
                tail.extend(22u16.to_le_bytes());
                tail.extend([0x11; 16]);
                let guids_start = tail.len();
                tail.extend(((self.size - at) as u32).to_le_bytes());
                tail.extend(22u16.to_le_bytes());
                tail.extend(TDX_ENTRY);
                assert_eq!(tail.len() - guids_start, 22);
                let length = tail.len() + 18;
                tail.extend((length as u16).to_le_bytes());
                tail.extend(FOOTER);
            }
            Style::OvmfWithoutTdx => {
                tail.extend(18u16.to_le_bytes());
                tail.extend(FOOTER);
            }
            Style::TdShim => {}
        }
        let end = self.size - 0x20;
        image[end - tail.len()..end].copy_from_slice(&tail);
        if let Style::TdShim = self.style {
            image[end..end + 4].copy_from_slice(&(at as u32).to_le_bytes());
        }
        image
    }
}
