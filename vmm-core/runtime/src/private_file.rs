//! Files that hold what a guest holds: of their owner alone, and whole or not there.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Reading and writing for the owner, nothing for anybody else.
const OWNER_ONLY: u32 = 0o600;

/// Writes a file that only its owner may read and write. A file that is there is replaced once the new one is whole. Gives its
/// size.
///
/// # Errors
/// Those of `write`, and of the file system; the file is as it was.
pub fn replace<E: From<io::Error>>(
    path: &Path,
    write: impl FnOnce(&File) -> Result<(), E>,
) -> Result<u64, E> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part: PathBuf = path.with_file_name(name);
    // What an earlier run left is not written into: somebody may have opened it.
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY).open(&part)?;
    let written = write(&file)
        .and_then(|()| Ok(file.sync_all()?))
        .and_then(|()| Ok(file.metadata()?.len()))
        .and_then(|bytes| fs::rename(&part, path).map(|()| bytes).map_err(E::from));
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written
}
