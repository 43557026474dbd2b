//! The strings of a guest, out of its ELF file.
//!
//! `defmt` sends indices instead of strings. Each string is the *name* of a symbol in the section `.defmt`, and its
//! index is the symbol's address. A name is a JSON object of which `tag` (what the string is for) and `data` (the
//! string) matter here. Two more symbols, `_defmt_version_ = N` and `_defmt_encoding_ = NAME`, say how frames are
//! made. (Source: `defmt` 1.2, its linker script and its macros' symbol names.)

use std::collections::BTreeMap;
use std::fmt;

use defmt_parser::Level;
use object::read::elf::ElfFile64;
use object::{Endianness, Object, ObjectSection, ObjectSymbol};

use super::format::{Alternatives, Format};

/// The versions of the wire format that this decoder knows.
const VERSIONS: [&str; 2] = ["3", "4"];
/// The only encoding of frames that it knows.
const ENCODING: &str = "rzcobs";
/// The longest symbol name that is read, bytes. Twice the longest format string: a name has more in it.
const MAX_NAME: usize = 2 * super::format::MAX_FORMAT;
/// The most bytes of names that are read: 65534 strings, the most that `defmt` allows, at 256 bytes each.
const MAX_NAMES: usize = 16 << 20;
/// The most pieces that all formats may consist of.
const MAX_PIECES: usize = 1 << 20;

/// All strings of a guest by their index.
#[derive(Debug, Default)]
pub struct Table {
    entries: BTreeMap<u16, Entry>,
    timestamp: Option<Format>,
}

/// What a string is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A log statement of this level.
    Log(Level),
    /// A log statement without a level.
    Println,
    /// The format of a value, which frames name inside of messages.
    Value,
    /// A string that frames name instead of sending it.
    Interned,
}

/// A string.
#[derive(Debug)]
pub struct Entry {
    /// What the entry is for.
    pub purpose: Purpose,
    /// The string itself.
    pub text: String,
    /// The string as a format; none if it is not one.
    pub format: Option<Format>,
}

/// Why an ELF file's strings cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub enum TableError {
    /// Not an ELF file of 64 bits.
    NotElf,
    /// A version of the wire format that is not known, or none.
    Version(Option<String>),
    /// An encoding that is not known, or none.
    Encoding(Option<String>),
    /// More than one timestamp format.
    SecondTimestamp,
    /// A timestamp format that cannot be read, without which no message is found in its frame.
    BadTimestamp,
    /// More or larger strings than are read.
    TooLarge,
}

impl fmt::Display for TableError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotElf => out.write_str("it is not an ELF file of 64 bits"),
            Self::Version(Some(version)) => write!(out, "its defmt version {version:?} is not known"),
            Self::Version(None) => out.write_str("it does not say which defmt version it has"),
            Self::Encoding(Some(encoding)) => {
                write!(out, "its defmt encoding {encoding:?} is not known, only {ENCODING:?}")
            }
            Self::Encoding(None) => out.write_str("it does not say which defmt encoding it has"),
            Self::SecondTimestamp => out.write_str("it has more than one defmt timestamp"),
            Self::BadTimestamp => out.write_str("its defmt timestamp cannot be read"),
            Self::TooLarge => out.write_str("its defmt strings are too large"),
        }
    }
}

impl Table {
    /// Reads the strings of an ELF file; none if it has no `defmt` in it.
    pub fn of_elf(bytes: &[u8]) -> Result<Option<Self>, TableError> {
        let elf = ElfFile64::<Endianness>::parse(bytes).map_err(|_| TableError::NotElf)?;
        let is_ours = |name: &str| name == ".defmt" || name.starts_with(".defmt.");
        let sections: Vec<_> = elf
            .sections()
            .filter(|section| section.name().is_ok_and(is_ours))
            .map(|section| section.index())
            .collect();
        if sections.is_empty() {
            return Ok(None);
        }
        let (mut version, mut encoding) = (None, None);
        let mut builder = Builder::default();
        for symbol in elf.symbols() {
            let Ok(name) = symbol.name() else { continue };
            // lld keeps the quotation marks of a linker script.
            let marker = name.trim_matches('"');
            if let Some(found) = marker.strip_prefix("_defmt_version_ = ") {
                version = Some(found.to_owned());
            } else if let Some(found) = marker.strip_prefix("_defmt_encoding_ = ") {
                encoding = Some(found.to_owned());
            } else if name.starts_with('{')
                && symbol.section_index().is_some_and(|section| sections.contains(&section))
                && let Ok(address) = u16::try_from(symbol.address())
            {
                builder.add_symbol(address, name)?;
            }
        }
        if !version.as_deref().is_some_and(|version| VERSIONS.contains(&version)) {
            return Err(TableError::Version(version));
        }
        if encoding.as_deref() != Some(ENCODING) {
            return Err(TableError::Encoding(encoding));
        }
        Ok(Some(builder.table))
    }

