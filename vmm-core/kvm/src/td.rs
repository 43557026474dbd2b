//! A TD of KVM as a partition.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tdvisor_base::{SharedBit, Side};
use tdvisor_vm::interrupt::mode;
use tdvisor_vm::{Destination, MemoryFault, Message, Partition, SharedMemory};

use crate::build::{self, ADDRESS_BITS, Built, TdSpec};
use crate::capabilities::Capabilities;
use crate::cpuid::Dropped;
use crate::death::{Death, DeathCause};
use crate::error::{Asked, BuildError, Error};
use crate::exit::{Counts, ExitKind};
use crate::kernel::{Kernel, KernelVcpu, KernelVm, Msi};
use crate::memory::GuestMemory;
use crate::vcpu::RunningVcpu;

/// How a TD ended.
pub type Ending = tdvisor_vm::Ending<Death>;

/// Where messages to local APICs go (SDM volume 3, "Message Address Register Format").
const MSI_ADDRESS: u32 = 0xfee0_0000;
const MSI_DESTINATION_SHIFT: u32 = 12;
const MSI_LOGICAL: u32 = 1 << 2;
const MSI_MODE_SHIFT: u32 = 8;
/// The physical x2APIC id of everybody.
const BROADCAST: u32 = u32::MAX;

/// A vCPU and what others ask of it.
#[derive(Debug)]
pub(crate) struct Vcpu<U> {
    pub(crate) kernel: U,
    /// Somebody wants its run to end.
    pub(crate) wanted: AtomicBool,
}

/// A TD that runs on KVM. It is gone when this is dropped: the kernel reclaims its pages and its key id.
pub struct Td<K: Kernel> {
    // vCPUs, then memory, then the VM: each needs what comes after it.
    pub(crate) vcpus: Vec<Vcpu<<K::Vm as KernelVm>::Vcpu>>,
    pub(crate) memory: GuestMemory<K::Vm>,
    pub(crate) vm: K::Vm,
    pub(crate) counts: Counts,
    pub(crate) capabilities: Capabilities,
    dropped: Vec<Dropped>,
    ending: OnceLock<Ending>,
}

impl<K: Kernel> std::fmt::Debug for Td<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Td").field("vcpus", &self.vcpus.len()).finish_non_exhaustive()
    }
}

impl<K: Kernel> Td<K> {
    /// The SHARED bit of every TD's guest-physical addresses, for devices that are made before their TD.
    pub const SHARED_BIT: SharedBit = SharedBit::topmost(ADDRESS_BITS);

    /// Builds a TD from a TDVF image, ready to run. `progress` hears how many pages were added so far.
    ///
    /// # Errors
    /// [`BuildError`]. Nothing is left of the TD.
    pub fn build(
        kernel: &K,
        spec: &TdSpec,
        image: &[u8],
        progress: impl FnMut(u64),
    ) -> Result<Self, BuildError> {
        let Built { vcpus, memory, vm, capabilities, dropped } = build::build(kernel, spec, image, progress)?;
        let vcpus = vcpus.into_iter().map(|kernel| Vcpu { kernel, wanted: AtomicBool::new(false) }).collect();
        let (counts, ending) = (Counts::default(), OnceLock::new());
        Ok(Self { vcpus, memory, vm, counts, capabilities, dropped, ending })
    }

    /// What KVM and the module let a TD have.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Features that KVM or the module has and this TD has not.
    pub fn dropped_features(&self) -> &[Dropped] {
        &self.dropped
    }

    /// How often KVM came back for a reason.
    pub fn exits(&self, kind: ExitKind) -> u64 {
        self.counts.get(kind)
    }

    /// 4 KiB frames that changed sides.
    pub fn frames_converted(&self) -> u64 {
        self.memory.frames_converted()
    }

    fn send(&self, destination: u32, is_logical: bool, message: Message) -> Result<(), Death> {
        let msi = Msi {
            address_high: destination & !0xff,
            address_low: MSI_ADDRESS
                | (destination & 0xff) << MSI_DESTINATION_SHIFT
                | if is_logical { MSI_LOGICAL } else { 0 },
            data: u32::from(message.mode) << MSI_MODE_SHIFT | u32::from(message.vector),
        };
        match self.vm.signal_msi(msi) {
            // Nobody was meant.
            Ok(()) | Err(crate::Errno(libc::EPERM)) => Ok(()),
            Err(errno) => {
                let error = Error::new(Asked::Message, errno);
                Err(Death { vcpu: 0, cause: DeathCause::Kernel(error) })
            }
        }
    }
}

impl<K: Kernel> Partition for Td<K> {
    type Death = Death;
    type Vcpu<'p> = RunningVcpu<'p, K>;

    fn vcpu_count(&self) -> u32 {
        // A configuration says how many there are, as a `u32`.
        u32::try_from(self.vcpus.len()).unwrap_or(u32::MAX)
    }

    fn vcpu(&self, index: u32) -> Result<RunningVcpu<'_, K>, Death> {
        RunningVcpu::take(self, index).ok_or(Death { vcpu: index, cause: DeathCause::NoSuchVcpu })
    }

    fn shared_memory(&self) -> &dyn SharedMemory {
        &self.memory
    }

    fn shared_bit(&self) -> SharedBit {
        Self::SHARED_BIT
    }

    fn deliver(&self, message: Message) -> Result<(), Death> {
        match message.destination {
            Destination::Physical(id) => self.send(id, false, message),
            Destination::Logical(mask) => self.send(mask, true, message),
            Destination::All => self.send(BROADCAST, false, message),
            Destination::AllBut(sender) => (0..self.vcpu_count())
                .filter(|index| *index != sender)
                .try_for_each(|index| self.send(index, false, message)),
        }
    }

    fn post_interrupt(&self, vcpu: u32, vector: u8) -> Result<(), Death> {
        self.deliver(Message { destination: Destination::Physical(vcpu), mode: mode::FIXED, vector })
    }

    fn interrupt(&self, vcpu: u32) {
        if let Some(vcpu) = self.vcpus.get(vcpu as usize) {
            vcpu.wanted.store(true, Ordering::SeqCst);
            vcpu.kernel.kick();
        }
    }

    fn end(&self, ending: Ending) {
        // The first reason stays.
        let _ = self.ending.set(ending);
        for vcpu in &self.vcpus {
            vcpu.kernel.kick();
        }
    }

    fn die_of(&self, vcpu: u32, fault: MemoryFault) {
        self.end(Ending::Died(Death { vcpu, cause: DeathCause::MemoryFault(fault) }));
    }

    fn ending(&self) -> Option<Ending> {
        self.ending.get().cloned()
    }
}

impl<K: Kernel> Td<K> {
    /// Whether a frame is on this side by now.
    pub(crate) fn is_on(&self, gfn: tdvisor_base::Gfn, side: Side) -> Option<bool> {
        self.memory.side_of(gfn).map(|now| now == side)
    }
}
