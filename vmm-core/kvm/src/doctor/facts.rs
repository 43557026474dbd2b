//! What a machine's files say.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The most that is read of one file.
const MOST: u64 = 4 << 20;

/// The files of a machine.
pub(super) struct Facts {
    root: PathBuf,
    /// /proc/cpuinfo, of the first processor.
    cpu: String,
    /// The kernel's log.
    log: Option<String>,
}

impl Facts {
    pub(super) fn of(root: &Path) -> Self {
        let mut facts = Self { root: root.to_owned(), cpu: String::new(), log: None };
        let cpus = facts.read("proc/cpuinfo").unwrap_or_default();
        facts.cpu = cpus.split("\n\n").next().unwrap_or_default().to_owned();
        facts.log = facts.kernel_log();
        facts
    }

    /// A file, without the white space at its end; `None` where it is not there or may not be read.
    pub(super) fn read(&self, path: &str) -> Option<String> {
        let mut bytes = Vec::new();
        File::open(self.root.join(path)).ok()?.take(MOST).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// A line "name : value" of the first processor.
    pub(super) fn cpu(&self, name: &str) -> Option<&str> {
        self.cpu
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.trim() == name)
            .map(|(_, value)| value.trim())
    }

    pub(super) fn has_cpu_flag(&self, flag: &str) -> bool {
        self.cpu("flags").is_some_and(|flags| flags.split_whitespace().any(|other| other == flag))
    }

    /// A model-specific register of the first processor: its number is the place in the file.
    pub(super) fn msr(&self, index: u32) -> Option<u64> {
        let mut bytes = [0; 8];
        let file = File::open(self.root.join("dev/cpu/0/msr")).ok()?;
        file.read_exact_at(&mut bytes, index.into()).ok()?;
        Some(u64::from_le_bytes(bytes))
    }

    /// The last line of the kernel's log that has these words.
    pub(super) fn logged(&self, words: &str) -> Option<&str> {
        self.log.as_deref()?.lines().rev().find(|line| line.contains(words))
    }

    /// Whether the kernel's log can be read from its beginning.
    pub(super) fn has_log(&self) -> bool {
        self.log.is_some()
    }

    /// The messages of /dev/kmsg, one a line. Each read gives one record, and none waits for the next.
    fn kernel_log(&self) -> Option<String> {
        const RECORD: usize = 8192;
        let mut options = File::options();
        let mut file =
            options.read(true).custom_flags(libc::O_NONBLOCK).open(self.root.join("dev/kmsg")).ok()?;
        let mut text = String::new();
        let mut record = vec![0; RECORD];
        while let Ok(count @ 1..) = file.read(&mut record) {
            text.push_str(&String::from_utf8_lossy(record.get(..count).unwrap_or_default()));
            if text.len() as u64 > MOST {
                break;
            }
        }
        Some(text)
    }
}
