//! Memory that the module manages: CMRs, TDMRs and the PAMT.
//!
//! A *CMR* is memory that the platform declares convertible. A *TDMR* is a range that the host hands to the
//! module, 1 GiB aligned, with up to 16 reserved areas that the module will not use. For every TDMR the host
//! gives three *PAMT* areas, one per page size, in which the module keeps 16 bytes per page.

use tdvisor_base::{Hpa, Level, PAGE_SIZE, open_enum};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Most TDMRs that module 1.5.01 accepts (SYS field MAX_TDMRS).
pub const MAX_TDMRS: usize = 64;
/// Most reserved areas of one TDMR (SYS field MAX_RESERVED_PER_TDMR).
pub const MAX_RESERVED_PER_TDMR: usize = 16;
/// Most CMRs.
pub const MAX_CMRS: usize = 32;
/// Alignment and granularity of a TDMR, in bytes.
pub const TDMR_ALIGN: u64 = 1 << 30;
/// Alignment of every TDMR_INFO, of the array of their addresses and of the CMR table, in bytes.
pub const TDMR_INFO_ALIGN: u64 = 512;
/// Bytes of one PAMT entry, at every level.
pub const PAMT_ENTRY_SIZE: u64 = 16;
/// Bytes of a TDMR that one `TDH.SYS.TDMR.INIT` initialises.
pub const TDMR_INIT_STEP: u64 = 1024 * PAGE_SIZE;

/// A convertible memory range.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CmrInfo {
    /// First address.
    pub base: u64,
    /// Bytes; 0 in unused entries of the table.
    pub size: u64,
}

/// A part of a TDMR that the module does not use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ReservedArea {
    /// Bytes from the base of the TDMR, 4 KiB aligned.
    pub offset: u64,
    /// Bytes, 4 KiB aligned; 0 ends the list.
    pub size: u64,
}

/// One TDMR as `TDH.SYS.CONFIG` takes it: 320 bytes at a 512-byte aligned address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TdmrInfo {
    /// First address, 1 GiB aligned.
    pub base: u64,
    /// Bytes, a multiple of 1 GiB.
    pub size: u64,
    /// PAMT area for 1 GiB pages: first address, 4 KiB aligned.
    pub pamt_1g_base: u64,
    /// PAMT area for 1 GiB pages: bytes, at least [`pamt_size`].
    pub pamt_1g_size: u64,
    /// PAMT area for 2 MiB pages: first address.
    pub pamt_2m_base: u64,
    /// PAMT area for 2 MiB pages: bytes.
    pub pamt_2m_size: u64,
    /// PAMT area for 4 KiB pages: first address.
    pub pamt_4k_base: u64,
    /// PAMT area for 4 KiB pages: bytes.
    pub pamt_4k_size: u64,
    /// Reserved areas in ascending order.
    pub reserved: [ReservedArea; MAX_RESERVED_PER_TDMR],
}

const _: () = assert!(size_of::<TdmrInfo>() == 320);
const _: () = assert!(size_of::<CmrInfo>() == 16);

/// Bytes that the PAMT area of one level needs for a TDMR of `tdmr_size` bytes: 16 per page, rounded up to
/// 4 KiB. `None` for a level that has no PAMT, and for sizes whose result leaves 64 bits.
pub const fn pamt_size(tdmr_size: u64, level: Level) -> Option<u64> {
    match level {
        Level::L4K | Level::L2M | Level::L1G => {}
        Level::L512G | Level::L256T => return None,
    }
    let Some(bytes) = (tdmr_size >> level.shift()).checked_mul(PAMT_ENTRY_SIZE) else { return None };
    bytes.checked_next_multiple_of(PAGE_SIZE)
}

open_enum! {
    /// What a physical page is used for, as the PAMT records it.
    pub enum PageType : u8 {
        /// Not assigned: free.
        NDA = 0, "NDA";
        /// Reserved: not usable by the module.
        RSVD = 1, "RSVD";
        /// A private page of a TD.
        REG = 3, "REG";
        /// The root page of a TD.
        TDR = 4, "TDR";
        /// A control page of a TD, an extra page of a VCPU or a migration stream.
        TDCX = 5, "TDCX";
        /// The root page of a VCPU.
        TDVPR = 6, "TDVPR";
        /// A Secure-EPT page.
        EPT = 8, "EPT";
    }
}

