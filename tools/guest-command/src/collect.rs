//! From a command of this machine to the files that it needs in a guest.
//!
//! Files keep the paths that they have here, symbolic links on the way included, so that a program finds in the guest
//! what it finds here. A program brings its loader and libraries; a script its interpreter and, if that is a shell, the
//! programs that its words name. Nothing is executed to find this out.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use crate::archive::Archive;
use crate::{elf, script};

/// Most bytes that go into one guest.
pub const MAX_BYTES: u64 = 1 << 30;
/// Symbolic links that are followed on one path, as Linux does.
const MAX_LINKS: usize = 40;
/// Scripts that call scripts.
const MAX_DEPTH: usize = 8;
/// Where libraries are, after the folders that a file and the system's configuration name.
const LIBRARY_FOLDERS: [&str; 6] =
    ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"];
const LOADER_CONFIGURATION: &str = "/etc/ld.so.conf.d";
const LOADER_CACHE: &str = "/etc/ld.so.cache";

/// A command cannot be taken along.
#[derive(Debug)]
pub enum CollectError {
    /// The program is not on this machine.
    NoProgram(PathBuf),
    /// A file cannot be read.
    File(PathBuf, io::Error),
    /// A library that a program needs is not on this machine.
    NoLibrary(PathBuf, PathBuf),
    /// Too many symbolic links.
    Links(PathBuf),
    /// The files are too large together.
    TooLarge,
}

impl fmt::Display for CollectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProgram(path) => write!(f, "{}: no such program here", path.display()),
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::NoLibrary(path, library) => {
                write!(f, "{}: its library {} is not found here", path.display(), library.display())
            }
            Self::Links(path) => write!(f, "{}: symbolic links without an end", path.display()),
            Self::TooLarge => write!(f, "the command and its files have more than {} MiB", MAX_BYTES >> 20),
        }
    }
}

impl std::error::Error for CollectError {}

/// Collects files into an archive.
#[derive(Debug, Default)]
pub struct Collector {
    archive: Archive,
    /// Programs and libraries whose needs are met.
    met: BTreeSet<PathBuf>,
    /// Where programs are looked for.
    search_path: Vec<PathBuf>,
}

impl Collector {
    /// Nothing yet; programs are looked for in these folders.
    pub fn new(search_path: Vec<PathBuf>) -> Self {
        Self { search_path, ..Self::default() }
    }

    /// What was collected.
    pub fn into_archive(self) -> Archive {
        self.archive
    }

    /// Takes along a command: its program, and what its arguments name, where that can be told. Relative paths are of
    /// `directory`. Gives the program's path.
    ///
    /// # Errors
    /// [`CollectError`].
    pub fn command(&mut self, directory: &Path, words: &[OsString]) -> Result<PathBuf, CollectError> {
        let name = words.first().map(OsString::as_os_str).unwrap_or_default();
        let Some(program) = self.find(directory, name) else {
            return Err(CollectError::NoProgram(name.into()));
        };
        self.program(directory, &program, 0)?;
        for word in words.iter().skip(1) {
            // A script given to an interpreter is found where the command runs; its data are the user's to name.
            let path = directory.join(word);
            if is_file(&path) {
                self.program(directory, &path, 0)?;
            } else if is_shell(&program) {
                self.words(directory, word.as_encoded_bytes(), 0)?;
            }
        }
        Ok(program)
    }

    /// Takes along a file, or a folder with all that is in it, to the same place or another.
    ///
    /// # Errors
    /// [`CollectError`].
    pub fn copy(&mut self, from: &Path, to: Option<&Path>) -> Result<(), CollectError> {
        match to {
            Some(to) => self.tree(from, to),
            None => {
                let real = self.walk(from)?;
                self.tree(&real, &real)
            }
        }
    }

    /// A program by its path, or by its name in the search path; a file that may be executed.
    fn find(&self, directory: &Path, name: &OsStr) -> Option<PathBuf> {
        if name.as_encoded_bytes().contains(&b'/') {
            return Some(directory.join(name)).filter(|path| is_program(path));
        }
        self.search_path.iter().map(|folder| folder.join(name)).find(|path| is_program(path))
    }

