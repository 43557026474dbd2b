//! What the emulated machine is, as `run` and `server` are told.

use std::fmt;
use std::str::FromStr;

use machine_emu::Hardware;
use seam_emu::features::FeatureSet;
use seam_emu::processor::{EmulatedProcessor, Model};
use seam_emu::{EngineKind, ModuleProfile, UnknownEngine};

use crate::outcome::Failure;

/// Options that choose the machine.
#[derive(Debug, clap::Args)]
pub struct HardwareArgs {
    /// The release of the TDX module (`tdvisor list` names them).
    #[arg(long, value_name = "NAME", default_value_t)]
    pub profile: ModuleProfile,
    /// The model of the processor (`tdvisor list` names them).
    #[arg(long, value_name = "NAME", default_value_t)]
    cpu: Model,
    /// Hide a feature of the processor, as `-rdrand`; may be given several times. Its instructions still run.
    #[arg(long, value_name = "-NAME", allow_hyphen_values = true)]
    feature: Vec<HiddenFeature>,
    /// What runs the instructions of guests and hosts: `interpreter`, or `compiler`, which makes host code of what runs often
    /// and does the same; `auto` is the compiler where this machine lets it run.
    #[arg(long, value_name = "NAME", default_value_t)]
    engine: EngineChoice,
}

/// How the engine is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum EngineChoice {
    /// The faster one that runs here.
    #[default]
    Auto,
    /// By name.
    Named(EngineKind),
}

const AUTO: &str = "auto";

impl FromStr for EngineChoice {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        if name == AUTO {
            return Ok(Self::Auto);
        }
        name.parse().map(Self::Named).map_err(|unknown: UnknownEngine| format!("{unknown}, or '{AUTO}'"))
    }
}

impl fmt::Display for EngineChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str(AUTO),
            Self::Named(kind) => f.write_str(kind.name()),
        }
    }
}

impl EngineChoice {
    /// The engine.
    ///
    /// # Errors
    /// An engine was named that this machine does not let run.
    fn kind(self) -> Result<EngineKind, Failure> {
        match self {
            Self::Auto if EngineKind::Compiler.check().is_ok() => Ok(EngineKind::Compiler),
            Self::Auto => Ok(EngineKind::Interpreter),
            Self::Named(kind) => {
                kind.check().map_err(|error| Failure::input("--engine", error))?;
                Ok(kind)
            }
        }
    }
}

/// A feature that is not to be seen.
#[derive(Clone, Debug)]
struct HiddenFeature(String);

impl FromStr for HiddenFeature {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let name = text.strip_prefix('-').filter(|name| !name.is_empty());
        let name = name.ok_or("features can only be taken away: write a '-' before the name")?;
        Ok(Self(name.to_owned()))
    }
}

impl HardwareArgs {
    /// Whether nothing was chosen.
    pub fn is_usual(&self) -> bool {
        self.profile == ModuleProfile::default()
            && self.cpu == Model::default()
            && self.feature.is_empty()
            && self.engine == EngineChoice::default()
    }

    /// Words by which another process of this program gets the same machine.
    pub fn words(&self) -> Vec<String> {
        let chosen = [
            ("--profile", self.profile.to_string()),
            ("--cpu", self.cpu.to_string()),
            ("--engine", self.engine.to_string()),
        ];
        let chosen = chosen.into_iter().map(|(option, value)| format!("{option}={value}"));
        chosen.chain(self.feature.iter().map(|HiddenFeature(name)| format!("--feature=-{name}"))).collect()
    }

    /// The machine.
    ///
    /// # Errors
    /// A feature that does not exist, or that the processor cannot be without.
    pub fn hardware(&self) -> Result<Hardware, Failure> {
        let mut processor = EmulatedProcessor::new(self.cpu);
        for HiddenFeature(name) in &self.feature {
            processor = processor
                .without(name)
                .map_err(|error| Failure::input(format_args!("--feature -{name}"), error))?;
        }
        Ok(Hardware { module: self.profile, processor, engine: self.engine.kind()?, ..Hardware::default() })
    }

    /// The machine for a TD with so many L2 VMs: its module presents TD partitioning if there are any.
    ///
    /// # Errors
    /// As for [`Self::hardware`].
    pub fn hardware_for(&self, l2_vms: u8) -> Result<Hardware, Failure> {
        let features = if l2_vms > 0 { FeatureSet::Partitioned } else { FeatureSet::Offered };
        Ok(Hardware { features, ..self.hardware()? })
    }
}
