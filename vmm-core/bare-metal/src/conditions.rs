//! What a processor must have before it can be a TDX host, looked at in order: the first that is missing is the answer.
//!
//! | asked | sources |
//! |---|---|
//! | CPUID | SDM volume 2, CPUID |
//! | IA32_FEATURE_CONTROL, VMX | SDM volume 3, "Enabling and entering VMX operation" |
//! | key ids, memory encryption, the module's range | Intel TDX Module Base Architecture Specification, "Enumeration" |

use core::fmt;

use td_host::platform::PrivateKeyIds;
use tdvisor_base::KeyId;
use x86::msr::{IA32_FEATURE_CONTROL, IA32_MTRRCAP};
use x86_arch::cpuid::{Feature, feature, leaf};

/// A processor as it describes itself.
pub trait Identity {
    /// EAX, EBX, ECX, EDX of a leaf.
    fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4];

    /// An MSR; `None` where reading it is #GP.
    fn msr(&self, index: u32) -> Option<u64>;
}

/// How many key ids are shared, and how many are private; the `x86` crate has no number for it.
const IA32_MKTME_KEYID_PARTITIONING: u32 = 0x87;
/// Memory encryption; the `x86` crate has no number for it.
const IA32_TME_ACTIVATE: u32 = 0x982;
/// The range of the module's memory; the `x86` crate has no number for it.
const IA32_SEAMRR_PHYS_MASK: u32 = 0x1401;

/// What a TDX host has to know of its processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TdxFacts {
    /// Private key ids.
    pub key_ids: PrivateKeyIds,
    /// The lowest address bit that names a key.
    pub key_id_shift: u32,
    /// Ticks of the time-stamp counter per second.
    pub tsc_hz: u64,
}

/// The condition that a processor does not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// CPUID.1:ECX\[5\].
    Vmx,
    /// IA32_FEATURE_CONTROL is locked, and VMX outside of SMX is off.
    VmxLockedOff,
    /// CPUID.1:ECX\[21\].
    X2Apic,
    /// CPUID.1:ECX\[24\].
    TscDeadline,
    /// CPUID.1:EDX\[27\].
    SelfSnoop,
    /// CPUID.7:ECX\[28\].
    Movdir64b,
    /// CPUID.7:ECX\[13\].
    MemoryEncryption,
    /// IA32_TME_ACTIVATE: not locked and enabled.
    MemoryEncryptionOff,
    /// IA32_MKTME_KEYID_PARTITIONING does not exist.
    KeyIds,
    /// IA32_MKTME_KEYID_PARTITIONING: so many private key ids; the module needs one, and each TD another.
    TooFewKeyIds(u32),
    /// IA32_MKTME_KEYID_PARTITIONING: key ids of more than sixteen bits.
    KeyIdsTooLarge,
    /// IA32_MTRRCAP\[15\].
    SeamRange,
    /// IA32_SEAMRR_PHYS_MASK: not locked and enabled.
    SeamRangeOff,
    /// CPUID.15H and 16H give no frequency.
    TscFrequency,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vmx => "the processor has no VMX (CPUID.1:ECX[5])",
            Self::VmxLockedOff => "firmware locked VMX off (IA32_FEATURE_CONTROL, MSR 0x3a)",
            Self::X2Apic => "the processor has no x2APIC (CPUID.1:ECX[21])",
            Self::TscDeadline => "the local APIC's timer has no TSC deadline (CPUID.1:ECX[24])",
            Self::SelfSnoop => "the processor does not snoop itself (CPUID.1:EDX[27])",
            Self::Movdir64b => "the processor has no MOVDIR64B (CPUID.7:ECX[28])",
            Self::MemoryEncryption => "the processor has no memory encryption (CPUID.7:ECX[13])",
            Self::MemoryEncryptionOff => {
                "firmware did not turn memory encryption on (IA32_TME_ACTIVATE, MSR 0x982)"
            }
            Self::KeyIds => {
                "the processor has no private key ids (IA32_MKTME_KEYID_PARTITIONING, MSR 0x87, does not exist)"
            }
            Self::TooFewKeyIds(count) => {
                return write!(
                    f,
                    "firmware set {count} private key ids aside, two are needed (IA32_MKTME_KEYID_PARTITIONING, MSR 0x87)"
                );
            }
            Self::KeyIdsTooLarge => {
                "key ids have more than sixteen bits (IA32_MKTME_KEYID_PARTITIONING, MSR 0x87)"
            }
            Self::SeamRange => "the processor has no SEAM range (IA32_MTRRCAP[15], MSR 0xfe)",
            Self::SeamRangeOff => {
                "firmware did not enable the SEAM range (IA32_SEAMRR_PHYS_MASK, MSR 0x1401)"
            }
            Self::TscFrequency => "the TSC's frequency is unknown (CPUID.15H and 16H)",
        })
    }
}

