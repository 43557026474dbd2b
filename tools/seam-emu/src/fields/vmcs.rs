//! Where VMCS fields lie in page 1 of a TDVPS.
//!
//! A real VMCS has no documented layout; ours groups fields by width and type, eight bytes each, in the order
//! of their encodings (SDM volume 3, appendix B).

use tdx_module_iface::metadata::{Field, vmcs};

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

/// Where a field of the VMCS table lies. Evaluated at compile time.
const fn place_of(field: &Field) -> u32 {
    match offset(field.id.code()) {
        Some(at) => at,
        None => panic!("no such field"),
    }
}

macro_rules! places {
    ($( $(#[$doc:meta])* $name:ident = $field:ident; )*) => {
        $( $(#[$doc])* pub const $name: u32 = place_of(&vmcs::$field); )*
    };
}

places! {
    /// Offset of the posted-interrupt notification vector.
    NOTIFICATION_VECTOR = POSTED_INTERRUPT_NOTIFICATION_VECTOR;
    /// Offset of the guest ES selector; CS, SS, DS, FS, GS, LDTR and TR follow in steps of 8.
    ES_SELECTOR = GUEST_ES_SELECTOR;
    /// Offset of the guest interrupt status (RVI, SVI).
    INTERRUPT_STATUS = GUEST_INTERRUPT_STATUS;
    /// Offset of the posted-interrupt descriptor address.
    PID_ADDRESS = POSTED_INTERRUPT_DESCRIPTOR_ADDRESS;
    /// Offset of the EPT pointer.
    EPTP = EPTP;
    /// Offset of the TSC offset.
    TSC_OFFSET = TSC_OFFSET;
    /// Offset of the TSC multiplier.
    TSC_MULTIPLIER = TSC_MULTIPLIER;
    /// Offset of the shared EPT pointer.
    SHARED_EPTP = SHARED_EPTP;
    /// Offset of the guest-physical address of the last exit.
    GUEST_PHYSICAL_ADDRESS = GUEST_PHYSICAL_ADDRESS;
    /// Offset of IA32_DEBUGCTL.
    DEBUGCTL = IA32_DEBUGCTL;
    /// Offset of IA32_PAT.
    PAT = IA32_PAT;
    /// Offset of IA32_EFER.
    EFER = IA32_EFER;
    /// Offset of the pin-based execution controls.
    PINBASED = PIN_BASED_CONTROLS;
    /// Offset of the primary processor-based execution controls.
    PROCBASED = PROCBASED_CONTROLS;
    /// Offset of the secondary processor-based execution controls.
    PROCBASED2 = PROCBASED_CONTROLS2;
    /// Offset of the exception bitmap.
    EXCEPTION_BITMAP = EXCEPTION_BITMAP;
    /// Offset of the TD's key id.
    TD_HKID = TD_HKID;
    /// Offset of the VM-entry interruption information: an event that the next TD entry delivers.
    ENTRY_INTERRUPTION_INFO = VM_ENTRY_INTERRUPTION_INFORMATION;
    /// Offset of the VM-entry exception error code.
    ENTRY_ERROR_CODE = VM_ENTRY_EXCEPTION_ERROR_CODE;
    /// Offset of the VM-entry instruction length.
    ENTRY_INSTRUCTION_LENGTH = VM_ENTRY_INSTRUCTION_LENGTH;
    /// Offset of the exit reason.
    EXIT_REASON = EXIT_REASON;
    /// Offset of the exit interruption information.
    EXIT_INTERRUPTION_INFO = VM_EXIT_INTERRUPTION_INFORMATION;
    /// Offset of the exit interruption error code.
    EXIT_INTERRUPTION_ERROR = VM_EXIT_INTERRUPTION_ERROR_CODE;
    /// Offset of the IDT-vectoring error code.
    IDT_VECTORING_ERROR = IDT_VECTORING_ERROR_CODE;
    /// Offset of the exit instruction information.
    EXIT_INSTRUCTION_INFO = VM_EXIT_INSTRUCTION_INFORMATION;
    /// Offset of the IDT-vectoring information.
    IDT_VECTORING_INFO = IDT_VECTORING_INFORMATION;
    /// Offset of the exit instruction length.
    EXIT_INSTRUCTION_LENGTH = VM_EXIT_INSTRUCTION_LENGTH;
    /// Offset of the guest ES limit; the other segments, then GDTR and IDTR, follow in steps of 8.
    ES_LIMIT = GUEST_ES_LIMIT;
    /// Offset of the guest GDTR limit.
    GDTR_LIMIT = GUEST_GDTR_LIMIT;
    /// Offset of the guest IDTR limit.
    IDTR_LIMIT = GUEST_IDTR_LIMIT;
    /// Offset of the guest ES access rights; the other segments follow in steps of 8.
    ES_ACCESS = GUEST_ES_ACCESS_RIGHTS;
    /// Offset of the interruptibility state.
    INTERRUPTIBILITY = INTERRUPTIBILITY_STATE;
    /// Offset of the activity state.
    ACTIVITY = ACTIVITY_STATE;
    /// Offset of IA32_SYSENTER_CS.
    SYSENTER_CS = IA32_SYSENTER_CS;
    /// Offset of the exit qualification.
    EXIT_QUALIFICATION = EXIT_QUALIFICATION;
    /// Offset of the guest-linear address of the last exit.
    GUEST_LINEAR_ADDRESS = GUEST_LINEAR_ADDRESS;
    /// Offset of the guest CR0.
    CR0 = GUEST_CR0;
    /// Offset of the guest CR3.
    CR3 = GUEST_CR3;
    /// Offset of the guest CR4.
    CR4 = GUEST_CR4;
    /// Offset of the guest ES base; the other segments, then GDTR and IDTR, follow in steps of 8.
    ES_BASE = GUEST_ES_BASE;
    /// Offset of the guest GDTR base.
    GDTR_BASE = GUEST_GDTR_BASE;
    /// Offset of the guest IDTR base.
    IDTR_BASE = GUEST_IDTR_BASE;
    /// Offset of the guest DR7.
    DR7 = GUEST_DR7;
    /// Offset of the guest RSP.
    RSP = GUEST_RSP;
    /// Offset of the guest RIP.
    RIP = GUEST_RIP;
    /// Offset of the guest RFLAGS.
    RFLAGS = GUEST_RFLAGS;
    /// Offset of IA32_SYSENTER_ESP.
    SYSENTER_ESP = IA32_SYSENTER_ESP;
    /// Offset of IA32_SYSENTER_EIP.
    SYSENTER_EIP = IA32_SYSENTER_EIP;
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