    /// The string of this index.
    pub fn entry(&self, index: u16) -> Option<&Entry> {
        self.entries.get(&index)
    }

    /// The format of what follows the index in each frame, if the guest sends timestamps.
    pub fn timestamp(&self) -> Option<&Format> {
        self.timestamp.as_ref()
    }
}

#[cfg(test)]
impl Table {
    /// A table made of `(index, tag without its "defmt_", string)`.
    pub fn of_strings<'s>(strings: impl IntoIterator<Item = (u16, &'s str, &'s str)>) -> Self {
        let mut builder = Builder::default();
        for (index, tag, data) in strings {
            builder.add(index, tag, data).expect("a table of a test is good");
        }
        builder.table
    }

    /// All indices and their strings.
    pub fn entries(&self) -> impl Iterator<Item = (u16, &Entry)> {
        self.entries.iter().map(|(index, entry)| (*index, entry))
    }
}

/// A table that grows, and how much it has read.
#[derive(Default)]
struct Builder {
    table: Table,
    names: usize,
    pieces: usize,
}

impl Builder {
    /// Adds what a symbol's name says. Names that say nothing to us are left out.
    fn add_symbol(&mut self, index: u16, name: &str) -> Result<(), TableError> {
        self.names = self.names.saturating_add(name.len());
        if name.len() > MAX_NAME || self.names > MAX_NAMES {
            return Err(TableError::TooLarge);
        }
        let Ok(name) = serde_json::from_str::<serde_json::Value>(name) else { return Ok(()) };
        let field = |field: &str| name.get(field).and_then(|value| value.as_str());
        match (field("tag").and_then(|tag| tag.strip_prefix("defmt_")), field("data")) {
            (Some(tag), Some(data)) => self.add(index, tag, data),
            _ => Ok(()),
        }
    }

    /// Adds a string by its tag. Other tools' tags, and those that only they need, are left out.
    fn add(&mut self, index: u16, tag: &str, data: &str) -> Result<(), TableError> {
        let (purpose, alternatives) = match tag {
            "trace" => (Purpose::Log(Level::Trace), Alternatives::None),
            "debug" => (Purpose::Log(Level::Debug), Alternatives::None),
            "info" => (Purpose::Log(Level::Info), Alternatives::None),
            "warn" => (Purpose::Log(Level::Warn), Alternatives::None),
            "error" => (Purpose::Log(Level::Error), Alternatives::None),
            "println" => (Purpose::Println, Alternatives::None),
            "write" | "bitflags" => (Purpose::Value, Alternatives::None),
            "prim" | "derived" => (Purpose::Value, Alternatives::Variants),
            "str" => (Purpose::Interned, Alternatives::None),
            "timestamp" => return self.add_timestamp(data),
            _ => return Ok(()),
        };
        let format = match purpose {
            Purpose::Interned => None,
            _ => Format::parse(data, alternatives).ok(),
        };
        self.count(format.as_ref())?;
        self.table.entries.insert(index, Entry { purpose, text: data.to_owned(), format });
        Ok(())
    }

    fn add_timestamp(&mut self, data: &str) -> Result<(), TableError> {
        let format = Format::parse(data, Alternatives::None).map_err(|_| TableError::BadTimestamp)?;
        self.count(Some(&format))?;
        match self.table.timestamp.replace(format) {
            None => Ok(()),
            Some(_) => Err(TableError::SecondTimestamp),
        }
    }

