//! What a caller asks for when it creates a TD, and what of it is usable.

use alloc::vec::Vec;
use core::fmt;

use mirror_ept::GfnRange;
use td_image::td_hob::{MemoryRange, qemu_ram};
use td_image::tdvf::OutsideMemory;
use tdvisor_base::{Gfn, Gpa, Level, PAGE_SIZE};
use tdx_module_iface::td_params::attributes;

use crate::migration::binding::ServiceTd;

/// vCPUs that one TD may have: what MAX_VCPUS of TD_PARAMS can say, and more than any guest here uses.
pub const MAX_VCPUS: u32 = 512;

/// L2 VMs that one TD may have: what NUM_L2_VMS of TD_PARAMS can say.
pub const MAX_L2_VMS: u8 = 3;

/// A TD as it is asked for.
#[derive(Clone, Debug)]
pub struct TdConfig {
    /// Memory, in bytes: a multiple of 4 KiB.
    pub memory: u64,
    /// How many vCPUs.
    pub vcpus: u32,
    /// ATTRIBUTES of TD_PARAMS.
    pub attributes: u64,
    /// The largest page that private and shared memory is mapped with.
    pub largest_page: Level,
    /// GUID extensions for the TD HOB: how a caller passes a command to a guest.
    pub hob_extensions: Vec<([u8; 16], Vec<u8>)>,
    /// MRCONFIGID, MROWNER and MROWNERCONFIG.
    pub ids: ConfigIds,
    /// L2 VMs that the guest may run inside of its TD (TD partitioning), where the module offers them.
    pub l2_vms: u8,
    /// The migration TD that may have its keys, for a TD that may move (ATTRIBUTES.MIGRATABLE).
    pub migration_td: Option<ServiceTd>,
}

/// Software-defined identities that the TDREPORT carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigIds {
    /// MRCONFIGID.
    pub config_id: [u8; 48],
    /// MROWNER.
    pub owner: [u8; 48],
    /// MROWNERCONFIG.
    pub owner_config: [u8; 48],
}

impl Default for ConfigIds {
    fn default() -> Self {
        Self { config_id: [0; 48], owner: [0; 48], owner_config: [0; 48] }
    }
}

impl Default for TdConfig {
    /// One vCPU, 128 MiB, pages up to 2 MiB, and SEPT_VE_DISABLE, without which a host could inject #VE at
    /// will into a guest that trusts its memory.
    fn default() -> Self {
        Self {
            memory: 128 << 20,
            vcpus: 1,
            attributes: attributes::SEPT_VE_DISABLE,
            largest_page: Level::L2M,
            hob_extensions: Vec::new(),
            ids: ConfigIds::default(),
            l2_vms: 0,
            migration_td: None,
        }
    }
}

/// Why a TD cannot be had as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// No memory at all.
    NoMemory,
    /// Not a multiple of 4 KiB.
    OddMemory(u64),
    /// More than the machine has left.
    TooMuchMemory {
        /// Bytes asked for.
        asked: u64,
        /// Bytes that the machine could give.
        available: u64,
    },
    /// No vCPU at all.
    NoVcpus,
    /// More vCPUs than this machine runs.
    TooManyVcpus {
        /// How many were asked for.
        asked: u32,
        /// How many are possible.
        limit: u32,
    },
    /// More L2 VMs than a TD can have.
    TooManyL2Vms(u8),
    /// A TD that may move cannot have L2 VMs.
    L2VmsThatMove,
    /// A section of the image lies where the TD has no memory.
    OutsideMemory(OutsideMemory),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemory => f.write_str("a TD needs memory: give it at least 4K"),
            Self::OddMemory(bytes) => write!(f, "{bytes} bytes of memory is not a multiple of 4 KiB"),
            Self::TooMuchMemory { asked, available } => write!(
                f,
                "{} MiB of memory is more than the machine has: at most {} MiB",
                asked >> 20,
                available >> 20
            ),
            Self::NoVcpus => f.write_str("a TD needs at least one vCPU"),
            Self::TooManyVcpus { asked, limit } => {
                write!(f, "{asked} vCPUs is more than this machine runs: at most {limit}")
            }
            Self::TooManyL2Vms(asked) => {
                write!(f, "{asked} L2 VMs is more than a TD can have: at most {MAX_L2_VMS}")
            }
            Self::L2VmsThatMove => f.write_str("a TD that may move to another machine cannot have L2 VMs"),
            Self::OutsideMemory(section) => section.fmt(f),
        }
    }
}

