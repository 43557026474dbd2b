//! From a message to the vCPUs that it names.

use tdvisor_vm::Message;
use tdvisor_vm::interrupt::mode;

use crate::error::Error;
use crate::platform::Platform;
use crate::td::Td;
use crate::vcpu::Vcpu;
use crate::vcpu::posted::FIRST_VECTOR;
use crate::vcpu::presence::Requests;

impl<P: Platform> Td<'_, P> {
    /// Gives a vCPU an interrupt, whatever the state of its APIC.
    ///
    /// # Errors
    /// [`Error::Caller`] for a vCPU that does not exist or a vector that is an exception's.
    pub fn post_interrupt(&self, vcpu: u32, vector: u8) -> Result<(), Error> {
        let vcpu = self.vcpus().get(vcpu as usize).ok_or(Error::Caller("no such vCPU"))?;
        self.post(vcpu, vector)
    }

    /// Delivers a message. One that reaches nobody, or that means nothing to a TD, vanishes, as on a bus.
    pub(crate) fn deliver_message(&self, message: Message) -> Result<(), Error> {
        let named = self.vcpus().iter().filter(|vcpu| message.destination.includes(vcpu.index()));
        match message.mode {
            mode::NMI => {
                for vcpu in named {
                    self.ask(vcpu, Requests::NMI);
                }
            }
            mode::FIXED | mode::LOWEST_PRIORITY if message.vector >= FIRST_VECTOR => {
                let most = if message.mode == mode::LOWEST_PRIORITY { 1 } else { usize::MAX };
                for vcpu in named.filter(|vcpu| vcpu.apic().is_enabled()).take(most) {
                    self.post(vcpu, message.vector)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn post(&self, vcpu: &Vcpu, vector: u8) -> Result<(), Error> {
        if vcpu.control.posted.post(self.host(), vector)? {
            self.host().platform.send_ipi(vcpu.lp());
        }
        Ok(())
    }

    /// Asks a vCPU for something, and gets it out of the guest or out of its sleep for it.
    pub(crate) fn ask(&self, vcpu: &Vcpu, requests: Requests) {
        self.presence(vcpu).request(requests);
        self.host().platform.send_ipi(vcpu.lp());
    }
}