/// One PAMT entry as the module keeps it. Hosts cannot read the PAMT; the emulated module can.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PamtEntry {
    /// Bit 0 exclusive, bit 1 host priority, bits 15:2 number of shared holders.
    pub lock: u16,
    /// [`PageType`] number.
    pub page_type: u8,
    /// Page number of the owner's TDR, 40 bits, little-endian.
    pub owner: [u8; 5],
    /// Epoch at which the mapping was blocked; bit 63 marks a migration epoch.
    pub bepoch: u64,
}

const _: () = assert!(size_of::<PamtEntry>() as u64 == PAMT_ENTRY_SIZE);

impl PamtEntry {
    /// The page type.
    pub const fn kind(&self) -> PageType {
        PageType(self.page_type)
    }

    /// The TDR of the TD that owns the page. Stale for a free page.
    pub const fn owner_tdr(&self) -> Hpa {
        let [a, b, c, d, e] = self.owner;
        Hpa::new(u64::from_le_bytes([a, b, c, d, e, 0, 0, 0]) << 12)
    }

    /// Records the owner; address bits from 52 up are lost.
    pub const fn set_owner_tdr(&mut self, tdr: Hpa) {
        let [a, b, c, d, e, ..] = (tdr.get() >> 12).to_le_bytes();
        self.owner = [a, b, c, d, e];
    }
}

/// Pages of a TD's and VCPU's control structures in module 1.5.01, in addition to the TDR.
pub mod pages {
    /// TDCX pages that a TD without L2 VMs needs.
    pub const TDCX_MIN: usize = 6;
    /// Further TDCX pages per L2 VM.
    pub const TDCX_PER_L2_VM: usize = 1;
    /// Most TDCX pages.
    pub const TDCX_MAX: usize = 9;
    /// Pages of a VCPU without L2 VMs: TDVPR and five that `TDH.VP.ADDCX` adds.
    pub const TDVPS_MIN: usize = 6;
    /// Further VCPU pages per L2 VM.
    pub const TDVPS_PER_L2_VM: usize = 3;
    /// Most VCPU pages.
    pub const TDVPS_MAX: usize = 15;
}

#[cfg(test)]
mod tests {
    use core::mem::offset_of;

    use super::*;

    #[test]
    fn tdmr_info_fields_are_at_the_offsets_of_the_abi() {
        assert_eq!(offset_of!(TdmrInfo, pamt_1g_base), 16);
        assert_eq!(offset_of!(TdmrInfo, pamt_2m_base), 32);
        assert_eq!(offset_of!(TdmrInfo, pamt_4k_base), 48);
        assert_eq!(offset_of!(TdmrInfo, reserved), 64);
        assert_eq!(offset_of!(PamtEntry, page_type), 2);
        assert_eq!(offset_of!(PamtEntry, owner), 3);
        assert_eq!(offset_of!(PamtEntry, bepoch), 8);
    }

    #[test]
    fn a_one_gib_tdmr_needs_one_page_two_pages_and_four_mib_of_pamt() {
        assert_eq!(pamt_size(1 << 30, Level::L1G), Some(0x1000));
        assert_eq!(pamt_size(1 << 30, Level::L2M), Some(0x2000));
        assert_eq!(pamt_size(1 << 30, Level::L4K), Some(0x40_0000));
        assert_eq!(pamt_size(1 << 30, Level::L512G), None);
    }

    #[test]
    fn a_pamt_entry_keeps_its_owner() {
        let mut entry = PamtEntry::default();
        entry.set_owner_tdr(Hpa::new(0x000f_1234_5678_9000));
        assert_eq!(entry.owner_tdr(), Hpa::new(0x000f_1234_5678_9000));
        assert_eq!(entry.kind(), PageType::NDA);
    }
}
