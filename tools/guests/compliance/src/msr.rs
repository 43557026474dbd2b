//! RDMSR and WRMSR.

use crate::catch;
use crate::facts::{Facts, attributes};
use crate::msr_table::{Access, Condition, ROWS, Row};
use crate::tap::{Came, Mismatch, Tap};

/// Exit reasons.
const RDMSR: u64 = 31;
const WRMSR: u64 = 32;

/// Registers with rules of their own.
mod index {
    pub const XAPIC_DISABLE_STATUS: u32 = 0xBD;
    pub const ARCH_CAPABILITIES: u32 = 0x10A;
    pub const MISC_ENABLE: u32 = 0x1A0;
    pub const DEBUGCTL: u32 = 0x1D9;
    pub const PERF_CAPABILITIES: u32 = 0x345;
    pub const X2APIC_ID: u32 = 0x802;
    pub const XSS: u32 = 0xDA0;
    pub const EFER: u32 = 0xC000_0080;
}

/// What an access may come to: a processor that lacks a register answers #GP where the module leaves it alone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Native,
    Only(Came),
}

impl Expected {
    fn allows(self, came: Came) -> bool {
        match self {
            Self::Native => matches!(came, Came::Done | Came::Fault),
            Self::Only(expected) => came == expected,
        }
    }

    fn came(self) -> Came {
        match self {
            Self::Native => Came::Done,
            Self::Only(came) => came,
        }
    }
}

/// Checks every register of the table, and all others.
pub fn check(tap: &mut Tap, facts: &Facts) {
    for row in ROWS {
        one_row(tap, facts, row);
    }
    others(tap);
    values(tap, facts);
    writes(tap, facts);
}

fn read(index: u32) -> Came {
    catch::rdmsr(index).map_or_else(|came| came, |_| Came::Done)
}

fn write(index: u32, value: u64) -> Came {
    // SAFETY: callers write what is there already, or what the register refuses, or a bit that matters to nobody here.
    unsafe { catch::wrmsr(index.into(), value) }
}

fn one_row(tap: &mut Tap, facts: &Facts, &(first, last, on_read, on_write): &Row) {
    if on_read != Access::Special {
        let found = (first..=last).try_for_each(|msr| judge(read(msr), RDMSR, expected(facts, msr, on_read)));
        tap.result(format_args!("RDMSR {first:#x} to {last:#x}"), found);
    }
    if on_write != Access::Special {
        let found = (first..=last).try_for_each(|msr| {
            // What is there already; a register that cannot be read gets zero.
            let same = catch::rdmsr(msr).unwrap_or(0);
            judge(write(msr, same), WRMSR, expected(facts, msr, on_write))
        });
        tap.result(format_args!("WRMSR {first:#x} to {last:#x}"), found);
    }
}

fn judge(found: Came, reason: u64, expected: Expected) -> Result<(), Mismatch> {
    if expected.allows(found) && (found != Came::Exception || catch::reason() == reason) {
        return Ok(());
    }
    Err(Mismatch::Came { found, expected: expected.came() })
}

fn expected(facts: &Facts, msr: u32, access: Access) -> Expected {
    match access {
        Access::Native | Access::WithElseSpecial(_) | Access::Special => Expected::Native,
        Access::Exception => Expected::Only(Came::Exception),
        Access::Fault => Expected::Only(Came::Fault),
        Access::With(condition) if holds(facts, condition) => Expected::Native,
        Access::With(_) => Expected::Only(Came::Fault),
        Access::Hidden => Expected::Only(if is_shown(msr) { Came::Exception } else { Came::Fault }),
    }
}

fn bit(leaf: u32, subleaf: u32, register: usize, bit: u32) -> bool {
    catch::cpuid(leaf, subleaf).unwrap_or_default()[register] >> bit & 1 != 0
}

fn holds(facts: &Facts, condition: Condition) -> bool {
    match condition {
        Condition::Perfmon | Condition::Metrics => facts.has(attributes::PERFMON),
        Condition::Umwait => bit(7, 0, 2, 5),
        Condition::Tsx => bit(7, 0, 1, 4),
        Condition::Xfd => bit(0xD, 1, 0, 4),
        Condition::Pks => facts.has(attributes::PKS),
        Condition::Pt => facts.has_state(1 << 8),
        Condition::Cet => facts.has_state(3 << 11),
        Condition::Uli => facts.has_state(1 << 14),
        Condition::Lbr => facts.has_state(1 << 15),
    }
}

/// Whether CPUID shows the feature of a register that is otherwise as if it did not exist.
fn is_shown(msr: u32) -> bool {
    match msr {
        0x1F8..=0x1FA => bit(1, 0, 2, 18),
        0x981..=0x984 => bit(7, 0, 2, 13),
        0x87 => bit(7, 0, 3, 18),
        0x6E0 => bit(1, 0, 2, 24),
        _ => false,
    }
}

