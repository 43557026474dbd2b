//! What survives the service.
//!
//! # Form
//! ```text
//! DIR/lock              locked by the service that uses the directory
//! DIR/tds/NAME/td.json  what the TD was asked for with, how far it came, and its report
//! DIR/tds/NAME/console  what its guest said
//! DIR/tds/NAME/trace    its SEAMCALLs, if it was asked for with them
//! DIR/tds/NAME/page     the inspector's page of it, if it was asked for with one
//! DIR/tds/NAME/dump     what it held, if it was asked for as inspectable and with a dump
//! DIR/tds/NAME/snapshot the TD as it was saved last, if it was asked for with snapshots and saved
//! DIR/tds/NAME/saving   a snapshot that is being written, or was when its worker died: it is nothing until it is `snapshot`
//! DIR/tds/NAME/gdb      while it runs, the socket of its debugger, if it was asked for with one
//! DIR/tds/.new-NAME     a TD that is being created: it is nothing until it has its name
//! ```
//! The directory and all in it are their owner's alone. A record is replaced whole.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tdvisor_runtime::backend::BackendKind;

use crate::worker::{TdPayload, TdRequest, is_name};

/// The version of a record.
const SCHEMA: u32 = 1;
/// In front of the name of a TD that is being created.
const NEW: &str = ".new-";
/// Bytes of the largest record that is read: reports are far smaller.
const RECORD_MAX: u64 = 64 << 20;

/// How far a TD came.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kept {
    Created,
    Booted,
    Ended,
    Died,
}

/// A TD as it is kept.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct Record {
    schema: u32,
    pub(super) name: String,
    pub(super) request: TdRequest,
    pub(super) state: Kept,
    /// Why the TD died.
    pub(super) reason: Option<String>,
    /// What there was to say at its end.
    pub(super) report: Option<Value>,
}

impl Record {
    pub(super) const fn new(name: String, request: TdRequest) -> Self {
        Self { schema: SCHEMA, name, request, state: Kept::Created, reason: None, report: None }
    }

    /// What is left of one that cannot be read.
    fn lost(name: String, problem: &dyn std::fmt::Display) -> Self {
        let payload =
            TdPayload { firmware: None, kernel: None, cmdline: None, initramfs: None, mrconfigid: None };
        let request = TdRequest {
            name: None,
            backend: BackendKind::default(),
            vcpus: 0,
            memory: 0,
            payload,
            disks: Vec::new(),
            network: false,
            inject: None,
            trace: false,
            inspector: false,
            inspectable: false,
            deterministic: None,
            snapshot: false,
            dump: false,
            gdb: false,
        };
        let reason = Some(format!("its record cannot be read: {problem}"));
        Self { state: Kept::Died, reason, ..Self::new(name, request) }
    }
}

/// The state directory.
#[derive(Debug)]
pub(super) struct Store {
    tds: PathBuf,
    /// Locked for as long as it is open.
    _lock: File,
}

fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn create_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn read(path: &Path) -> io::Result<Record> {
    let mut bytes = Vec::new();
    File::open(path)?.take(RECORD_MAX).read_to_end(&mut bytes)?;
    let record: Record = serde_json::from_slice(&bytes)?;
    if record.schema != SCHEMA {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is of another version"));
    }
    Ok(record)
}

impl Store {
    /// Takes the directory, removes what was never finished, and gives the TDs that are there.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Vec<Record>)> {
        make(&path.join("tds"))?;
        // Workers have another folder for relative paths.
        let path = fs::canonicalize(path)?;
        let tds = path.join("tds");
        let lock = create_file(&path.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another service uses this directory"));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let mut records = Vec::new();
        for folder in fs::read_dir(&tds)? {
            let folder = folder?;
            let Ok(name) = folder.file_name().into_string() else { continue };
            if name.starts_with(NEW) {
                fs::remove_dir_all(folder.path())?;
            } else if is_name(&name) {
                records.push(match read(&folder.path().join("td.json")) {
                    Ok(record) => Record { name, ..record },
                    Err(error) => Record::lost(name, &error),
                });
            }
        }
        Ok((Self { tds, _lock: lock }, records))
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.tds.join(name)
    }

    /// The file of a TD's console.
    pub(super) fn console_path(&self, name: &str) -> PathBuf {
        self.folder(name).join("console")
    }

    /// The file of a TD's SEAMCALLs.
    pub(super) fn trace_path(&self, name: &str) -> PathBuf {
        self.folder(name).join("trace")
    }

    /// The file of the inspector's page of a TD.
    pub(super) fn page_path(&self, name: &str) -> PathBuf {
        self.folder(name).join("page")
    }

    /// The file of what a TD held.
    pub(super) fn dump_path(&self, name: &str) -> PathBuf {
        self.folder(name).join("dump")
    }

    /// The file of a TD that was saved.
    pub(super) fn snapshot_path(&self, name: &str) -> PathBuf {
        self.folder(name).join("snapshot")
    }

    /// The file of a TD that is being saved.
    pub(super) fn saving_path(&self, name: &str) -> PathBuf {
        self.folder(name).join("saving")
    }

    /// Takes a whole snapshot in place of the one that is there.
    pub(super) fn keep_snapshot(&self, name: &str) -> io::Result<()> {
        fs::rename(self.saving_path(name), self.snapshot_path(name))?;
        File::open(self.folder(name))?.sync_all()
    }

