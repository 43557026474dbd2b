//! What a TD's accesses to MSRs come to.
//!
//! # Protocol
//! TDH.MNG.INIT writes the MSR bitmaps of a TD ([`write_bitmaps`]): an access that they let through never reaches the
//! module. One that exits is decided by the same table ([`decide`]).

mod table;

use tdx_module_iface::td_params::attributes;
use x86_arch::cpuid::{Feature, feature};
use x86_arch::xss;

use crate::config::MachineConfig;
use crate::cpuid::offers;
use crate::fields::layout::tdcs;
use crate::fields::{FieldStore, Width};
use crate::processor::msr;
use table::ROWS;

/// Which instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MsrAccess {
    /// RDMSR.
    Read,
    /// WRMSR.
    Write,
}

/// A cell of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Policy {
    /// Not intercepted.
    Native,
    /// Not intercepted where the condition holds, otherwise #GP.
    NativeIf(Condition),
    /// Not intercepted where the condition holds, otherwise the module has a rule.
    NativeOrSpecial(Condition),
    /// The module has a rule.
    Special,
    /// #GP.
    Fault,
    /// #VE.
    Exception,
    /// #VE where the TD's CPUID offers the feature, otherwise #GP.
    Platform,
}

/// What a TD has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Condition {
    /// ATTRIBUTES.PERFMON.
    Perfmon,
    /// ATTRIBUTES.PERFMON, and processor trace in XFAM.
    PerfmonAndPt,
    /// ATTRIBUTES.PERFMON, and the processor has performance metrics.
    PerfMetrics,
    /// ATTRIBUTES.PKS.
    Pks,
    /// CPUID offers user wait instructions.
    Umwait,
    /// CPUID offers transactional memory.
    Tsx,
    /// CPUID offers extended feature disable.
    Xfd,
    /// Processor trace in XFAM.
    Pt,
    /// Shadow stacks in XFAM.
    Cet,
    /// User interrupts in XFAM.
    Uintr,
    /// Last-branch records in XFAM.
    Lbr,
}

/// What an access comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Decision {
    /// The processor carries it out.
    Native,
    /// The module carries it out.
    Special,
    /// #GP.
    Fault,
    /// #VE.
    Exception,
}

/// A TD as far as its MSRs depend on it.
#[derive(Clone, Copy)]
pub(crate) struct Owner<'a> {
    pub(crate) config: &'a MachineConfig,
    pub(crate) td: &'a dyn FieldStore,
}

impl Owner<'_> {
    fn has_attribute(&self, attribute: u64) -> bool {
        self.td.load_u64(tdcs::ATTRIBUTES) & attribute != 0
    }

    fn has_component(&self, components: u64) -> bool {
        self.td.load_u64(tdcs::XFAM) & components == components
    }

    fn offers(&self, feature: Feature) -> bool {
        offers(&self.config.profile.rules().cpuid, self.td, feature)
    }

    /// Whether the TD has transactional memory.
    pub(crate) fn has_tsx(&self) -> bool {
        self.offers(feature::HLE)
    }

    /// Whether the TD may use performance counters.
    pub(crate) fn has_perfmon(&self) -> bool {
        self.has_attribute(attributes::PERFMON)
    }

    fn meets(&self, condition: Condition) -> bool {
        /// IA32_PERF_CAPABILITIES: PERF_METRICS.
        const PERF_METRICS: u64 = 1 << 15;
        match condition {
            Condition::Perfmon => self.has_perfmon(),
            Condition::PerfmonAndPt => self.has_perfmon() && self.has_component(xss::PT),
            Condition::PerfMetrics => {
                self.has_perfmon() && self.config.native_msr(msr::PERF_CAPABILITIES) & PERF_METRICS != 0
            }
            Condition::Pks => self.has_attribute(attributes::PKS),
            Condition::Umwait => self.offers(feature::WAITPKG),
            Condition::Tsx => self.has_tsx(),
            Condition::Xfd => self.offers(feature::XFD),
            Condition::Pt => self.has_component(xss::PT),
            Condition::Cet => self.has_component(xss::CET),
            Condition::Uintr => self.has_component(xss::UINTR),
            Condition::Lbr => self.has_component(xss::LBR),
        }
    }

    /// Whether the TD's CPUID offers the feature that an MSR of the platform belongs to.
    fn has_platform_feature(&self, index: u32) -> bool {
        match index {
            // Protected processor inventory and activation of memory keys.
            0x87 => self.offers(feature::PCONFIG),
            // Direct cache access.
            0x1f8..=0x1fa => self.offers(feature::DCA),
            // TSC deadline.
            0x6e0 => self.offers(feature::TSC_DEADLINE),
            // Total memory encryption.
            0x981..=0x984 => self.offers(feature::TME),
            _ => false,
        }
    }
}

