//! The two bridges of a Q35 board that firmware looks for: the host bridge, and the LPC bridge.
//!
//! Firmware moves ECAM to where it wants it (PCIEXBAR), anywhere below 4 GiB in steps of 256 MiB. The power-management block
//! stays where it is: PMBASE is read-only. The LPC bridge's interrupt routing can be written and routes nothing: the interrupts of
//! PCI devices go to the I/O APIC.
//!
//! Source: Intel 3 Series chipset family data sheet, 5.1.16 (PCIEXBAR); Intel ICH9 data sheet, 13.1.

use alloc::vec::Vec;

use tdvisor_board::pm::{ACPI_CONTROL, ACPI_ENABLE, PMBASE, PMBASE_IO};

use super::{ConfigSpace, Identity, PciFunction};
use crate::{BadState, DeviceRequest, SharedMemory};

const INTEL: u16 = 0x8086;
/// 82G33/G31/P35/P31 DRAM controller: the host bridge of Q35.
const HOST_BRIDGE: u16 = 0x29c0;
/// ICH9 LPC interface controller.
const LPC_BRIDGE: u16 = 0x2918;
const LPC_REVISION: u8 = 2;

/// A bridge class, and its two kinds.
const BRIDGE: u8 = 6;
const TO_HOST: u8 = 0;
const TO_ISA: u8 = 1;

/// Offset of PCIEXBAR, eight bytes: bit 0 enables, the size 256 MiB is zero in bits 2:1. The upper half is zero.
const PCIEXBAR: usize = 0x60;
const PCIEXBAR_ENABLE: u32 = 1;
const PCIEXBAR_ADDRESS: u32 = 0xf000_0000;
/// Offsets of PIRQA to PIRQD routing, and of PIRQE to PIRQH.
const PIRQ_ROUTING: [usize; 2] = [0x60, 0x68];
/// Interrupt routing off, as after a reset.
const PIRQ_OFF: [u8; 4] = [0x80; 4];

/// The host bridge.
#[derive(Clone, Debug)]
pub struct HostBridge(ConfigSpace);

impl HostBridge {
    /// The host bridge, with ECAM at this address until firmware moves it.
    #[must_use]
    pub fn new(ecam: u32) -> Self {
        let space = ConfigSpace::new(identity(HOST_BRIDGE, 0, [BRIDGE, TO_HOST, 0]))
            .with(PCIEXBAR, &(ecam & PCIEXBAR_ADDRESS | PCIEXBAR_ENABLE).to_le_bytes())
            .with_writable(PCIEXBAR, &(PCIEXBAR_ADDRESS | PCIEXBAR_ENABLE).to_le_bytes());
        Self(space)
    }
}

impl PciFunction for HostBridge {
    fn config(&self) -> &ConfigSpace {
        &self.0
    }

    fn write_config(&mut self, at: usize, value: &[u8], _memory: &dyn SharedMemory) -> DeviceRequest {
        self.0.write(at, value);
        DeviceRequest::None
    }

    fn save(&self) -> Option<Vec<u64>> {
        Some(self.0.save())
    }

    fn restore(&mut self, saved: &[u64]) -> Result<(), BadState> {
        self.0.restore(saved)
    }

    fn ecam(&self) -> Option<u32> {
        let register = u32::from_le_bytes(self.0.read(PCIEXBAR));
        (register & PCIEXBAR_ENABLE != 0).then_some(register & PCIEXBAR_ADDRESS)
    }
}

/// The LPC bridge, whose registers mean nothing beyond what they say.
#[derive(Clone, Debug)]
pub struct LpcBridge(ConfigSpace);

impl LpcBridge {
    /// The LPC bridge, whose PMBASE says where the power-management block is.
    #[must_use]
    pub fn new(pm: u16) -> Self {
        let space = ConfigSpace::new(identity(LPC_BRIDGE, LPC_REVISION, [BRIDGE, TO_ISA, 0]))
            .with_ports()
            .with(PMBASE.into(), &(u32::from(pm) | PMBASE_IO).to_le_bytes())
            .with(ACPI_CONTROL.into(), &ACPI_ENABLE.to_le_bytes());
        let routing = |space: ConfigSpace, at| space.with(at, &PIRQ_OFF).with_writable(at, &[0xff; 4]);
        Self(PIRQ_ROUTING.into_iter().fold(space, routing))
    }
}

const fn identity(device: u16, revision: u8, class: [u8; 3]) -> Identity {
    Identity { vendor: INTEL, device, revision, class, subsystem_vendor: INTEL, subsystem: device }
}

impl PciFunction for LpcBridge {
    fn config(&self) -> &ConfigSpace {
        &self.0
    }

    fn write_config(&mut self, at: usize, value: &[u8], _memory: &dyn SharedMemory) -> DeviceRequest {
        self.0.write(at, value);
        DeviceRequest::None
    }

    fn save(&self) -> Option<Vec<u64>> {
        Some(self.0.save())
    }

    fn restore(&mut self, saved: &[u64]) -> Result<(), BadState> {
        self.0.restore(saved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_moves_ecam_and_disables_it_meanwhile() {
        let mut host = HostBridge::new(0xe000_0000);
        assert_eq!((u32::from_le_bytes(host.0.read(0)), host.ecam()), (0x29c0_8086, Some(0xe000_0000)));
        for (at, value, ecam) in [
            (0x60, 0u32, None),
            (0x64, u32::MAX, None),
            (0x60, 0xb000_0001, Some(0xb000_0000)),
            (0x60, u32::MAX, Some(0xf000_0000)),
        ] {
            let _ = host.write_config(at, &value.to_le_bytes(), &crate::NoMemory);
            assert_eq!(host.ecam(), ecam, "{at:#x} {value:#x}");
        }
        assert_eq!(host.0.read(0x64), [0; 4], "below 4 GiB");
    }

    #[test]
    fn the_lpc_bridge_says_where_the_power_management_block_is_and_keeps_it_there() {
        let mut lpc = LpcBridge::new(0x600);
        let _ = lpc.write_config(0x40, &[0xff; 4], &crate::NoMemory);
        assert_eq!(u32::from_le_bytes(lpc.0.read(0)), 0x2918_8086);
        assert_eq!(u32::from_le_bytes(lpc.0.read(0x40)), 0x601);
        assert_eq!(lpc.0.read(0x44)[0], 0x80);
        assert_eq!(lpc.0.read(8)[1..], [0, 1, 6]);
    }
}
