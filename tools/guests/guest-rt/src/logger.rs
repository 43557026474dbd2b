//! defmt frames on COM2, in the default encoding (rzCOBS: a zero byte ends each frame).
//!
//! One frame is built at a time; the lock is held from `acquire` to `release`. Exception handlers do not log.

use core::cell::UnsafeCell;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use defmt::Encoder;
use tdx_guest::tdvmcall::{IoSize, io_write};

const COM2: u16 = 0x2F8;

#[defmt::global_logger]
struct Com2Logger;

struct Channel {
    held: AtomicBool,
    encoder: UnsafeCell<Encoder>,
}

// SAFETY: the encoder is used only between `acquire` and `release`, and `held` lets one vCPU at a time be there.
unsafe impl Sync for Channel {}

static CHANNEL: Channel = Channel { held: AtomicBool::new(false), encoder: UnsafeCell::new(Encoder::new()) };
static SEQUENCE: AtomicU32 = AtomicU32::new(0);

// The guests have no clock that they trust; the number of the frame orders them.
defmt::timestamp!("{=u32}", SEQUENCE.fetch_add(1, Ordering::Relaxed));

fn send(bytes: &[u8]) {
    for byte in bytes {
        // A host without COM2 loses the log, not the guest.
        let _ = io_write(IoSize::Size1, COM2, u32::from(*byte));
    }
}

// SAFETY: `acquire` waits for the lock and `release` frees it; interrupts are off and handlers do not log, so a
// vCPU never meets its own lock.
unsafe impl defmt::Logger for Com2Logger {
    fn acquire() {
        while CHANNEL.held.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            spin_loop();
        }
        // SAFETY: this vCPU holds the lock.
        unsafe { (*CHANNEL.encoder.get()).start_frame(send) };
    }

    unsafe fn flush() {}

    unsafe fn release() {
        // SAFETY: defmt calls this only after `acquire`, so this vCPU holds the lock.
        unsafe { (*CHANNEL.encoder.get()).end_frame(send) };
        CHANNEL.held.store(false, Ordering::Release);
    }

    unsafe fn write(bytes: &[u8]) {
        // SAFETY: defmt calls this only between `acquire` and `release`.
        unsafe { (*CHANNEL.encoder.get()).write(bytes, send) };
    }
}
