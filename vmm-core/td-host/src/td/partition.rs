//! A TD as a partition: what a monitor needs of it.

use tdvisor_base::SharedBit;
use tdvisor_vm::{Ending, MemoryFault, Message, Partition, SharedMemory};

use super::{Death, DeathCause, Td};
use crate::error::Error;
use crate::platform::Platform;
use crate::vcpu::presence::Requests;
use crate::vcpu::run::RunningVcpu;

impl<'h, P: Platform> Partition for Td<'h, P> {
    type Death = Death;
    type Vcpu<'p>
        = RunningVcpu<'p, 'h, P>
    where
        Self: 'p;

    fn vcpu_count(&self) -> u32 {
        u32::try_from(self.vcpus().len()).unwrap_or(u32::MAX)
    }

    fn vcpu(&self, index: u32) -> Result<RunningVcpu<'_, 'h, P>, Death> {
        let vcpu =
            self.vcpus().get(index as usize).ok_or(Death { vcpu: index, cause: DeathCause::NoSuchVcpu })?;
        RunningVcpu::take(self, vcpu).map_err(|error| host_error(index, error))
    }

    fn shared_memory(&self) -> &dyn SharedMemory {
        self.memory()
    }

    fn shared_bit(&self) -> SharedBit {
        Td::shared_bit(self)
    }

    fn deliver(&self, message: Message) -> Result<(), Death> {
        // A message that no vCPU's processor can be told of is nobody's in particular: the first stands for all.
        self.deliver_message(message).map_err(|error| host_error(0, error))
    }

    fn post_interrupt(&self, vcpu: u32, vector: u8) -> Result<(), Death> {
        Td::post_interrupt(self, vcpu, vector).map_err(|error| host_error(vcpu, error))
    }

    fn interrupt(&self, vcpu: u32) {
        if let Some(vcpu) = self.vcpus().get(vcpu as usize) {
            self.ask(vcpu, Requests::LEAVE);
        }
    }

    fn end(&self, ending: Ending<Death>) {
        self.core().end(ending);
    }

    fn die_of(&self, vcpu: u32, fault: MemoryFault) {
        self.core().end(Ending::Died(Death { vcpu, cause: DeathCause::MemoryFault(fault) }));
    }

    fn ending(&self) -> Option<Ending<Death>> {
        Td::ending(self)
    }
}

/// The death of a TD whose host could not go on.
const fn host_error(vcpu: u32, error: Error) -> Death {
    Death { vcpu, cause: DeathCause::Host(error) }
}
