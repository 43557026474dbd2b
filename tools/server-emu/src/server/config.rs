//! What a server is made from.

use seam_emu::processor::{EmulatedProcessor, Processor::Emulated};
use seam_emu::{Cmr, EngineKind, MachineConfig, ModuleProfile, SeamRange, TscSource};
use serde::{Deserialize, Serialize};

use super::error::ServerError;
use crate::layout::{self, SEAM_BASE, SEAM_BYTES};

/// The least memory of a server.
pub const MIN_MEMORY: u64 = 64 << 20;
/// The most memory of a server.
pub const MAX_MEMORY: u64 = 64 << 30;
/// The most processors of a server.
pub const MAX_PROCESSORS: u32 = 64;
/// The most packages of a server.
pub const MAX_PACKAGES: u32 = 2;

/// What happens to the host's state that a TD exit gives up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostState {
    /// The host's state is overwritten, as on hardware: hosts that rely on luck fail here as well.
    #[default]
    Strict,
    /// The host's state is left alone.
    Preserved,
}

impl HostState {
    pub(crate) const fn is_strict(self) -> bool {
        matches!(self, Self::Strict)
    }
}

/// What of TDX firmware set up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FirmwareSetup {
    /// VMX, memory encryption, key ids for TDs, and the module in its range.
    #[default]
    Complete,
    /// VMX is locked off.
    WithoutVmx,
    /// Memory encryption is locked off: there are no key ids, and the module's range is disabled.
    WithoutMemoryEncryption,
    /// No key id is one of TDs, and the module's range is disabled.
    WithoutKeyIds,
    /// The module's range is disabled: SEAMCALL is #GP.
    WithoutSeamRange,
}

impl FirmwareSetup {
    /// Whether the module's range is enabled, and the module in it.
    pub(crate) const fn has_seam_range(self) -> bool {
        matches!(self, Self::Complete | Self::WithoutVmx)
    }
}

/// How a server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pace {
    /// Processors are threads that run side by side; time is the host's.
    Real,
    /// One processor at a time, in virtual time; the same seed gives the same run.
    Deterministic {
        /// Decides who runs for how long.
        seed: u64,
    },
}

/// What a server is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerConfig {
    /// Logical processors, spread evenly over the packages.
    pub processors: u32,
    /// Processor packages.
    pub packages: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// The release of the TDX module.
    pub profile: ModuleProfile,
    /// The model of its processors.
    pub processor: EmulatedProcessor,
    /// What runs the instructions of hosts and guests; neither notices, and a snapshot does not say.
    #[serde(skip)]
    pub engine: EngineKind,
    /// Real time, or turns in virtual time.
    pub pace: Pace,
    /// What happens to the host's state that a TD exit gives up.
    pub host_state: HostState,
    /// What of TDX firmware set up.
    pub firmware: FirmwareSetup,
}

impl Default for ServerConfig {
    /// One processor, 2 GiB, the module release that Linux asks for (1.5.05), the host's clock.
    fn default() -> Self {
        Self {
            processors: 1,
            packages: 1,
            memory: 2 << 30,
            profile: ModuleProfile::default(),
            processor: EmulatedProcessor::default(),
            engine: EngineKind::default(),
            pace: Pace::Real,
            host_state: HostState::default(),
            firmware: FirmwareSetup::default(),
        }
    }
}

/// How far a virtual time-stamp counter moves with each instruction: at 2 GHz, the pace of the software CPU.
const TICKS_PER_INSTRUCTION: u64 = 8;

impl ServerConfig {
    /// The machine under the server.
    pub(crate) fn machine(&self) -> MachineConfig {
        let top = layout::memory_map(self.memory).last().map_or(0, |range| range.base + range.bytes);
        let cmrs =
            layout::convertible(self.memory).into_iter().map(|(base, size)| Cmr { base, size }).collect();
        MachineConfig {
            lp_packages: self.places().map(|(package, _)| package).collect(),
            phys_mem_bytes: top.next_multiple_of(1 << 21),
            cmrs,
            seam_range: SeamRange { base: SEAM_BASE, size: SEAM_BYTES },
            tsc_source: match self.pace {
                Pace::Real => TscSource::Host,
                Pace::Deterministic { .. } => TscSource::Virtual,
            },
            tsc_ticks_per_instruction: TICKS_PER_INSTRUCTION,
            profile: self.profile,
            cpuid_fms: self.processor.model.family_model_stepping(),
            processor: Emulated(self.processor),
            ..MachineConfig::small()
        }
    }

    /// Package, and number in it, of each processor.
    fn places(&self) -> impl Iterator<Item = (u32, u32)> {
        let each = self.processors.div_ceil(self.packages.max(1)).max(1);
        (0..self.processors).map(move |index| (index / each, index % each))
    }

    /// x2APIC ids: the package above, the number in it in the low eight bits.
    pub(crate) fn apic_ids(&self) -> Vec<u32> {
        self.places().map(|(package, number)| package << 8 | number).collect()
    }

    pub(crate) fn check(&self) -> Result<(), ServerError> {
        if !(MIN_MEMORY..=MAX_MEMORY).contains(&self.memory) || !self.memory.is_multiple_of(1 << 20) {
            return Err(ServerError::Memory(self.memory));
        }
        let packages = (1..=MAX_PACKAGES).contains(&self.packages);
        if !(1..=MAX_PROCESSORS).contains(&self.processors) || !packages || self.packages > self.processors {
            return Err(ServerError::Processors { processors: self.processors, packages: self.packages });
        }
        Ok(())
    }
}
