//! What can be wrong with the files themselves.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why recordings could not be read. Differences in answers are no errors; they are in the report.
#[derive(Debug)]
#[non_exhaustive]
pub enum InputError {
    /// A file or folder could not be opened or read.
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line is not what the format says.
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong.
        problem: String,
    },
    /// The given paths hold no sequence.
    NothingFound,
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Line { path, line, problem } => write!(f, "{}:{line}: {problem}", path.display()),
            Self::NothingFound => f.write_str("no recording found (*.jsonl or *.jsonl.gz)"),
        }
    }
}

impl std::error::Error for InputError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Line { .. } | Self::NothingFound => None,
        }
    }
}
