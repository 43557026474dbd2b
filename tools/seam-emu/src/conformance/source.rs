//! Files, folders and gzip, read line by line with a bound on every line.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;

use super::error::InputError;
use super::library::{self, Library};
use super::model::Sequence;
use super::parse::{self, Header, Line};
use super::platforms::Platforms;
use crate::processor::Processor;

/// Most bytes of one line.
const MAX_LINE_BYTES: u64 = 1 << 24;
/// Most steps of one sequence.
const MAX_STEPS: usize = 1 << 20;

/// The file that holds the prefixes of the recordings beside it.
pub const PREFIX_FILES: [&str; 2] = ["prefixes.jsonl.gz", "prefixes.jsonl"];

fn is_recording(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    (name.ends_with(".jsonl") || name.ends_with(".jsonl.gz")) && !library::is_part(name)
}

fn io_error(path: &Path) -> impl FnOnce(std::io::Error) -> InputError + '_ {
    move |source| InputError::Io { path: path.to_owned(), source }
}

/// The recordings that the paths name: files as they are, folders by their recordings (not recursively).
/// A file that is named twice is listed once.
pub fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, InputError> {
    let mut seen = BTreeSet::new();
    let mut files = Vec::new();
    for path in paths {
        let mut found = Vec::new();
        if fs::metadata(path).map_err(io_error(path))?.is_dir() {
            for entry in fs::read_dir(path).map_err(io_error(path))? {
                let entry = entry.map_err(io_error(path))?.path();
                if is_recording(&entry) {
                    found.push(entry);
                }
            }
            found.sort();
        } else {
            found.push(path.clone());
        }
        for file in found {
            if seen.insert(fs::canonicalize(&file).map_err(io_error(&file))?) {
                files.push(file);
            }
        }
    }
    Ok(files)
}

/// The lines of one file.
pub struct Lines {
    path: Arc<Path>,
    lines: Box<dyn BufRead + Send>,
    /// Number of the line that was read last.
    line: u64,
    buffer: Vec<u8>,
}

impl Lines {
    /// Opens a file; one whose contents begin like gzip is unpacked.
    ///
    /// # Errors
    /// [`InputError::Io`].
    pub fn open(path: &Path) -> Result<Self, InputError> {
        let mut reader = BufReader::with_capacity(1 << 16, File::open(path).map_err(io_error(path))?);
        let gzip = reader.fill_buf().map_err(io_error(path))?.starts_with(&[0x1f, 0x8b]);
        let lines: Box<dyn BufRead + Send> = if gzip {
            Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(reader)))
        } else {
            Box::new(reader)
        };
        Ok(Self { path: path.into(), lines, line: 0, buffer: Vec::new() })
    }

    fn problem(&self, problem: String) -> InputError {
        InputError::Line { path: self.path.to_path_buf(), line: self.line, problem }
    }

    /// Reads the next line; `None` at the end of the file.
    ///
    /// # Errors
    /// [`InputError::Line`] for a line that cannot be read or is too long.
    pub fn next(&mut self) -> Result<Option<&[u8]>, InputError> {
        self.buffer.clear();
        self.line += 1;
        let mut bounded = (&mut self.lines).take(MAX_LINE_BYTES);
        match bounded.read_until(b'\n', &mut self.buffer) {
            Ok(0) => Ok(None),
            Ok(read) if read as u64 == MAX_LINE_BYTES && self.buffer.last() != Some(&b'\n') => {
                Err(self.problem(format!("line longer than {MAX_LINE_BYTES} bytes")))
            }
            Ok(_) => Ok(Some(&self.buffer)),
            Err(source) => Err(self.problem(format!("cannot be read: {source}"))),
        }
    }
}

/// The sequences of one file, one at a time.
pub struct Sequences {
    lines: Lines,
    platform: Option<Arc<super::model::Platform>>,
    platforms: Option<Platforms>,
    library: Library,
}

impl Sequences {
    /// Opens a file; one whose contents begin like gzip is unpacked.
    ///
    /// # Errors
    /// [`InputError::Io`].
    pub fn open(path: &Path) -> Result<Self, InputError> {
        let lines = Lines::open(path)?;
        Ok(Self { lines, platform: None, platforms: None, library: Library::beside(path) })
    }

    fn problem(&self, problem: String) -> InputError {
        self.lines.problem(problem)
    }

    /// Finds the processor that a header names.
    fn name_processor(&mut self, header: &mut Header) -> Result<(), InputError> {
        let Some(name) = &header.platform.native else { return Ok(()) };
        let platforms = match &self.platforms {
            Some(platforms) => platforms,
            None => self.platforms.insert(Platforms::of(&self.lines.path)?),
        };
        match platforms.get(name) {
            Some(processor) => header.platform.processor = Processor::Listed(processor),
            None => return Err(self.problem(format!("no processor `{name}` in platforms.json"))),
        }
        Ok(())
    }

    /// The platform of the sequence before, if it is the same: recordings repeat it in every header.
    fn share_platform(&mut self, platform: super::model::Platform) -> Arc<super::model::Platform> {
        match &self.platform {
            Some(last) if **last == platform => Arc::clone(last),
            _ => Arc::clone(self.platform.insert(Arc::new(platform))),
        }
    }

    fn rest_of_sequence(&mut self, mut header: Header) -> Result<Sequence, InputError> {
        let line = self.lines.line;
        self.name_processor(&mut header)?;
        let mut steps = Vec::new();
        let mut next_index = 0;
        loop {
            let Some(text) = self.lines.next()? else {
                return Err(self.problem(format!("the file ends inside sequence {}", header.id)));
            };
            let line = parse::line(text, &mut next_index, &self.library);
            match line.map_err(|problem| self.problem(problem))? {
                Line::Header(_) => return Err(self.problem(format!("sequence {} has no end", header.id))),
                Line::Step(_) if steps.len() == MAX_STEPS => {
                    return Err(self.problem(format!("more than {MAX_STEPS} steps in one sequence")));
                }
                Line::Step(step) => steps.push(step),
                Line::End => break,
            }
        }
        Ok(Sequence {
            id: header.id,
            family: header.family,
            shape: header.shape,
            platform: self.share_platform(header.platform),
            after: header.after,
            steps,
            line,
        })
    }

    fn next_sequence(&mut self) -> Result<Option<Sequence>, InputError> {
        loop {
            let Some(text) = self.lines.next()? else { return Ok(None) };
            if text.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let mut no_steps_yet = 0;
            return match parse::line(text, &mut no_steps_yet, &self.library) {
                Ok(Line::Header(header)) => self.rest_of_sequence(*header).map(Some),
                Ok(_) => Err(self.problem("a step or end outside a sequence".to_owned())),
                Err(problem) => Err(self.problem(problem)),
            };
        }
    }
}

impl Iterator for Sequences {
    type Item = Result<Sequence, InputError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_sequence().transpose()
    }
}
