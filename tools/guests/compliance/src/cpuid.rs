//! Virtual CPUID.

use crate::catch;
use crate::cpuid_table::{Columns, GATED, LEAVES, Leaf};
use crate::facts::{self, Facts, attributes};
use crate::tap::{Came, Mismatch, Tap};

const REGISTERS: [&str; 4] = ["EAX", "EBX", "ECX", "EDX"];
/// Exit reason of CPUID.
const CPUID: u64 = 10;

const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_PKE: u64 = 1 << 22;
/// State components.
const PT: u64 = 1 << 8;
const LBR: u64 = 1 << 15;
const AMX: u64 = 3 << 17;
/// Components that XCR0 may have; the others are of IA32_XSS.
const USER_STATE: u64 = 0x6_02E7;
/// Bytes of the XSAVE area before its components.
const XSAVE_LEGACY: u32 = 576;

/// Checks everything under every configuration that the guest can choose.
pub fn check(tap: &mut Tap, facts: &mut Facts) {
    leaves(tap, facts);
    beyond(tap);
    exceptions(tap);
    follows_cr4(tap, facts);
    if facts.has_topology && !facts.shows_topology() {
        let worked = facts.show_topology();
        tap.holds(format_args!("TD_CTLS.ENUM_TOPOLOGY is turned on"), worked && facts.shows_topology());
        leaves(tap, facts);
    }
}

fn values(leaf: u32, subleaf: u32) -> [u32; 4] {
    catch::cpuid(leaf, subleaf).unwrap_or_default()
}

fn leaves(tap: &mut Tap, facts: &Facts) {
    let topology = if facts.shows_topology() { "shown" } else { "hidden" };
    for entry in LEAVES {
        let subleaf = entry.subleaf.unwrap_or(0);
        let hidden = matches!(entry.leaf, 0xB | 0x1F) && !facts.shows_topology();
        let found = catch::cpuid(entry.leaf, subleaf);
        let columns = entry.registers.as_ref().filter(|_| !hidden);
        match (columns, found) {
            (Some(columns), Ok(values)) => {
                for (number, ((columns, value), name)) in
                    columns.iter().zip(values).zip(REGISTERS).enumerate()
                {
                    let wrong = wrong_bits(facts, entry, number, columns, &values);
                    let bits = Mismatch::Bits { found: value.into(), wrong: wrong.into() };
                    tap.result(
                        format_args!("CPUID {:#x}.{subleaf} {name}, topology {topology}", entry.leaf),
                        if wrong == 0 { Ok(()) } else { Err(bits) },
                    );
                }
            }
            (Some(_), Err(found)) => tap.result(
                format_args!("CPUID {:#x}.{subleaf}, topology {topology}", entry.leaf),
                Err(Mismatch::Came { found, expected: Came::Done }),
            ),
            (None, found) => raises(tap, entry.leaf, subleaf, found),
        }
    }
}

/// A leaf that raises #VE.
fn raises(tap: &mut Tap, leaf: u32, subleaf: u32, found: Result<[u32; 4], Came>) {
    let came = found.map_or_else(|came| came, |_| Came::Done);
    let right = came == Came::Exception && catch::reason() == CPUID;
    let mismatch = Mismatch::Came { found: came, expected: Came::Exception };
    tap.result(
        format_args!("CPUID {leaf:#x}.{subleaf} raises #VE"),
        if right { Ok(()) } else { Err(mismatch) },
    );
}

/// The bits of one register that are not what the table and the rules say.
fn wrong_bits(facts: &Facts, entry: &Leaf, register: usize, columns: &Columns, values: &[u32; 4]) -> u32 {
    let value = values[register];
    let subleaf = entry.subleaf.unwrap_or(0);
    let mut wrong = value & columns.zero | !value & columns.one;
    // What is not computed when CPUID is executed does not change.
    let lasting = columns.zero | columns.one | columns.chosen | columns.allowed | columns.native;
    wrong |= (value ^ self::values(entry.leaf, subleaf)[register]) & lasting;
    for gated in GATED.iter().filter(|gated| (gated.leaf, gated.subleaf) == (entry.leaf, subleaf)) {
        if facts.xfam >> gated.component & 1 == 0 {
            wrong |= value & gated.registers[register];
        }
    }
    if is_zero(facts, entry.leaf, subleaf) {
        wrong |= value;
    }
    for (mask, expected) in computed(facts, entry.leaf, subleaf, register) {
        wrong |= (value ^ expected) & mask;
    }
    wrong
}

