//! How the TD was configured, as far as the guest can read it.

use guest_rt::Td;
use guest_rt::exit::die;
use tdx_guest::tdcall::{read_td_metadata, read_vcpu_metadata, write_td_metadata, write_vcpu_metadata};

/// Fields of the TD: XFAM, CONFIG_FLAGS, TD_CTLS, TOPOLOGY_ENUM_CONFIGURED.
const XFAM: u64 = 0x1110_0003_0000_0001;
const CONFIG_FLAGS: u64 = 0x9110_0003_0000_0016;
const TD_CTLS: u64 = 0x9110_0003_0000_0017;
const TOPOLOGY_ENUM_CONFIGURED: u64 = 0x9110_0000_0000_0019;
/// Fields of the vCPU: VCPU_INDEX, CPUID_SUPERVISOR_VE, CPUID_CONTROL.
const VCPU_INDEX: u64 = 0xA020_0002_0000_0002;
const CPUID_SUPERVISOR_VE: u64 = 0xA020_0000_0000_0007;
const CPUID_CONTROL: u64 = 0xA120_0000_0000_0000;

/// TD_CTLS bit 1.
pub const ENUM_TOPOLOGY: u64 = 1 << 1;

/// Bits of ATTRIBUTES.
pub mod attributes {
    /// LASS.
    pub const LASS: u64 = 1 << 27;
    /// MIGRATABLE.
    pub const MIGRATABLE: u64 = 1 << 29;
    /// PKS.
    pub const PKS: u64 = 1 << 30;
    /// PERFMON.
    pub const PERFMON: u64 = 1 << 63;
}

/// The configuration.
pub struct Facts {
    /// ATTRIBUTES.
    pub attributes: u64,
    /// XFAM.
    pub xfam: u64,
    /// CONFIG_FLAGS.
    pub config_flags: u64,
    /// TD_CTLS as they are now.
    pub td_ctls: u64,
    /// Whether the host gave x2APIC ids.
    pub has_topology: bool,
    /// The index of this vCPU.
    pub vcpu_index: u64,
}

impl Facts {
    /// Asks the module.
    pub fn read(td: &Td) -> Self {
        let of_td = |field| read_td_metadata(field).unwrap_or_else(|error| unreadable(field, error));
        Self {
            attributes: td.attributes.bits(),
            xfam: of_td(XFAM),
            config_flags: of_td(CONFIG_FLAGS),
            td_ctls: of_td(TD_CTLS),
            // Releases before 1.5.05 do not know the field.
            has_topology: read_td_metadata(TOPOLOGY_ENUM_CONFIGURED).is_ok_and(|value| value != 0),
            vcpu_index: read_vcpu_metadata(VCPU_INDEX).unwrap_or_else(|error| unreadable(VCPU_INDEX, error)),
        }
    }

    /// Whether ATTRIBUTES have a bit.
    pub fn has(&self, attribute: u64) -> bool {
        self.attributes & attribute != 0
    }

    /// Whether XFAM has all of some bits.
    pub fn has_state(&self, components: u64) -> bool {
        self.xfam & components == components
    }

    /// Whether CPUID shows the topology.
    pub fn shows_topology(&self) -> bool {
        self.td_ctls & ENUM_TOPOLOGY != 0
    }

    /// Turns ENUM_TOPOLOGY on; whether that worked.
    pub fn show_topology(&mut self) -> bool {
        let written = write_td_metadata(TD_CTLS, ENUM_TOPOLOGY, ENUM_TOPOLOGY).is_ok();
        self.td_ctls = read_td_metadata(TD_CTLS).unwrap_or(self.td_ctls);
        written
    }
}

/// Makes every CPUID of this vCPU raise #VE, or not; whether that worked.
pub fn set_supervisor_ve(on: bool) -> bool {
    write_vcpu_metadata(CPUID_SUPERVISOR_VE, on.into(), 1).is_ok()
}

/// Makes CPUID of one entry of the table raise #VE, or not; whether that worked.
pub fn set_leaf_ve(entry: usize, on: bool) -> bool {
    write_vcpu_metadata(CPUID_CONTROL + entry as u64, on.into(), 1).is_ok()
}

fn unreadable(field: u64, error: impl core::fmt::Debug) -> u64 {
    die(format_args!("field {field:#x} cannot be read: {error:?}"))
}
