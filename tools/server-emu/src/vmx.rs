//! As much of VMX as a host of TDs needs, and a store for the rest: VMX operation, VMCS regions, INVEPT.
//!
//! A host makes no VMCS for a TD. For ordinary VMs it may make one and fill it ([`crate::vmcs`]); it cannot run it:
//! VMLAUNCH ends with VM-instruction error 7, and the report says once that ordinary VMs are not emulated. Conditions and
//! errors: SDM volume 3, "VMX Instruction Reference".

use seam_emu::Machine;
use tdvisor_base::Hpa;

use crate::vmcs::{Field, INSTRUCTION_ERROR, REVISION, Region};

/// VMX state of one processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Vmx {
    /// Outside of VMX operation.
    #[default]
    Off,
    /// In VMX root operation.
    Root {
        /// The VMXON region.
        region: Region,
        /// The current VMCS.
        current: Option<Region>,
    },
}

/// VM-instruction error numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum InstructionError {
    VmcallInRoot = 1,
    VmclearBadAddress = 2,
    VmclearVmxonPointer = 3,
    VmresumeNotLaunched = 5,
    EntryBadControls = 7,
    VmptrldBadAddress = 9,
    VmptrldVmxonPointer = 10,
    VmptrldBadRevision = 11,
    UnsupportedField = 12,
    ReadOnlyField = 13,
    VmxonInRoot = 15,
    InveptBadOperand = 28,
}

/// Why an instruction failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// VMfailInvalid.
    Invalid,
    /// VMfailValid where there is a current VMCS, VMfailInvalid otherwise.
    Error(InstructionError),
}

/// A VMCS pointer as software gives it: the region, if it lies in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pointer(pub(crate) Option<Region>);

/// Types of INVEPT that IA32_VMX_EPT_VPID_CAP offers.
const INVEPT_SINGLE: u64 = 1;
const INVEPT_ALL: u64 = 2;

impl Vmx {
    /// Whether the processor is in VMX operation.
    pub(crate) const fn is_on(&self) -> bool {
        matches!(self, Self::Root { .. })
    }

    fn current(&self) -> Option<Region> {
        match self {
            Self::Root { current, .. } => *current,
            Self::Off => None,
        }
    }

    /// VMXON.
    pub(crate) fn vmxon(&mut self, machine: &Machine, at: Pointer) -> Result<(), Failure> {
        if self.is_on() {
            return Err(Failure::Error(InstructionError::VmxonInRoot));
        }
        let region = at.0.filter(|region| region.revision(machine) == REVISION).ok_or(Failure::Invalid)?;
        *self = Self::Root { region, current: None };
        Ok(())
    }

    /// VMXOFF.
    pub(crate) const fn vmxoff(&mut self) {
        *self = Self::Off;
    }

    /// VMCLEAR.
    pub(crate) fn vmclear(&mut self, at: Pointer) -> Result<(), Failure> {
        let at = at.0.ok_or(Failure::Error(InstructionError::VmclearBadAddress))?;
        if let Self::Root { region, current } = self {
            if at == *region {
                return Err(Failure::Error(InstructionError::VmclearVmxonPointer));
            }
            if *current == Some(at) {
                *current = None;
            }
        }
        Ok(())
    }

    /// VMPTRLD.
    pub(crate) fn vmptrld(&mut self, machine: &Machine, at: Pointer) -> Result<(), Failure> {
        let at = at.0.ok_or(Failure::Error(InstructionError::VmptrldBadAddress))?;
        if let Self::Root { region, current } = self {
            if at == *region {
                return Err(Failure::Error(InstructionError::VmptrldVmxonPointer));
            }
            if at.revision(machine) != REVISION {
                return Err(Failure::Error(InstructionError::VmptrldBadRevision));
            }
            *current = Some(at);
        }
        Ok(())
    }

    /// What VMPTRST stores.
    pub(crate) fn vmptrst(&self) -> u64 {
        self.current().map_or(u64::MAX, |region| region.0.get())
    }

    /// VMREAD of the field with this encoding.
    pub(crate) fn vmread(&self, machine: &Machine, encoding: u64) -> Result<u64, Failure> {
        let (region, field) = self.field(encoding)?;
        Ok(region.read(machine, field))
    }

    /// VMWRITE of the field with this encoding.
    pub(crate) fn vmwrite(&self, machine: &Machine, encoding: u64, value: u64) -> Result<(), Failure> {
        let (region, field) = self.field(encoding)?;
        if field.is_read_only() {
            return Err(Failure::Error(InstructionError::ReadOnlyField));
        }
        region.write(machine, field, value);
        Ok(())
    }

    fn field(&self, encoding: u64) -> Result<(Region, Field), Failure> {
        let region = self.current().ok_or(Failure::Invalid)?;
        let field = Field::from_encoding(encoding);
        Ok((region, field.ok_or(Failure::Error(InstructionError::UnsupportedField))?))
    }

    /// VMLAUNCH: no control that a guest needs is one that this processor has.
    pub(crate) const fn vmlaunch(&self) -> Failure {
        Failure::Error(InstructionError::EntryBadControls)
    }

    /// VMRESUME: nothing was ever launched.
    pub(crate) const fn vmresume(&self) -> Failure {
        Failure::Error(InstructionError::VmresumeNotLaunched)
    }

    /// INVEPT: whether this type and descriptor ask for something that there is.
    pub(crate) const fn invept(kind: u64, descriptor: u128) -> Result<(), Failure> {
        let reserved = (descriptor >> 64) as u64;
        match kind {
            INVEPT_SINGLE | INVEPT_ALL if reserved == 0 => Ok(()),
            _ => Err(Failure::Error(InstructionError::InveptBadOperand)),
        }
    }

