//! The interrupt command register: what a write of it sends, and to whom (SDM volume 3, "Interrupt Command Register",
//! x2APIC form).

use tdvisor_vm::interrupt::Destination;

/// What an interrupt message asks of a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// To take the interrupt with this vector.
    Fixed(u8),
    /// To take the interrupt with this vector, one processor of those named.
    LowestPriority(u8),
    /// A non-maskable interrupt.
    Nmi,
    /// A reset of the processor. Blocked while the processor is in VMX operation.
    Init,
    /// To start at this page, in real mode, after an INIT.
    StartUp(u8),
    /// A system-management interrupt.
    Smi,
    /// A reserved delivery mode: nobody takes it.
    Reserved,
}

/// An interrupt on its way to processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipi {
    /// To whom.
    pub destination: Destination,
    /// What the interrupt asks of them.
    pub delivery: Delivery,
}

/// Bits of ICR that must be 0: 31:20, 17:16 and 13. Bit 12 was the delivery status of xAPIC mode; it reads as 0 and
/// may be written.
pub(super) const RESERVED: u64 = 0xfff3_2000;
/// Bit 12.
pub(super) const DELIVERY_STATUS: u64 = 1 << 12;

const LOGICAL: u64 = 1 << 11;
const BROADCAST: u32 = u32::MAX;

/// What ICR sends when the processor with this id writes it.
pub(super) const fn decode(icr: u64, own_id: u32) -> Ipi {
    let target = (icr >> 32) as u32;
    let destination = match icr >> 18 & 3 {
        0 if target == BROADCAST => Destination::All,
        0 if icr & LOGICAL != 0 => Destination::Logical(target),
        0 => Destination::Physical(target),
        1 => Destination::Physical(own_id),
        2 => Destination::All,
        _ => Destination::AllBut(own_id),
    };
    let vector = icr as u8;
    let delivery = match icr >> 8 & 7 {
        0 => Delivery::Fixed(vector),
        1 => Delivery::LowestPriority(vector),
        2 => Delivery::Smi,
        4 => Delivery::Nmi,
        5 => Delivery::Init,
        6 => Delivery::StartUp(vector),
        _ => Delivery::Reserved,
    };
    Ipi { destination, delivery }
}
