//! What the repository's own papers say, as data: the tables of a Markdown file, and references from them to files,
//! tests, benchmarks and passages.
//!
//! The tests of this crate need nothing but the sources, so they run before anything large is built.

pub mod markdown;
pub mod reference;
pub mod spdx;

use std::path::{Path, PathBuf};

/// The folder of the workspace.
#[must_use]
pub fn root() -> PathBuf {
    tdvisor_test_data::workspace()
}

/// A text file, by its path from the workspace's folder.
///
/// # Panics
/// Where it cannot be read.
#[must_use]
pub fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file below a folder that has this extension, without what is built and what is hidden; sorted.
///
/// # Panics
/// Where a folder cannot be read.
#[must_use]
pub fn files(below: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![below.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries =
            std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
