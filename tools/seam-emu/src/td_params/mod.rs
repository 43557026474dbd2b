//! TD_PARAMS: the checks of TDH.MNG.INIT in their exact order, and what they make of a TD.
//!
//! Order (Intel 348551, TDH.MNG.INIT; held by the recordings): ATTRIBUTES, XFAM, MAX_VCPUS, NUM_L2_VMS, TDCX pages,
//! reserved bytes 20..24, CONFIG_FLAGS, EPTP_CONTROLS, TSC_FREQUENCY, reserved bytes 42..80 and MSR_CONFIG_CTLS,
//! CPUID_CONFIG leaf by leaf in the order of the release's table, the topology, the other reserved bytes, IA32_ARCH_CAPABILITIES_CONFIG, MIGRATABLE with L2 VMs.

pub(crate) mod check;
pub(crate) mod leaf;
pub(crate) mod state;
pub(crate) mod vmx;

pub use check::{Refusal, check, check_topology};
pub use state::{extended_state, initial_fields};