/// Registers that are not in the table.
fn others(tap: &mut Tap) {
    const WINDOW: u32 = 0x800;
    let is_listed = |msr: u32| ROWS.iter().any(|(first, last, ..)| (*first..=*last).contains(&msr));
    let starts = (0..4).flat_map(|window| [window * WINDOW, 0xC000_0000 + window * WINDOW]);
    for first in starts {
        let last = first + (WINDOW - 1);
        let mut unlisted = (first..=last).filter(|msr| !is_listed(*msr));
        let reads =
            unlisted.clone().try_for_each(|msr| judge(read(msr), RDMSR, Expected::Only(Came::Exception)));
        tap.result(
            format_args!("RDMSR of what is not listed from {first:#x} to {last:#x} raises #VE"),
            reads,
        );
        let writes =
            unlisted.try_for_each(|msr| judge(write(msr, 0), WRMSR, Expected::Only(Came::Exception)));
        tap.result(
            format_args!("WRMSR of what is not listed from {first:#x} to {last:#x} raises #VE"),
            writes,
        );
    }
    for msr in [0x2000, 0x4000_0000, 0xBFFF_FFFF, 0xC000_2000, 0xFFFF_FFFF] {
        tap.result(
            format_args!("RDMSR {msr:#x} raises #VE"),
            judge(read(msr), RDMSR, Expected::Only(Came::Exception)),
        );
        let written = judge(write(msr, 0), WRMSR, Expected::Only(Came::Exception));
        tap.result(format_args!("WRMSR {msr:#x} raises #VE"), written);
    }
}

/// Values that the module gives.
fn values(tap: &mut Tap, facts: &Facts) {
    /// IA32_ARCH_CAPABILITIES: bits that are never seen, and the one that always is.
    const NEVER: u64 = 7 << 9 | 7 << 16 | 3 << 22 | u64::MAX << 25;
    const XAPIC_DISABLE: u64 = 1 << 21;
    const TSX_CTRL: u64 = 1 << 7;
    const PERFMON_AVAILABLE: u64 = 1 << 7;
    const PEBS_UNAVAILABLE: u64 = 1 << 12;
    let perfmon = facts.has(attributes::PERFMON);
    let tsx = holds(facts, Condition::Tsx);
    let zero = |on: bool, bits: u64| if on { 0 } else { bits };
    let rules = [
        (index::XAPIC_DISABLE_STATUS, u64::MAX, 1),
        (index::ARCH_CAPABILITIES, NEVER | XAPIC_DISABLE | zero(tsx, TSX_CTRL), XAPIC_DISABLE),
        (index::MISC_ENABLE, zero(perfmon, PERFMON_AVAILABLE | PEBS_UNAVAILABLE), PEBS_UNAVAILABLE),
        (index::PERF_CAPABILITIES, zero(perfmon, u64::MAX), 0),
    ];
    for (msr, mask, value) in rules {
        let found = match catch::rdmsr(msr) {
            Ok(found) if (found ^ value) & mask == 0 => Ok(()),
            Ok(found) => Err(Mismatch::Bits { found, wrong: (found ^ value) & mask }),
            Err(found) => Err(Mismatch::Came { found, expected: Came::Done }),
        };
        tap.result(format_args!("the value of MSR {msr:#x}"), found);
    }
    for msr in (0x480..=0x492).filter(|msr| !matches!(msr, 0x481..=0x484 | 0x48A)) {
        tap.result(format_args!("RDMSR {msr:#x}"), judge(read(msr), RDMSR, Expected::Only(Came::Done)));
    }
    if facts.shows_topology() {
        let id = catch::cpuid(0xB, 0).map(|[.., edx]| u64::from(edx));
        tap.holds(format_args!("the x2APIC id is that of CPUID"), catch::rdmsr(index::X2APIC_ID) == id);
    } else {
        let found = judge(read(index::X2APIC_ID), RDMSR, Expected::Only(Came::Exception));
        tap.result(format_args!("RDMSR of the x2APIC id raises #VE"), found);
    }
}

/// Writes that the module looks at.
fn writes(tap: &mut Tap, facts: &Facts) {
    const SCE: u64 = 1;
    const NXE: u64 = 1 << 11;
    let perfmon = facts.has(attributes::PERFMON);
    let unless = |has: bool| if has { Came::Done } else { Came::Fault };
    let debugctl = catch::rdmsr(index::DEBUGCTL).unwrap_or(0);
    for (value, expected) in [
        (0, Came::Done),
        (1 << 3, Came::Fault),
        (1 << 16, Came::Fault),
        (1 << 63, Came::Fault),
        (1 << 6, Came::Exception),
        (1 << 14, unless(perfmon)),
        (1 << 15, unless(holds(facts, Condition::Tsx))),
    ] {
        let found = judge(write(index::DEBUGCTL, value), WRMSR, Expected::Only(expected));
        tap.result(format_args!("WRMSR of {value:#x} to IA32_DEBUGCTL"), found);
    }
    let _ = write(index::DEBUGCTL, debugctl);
    for bit in 0..64 {
        let has =
            facts.xfam >> bit & 1 != 0 && catch::cpuid(0xD, 1).unwrap_or_default()[2] >> bit.min(31) & 1 != 0;
        let found = judge(write(index::XSS, 1 << bit), WRMSR, Expected::Only(unless(has && bit < 32)));
        tap.result(format_args!("WRMSR of bit {bit} to IA32_XSS"), found);
        let _ = write(index::XSS, 0);
    }
    let efer = catch::rdmsr(index::EFER).unwrap_or(0);
    for (what, value, expected) in [
        ("as it is", efer, Came::Done),
        ("with SCE changed", efer ^ SCE, Came::Done),
        ("with NXE changed", efer ^ NXE, Came::Exception),
        ("with a reserved bit", efer | 1 << 40, Came::Exception),
    ] {
        let found = judge(write(index::EFER, value), WRMSR, Expected::Only(expected));
        tap.result(format_args!("WRMSR of IA32_EFER {what}"), found);
        let _ = write(index::EFER, efer);
    }
}
