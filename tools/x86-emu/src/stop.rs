//! How an operation says that it did not complete.
//!
//! [`Stop`] is empty, so that results stay in registers; the reason waits in the CPU.

use crate::bus::Refused;
use crate::cpu::Cpu;
use crate::exits::{InstructionExit, RefusedAccess, RefusedBy};
use crate::stop_points::StopPoint;
use tdvisor_base::Gpa;
use x86_arch::{Access, Event, vector};

/// The instruction did not complete; see [`Cpu::stop`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop(());

/// The outcome of one operation.
pub(crate) type Step = Result<(), Stop>;

/// Why the last operation did not complete.
#[derive(Clone, Debug, Default)]
pub(crate) enum Reason {
    #[default]
    None,
    /// Raise this; faults leave RIP at the instruction.
    Exception(Event),
    /// A linear address that is not canonical: #SS(0) through SS, #GP(0) otherwise.
    NonCanonical,
    /// Give the instruction to the owner.
    Instruction(InstructionExit),
    /// The bus or memory refused an access.
    Refused(RefusedAccess<Refused>),
    /// Not implemented, and what exactly.
    Unimplemented(&'static str),
    /// The owner wants the CPU back before this instruction.
    StopPoint(StopPoint),
    /// A string instruction made progress and is to be continued after interrupts had their chance.
    Continue,
}

impl Cpu {
    #[cold]
    pub(crate) fn stop_for(&mut self, reason: Reason) -> Stop {
        self.stop = reason;
        Stop(())
    }

    #[cold]
    pub(crate) fn raise(&mut self, event: Event) -> Stop {
        self.stop_for(Reason::Exception(event))
    }

    #[cold]
    pub(crate) fn undefined(&mut self) -> Stop {
        self.raise(Event::exception(vector::UD))
    }

    /// #GP with an error code: 0 or a selector.
    #[cold]
    pub(crate) fn general_protection(&mut self, error_code: u32) -> Stop {
        self.raise(Event::exception_with_code(vector::GP, error_code))
    }

    #[cold]
    pub(crate) fn non_canonical(&mut self) -> Stop {
        self.stop_for(Reason::NonCanonical)
    }

    #[cold]
    pub(crate) fn page_fault(&mut self, linear: u64, error_code: u32) -> Stop {
        self.pending_cr2 = linear;
        self.raise(Event::exception_with_code(vector::PF, error_code))
    }

    /// An access that did not happen.
    #[cold]
    pub(crate) fn refused_access(
        &mut self,
        gpa: Gpa,
        access: Access,
        gla: u64,
        by: RefusedBy<Refused>,
    ) -> Stop {
        self.stop_for(Reason::Refused(RefusedAccess { gpa, access, gla, by, idt_vectoring: None }))
    }

    #[cold]
    pub(crate) fn instruction_exit(&mut self, what: InstructionExit) -> Stop {
        self.stop_for(Reason::Instruction(what))
    }

    #[cold]
    pub(crate) fn unimplemented(&mut self, what: &'static str) -> Stop {
        self.stop_for(Reason::Unimplemented(what))
    }
}
