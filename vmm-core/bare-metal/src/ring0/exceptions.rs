//! Exceptions: those that an instruction here may raise go on behind it; any other ends the host, and says where.
//!
//! **Why this is sound.** The only `unsafe` is the declaration of two labels of `vectors.s`, of which the address is taken.
#![expect(unsafe_code)]

use tdx_module_iface::hw;
use x86_arch::vector;

use super::{area, cpu};

// SAFETY: labels inside code; they are never read.
unsafe extern "C" {
    static bare_metal_rdmsr_instruction: u8;
    static bare_metal_rdmsr_fault: u8;
}

/// Registers at an exception, in the order in which `vectors.s` and the processor push them.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Frame {
    general: [u64; 15],
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    flags: u64,
    rsp: u64,
    ss: u64,
}

const _: () = assert!(size_of::<Frame>() == 22 * 8);

/// Called by `vectors.s`.
pub(super) extern "C" fn exception(frame: &mut Frame) {
    if let Some(landing) = landing(frame.rip, frame.vector) {
        frame.rip = landing;
        return;
    }
    let processor = area::current();
    if frame.vector == u64::from(vector::PF) {
        let (at, stack) = (cpu::cr2(), area::AREAS.get(processor as usize).map(area::Area::guard));
        let what = if stack == Some(at & !0xfff) { "the stack overflowed" } else { "page fault" };
        panic!("processor {processor}: {what} at {at:#x}, error {:#x}, RIP {:#x}", frame.error, frame.rip);
    }
    panic!(
        "processor {processor}: exception {}, error {:#x}, RIP {:#x}, RSP {:#x}",
        frame.vector, frame.error, frame.rip, frame.rsp
    );
}

/// Where code goes on that expects its exception.
fn landing(rip: u64, exception: u64) -> Option<u64> {
    let exception = match u8::try_from(exception).ok()? {
        vector::UD => hw::Exception::UndefinedOpcode,
        vector::GP => hw::Exception::GeneralProtection,
        _ => return None,
    };
    if exception == hw::Exception::GeneralProtection
        && rip == (&raw const bare_metal_rdmsr_instruction).addr() as u64
    {
        return Some((&raw const bare_metal_rdmsr_fault).addr() as u64);
    }
    hw::fixup(rip, exception)
}
