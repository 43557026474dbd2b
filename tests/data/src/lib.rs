//! Where tests find what the repository does not contain, what they draw lots with ([`chance`]), and
//! how a run of them is repeated ([`replay`]).
//!
//! A test that needs such data is `#[ignore]`d with the reason, so that a plain `cargo test` shows it as ignored and
//! never as passed; `cargo test -- --include-ignored`, as CI does, runs it, and then data that are not there are a
//! failure which says what was looked for and where it comes from:
//!
//! ```no_run
//! # mod example {
//! #[test]
//! #[ignore = "needs recordings"]
//! fn every_recorded_quote_gets_its_verdict() {
//!     let folder = tdvisor_test_data::vectors::folder(tdvisor_test_data::vectors::ATTESTATION);
//!     assert!(folder.join("cases.jsonl").is_file());
//! }
//! # }
//! ```

pub mod chance;
pub mod linux;
pub mod ovmf;
pub mod replay;
pub mod vectors;

use std::fmt;
use std::path::{Path, PathBuf};

/// Data that are not where they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The file or folder.
    pub path: PathBuf,
    /// Where the data come from, or how else to name them.
    pub origin: &'static str,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not there: {}", self.path.display(), self.origin)
    }
}

impl std::error::Error for Missing {}

/// The folder of the workspace.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What an environment variable says, unless that is nothing or the word `required`, which CI once used.
fn named(variable: &str) -> Option<PathBuf> {
    let value = std::env::var_os(variable)?;
    (!value.is_empty() && value != "required").then(|| value.into())
}

/// The path, if something is there.
fn existing(path: PathBuf, origin: &'static str) -> Result<PathBuf, Missing> {
    if path.exists() { Ok(path) } else { Err(Missing { path, origin }) }
}

/// The path; a test without its data fails.
#[track_caller]
fn required(found: Result<PathBuf, Missing>) -> PathBuf {
    match found {
        Ok(path) => path,
        Err(missing) => panic!("{missing}"),
    }
}
