//! The one way in which files come into this program: whole, and never more of them than their use can need.
//!
//! The bound is on what is read, not on what the file system says: devices, pipes and files that grow have no
//! size to ask for.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::outcome::Failure;

/// Reads the file at `path`, which may have `limit` bytes.
///
/// # Errors
/// [`Failure::Input`] with the path: it cannot be read, or is larger.
pub fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let bytes = File::open(path)
        .and_then(|file| up_to(file, limit))
        .map_err(|error| Failure::input(path.display(), error))?;
    bytes.ok_or_else(|| Failure::input(path.display(), format_args!("larger than {} MiB", limit >> 20)))
}

/// Reads a file of text in UTF-8 that has at most `limit` bytes.
///
/// # Errors
/// Those of [`read_bounded`], and what is not text.
pub fn read_text_bounded(path: &Path, limit: u64) -> Result<String, Failure> {
    String::from_utf8(read_bounded(path, limit)?)
        .map_err(|_| Failure::input(path.display(), "not a text file"))
}

/// All of `source`, or `None` if it has more than `limit` bytes, of which no more than one is read.
fn up_to(source: impl Read, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    source.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_of_exactly_the_limit_is_read_and_one_byte_more_is_too_much() {
        assert_eq!(up_to(&[7; 8][..], 8).unwrap(), Some(vec![7; 8]));
        assert_eq!(up_to(&[7; 9][..], 8).unwrap(), None);
        assert_eq!(up_to(io::empty(), 0).unwrap(), Some(vec![]));
    }

    #[test]
    fn a_source_without_an_end_is_refused() {
        assert_eq!(up_to(io::repeat(0), 1 << 20).unwrap(), None);
    }

    #[test]
    fn failures_name_the_file() {
        let missing = read_bounded(Path::new("/no/such/file"), 1).unwrap_err();
        assert!(missing.to_string().starts_with("/no/such/file: "), "{missing}");
    }
}
