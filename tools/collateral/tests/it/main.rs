//! Collateral from services, a cache and a PCCS, as they are and as they should not be.

mod faults;
mod peers;
mod services;
