//! The loop of one vCPU: KVM_RUN, and what KVM comes back for as a [`VmExit`].
//!
//! # Protocol of a kick
//! Who wants the vCPU notes why (a flag, or the TD's ending), then sets `immediate_exit`, then sends the signal. The thread
//! that runs the vCPU clears `immediate_exit`, and then looks at the notes: one that was written before is seen now, and
//! one that is written after finds `immediate_exit` clear and sets it, so the next KVM_RUN returns at once.

use std::sync::atomic::{Ordering, fence};

use tdvisor_base::{Gfn, Side};
use tdvisor_vm::{Answer, ConvertError, Ending, FaultReason, MemoryFault, Partition, VmExit};

use crate::death::{Death, DeathCause};
use crate::error::{Asked, Errno, Error};
use crate::exit::{self, Exit, ExitKind, Slot};
use crate::kernel::{Kernel, KernelVcpu, KernelVm, Pages};
use crate::memory;
use crate::td::{Td, Vcpu};
use crate::uapi::run::{self, reason};

/// A vCPU in the hands of the thread that runs it.
pub struct RunningVcpu<'t, K: Kernel> {
    td: &'t Td<K>,
    vcpu: &'t Vcpu<<K::Vm as KernelVm>::Vcpu>,
    index: u32,
    /// Where the answer to the exit before goes.
    slot: Option<Slot>,
}

impl<K: Kernel> std::fmt::Debug for RunningVcpu<'_, K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunningVcpu").field("index", &self.index).finish_non_exhaustive()
    }
}

impl<K: Kernel> Drop for RunningVcpu<'_, K> {
    fn drop(&mut self) {
        self.vcpu.kernel.unbind();
    }
}

/// What becomes of one return from KVM_RUN.
enum Turn {
    Exit(VmExit<Death>),
    Again,
}

impl<'t, K: Kernel> RunningVcpu<'t, K> {
    /// Takes a vCPU to run it on this thread.
    pub(crate) fn take(td: &'t Td<K>, index: u32) -> Option<Self> {
        let vcpu = td.vcpus.get(index as usize)?;
        vcpu.kernel.bind();
        Some(Self { td, vcpu, index, slot: None })
    }

    /// Ends the TD over this, and gives how it ended: others may have been faster.
    fn die(&self, cause: DeathCause) -> VmExit<Death> {
        self.ended(Ending::Died(Death { vcpu: self.index, cause }))
    }

    fn ended(&self, ending: Ending<Death>) -> VmExit<Death> {
        self.td.end(ending.clone());
        VmExit::Ended(self.td.ending().unwrap_or(ending))
    }

    /// What somebody wants of the vCPU before it runs on.
    fn wanted(&self) -> Option<VmExit<Death>> {
        self.vcpu.kernel.page().write(run::IMMEDIATE_EXIT, &[0]);
        // The notes are read after that, in the processor's order too.
        fence(Ordering::SeqCst);
        if let Some(ending) = self.td.ending() {
            return Some(VmExit::Ended(ending));
        }
        self.vcpu.wanted.swap(false, Ordering::SeqCst).then_some(VmExit::Interrupted)
    }

    fn turn(&mut self) -> Turn {
        let page = self.vcpu.kernel.page();
        match self.vcpu.kernel.run() {
            Ok(()) => {}
            Err(Errno(libc::EINTR | libc::EAGAIN)) => {
                self.td.counts.count(ExitKind::Kick);
                return Turn::Again;
            }
            Err(Errno(libc::EFAULT)) if exit::exit_reason(page) == reason::MEMORY_FAULT => {}
            Err(errno) => {
                let error = Error::new(Asked::Run(self.index), errno);
                return Turn::Exit(self.die(DeathCause::Kernel(error)));
            }
        }
        let (exit, slot) = exit::decode(page);
        self.td.counts.count(ExitKind::of(&exit));
        self.slot = slot;
        Turn::Exit(match exit {
            Exit::Io { port, size, transfer } => VmExit::Io { port, size, transfer },
            Exit::Mmio { gpa, size, transfer } => {
                let (_, gpa) = self.td.shared_bit().split(gpa);
                VmExit::Mmio { gpa, size, transfer }
            }
            Exit::MapGpa { gpa, bytes, to } => {
                VmExit::MapGpa { gpa: self.td.shared_bit().join(to, gpa), size: bytes }
            }
            Exit::GetQuote { gpa, size } => {
                // KVM lets only shared buffers through, and takes the bit that said so away.
                let (_, gpa) = self.td.shared_bit().split(gpa);
                VmExit::GetQuote { gpa: self.td.shared_bit().join(Side::Shared, gpa), size }
            }
            Exit::CallInfo { leaf } => VmExit::CallInfo { leaf },
            Exit::EventNotify { vector } => VmExit::EventNotify { vector },
            Exit::MemoryFault { gpa, touched } => {
                let (_, gpa) = self.td.shared_bit().split(gpa);
                match self.td.is_on(gpa.frame(), touched) {
                    // Another vCPU's conversion was under way, and is done.
                    Some(true) => return Turn::Again,
                    Some(false) => {
                        VmExit::MemoryFault(MemoryFault { gpa, touched, reason: FaultReason::WrongSide })
                    }
                    None => VmExit::MemoryFault(MemoryFault { gpa, touched, reason: FaultReason::NoMemory }),
                }
            }
            Exit::FatalError(report) => {
                let message = report.text().collect();
                self.ended(Ending::FatalError { code: (report.code & 0xffff_ffff) as u32, message })
            }
            Exit::Nothing => return Turn::Again,
            Exit::Over(cause) => self.die(cause),
        })
    }
}

impl<K: Kernel> tdvisor_vm::Vcpu for RunningVcpu<'_, K> {
    type Death = Death;

    fn index(&self) -> u32 {
        self.index
    }

    fn run(&mut self, answer: Answer) -> VmExit<Death> {
        if let Some(slot) = self.slot.take() {
            // What is offered is what KVM hands on.
            let answer = match (slot, answer) {
                (Slot::Info, Answer::Value(value)) => Answer::Value(value & self.td.capabilities.call_info),
                (_, answer) => answer,
            };
            slot.answer(self.vcpu.kernel.page(), answer);
        }
        loop {
            if let Some(exit) = self.wanted() {
                return exit;
            }
            if let Turn::Exit(exit) = self.turn() {
                return exit;
            }
        }
    }

    fn convert(&mut self, start: Gfn, end: Gfn, to: Side) -> Result<Gfn, ConvertError<Death>> {
        let converted = self.td.memory.convert(&self.td.vm, start, end, to);
        let converted = converted.map_err(|error| memory::died(self.index, error))?;
        if let (Side::Private, Some((gpa, bytes))) = (to, converted.anew) {
            // The guest accepts it next. What is not mapped ahead is mapped when it is touched, so this may fail.
            let _ = self.vcpu.kernel.pre_fault(gpa, bytes);
        }
        Ok(converted.reached)
    }
}

#[cfg(test)]
mod tests;
