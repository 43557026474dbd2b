//! The LPC bridge of Q35, as far as firmware sets it up: the power-management block goes where the ACPI tables say it is.
//!
//! A bridge whose block is there already ignores this; QEMU's has it nowhere until firmware says so.

use tdvisor_board::address;
use tdvisor_board::pm::{ACPI_CONTROL, ACPI_ENABLE, PMBASE, PMBASE_IO};
use tdx_guest::tdvmcall::{IoSize, io_write};

/// Puts the power-management block at [`address::PM`].
pub fn place_power_management() {
    write(PMBASE, u32::from(address::PM) | PMBASE_IO);
    write(ACPI_CONTROL, ACPI_ENABLE);
}

/// Writes four bytes of the bridge's configuration. A host without such a bridge takes them nowhere.
fn write(register: u8, value: u32) {
    const ENABLE: u32 = 1 << 31;
    const DATA: u16 = address::PCI_CONFIG + 4;
    let place = ENABLE | u32::from(address::LPC_DEVICE) << 11 | u32::from(register);
    let _ = io_write(IoSize::Size4, address::PCI_CONFIG, place);
    let _ = io_write(IoSize::Size4, DATA, value);
}
