//! Random numbers: RDRAND, which no host can make predictable.

use core::arch::asm;

/// Tries for one number (Intel's guide to the random number generator: ten).
const TRIES: u32 = 10;

/// Fills a buffer; false if the processor had no number.
pub fn fill(out: &mut [u8]) -> bool {
    out.chunks_mut(size_of::<u64>()).all(|part| match number() {
        Some(number) => {
            part.iter_mut().zip(number.to_le_bytes()).for_each(|(to, from)| *to = from);
            true
        }
        None => false,
    })
}

fn number() -> Option<u64> {
    (0..TRIES).find_map(|_| {
        let (number, ready): (u64, u8);
        // SAFETY: RDRAND writes its register and the flags.
        unsafe {
            asm!("rdrand {number}", "setc {ready}", number = out(reg) number, ready = out(reg_byte) ready,
                options(nomem, nostack));
        }
        (ready != 0).then_some(number)
    })
}
