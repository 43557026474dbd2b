//! Memory operands of instructions that the owner performs: VMX instructions, INS and OUTS.
//!
//! An access has the rights of the running code, as the instruction itself would have. What keeps it from happening is
//! what keeps an instruction from completing: an exception, which is then queued, or a refusal.

use phys_memory::Arena;
use tdvisor_base::sync::AtomicBool;
use x86_arch::{Event, vector};

use crate::bus::{Bus, Port, Refused};
use crate::cpu::{Cpu, Env};
use crate::exits::Exit;
use crate::paging::Want;
use crate::stop::{Reason, Step};

/// The longest operand: the descriptor of INVEPT.
const LONGEST: usize = 16;

/// Why the owner cannot perform an instruction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NotPerformed<R> {
    /// An exception is queued ([`x86_arch::CpuState::event`]); RIP stays at the instruction.
    Exception,
    /// What [`crate::Engine::run`] would have come back with.
    Exit(Exit<R>),
}

impl Cpu {
    /// Reads a memory operand of up to 16 bytes at a linear address.
    ///
    /// # Errors
    /// [`NotPerformed`].
    pub fn read_operand<B: Bus>(
        &mut self,
        bus: &mut B,
        linear: u64,
        out: &mut [u8],
    ) -> Result<(), NotPerformed<B::Refusal>> {
        let mut data = [0; LONGEST];
        let Some(part) = data.get_mut(..out.len()) else {
            return Err(self.queue(Event::exception_with_code(vector::GP, 0)));
        };
        self.on_bus(bus, |cpu, env| cpu.read_bytes(env, linear, part, Want::Read, cpu.view))?;
        out.copy_from_slice(part);
        Ok(())
    }

    /// Checks that [`Self::write_operand`] of as many bytes would not fault.
    ///
    /// # Errors
    /// [`NotPerformed`].
    pub fn check_write_operand<B: Bus>(
        &mut self,
        bus: &mut B,
        linear: u64,
        bytes: usize,
    ) -> Result<(), NotPerformed<B::Refusal>> {
        self.on_bus(bus, |cpu, env| cpu.prepare_store(env, linear, bytes))
    }

    /// Writes a memory operand of up to 16 bytes at a linear address.
    ///
    /// # Errors
    /// [`NotPerformed`].
    pub fn write_operand<B: Bus>(
        &mut self,
        bus: &mut B,
        linear: u64,
        data: &[u8],
    ) -> Result<(), NotPerformed<B::Refusal>> {
        self.on_bus(bus, |cpu, env| cpu.write_bytes(env, linear, data, cpu.view))
    }

    fn on_bus<B: Bus>(
        &mut self,
        bus: &mut B,
        access: impl FnOnce(&mut Self, &mut Env<'_>) -> Step,
    ) -> Result<(), NotPerformed<B::Refusal>> {
        let memory = bus.memory();
        let memory: &Arena = &memory;
        let mut port = Port::new(bus);
        // A single access: there is nothing that a kick could end.
        let kick = AtomicBool::new(false);
        let mut env = Env { mem: memory, bus: &mut port, kick: &kick };
        self.refresh_mode();
        let stopped = access(self, &mut env).is_err();
        let not_performed = stopped.then(|| self.give_up(&mut env));
        match not_performed {
            None => Ok(()),
            Some(NotPerformed::Exception) => Err(NotPerformed::Exception),
            Some(NotPerformed::Exit(exit)) => Err(NotPerformed::Exit(exit.because(port.into_refusal()))),
        }
    }

    /// Turns what kept an access from happening into an event or an exit.
    fn give_up(&mut self, env: &mut Env<'_>) -> NotPerformed<Refused> {
        match core::mem::take(&mut self.stop) {
            Reason::Exception(event) => {
                if event.vector == vector::PF {
                    self.state.control.cr2 = self.pending_cr2;
                }
                self.queue(event)
            }
            Reason::Refused(access) => NotPerformed::Exit(Exit::Refused(access)),
            Reason::Unimplemented(what) => {
                NotPerformed::Exit(Exit::Unimplemented(Box::new(crate::decode::describe(self, env, what))))
            }
            // No access stops for another reason than an address that is not canonical.
            Reason::NonCanonical
            | Reason::None
            | Reason::Continue
            | Reason::StopPoint(_)
            | Reason::Instruction(_) => self.queue(Event::exception_with_code(vector::GP, 0)),
        }
    }

    fn queue<R>(&mut self, event: Event) -> NotPerformed<R> {
        let _ = self.inject(event);
        NotPerformed::Exception
    }
}