/// Leaves of features that the TD does not have.
fn is_zero(facts: &Facts, leaf: u32, subleaf: u32) -> bool {
    match leaf {
        5 => values(1, 0)[2] & 1 << 3 == 0,
        0xA => !facts.has(attributes::PERFMON),
        0xD if subleaf >= 2 => facts.xfam >> subleaf & 1 == 0,
        0x14 => !facts.has_state(PT),
        0x19 => true,
        0x1A => facts.has(attributes::MIGRATABLE),
        0x1C => !facts.has_state(LBR),
        0x1D => !facts.has_state(AMX),
        0x23 => !facts.has(attributes::PERFMON) || values(7, 1)[0] & 1 << 8 == 0,
        _ => false,
    }
}

/// Bits that are computed: a mask, and their value. At most two rules a register.
fn computed(facts: &Facts, leaf: u32, subleaf: u32, register: usize) -> [(u32, u32); 2] {
    const NONE: (u32, u32) = (0, 0);
    let flag = |bit: u32, on: bool| (1 << bit, u32::from(on) << bit);
    let x2apic_id = || if facts.shows_topology() { values(0xB, 0)[3] } else { facts.vcpu_index as u32 };
    let cr4 = catch::cr4();
    match (leaf, subleaf, REGISTERS[register]) {
        (1, _, "EBX") => [(0xFF << 24, x2apic_id() << 24), NONE],
        (1, _, "ECX") => [flag(27, cr4 & CR4_OSXSAVE != 0), NONE],
        // HLE and RTM come together.
        (7, 0, "EBX") => {
            let ebx = values(7, 0)[1];
            [flag(4, ebx >> 11 & 1 != 0), NONE]
        }
        (7, 0, "ECX") => [flag(4, cr4 & CR4_PKE != 0), flag(31, facts.has(attributes::PKS))],
        (7, 1, "EAX") => [flag(6, facts.has(attributes::LASS)), NONE],
        (0xD, 0, "EAX") => [(u32::MAX, (facts.xfam & USER_STATE) as u32), NONE],
        (0xD, 0, "ECX") => [(u32::MAX, area_bytes(facts.xfam)), NONE],
        (0xD, 1, "EAX") if !facts.has_state(AMX) => [flag(4, false), NONE],
        (0x15, _, "EAX") => [(u32::MAX, 1), NONE],
        (0x15, _, "ECX") => [(u32::MAX, 25_000_000), NONE],
        (0xB | 0x1F, _, "EDX") => [(u32::MAX, x2apic_id()), NONE],
        // The first level of both leaves is the same; the second of leaf 0xB is always said to be the core.
        (0xB, 0, "EAX") => [(u32::MAX, values(0x1F, 0)[0]), NONE],
        (0xB, 0, "EBX") => [(u32::MAX, values(0x1F, 0)[1]), NONE],
        (0xB, 0, "ECX") => [(u32::MAX, values(0x1F, 0)[2]), NONE],
        (0xB, 1, "ECX") => [(0xFF00, 0x200), NONE],
        (0x8000_0001, _, "EDX") => [flag(11, true), NONE],
        (0x8000_0008, _, "EAX") => {
            let linear = if values(7, 0)[2] & 1 << 16 != 0 { 57 } else { 48 };
            [(0xFF00, linear << 8), NONE]
        }
        _ => [NONE; 2],
    }
}

