//! The host side of the module: bring-up, and what all TDs share.

pub mod hkid;
mod memory_map;

pub use memory_map::{MemoryRange, PlanError, TdmrLimits, TdmrPlan, pamt_bytes, plan_tdmrs};
