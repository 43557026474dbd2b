//! What a TD's image is, and what it measures to.
//!
//! TDVF images ([`tdvf`]) and IGVM files ([`igvm`]) become one list of pages: a loader walks it with SEAMCALLs or KVM's
//! ioctls, and [`mrtd`] with SHA-384. [`td_hob`] writes what a host hands to the firmware, [`linux`] reads the header of
//! a kernel. Nothing here knows quotes.
//!
//! The crate is `no_std`. Without features it has [`digest`], [`linux`] and the [`bytes`] that every parser reads with;
//! `alloc` adds the images; `ring` hashes with ring's assembly in place of RustCrypto.

#![cfg_attr(not(feature = "std"), no_std)]

#[cfg(feature = "alloc")]
extern crate alloc;

pub mod bytes;
pub mod digest;
#[cfg(feature = "alloc")]
pub mod igvm;
pub mod linux;
#[cfg(feature = "alloc")]
pub mod mrtd;
#[cfg(feature = "alloc")]
pub mod td_hob;
#[cfg(feature = "alloc")]
pub mod tdvf;
#[cfg(all(feature = "alloc", any(test, feature = "testing")))]
pub mod testing;
