//! CR0, CR4 and XCR0: every bit, changed alone.

use crate::catch;
use crate::facts::{Facts, attributes};
use crate::tap::{Came, Mismatch, Tap};

/// IA32_VMX_CR4_FIXED1, as the module shows it: the processor's without what it keeps.
const VMX_CR4_FIXED1: u32 = 0x489;

const CR4_OSXSAVE: u64 = 1 << 18;

/// Checks every bit of the three registers.
pub fn check(tap: &mut Tap, facts: &Facts) {
    cr0(tap);
    cr4(tap, facts);
    xcr0(tap, facts);
}

fn judge(found: Came, expected: Came) -> Result<(), Mismatch> {
    if found == expected { Ok(()) } else { Err(Mismatch::Came { found, expected }) }
}

/// What becomes of a bit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The bit is changed.
    Changed,
    /// The write is carried out, and the bit stays.
    Kept,
    /// The write raises this.
    Raised(Came),
}

fn cr0(tap: &mut Tap) {
    for bit in 0..64u32 {
        let before = catch::cr0();
        let fate = match bit {
            // MP, EM, TS, WP, AM.
            1..=3 | 16 | 18 => Fate::Changed,
            // ET, and what does not exist.
            4 | 6..=15 | 17 | 19..=28 => Fate::Kept,
            // PE, NE and PG cannot be cleared; nothing is above 31.
            0 | 5 | 31 | 32..=63 => Fate::Raised(Came::Fault),
            // NW, CD.
            _ => Fate::Raised(Came::Exception),
        };
        // SAFETY: between the two writes nothing is executed that floats, writes to read-only memory or is unaligned.
        let found = unsafe { catch::try_cr0(before ^ 1 << bit) };
        one(tap, "CR0", bit, before, fate, found);
    }
}

fn one(tap: &mut Tap, name: &str, bit: u32, before: u64, fate: Fate, (came, between): (Came, u64)) {
    let expected = match fate {
        Fate::Raised(came) => came,
        Fate::Changed | Fate::Kept => Came::Done,
    };
    let value = if fate == Fate::Changed { before ^ 1 << bit } else { before };
    let found = match judge(came, expected) {
        Ok(()) if between != value => Err(Mismatch::Bits { found: between, wrong: between ^ value }),
        other => other,
    };
    tap.result(format_args!("{name} bit {bit}"), found);
}

fn cr4(tap: &mut Tap, facts: &Facts) {
    /// PAE and LA57 do not change in 64-bit mode.
    const FIXED_IN_LONG_MODE: u64 = 1 << 5 | 1 << 12;
    const MCE: u32 = 6;
    const VMXE: u32 = 13;
    const SMXE: u32 = 14;
    let allowed = catch::rdmsr(VMX_CR4_FIXED1).unwrap_or(0);
    let refused = |bit: u32| match bit {
        19 => true,
        22 => !facts.has_state(1 << 9),
        23 => !facts.has_state(3 << 11),
        24 => !facts.has(attributes::PKS),
        25 => !facts.has_state(1 << 14),
        27 => !facts.has(attributes::LASS),
        15 | 26 | 29..=31 | 33..=63 => true,
        _ => false,
    };
    for bit in 0..64u32 {
        let before = catch::cr4();
        let fate = match bit {
            MCE | VMXE => Fate::Raised(Came::Exception),
            _ if refused(bit) || FIXED_IN_LONG_MODE >> bit & 1 != 0 => Fate::Raised(Came::Fault),
            // The module's own, if the processor has it.
            SMXE => Fate::Raised(Came::Exception),
            _ if allowed >> bit & 1 == 0 => Fate::Raised(Came::Fault),
            _ => Fate::Changed,
        };
        // SAFETY: between the two writes nothing is executed that floats, reads the time or enters user mode.
        let found = unsafe { catch::try_cr4(before ^ 1 << bit) };
        one(tap, "CR4", bit, before, fate, found);
    }
}

fn xcr0(tap: &mut Tap, facts: &Facts) {
    let cr4 = catch::cr4();
    // SAFETY: lets XSETBV be executed, and changes nothing else.
    unsafe { catch::set_cr4(cr4 | CR4_OSXSAVE) };
    let before = catch::xcr0();
    let states = catch::cpuid(0xD, 0).map_or(0, |[eax, .., edx]| u64::from(eax) | u64::from(edx) << 32);
    tap.holds(format_args!("CPUID 0xd.0 shows states of XFAM alone"), states & !facts.xfam == 0);
    for bit in 0..64u32 {
        let value = before ^ 1 << bit;
        let expected = if is_valid(value, states) { Came::Done } else { Came::Fault };
        // SAFETY: nothing that is compiled here uses state that may be off in between.
        let found = unsafe { catch::xsetbv(0, value) };
        let between = catch::xcr0();
        // SAFETY: the value that was there.
        let _ = unsafe { catch::xsetbv(0, before) };
        let right = judge(found, expected);
        let wanted = if expected == Came::Done { value } else { before };
        let bits = Mismatch::Bits { found: between, wrong: between ^ wanted };
        tap.result(
            format_args!("XCR0 bit {bit}"),
            right.and(if between == wanted { Ok(()) } else { Err(bits) }),
        );
    }
    // SAFETY: refused.
    let other = unsafe { catch::xsetbv(1, 1) };
    tap.result(format_args!("XSETBV of another register than XCR0"), judge(other, Came::Fault));
    // SAFETY: the value that was there.
    unsafe { catch::set_cr4(cr4) };
}

/// Whether XCR0 may have a value, where it may have these bits.
fn is_valid(value: u64, states: u64) -> bool {
    const X87: u64 = 1;
    const SSE: u64 = 1 << 1;
    const AVX: u64 = 1 << 2;
    const AVX512: u64 = 7 << 5;
    const AMX: u64 = 3 << 17;
    let all_or_none = |bits: u64| value & bits == 0 || value & bits == bits;
    value & !states == 0
        && value & X87 != 0
        && value & (SSE | AVX) != AVX
        && all_or_none(AVX512)
        && all_or_none(AMX)
        && (value & AVX512 == 0 || value & AVX != 0)
}
