//! VMX instructions of a host processor.

use x86_arch::{cr4, flags};
use x86_emu::exits::VmxInstruction;

use super::Processor;
use crate::report::Notice;
use crate::vmx::VmxResult;

impl Processor<'_> {
    pub(super) fn vmx(&mut self, instruction: VmxInstruction, length: u8) {
        let state = &self.cpu.state;
        let vmxe = state.control.cr4 & cr4::VMXE != 0;
        let begins = instruction == VmxInstruction::Vmxon && vmxe;
        if !state.is_64_bit() || !(self.vmx.is_on() || begins) {
            return self.undefined_opcode();
        }
        if state.cpl() != 0 {
            return self.general_protection();
        }
        let result = self.vmx.execute(instruction, vmxe);
        let carry = match result {
            VmxResult::UndefinedOpcode => return self.undefined_opcode(),
            VmxResult::Succeed => 0,
            VmxResult::Flush => {
                self.server.machine.invept(self.index);
                0
            }
            VmxResult::OrdinaryVm => {
                self.server.report.note(Notice::OrdinaryVm);
                flags::CF
            }
            VmxResult::AlreadyOn => flags::CF,
        };
        self.cpu.state.flags.replace(flags::ARITHMETIC, carry);
        self.cpu.advance(length);
    }
}
