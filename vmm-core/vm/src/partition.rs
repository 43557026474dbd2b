//! The seam: a VM and its vCPUs, whoever runs them.

use tdvisor_base::{Gfn, SharedBit, Side};

use crate::{Answer, Ending, MemoryFault, Message, SharedMemory, VmExit};

/// One VM. Everything but its vCPUs may be used by any thread at any time.
pub trait Partition: Sync {
    /// Why a VM of this kind cannot go on.
    type Death: core::error::Error + Clone + Send + Sync + 'static;

    /// A vCPU in the hands of the thread that runs it.
    type Vcpu<'p>: Vcpu<Death = Self::Death>
    where
        Self: 'p;

    /// How many vCPUs there are; they are numbered from 0.
    fn vcpu_count(&self) -> u32;

    /// Takes a vCPU to run it on this thread. Each vCPU is run by one thread at a time.
    ///
    /// # Errors
    /// The vCPU does not exist, or has nowhere to run.
    fn vcpu(&self, index: u32) -> Result<Self::Vcpu<'_>, Self::Death>;

    /// What the guest shares of its memory.
    fn shared_memory(&self) -> &dyn SharedMemory;

    /// The SHARED bit of the guest's addresses.
    fn shared_bit(&self) -> SharedBit;

    /// Delivers a message-signalled interrupt. One that reaches nobody vanishes, as on a bus.
    ///
    /// # Errors
    /// The VM cannot go on.
    fn deliver(&self, message: Message) -> Result<(), Self::Death>;

    /// Gives a vCPU an interrupt, whatever the state of its APIC.
    ///
    /// # Errors
    /// The VM cannot go on.
    fn post_interrupt(&self, vcpu: u32, vector: u8) -> Result<(), Self::Death>;

    /// Makes a vCPU's run end with [`VmExit::Interrupted`], now or when it next runs.
    fn interrupt(&self, vcpu: u32);

    /// Ends the VM: the first reason stays, and every vCPU's run ends with [`VmExit::Ended`].
    fn end(&self, ending: Ending<Self::Death>);

    /// Ends the VM over a memory fault that its monitor cannot mend.
    fn die_of(&self, vcpu: u32, fault: MemoryFault);

    /// How the VM ended, once it has.
    fn ending(&self) -> Option<Ending<Self::Death>>;
}

/// A vCPU in the hands of the thread that runs it.
pub trait Vcpu {
    /// Why a vCPU cannot go on: the partition's [`Partition::Death`].
    type Death;

    /// The vCPU's number in its partition.
    fn index(&self) -> u32;

    /// Tells the guest what became of the exit before, and runs it until it needs something. What goes wrong ends the
    /// VM, and the run with it.
    fn run(&mut self, answer: Answer) -> VmExit<Self::Death>;

    /// Gives the first frames of `start..end` to a side of the guest's memory, as many as can be had at once. Gives the
    /// first frame that was not converted, which is `end` when all were.
    ///
    /// # Errors
    /// [`ConvertError`].
    fn convert(&mut self, start: Gfn, end: Gfn, to: Side) -> Result<Gfn, ConvertError<Self::Death>>;
}

/// Memory was not converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConvertError<D> {
    /// A frame of the range has no memory behind it. Nothing was converted.
    NoMemory(Gfn),
    /// The VM cannot go on.
    Died(D),
}