impl core::error::Error for ConfigError {}

impl TdConfig {
    /// Checks what can be checked without a machine's help.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn check(&self, available: u64, vcpu_limit: u32) -> Result<(), ConfigError> {
        if self.memory == 0 {
            return Err(ConfigError::NoMemory);
        }
        if !self.memory.is_multiple_of(PAGE_SIZE) {
            return Err(ConfigError::OddMemory(self.memory));
        }
        if self.memory > available {
            return Err(ConfigError::TooMuchMemory { asked: self.memory, available });
        }
        if self.vcpus == 0 {
            return Err(ConfigError::NoVcpus);
        }
        let limit = vcpu_limit.min(MAX_VCPUS);
        if self.vcpus > limit {
            return Err(ConfigError::TooManyVcpus { asked: self.vcpus, limit });
        }
        if self.l2_vms > MAX_L2_VMS {
            return Err(ConfigError::TooManyL2Vms(self.l2_vms));
        }
        if self.l2_vms > 0 && self.attributes & attributes::MIGRATABLE != 0 {
            return Err(ConfigError::L2VmsThatMove);
        }
        Ok(())
    }

    /// RAM as the guest sees it, in bytes: as QEMU's q35 has it, around the hole below 4 GiB.
    pub(crate) fn ram_ranges(&self) -> [MemoryRange; 2] {
        qemu_ram(self.memory)
    }

    /// RAM as the guest sees it, in frames: one range, or two.
    pub fn ram(&self) -> Vec<GfnRange> {
        self.ram_ranges()
            .iter()
            .filter_map(|range| frames_of(range.start, range.bytes))
            .filter(|r| !r.is_empty())
            .collect()
    }
}

/// The frames of `bytes` bytes at `gpa`, rounded outwards.
pub(crate) fn frames_of(gpa: Gpa, bytes: u64) -> Option<GfnRange> {
    let end = gpa.checked_add(bytes)?.checked_add(PAGE_SIZE - 1)?;
    Some(GfnRange::new(gpa.frame(), Gfn::new(end.get() / PAGE_SIZE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_above_the_limit_is_split_around_four_gib() {
        let config = |memory| TdConfig { memory, ..TdConfig::default() };
        assert_eq!(config(256 << 20).ram().len(), 1);
        let two = config(4 << 30).ram();
        assert_eq!(two[0].end(), Gfn::new(0x8_0000));
        assert_eq!(two[1].start(), Gfn::new(0x10_0000));
        assert_eq!(two.iter().map(|r| r.frames()).sum::<u64>(), (4 << 30) / 4096);
    }

    #[test]
    fn what_cannot_be_had_is_named() {
        let config = TdConfig::default();
        let check = |memory, vcpus| TdConfig { memory, vcpus, ..config.clone() }.check(1 << 30, 4);
        assert_eq!(check(0, 1), Err(ConfigError::NoMemory));
        assert_eq!(check(4097, 1), Err(ConfigError::OddMemory(4097)));
        assert_eq!(check(2 << 30, 1), Err(ConfigError::TooMuchMemory { asked: 2 << 30, available: 1 << 30 }));
        assert_eq!(check(4096, 0), Err(ConfigError::NoVcpus));
        assert_eq!(check(4096, 5), Err(ConfigError::TooManyVcpus { asked: 5, limit: 4 }));
        assert_eq!(check(4096, 4), Ok(()));
        let l2 = |l2_vms, attributes| TdConfig { l2_vms, attributes, ..config.clone() }.check(1 << 30, 4);
        assert_eq!(l2(3, 0), Ok(()));
        assert_eq!(l2(4, 0), Err(ConfigError::TooManyL2Vms(4)));
        assert_eq!(l2(1, attributes::MIGRATABLE), Err(ConfigError::L2VmsThatMove));
    }
}