    /// Makes the file that the next snapshot is written to, empty.
    pub(super) fn make_saving(&self, name: &str) -> io::Result<()> {
        create_file(&self.saving_path(name)).map(drop)
    }

    /// Bytes of a TD as it was saved last; `None` if it was not.
    pub(super) fn saved(&self, name: &str) -> Option<u64> {
        fs::metadata(self.snapshot_path(name)).ok().map(|data| data.len())
    }

    /// The socket of a TD's debugger.
    pub(super) fn gdb_path(&self, name: &str) -> PathBuf {
        self.folder(name).join("gdb")
    }

    /// Removes the socket of a debugger that is gone, which its worker could not.
    pub(super) fn remove_gdb(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.gdb_path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes the folder of a TD: all of it, or nothing.
    pub(super) fn create(&self, record: &Record) -> io::Result<()> {
        let new = self.tds.join(format!("{NEW}{}", record.name));
        make(&new)?;
        let request = &record.request;
        let mut files = [
            ("console", true),
            ("trace", request.trace),
            ("page", request.inspector),
            ("dump", request.dump),
        ]
        .into_iter()
        .filter_map(|(name, is_asked)| is_asked.then_some(name));
        let made = files
            .try_for_each(|name| create_file(&new.join(name)).map(drop))
            .and_then(|()| write(&new.join("td.json"), record))
            .and_then(|()| fs::rename(&new, self.folder(&record.name)));
        if made.is_err() {
            let _ = fs::remove_dir_all(&new);
        }
        made
    }

    /// Replaces the record of a TD.
    pub(super) fn write(&self, record: &Record) -> io::Result<()> {
        let path = self.folder(&record.name).join("td.json");
        let part = path.with_extension("part");
        write(&part, record)?;
        fs::rename(part, path)
    }

    /// Removes a TD. Half of it is nothing.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        let gone = self.tds.join(format!("{NEW}{name}"));
        match fs::rename(self.folder(name), &gone) {
            Ok(()) => fs::remove_dir_all(gone),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What is in the file of a TD's console.
    pub(super) fn console(&self, name: &str, most: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match File::open(self.console_path(name)) {
            Ok(file) => file.take(most).read_to_end(&mut bytes).map(|_| bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(bytes),
            Err(error) => Err(error),
        }
    }

    /// Whole lines of the file of a TD's SEAMCALLs, from this byte on and at most so many bytes.
    pub(super) fn trace(&self, name: &str, from: u64, most: u64) -> io::Result<Vec<u8>> {
        let mut bytes = piece(&self.trace_path(name), from, most)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        bytes.truncate(whole);
        Ok(bytes)
    }

    /// The inspector's page of a TD, which has so many bytes.
    pub(super) fn page(&self, name: &str, bytes: u64) -> io::Result<Vec<u8>> {
        piece(&self.page_path(name), 0, bytes)
    }

    /// What a TD held, from this byte on and at most so many bytes.
    pub(super) fn dump(&self, name: &str, from: u64, most: u64) -> io::Result<Vec<u8>> {
        piece(&self.dump_path(name), from, most)
    }
}

/// A piece of a file.
fn piece(path: &Path, from: u64, most: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    // A place behind what a file system can hold is an error to it, not one without bytes.
    if from >= file.metadata()?.len() {
        return Ok(bytes);
    }
    file.seek(SeekFrom::Start(from))?;
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn write(path: &Path, record: &Record) -> io::Result<()> {
    let mut file = create_file(path)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(name: &str) -> Record {
        let request = serde_json::from_value(json!({"payload": {"firmware": "hello-td"}})).unwrap();
        Record::new(name.to_owned(), request)
    }

    #[test]
    fn behind_the_end_of_a_file_there_is_nothing_however_far_behind() {
        let path = std::env::temp_dir().join(format!("tdvisor-piece-{}", std::process::id()));
        fs::write(&path, "line\n").unwrap();
        let largest = i64::MAX as u64;
        for (from, bytes) in [
            (0, "line\n"),
            (4, "\n"),
            (5, ""),
            (largest, ""),
            (largest + 1, ""),
            (u64::MAX - 1, ""),
            (u64::MAX, ""),
        ] {
            assert_eq!(piece(&path, from, u64::MAX).unwrap(), bytes.as_bytes(), "from {from}");
        }
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_was_kept_is_there_again_and_what_was_never_finished_is_not() {
        let folder = std::env::temp_dir().join(format!("tdvisor-store-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let (store, records) = Store::open(&folder).unwrap();
        assert!(records.is_empty());
        store.create(&record("whole")).unwrap();
        store.create(&record("gone")).unwrap();
        store.create(&record("broken")).unwrap();
        store.remove("gone").unwrap();
        store.remove("gone").unwrap();
        fs::create_dir(folder.join("tds/.new-half")).unwrap();
        fs::write(folder.join("tds/broken/td.json"), "{").unwrap();
        assert!(Store::open(&folder).is_err(), "another service uses it");
        drop(store);
        let (_store, mut records) = Store::open(&folder).unwrap();
        records.sort_by(|one, other| one.name.cmp(&other.name));
        let [broken, whole] = &records[..] else { panic!("{records:?}") };
        assert_eq!(*whole, record("whole"));
        assert_eq!((broken.name.as_str(), broken.state), ("broken", Kept::Died));
        assert!(broken.reason.as_ref().unwrap().contains("cannot be read"));
        assert!(!folder.join("tds/.new-half").exists());
        fs::remove_dir_all(folder).unwrap();
    }
}
