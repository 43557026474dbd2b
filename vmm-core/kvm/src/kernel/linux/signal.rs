//! The signal that makes a thread leave KVM_RUN.

use std::ptr;
use std::sync::OnceLock;

use crate::error::Errno;

/// Nothing: the signal is there to interrupt a system call.
extern "C" fn nothing(_signal: libc::c_int) {}

/// Makes the signal harmless.
pub(super) fn prepare() -> Result<(), Errno> {
    static PREPARED: OnceLock<Result<(), i32>> = OnceLock::new();
    PREPARED
        .get_or_init(|| {
            // SAFETY: zeros are a valid value of this plain structure.
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            // A system call that it interrupts is not restarted: no SA_RESTART.
            action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
            // SAFETY: the handler is a function that does nothing, which may be done at any time; the structure is a local.
            match unsafe { libc::sigaction(number(), &raw const action, ptr::null_mut()) } {
                0 => Ok(()),
                _ => Err(super::last().0),
            }
        })
        .map_err(Errno)
}

/// The first that the C library leaves to programs.
fn number() -> libc::c_int {
    libc::SIGRTMIN()
}

/// The number of the calling thread.
pub(super) fn this_thread() -> i32 {
    // SAFETY: has no arguments and always succeeds.
    unsafe { libc::gettid() }
}

/// Interrupts a thread of this process. One that is gone is not there to be interrupted.
pub(super) fn send(thread: i32) {
    // SAFETY: no address is involved. The kernel looks for the thread in this process only, where the signal's handler does
    // nothing, so a number that was given to another thread meanwhile does no harm.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, number()) };
}
