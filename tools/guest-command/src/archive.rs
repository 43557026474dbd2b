//! An archive in the form that Linux unpacks into its first file system: cpio, "newc".
//!
//! Entries are sorted by path and bear no time, no owner but root, and no inode of the host: the same files make the same
//! bytes, and so the same measurement. Source of the form: Linux's documentation of the initramfs buffer format.

use std::collections::BTreeMap;
use std::path::{Component, Path};

/// File type bits of a mode.
const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// Files to be unpacked.
#[derive(Debug, Default)]
pub struct Archive {
    entries: BTreeMap<Vec<u8>, Entry>,
    bytes: u64,
}

#[derive(Debug)]
struct Entry {
    mode: u32,
    contents: Vec<u8>,
    device: (u32, u32),
}

impl Archive {
    /// Adds a file with its permissions. Folders above it are made as needed; what was at this path is replaced.
    pub fn file(&mut self, path: &Path, permissions: u32, contents: Vec<u8>) {
        self.bytes += contents.len() as u64;
        self.insert(path, FILE | (permissions & 0o7777), contents, (0, 0));
    }

    /// Adds a folder, and those above it.
    pub fn folder(&mut self, path: &Path, permissions: u32) {
        self.insert(path, FOLDER | (permissions & 0o7777), Vec::new(), (0, 0));
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &Path, target: &Path) {
        use std::os::unix::ffi::OsStrExt;
        self.insert(path, LINK | 0o777, target.as_os_str().as_bytes().to_vec(), (0, 0));
    }

    /// Adds a character device with its major and minor number.
    pub fn device(&mut self, path: &Path, permissions: u32, numbers: (u32, u32)) {
        self.insert(path, CHARACTER_DEVICE | (permissions & 0o7777), Vec::new(), numbers);
    }

    /// Whether something is at this path.
    pub fn has(&self, path: &Path) -> bool {
        self.entries.contains_key(&name(path))
    }

    /// Bytes of all files together.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    fn insert(&mut self, path: &Path, mode: u32, contents: Vec<u8>, device: (u32, u32)) {
        for above in path.ancestors().skip(1) {
            let above = name(above);
            if !above.is_empty() {
                let folder = || Entry { mode: FOLDER | 0o755, contents: Vec::new(), device: (0, 0) };
                self.entries.entry(above).or_insert_with(folder);
            }
        }
        let name = name(path);
        if !name.is_empty() {
            self.entries.insert(name, Entry { mode, contents, device });
        }
    }

    /// The archive.
    pub fn into_bytes(self) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, (name, entry)) in (1..).zip(&self.entries) {
            write_entry(&mut out, number, name, entry);
        }
        let last = Entry { mode: 0, contents: Vec::new(), device: (0, 0) };
        write_entry(&mut out, 0, b"TRAILER!!!", &last);
        out
    }
}

/// The path as the archive has it: from its root, without a slash in front.
fn name(path: &Path) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(part) => Some(part.as_bytes()),
        _ => None,
    });
    parts.collect::<Vec<_>>().join(&b'/')
}

fn write_entry(out: &mut Vec<u8>, number: u32, name: &[u8], entry: &Entry) {
    let size = entry.contents.len() as u32;
    let fields = [
        number,
        entry.mode,
        0, // user
        0, // group
        1, // links
        0, // time
        size,
        0, // device of the file
        0,
        entry.device.0,
        entry.device.1,
        name.len() as u32 + 1,
        0, // checksum, which this form does not have
    ];
    out.extend(b"070701");
    for field in fields {
        out.extend(format!("{field:08x}").into_bytes());
    }
    out.extend(name);
    out.push(0);
    pad(out);
    out.extend(&entry.contents);
    pad(out);
}

/// Every header and every file begins at a multiple of four bytes.
fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_before_what_is_in_them_and_the_bytes_do_not_depend_on_the_order_of_adding() {
        let made = |backwards: bool| {
            let mut archive = Archive::default();
            let mut paths = ["/usr/bin/true", "/init", "/usr/bin-two"];
            if backwards {
                paths.reverse();
            }
            for path in paths {
                archive.file(Path::new(path), 0o755, path.as_bytes().to_vec());
            }
            archive.into_bytes()
        };
        let bytes = made(false);
        assert_eq!(bytes, made(true));
        let text = String::from_utf8_lossy(&bytes);
        let at = |name: &str| text.find(&format!("{name}\0")).unwrap_or_else(|| panic!("no {name}"));
        assert!(at("usr") < at("usr/bin") && at("usr/bin") < at("usr/bin/true"));
        assert!(text.ends_with("TRAILER!!!\0\0\0\0"), "{text:?}");
        assert!(bytes.len().is_multiple_of(4));
    }

    #[test]
    fn a_header_has_the_fields_of_the_form() {
        let mut archive = Archive::default();
        archive.device(Path::new("/console"), 0o600, (5, 1));
        let bytes = archive.into_bytes();
        let expected = "070701\
            00000001000021800000000000000000000000010000000000000000\
            0000000000000000000000050000000100000008\
            00000000console\0";
        assert_eq!(String::from_utf8_lossy(&bytes[..118]), expected.replace(' ', ""));
    }
}
