//! What a worker writes of its TD: the inspector's page, and what a TD holds that is inspectable, to look at or to go on from.
//!
//! # Protocol
//! The files are there and are opened before the worker gives up opening any. They are written anew while the TD is paused,
//! whenever that is asked for, and when it has ended, before it is torn down. One that cannot be written keeps nobody from going
//! on: the report says so.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek as _, Write};
use std::sync::Arc;

use machine_emu::journal::Journal;
use machine_emu::trace::Trace;
use serde_json::{Value, json};
use tdvisor_inspector::About;
use tdvisor_runtime::Ended;
use tdvisor_runtime::dump::{Dump, DumpError};
use tdvisor_runtime::inspect::Inspection;
use tdvisor_runtime::saved::SaveTdError;

use super::protocol::Plan;

/// Bytes of the largest page: what a client takes at once.
pub(super) const PAGE_MAX: u64 = 64 << 20;
/// Bytes of a dump that are written at a time.
const PIECE: usize = 1 << 20;

/// A file, and how much may be in it.
struct Bounded {
    file: File,
    most: u64,
}

/// The files of a TD.
pub(super) struct KeptFiles {
    page: Option<(Bounded, Arc<Journal>)>,
    dump: Option<Bounded>,
    saving: Option<Bounded>,
}

/// A file that is being written.
struct Writing<'f> {
    file: &'f File,
    left: u64,
    /// Whether its writer has to give up.
    is_unwanted: &'f dyn Fn() -> bool,
}

impl Write for Writing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more than the TD's room for it"));
        }
        if (self.is_unwanted)() {
            return Err(io::Error::other("the TD has to end"));
        }
        let written = self.file.write(bytes)?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Bounded {
    fn open(path: &str, most: u64) -> io::Result<Self> {
        Ok(Self { file: OpenOptions::new().write(true).truncate(true).open(path)?, most })
    }

    /// Empties it, to be written anew.
    fn begin<'f>(&'f self, is_unwanted: &'f dyn Fn() -> bool) -> io::Result<Writing<'f>> {
        self.file.set_len(0)?;
        (&self.file).rewind()?;
        Ok(Writing { file: &self.file, left: self.most, is_unwanted })
    }
}

impl KeptFiles {
    /// Opens the files that a TD is to have.
    ///
    /// # Errors
    /// One is not there.
    pub(super) fn open(plan: &Plan) -> io::Result<Self> {
        let page = plan.inspector.as_deref().map(|path| Bounded::open(path, plan.trace_max.min(PAGE_MAX)));
        let dump = plan.dump.as_deref().map(|path| Bounded::open(path, plan.request.dump_max()));
        let saving = plan.saving.as_deref().map(|path| Bounded::open(path, plan.request.snapshot_max()));
        Ok(Self {
            page: page.transpose()?.map(|file| (file, Arc::default())),
            dump: dump.transpose()?,
            saving: saving.transpose()?,
        })
    }

    /// The trace of a machine whose calls are on the page.
    pub(super) fn keep_calls(&self, trace: Trace) -> Trace {
        match &self.page {
            Some((_, journal)) => trace.with_journal(journal.clone()),
            None => trace,
        }
    }

    /// Whether the page is to be had.
    pub(super) const fn has_page(&self) -> bool {
        self.page.is_some()
    }

    /// Whether the TD is to be dumped.
    pub(super) const fn has_dump(&self) -> bool {
        self.dump.is_some()
    }

    /// Writes the page, and says how large it is.
    ///
    /// # Errors
    /// It is too large, the disk is full, or there is to be none.
    pub(super) fn draw(&self, inspection: &Inspection, about: &About) -> io::Result<Value> {
        let (file, _) = self.page.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let page = tdvisor_inspector::page(inspection, about);
        file.begin(&|| false)?.write_all(page.as_bytes())?;
        Ok(json!({"bytes": page.len()}))
    }

    /// Writes what the TD holds, and says how much that is.
    ///
    /// # Errors
    /// [`DumpError`]; also where there is to be no dump.
    pub(super) fn dump(&self, dump: &Dump, is_unwanted: &dyn Fn() -> bool) -> Result<Value, DumpError> {
        let file = self.dump.as_ref().ok_or(DumpError::NotInspectable)?;
        let mut writing = BufWriter::with_capacity(PIECE, file.begin(is_unwanted)?);
        dump.write(&mut writing)?;
        // A confined worker does not ask the file itself.
        let bytes = file.most - writing.get_ref().left;
        Ok(json!({"bytes": bytes, "memory": dump.memory(), "vmcoreinfo": dump.has_vmcoreinfo()}))
    }

    /// Writes a TD that froze, and says how much that is. The file is whole on the disk then.
    ///
    /// # Errors
    /// [`SaveTdError`]; also where there is to be no snapshot.
    pub(super) fn save(&self, ended: &Ended<'_>) -> Result<Value, SaveTdError> {
        let file = self.saving.as_ref().ok_or(SaveTdError::NotInspectable)?;
        let of_file = |error: io::Error| SaveTdError::Snapshot(error.into());
        let mut writing = BufWriter::with_capacity(PIECE, file.begin(&|| false).map_err(of_file)?);
        ended.save_to(&mut writing, &())?;
        let bytes = file.most - writing.get_ref().left;
        file.file.sync_all().map_err(of_file)?;
        Ok(json!({"bytes": bytes}))
    }
}

/// What stands in a report of a file: what was said of it, or why it is not there.
pub(super) fn in_report<E: ToString>(written: Result<Value, E>) -> Value {
    written.unwrap_or_else(|error| json!({"failed": error.to_string()}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_anew_and_takes_no_more_than_there_is_room_for() {
        let path = std::env::temp_dir().join(format!("tdvisor-kept-{}", std::process::id()));
        std::fs::write(&path, "what was there before").unwrap();
        let file = Bounded::open(&path.to_string_lossy(), 4).unwrap();
        file.begin(&|| false).unwrap().write_all(b"abcd").unwrap();
        file.begin(&|| false).unwrap().write_all(b"xy").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"xy");
        let error = file.begin(&|| false).unwrap().write_all(b"12345").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert!(file.begin(&|| true).unwrap().write_all(b"1").is_err(), "nobody wants it any more");
        std::fs::remove_file(path).unwrap();
    }
}
