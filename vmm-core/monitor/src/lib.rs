//! What answers the exits of a VM, whoever runs it: devices, conversions of memory, quotes.
//!
//! | exit | answered by |
//! |---|---|
//! | Io, Mmio | the device at the address |
//! | MapGpa | `map_gpa` |
//! | GetQuote | `get_quote`, with the [`QuoteSource`] |
//! | EventNotify | the vector is remembered, and announces finished requests |
//! | CallInfo | what is offered |
//! | MemoryFault | nothing: the VM ends |
//! | Interrupted | [`Listener::interrupted`]: the vCPU runs on afterwards |
//!
//! # Interrupts
//! A device raises a line of the I/O APIC during an access; the vCPU that made the access delivers what came of it right
//! after. Whoever makes a device raise its line otherwise (typed input) calls [`Monitor::deliver_lines`], and whoever
//! feeds a device that needs guest memory for it (a network) calls [`Monitor::attend`].

#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod get_quote;
#[cfg(feature = "std")]
pub mod hold;
mod map_gpa;
mod quote;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use tdvisor_base::sync::Mutex;
use tdvisor_base::{Gpa, Side};
use tdvisor_devices::{DeviceRequest, Devices};
use tdvisor_vm::{Answer, Ending, Partition, Transfer, Vcpu, VmExit};

pub use quote::{QuoteSource, QuoteUnavailable, TDREPORT_BYTES};

/// Leaf 1 of GetTdVmCallInfo: GetQuote and SetupEventNotifyInterrupt are offered.
const OFFERED_BEYOND_BASE: u64 = 0b11;

/// The lowest vector that a guest may be told of finished requests on: those below are the processor's.
const FIRST_FREE_VECTOR: u8 = 32;

/// Hears what a vCPU does, on the thread that runs it. The vCPU runs on when a call returns.
pub trait Listener: Sync {
    /// Somebody made the vCPU's run end ([`Partition::interrupt`]). It is outside of its guest, and holds nothing that another
    /// one needs.
    fn interrupted(&self, _vcpu: u32) {}

    /// The guest had memory converted.
    fn converted(&self, _conversion: Conversion) {}

    /// The guest asked for a quote, and has got one of so many bytes, or none.
    fn quoted(&self, _vcpu: u32, _quote: Result<usize, QuoteUnavailable>) {}
}

/// Listens to nothing: a vCPU that is interrupted runs on at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunsOn;

impl Listener for RunsOn {}

/// Memory that a guest had converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conversion {
    /// The vCPU that asked.
    pub vcpu: u32,
    /// Where the range begins, without the SHARED bit.
    pub gpa: Gpa,
    /// How long it is.
    pub bytes: u64,
    /// Whose it is now.
    pub to: Side,
}

/// What one VM finds around it.
#[derive(Default)]
pub struct Monitor {
    devices: Devices,
    /// The vectors that vCPUs want to be told of finished requests on, by vCPU.
    notify: Mutex<BTreeMap<u32, u8>>,
    quotes: Option<Box<dyn QuoteSource>>,
}

impl core::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Monitor").field("devices", &self.devices).finish_non_exhaustive()
    }
}

/// What the loop of a vCPU does next.
enum Next {
    Run(Answer),
    Stop,
}

impl Monitor {
    /// A VM's surroundings. Without a source of quotes a guest that asks for one hears that there is no service.
    pub fn new(devices: Devices, quotes: Option<Box<dyn QuoteSource>>) -> Self {
        Self { devices, notify: Mutex::default(), quotes }
    }

    /// What the VM finds around it.
    pub const fn devices(&self) -> &Devices {
        &self.devices
    }

    /// The vectors that vCPUs want to be told of finished requests on: what a monitor keeps beside its devices.
    pub fn notify_vectors(&self) -> Vec<(u32, u8)> {
        self.notify.lock().iter().map(|(vcpu, vector)| (*vcpu, *vector)).collect()
    }

    /// Takes over what [`Self::notify_vectors`] gave. What no guest can have asked for is left out.
    pub fn restore_notify_vectors(&self, vectors: &[(u32, u8)]) {
        let possible = vectors.iter().filter(|(_, vector)| *vector >= FIRST_FREE_VECTOR);
        self.notify.lock().extend(possible.copied());
    }

    /// Runs a vCPU on this thread until its VM has ended.
    pub fn run_vcpu<P: Partition>(&self, vm: &P, index: u32, listener: &dyn Listener) {
        match vm.vcpu(index) {
            Ok(mut vcpu) => {
                if let Err(death) = self.serve(vm, &mut vcpu, listener) {
                    vm.end(Ending::Died(death));
                }
            }
            Err(death) => vm.end(Ending::Died(death)),
        }
    }

