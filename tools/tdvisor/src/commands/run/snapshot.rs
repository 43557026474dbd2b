//! Snapshots of a TD: when one is taken, and what is resumed.

use std::path::{Path, PathBuf};

use clap::builder::NonEmptyStringValueParser;
use machine_emu::{Freezer, Pace};
use serde::{Deserialize, Serialize};
use td_host::td::config::TdConfig;
use td_image::digest::Digest384;
use tdvisor_runtime::Ended;
use tdvisor_runtime::saved::{FreezeAt, SavedTd};

use super::args::Args;
use super::console::Console;
use super::image::Image;
use crate::files::Claims;
use crate::outcome::Failure;

/// Options for snapshots.
#[derive(Debug, clap::Args)]
pub struct SnapshotArgs {
    /// Stop the TD when its console has printed the text of `--snapshot-at`, and write it to this file, which only its owner may
    /// read: `--resume` goes on from there. The file holds all that the TD keeps from its host, so it takes `--inspectable`; and it
    /// takes `--deterministic`, on the emulated machine. Of an image or a built-in guest, not of a Linux kernel, firmware or a
    /// disk: virtio devices are not saved.
    #[arg(long, value_name = "FILE", requires = "snapshot_at")]
    snapshot: Option<PathBuf>,
    /// The text on the console at which `--snapshot` is taken.
    #[arg(long, value_name = "TEXT", requires = "snapshot", value_parser = NonEmptyStringValueParser::new())]
    snapshot_at: Option<String>,
    /// Go on from a snapshot, of the same build of tdvisor: the rest of the console, of `--trace` and of the run are what they
    /// would have been without it. What the TD is, is in the snapshot.
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "image", "vcpus", "l2_vms", "memory", "kernel", "firmware", "initrd", "cmdline", "append", "virtio", "disks", "vsock",
        "net", "forwards", "shares", "clock", "words", "copies", "rootfs", "gdb", "folded_stacks", "profile", "cpu", "feature",
        "engine", "deterministic", "debug", "command", "quote", "qgs", "inject", "max_page",
    ])]
    resume: Option<PathBuf>,
}

/// What a run needs to know of its TD beside what the runtime saves.
#[derive(Debug, Serialize, Deserialize)]
pub struct SavedRun {
    /// The image's name.
    pub image: String,
    /// The MRTD of the image, by calculation.
    predicted: Vec<u8>,
    /// ATTRIBUTES.
    pub attributes: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// vCPUs.
    pub vcpus: u32,
    /// What decides the turns.
    pub seed: u64,
}

/// A snapshot to go on from.
pub struct Resumed {
    /// The snapshot's file.
    pub file: PathBuf,
    /// The TD.
    pub saved: SavedTd<SavedRun>,
}

impl Resumed {
    /// A problem with the file.
    pub fn problem(file: &Path, problem: impl std::fmt::Display) -> Failure {
        Failure::input(format_args!("--resume {}", file.display()), problem)
    }
}

impl SavedRun {
    /// What is saved of a run.
    pub fn of(image: &Image, predicted: Digest384, config: &TdConfig, pace: Pace) -> Self {
        let seed = match pace {
            Pace::Deterministic { seed } => seed,
            Pace::Real => 0,
        };
        Self {
            image: image.name().to_owned(),
            predicted: predicted.0.to_vec(),
            attributes: config.attributes,
            memory: config.memory,
            vcpus: config.vcpus,
            seed,
        }
    }

    /// The MRTD of the image.
    pub fn predicted(&self) -> Option<Digest384> {
        self.predicted.as_slice().try_into().ok().map(Digest384)
    }

    /// What the TD was made from, as far as it is told apart.
    pub fn config(&self) -> TdConfig {
        TdConfig {
            memory: self.memory,
            vcpus: self.vcpus,
            attributes: self.attributes,
            ..TdConfig::default()
        }
    }
}

impl SnapshotArgs {
    /// Notes which files are read and written.
    pub fn claim(&self, claims: &mut Claims) -> Result<(), Failure> {
        self.resume.iter().try_for_each(|file| claims.reads("--resume", file))?;
        self.snapshot.iter().try_for_each(|file| claims.writes("--snapshot", file))
    }

    /// Whether a snapshot is to be taken.
    pub const fn is_wanted(&self) -> bool {
        self.snapshot.is_some()
    }

    /// Whether a snapshot is to be gone on from.
    pub const fn is_resumed(&self) -> bool {
        self.resume.is_some()
    }

    /// The snapshot to go on from, if one was named.
    pub fn open(&self) -> Result<Option<Resumed>, Failure> {
        let Some(file) = &self.resume else { return Ok(None) };
        let saved = SavedTd::open(file).map_err(|error| Resumed::problem(file, error))?;
        Ok(Some(Resumed { file: file.clone(), saved }))
    }

    /// A console at whose text the machine freezes.
    pub fn watched(&self, console: Console, freezer: Option<Freezer>) -> FreezeAt<Console> {
        FreezeAt::new(console, self.snapshot_at.as_deref().unwrap_or_default(), freezer)
    }

    /// Writes the snapshot of a TD that has frozen. Gives a line about it.
    pub fn save(&self, ended: &Ended<'_>, run: &SavedRun) -> Result<Option<String>, Failure> {
        let Some(file) = self.snapshot.as_ref().filter(|_| ended.is_frozen()) else { return Ok(None) };
        let bytes = ended
            .save(file, run)
            .map_err(|error| Failure::output(format_args!("--snapshot {}", file.display()), error))?;
        Ok(Some(format!("{} ({bytes} bytes)", file.display())))
    }
}

impl Args {
    /// Checks that what is to be saved can be, before anything is made.
    pub(super) fn check_snapshot(&self) -> Result<(), Failure> {
        if !self.snapshots.is_wanted() {
            return Ok(());
        }
        let is_again = self.snapshots.is_resumed();
        let refusals = [
            (
                self.deterministic.is_none() && !is_again,
                "only a TD in virtual time stops where it can be saved: add --deterministic SEED",
            ),
            (
                !self.dump.is_given() && !is_again,
                "the file would hold what the TD keeps from its host: allow that with --inspectable",
            ),
            (
                self.linux.is_given() || self.devices.first_given().is_some() || self.in_guest.is_given(),
                "virtio devices are not saved: take an image or a built-in guest, without kernel, firmware, disk, network or share",
            ),
            (self.inject.is_some(), "where a plan of faults stands is not saved: leave --inject out"),
            (self.gdb.is_given(), "what a debugger has set is not saved: leave --gdb out"),
            (
                self.quote.is_some() || self.qgs.is_some(),
                "who gives quotes is not saved: leave --quote and --qgs out",
            ),
        ];
        match refusals.into_iter().find(|(refused, _)| *refused) {
            Some((_, why)) => Err(Failure::input("--snapshot", why)),
            None => Ok(()),
        }
    }
}
