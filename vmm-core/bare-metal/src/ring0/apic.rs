//! The local APIC of the processor that runs the code.
//!
//! A TDX host uses it in x2APIC mode. A processor without that mode gets its window instead, as far as starting other
//! processors needs it: such a machine is no TDX host, and says so afterwards.
//!
//! **Why this is sound.** The only `unsafe` are two accesses to the window of the xAPIC, a page of registers at a fixed place
//! that is mapped to itself and is no memory.
#![expect(unsafe_code)]

use tdvisor_base::Ticks;
use x86::msr::{
    IA32_APIC_BASE, IA32_TSC_DEADLINE, IA32_X2APIC_EOI, IA32_X2APIC_ICR, IA32_X2APIC_LVT_LINT0,
    IA32_X2APIC_LVT_TIMER, IA32_X2APIC_SELF_IPI, IA32_X2APIC_SIVR,
};

use x86_arch::cpuid::feature;

use super::area::vectors;
use super::cpu::{self, ThisProcessor};
use crate::conditions::offers;

/// IA32_APIC_BASE: enabled, and in x2APIC mode.
const ENABLED: u64 = 1 << 11;
const X2APIC_MODE: u64 = 1 << 10;
const WINDOW: u64 = 0x000F_FFFF_FFFF_F000;

/// Spurious-interrupt vector register: the APIC is on.
const SOFTWARE_ENABLE: u32 = 1 << 8;
/// A local vector that is not used.
const MASKED: u32 = 1 << 16;
/// LVT timer: the TSC's deadline.
const TSC_DEADLINE: u64 = 0b10 << 17;

/// Interrupt command: what kind of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// A vector.
    Fixed(u8),
    /// INIT.
    Init,
    /// Start-up, at this page below 1 MiB.
    StartUp(u8),
}

impl Command {
    /// The low half of the interrupt command register: edge, asserted, physical destination.
    const fn bits(self) -> u32 {
        const ASSERT: u32 = 1 << 14;
        ASSERT
            | match self {
                Self::Fixed(vector) => vector as u32,
                Self::Init => 0b101 << 8,
                Self::StartUp(page) => 0b110 << 8 | page as u32,
            }
    }
}

/// In which mode the APIC is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apic {
    /// Registers are MSRs.
    X2Apic,
    /// Registers are at this address.
    XApic {
        /// The first byte of the window.
        window: u64,
    },
}

/// Offsets in the window.
mod window {
    pub const ID: u64 = 0x20;
    pub const SPURIOUS: u64 = 0xF0;
    pub const COMMAND_LOW: u64 = 0x300;
    pub const COMMAND_HIGH: u64 = 0x310;
    pub const LINT0: u64 = 0x350;
}

impl Apic {
    /// Turns the APIC of this processor on, in x2APIC mode if it has that.
    pub(crate) fn turn_on() -> Self {
        let base = cpu::read_msr(IA32_APIC_BASE);
        let apic = if offers(&ThisProcessor, feature::X2APIC) {
            if base & (ENABLED | X2APIC_MODE) != ENABLED | X2APIC_MODE {
                // From off to x2APIC the way is through xAPIC mode (SDM volume 3, "x2APIC state transitions").
                cpu::write_msr(IA32_APIC_BASE, base | ENABLED);
                cpu::write_msr(IA32_APIC_BASE, base | ENABLED | X2APIC_MODE);
            }
            Self::X2Apic
        } else {
            cpu::write_msr(IA32_APIC_BASE, base | ENABLED);
            Self::XApic { window: base & WINDOW }
        };
        let spurious = SOFTWARE_ENABLE | u32::from(vectors::SPURIOUS);
        match apic {
            Self::X2Apic => {
                cpu::write_msr(IA32_X2APIC_SIVR, spurious.into());
                cpu::write_msr(IA32_X2APIC_LVT_LINT0, MASKED.into());
            }
            Self::XApic { window } => {
                write(window + window::SPURIOUS, spurious);
                write(window + window::LINT0, MASKED);
            }
        }
        apic
    }

    /// The APIC id of the processor that runs this code.
    pub(crate) fn id(self) -> u32 {
        match self {
            Self::X2Apic => (cpu::read_msr(x86::msr::IA32_X2APIC_APICID) & 0xffff_ffff) as u32,
            Self::XApic { window } => read(window + window::ID) >> 24,
        }
    }

    /// Sends a message to the processor with an APIC id.
    pub(crate) fn send(self, apic_id: u32, command: Command) {
        cpu::order_before_message();
        match self {
            Self::X2Apic => {
                cpu::write_msr(IA32_X2APIC_ICR, u64::from(apic_id) << 32 | u64::from(command.bits()))
            }
            Self::XApic { window } => {
                write(window + window::COMMAND_HIGH, apic_id << 24);
                write(window + window::COMMAND_LOW, command.bits());
            }
        }
    }
}

fn read(at: u64) -> u32 {
    // SAFETY: a register of the xAPIC.
    unsafe { (at as *const u32).read_volatile() }
}

fn write(at: u64, value: u32) {
    // SAFETY: a register of the xAPIC.
    unsafe { (at as *mut u32).write_volatile(value) };
}

/// Sends a vector to this processor itself. It is in x2APIC mode.
pub(crate) fn interrupt_self(vector: u8) {
    cpu::write_msr(IA32_X2APIC_SELF_IPI, vector.into());
}

/// Says that the interrupt in service is over. The processor is in x2APIC mode.
pub(crate) fn end_of_interrupt() {
    cpu::write_msr(IA32_X2APIC_EOI, 0);
}

/// Makes the timer one that follows the TSC. The processor is in x2APIC mode.
pub(crate) fn set_timer_up() {
    cpu::write_msr(IA32_X2APIC_LVT_TIMER, TSC_DEADLINE | u64::from(vectors::TIMER));
}

/// Sets the timer; `None` stops it.
pub(crate) fn set_timer(deadline: Option<Ticks>) {
    // Zero would stop the timer, and a deadline that is past expires at once.
    cpu::write_msr(IA32_TSC_DEADLINE, deadline.map_or(0, |deadline| deadline.get().max(1)));
}
