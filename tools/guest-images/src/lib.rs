//! The built-in guests as TDVF images, with the ELF files that explain their defmt logs.
//!
//! The guests are a freestanding workspace of their own, `tools/guests`. This crate's build script builds it in a
//! clean environment (nothing of the outer build's flags, wrappers or target folder leaks in) and packs each ELF
//! into an image; whoever depends on this crate gets the bytes:
//!
//! ```
//! let guest = &tdvisor_guest_images::HELLO_TD;
//! assert!(guest.image.len() % 4096 == 0, "a firmware volume is whole pages");
//! ```
//!
//! An image is measured, so its bytes must depend on the sources and the compiler only; see [`pack`] for its form.

#![forbid(unsafe_code)]

pub mod pack;
pub mod qemu;

/// A guest to run.
#[derive(Clone, Copy, Debug)]
pub struct GuestImage {
    /// The name by which users call it.
    pub name: &'static str,
    /// The TDVF image, to be mapped so that it ends at 4 GiB.
    pub image: &'static [u8],
    /// The ELF file that the image was packed from: symbols, line tables and the defmt strings.
    pub elf: &'static [u8],
}

/// Does once what every TD guest does, prints its measurements, and powers off.
pub static HELLO_TD: GuestImage = GuestImage {
    name: "hello-td",
    image: include_bytes!(concat!(env!("OUT_DIR"), "/hello-td.fd")),
    elf: include_bytes!(concat!(env!("OUT_DIR"), "/hello-td.elf")),
};

/// Ends badly in the way that its command asks for.
pub static FAULT_TD: GuestImage = GuestImage {
    name: "fault-td",
    image: include_bytes!(concat!(env!("OUT_DIR"), "/fault-td.fd")),
    elf: include_bytes!(concat!(env!("OUT_DIR"), "/fault-td.elf")),
};

/// Boots Linux: the firmware of a TD whose kernel, initrd and command line the host offers by fw_cfg.
pub static BOOT_SHIM: GuestImage = GuestImage {
    name: "boot-shim",
    image: include_bytes!(concat!(env!("OUT_DIR"), "/boot-shim.fd")),
    elf: include_bytes!(concat!(env!("OUT_DIR"), "/boot-shim.elf")),
};

/// Checks what a TD sees of its processor against the tables of TDX module 1.5.05.
pub static COMPLIANCE: GuestImage = GuestImage {
    name: "compliance",
    image: include_bytes!(concat!(env!("OUT_DIR"), "/compliance.fd")),
    elf: include_bytes!(concat!(env!("OUT_DIR"), "/compliance.elf")),
};

/// Runs an L2 VM inside of its TD, and says what came of it.
pub static L1_VMM: GuestImage = GuestImage {
    name: "l1-vmm",
    image: include_bytes!(concat!(env!("OUT_DIR"), "/l1-vmm.fd")),
    elf: include_bytes!(concat!(env!("OUT_DIR"), "/l1-vmm.elf")),
};

/// All built-in guests.
pub static GUESTS: [&GuestImage; 5] = [&HELLO_TD, &FAULT_TD, &BOOT_SHIM, &COMPLIANCE, &L1_VMM];

/// The fw_cfg file in which [`BOOT_SHIM`] finds the kernel: a bzImage or an ELF vmlinux.
pub const KERNEL_FILE: &str = "opt/org.tdvisor/kernel";
/// The fw_cfg file in which [`BOOT_SHIM`] finds the initial RAM disk; it may be absent.
pub const INITRD_FILE: &str = "opt/org.tdvisor/initrd";
/// The fw_cfg file in which [`BOOT_SHIM`] finds the command line: text without a zero byte.
pub const COMMAND_LINE_FILE: &str = "opt/org.tdvisor/cmdline";

/// Marks the GUID extension HOB (type 4) in the TD HOB that carries a guest's command, in the byte order of the HOB:
/// 1f125834-4e85-407c-a7db-af170eae8df7. ASCII text follows it, padded with zeros to a multiple of eight bytes.
pub const COMMAND_HOB_GUID: [u8; 16] =
    [0x34, 0x58, 0x12, 0x1F, 0x85, 0x4E, 0x7C, 0x40, 0xA7, 0xDB, 0xAF, 0x17, 0x0E, 0xAE, 0x8D, 0xF7];

/// Longest command that the guests read, bytes.
pub const COMMAND_MAX: usize = 128;

/// The port to which a guest writes its result as one byte before it waits to be powered off.
pub const EXIT_PORT: u16 = 0x501;
