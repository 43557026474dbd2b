//! Guest-physical places that the image's metadata promises, and the numbers of the TDVF format.
//!
//! `guest.x` holds the rest (the guest's own memory from 1 MiB) and asserts that it ends below the TD HOB.

/// Where the host puts the TD HOB.
pub const TD_HOB_BASE: u64 = 0x1F_0000;
/// Room for the TD HOB, bytes.
pub const TD_HOB_SIZE: u64 = 0x2000;
/// Memory that the metadata asks for without having it added at build (PermMem, PAGE.AUG).
pub const POOL_BASE: u64 = 0x20_0000;
/// Size of the pool: one 2 MiB page.
pub const POOL_SIZE: u64 = 0x20_0000;

/// The stub's identity map reaches to here.
pub const IDENTITY_LIMIT: u64 = 1 << 32;

/// Bytes of a 4K page.
pub const PAGE_4K: u64 = 0x1000;
/// Bytes of a 2M page.
pub const PAGE_2M: u64 = 0x20_0000;

/// Section types and attributes of the TDVF metadata (TDX Virtual Firmware Design Guide, metadata section).
pub(crate) mod section {
    pub const BFV: u32 = 0;
    pub const TD_HOB: u32 = 2;
    pub const TEMP_MEM: u32 = 3;
    pub const PERM_MEM: u32 = 4;
    pub const MR_EXTEND: u32 = 1;
    pub const PAGE_AUG: u32 = 2;
}
