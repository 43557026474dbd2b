//! Where VMCS fields lie in page 1 of a TDVPS.
//!
//! A real VMCS has no documented layout; ours groups fields by width and type, eight bytes each, in the order
//! of their encodings (SDM volume 3, appendix B).

/// Offset of page 1 in a TDVPS.
pub const PAGE: u32 = 0x1000;

/// The offset in the TDVPS of the field with this encoding; `None` where no such field can exist.
///
/// Encoding: bit 0 access type (high half; refers to the same storage), 9:1 index, 11:10 type, 14:13 width.
pub const fn offset(encoding: u32) -> Option<u32> {
    if encoding & !0x6fff != 0 {
        return None;
    }
    let index = encoding >> 1 & 0x1ff;
    // First slot and number of slots of each group; 512 slots in all.
    let (first, slots) = match (encoding >> 13 & 3, encoding >> 10 & 3) {
        (0, 0) => (0, 8),
        (0, 2) => (8, 16),
        (0, 3) => (24, 8),
        (1, 0) => (32, 64),
        (1, 1) => (96, 8),
        (1, 2) => (104, 24),
        (1, 3) => (128, 8),
        (2, 0) => (136, 32),
        (2, 1) => (168, 16),
        (2, 2) => (184, 32),
        (2, 3) => (216, 8),
        (3, 0) => (224, 16),
        (3, 1) => (240, 16),
        (3, 2) => (256, 32),
        (3, 3) => (288, 16),
        _ => return None,
    };
    if index < slots { Some(PAGE + (first + index) * 8) } else { None }
}

macro_rules! encodings {
    ($( $(#[$doc:meta])* $name:ident = $encoding:literal; )*) => {
        $( $(#[$doc])* pub const $name: u32 = match offset($encoding) { Some(at) => at, None => panic!("no such field") }; )*
    };
}

encodings! {
    /// Offset of the posted-interrupt notification vector.
    NOTIFICATION_VECTOR = 0x0002;
    /// Offset of the guest ES selector; CS, SS, DS, FS, GS, LDTR and TR follow in steps of 8.
    ES_SELECTOR = 0x0800;
    /// Offset of the guest interrupt status (RVI, SVI).
    INTERRUPT_STATUS = 0x0810;
    /// Offset of the posted-interrupt descriptor address.
    PID_ADDRESS = 0x2016;
    /// Offset of the EPT pointer.
    EPTP = 0x201a;
    /// Offset of the TSC offset.
    TSC_OFFSET = 0x2010;
    /// Offset of the TSC multiplier.
    TSC_MULTIPLIER = 0x2032;
    /// Offset of the shared EPT pointer.
    SHARED_EPTP = 0x203c;
    /// Offset of the guest-physical address of the last exit.
    GUEST_PHYSICAL_ADDRESS = 0x2400;
    /// Offset of IA32_DEBUGCTL.
    DEBUGCTL = 0x2802;
    /// Offset of IA32_PAT.
    PAT = 0x2804;
    /// Offset of IA32_EFER.
    EFER = 0x2806;
    /// Offset of the pin-based execution controls.
    PINBASED = 0x4000;
    /// Offset of the primary processor-based execution controls.
    PROCBASED = 0x4002;
    /// Offset of the secondary processor-based execution controls.
    PROCBASED2 = 0x401e;
    /// Offset of the TD's key id.
    TD_HKID = 0x4026;
    /// Offset of the exit reason.
    EXIT_REASON = 0x4402;
    /// Offset of the exit interruption information.
    EXIT_INTERRUPTION_INFO = 0x4404;
    /// Offset of the IDT-vectoring information.
    IDT_VECTORING_INFO = 0x4408;
    /// Offset of the exit instruction length.
    EXIT_INSTRUCTION_LENGTH = 0x440c;
    /// Offset of the guest ES limit; the other segments, then GDTR and IDTR, follow in steps of 8.
    ES_LIMIT = 0x4800;
    /// Offset of the guest GDTR limit.
    GDTR_LIMIT = 0x4810;
    /// Offset of the guest IDTR limit.
    IDTR_LIMIT = 0x4812;
    /// Offset of the guest ES access rights; the other segments follow in steps of 8.
    ES_ACCESS = 0x4814;
    /// Offset of the interruptibility state.
    INTERRUPTIBILITY = 0x4824;
    /// Offset of the activity state.
    ACTIVITY = 0x4826;
    /// Offset of IA32_SYSENTER_CS.
    SYSENTER_CS = 0x482a;
    /// Offset of the exit qualification.
    EXIT_QUALIFICATION = 0x6400;
    /// Offset of the guest-linear address of the last exit.
    GUEST_LINEAR_ADDRESS = 0x640a;
    /// Offset of the guest CR0.
    CR0 = 0x6800;
    /// Offset of the guest CR3.
    CR3 = 0x6802;
    /// Offset of the guest CR4.
    CR4 = 0x6804;
    /// Offset of the guest ES base; the other segments, then GDTR and IDTR, follow in steps of 8.
    ES_BASE = 0x6806;
    /// Offset of the guest GDTR base.
    GDTR_BASE = 0x6816;
    /// Offset of the guest IDTR base.
    IDTR_BASE = 0x6818;
    /// Offset of the guest DR7.
    DR7 = 0x681a;
    /// Offset of the guest RSP.
    RSP = 0x681c;
    /// Offset of the guest RIP.
    RIP = 0x681e;
    /// Offset of the guest RFLAGS.
    RFLAGS = 0x6820;
    /// Offset of IA32_SYSENTER_ESP.
    SYSENTER_ESP = 0x6824;
    /// Offset of IA32_SYSENTER_EIP.
    SYSENTER_EIP = 0x6826;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_overlap_and_stay_in_their_page() {
        let mut seen = std::collections::BTreeMap::new();
        for encoding in (0..0x8000u32).step_by(2) {
            if let Some(at) = offset(encoding) {
                assert!((PAGE..PAGE + 0x1000).contains(&at));
                if let Some(other) = seen.insert(at, encoding) {
                    panic!("{encoding:#x} and {other:#x} share offset {at:#x}");
                }
            }
        }
    }
}
