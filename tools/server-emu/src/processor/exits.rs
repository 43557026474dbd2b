//! Instructions that concern the machine: what each of them does on a host processor.

use tdvisor_devices::{AccessSize, DeviceRequest};
use tdx_module_iface::{LeafWord, SeamCall as _, TdhLeaf};
use x86_arch::{Activity, Event, Gpr, vector};
use x86_emu::exits::{CrAccess, CrOperation, Unimplemented};
use x86_emu::{InstructionExit, Io, IoDirection, MsrError, NotPerformed};

use super::{Flow, Processor, obey, strict};
use crate::apic;
use crate::bus::Dma;
use crate::cpuid::{self, Asker};
use crate::firmware::PARK_PORT;
use crate::msr::{self, GeneralProtection};
use crate::record::ObservedCall;
use crate::report::Notice;
use crate::seamcall::{self, Conditions, Refused};
use crate::server::Ending;

impl Processor<'_> {
    /// #GP(0).
    pub(super) fn general_protection(&mut self) {
        let _ = self.cpu.inject(Event::exception_with_code(vector::GP, 0));
    }

    /// #UD.
    pub(super) fn undefined_opcode(&mut self) {
        let _ = self.cpu.inject(Event::exception(vector::UD));
    }

    /// The instruction is done, or is an exception.
    fn finish(&mut self, result: Result<(), Event>, length: u8) {
        match result {
            Ok(()) => self.cpu.advance(length),
            Err(event) => {
                let _ = self.cpu.inject(event);
            }
        }
    }

    pub(super) fn instruction(&mut self, what: InstructionExit, length: u8) -> Flow {
        match what {
            InstructionExit::Seamcall => self.seamcall(length),
            InstructionExit::Vmx { what, operands } => {
                if let Some(exit) = self.vmx(what, operands, length) {
                    return self.settle(exit);
                }
            }
            InstructionExit::Vmcall => self.vmcall(length),
            InstructionExit::Cpuid => self.cpuid(length),
            InstructionExit::Rdmsr { index } => self.rdmsr(index, length),
            InstructionExit::Wrmsr { index, value } => self.wrmsr(index, value, length),
            InstructionExit::Io(io) => return self.port(io, length),
            InstructionExit::Hlt => {
                self.cpu.advance(length);
                self.cpu.state.activity = Activity::Halted;
            }
            InstructionExit::Wbinvd | InstructionExit::Invd => {
                self.server.machine.wbinvd(self.index);
                self.cpu.advance(length);
            }
            InstructionExit::Xsetbv { index, value } => {
                let result = self.cpu.write_xcr0(index, value);
                self.finish(result, length);
            }
            InstructionExit::CrAccess(access) => self.control_register(access, length),
            InstructionExit::Pause => {
                self.cpu.advance(length);
                self.server.interrupts.pause(self.index);
            }
            InstructionExit::Rdpmc { .. } => self.general_protection(),
            // A processor does it itself. No host in 64-bit mode can ask for one.
            InstructionExit::TaskSwitch(_) => {
                let rip = self.cpu.state.rip();
                let what = Box::new(Unimplemented::in_32_bit_code(Vec::new(), rip, "task switch"));
                return Err(Ending::Unimplemented { processor: self.index, what });
            }
            // Absent: TDCALL and SEAMRET belong to SEAM mode, the rest to features that CPUID does not offer.
            InstructionExit::Tdcall
            | InstructionExit::Seamret
            | InstructionExit::Seamops
            | InstructionExit::Monitor
            | InstructionExit::Mwait
            | InstructionExit::Pconfig
            | InstructionExit::Sgx
            | InstructionExit::Getsec
            | InstructionExit::DrAccess(_) => self.undefined_opcode(),
        }
        Ok(())
    }

    fn seamcall(&mut self, length: u8) {
        let conditions =
            Conditions { vmx_on: self.vmx.is_on(), seam_range_enabled: self.server.seam_range_enabled() };
        let refused = match seamcall::check(&self.cpu.state, conditions) {
            Ok(()) => {
                let leaf = LeafWord(self.cpu.state.gpr(Gpr::Rax)).leaf();
                self.debug.calls(&self.cpu, TdhLeaf(leaf));
                self.call_module().err()
            }
            Err(refused) => Some(refused),
        };
        match refused {
            None => seamcall::set_flags(&mut self.cpu.state, false),
            Some(Refused::VmFailInvalid) => seamcall::set_flags(&mut self.cpu.state, true),
            Some(Refused::Exception(event)) => {
                let _ = self.cpu.inject(event);
                return;
            }
        }
        self.cpu.advance(length);
    }

    fn call_module(&mut self) -> Result<(), Refused> {
        let rax = self.cpu.state.gpr(Gpr::Rax);
        let enters = seamcall::enters_td(rax);
        let machine = &self.server.machine;
        if enters {
            machine.set_host_xmm(self.index, self.cpu.state.simd.xmm);
        }
        let before = seamcall::registers(&self.cpu.state);
        let mut after = before;
        let in_guest = enters.then(|| self.server.freeze.enter_guest());
        let failed_invalid = self.lp.seamcall(&mut after).is_err();
        drop(in_guest);
        self.server.record.note(&ObservedCall { processor: self.index, before, after, failed_invalid });
        if failed_invalid {
            return Err(Refused::VmFailInvalid);
        }
        seamcall::set_registers(&mut self.cpu.state, &after);
        if enters {
            self.cpu.state.simd.xmm = machine.host_xmm(self.index);
            if self.server.interrupts.take_nmi_in_guest(self.index) {
                self.cpu.state.interruptibility.nmi_blocked = true;
            }
            let xfam = machine.take_exit_xfam(self.index);
            if self.server.config.host_state.is_strict() {
                strict::give_up_after_td_exit(&mut self.cpu.state);
                self.msrs.give_up_after_td_exit();
                if let Some(xfam) = xfam {
                    // A TD has no state that the processor lacks.
                    let _ = self.cpu.write_xcr0(0, strict::xcr0_after_exit(xfam));
                }
            }
        }
        Ok(())
    }

    fn cpuid(&mut self, length: u8) {
        let state = &self.cpu.state;
        let (leaf, subleaf) = (state.gpr(Gpr::Rax) as u32, state.gpr(Gpr::Rcx) as u32);
        let (cr4, xcr0, xss) = (state.control.cr4, state.control.xcr0, state.msrs.xss);
        let asker = Asker { apic_id: self.apic_id, cr4, xcr0, xss };
        let values = cpuid::host(self.server.machine.config(), asker, leaf, subleaf);
        if leaf == 1 {
            self.msrs.note_cpuid_1();
        }
        for (register, value) in
            [(Gpr::Rax, values.eax), (Gpr::Rbx, values.ebx), (Gpr::Rcx, values.ecx), (Gpr::Rdx, values.edx)]
        {
            self.cpu.state.set_gpr(register, value.into());
        }
        self.cpu.advance(length);
    }

    fn rdmsr(&mut self, index: u32, length: u8) {
        let machine = &self.server.machine;
        let now = machine.tsc();
        let value = match self.cpu.read_msr(index) {
            Ok(value) => Some(value),
            Err(_) if is_apic(index) => {
                let ticks = now.wrapping_add(self.msrs.tsc_adjust);
                let read = self.server.interrupts.with(self.index, |apic| apic.read(index, ticks));
                read.and_then(Result::ok)
            }
            Err(_) => {
                let value = self.msrs.read(machine.config(), index, now, self.index).ok();
                value.map(|value| msr::as_set_up(index, value, self.server.config.firmware))
            }
        };
        match value {
            Some(value) => {
                self.cpu.state.set_gpr(Gpr::Rax, value & 0xffff_ffff);
                self.cpu.state.set_gpr(Gpr::Rdx, value >> 32);
                self.cpu.advance(length);
            }
            None => {
                self.server.report.note(Notice::UnknownMsr { index, write: None });
                self.general_protection();
            }
        }
    }

    fn wrmsr(&mut self, index: u32, value: u64, length: u8) {
        match self.write_msr(index, value) {
            Ok(()) => self.cpu.advance(length),
            Err(GeneralProtection) => {
                self.server.report.note(Notice::UnknownMsr { index, write: Some(value) });
                self.general_protection();
            }
        }
    }

    fn write_msr(&mut self, index: u32, value: u64) -> Result<(), GeneralProtection> {
        match self.cpu.write_msr(index, value) {
            Ok(()) => return Ok(()),
            Err(MsrError::Refused(_)) => return Err(GeneralProtection),
            Err(MsrError::NotKept) => {}
        }
        let server = self.server;
        let now = server.machine.tsc();
        if !is_apic(index) {
            let written = self.msrs.write(server.machine.config(), index, value, now, self.index);
            return written.map_err(|_| GeneralProtection);
        }
        // The processor's own counter and the machine's differ by what the host adjusted.
        let adjust = self.msrs.tsc_adjust;
        let value = match index {
            apic::MSR_TSC_DEADLINE if value != 0 => value.wrapping_sub(adjust),
            _ => value,
        };
        let effect = server.interrupts.with(self.index, |apic| apic.write(index, value, now));
        let effect = effect.ok_or(GeneralProtection)??;
        self.cpu.state.control.cr8 = self.priority_class();
        if let Err(unsupported) = server.interrupts.follow(effect) {
            server.report.note(Notice::Unsupported { processor: self.index, what: unsupported });
        }
        Ok(())
    }

    /// CR8 as the APIC's task priority has it.
    fn priority_class(&self) -> u64 {
        let tpr = self.server.interrupts.with(self.index, |apic| apic.task_priority());
        u64::from(tpr.unwrap_or_default() >> 4)
    }

    fn control_register(&mut self, access: CrAccess, length: u8) {
        let CrAccess { register, operation: CrOperation::Write { value, .. } } = access else {
            // Nothing else is intercepted.
            return self.undefined_opcode();
        };
        let result = self.cpu.write_cr(register, value);
        if register == 8 && result.is_ok() {
            let _ = self.server.interrupts.with(self.index, |apic| apic.set_priority_class(value as u8));
        }
        self.finish(result, length);
    }

    fn port(&mut self, io: Io, length: u8) -> Flow {
        let Some(size) = AccessSize::from_bytes(io.size.into()) else {
            self.undefined_opcode();
            return Ok(());
        };
        let server = self.server;
        let mut request = DeviceRequest::None;
        if let Some(string) = io.string {
            return match self.string_port(io, string, size, length) {
                Ok(request) => {
                    server.interrupts.deliver_lines();
                    obey(request)
                }
                Err(NotPerformed::Exception) => Ok(()),
                Err(NotPerformed::Exit(exit)) => self.settle(exit),
            };
        }
        match io.direction {
            IoDirection::In => {
                let value = server.devices.ports.read(io.port, size);
                self.cpu.complete_in(io.size, value as u32);
            }
            IoDirection::Out if io.port == PARK_PORT => {
                // The processor is back in firmware's hands: nothing of its state is kept.
                server.parking.park(self.index);
                return Ok(());
            }
            IoDirection::Out => {
                let memory = Dma(&server.machine);
                request = server.devices.ports.write(io.port, size, io.value.into(), &memory);
            }
        }
        self.cpu.advance(length);
        server.interrupts.deliver_lines();
        obey(request)
    }
}

const fn is_apic(index: u32) -> bool {
    matches!(index, apic::MSR_FIRST..=apic::MSR_LAST | apic::MSR_TSC_DEADLINE)
}