    /// Delivers what devices raised since the last time. Whoever made a device raise a line calls this.
    ///
    /// # Errors
    /// The VM cannot go on.
    pub fn deliver_lines<P: Partition>(&self, vm: &P) -> Result<(), P::Death> {
        self.devices.take_messages().into_iter().try_for_each(|message| vm.deliver(message))
    }

    /// Lets every device attend to what the host has for the guest, and delivers what came of it. Whoever has fed a device
    /// calls this.
    ///
    /// # Errors
    /// The VM cannot go on.
    pub fn attend<P: Partition>(&self, vm: &P) -> Result<(), P::Death> {
        self.devices.mmio.attend(vm.shared_memory());
        self.deliver_lines(vm)
    }

    fn serve<P: Partition>(
        &self,
        vm: &P,
        vcpu: &mut P::Vcpu<'_>,
        listener: &dyn Listener,
    ) -> Result<(), P::Death> {
        let mut answer = Answer::Done;
        loop {
            let exit = vcpu.run(answer);
            if matches!(exit, VmExit::Interrupted) {
                listener.interrupted(vcpu.index());
            }
            answer = match self.answer(vm, vcpu, exit, listener)? {
                Next::Run(answer) => answer,
                Next::Stop => return Ok(()),
            };
        }
    }

    fn answer<P: Partition>(
        &self,
        vm: &P,
        vcpu: &mut P::Vcpu<'_>,
        exit: VmExit<P::Death>,
        listener: &dyn Listener,
    ) -> Result<Next, P::Death> {
        Ok(Next::Run(match exit {
            VmExit::Io { port, size, transfer: Transfer::Read } => {
                let value = self.devices.ports.read(port, size);
                self.deliver_lines(vm)?;
                Answer::Value(value)
            }
            VmExit::Io { port, size, transfer: Transfer::Write(value) } => {
                let request = self.devices.ports.write(port, size, value, vm.shared_memory());
                return self.after_device(vm, request);
            }
            VmExit::Mmio { gpa, size, transfer: Transfer::Read } => {
                let value = self.devices.mmio.read(gpa, size);
                self.deliver_lines(vm)?;
                Answer::Value(value)
            }
            VmExit::Mmio { gpa, size, transfer: Transfer::Write(value) } => {
                let request = self.devices.mmio.write(gpa, size, value, vm.shared_memory());
                return self.after_device(vm, request);
            }
            VmExit::MapGpa { gpa, size } => {
                let answer = map_gpa::map_gpa(vm, vcpu, gpa, size)?;
                if let Some((to, gpa, bytes)) = map_gpa::converted(vm.shared_bit(), gpa, size, answer) {
                    listener.converted(Conversion { vcpu: vcpu.index(), gpa, bytes, to });
                }
                answer
            }
            VmExit::GetQuote { gpa, size } => {
                let source = self.quotes.as_deref();
                let answer =
                    get_quote::get_quote(vm.shared_memory(), source, vm.shared_bit(), gpa, size, &|quote| {
                        listener.quoted(vcpu.index(), quote);
                    });
                let notify = self.notify.lock().get(&vcpu.index()).copied();
                if let (Answer::Done, Some(vector)) = (answer, notify) {
                    vm.post_interrupt(vcpu.index(), vector)?;
                }
                answer
            }
            VmExit::EventNotify { vector } => match u8::try_from(vector) {
                Ok(vector @ FIRST_FREE_VECTOR..) => {
                    self.notify.lock().insert(vcpu.index(), vector);
                    Answer::Done
                }
                _ => Answer::Invalid,
            },
            VmExit::CallInfo { leaf: 0 } => Answer::Done,
            VmExit::CallInfo { leaf: 1 } => Answer::Value(OFFERED_BEYOND_BASE),
            VmExit::CallInfo { .. } => Answer::Invalid,
            VmExit::MemoryFault(fault) => {
                vm.die_of(vcpu.index(), fault);
                return Ok(Next::Stop);
            }
            VmExit::Interrupted => Answer::Done,
            VmExit::Ended(_) => return Ok(Next::Stop),
        }))
    }

    /// What a write to a device leaves to do: interrupts that it raised, or the end of the VM.
    fn after_device<P: Partition>(&self, vm: &P, request: DeviceRequest) -> Result<Next, P::Death> {
        vm.end(match request {
            DeviceRequest::None => {
                self.deliver_lines(vm)?;
                return Ok(Next::Run(Answer::Done));
            }
            DeviceRequest::PowerOff { code } => Ending::PoweredOff { code },
            DeviceRequest::Reset => Ending::Reset,
            DeviceRequest::Panicked => Ending::Panicked,
        });
        Ok(Next::Stop)
    }
}