/// Looks at everything, in order.
///
/// # Errors
/// The first condition that is [`Missing`].
pub fn check(processor: &impl Identity) -> Result<TdxFacts, Missing> {
    let require = |feature, missing| if offers(processor, feature) { Ok(()) } else { Err(missing) };

    require(feature::VMX, Missing::Vmx)?;
    if !vmx_can_be_enabled(processor.msr(IA32_FEATURE_CONTROL)) {
        return Err(Missing::VmxLockedOff);
    }
    require(feature::X2APIC, Missing::X2Apic)?;
    require(feature::TSC_DEADLINE, Missing::TscDeadline)?;
    require(feature::SELF_SNOOP, Missing::SelfSnoop)?;
    require(feature::MOVDIR64B, Missing::Movdir64b)?;
    require(feature::TME, Missing::MemoryEncryption)?;

    const LOCKED_AND_ENABLED: u64 = 0b11;
    let encryption = processor.msr(IA32_TME_ACTIVATE).unwrap_or_default();
    if encryption & LOCKED_AND_ENABLED != LOCKED_AND_ENABLED {
        return Err(Missing::MemoryEncryptionOff);
    }
    let key_id_bits = (encryption >> 32 & 0xf) as u32;

    let partition = processor.msr(IA32_MKTME_KEYID_PARTITIONING).ok_or(Missing::KeyIds)?;
    let (shared, private) = ((partition & 0xffff_ffff) as u32, (partition >> 32) as u32);
    let id = |number: u32| u16::try_from(number).map(KeyId::new).map_err(|_| Missing::KeyIdsTooLarge);
    if private < 2 {
        return Err(Missing::TooFewKeyIds(private));
    }
    let key_ids =
        PrivateKeyIds { first: id(shared.saturating_add(1))?, last: id(shared.saturating_add(private))? };

    if processor.msr(IA32_MTRRCAP).unwrap_or_default() >> 15 & 1 == 0 {
        return Err(Missing::SeamRange);
    }
    // Bit 10: locked; bit 11: enabled.
    if processor.msr(IA32_SEAMRR_PHYS_MASK).unwrap_or_default() >> 10 & 0b11 != 0b11 {
        return Err(Missing::SeamRangeOff);
    }
    let tsc_hz = tsc_hz(processor).ok_or(Missing::TscFrequency)?;
    let [width, ..] = processor.cpuid(leaf::ADDRESS_WIDTHS, 0);
    Ok(TdxFacts { key_ids, key_id_shift: (width & 0xff).saturating_sub(key_id_bits), tsc_hz })
}

/// Whether the processor answers in a leaf; it says so in the first of the leaf's kind.
fn has_leaf(processor: &impl Identity, leaf: u32) -> bool {
    let first = if leaf >= leaf::EXTENDED { leaf::EXTENDED } else { leaf::BASIC };
    let [highest, ..] = processor.cpuid(first, 0);
    leaf <= highest
}

/// Whether the processor has a feature.
pub(crate) fn offers(processor: &impl Identity, feature: Feature) -> bool {
    has_leaf(processor, feature.leaf) && feature.is_in(&processor.cpuid(feature.leaf, feature.subleaf))
}

/// IA32_FEATURE_CONTROL: not locked yet, or locked with VMX outside of SMX.
pub const FEATURE_CONTROL_LOCKED: u64 = 1;
/// IA32_FEATURE_CONTROL: VMX outside of SMX.
pub const FEATURE_CONTROL_VMX: u64 = 1 << 2;

fn vmx_can_be_enabled(feature_control: Option<u64>) -> bool {
    feature_control
        .is_some_and(|value| value & FEATURE_CONTROL_LOCKED == 0 || value & FEATURE_CONTROL_VMX != 0)
}

/// The frequency of the time-stamp counter: by the crystal and its ratio, or by the processor's base frequency.
pub fn tsc_hz(processor: &impl Identity) -> Option<u64> {
    if has_leaf(processor, leaf::TSC) {
        let [denominator, numerator, crystal, _] = processor.cpuid(leaf::TSC, 0).map(u64::from);
        if denominator != 0 && numerator != 0 && crystal != 0 {
            return Some(crystal * numerator / denominator);
        }
    }
    let megahertz = if has_leaf(processor, leaf::FREQUENCY) {
        processor.cpuid(leaf::FREQUENCY, 0)[0] & 0xffff
    } else {
        0
    };
    (megahertz != 0).then(|| u64::from(megahertz) * 1_000_000)
}

