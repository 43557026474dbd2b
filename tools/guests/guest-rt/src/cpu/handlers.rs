//! What happens at an exception: #VE is answered, #PF may map demand memory, anything else ends the TD with a
//! message.

use tdx_guest::{TdxVirtualExceptionType, get_veinfo, handle_virtual_exception};
use x86_64::registers::control::Cr2;

use super::Frame;
use super::idt::vector;
use crate::{exit, paging, td};

#[unsafe(no_mangle)]
extern "C" fn rt_exception(frame: &mut Frame) {
    match frame.vector {
        vector::VIRTUALISATION => virtualisation_exception(frame),
        vector::PAGE_FAULT => {
            let address = Cr2::read().as_u64();
            if !paging::handle_page_fault(address, frame.error) {
                exit::die(format_args!(
                    "#PF at {address:#x}, error {:#x}, RIP {:#x}",
                    frame.error, frame.rip
                ));
            }
        }
        other => exit::die(format_args!("exception {other}, error {:#x}, RIP {:#x}", frame.error, frame.rip)),
    }
}

/// A second #VE before VEINFO.GET would be a double fault, so that call comes first.
fn virtualisation_exception(frame: &mut Frame) {
    let info = match get_veinfo() {
        Ok(info) => info,
        Err(error) => exit::die(format_args!("#VE without information: {error:?}")),
    };
    if let TdxVirtualExceptionType::EptViolation = info.exit_reason.into() {
        // These guests touch no MMIO, and `tdx-guest` knows only a 52-bit GPA space, so every such #VE is an error.
        let gpa = info.guest_physical_address;
        let kind = if gpa & td::shared_bit() == 0 { "unaccepted private" } else { "shared" };
        exit::die(format_args!("#VE: {kind} GPA {gpa:#x}, RIP {:#x}", frame.rip));
    }
    handle_virtual_exception(frame, &info);
}
