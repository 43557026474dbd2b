//! The host's file system, as far as it is in one folder.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{
    Dir, FileType, Mode, OFlags, ResolveFlags, Stat, StatFs, fstat, fstatfs, open, openat2, readlinkat,
};
use rustix::io::Errno;

/// A folder.
pub(super) struct Folder(OwnedFd);

/// A name in a folder, and what it is.
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) kind: FileType,
}

impl Entry {
    /// Whether the entry is `.` or `..`: the folder itself, or its parent.
    pub(super) fn is_dots(&self) -> bool {
        matches!(&self.name[..], b"." | b"..")
    }

    /// The entry's name, as the host's file system has it.
    pub(super) fn os_name(&self) -> &OsStr {
        OsStr::from_bytes(&self.name)
    }
}

/// Where one is, from the folder: its components, none of which is `.`, `..` or a link that is followed.
pub(super) type RelativePath = Path;

impl Folder {
    /// The folder at a path of the user's.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = Self(open(path, flags, Mode::empty())?);
        // Whether the kernel can keep the guest inside is known before there is a guest.
        folder.reach(Path::new("."), OFlags::PATH)?;
        Ok(folder)
    }

    fn reach(&self, path: &RelativePath, how: OFlags) -> Result<OwnedFd, Errno> {
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        openat2(&self.0, path, how | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), inside)
    }

    /// What is there.
    pub(super) fn stat(&self, path: &RelativePath) -> Result<Stat, Errno> {
        fstat(self.reach(path, OFlags::PATH)?)
    }

    /// What a symbolic link says.
    pub(super) fn read_link(&self, path: &RelativePath) -> Result<Vec<u8>, Errno> {
        let link = self.reach(path, OFlags::PATH)?;
        if FileType::from_raw_mode(fstat(&link)?.st_mode) != FileType::Symlink {
            return Err(Errno::INVAL);
        }
        Ok(readlinkat(&link, "", Vec::new())?.into_bytes())
    }

    /// A regular file, to be read. Nothing else is opened: a device could do something at that, and a pipe could wait.
    pub(super) fn open_file(&self, path: &RelativePath) -> Result<File, Errno> {
        let is_file = |stat: Stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !is_file(self.stat(path)?) {
            return Err(Errno::ACCESS);
        }
        let file = self.reach(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        if is_file(fstat(&file)?) { Ok(file.into()) } else { Err(Errno::ACCESS) }
    }

    /// The names in a folder, `.` and `..` first, the others sorted; at most so many.
    pub(super) fn list(&self, path: &RelativePath, most: usize) -> Result<Vec<Entry>, Errno> {
        let folder = self.reach(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut entries = Vec::new();
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if entries.len() >= most {
                return Err(Errno::OVERFLOW);
            }
            entries.push(Entry { name: name.to_vec(), kind: entry.file_type() });
        }
        entries
            .sort_unstable_by(|one, other| (!one.is_dots(), &one.name).cmp(&(!other.is_dots(), &other.name)));
        Ok(entries)
    }

    /// The file system behind the folder.
    pub(super) fn file_system(&self) -> Result<StatFs, Errno> {
        fstatfs(self.reach(Path::new("."), OFlags::RDONLY | OFlags::DIRECTORY)?)
    }
}

/// One component of a path that the guest names.
pub(super) fn component(name: &[u8]) -> Result<&OsStr, Errno> {
    const NAME_MAX: usize = 255;
    if name.len() > NAME_MAX {
        return Err(Errno::NAMETOOLONG);
    }
    let is_component = !name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/');
    if is_component && !name.contains(&0) { Ok(OsStr::from_bytes(name)) } else { Err(Errno::INVAL) }
}

/// Reads a file's bytes at an offset, as many as there are.
pub(super) fn read_at(file: &File, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let at = offset.checked_add(done as u64).ok_or(Errno::INVAL)?;
        match file.read_at(rest, at) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }
    Ok(done)
}
