//! Conformance: replays recordings of Intel's own module and compares every register.
//!
//! A recording is a file of JSON lines: sequences of host steps and SEAMCALLs, with whatever their guests do
//! inside TDH.VP.ENTER. A sequence starts at power-on or where a *prefix* sequence ended; prefixes lie in
//! `prefixes.jsonl.gz` beside the recordings. The header says which release was recorded, and where it names a
//! processor, `platforms.json` beside the recordings or in the folder above has its CPUID and MSR values.
//!
//! # What is counted
//! `N of M calls agree (S sequences)`: M counts every SEAMCALL and TDCALL of the given files once, nested ones
//! and prefixes included. A call agrees when RAX and every recorded output are equal and every other register
//! still has its input value. A call that could not be replayed, because its sequence had been abandoned
//! before, does not agree.

mod bundle;
mod compare;
mod error;
mod fields;
mod library;
mod model;
mod parse;
mod pattern;
mod platforms;
mod prefix;
mod replay;
mod report;
mod source;
mod symbols;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

pub use bundle::{
    BundleFault, BundleKind, CheckBundle, Key, ListDifference, MemoryEntry, MetadataPage, MetadataSequence,
    Plaintext, Seal, Sealed, StatePage,
};
pub use compare::{CallSite, Comparison, Difference, Explained, Outcome, Side};
pub use error::InputError;
pub use model::{
    AccessKind, Action, After, Content, Contents, ControlRegister, ExitCause, Expected, GuestAct, GuestEvent,
    GuestResult, GuestRun, HwMode, IrqPending, MemoryRange, Pattern, Platform, Privilege, RegSet, Seamcall,
    Sequence, Step, Store,
};
pub use report::{Report, SequenceOutcome, Tally};
pub use source::Sequences;
pub use symbols::{Bindings, Number, Registers, Symbols, UnboundSymbol};
pub use words::status as status_in_words;

use prefix::{Prefix, Prefixes};
use replay::Balance;

/// What to replay, and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Only sequences of these families; all if empty.
    pub families: Vec<String>,
    /// Threads; as many as the machine has cores if absent.
    pub threads: Option<NonZeroUsize>,
}

impl Options {
    fn wants(&self, sequence: &Sequence) -> bool {
        self.families.is_empty() || self.families.iter().any(|family| **family == *sequence.family)
    }
}

/// The files that paths name: files as they are, folders by the recordings in them.
///
/// # Errors
/// [`InputError::Io`].
pub fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, InputError> {
    source::files(paths)
}

/// Replays everything that the paths name. `progress` is told how many sequences are done.
///
/// # Errors
/// Input that cannot be read or holds no sequence. Differences are in the report.
pub fn run(
    paths: &[PathBuf],
    options: &Options,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Report, InputError> {
    let files = files(paths)?;
    let folders = folders(&files)?;
    let queue = Queue::new(&files, &folders);
    let threads =
        options.threads.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    let done = AtomicU64::new(0);
    let mut outcomes = thread::scope(|scope| {
        let workers: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| work(&queue, options, &done, progress))).collect();
        let mut outcomes = Vec::new();
        for worker in workers {
            match worker.join() {
                Ok(result) => outcomes.extend(result?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok::<_, InputError>(outcomes)
    })?;
    if outcomes.is_empty() {
        return Err(InputError::NothingFound);
    }
    outcomes.sort_by_key(|(position, _)| *position);
    Ok(Report::new(outcomes.into_iter().map(|(_, outcome)| outcome)))
}

/// Replays the sequences of one thread's share.
fn work(
    queue: &Queue<'_>,
    options: &Options,
    done: &AtomicU64,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Vec<(Position, SequenceOutcome)>, InputError> {
    let mut outcomes = Vec::new();
    while let Some(item) = queue.next()? {
        if !options.wants(item.work.sequence()) {
            continue;
        }
        outcomes.push((item.position, item.replay()));
        progress(done.fetch_add(1, Ordering::Relaxed) + 1);
    }
    Ok(outcomes)
}

fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn folders(files: &[PathBuf]) -> Result<BTreeMap<PathBuf, Prefixes>, InputError> {
    let mut folders = BTreeMap::new();
    for file in files {
        if let Entry::Vacant(slot) = folders.entry(folder_of(file)) {
            let prefixes = Prefixes::beside(slot.key())?;
            slot.insert(prefixes);
        }
    }
    Ok(folders)
}

/// File and sequence number: the order of the report.
type Position = (usize, usize);

/// Hands out sequences one at a time: reading is serial, replaying is not.
struct Queue<'f> {
    files: &'f [PathBuf],
    folders: &'f BTreeMap<PathBuf, Prefixes>,
    reader: Mutex<Reader<'f>>,
}

struct Reader<'f> {
    file: usize,
    sequence: usize,
    open: Option<Open<'f>>,
    /// A line was bad: nothing after it is read, so that it is the one that is reported.
    failed: bool,
}

/// The file being read.
enum Open<'f> {
    /// Recordings, read as they are needed.
    File(Sequences, Arc<PathBuf>),
    /// A prefix file, which has been read already.
    Prefixes(Vec<&'f Prefix>),
}

struct Item<'f> {
    position: Position,
    prefixes: &'f Prefixes,
    work: Work<'f>,
}

