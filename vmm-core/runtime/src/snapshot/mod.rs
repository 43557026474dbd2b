//! Snapshots: the state of an emulated machine in a file, from which another process goes on.
//!
//! # Format
//! | bytes | what |
//! |---|---|
//! | 8 | `tdvisor` and a zero |
//! | 4 | version of this format, little-endian |
//! | 4 | what is saved: [`Kind`] |
//! | 8 | the build whose sources made it |
//! | rest | one gzip member: length of the state, 8 bytes; the state as JSON; memory: runs of pages with their keys |
//! | 32 | SHA-256 of all that precedes it |
//!
//! The state is whatever the room below saves of its machine, with `serde`: each room names all of its fields, so that one
//! that is added does not compile until it is saved. Memory is sparse: what is zero under the default key costs nothing.
//!
//! # What a snapshot is good for
//! The build that made it, and no other: [`SnapshotError::OtherBuild`]. The digest is checked before
//! anything else is read, and nothing of a damaged one is used. It is not signed: whoever may write the file decides what the machine
//! is, so it is made readable and writable for its owner alone, and holds all secrets of the TDs in it.
//!
//! # Bounds
//! A state is at most [`MAX_STATE`] bytes; memory is as much as the machine has.

mod memory;

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Take, Write};
use std::path::Path;

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use phys_memory::Arena;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::private_file;

const MAGIC: [u8; 8] = *b"tdvisor\0";
/// The version of the format.
pub const VERSION: u32 = 2;
/// The most bytes of a state.
pub const MAX_STATE: u64 = 64 << 20;

/// The build: [`SnapshotError::OtherBuild`] where it differs.
const BUILD: &str = env!("TDVISOR_STATE_BUILD");

/// What is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// A whole TDX server.
    Server = 1,
    /// A TD with the machine under it.
    Td = 2,
}

/// Why a snapshot cannot be written or used.
#[derive(Debug)]
pub enum SnapshotError {
    /// The file.
    Io(io::Error),
    /// The state does not fit the bound.
    TooLarge,
    /// The state cannot be put into words.
    State(serde_json::Error),
    /// Not a snapshot, or one of something else.
    NotThisKind,
    /// A version of the format that is not known.
    Version(u32),
    /// A snapshot of another build.
    OtherBuild,
    /// The file is damaged or not whole.
    Damaged,
    /// The snapshot holds memory that the machine has not.
    Memory,
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::TooLarge => write!(f, "the state is larger than {} MiB", MAX_STATE >> 20),
            Self::State(error) => write!(f, "the state cannot be read or written: {error}"),
            Self::NotThisKind => f.write_str("this is no snapshot of such a machine"),
            Self::Version(version) => {
                write!(f, "a snapshot of format {version}; this program knows format {VERSION}")
            }
            Self::OtherBuild => f.write_str("a snapshot of another build of tdvisor: make it anew"),
            Self::Damaged => f.write_str("the snapshot is damaged, or not whole"),
            Self::Memory => f.write_str("the snapshot holds memory that its machine has not"),
        }
    }
}

impl std::error::Error for SnapshotError {}

impl From<io::Error> for SnapshotError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What gzip says of a stream that is not what was written.
fn damaged(_: io::Error) -> SnapshotError {
    SnapshotError::Damaged
}

fn build() -> u64 {
    BUILD.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0)
}

fn header(kind: Kind) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.extend(VERSION.to_le_bytes());
    header.extend((kind as u32).to_le_bytes());
    header.extend(build().to_le_bytes());
    header
}

/// Bytes of the digest at the end.
const DIGEST: u64 = 32;

