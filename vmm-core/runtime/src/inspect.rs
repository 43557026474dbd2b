//! What an inspector shows of a TD: its memory as mirror, Secure EPT and PAMT have it, and the calls that made it so.
//!
//! Nothing of it is the guest's: where pages are, not what is in them; the registers that pass between host and module.
//! This is of a TD that does not run; what can be asked of one that runs is in [`live`].

pub mod live;

use std::collections::BTreeMap;

use machine_emu::EmulatedMachine;
use machine_emu::journal::Recorded;
use mirror_ept::GfnRange;
use mirror_ept::list::{Listed, Tree};
use seam_emu::audit::SecureEptView;
use td_host::Error;
use td_host::platform::Clock;
use td_host::td::Td;
use tdvisor_base::{Gpa, Hpa, Level, SharedBit};

/// Which half of the guest-physical space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The TD's own.
    Private,
    /// Shared with the host.
    Shared,
}

/// What is known of one range of addresses at one level.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The half.
    pub side: Side,
    /// Where the entry begins, without the SHARED bit.
    pub gpa: Gpa,
    /// The level of the entry.
    pub level: Level,
    /// The host's entry: of the mirror on the private side, of the table that hardware walks on the shared.
    pub host: Option<Listed>,
    /// The module's entry, with what the PAMT says of the page that it points to.
    pub secure: Option<SecureEptView>,
}

/// What there is to inspect of a TD.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The TD.
    pub tdr: Hpa,
    /// The bit of an address by which the guest means its shared half.
    pub shared_bit: SharedBit,
    /// Ranges of guest memory.
    pub ranges: Vec<GfnRange>,
    /// Entries that are not empty, by side, level and address.
    pub entries: Vec<Entry>,
    /// The logical processor of each vCPU.
    pub lps: Vec<u32>,
    /// The calls that are kept, oldest first; none where the machine keeps no journal.
    pub calls: Vec<Recorded>,
    /// Older calls, which are not kept.
    pub calls_lost: u64,
    /// Ticks of the calls' clock in a second.
    pub ticks_hz: u64,
}

impl Inspection {
    /// Looks at a TD that does not run.
    pub(crate) fn of(td: &Td<'_, EmulatedMachine>, platform: &EmulatedMachine) -> Result<Self, Error> {
        let mut entries: BTreeMap<(Side, Level, Gpa), Entry> = BTreeMap::new();
        let empty = |side: Side, gpa: Gpa, level: Level| Entry { side, gpa, level, host: None, secure: None };
        for listed in td.mappings()? {
            let side = match listed.tree {
                Tree::Mirror => Side::Private,
                Tree::Direct => Side::Shared,
            };
            let (gpa, level) = (listed.at.gfn().base(), listed.at.level());
            entries.entry((side, level, gpa)).or_insert(empty(side, gpa, level)).host = Some(listed);
        }
        let tdr = td.tdr().hpa();
        for view in platform.machine().secure_ept(tdr) {
            let key = (Side::Private, view.level, view.gpa);
            entries.entry(key).or_insert(empty(Side::Private, view.gpa, view.level)).secure = Some(view);
        }
        let (calls, calls_lost) =
            platform.trace().journal().map(|journal| journal.calls()).unwrap_or_default();
        Ok(Self {
            tdr,
            shared_bit: td.shared_bit(),
            ranges: td.memory().ranges().collect(),
            entries: entries.into_values().collect(),
            lps: td.vcpus().iter().map(|vcpu| vcpu.lp().0).collect(),
            calls,
            calls_lost,
            ticks_hz: platform.frequency_hz(),
        })
    }
}