enum Work<'f> {
    Sequence(Sequence, Arc<PathBuf>),
    Prefix(&'f Prefix),
}

impl Work<'_> {
    fn sequence(&self) -> &Sequence {
        match self {
            Self::Sequence(sequence, _) => sequence,
            Self::Prefix(prefix) => &prefix.sequence,
        }
    }
}

impl<'f> Queue<'f> {
    fn new(files: &'f [PathBuf], folders: &'f BTreeMap<PathBuf, Prefixes>) -> Self {
        let reader = Mutex::new(Reader { file: 0, sequence: 0, open: None, failed: false });
        Self { files, folders, reader }
    }

    fn next(&self) -> Result<Option<Item<'f>>, InputError> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        if reader.failed {
            return Ok(None);
        }
        let item = self.read(&mut reader);
        reader.failed = item.is_err();
        item
    }

    fn read(&self, reader: &mut Reader<'f>) -> Result<Option<Item<'f>>, InputError> {
        while let Some(path) = self.files.get(reader.file) {
            let Some(prefixes) = self.folders.get(&folder_of(path)) else { return Ok(None) };
            let open = match &mut reader.open {
                Some(open) => open,
                None => reader.open.insert(Self::open(path, prefixes)?),
            };
            let work = match open {
                Open::File(sequences, path) => {
                    sequences.next().transpose()?.map(|sequence| Work::Sequence(sequence, Arc::clone(path)))
                }
                Open::Prefixes(rest) => rest.pop().map(Work::Prefix),
            };
            if let Some(work) = work {
                reader.sequence += 1;
                return Ok(Some(Item { position: (reader.file, reader.sequence), prefixes, work }));
            }
            reader.open = None;
            reader.file += 1;
            reader.sequence = 0;
        }
        Ok(None)
    }

    fn open(path: &Path, prefixes: &'f Prefixes) -> Result<Open<'f>, InputError> {
        let mut own: Vec<_> = prefixes.iter().filter(|prefix| prefix.file.as_path() == path).collect();
        if own.is_empty() {
            return Ok(Open::File(Sequences::open(path)?, Arc::new(path.to_owned())));
        }
        own.sort_by_key(|prefix| std::cmp::Reverse(prefix.sequence.line));
        Ok(Open::Prefixes(own))
    }
}

impl Item<'_> {
    fn replay(&self) -> SequenceOutcome {
        match &self.work {
            Work::Prefix(prefix) => {
                let state = self.prefixes.state(prefix);
                let result = state.balance.as_ref().map_err(String::clone);
                outcome(&prefix.sequence, &prefix.file, result)
            }
            Work::Sequence(sequence, file) => {
                let balance = self
                    .prefixes
                    .starting_machine(sequence)
                    .map(|(machine, symbols)| replay::replay(&machine, sequence, symbols).0);
                outcome(sequence, file, balance.as_ref().map_err(String::clone))
            }
        }
    }
}

fn outcome(sequence: &Sequence, file: &Arc<PathBuf>, result: Result<&Balance, String>) -> SequenceOutcome {
    let no_start = |why| {
        let site = CallSite { step: 0, lp: 0, event: None, leaf: Arc::from("starting state") };
        Some((site, Difference::NotReplayed { why }))
    };
    let (agreeing, soft, differences, first) = match result {
        Ok(balance) => (balance.agreeing, balance.soft, balance.differences, balance.first.clone()),
        Err(why) => (0, 0, 1, no_start(why)),
    };
    SequenceOutcome {
        file: Arc::clone(file),
        line: sequence.line,
        id: Arc::clone(&sequence.id),
        family: Arc::clone(&sequence.family),
        shape: Arc::clone(&sequence.shape),
        calls: sequence.calls(),
        agreeing,
        soft,
        first,
        differences,
    }
}