/// Passes on what is written, and digests it.
struct Digesting<W> {
    out: W,
    digest: Sha256,
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.digest.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Checks the digest of a file that is a snapshot by its header, and goes back to its beginning. Gives the bytes before the
/// digest.
fn check_digest(input: &mut (impl Read + Seek)) -> Result<u64, SnapshotError> {
    let bytes = input.seek(SeekFrom::End(0))?.checked_sub(DIGEST).ok_or(SnapshotError::Damaged)?;
    input.seek(SeekFrom::Start(0))?;
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    let mut digested = input.by_ref().take(bytes);
    loop {
        match digested.read(&mut buffer)? {
            0 => break,
            read => digest.update(buffer.get(..read).unwrap_or_default()),
        }
    }
    let mut said = Vec::new();
    input.by_ref().take(DIGEST + 1).read_to_end(&mut said)?;
    if digest.finalize().as_slice() != said {
        return Err(SnapshotError::Damaged);
    }
    input.seek(SeekFrom::Start(0))?;
    Ok(bytes)
}

/// Writes a snapshot. Nobody uses the machine meanwhile.
///
/// # Errors
/// [`SnapshotError`]; what was written so far is no snapshot.
pub fn write(
    out: impl Write,
    kind: Kind,
    state: &impl Serialize,
    arena: &Arena,
) -> Result<(), SnapshotError> {
    let mut out = Digesting { out, digest: Sha256::new() };
    out.write_all(&header(kind))?;
    let state = serde_json::to_vec(state).map_err(SnapshotError::State)?;
    if state.len() as u64 > MAX_STATE {
        return Err(SnapshotError::TooLarge);
    }
    let mut packed = GzEncoder::new(out, Compression::fast());
    packed.write_all(&(state.len() as u64).to_le_bytes())?;
    packed.write_all(&state)?;
    memory::write(&mut packed, arena)?;
    let Digesting { mut out, digest } = packed.finish()?;
    out.write_all(&digest.finalize())?;
    out.flush()?;
    Ok(())
}

/// Writes a snapshot to a file that only its owner may read and write. A file that is there is replaced once the new
/// one is whole. Gives its size.
///
/// # Errors
/// [`SnapshotError`]; the file is as it was.
pub fn write_file(
    path: &Path,
    kind: Kind,
    state: &impl Serialize,
    arena: &Arena,
) -> Result<u64, SnapshotError> {
    private_file::replace(path, |file| write(BufWriter::new(file), kind, state, arena))
}

/// A snapshot whose state was read, and whose memory was not yet.
#[derive(Debug)]
pub struct Opened<R: Read, S> {
    /// The state.
    pub state: S,
    rest: Rest<R>,
}

/// The memory of an opened snapshot.
pub struct Rest<R: Read>(GzDecoder<BufReader<Take<R>>>);

impl<R: Read> fmt::Debug for Rest<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest").finish_non_exhaustive()
    }
}

impl<S: DeserializeOwned> Opened<File, S> {
    /// Opens a file.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn file(path: &Path, kind: Kind) -> Result<Self, SnapshotError> {
        Self::new(File::open(path)?, kind)
    }
}

impl<R: Read + Seek, S: DeserializeOwned> Opened<R, S> {
    /// Reads the state.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn new(input: R, kind: Kind) -> Result<Self, SnapshotError> {
        let mut input = input;
        let mut magic = [0; MAGIC.len()];
        input.read_exact(&mut magic).map_err(|_| SnapshotError::NotThisKind)?;
        let (mut version, mut of, mut by) = ([0; 4], [0; 4], [0; 8]);
        for part in [&mut version[..], &mut of, &mut by] {
            input.read_exact(part).map_err(|_| SnapshotError::NotThisKind)?;
        }
        if magic != MAGIC {
            return Err(SnapshotError::NotThisKind);
        }
        if u32::from_le_bytes(version) != VERSION {
            return Err(SnapshotError::Version(u32::from_le_bytes(version)));
        }
        if u32::from_le_bytes(of) != kind as u32 {
            return Err(SnapshotError::NotThisKind);
        }
        if u64::from_le_bytes(by) != build() {
            return Err(SnapshotError::OtherBuild);
        }
        let bytes = check_digest(&mut input)?;
        let mut input = BufReader::new(input.take(bytes));
        input.read_exact(&mut vec![0; header(kind).len()]).map_err(damaged)?;
        let mut packed = GzDecoder::new(input);
        let mut length = [0; 8];
        packed.read_exact(&mut length).map_err(damaged)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_STATE {
            return Err(SnapshotError::TooLarge);
        }
        let mut state = Vec::new();
        packed.by_ref().take(length).read_to_end(&mut state).map_err(damaged)?;
        if state.len() as u64 != length {
            return Err(SnapshotError::Damaged);
        }
        let state = serde_json::from_slice(&state).map_err(SnapshotError::State)?;
        Ok(Self { state, rest: Rest(packed) })
    }

    /// The state, and what fills the machine's memory afterwards.
    pub fn into_parts(self) -> (S, Rest<R>) {
        (self.state, self.rest)
    }
}

impl<R: Read> Rest<R> {
    /// Fills empty memory, and checks that the whole snapshot was whole. Where it was not, the machine is not to be used.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn fill(mut self, arena: &Arena) -> Result<(), SnapshotError> {
        memory::read(&mut self.0, arena)?;
        // The checksum is looked at where the stream ends.
        let mut byte = [0];
        let beyond = self.0.read(&mut byte).map_err(damaged)?;
        let behind = self.0.into_inner().read(&mut byte)?;
        if beyond != 0 || behind != 0 { Err(SnapshotError::Damaged) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
