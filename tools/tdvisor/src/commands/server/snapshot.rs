//! Snapshots of a server: when one is taken, and what is resumed.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};

use clap::builder::NonEmptyStringValueParser;
use server_emu::Server;
use server_emu::saved::SavedServer;
use tdvisor_runtime::snapshot::{self, Kind, Opened, Rest};

use crate::files::Claims;
use crate::outcome::Failure;

/// Options for snapshots.
#[derive(Debug, clap::Args)]
pub struct SnapshotArgs {
    /// Stop the server when its console has printed the text of `--snapshot-at`, as soon as no TD runs, and write its
    /// state to this file, which only its owner may read. `--resume` goes on from there. Not with `--disk`: what the
    /// host has written to it would not be in the snapshot.
    #[arg(long, value_name = "FILE", requires = "snapshot_at", conflicts_with = "disk")]
    snapshot: Option<PathBuf>,
    /// The text on the console at which `--snapshot` is taken.
    #[arg(long, value_name = "TEXT", requires = "snapshot", value_parser = NonEmptyStringValueParser::new())]
    snapshot_at: Option<String>,
    /// Go on from a snapshot: memory, processors, devices and the TDX module are as they were. It has to be of the same
    /// build of tdvisor. What the machine is, is in the snapshot.
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "kernel", "host_image", "initrd", "disk", "cmdline", "append", "cpus", "packages", "memory", "without", "profile",
        "cpu", "feature", "engine", "deterministic", "boots",
    ])]
    resume: Option<PathBuf>,
}

/// A snapshot whose memory was not read yet.
pub struct Resumed {
    /// Where it comes from.
    pub file: PathBuf,
    /// The server's state.
    pub state: SavedServer,
    /// What fills its memory.
    pub rest: Rest<File>,
}

impl Resumed {
    /// A problem with the file.
    pub fn problem(file: &Path, problem: impl std::fmt::Display) -> Failure {
        Failure::input(format_args!("--resume {}", file.display()), problem)
    }
}

impl SnapshotArgs {
    pub fn claim(&self, claims: &mut Claims) -> Result<(), Failure> {
        self.resume.iter().try_for_each(|file| claims.reads("--resume", file))?;
        self.snapshot.iter().try_for_each(|file| claims.writes("--snapshot", file))
    }

    /// Whether a snapshot is to be taken.
    pub const fn is_wanted(&self) -> bool {
        self.snapshot.is_some()
    }

    /// The snapshot to go on from, if one was named.
    pub fn open(&self) -> Result<Option<Resumed>, Failure> {
        let Some(file) = &self.resume else { return Ok(None) };
        let opened = Opened::<File, SavedServer>::file(file, Kind::Server);
        let (state, rest) = opened.map_err(|error| Resumed::problem(file, error))?.into_parts();
        Ok(Some(Resumed { file: file.clone(), state, rest }))
    }

    /// Watches a console for the text.
    pub fn watch<W: Write>(&self, console: W) -> Watched<W> {
        let text = self.snapshot_at.clone().unwrap_or_default().into_bytes();
        Watched { console, text, recent: Vec::new(), server: Arc::default() }
    }

    /// Writes the snapshot of a server that has frozen. Gives a line about it.
    pub fn save(&self, server: &Server) -> Result<Option<String>, Failure> {
        let Some(file) = &self.snapshot else { return Ok(None) };
        let problem = |problem: &dyn std::fmt::Display| {
            Failure::output(format_args!("--snapshot {}", file.display()), problem)
        };
        let state = server.save().map_err(|error| problem(&error))?;
        let bytes = snapshot::write_file(file, Kind::Server, &state, server.machine().memory())
            .map_err(|error| problem(&error))?;
        Ok(Some(format!("{} ({bytes} bytes)", file.display())))
    }
}

/// The server that a console belongs to, once there is one.
pub type ServerCell = Arc<OnceLock<Weak<Server>>>;

/// A console whose server is frozen when a text was printed.
pub struct Watched<W> {
    console: W,
    /// Empty once it was seen, or if nothing is to be seen.
    text: Vec<u8>,
    /// The end of what was printed: less than the text.
    recent: Vec<u8>,
    server: ServerCell,
}

impl<W> Watched<W> {
    /// Where the server is to be put.
    pub fn server(&self) -> ServerCell {
        self.server.clone()
    }

    fn look(&mut self, bytes: &[u8]) {
        if self.text.is_empty() {
            return;
        }
        self.recent.extend(bytes);
        if self.recent.windows(self.text.len()).any(|window| window == self.text) {
            self.text.clear();
            if let Some(server) = self.server.get().and_then(Weak::upgrade) {
                server.freeze();
            }
            return;
        }
        let surplus = (self.recent.len() + 1).saturating_sub(self.text.len());
        self.recent.drain(..surplus);
    }
}

impl<W: Write> Write for Watched<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.console.write(bytes)?;
        self.look(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.console.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &str, printed: &[&str]) -> bool {
        let args = SnapshotArgs { snapshot: None, snapshot_at: Some(text.to_owned()), resume: None };
        let mut watched = args.watch(io::sink());
        for bytes in printed {
            watched.write_all(bytes.as_bytes()).unwrap();
        }
        watched.text.is_empty()
    }

    #[test]
    fn a_text_is_seen_however_the_console_is_cut() {
        assert!(seen("ready", &["re", "ready"]));
        assert!(seen("ready", &["r", "e", "a", "d", "y", "!"]));
        assert!(seen("aab", &["aa", "aab"]));
        assert!(!seen("ready", &["read", "x", "y"]));
    }
}