/// By how many bits an x2APIC id has to be moved right to give the package.
pub fn package_shift(processor: &impl Identity) -> u32 {
    const LEAVES: [u32; 2] = [leaf::TOPOLOGY_V2, leaf::TOPOLOGY];
    /// A leaf names six kinds of levels.
    const LEVELS: u32 = 8;
    let leaf =
        LEAVES.into_iter().find(|leaf| has_leaf(processor, *leaf) && processor.cpuid(*leaf, 0)[1] != 0);
    let Some(leaf) = leaf else { return 0 };
    (0..LEVELS)
        .map(|level| processor.cpuid(leaf, level))
        .take_while(|[_, _, ecx, _]| ecx >> 8 & 0xff != 0)
        .last()
        .map_or(0, |[eax, ..]| eax & 0x1f)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Takes something away from a processor.
    type Spoil<'a> = &'a dyn Fn(&mut Fake);

    #[derive(Clone)]
    struct Fake {
        leaves: BTreeMap<(u32, u32), [u32; 4]>,
        msrs: BTreeMap<u32, u64>,
    }

    impl Identity for Fake {
        fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
            self.leaves.get(&(leaf, subleaf)).copied().unwrap_or_default()
        }

        fn msr(&self, index: u32) -> Option<u64> {
            self.msrs.get(&index).copied()
        }
    }

    fn server() -> Fake {
        Fake {
            leaves: BTreeMap::from([
                ((0, 0), [0x1f, 0, 0, 0]),
                ((1, 0), [0, 0, 1 << 5 | 1 << 21 | 1 << 24, 1 << 27]),
                ((7, 0), [0, 0, 1 << 13 | 1 << 28, 0]),
                ((0x15, 0), [1, 80, 25_000_000, 0]),
                ((0x1f, 0), [1, 2, 0x100, 0]),
                ((0x1f, 1), [6, 64, 0x201, 0]),
                ((0x8000_0008, 0), [52, 0, 0, 0]),
            ]),
            msrs: BTreeMap::from([
                (0x3a, 5),
                (0x87, 32 << 32 | 31),
                (0xfe, 1 << 15),
                (0x982, 0b11 | 6 << 32),
                (0x1401, 0b11 << 10),
            ]),
        }
    }

    #[test]
    fn a_tdx_server_meets_every_condition() {
        let facts = check(&server()).unwrap();
        assert_eq!(
            facts,
            TdxFacts {
                key_ids: PrivateKeyIds { first: KeyId::new(32), last: KeyId::new(63) },
                key_id_shift: 46,
                tsc_hz: 2_000_000_000,
            }
        );
        assert_eq!(package_shift(&server()), 6);
    }

    #[test]
    fn each_condition_is_named_when_it_is_the_first_that_is_missing() {
        let leaf = |leaf, register: usize, bit: u32| {
            move |fake: &mut Fake| fake.leaves.get_mut(&(leaf, 0)).unwrap()[register] &= !(1 << bit)
        };
        let msr = |index, value: u64| {
            move |fake: &mut Fake| {
                fake.msrs.insert(index, value);
            }
        };
        let absent = |index| {
            move |fake: &mut Fake| {
                fake.msrs.remove(&index);
            }
        };
        let cases: [(Spoil<'_>, Missing); 15] = [
            (&leaf(1, 2, 5), Missing::Vmx),
            (&msr(0x3a, 1), Missing::VmxLockedOff),
            (&absent(0x3a), Missing::VmxLockedOff),
            (&leaf(1, 2, 21), Missing::X2Apic),
            (&leaf(1, 2, 24), Missing::TscDeadline),
            (&leaf(1, 3, 27), Missing::SelfSnoop),
            (&leaf(7, 2, 28), Missing::Movdir64b),
            (&leaf(7, 2, 13), Missing::MemoryEncryption),
            (&msr(0x982, 0b01), Missing::MemoryEncryptionOff),
            (&absent(0x87), Missing::KeyIds),
            (&msr(0x87, 1 << 32 | 62), Missing::TooFewKeyIds(1)),
            (&msr(0x87, 2 << 32 | 0xffff_ffff), Missing::KeyIdsTooLarge),
            (&msr(0xfe, 0), Missing::SeamRange),
            (&msr(0x1401, 1 << 10), Missing::SeamRangeOff),
            (
                &|fake: &mut Fake| {
                    fake.leaves.remove(&(0x15, 0));
                },
                Missing::TscFrequency,
            ),
        ];
        for (spoil, missing) in cases {
            let mut fake = server();
            spoil(&mut fake);
            assert_eq!(check(&fake), Err(missing));
        }
        let mut unlocked = server();
        unlocked.msrs.insert(0x3a, 0);
        assert!(check(&unlocked).is_ok(), "VMX that firmware left open can be turned on");
    }

    #[test]
    fn the_base_frequency_stands_in_for_a_crystal_that_is_not_given() {
        let mut fake = server();
        fake.leaves.insert((0x15, 0), [2, 100, 0, 0]);
        fake.leaves.insert((0x16, 0), [2100, 3000, 100, 0]);
        assert_eq!(tsc_hz(&fake), Some(2_100_000_000));
    }
}