    /// A program or script, with what it needs.
    fn program(&mut self, directory: &Path, path: &Path, depth: usize) -> Result<(), CollectError> {
        let real = self.walk(path)?;
        if !self.met.insert(real.clone()) || depth > MAX_DEPTH {
            return Ok(());
        }
        let file = self.file(&real, &real)?;
        if let Some(needs) = elf::needs(&real, &file) {
            return self.libraries(&real, needs);
        }
        let Some(first) = script::interpreter(&file) else {
            return Ok(());
        };
        let mut interpreters = vec![first.program];
        if let Some(name) = first.by_env {
            interpreters.extend(self.find(directory, OsStr::new(&name)));
        }
        for interpreter in &interpreters {
            if !is_program(interpreter) {
                return Err(CollectError::NoProgram(interpreter.clone()));
            }
            self.program(directory, interpreter, depth + 1)?;
        }
        if interpreters.last().is_some_and(|last| is_shell(last)) {
            self.words(directory, &file, depth + 1)?;
        }
        Ok(())
    }

    /// The programs that a shell's text names.
    fn words(&mut self, directory: &Path, text: &[u8], depth: usize) -> Result<(), CollectError> {
        for word in script::words(text) {
            if let Some(program) = self.find(directory, OsStr::new(&word)) {
                self.program(directory, &program, depth)?;
            }
        }
        Ok(())
    }

    fn libraries(&mut self, path: &Path, needs: elf::Needs) -> Result<(), CollectError> {
        if let Some(loader) = &needs.loader {
            self.library(loader)?;
            if Path::new(LOADER_CACHE).is_file() && !self.archive.has(Path::new(LOADER_CACHE)) {
                self.copy(Path::new(LOADER_CACHE), None)?;
            }
        }
        for name in &needs.libraries {
            let found = if name.as_encoded_bytes().contains(&b'/') {
                Some(PathBuf::from(name)).filter(|path| is_file(path))
            } else {
                library_folders(&needs.folders).map(|folder| folder.join(name)).find(|path| is_library(path))
            };
            let Some(found) = found else {
                return Err(CollectError::NoLibrary(path.to_owned(), name.into()));
            };
            self.library(&found)?;
        }
        Ok(())
    }

    fn library(&mut self, path: &Path) -> Result<(), CollectError> {
        let real = self.walk(path)?;
        if !self.met.insert(real.clone()) {
            return Ok(());
        }
        let file = self.file(&real, &real)?;
        elf::needs(&real, &file).map_or(Ok(()), |needs| self.libraries(&real, needs))
    }

    /// Takes along the folders and symbolic links on the way to a path; gives the path that they lead to.
    fn walk(&mut self, path: &Path) -> Result<PathBuf, CollectError> {
        let mut links = 0;
        let mut rest: Vec<PathBuf> = parts(path);
        let mut real = PathBuf::from("/");
        while let Some(part) = rest.pop() {
            if part == Path::new("..") {
                real.pop();
                continue;
            }
            let here = real.join(&part);
            let data =
                fs::symlink_metadata(&here).map_err(|error| CollectError::File(here.clone(), error))?;
            if data.is_symlink() {
                links += 1;
                if links > MAX_LINKS {
                    return Err(CollectError::Links(path.to_owned()));
                }
                let target = fs::read_link(&here).map_err(|error| CollectError::File(here.clone(), error))?;
                self.archive.link(&here, &target);
                if target.is_absolute() {
                    real = PathBuf::from("/");
                }
                rest.extend(parts(&target));
                continue;
            }
            if data.is_dir() {
                self.archive.folder(&here, data.permissions().mode());
            }
            real = here;
        }
        Ok(real)
    }

    /// Takes along one file; gives its contents.
    fn file(&mut self, from: &Path, to: &Path) -> Result<Vec<u8>, CollectError> {
        let failed = |error| CollectError::File(from.to_owned(), error);
        let data = fs::metadata(from).map_err(failed)?;
        if self.archive.bytes().saturating_add(data.len()) > MAX_BYTES {
            return Err(CollectError::TooLarge);
        }
        let contents = fs::read(from).map_err(failed)?;
        self.archive.file(to, data.permissions().mode(), contents.clone());
        Ok(contents)
    }

