//! Single machine accesses to memory that other threads race on, with x86 ordering.
//!
//! Each function is one instruction (or one REP instruction). The compiler sees an opaque access to
//! memory: it neither tears, merges nor reorders it, and the race is not one in Rust's memory model.

use core::arch::asm;

use tdvisor_base::Hpa;

mod sealed {
    pub trait Sealed {}
    impl Sealed for u8 {}
    impl Sealed for u16 {}
    impl Sealed for u32 {}
    impl Sealed for u64 {}
    impl Sealed for u128 {}
}

/// A size that one load or store instruction can move; 16 bytes move as two halves.
pub trait Word: Copy + Eq + sealed::Sealed + 'static {
    /// All bits clear.
    const ZERO: Self;

    /// Reads from `at`.
    ///
    /// # Safety
    /// `at` and the bytes after it up to this size must be inside one live chunk.
    #[doc(hidden)]
    unsafe fn load(at: *const u8) -> Self;

    /// Writes to `at`.
    ///
    /// # Safety
    /// As for `load`, and the chunk must be owned by the writing arena.
    #[doc(hidden)]
    unsafe fn store(at: *mut u8, value: Self);

    /// What a reader without the right key sees at `hpa`.
    #[doc(hidden)]
    fn pattern(hpa: Hpa) -> Self;
}

/// A size that LOCK CMPXCHG can move.
pub trait Atomic: Word {
    /// LOCK CMPXCHG; gives the value found and whether it was replaced.
    ///
    /// # Safety
    /// As for `store`; 16-byte words must be aligned.
    #[doc(hidden)]
    unsafe fn compare_exchange(at: *mut u8, current: Self, new: Self) -> (Self, bool);
}

macro_rules! word {
    ($type:ty, $class:ident, $accumulator:tt, $load:literal, $store:literal, $cmpxchg:literal) => {
        impl Word for $type {
            const ZERO: Self = 0;

            #[inline(always)]
            unsafe fn load(at: *const u8) -> Self {
                let value: $type;
                // SAFETY: the caller vouches for the address; one load.
                unsafe {
                    asm!($load, value = out($class) value, at = in(reg) at,
                         options(nostack, preserves_flags, readonly));
                }
                value
            }

            #[inline(always)]
            unsafe fn store(at: *mut u8, value: Self) {
                // SAFETY: the caller vouches for the address; one store.
                unsafe {
                    asm!($store, value = in($class) value, at = in(reg) at,
                         options(nostack, preserves_flags));
                }
            }

            fn pattern(hpa: Hpa) -> Self {
                let mut bytes = [0u8; size_of::<Self>()];
                fill_pattern(hpa, &mut bytes);
                Self::from_le_bytes(bytes)
            }
        }

        impl Atomic for $type {
            #[inline(always)]
            unsafe fn compare_exchange(at: *mut u8, current: Self, new: Self) -> (Self, bool) {
                let found: $type;
                // SAFETY: the caller vouches for the address; one locked instruction.
                unsafe {
                    asm!($cmpxchg, new = in($class) new, at = in(reg) at,
                         inout($accumulator) current => found, options(nostack));
                }
                (found, found == current)
            }
        }
    };
}

word!(
    u8,
    reg_byte,
    "al",
    "mov {value}, byte ptr [{at}]",
    "mov byte ptr [{at}], {value}",
    "lock cmpxchg byte ptr [{at}], {new}"
);
word!(
    u16,
    reg,
    "ax",
    "mov {value:x}, word ptr [{at}]",
    "mov word ptr [{at}], {value:x}",
    "lock cmpxchg word ptr [{at}], {new:x}"
);
word!(
    u32,
    reg,
    "eax",
    "mov {value:e}, dword ptr [{at}]",
    "mov dword ptr [{at}], {value:e}",
    "lock cmpxchg dword ptr [{at}], {new:e}"
);
word!(
    u64,
    reg,
    "rax",
    "mov {value:r}, qword ptr [{at}]",
    "mov qword ptr [{at}], {value:r}",
    "lock cmpxchg qword ptr [{at}], {new:r}"
);

impl Word for u128 {
    const ZERO: Self = 0;

    #[inline(always)]
    unsafe fn load(at: *const u8) -> Self {
        // SAFETY: the caller vouches for all 16 bytes.
        let (low, high) = unsafe { (u64::load(at), u64::load(at.wrapping_add(8))) };
        u128::from(low) | u128::from(high) << 64
    }

