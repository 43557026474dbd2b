//! What there is to say of a session when it is over.

use std::collections::BTreeMap;

use machine_emu::trace::Call;
use mirror_ept::LevelCounts;
use seam_emu::{EmulatorLimit, GuestExit, GuestShutdown, HostViolation};
use td_host::Error;
use td_host::platform::LpId;
use td_host::td::{Ending, TeardownReport};
use td_host::vcpu::ExitKind;
use tdvisor_devices::Place;

use crate::dump::Secrecy;

/// The comparison of mirror, Secure EPT and PAMT at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audit {
    /// Mirror and Secure EPT agree.
    Agreed {
        /// Entries compared.
        entries: u64,
    },
    /// The TD is dead: the module does not let it be read.
    NotPossible,
    /// Mirror and Secure EPT do not agree, or could not be read.
    Failed(Error),
}

/// The facts of a session.
#[derive(Clone, Debug)]
pub struct Report {
    /// How the TD ended.
    pub ending: Ending,
    /// The TD's measurement, while it could be read.
    pub mrtd: Option<[u8; 48]>,
    /// RTMR0 to RTMR3 at the end, as the emulated module held them.
    pub rtmrs: Option<[[u8; 48]; 4]>,
    /// How often each vCPU left the guest, by reason.
    pub vcpu_exits: Vec<BTreeMap<ExitKind, u64>>,
    /// vCPUs that halted with interrupts blocked and were still so at the end.
    pub halted_for_good: usize,
    /// The place without a device that the guest read most, and how often.
    pub most_read_unclaimed: Option<(Place, u64)>,
    /// Whether somebody could look into it.
    pub secrecy: Secrecy,
    /// SEAMCALLs by leaf, the machine's whole life.
    pub calls: BTreeMap<String, u64>,
    /// Private mappings at the end.
    pub private: LevelCounts,
    /// Shared mappings at the end.
    pub shared: LevelCounts,
    /// 4 KiB frames that changed sides.
    pub frames_converted: u64,
    /// Whether mirror, Secure EPT and PAMT agreed.
    pub audit: Audit,
    /// What the guest did that the emulated processors do not implement.
    pub limits: Vec<EmulatorLimit>,
    /// Where the guest ended in a triple fault.
    pub shutdowns: Vec<GuestShutdown>,
    /// The last exits of the guest on each processor to the module, oldest first.
    pub last_exits: Vec<(LpId, Vec<GuestExit>)>,
    /// The last SEAMCALLs before the teardown, oldest first.
    pub last_calls: Vec<Call>,
    /// What the teardown gave back.
    pub teardown: TeardownReport,
    /// Frames that the machine has more or less than before.
    pub frames_lost: u64,
    /// The TD's key id did not come back.
    pub key_id_lost: bool,
    /// What the module and the memory noticed the host doing wrong.
    pub violations: Vec<HostViolation>,
}

impl Report {
    /// How often vCPUs left the guest, by reason.
    pub fn exits(&self) -> BTreeMap<ExitKind, u64> {
        let mut all = BTreeMap::new();
        for (kind, count) in self.vcpu_exits.iter().flatten() {
            *all.entry(*kind).or_insert(0) += count;
        }
        all
    }

    /// What did not come back, in words; empty where everything did.
    pub fn losses(&self) -> Vec<String> {
        let mut lost = Vec::new();
        if let Some(failure) = &self.teardown.first_failure {
            lost.push(format!("teardown: {failure}"));
        }
        if self.frames_lost != 0 {
            lost.push(format!("{} frames did not come back", self.frames_lost));
        }
        if self.key_id_lost {
            lost.push("the key id did not come back".to_owned());
        }
        lost
    }
}
