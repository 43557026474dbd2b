//! What compiled code calls and a C library would bring. Linked, never run: plain byte loops will do.

use core::arch::asm;

/// As C's `memcpy`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    // SAFETY: C's contract for memcpy is that of REP MOVSB with the direction flag clear.
    unsafe { asm!("rep movsb", inout("rdi") to => _, inout("rsi") from => _, inout("rcx") length => _) };
    to
}

/// As C's `memmove`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    let overlaps_upwards = (to.addr()).wrapping_sub(from.addr()) < length;
    if !overlaps_upwards {
        // SAFETY: copying upwards is right unless the target begins inside the source.
        return unsafe { memcpy(to, from, length) };
    }
    for index in (0..length).rev() {
        // SAFETY: both ranges are valid for `length` bytes by memmove's contract.
        unsafe { to.add(index).write_volatile(from.add(index).read_volatile()) };
    }
    to
}

/// As C's `memset`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, length: usize) -> *mut u8 {
    // SAFETY: C's contract for memset is that of REP STOSB with the direction flag clear.
    unsafe { asm!("rep stosb", inout("rdi") to => _, inout("rcx") length => _, in("al") value as u8) };
    to
}

/// As C's `memcmp`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, length: usize) -> i32 {
    for index in 0..length {
        // SAFETY: both ranges are valid for `length` bytes by memcmp's contract.
        let (x, y) = unsafe { (a.add(index).read_volatile(), b.add(index).read_volatile()) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
    }
    0
}

/// As C's `bcmp`.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, length: usize) -> i32 {
    // SAFETY: bcmp's contract is memcmp's.
    unsafe { memcmp(a, b, length) }
}
