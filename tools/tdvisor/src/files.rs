//! The files of a command: none is written that is also read, or written twice, and those to be written are opened before
//! the work begins.
//!
//! Two names are one file if the file system says so, whatever links lead to it; a file that does not exist yet is known by its
//! folder and name. Character devices (`/dev/null`, a terminal) can be everything at once.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use crate::outcome::Failure;

/// Symbolic links in a row that are followed; the kernel's own bound.
const MOST_LINKS: usize = 40;

/// What a command does with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Read,
    Written,
}

/// Which file it is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Identity {
    /// File system and number of an existing file.
    Existing(u64, u64),
    /// A block device by its number, whatever node leads to it.
    Device(u64),
    /// A file that will be made.
    New(PathBuf),
}

/// The files that a command uses.
#[derive(Debug)]
pub struct Claims(Vec<Claim>);

#[derive(Debug)]
struct Claim {
    /// How the user names it: an option, or a standard stream.
    what: &'static str,
    file: Identity,
    used: Use,
}

impl Claims {
    /// Nothing yet but the standard streams, where those are files.
    pub fn new() -> Self {
        let stream = |what, stream: Option<io::Result<std::os::fd::OwnedFd>>| {
            let data = File::from(stream?.ok()?).metadata().ok()?;
            let file = Identity::Existing(data.dev(), data.ino());
            data.is_file().then_some(Claim { what, file, used: Use::Written })
        };
        let out = stream("standard output", Some(io::stdout().as_fd().try_clone_to_owned()));
        let err = stream("standard error", Some(io::stderr().as_fd().try_clone_to_owned()));
        Self(out.into_iter().chain(err).collect())
    }

    /// A file that is read.
    ///
    /// # Errors
    /// [`Failure::Input`]: something else writes it.
    pub fn reads(&mut self, what: &'static str, path: &Path) -> Result<(), Failure> {
        self.claim(what, path, Use::Read)
    }

    /// A file that is written.
    ///
    /// # Errors
    /// [`Failure::Input`]: something else reads or writes it.
    pub fn writes(&mut self, what: &'static str, path: &Path) -> Result<(), Failure> {
        self.claim(what, path, Use::Written)
    }

    fn claim(&mut self, what: &'static str, path: &Path, used: Use) -> Result<(), Failure> {
        let Some(file) = identity(path) else { return Ok(()) };
        let rival =
            self.0.iter().find(|claim| claim.file == file && (claim.used, used) != (Use::Read, Use::Read));
        if let Some(rival) = rival {
            let problem =
                format!("{what} and {} are the same file, and would destroy each other", rival.what);
            return Err(Failure::input(path.display(), problem));
        }
        self.0.push(Claim { what, file, used });
        Ok(())
    }
}

/// Which file a path names; `None` for what is nobody's in particular, and what cannot be looked at.
fn identity(path: &Path) -> Option<Identity> {
    if let Ok(data) = fs::metadata(path) {
        let kind = data.file_type();
        return if kind.is_char_device() {
            None
        } else if kind.is_block_device() {
            Some(Identity::Device(data.rdev()))
        } else {
            Some(Identity::Existing(data.dev(), data.ino()))
        };
    }
    // A link that leads nowhere yet names the file that opening it makes.
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let Ok(target) = fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Some(Identity::New(folder.canonicalize().ok()?.join(path.file_name()?)))
}

/// A file that will be written at the end of a command, and can be: it was opened at the start. What it held stays until
/// then; if nothing is written, a file that did not exist goes away again.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    file: File,
    /// To be removed: it was made here, and nothing is in it.
    is_new: bool,
}