    /// Takes a failure down where software finds it. True where it is VMfailValid, false where it is VMfailInvalid.
    pub(crate) fn fail(&self, machine: &Machine, failure: Failure) -> bool {
        let (Failure::Error(error), Some(region)) = (failure, self.current()) else { return false };
        if let Some(field) = Field::from_encoding(INSTRUCTION_ERROR) {
            region.write(machine, field, error as u64);
        }
        true
    }
}

/// A pointer to a 4 KiB region: aligned, and in memory as `is_memory` has it.
pub(crate) fn pointer(address: u64, is_memory: impl FnOnce(Hpa) -> bool) -> Pointer {
    let at = Hpa::new(address);
    Pointer((address.is_multiple_of(4096) && is_memory(at)).then_some(Region(at)))
}

#[cfg(test)]
mod tests {
    use seam_emu::MachineConfig;

    use super::*;

    const VMXON_REGION: u64 = 0x1000;
    const VMCS: u64 = 0x2000;
    const GUEST_RIP: u64 = 0x681e;

    fn at(address: u64) -> Pointer {
        pointer(address, |at| at.get() < 1 << 20)
    }

    /// A processor in VMX operation, with a VMCS region that is not current yet.
    fn root() -> (Machine, Vmx) {
        let machine = Machine::new(MachineConfig::small());
        for region in [VMXON_REGION, VMCS] {
            machine.host_write(Hpa::new(region), &REVISION.to_le_bytes()).unwrap();
        }
        let mut vmx = Vmx::default();
        assert_eq!(vmx.vmxon(&machine, at(VMXON_REGION)), Ok(()));
        (machine, vmx)
    }

    #[test]
    fn vmx_operation_begins_with_a_region_of_the_right_revision_and_ends_with_vmxoff() {
        let (machine, mut vmx) = root();
        assert_eq!(vmx.vmxon(&machine, at(VMXON_REGION)), Err(Failure::Error(InstructionError::VmxonInRoot)));
        vmx.vmxoff();
        assert!(!vmx.is_on());
        for bad in [VMXON_REGION + 8, 1 << 20, 0x3000] {
            assert_eq!(vmx.vmxon(&machine, at(bad)), Err(Failure::Invalid), "{bad:#x}");
        }
    }

    #[test]
    fn fields_are_those_of_the_current_vmcs_and_survive_its_move() {
        let (machine, mut vmx) = root();
        assert_eq!(vmx.vmread(&machine, GUEST_RIP), Err(Failure::Invalid), "there is no current VMCS");
        assert_eq!(vmx.vmptrst(), u64::MAX);
        assert_eq!(vmx.vmptrld(&machine, at(VMCS)), Ok(()));
        assert_eq!(vmx.vmptrst(), VMCS);
        assert_eq!(vmx.vmwrite(&machine, GUEST_RIP, 0x1234_5678_9abc), Ok(()));
        assert_eq!(vmx.vmclear(at(VMCS)), Ok(()));
        assert_eq!(vmx.vmptrst(), u64::MAX);
        assert_eq!(vmx.vmptrld(&machine, at(VMCS)), Ok(()));
        assert_eq!(vmx.vmread(&machine, GUEST_RIP), Ok(0x1234_5678_9abc));
    }

    #[test]
    fn each_wrong_operand_has_the_number_that_the_manual_gives_it() {
        use InstructionError as E;
        let (machine, mut vmx) = root();
        assert_eq!(vmx.vmclear(at(VMCS + 1)), Err(Failure::Error(E::VmclearBadAddress)));
        assert_eq!(vmx.vmclear(at(VMXON_REGION)), Err(Failure::Error(E::VmclearVmxonPointer)));
        assert_eq!(vmx.vmptrld(&machine, at(VMCS + 1)), Err(Failure::Error(E::VmptrldBadAddress)));
        assert_eq!(vmx.vmptrld(&machine, at(VMXON_REGION)), Err(Failure::Error(E::VmptrldVmxonPointer)));
        assert_eq!(vmx.vmptrld(&machine, at(0x3000)), Err(Failure::Error(E::VmptrldBadRevision)));
        assert_eq!(vmx.vmptrld(&machine, at(VMCS)), Ok(()));
        assert_eq!(vmx.vmread(&machine, 0x1000), Err(Failure::Error(E::UnsupportedField)));
        assert_eq!(vmx.vmwrite(&machine, INSTRUCTION_ERROR, 1), Err(Failure::Error(E::ReadOnlyField)));
        assert_eq!(Vmx::invept(0, 0), Err(Failure::Error(E::InveptBadOperand)));
        assert_eq!(Vmx::invept(2, 1 << 64), Err(Failure::Error(E::InveptBadOperand)));
        assert_eq!(Vmx::invept(2, 0), Ok(()));
    }

    #[test]
    fn an_ordinary_vm_does_not_start_and_its_vmcs_says_why() {
        let (machine, mut vmx) = root();
        assert!(!vmx.fail(&machine, vmx.vmlaunch()), "VMfailInvalid without a current VMCS");
        assert_eq!(vmx.vmptrld(&machine, at(VMCS)), Ok(()));
        assert!(vmx.fail(&machine, vmx.vmlaunch()));
        assert_eq!(vmx.vmread(&machine, INSTRUCTION_ERROR), Ok(7));
        assert!(vmx.fail(&machine, vmx.vmresume()));
        assert_eq!(vmx.vmread(&machine, INSTRUCTION_ERROR), Ok(5));
    }
}
