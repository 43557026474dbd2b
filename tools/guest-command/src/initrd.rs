//! The initial RAM disk of a guest that runs one command.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::archive::Archive;
use crate::collect::{CollectError, Collector};
use crate::protocol::{COMMAND_FILE, Root, Task};

/// The init, a static program: `init/`, built by this crate's build script.
static INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/command-init"));

/// Where the init is in the RAM disk.
pub const INIT_PATH: &str = "/tdvisor/init";
/// What the kernel has to be told: where its first process is, and that a second serial port is to be used.
pub const KERNEL_PARAMETERS: &str = "rdinit=/tdvisor/init 8250.nr_uarts=4";

/// Folders in which the guest looks for programs.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Devices that programs need where the kernel makes none itself: path, permissions, major and minor number.
const DEVICES: [(&str, u32, (u32, u32)); 7] = [
    ("/dev/console", 0o600, (5, 1)),
    ("/dev/null", 0o666, (1, 3)),
    ("/dev/zero", 0o666, (1, 5)),
    ("/dev/random", 0o666, (1, 8)),
    ("/dev/urandom", 0o666, (1, 9)),
    ("/dev/tty", 0o666, (5, 0)),
    ("/dev/ttyS1", 0o600, (4, 65)),
];

/// Where the command comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// This machine: its program and what that needs are taken along.
    Host,
    /// An initial RAM disk of the user's, to which only the init is added.
    Initrd(Vec<u8>),
    /// A folder that the guest gets as its root file system: nothing is taken along.
    Rootfs(PathBuf),
}

/// Something to take along: from where, and to where if not to the same path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// On this machine.
    pub from: PathBuf,
    /// In the guest, an absolute path.
    pub to: Option<PathBuf>,
}

/// Makes the RAM disk of a guest that runs these words in this folder. The same files give the same bytes.
///
/// # Errors
/// [`CollectError`].
pub fn initrd(
    source: Source,
    directory: &Path,
    words: &[OsString],
    copies: &[Copy],
) -> Result<Vec<u8>, CollectError> {
    let search = std::env::var_os("PATH").unwrap_or_else(|| SEARCH_PATH.into());
    let folders = std::env::split_paths(&search).filter(|folder| folder.is_absolute()).collect();
    let mut collector = Collector::new(folders);
    let mut arguments: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
    let is_host = matches!(source, Source::Host);
    if is_host {
        let program = collector.command(directory, words)?;
        if let Some(first) = arguments.first_mut() {
            *first = program.as_os_str().as_bytes().to_vec();
        }
    }
    for copy in copies {
        collector.copy(&directory.join(&copy.from), copy.to.as_deref())?;
    }
    let mut archive = collector.into_archive();
    // The folder exists in the guest even where nothing of it is needed. One that a link leads to is there already.
    let directory = match &source {
        Source::Host => directory,
        // The folder in which the command was typed, where the other root has it as well.
        Source::Rootfs(root) if directory.strip_prefix("/").is_ok_and(|below| root.join(below).is_dir()) => {
            directory
        }
        Source::Initrd(_) | Source::Rootfs(_) => Path::new("/"),
    };
    let root = if matches!(source, Source::Rootfs(_)) { Root::Shared } else { Root::RamDisk };
    if !archive.has(directory) {
        archive.folder(directory, 0o755);
    }
    let task = Task {
        root,
        directory: directory.as_os_str().as_bytes().to_vec(),
        environment: [format!("PATH={SEARCH_PATH}"), "HOME=/root".into(), "TERM=dumb".into()]
            .map(String::into_bytes)
            .to_vec(),
        arguments,
    };
    add_init(&mut archive, &task);
    let mut bytes = archive.into_bytes();
    // The kernel unpacks one after the other. A compressed one comes last: not every form of them has an end of its own.
    if let Source::Initrd(own) = source {
        bytes.extend(own);
    }
    Ok(bytes)
}

fn add_init(archive: &mut Archive, task: &Task) {
    archive.file(Path::new(INIT_PATH), 0o755, INIT.to_vec());
    archive.file(Path::new(COMMAND_FILE), 0o644, task.encode());
    for (path, permissions, numbers) in DEVICES {
        archive.device(Path::new(path), permissions, numbers);
    }
    for folder in ["/proc", "/sys", "/tmp", "/run", "/root"] {
        if !archive.has(Path::new(folder)) {
            archive.folder(Path::new(folder), 0o755);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_command_makes_the_same_bytes() {
        let words: Vec<OsString> = ["sh", "-c", "true"].map(OsString::from).to_vec();
        let make = || initrd(Source::Host, Path::new("/"), &words, &[]).unwrap();
        assert!(make() == make());
    }

    #[test]
    fn the_init_stands_before_an_initial_ram_disk_of_the_users() {
        let mine = b"mine!".to_vec();
        let words: Vec<OsString> = vec!["no-such-program-here".into()];
        let made = initrd(Source::Initrd(mine), Path::new("/"), &words, &[]).unwrap();
        assert!(made.starts_with(b"070701") && made.ends_with(b"TRAILER!!!\0\0\0\0mine!"));
    }

    #[test]
    fn a_command_of_a_root_file_system_begins_where_it_was_typed_if_that_is_there() {
        let words: Vec<OsString> = vec!["no-such-program-here".into()];
        let root = Source::Rootfs(concat!(env!("CARGO_MANIFEST_DIR"), "/src/..").into());
        for (typed, begins) in [("/src", "/src"), ("/init/src", "/init/src"), ("/nowhere", "/")] {
            let made = initrd(root.clone(), Path::new(typed), &words, &[]).unwrap();
            let wanted = format!("{}\0{begins}\0", crate::protocol::ROOT_TAG);
            assert!(made.windows(wanted.len()).any(|part| part == wanted.as_bytes()), "{typed}");
        }
    }

    #[test]
    fn the_init_is_a_static_program() {
        let needs = crate::elf::needs(Path::new(INIT_PATH), INIT).expect("an x86-64 ELF file");
        assert_eq!((needs.loader, needs.libraries), (None, Vec::new()));
    }
}
