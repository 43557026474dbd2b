//! How the host ends.

use tdvisor_bare_metal::acpi::{PowerOff, Register};
use tdvisor_bare_metal::ring0::cpu;
use tdvisor_bare_metal::ring0::port::Port;
use tdvisor_base::sync::{AtomicU32, Mutex, Ordering};

/// What the host says of its own run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// The TD ended well, and everything came back.
    Success = 0,
    /// The TD did not end well; the host did.
    TdFailed = 1,
    /// The command line or what the boot loader gave cannot be used.
    Usage = 2,
    /// The machine is no TDX host.
    NoTdx = 3,
    /// The host failed: the module refused, something did not come back, or a bug of ours.
    HostFailed = 4,
}

/// How the machine is switched off.
static HOW: Mutex<How> = Mutex::new(How { exit_port: None, power_off: None });
/// Ends under way: the second one stops.
static ENDS: AtomicU32 = AtomicU32::new(0);

struct How {
    exit_port: Option<u16>,
    power_off: Option<PowerOff>,
}

/// Writes down how the machine takes the host's status, and how it is switched off.
pub fn set_up(exit_port: Option<u16>, power_off: Option<PowerOff>) {
    *HOW.lock() = How { exit_port, power_off };
}

/// Whether this is the first end. A fault on the way to the end is not told of again.
pub fn is_first_end() -> bool {
    ENDS.fetch_add(1, Ordering::SeqCst) == 0
}

/// Ends: the status goes to the exit port, then the machine is switched off, or stands still.
pub fn end(status: Status) -> ! {
    let how = HOW.try_lock();
    if let Some(port) = how.as_ref().and_then(|how| how.exit_port) {
        port_at(port).write(status as u8);
    }
    if let Some(off) = how.as_ref().and_then(|how| how.power_off) {
        match off.register {
            Register::SleepControl { port } => port_at(port).write(off.value as u8),
            Register::Pm1aControl { port } => port_at(port).write_word(off.value),
        }
    }
    cpu::stop()
}

#[expect(
    unsafe_code,
    reason = "the ports are those that the command line and ACPI name for the machine's end"
)]
fn port_at(port: u16) -> Port {
    // SAFETY: the image runs in ring 0, and the machine is not used any more.
    unsafe { Port::claim(port) }
}
