//! The x2APIC ids of a TD's vCPUs, as TDH.VP.INIT of version 1 gives them.

use super::Tdcs;
use crate::fields::layout::tdcs;
use crate::fields::{FieldStore, Width};

const ID_BYTES: u32 = 4;

impl Tdcs<'_> {
    /// The x2APIC id of vCPU `index`; zero where it was given none.
    pub(crate) fn x2apic_id(&self, index: u32) -> u32 {
        self.load(tdcs::X2APIC_IDS + ID_BYTES * index, Width::B4) as u32
    }

    /// Gives vCPU `index` an id.
    pub(crate) fn set_x2apic_id(&self, index: u32, id: u32) {
        self.store(tdcs::X2APIC_IDS + ID_BYTES * index, Width::B4, u64::from(id));
    }

    /// Sets whether a guest may look at the topology.
    pub(crate) fn set_topology_configured(&self, configured: bool) {
        self.store(tdcs::TOPOLOGY_ENUM_CONFIGURED, Width::B1, u64::from(configured));
    }
}
