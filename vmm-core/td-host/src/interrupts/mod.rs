//! Interrupts of a TD, as far as its host has a part in them.
//!
//! # Who does what
//! The module virtualises TPR, PPR, EOI, SELF-IPI, ISR, TMR and IRR; a guest's accesses to them never reach the
//! host. Everything else of the x2APIC arrives as a hypercall: the host models identification, LVT, ICR and the
//! timer ([`local_apic`]). The I/O APIC is a device like others.
//!
//! # From cause to delivery
//! A [`Message`](tdvisor_vm::Message) names vCPUs and a vector. For each vCPU the vector's bit is set in its posted-interrupt descriptor
//! ([`crate::vcpu::posted`]); if the descriptor was quiet before, its LP is notified. The processor takes the
//! descriptor into IRR at the notification or at the next VP.ENTER. A vCPU that asked to sleep looks, in this
//! order, at its requests, its descriptor, its timer, and at VCPU_STATE_DETAILS.VMXIP, which says that an
//! interrupt taken into IRR *before* the HLT is still undelivered; then it waits on its LP, where an event that
//! came after those looks ends the wait at once. No order of these steps loses a wake-up.
//!
//! An NMI is not posted: it is the field PEND_NMI of the vCPU, which only the vCPU's own LP may write, so the
//! vCPU is asked to do it ([`crate::vcpu::presence::Requests::NMI`]).
//!
//! INIT, SIPI and SMI have no meaning for a TD: all vCPUs start with the TD and meet in firmware's mailbox.

mod deliver;
pub mod local_apic;
pub mod tsc;
