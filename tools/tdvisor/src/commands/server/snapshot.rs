//! Snapshots of a server: when one is taken, and what is resumed.

use std::path::{Path, PathBuf};

use clap::builder::NonEmptyStringValueParser;
use tdvisor_runtime::server::{ServerEnded, ServerSnapshot};

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

/// A snapshot to go on from.
pub struct Resumed {
    /// The snapshot's file.
    pub file: PathBuf,
    /// The server.
    pub snapshot: ServerSnapshot,
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

    /// The text at which the server is to be frozen.
    pub fn at(&self) -> Option<String> {
        self.snapshot_at.clone()
    }

    /// The snapshot to go on from, if one was named.
    pub fn open(&self) -> Result<Option<Resumed>, Failure> {
        let Some(file) = &self.resume else { return Ok(None) };
        let snapshot = ServerSnapshot::open(file).map_err(|error| Resumed::problem(file, error))?;
        Ok(Some(Resumed { file: file.clone(), snapshot }))
    }

    /// Writes the snapshot of a server that has frozen. Gives a line about it.
    pub fn save(&self, server: &ServerEnded) -> Result<Option<String>, Failure> {
        let Some(file) = &self.snapshot else { return Ok(None) };
        let bytes = server
            .save(file)
            .map_err(|error| Failure::output(format_args!("--snapshot {}", file.display()), error))?;
        Ok(Some(format!("{} ({bytes} bytes)", file.display())))
    }
}
