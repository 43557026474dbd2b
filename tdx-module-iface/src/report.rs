//! TDREPORT: what `TDG.MR.REPORT` writes, 1024 bytes at a 1 KiB aligned address.
//!
//! Three parts: [`ReportMacStruct`] carries the hashes of the two others, the guest's report data and the MAC
//! that only the platform which made the report can verify; [`TeeTcbInfo`] describes the module; [`TdInfo`]
//! describes the TD.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The value of the type byte in a report about a TD.
pub const REPORT_TYPE_TDX: u8 = 0x81;

/// The part that the MAC covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ReportMacStruct {
    /// [`REPORT_TYPE_TDX`].
    pub report_type: u8,
    /// 0.
    pub subtype: u8,
    /// 0, or 1 where service TDs are bound.
    pub version: u8,
    /// Zero.
    pub reserved_3: [u8; 13],
    /// Security version of the processor.
    pub cpusvn: [u8; 16],
    /// SHA-384 of [`TeeTcbInfo`].
    pub tee_tcb_info_hash: [u8; 48],
    /// SHA-384 of [`TdInfo`].
    pub tee_info_hash: [u8; 48],
    /// What the guest asked to be reported.
    pub reportdata: [u8; 64],
    /// Zero.
    pub reserved_192: [u8; 32],
    /// MAC over the bytes before it.
    pub mac: [u8; 32],
}

/// What the report says about the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TeeTcbInfo {
    /// Which of the fields below are valid.
    pub valid: u64,
    /// Security versions of the module.
    pub tee_tcb_svn: [u8; 16],
    /// Measurement of the module.
    pub mrseam: [u8; 48],
    /// Signer of the module; zero for Intel's.
    pub mrsignerseam: [u8; 48],
    /// Attributes of the module.
    pub attributes: u64,
    /// Security versions of the module that was loaded last, in 1.5.
    pub tee_tcb_svn2: [u8; 16],
    /// Zero.
    pub reserved_144: [u8; 112],
}

/// What the report says about the TD.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TdInfo {
    /// ATTRIBUTES of the TD.
    pub attributes: u64,
    /// XFAM of the TD.
    pub xfam: u64,
    /// Measurement of the TD's initial memory.
    pub mrtd: [u8; 48],
    /// From TD_PARAMS.
    pub mrconfigid: [u8; 48],
    /// From TD_PARAMS.
    pub mrowner: [u8; 48],
    /// From TD_PARAMS.
    pub mrownerconfig: [u8; 48],
    /// The four measurement registers that the guest extends.
    pub rtmr: [[u8; 48]; 4],
    /// Hash over the bound service TDs; zero where there are none.
    pub servtd_hash: [u8; 48],
    /// Zero.
    pub reserved_448: [u8; 64],
}

/// A whole report.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TdReport {
    /// The part under the MAC.
    pub mac_struct: ReportMacStruct,
    /// About the module.
    pub tee_tcb_info: TeeTcbInfo,
    /// About the TD.
    pub td_info: TdInfo,
}

const _: () = assert!(size_of::<ReportMacStruct>() == 256);
const _: () = assert!(size_of::<TeeTcbInfo>() == 256);
const _: () = assert!(size_of::<TdInfo>() == 512);
const _: () = assert!(size_of::<TdReport>() == 1024);

impl TdReport {
    /// The alignment in bytes that `TDG.MR.REPORT` demands of the report's address.
    pub const ALIGN: u64 = 1024;
    /// The alignment in bytes that it demands of the report data's address.
    pub const REPORTDATA_ALIGN: u64 = 64;
}

#[cfg(test)]
mod tests {
    use core::mem::offset_of;

    use super::*;

    #[test]
    fn the_fields_are_at_the_offsets_of_the_abi() {
        assert_eq!(offset_of!(ReportMacStruct, cpusvn), 16);
        assert_eq!(offset_of!(ReportMacStruct, tee_tcb_info_hash), 32);
        assert_eq!(offset_of!(ReportMacStruct, tee_info_hash), 80);
        assert_eq!(offset_of!(ReportMacStruct, reportdata), 128);
        assert_eq!(offset_of!(ReportMacStruct, mac), 224);
        assert_eq!(offset_of!(TdReport, tee_tcb_info), 256);
        assert_eq!(offset_of!(TeeTcbInfo, mrseam), 24);
        assert_eq!(offset_of!(TeeTcbInfo, attributes), 120);
        assert_eq!(offset_of!(TdReport, td_info), 512);
        assert_eq!(offset_of!(TdInfo, mrtd), 16);
        assert_eq!(offset_of!(TdInfo, mrconfigid), 64);
        assert_eq!(offset_of!(TdInfo, rtmr), 208);
        assert_eq!(offset_of!(TdInfo, servtd_hash), 400);
    }
}
