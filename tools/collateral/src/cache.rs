//! Answers in a folder, each a file in the form of a saved response, used until the day that it says itself.
//!
//! The folder is collateral like any other: `verify --collateral` reads it. A file says for which request it is; one that
//! is damaged, of another request, or past its date, counts as not there.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use sha2::{Digest, Sha256};
use tdvisor_attest::{Hex, UnixSeconds};

use crate::answer::{Answer, Held, MAX_BODY};

/// The header of a file that names its request.
const REQUEST: &str = "X-Request-Url";
/// The most bytes of a file: a body and its head.
const MAX_FILE: u64 = MAX_BODY + (128 << 10);

/// A folder of answers.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The cache in `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// The file of a request. Its name tells people what it is; the hash of the whole request keeps services apart.
    fn path(&self, url: &str) -> PathBuf {
        let request = url.split_once("/certification/v4/").map_or(url, |(_, request)| request);
        let family = if url.contains("/tdx/") { "tdx-" } else { "" };
        let plain = |char: char| if char.is_ascii_alphanumeric() { char } else { '-' };
        let name: String = request.chars().rev().take(48).map(plain).collect();
        let name: String = name.chars().rev().collect();
        let hash = Sha256::digest(url.as_bytes());
        let hash = Hex(hash.get(..8).unwrap_or_default()).to_string();
        self.folder.join(format!("{family}{}-{hash}.http", name.trim_matches('-')))
    }

    /// The saved response to a request, if there is one that counts at `at`.
    #[must_use]
    pub fn find(&self, url: &str, at: UnixSeconds) -> Option<Vec<u8>> {
        let mut saved = Vec::new();
        let file = fs::File::open(self.path(url)).ok()?;
        file.take(MAX_FILE + 1).read_to_end(&mut saved).ok()?;
        let head =
            saved.windows(4).position(|window| window == b"\r\n\r\n").and_then(|end| saved.get(..end))?;
        let of_request = format!("{REQUEST}: {url}");
        if !std::str::from_utf8(head).ok()?.lines().any(|line| line == of_request) {
            return None;
        }
        let next_update = Held::read(&saved).ok()?.next_update()?;
        (at < next_update).then_some(saved)
    }

    /// Keeps an answer. Whoever reads beside it sees the old one or the new one, whole.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put(&self, url: &str, answer: &Answer) -> io::Result<()> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let path = self.path(url);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let unfinished = self.folder.join(format!(".{}-{number}.new", std::process::id()));
        let saved = answer.to_saved();
        let line = format!("HTTP/1.1 200 OK\r\n{REQUEST}: {url}\r\n");
        let rest = saved.strip_prefix(b"HTTP/1.1 200 OK\r\n".as_slice()).unwrap_or(&saved);
        let written = fs::write(&unfinished, [line.as_bytes(), rest].concat())
            .and_then(|()| fs::rename(&unfinished, &path));
        if written.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    /// Forgets the answer to a request.
    pub fn forget(&self, url: &str) {
        // What is not there need not go.
        let _ = fs::remove_file(self.path(url));
    }
}