    /// A file, link or folder with all below it; what is none of these stays here.
    fn tree(&mut self, from: &Path, to: &Path) -> Result<(), CollectError> {
        let failed = |error| CollectError::File(from.to_owned(), error);
        let data = fs::symlink_metadata(from).map_err(failed)?;
        if data.is_symlink() {
            self.archive.link(to, &fs::read_link(from).map_err(failed)?);
        } else if data.is_dir() {
            self.archive.folder(to, data.permissions().mode());
            for entry in fs::read_dir(from).map_err(failed)? {
                let name = entry.map_err(failed)?.file_name();
                self.tree(&from.join(&name), &to.join(&name))?;
            }
        } else if data.is_file() {
            self.file(from, to)?;
        }
        Ok(())
    }
}

/// The parts of a path, last part first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let kept = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    let mut parts: Vec<_> = kept.map(|part| PathBuf::from(part.as_os_str())).collect();
    parts.reverse();
    parts
}

fn library_folders(of_the_file: &[PathBuf]) -> impl Iterator<Item = PathBuf> {
    let configured = fs::read_dir(LOADER_CONFIGURATION).into_iter().flatten().flatten();
    let configured = configured.filter_map(|entry| fs::read_to_string(entry.path()).ok()).flat_map(|text| {
        let lines = text.lines().map(str::trim).filter(|line| line.starts_with('/'));
        lines.map(PathBuf::from).collect::<Vec<_>>()
    });
    of_the_file.iter().cloned().chain(configured).chain(LIBRARY_FOLDERS.map(PathBuf::from))
}

fn is_file(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|data| data.is_file())
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

fn is_library(path: &Path) -> bool {
    fs::read(path).is_ok_and(|file| elf::needs(path, &file).is_some())
}

fn is_shell(path: &Path) -> bool {
    path.file_name().is_some_and(|name| script::is_shell(&name.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder of one test.
    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("guest-command-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        fs::canonicalize(path).unwrap()
    }

    fn script(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn collected(directory: &Path, words: &[&str]) -> Archive {
        let mut collector = Collector::new(vec!["/usr/bin".into(), "/bin".into()]);
        let words: Vec<OsString> = words.iter().map(Into::into).collect();
        collector.command(directory, &words).unwrap();
        collector.into_archive()
    }

    #[test]
    fn a_shell_brings_its_loader_its_library_and_the_links_on_the_way() {
        let archive = collected(Path::new("/"), &["sh", "-c", "echo hi; exit 7"]);
        let found = |path: &Path| assert!(archive.has(path), "{}", path.display());
        found(&fs::canonicalize("/bin/sh").unwrap());
        found(&fs::canonicalize("/lib64/ld-linux-x86-64.so.2").unwrap());
        found(Path::new("/lib64"));
    }

    #[test]
    fn a_script_brings_its_interpreter_the_programs_it_names_and_the_scripts_it_calls() {
        let folder = folder("script");
        script(&folder.join("test.sh"), "#!/bin/sh\n./helper.sh | grep -c x\n");
        script(&folder.join("helper.sh"), "#!/bin/sh\nsort \"$1\"\n");
        let archive = collected(&folder, &["./test.sh"]);
        for path in ["test.sh", "helper.sh"] {
            assert!(archive.has(&folder.join(path)), "{path}");
        }
        for program in ["grep", "sort"] {
            let real = fs::canonicalize(Path::new("/usr/bin").join(program)).unwrap();
            assert!(archive.has(&real), "{program}");
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_program_that_is_not_here_and_links_in_a_circle_are_refused() {
        let folder = folder("circle");
        symlink(folder.join("b"), folder.join("a")).unwrap();
        symlink(folder.join("a"), folder.join("b")).unwrap();
        let mut collector = Collector::new(vec![folder.clone()]);
        let missing = collector.command(&folder, &["no-such-program".into()]);
        assert!(matches!(missing, Err(CollectError::NoProgram(_))), "{missing:?}");
        assert!(matches!(collector.walk(&folder.join("a")), Err(CollectError::Links(_))));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_folder_is_copied_with_its_links_to_the_place_that_was_asked_for() {
        let folder = folder("copy");
        fs::create_dir(folder.join("data")).unwrap();
        fs::write(folder.join("data/file"), "x").unwrap();
        symlink("file", folder.join("data/link")).unwrap();
        let mut collector = Collector::new(Vec::new());
        collector.copy(&folder.join("data"), Some(Path::new("/srv"))).unwrap();
        let archive = collector.into_archive();
        assert!(archive.has(Path::new("/srv/file")) && archive.has(Path::new("/srv/link")));
        fs::remove_dir_all(folder).unwrap();
    }
}