impl Output {
    /// Opens, or makes, the file at `path`.
    ///
    /// # Errors
    /// [`Failure::Input`]: it cannot be written, or is a pipe that nobody reads.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let is_new = fs::symlink_metadata(path).is_err();
        let file = writable(path).map_err(|error| Failure::input(path.display(), error))?;
        Ok(Self { path: path.to_owned(), file, is_new })
    }

    /// The file at its beginning, emptied, for output that comes bit by bit.
    ///
    /// # Errors
    /// [`Failure::Input`]: it cannot be emptied.
    pub fn into_stream(mut self) -> Result<File, Failure> {
        self.is_new = false;
        empty(&self.file)
            .and_then(|()| self.file.try_clone())
            .map_err(|error| Failure::input(self.path.display(), error))
    }

    /// Replaces what the file holds.
    ///
    /// # Errors
    /// [`Failure::Output`]: it is not, or not all, written.
    pub fn write(mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.is_new = false;
        empty(&self.file)
            .and_then(|()| self.file.write_all(bytes))
            .and_then(|()| self.file.flush())
            .map_err(|error| Failure::output(self.path.display(), error))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.is_new {
            // It is empty, and nobody asked for an empty file.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens a file for writing without waiting for somebody who reads it.
fn writable(path: &Path) -> io::Result<File> {
    let open = |flags: OFlag| {
        OpenOptions::new().write(true).create(true).truncate(false).custom_flags(flags.bits()).open(path)
    };
    let file = open(OFlag::O_NONBLOCK)?;
    // A pipe that has a reader does not block any more; of what is no file, writes are to block, not to fail.
    if file.metadata()?.is_file() { Ok(file) } else { open(OFlag::empty()) }
}

/// Empties what can be emptied; a pipe or a device cannot.
fn empty(file: &File) -> io::Result<()> {
    if file.metadata()?.is_file() { file.set_len(0) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder of one test, removed at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("tdvisor-files-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn one_file_under_two_names_is_not_read_and_written() {
        let folder = Folder::new("names");
        let disk = folder.path("disk");
        fs::write(&disk, b"precious").unwrap();
        fs::create_dir(folder.path("sub")).unwrap();
        symlink(&disk, folder.path("symlink")).unwrap();
        fs::hard_link(&disk, folder.path("hardlink")).unwrap();
        for name in ["disk", "./disk", "sub/../disk", "symlink", "hardlink"] {
            let mut claims = Claims(Vec::new());
            claims.reads("--disk", &disk).unwrap();
            let said = claims.writes("--trace", &folder.path(name)).unwrap_err().to_string();
            assert!(said.contains("--disk") && said.contains("--trace"), "{name}: {said}");
            let mut claims = Claims(Vec::new());
            claims.writes("--trace", &folder.path(name)).unwrap();
            claims.reads("--disk", &disk).unwrap_err();
        }
    }

    #[test]
    fn two_outputs_are_two_files_also_before_there_are_any() {
        let folder = Folder::new("outputs");
        symlink(folder.path("new"), folder.path("dangling")).unwrap();
        for name in ["new", "./new", "dangling"] {
            let mut claims = Claims(Vec::new());
            claims.writes("--trace", &folder.path("new")).unwrap();
            claims.writes("--quote", &folder.path(name)).unwrap_err();
            claims.writes("--quote", &folder.path("other")).unwrap();
        }
        let mut claims = Claims(Vec::new());
        for what in ["--trace", "--quote"] {
            claims.writes(what, Path::new("/dev/null")).unwrap();
        }
        claims.reads("--kernel", &folder.path("new")).unwrap();
        claims.reads("--initrd", &folder.path("new")).unwrap();
    }

    #[test]
    fn an_output_keeps_what_was_there_until_it_is_written_and_leaves_nothing_if_it_is_not() {
        let folder = Folder::new("kept");
        let (old, new) = (folder.path("old"), folder.path("new"));
        fs::write(&old, b"what was there before").unwrap();
        drop((Output::open(&old).unwrap(), Output::open(&new).unwrap()));
        assert_eq!(fs::read(&old).unwrap(), b"what was there before");
        assert!(!new.exists());
        Output::open(&old).unwrap().write(b"short").unwrap();
        assert_eq!(fs::read(&old).unwrap(), b"short");
    }

    #[test]
    fn what_cannot_be_written_is_named_before_the_work() {
        let folder = Folder::new("refused");
        let pipe = folder.path("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [folder.path("no/such/folder"), folder.0.clone(), pipe] {
            let said = Output::open(&path).unwrap_err().to_string();
            assert!(said.starts_with(&path.display().to_string()), "{said}");
        }
        let failure = Output::open(Path::new("/dev/full")).unwrap().write(b"x").unwrap_err();
        assert!(matches!(failure, Failure::Output(_)), "{failure}");
    }
}
