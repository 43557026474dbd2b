//! The setup header of a Linux/x86 kernel: the boot protocol's fields in the first sectors of a bzImage.
//!
//! Linux Documentation/arch/x86/boot.rst. The file begins with the real-mode setup code, `setup_sects + 1` sectors of
//! it, with the header inside; the part that runs in protected mode follows.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Offset of the header in the file, and in boot_params.
pub const HEADER_OFFSET: usize = 0x1f1;
/// Bytes of a sector.
pub const SECTOR: usize = 512;
/// `setup_sects` where the field is 0.
pub const DEFAULT_SETUP_SECTORS: u8 = 4;
/// The unit of `syssize`, in bytes.
pub const PARAGRAPH: u32 = 16;

/// Fields of the header up to protocol 2.15.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SetupHeader {
    /// Sectors of setup code behind the first; 0 stands for 4.
    pub setup_sects: u8,
    /// Root is mounted read-only.
    pub root_flags: U16,
    /// Size of the protected-mode code in units of 16 bytes.
    pub syssize: U32,
    /// Obsolete.
    pub ram_size: U16,
    /// Video mode.
    pub vid_mode: U16,
    /// Default root device.
    pub root_dev: U16,
    /// 0xAA55.
    pub boot_flag: U16,
    /// A jump; its second byte is the header's length behind offset 0x202.
    pub jump: [u8; 2],
    /// "HdrS".
    pub signature: [u8; 4],
    /// Protocol: major version in the high byte.
    pub version: U16,
    /// Hook for boot loaders.
    pub realmode_swtch: U32,
    /// Obsolete.
    pub start_sys_seg: U16,
    /// Where the kernel's version text lies.
    pub kernel_version: U16,
    /// Who loads: written by the boot loader.
    pub type_of_loader: u8,
    /// Flags, see the constants `LOADED_HIGH`, `CAN_USE_HEAP`.
    pub loadflags: u8,
    /// Obsolete.
    pub setup_move_size: U16,
    /// Where the protected-mode code is entered in 32-bit mode.
    pub code32_start: U32,
    /// Where the initrd lies: written by the boot loader.
    pub ramdisk_image: U32,
    /// The initial RAM disk's size, bytes.
    pub ramdisk_size: U32,
    /// Obsolete.
    pub bootsect_kludge: U32,
    /// End of the setup code's heap.
    pub heap_end_ptr: U16,
    /// More of the loader's version.
    pub ext_loader_ver: u8,
    /// More of the loader's type.
    pub ext_loader_type: u8,
    /// Where the command line lies: written by the boot loader.
    pub cmd_line_ptr: U32,
    /// Highest address that a byte of an initrd may have.
    pub initrd_addr_max: U32,
    /// Alignment that the kernel needs.
    pub kernel_alignment: U32,
    /// Whether the kernel may be loaded elsewhere.
    pub relocatable_kernel: u8,
    /// Least alignment, as a power of two.
    pub min_alignment: u8,
    /// More flags, see the constants `XLF_KERNEL_64`, `XLF_CAN_BE_LOADED_ABOVE_4G`.
    pub xloadflags: U16,
    /// Longest command line without its NUL.
    pub cmdline_size: U32,
    /// Platform.
    pub hardware_subarch: U32,
    /// Data for the platform.
    pub hardware_subarch_data: U64,
    /// Where the compressed kernel lies in the protected-mode code.
    pub payload_offset: U32,
    /// The payload's size, bytes.
    pub payload_length: U32,
    /// List of further data: written by the boot loader.
    pub setup_data: U64,
    /// Where the kernel wants to be loaded.
    pub pref_address: U64,
    /// Memory that it needs there until it has looked at the memory map.
    pub init_size: U32,
    /// Entry of EFI's handover protocol.
    pub handover_offset: U32,
    /// Where kernel_info lies.
    pub kernel_info_offset: U32,
}

