//! The bootable TD host as an ELF file: `vmm-core/bare-metal/image`, with `hello-td` inside.
//!
//! It is built in a clean environment, as the guests are (`freestanding-build`). QEMU takes it as `-kernel` (PVH), GRUB by
//! `multiboot2`, kexec and `tdvisor server` by the 64-bit entry of the Linux boot protocol.

#![forbid(unsafe_code)]

use tdvisor_guest_images::{GuestImage, HELLO_TD};

/// The TD inside.
pub static DEFAULT_TD: &GuestImage = &HELLO_TD;

/// The ELF file.
pub static HOST_IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/host.elf"));
