//! A TD as the module sees it: control structures, Secure EPT, epochs.
//!
//! A TD's state lies in its pages, not here: these types are views of TDR and TDCX pages, as cheap to make as
//! two address computations. Who may look at what is decided by the locks that the leaf took before.

pub(crate) mod epoch;
pub(crate) mod l2;
pub(crate) mod sept;
mod structures;
mod x2apic;

pub(crate) use structures::{Tdcs, Tdr, Tdvps};