/// Decides an access.
pub(crate) fn decide(owner: &Owner<'_>, index: u32, access: MsrAccess) -> Decision {
    /// The id that TDH.VP.INIT gives: a release without it does not list the register.
    const X2APIC_ID: u32 = 0x802;
    if index == X2APIC_ID && !owner.config.profile.rules().topology.is_present() {
        return Decision::Exception;
    }
    let row = ROWS.partition_point(|row| row.last < index);
    let Some(row) = ROWS.get(row).filter(|row| row.first <= index) else { return Decision::Exception };
    let policy = match access {
        MsrAccess::Read => row.read,
        MsrAccess::Write => row.write,
    };
    match policy {
        Policy::Native => Decision::Native,
        Policy::NativeIf(condition) | Policy::NativeOrSpecial(condition) if owner.meets(condition) => {
            Decision::Native
        }
        Policy::NativeIf(_) | Policy::Fault => Decision::Fault,
        Policy::NativeOrSpecial(_) | Policy::Special => Decision::Special,
        Policy::Exception => Decision::Exception,
        Policy::Platform if owner.has_platform_feature(index) => Decision::Exception,
        Policy::Platform => Decision::Fault,
    }
}

/// Bytes of the bitmap of one range and one instruction.
const BITMAP_BYTES: u32 = 1024;
/// Where a bitmap page has the range from C000_0000H on.
const HIGH_RANGE: u32 = BITMAP_BYTES;
/// Where a bitmap page has the bitmaps of WRMSR.
const WRITES: u32 = 2 * BITMAP_BYTES;
/// First index of the high range.
const HIGH_FIRST: u32 = 0xc000_0000;
/// Indices in a range.
const RANGE: u32 = 8 * BITMAP_BYTES;

/// The byte and the bit that stand for an index; `None` outside the two ranges, where every access exits.
const fn bit_of(index: u32, access: MsrAccess) -> Option<(u32, u32)> {
    let range = match index {
        0..RANGE => 0,
        HIGH_FIRST.. if index - HIGH_FIRST < RANGE => HIGH_RANGE,
        _ => return None,
    };
    let base = match access {
        MsrAccess::Read => range,
        MsrAccess::Write => range + WRITES,
    };
    let within = index & (RANGE - 1);
    Some((base + within / 8, within % 8))
}

/// Writes the MSR bitmaps of a TD, whose other fields are there: ones but for what is not intercepted.
pub(crate) fn write_bitmaps(owner: &Owner<'_>) {
    for word in 0..4 * BITMAP_BYTES / 8 {
        owner.td.store_u64(tdcs::MSR_BITMAPS + 8 * word, u64::MAX);
    }
    for row in ROWS {
        for index in row.first..=row.last {
            for access in [MsrAccess::Read, MsrAccess::Write] {
                if decide(owner, index, access) == Decision::Native
                    && let Some((byte, bit)) = bit_of(index, access)
                {
                    let byte = tdcs::MSR_BITMAPS + byte;
                    let old = owner.td.load(byte, Width::B1);
                    owner.td.store(byte, Width::B1, old & !(1 << bit));
                }
            }
        }
    }
}

/// Whether the bitmaps at an offset let an access through.
pub(crate) fn passes(store: &dyn FieldStore, bitmaps: u32, index: u32, access: MsrAccess) -> bool {
    bit_of(index, access).is_some_and(|(byte, bit)| store.load(bitmaps + byte, Width::B1) >> bit & 1 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_ascend_and_do_not_overlap() {
        for pair in ROWS.windows(2) {
            let [one, next] = pair else { continue };
            assert!(one.first <= one.last && one.last < next.first, "{:#x} and {:#x}", one.first, next.first);
        }
    }

    #[test]
    fn every_row_lies_in_a_range_that_the_bitmaps_cover() {
        for row in ROWS {
            assert!(
                bit_of(row.first, MsrAccess::Read).is_some() && bit_of(row.last, MsrAccess::Write).is_some()
            );
        }
    }
}