    #[inline(always)]
    unsafe fn store(at: *mut u8, value: Self) {
        // SAFETY: the caller vouches for all 16 bytes.
        unsafe {
            u64::store(at, value as u64);
            u64::store(at.wrapping_add(8), (value >> 64) as u64);
        }
    }

    fn pattern(hpa: Hpa) -> Self {
        let mut bytes = [0u8; 16];
        fill_pattern(hpa, &mut bytes);
        Self::from_le_bytes(bytes)
    }
}

impl Atomic for u128 {
    #[inline]
    unsafe fn compare_exchange(at: *mut u8, current: Self, new: Self) -> (Self, bool) {
        let (low, high): (u64, u64);
        // SAFETY: the caller vouches for the address and its alignment. RBX is reserved by the compiler,
        // so it is swapped in and back around the instruction; the address is pinned to RDI, which is
        // neither RBX nor an operand of CMPXCHG16B.
        unsafe {
            asm!(
                "xchg rsi, rbx",
                "lock cmpxchg16b [rdi]",
                "mov rbx, rsi",
                in("rdi") at,
                inout("rsi") new as u64 => _,
                in("rcx") (new >> 64) as u64,
                inout("rax") current as u64 => low,
                inout("rdx") (current >> 64) as u64 => high,
                options(nostack),
            );
        }
        let found = u128::from(low) | u128::from(high) << 64;
        (found, found == current)
    }
}

/// Copies from shared memory into a private buffer. What is as long as a word and aligned like one is one load:
/// REP MOVSB may take its bytes one by one, and a ring's index that is read in two halves is neither old nor new.
///
/// # Safety
/// `from` and `to.len()` bytes after it must be inside one live chunk.
pub(super) unsafe fn copy_out(from: *const u8, to: &mut [u8]) {
    // SAFETY: the caller vouches for the source; the target is a Rust slice.
    unsafe {
        match (to.len(), from.addr()) {
            (2, at) if at % 2 == 0 => to.copy_from_slice(&u16::load(from).to_le_bytes()),
            (4, at) if at % 4 == 0 => to.copy_from_slice(&u32::load(from).to_le_bytes()),
            (8, at) if at % 8 == 0 => to.copy_from_slice(&u64::load(from).to_le_bytes()),
            (bytes, _) => copy(from, to.as_mut_ptr(), bytes),
        }
    }
}

/// Copies from a private buffer into shared memory. What is as long as a word and aligned like one is one store, for
/// the reason given at [`copy_out`].
///
/// # Safety
/// `to` and `from.len()` bytes after it must be inside one chunk owned by the writing arena.
pub(super) unsafe fn copy_in(to: *mut u8, from: &[u8]) {
    // SAFETY: the caller vouches for the target; the source is a Rust slice.
    unsafe {
        match (from, to.addr()) {
            (&[a, b], at) if at % 2 == 0 => u16::store(to, u16::from_le_bytes([a, b])),
            (&[a, b, c, d], at) if at % 4 == 0 => u32::store(to, u32::from_le_bytes([a, b, c, d])),
            (&[a, b, c, d, e, f, g, h], at) if at % 8 == 0 => {
                u64::store(to, u64::from_le_bytes([a, b, c, d, e, f, g, h]));
            }
            _ => copy(from.as_ptr(), to, from.len()),
        }
    }
}

/// REP MOVSB.
///
/// # Safety
/// Both ranges must be valid for `bytes` bytes and must not overlap.
pub(super) unsafe fn copy(from: *const u8, to: *mut u8, bytes: usize) {
    // SAFETY: the caller vouches for both ranges; the direction flag is clear by the calling convention.
    unsafe {
        asm!("rep movsb", inout("rsi") from => _, inout("rdi") to => _, inout("rcx") bytes => _,
             options(nostack, preserves_flags));
    }
}

/// REP STOSB of zero.
///
/// # Safety
/// `to` must be valid for `bytes` bytes of a chunk owned by the writing arena.
pub(super) unsafe fn zero(to: *mut u8, bytes: usize) {
    // SAFETY: the caller vouches for the range; the direction flag is clear by the calling convention.
    unsafe {
        asm!("rep stosb", inout("rdi") to => _, inout("rcx") bytes => _, in("al") 0u8,
             options(nostack, preserves_flags));
    }
}

/// What a reader without the right key sees: a function of the address alone.
pub(super) fn fill_pattern(hpa: Hpa, out: &mut [u8]) {
    for (offset, byte) in (0u64..).zip(out) {
        let at = hpa.get().wrapping_add(offset);
        let mixed = (at / 8).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let mixed = (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        *byte = (mixed >> (8 * (at % 8))) as u8;
    }
}
