//! Disk images that are not raw: told by how they begin, and refused with the command that makes them raw.
//!
//! A file's format is only recognised to refuse it. A guest may write what it likes into its raw disk; the worst that comes of
//! it is a refusal at the next start.

use std::fmt;

/// Bytes from the start of a file that decide.
pub const HEAD_BYTES: usize = 512;

/// A format that is not raw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignFormat {
    /// A virtual disk, by the name that `qemu-img` has for it.
    Image(&'static str),
    /// A compressed file, by the program that unpacks it.
    Compressed(&'static str),
}

/// How a format's files begin: where, with what, and what they are.
const MAGICS: [(usize, &[u8], ForeignFormat); 13] = [
    (0, b"QFI\xfb", ForeignFormat::Image("qcow2")),
    (0, b"QED\0", ForeignFormat::Image("qed")),
    (0, b"KDMV", ForeignFormat::Image("vmdk")),
    (0, b"# Disk DescriptorFile", ForeignFormat::Image("vmdk")),
    (0, b"vhdxfile", ForeignFormat::Image("vhdx")),
    (0, b"conectix", ForeignFormat::Image("vpc")),
    (0x40, b"\x7f\x10\xda\xbe", ForeignFormat::Image("vdi")),
    (0, b"WithoutFreeSpace", ForeignFormat::Image("parallels")),
    (0, b"WithouFreSpacExt", ForeignFormat::Image("parallels")),
    (0, b"\xfd7zXZ\0", ForeignFormat::Compressed("xz -d")),
    (0, b"\x1f\x8b\x08", ForeignFormat::Compressed("gzip -d")),
    (0, b"\x28\xb5\x2f\xfd", ForeignFormat::Compressed("zstd -d")),
    (0, b"BZh", ForeignFormat::Compressed("bzip2 -d")),
];

impl ForeignFormat {
    /// What a file is that begins so; `None` for a raw disk, as far as one can tell.
    pub fn of(head: &[u8]) -> Option<Self> {
        let begins = |at: usize, magic: &[u8]| head.get(at..).is_some_and(|head| head.starts_with(magic));
        MAGICS.iter().find(|(at, magic, _)| begins(*at, magic)).map(|(_, _, format)| *format)
    }
}

impl fmt::Display for ForeignFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(format) => write!(
                f,
                "a {format} image, and a disk is a raw one: convert it with \
                 `qemu-img convert -f {format} -O raw IMAGE DISK.raw`"
            ),
            Self::Compressed(program) => {
                write!(f, "compressed, and a disk is a raw image: unpack it with `{program}`")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_that_are_not_raw_are_refused_with_the_command_that_converts_them() {
        let mut vdi = b"<<< Oracle VM VirtualBox Disk Image >>>\n".to_vec();
        vdi.resize(0x40, 0);
        vdi.extend(b"\x7f\x10\xda\xbe");
        for (head, command) in [
            (&b"QFI\xfb\0\0\0\x03"[..], "qemu-img convert -f qcow2 -O raw"),
            (b"KDMV\x01\0\0\0", "-f vmdk"),
            (b"vhdxfile", "-f vhdx"),
            (&vdi, "-f vdi"),
            (b"\xfd7zXZ\0\0\x04", "xz -d"),
        ] {
            let text = ForeignFormat::of(head).unwrap().to_string();
            assert!(text.contains(command) && !text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn a_partition_table_a_file_system_and_nothing_are_raw() {
        let mut ext4 = vec![0; 0x438];
        ext4.extend([0x53, 0xef]);
        let mut mbr = b"\xeb\x63\x90".to_vec();
        mbr.resize(510, 0);
        mbr.extend([0x55, 0xaa]);
        for head in [&ext4[..], &mbr, &[0; 512], b"", b"QFI"] {
            assert_eq!(ForeignFormat::of(head), None);
        }
    }
}