    fn count(&mut self, format: Option<&Format>) -> Result<(), TableError> {
        self.pieces = self.pieces.saturating_add(format.map_or(0, Format::size));
        if self.pieces > MAX_PIECES { Err(TableError::TooLarge) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use tdvisor_guest_images::{FAULT_TD, GUESTS, HELLO_TD};
    use tdvisor_test_data::chance::Chance;

    use super::*;

    fn table(elf: &[u8]) -> Table {
        Table::of_elf(elf).expect("the ELF file is good").expect("it has defmt in it")
    }

    #[test]
    fn the_strings_of_the_built_in_guests_are_found_with_their_levels() {
        let found = |table: &Table, text: &str| {
            table.entries().find(|(_, entry)| entry.text == text).map(|(_, entry)| entry.purpose)
        };
        let hello = table(HELLO_TD.elf);
        assert_eq!(found(&hello, "hello-td starts on {=u32} vCPU(s)"), Some(Purpose::Log(Level::Info)));
        assert_eq!(found(&hello, "vCPU {=u32} accepted {=u64} KiB"), Some(Purpose::Log(Level::Debug)));
        assert_eq!(found(&hello, "a step failed"), Some(Purpose::Log(Level::Error)));
        let fault = table(FAULT_TD.elf);
        assert_eq!(found(&fault, "fault-td starts, command {=str}"), Some(Purpose::Log(Level::Info)));
        for guest in GUESTS {
            let table = table(guest.elf);
            assert!(table.timestamp().is_some(), "{}: frames carry a sequence number", guest.name);
            assert!(table.entries().all(|(_, entry)| entry.format.is_some()), "{}", guest.name);
        }
    }

    #[test]
    fn a_file_that_is_no_elf_file_is_an_error_and_one_without_defmt_is_none() {
        assert_eq!(Table::of_elf(b"not an ELF file").err(), Some(TableError::NotElf));
        // An ELF header alone: no sections.
        let mut header = HELLO_TD.elf.get(..64).expect("an ELF file has a header").to_vec();
        for range in [0x20..0x30, 0x38..0x40] {
            header.get_mut(range).expect("inside of the header").fill(0);
        }
        assert!(matches!(Table::of_elf(&header), Ok(None)));
    }

    #[test]
    fn another_version_or_encoding_is_refused() {
        let patched = |from: &[u8], to: &[u8]| {
            let mut elf = HELLO_TD.elf.to_vec();
            // The debug information has the names as well.
            for at in 0..=elf.len() - from.len() {
                if elf[at..].starts_with(from) {
                    elf[at..at + to.len()].copy_from_slice(to);
                }
            }
            Table::of_elf(&elf).err()
        };
        assert_eq!(
            patched(b"_defmt_version_ = 4\0", b"_defmt_version_ = 9\0"),
            Some(TableError::Version(Some("9".to_owned())))
        );
        assert_eq!(patched(b"_defmt_version_ =", b"_other_version_ ="), Some(TableError::Version(None)));
        assert_eq!(
            patched(b"_defmt_encoding_ = rzcobs\0", b"_defmt_encoding_ = raw___\0"),
            Some(TableError::Encoding(Some("raw___".to_owned())))
        );
    }

    #[test]
    fn a_damaged_elf_file_is_read_or_refused_and_nothing_else() {
        for seed in 1..=64_u64 {
            let mut chance = Chance::new(seed);
            let mut elf = HELLO_TD.elf.to_vec();
            for _ in 0..32 {
                // Headers and tables are at both ends of the file; damage them as often as all the rest.
                let len = elf.len();
                let at = match chance.index(3) {
                    0 => chance.index(64),
                    1 => len - 1 - chance.index(len.min(0x8000)),
                    _ => chance.index(len),
                };
                if let Some(byte) = elf.get_mut(at) {
                    *byte = chance.byte();
                }
            }
            let _ = Table::of_elf(&elf);
            let _ = Table::of_elf(elf.get(..chance.index(elf.len())).unwrap_or_default());
        }
    }
}
