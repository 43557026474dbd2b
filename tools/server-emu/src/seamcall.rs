//! SEAMCALL of a host processor: registers in, the TDX module, registers out.
//!
//! The host's CPU stands still at its SEAMCALL while the module works; for TDH.VP.ENTER the guest runs on the same
//! thread, on a CPU of its own. Conditions and flags: Intel TDX Module CPU Architecture Specification, "SEAMCALL".

use tdx_module_iface::{Gprs, LeafWord, Reg, TdhLeaf};
use x86_arch::{CpuState, Event, Gpr, flags, vector};

/// What SEAMCALL does instead of calling the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// An exception.
    Exception(Event),
    /// CF is 1: nobody is there who could answer.
    VmFailInvalid,
}

/// What the processor looks at before it calls anybody.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conditions {
    /// The processor is in VMX operation.
    pub(crate) vmx_on: bool,
    /// The range of the module's memory is configured and enabled.
    pub(crate) seam_range_enabled: bool,
}

/// Whether SEAMCALL reaches the module.
///
/// # Errors
/// [`Refused`].
pub(crate) fn check(state: &CpuState, conditions: Conditions) -> Result<(), Refused> {
    if !conditions.vmx_on || !state.is_64_bit() {
        return Err(Refused::Exception(Event::exception(vector::UD)));
    }
    if state.cpl() != 0 || !conditions.seam_range_enabled {
        return Err(Refused::Exception(Event::exception_with_code(vector::GP, 0)));
    }
    // Bit 63 calls the loader of modules, which is not emulated: it is not loaded.
    if state.gpr(Gpr::Rax) >> 63 != 0 {
        return Err(Refused::VmFailInvalid);
    }
    Ok(())
}

/// Whether a call enters a TD.
pub(crate) fn enters_td(rax: u64) -> bool {
    TdhLeaf(LeafWord(rax).leaf()) == TdhLeaf::VP_ENTER
}

/// The registers that a SEAMCALL hands to the module.
pub(crate) fn registers(state: &CpuState) -> Gprs {
    let mut gprs = Gprs::ZERO;
    for register in Reg::ALL {
        gprs.set(register, state.gpr(Gpr::from_index(register.index())));
    }
    gprs
}

/// Takes over the registers that the module hands back.
pub(crate) fn set_registers(state: &mut CpuState, gprs: &Gprs) {
    for register in Reg::ALL {
        state.set_gpr(Gpr::from_index(register.index()), gprs.get(register));
    }
}

/// The flags that a SEAMCALL leaves.
pub(crate) fn set_flags(state: &mut CpuState, failed_invalid: bool) {
    state.flags.replace(flags::ARITHMETIC, if failed_invalid { flags::CF } else { 0 });
}

#[cfg(test)]
mod tests {
    use x86_arch::{Attributes, Seg, efer};

    use super::*;

    const ON: Conditions = Conditions { vmx_on: true, seam_range_enabled: true };

    fn kernel() -> CpuState {
        let mut state = CpuState::default();
        state.control.efer = efer::LME | efer::LMA;
        state.segment_mut(Seg::Cs).attributes = Attributes::CODE64;
        state
    }

    #[test]
    fn a_seamcall_needs_vmx_operation_64_bit_mode_privilege_and_the_modules_range() {
        let undefined = Err(Refused::Exception(Event::exception(vector::UD)));
        let protection = Err(Refused::Exception(Event::exception_with_code(vector::GP, 0)));
        assert_eq!(check(&kernel(), ON), Ok(()));
        assert_eq!(check(&kernel(), Conditions { vmx_on: false, ..ON }), undefined);
        assert_eq!(check(&kernel(), Conditions { seam_range_enabled: false, ..ON }), protection);
        assert_eq!(check(&CpuState::default(), ON), undefined, "32-bit code");
        let mut user = kernel();
        user.segment_mut(Seg::Ss).attributes = Attributes::DATA.with_dpl(3);
        assert_eq!(check(&user, ON), protection);
        let mut loader = kernel();
        loader.set_gpr(Gpr::Rax, 1 << 63);
        assert_eq!(check(&loader, ON), Err(Refused::VmFailInvalid));
    }
}
