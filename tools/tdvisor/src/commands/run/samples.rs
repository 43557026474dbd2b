//! `--folded-stacks`: where the guest spends its instructions, for flame graphs; and `--symbols`, which names places.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;

use seam_emu::guest::samples::Samples;
use tdvisor_inspector::{Symbols, folded};

use crate::files::{Claims, Output};
use crate::outcome::Failure;
use crate::read_bounded::read_bounded;
use crate::streams::Streams;

/// Bytes of the largest file of symbols: a kernel with all its debug information.
const SYMBOLS_MAX: u64 = 2 << 30;

/// Options of samples.
#[derive(Debug, clap::Args)]
pub struct SampleArgs {
    /// Write where the guest spends its instructions to FILE, as folded stacks: a line for each place, `vCPU;mode;place count`,
    /// which flamegraph.pl, inferno and speedscope.app draw. A sample is the place of one instruction; its callers are not in it.
    /// It looks into the guest.
    #[arg(long, value_name = "FILE", requires = "inspectable")]
    folded_stacks: Option<PathBuf>,
    /// One sample in so many instructions of a vCPU.
    #[arg(long, value_name = "N", default_value = "100000", requires = "folded_stacks")]
    sample_every: NonZeroU64,
    /// Name places by these symbols, in --folded-stacks and in the summary of a TD in debug mode that died: an ELF file, such as the
    /// kernel's `vmlinux`, or a `System.map`. A Linux kernel has to be told `nokaslr`, or it is elsewhere.
    #[arg(long, value_name = "FILE")]
    symbols: Option<PathBuf>,
}

/// Samples whose file is not written yet.
pub struct Sampling {
    samples: Arc<Samples>,
    file: Output,
}

impl SampleArgs {
    /// Notes which files are read and written.
    pub fn claim(&self, claims: &mut Claims) -> Result<(), Failure> {
        self.symbols.as_deref().map_or(Ok(()), |path| claims.reads("--symbols", path))?;
        self.folded_stacks.as_deref().map_or(Ok(()), |path| claims.writes("--folded-stacks", path))
    }

    /// What names places.
    pub fn symbols(&self) -> Result<Symbols, Failure> {
        let Some(path) = &self.symbols else { return Ok(Symbols::default()) };
        Symbols::read(&read_bounded(path, SYMBOLS_MAX)?).ok_or_else(|| {
            Failure::input(path.display(), "neither an ELF file with symbols nor a System.map")
        })
    }

    /// Opens the file, if samples are asked for.
    pub fn open(&self) -> Result<Option<Sampling>, Failure> {
        let Some(path) = &self.folded_stacks else { return Ok(None) };
        Ok(Some(Sampling { samples: Samples::new(self.sample_every), file: Output::open(path)? }))
    }
}

impl Sampling {
    /// Where they are counted.
    pub fn samples(&self) -> Arc<Samples> {
        self.samples.clone()
    }

    /// Writes the file.
    pub fn write(self, symbols: &Symbols, streams: &Streams) -> Result<(), Failure> {
        let lost = self.samples.lost();
        if lost != 0 {
            streams.say(format_args!(
                "tdvisor: --folded-stacks: {lost} samples are at more places than are told apart"
            ));
        }
        self.file.write(folded(&self.samples.all(), symbols).as_bytes())
    }
}
