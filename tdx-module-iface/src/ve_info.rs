//! VE_INFO: what a VCPU remembers about a virtualisation exception until the guest reads it with
//! `TDG.VP.VEINFO.GET`.
//!
//! While `valid` is set, another #VE becomes a #DF.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::regs::Gprs;

/// The value of [`VeInfo::valid`] while the information is unread.
pub const VALID: u32 = u32::MAX;

/// The structure at the start of the first TDVPS page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VeInfo {
    /// VMX exit reason.
    pub exit_reason: u32,
    /// [`VALID`] while unread.
    pub valid: u32,
    /// VMX exit qualification.
    pub exit_qualification: u64,
    /// Guest-linear address.
    pub gla: u64,
    /// Guest-physical address.
    pub gpa: u64,
    /// EPTP index.
    pub eptp_index: u16,
    /// Zero.
    pub reserved_34: [u8; 2],
    /// VM-exit instruction length.
    pub instruction_length: u32,
    /// VM-exit instruction information.
    pub instruction_information: u32,
    /// Zero.
    pub reserved_44: [u8; 4],
}

const _: () = assert!(size_of::<VeInfo>() == 48);

impl VeInfo {
    /// Writes the outputs of `TDG.VP.VEINFO.GET`: RCX reason, RDX qualification, R8 linear address, R9
    /// physical address, R10 length in the low half and instruction information in the high half.
    pub const fn to_outputs(&self, gprs: &mut Gprs) {
        gprs.rcx = self.exit_reason as u64;
        gprs.rdx = self.exit_qualification;
        gprs.r8 = self.gla;
        gprs.r9 = self.gpa;
        gprs.r10 = self.instruction_length as u64 | (self.instruction_information as u64) << 32;
    }
}

#[cfg(test)]
mod tests {
    use core::mem::offset_of;

    use super::*;

    #[test]
    fn the_fields_are_at_the_offsets_of_the_abi() {
        assert_eq!(offset_of!(VeInfo, valid), 4);
        assert_eq!(offset_of!(VeInfo, exit_qualification), 8);
        assert_eq!(offset_of!(VeInfo, gla), 16);
        assert_eq!(offset_of!(VeInfo, gpa), 24);
        assert_eq!(offset_of!(VeInfo, eptp_index), 32);
        assert_eq!(offset_of!(VeInfo, instruction_length), 0x24);
        assert_eq!(offset_of!(VeInfo, instruction_information), 0x28);
    }

    #[test]
    fn length_and_information_share_r10() {
        let info = VeInfo {
            instruction_length: 2,
            instruction_information: 7,
            exit_reason: 10,
            ..VeInfo::default()
        };
        let mut gprs = Gprs::ZERO;
        info.to_outputs(&mut gprs);
        assert_eq!((gprs.rcx, gprs.r10), (10, 0x7_0000_0002));
    }
}
