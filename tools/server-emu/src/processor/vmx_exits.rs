//! VMX instructions of a host processor.

use x86_arch::{cr4, flags};
use x86_emu::exits::{VmxInstruction, VmxOperands, VmxPlace};
use x86_emu::{Exit, NotPerformed};

use super::Processor;
use crate::bus::PrivateKey;
use crate::report::Notice;
use crate::server::FirmwareSetup;
use crate::vmx::{self, Failure, InstructionError, Pointer, Vmx};

/// IA32_VMX_CR0_FIXED0 and the registers after it: what VMX operation asks of CR0 and CR4.
const CR0_FIXED0: u32 = 0x486;
const CR0_FIXED1: u32 = 0x487;
const CR4_FIXED0: u32 = 0x488;
const CR4_FIXED1: u32 = 0x489;

/// How an instruction went that could be performed.
type Outcome = Result<(), Failure>;
/// Why an instruction could not be performed.
type Stopped = NotPerformed<PrivateKey>;

impl Processor<'_> {
    /// Performs a VMX instruction. Gives an exit where an operand could not be reached.
    pub(super) fn vmx(
        &mut self,
        what: VmxInstruction,
        operands: VmxOperands,
        length: u8,
    ) -> Option<Exit<PrivateKey>> {
        let state = &self.cpu.state;
        let begins = what == VmxInstruction::Vmxon && state.control.cr4 & cr4::VMXE != 0;
        // INVVPID is not offered (IA32_VMX_EPT_VPID_CAP bit 32), VMFUNC is a guest's.
        let absent = matches!(what, VmxInstruction::Invvpid | VmxInstruction::Vmfunc);
        if !state.is_64_bit() || absent || !(self.vmx.is_on() || begins) {
            self.undefined_opcode();
            return None;
        }
        if state.cpl() != 0 || begins && !self.vmx.is_on() && !self.may_begin() {
            self.general_protection();
            return None;
        }
        match self.perform(what, operands) {
            Ok(outcome) => {
                self.vmx_outcome(outcome, length);
                None
            }
            Err(NotPerformed::Exception) => None,
            Err(NotPerformed::Exit(exit)) => Some(exit),
        }
    }

    /// VMCALL in VMX root operation, where nobody takes the call.
    pub(super) fn vmcall(&mut self, length: u8) {
        if self.vmx.is_on() && self.cpu.state.cpl() == 0 {
            self.vmx_outcome(Err(Failure::Error(InstructionError::VmcallInRoot)), length);
        } else {
            self.undefined_opcode();
        }
    }

    fn vmx_outcome(&mut self, outcome: Outcome, length: u8) {
        let arithmetic = match outcome {
            Ok(()) => 0,
            Err(failure) if self.vmx.fail(&self.server.machine, failure) => flags::ZF,
            Err(_) => flags::CF,
        };
        self.cpu.state.flags.replace(flags::ARITHMETIC, arithmetic);
        self.cpu.advance(length);
    }

    /// VMXON: firmware has not locked VMX off, and the control registers fit.
    fn may_begin(&self) -> bool {
        let is_locked_off = self.server.config.firmware == FirmwareSetup::WithoutVmx;
        let native = |index| self.server.machine.config().native_msr(index);
        let fits =
            |value, fixed0, fixed1| value & native(fixed0) == native(fixed0) && value & !native(fixed1) == 0;
        let control = &self.cpu.state.control;
        !is_locked_off
            && fits(control.cr0, CR0_FIXED0, CR0_FIXED1)
            && fits(control.cr4, CR4_FIXED0, CR4_FIXED1)
    }

    fn perform(&mut self, what: VmxInstruction, operands: VmxOperands) -> Result<Outcome, Stopped> {
        let register = self.cpu.state.gpr(operands.register);
        Ok(match what {
            VmxInstruction::Vmxon => {
                let at = self.pointer(operands.place)?;
                self.vmx.vmxon(&self.server.machine, at)
            }
            VmxInstruction::Vmxoff => {
                self.vmx.vmxoff();
                Ok(())
            }
            VmxInstruction::Vmclear => {
                let at = self.pointer(operands.place)?;
                self.vmx.vmclear(at)
            }
            VmxInstruction::Vmptrld => {
                let at = self.pointer(operands.place)?;
                self.vmx.vmptrld(&self.server.machine, at)
            }
            VmxInstruction::Vmptrst => {
                self.write_place(operands.place, self.vmx.vmptrst())?;
                Ok(())
            }
            VmxInstruction::Vmread => match self.vmx.vmread(&self.server.machine, register) {
                Ok(value) => {
                    self.write_place(operands.place, value)?;
                    Ok(())
                }
                Err(failure) => Err(failure),
            },
            VmxInstruction::Vmwrite => {
                let value = self.read_place(operands.place)?;
                self.vmx.vmwrite(&self.server.machine, register, value)
            }
            VmxInstruction::Vmlaunch => {
                self.server.report.note(Notice::OrdinaryVm);
                Err(self.vmx.vmlaunch())
            }
            VmxInstruction::Vmresume => {
                self.server.report.note(Notice::OrdinaryVm);
                Err(self.vmx.vmresume())
            }
            VmxInstruction::Invept => {
                let mut descriptor = [0; 16];
                if let VmxPlace::Memory(linear) = operands.place {
                    self.cpu.read_operand(&mut self.bus, linear, &mut descriptor)?;
                }
                let outcome = Vmx::invept(register, u128::from_le_bytes(descriptor));
                if outcome.is_ok() {
                    self.server.machine.invept(self.index);
                }
                outcome
            }
            // Refused before.
            VmxInstruction::Invvpid | VmxInstruction::Vmfunc => Err(Failure::Invalid),
        })
    }

    /// The region that the operand points to, where it is one.
    fn pointer(&mut self, place: VmxPlace) -> Result<Pointer, Stopped> {
        let address = self.read_place(place)?;
        let server = self.server;
        Ok(vmx::pointer(address, |at| server.is_memory(at)))
    }

    fn read_place(&mut self, place: VmxPlace) -> Result<u64, Stopped> {
        match place {
            VmxPlace::Register(register) => Ok(self.cpu.state.gpr(register)),
            VmxPlace::Memory(linear) => {
                let mut bytes = [0; 8];
                self.cpu.read_operand(&mut self.bus, linear, &mut bytes)?;
                Ok(u64::from_le_bytes(bytes))
            }
        }
    }

    fn write_place(&mut self, place: VmxPlace, value: u64) -> Result<(), Stopped> {
        match place {
            VmxPlace::Register(register) => {
                self.cpu.state.set_gpr(register, value);
                Ok(())
            }
            VmxPlace::Memory(linear) => self.cpu.write_operand(&mut self.bus, linear, &value.to_le_bytes()),
        }
    }
}