const _: () = assert!(core::mem::offset_of!(SetupHeader, signature) + HEADER_OFFSET == 0x202);
const _: () = assert!(core::mem::offset_of!(SetupHeader, type_of_loader) + HEADER_OFFSET == 0x210);
const _: () = assert!(core::mem::offset_of!(SetupHeader, cmd_line_ptr) + HEADER_OFFSET == 0x228);
const _: () = assert!(core::mem::offset_of!(SetupHeader, xloadflags) + HEADER_OFFSET == 0x236);
const _: () = assert!(core::mem::offset_of!(SetupHeader, init_size) + HEADER_OFFSET == 0x260);
const _: () = assert!(size_of::<SetupHeader>() + HEADER_OFFSET == 0x26c);

impl SetupHeader {
    /// What `boot_flag` must be.
    pub const BOOT_FLAG: u16 = 0xaa55;
    /// What `signature` must be.
    pub const SIGNATURE: [u8; 4] = *b"HdrS";
    /// Bit of `loadflags`: the protected-mode code is loaded at 1 MiB.
    pub const LOADED_HIGH: u8 = 1;
    /// Bit of `loadflags`: `heap_end_ptr` is valid.
    pub const CAN_USE_HEAP: u8 = 0x80;
    /// Bit of `xloadflags`: there is a 64-bit entry.
    pub const XLF_KERNEL_64: u16 = 1;
    /// Bit of `xloadflags`: kernel, initrd and boot_params may lie above 4 GiB.
    pub const XLF_CAN_BE_LOADED_ABOVE_4G: u16 = 2;
    /// Protocol 2.02: the command line may lie anywhere below 4 GiB.
    pub const VERSION_2_02: u16 = 0x0202;
    /// Protocol 2.03: `initrd_addr_max`.
    pub const VERSION_2_03: u16 = 0x0203;
    /// Protocol 2.12: `xloadflags`.
    pub const VERSION_2_12: u16 = 0x020c;

    /// The header of a kernel file; `None` for a file without its two marks, or that ends inside of it.
    #[must_use]
    pub fn of(file: &[u8]) -> Option<&Self> {
        let (header, _) = Self::ref_from_prefix(file.get(HEADER_OFFSET..)?).ok()?;
        (header.boot_flag.get() == Self::BOOT_FLAG && header.signature == Self::SIGNATURE).then_some(header)
    }

    /// The header of a kernel file, to be written as a boot loader writes it; `None` as for [`Self::of`].
    #[must_use]
    pub fn of_mut(file: &mut [u8]) -> Option<&mut Self> {
        let (header, _) = Self::mut_from_prefix(file.get_mut(HEADER_OFFSET..)?).ok()?;
        (header.boot_flag.get() == Self::BOOT_FLAG && header.signature == Self::SIGNATURE).then_some(header)
    }

    /// Bytes of the setup code: where the protected-mode code begins in the file.
    #[must_use]
    pub fn setup_bytes(&self) -> usize {
        let sectors = if self.setup_sects == 0 { DEFAULT_SETUP_SECTORS } else { self.setup_sects };
        (usize::from(sectors) + 1) * SECTOR
    }

    /// Bytes of the protected-mode code.
    #[must_use]
    pub fn system_bytes(&self) -> u64 {
        u64::from(self.syssize.get()) * u64::from(PARAGRAPH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_found_by_its_two_marks_and_written_in_place() {
        let mut file = vec![0; 0x1000];
        file[0x1f1] = 0;
        file[0x1f4..0x1f8].copy_from_slice(&3u32.to_le_bytes());
        file[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        file[0x202..0x206].copy_from_slice(b"HdrS");
        file[0x236] = 1;
        let header = SetupHeader::of(&file).unwrap();
        assert_eq!((header.setup_bytes(), header.system_bytes()), (5 * 512, 48));
        assert_eq!(header.xloadflags.get(), SetupHeader::XLF_KERNEL_64);
        SetupHeader::of_mut(&mut file).unwrap().cmd_line_ptr = U32::new(0x2_0000);
        assert_eq!(file[0x228..0x22c], 0x2_0000u32.to_le_bytes());
        for at in [0x1fe, 0x1ff, 0x202, 0x205] {
            let mut other = file.clone();
            other[at] ^= 1;
            assert!(
                SetupHeader::of(&other).is_none() && SetupHeader::of_mut(&mut other).is_none(),
                "{at:#x}"
            );
        }
        assert!(SetupHeader::of(&file[..0x26b]).is_none());
        assert!(SetupHeader::of(&file[..0x26c]).is_some());
    }
}