/// Bytes of the standard XSAVE area for some components, by their own subleaves.
fn area_bytes(components: u64) -> u32 {
    (2..=18)
        .filter(|bit| components & USER_STATE & 1 << bit != 0)
        .map(|bit| {
            let [size, offset, ..] = values(0xD, bit);
            offset.saturating_add(size)
        })
        .fold(XSAVE_LEGACY, u32::max)
}

/// Leaves that are not in the table: within its range they raise #VE, beyond it leaf 0x23 answers.
fn beyond(tap: &mut Tap) {
    const LAST: u32 = 0x23;
    for leaf in [0x24, 0x100, 0x3FFF_FFFF, 0x5000_0000, 0x7FFF_FFFF, 0x8000_0009, 0xFFFF_FFFF] {
        let same = catch::cpuid(leaf, 0) == catch::cpuid(LAST, 0);
        tap.holds(format_args!("CPUID {leaf:#x} is answered as {LAST:#x}"), same);
    }
    let absent = [
        (2, 0),
        (9, 0),
        (0xC, 0),
        (0xF, 0),
        (0x10, 0),
        (0x16, 0),
        (0x18, 0),
        (0x1B, 0),
        (0x4000_0000, 0),
        (0x4FFF_FFFF, 0),
        (0x8000_0002, 0),
        (0x8000_0003, 0),
        (0x8000_0004, 0),
        (0x8000_0005, 0),
        (4, 5),
        (7, 3),
        (0xD, 19),
        (0xD, 0xFFFF_FFFF),
        (0x14, 2),
        (0x1D, 2),
        (0x21, 1),
        (0x23, 4),
    ];
    for (leaf, subleaf) in absent {
        raises(tap, leaf, subleaf, catch::cpuid(leaf, subleaf));
    }
    tap.holds(format_args!("CPUID 0 does not look at ECX"), values(0, 0) == values(0, 7));
}

/// CPUID_SUPERVISOR_VE, and CPUID_CONTROL of every entry.
fn exceptions(tap: &mut Tap) {
    let came = |entry: &Leaf| {
        catch::cpuid(entry.leaf, entry.subleaf.unwrap_or(0)).map_or_else(|came| came, |_| Came::Done)
    };
    tap.holds(format_args!("CPUID_SUPERVISOR_VE is set"), facts::set_supervisor_ve(true));
    let all = LEAVES.iter().all(|entry| came(entry) == Came::Exception);
    tap.holds(format_args!("CPUID_SUPERVISOR_VE: every leaf raises #VE"), all);
    tap.holds(format_args!("CPUID_SUPERVISOR_VE is cleared"), facts::set_supervisor_ve(false));
    for (number, entry) in LEAVES.iter().enumerate() {
        let before = came(entry);
        let set = facts::set_leaf_ve(number, true);
        let raised = came(entry) == Came::Exception;
        let other = &LEAVES[if number == 0 { 10 } else { 0 }];
        let only = came(other) == Came::Done;
        let cleared = facts::set_leaf_ve(number, false);
        let right = set && raised && only && cleared && came(entry) == before;
        tap.holds(
            format_args!(
                "CPUID_CONTROL[{number}]: {:#x}.{} raises #VE, and no other",
                entry.leaf,
                entry.subleaf.unwrap_or(0)
            ),
            right,
        );
    }
}

/// Bits that show what CR4 says.
fn follows_cr4(tap: &mut Tap, facts: &Facts) {
    let before = catch::cr4();
    for (name, bit, leaf, shown, has) in
        [("OSXSAVE", CR4_OSXSAVE, 1, 27, true), ("PKE", CR4_PKE, 7, 4, facts.has_state(1 << 9))]
    {
        if !has {
            continue;
        }
        for on in [true, false] {
            // SAFETY: neither bit changes what this code does.
            unsafe { catch::set_cr4(if on { before | bit } else { before & !bit }) };
            let seen = values(leaf, 0)[2] >> shown & 1 != 0;
            // SAFETY: the value that was there.
            unsafe { catch::set_cr4(before) };
            tap.holds(format_args!("CPUID {leaf:#x} ECX bit {shown} is CR4.{name}, {on}"), seen == on);
        }
    }
}
