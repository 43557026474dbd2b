//! As much of VMX as a host of TDs needs: VMX operation, and INVEPT.
//!
//! A host makes no VMCS for a TD. What belongs to ordinary VMs (VMCLEAR, VMPTRLD, VMREAD, VMLAUNCH and the like) fails
//! with VMfailInvalid, as it does on a processor that has no current VMCS, and the report says once that ordinary VMs are
//! not emulated. The VMXON region and the descriptors of INVEPT and INVVPID are not read: everything is flushed.

use x86_emu::exits::VmxInstruction;

/// VMX state of one processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Vmx {
    /// Outside of VMX operation.
    #[default]
    Off,
    /// In VMX root operation.
    Root,
}

/// What the processor does about a VMX instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VmxResult {
    /// #UD.
    UndefinedOpcode,
    /// VMsucceed.
    Succeed,
    /// VMsucceed, and translations through second stages are dropped.
    Flush,
    /// VMfailInvalid, because it belongs to ordinary VMs.
    OrdinaryVm,
    /// VMfailInvalid, because the processor is in VMX operation already.
    AlreadyOn,
}

impl Vmx {
    /// Whether the processor is in VMX operation.
    pub(crate) const fn is_on(self) -> bool {
        matches!(self, Self::Root)
    }

    /// Carries an instruction out at privilege level 0. `vmxe` is CR4.VMXE.
    pub(crate) const fn execute(&mut self, instruction: VmxInstruction, vmxe: bool) -> VmxResult {
        match (instruction, *self) {
            (VmxInstruction::Vmxon, Self::Off) if vmxe => {
                *self = Self::Root;
                VmxResult::Succeed
            }
            (VmxInstruction::Vmxon, Self::Root) => VmxResult::AlreadyOn,
            // A guest's instruction.
            (VmxInstruction::Vmfunc, _) | (_, Self::Off) => VmxResult::UndefinedOpcode,
            (VmxInstruction::Vmxoff, Self::Root) => {
                *self = Self::Off;
                VmxResult::Succeed
            }
            (VmxInstruction::Invept | VmxInstruction::Invvpid, Self::Root) => VmxResult::Flush,
            (_, Self::Root) => VmxResult::OrdinaryVm,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vmx_operation_begins_with_vmxon_and_ends_with_vmxoff() {
        let mut vmx = Vmx::default();
        assert_eq!(vmx.execute(VmxInstruction::Vmxoff, true), VmxResult::UndefinedOpcode);
        assert_eq!(vmx.execute(VmxInstruction::Vmxon, false), VmxResult::UndefinedOpcode, "CR4.VMXE is 0");
        assert_eq!(vmx.execute(VmxInstruction::Vmxon, true), VmxResult::Succeed);
        assert!(vmx.is_on());
        assert_eq!(vmx.execute(VmxInstruction::Vmxon, true), VmxResult::AlreadyOn);
        assert_eq!(vmx.execute(VmxInstruction::Invept, true), VmxResult::Flush);
        assert_eq!(vmx.execute(VmxInstruction::Vmxoff, true), VmxResult::Succeed);
        assert!(!vmx.is_on());
    }

    #[test]
    fn what_ordinary_vms_need_fails_by_name() {
        let mut vmx = Vmx::Root;
        for instruction in [
            VmxInstruction::Vmclear,
            VmxInstruction::Vmptrld,
            VmxInstruction::Vmptrst,
            VmxInstruction::Vmread,
            VmxInstruction::Vmwrite,
            VmxInstruction::Vmlaunch,
            VmxInstruction::Vmresume,
        ] {
            assert_eq!(vmx.execute(instruction, true), VmxResult::OrdinaryVm, "{instruction:?}");
        }
        assert_eq!(vmx.execute(VmxInstruction::Vmfunc, true), VmxResult::UndefinedOpcode);
    }
}
