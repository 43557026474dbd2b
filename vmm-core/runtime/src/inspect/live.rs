//! What can be asked of a machine while it runs: of a TD, or of a server.
//!
//! # Protocol
//! A session gives its watch something to look at ([`crate::Watch::running`]), again and again while the machine runs; whoever
//! wants to know how it is doing asks there, as often as it likes. A look stops nobody and changes nothing: every part keeps its
//! numbers in atomics, or behind a lock that is held for a moment.
//!
//! # Invariants
//! - Each value is of its own moment: two of them need not fit together. What is whole only while nothing runs (tables,
//!   calls in their order) is in [`super::Inspection`].
//! - Nothing of it is the guest's: how much memory is where, not what is in it. The exception is the dump of a TD that was started
//!   as one that may be looked into.
//! - Counts never fall while the machine runs.

use std::collections::BTreeMap;

use mirror_ept::LevelCounts;
use td_host::Error;
use td_host::platform::LpId;
use td_host::vcpu::ExitKind;
use tdvisor_base::Hpa;
use tdvisor_devices::Place;
use tdvisor_kvm::ExitKind as KvmExitKind;

use super::Inspection;
use crate::dump::{Dump, DumpError};

/// A machine that runs, and what can be asked of its kind.
#[derive(Clone, Copy)]
pub enum Live<'a> {
    /// A TD.
    Td(&'a dyn RunningTd),
    /// A TD on Linux's KVM.
    Kvm(&'a dyn RunningKvmTd),
    /// A server.
    Server(&'a dyn RunningServer),
}

impl std::fmt::Debug for Live<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Td(td) => f.debug_tuple("Td").field(&td.look()).finish(),
            Self::Kvm(td) => f.debug_tuple("Kvm").field(&td.look()).finish(),
            Self::Server(server) => f.debug_tuple("Server").field(&server.look()).finish(),
        }
    }
}

/// A TD that runs.
pub trait RunningTd: Sync {
    /// How the TD is doing now.
    fn look(&self) -> LiveTd;

    /// What an inspector shows of it. It is whole only while the TD is paused.
    ///
    /// # Errors
    /// The host's processor cannot be had.
    fn inspect(&self) -> Result<Inspection, Error>;

    /// Compares mirror, Secure EPT and PAMT, and gives how many entries agree. Only a TD that is paused can be compared.
    ///
    /// # Errors
    /// The first difference, or that they cannot be read.
    fn audit(&self) -> Result<u64, Error>;

    /// All that it holds, for whoever started it inspectable. It is whole only while the TD is paused.
    ///
    /// # Errors
    /// [`DumpError`]: it was not, or what is mapped cannot be read.
    fn dump(&self) -> Result<Dump, DumpError>;
}

/// A TD that runs on Linux's KVM, of which its host sees little.
pub trait RunningKvmTd: Sync {
    /// How the TD is doing now.
    fn look(&self) -> LiveKvmTd;
}

/// A server that runs.
pub trait RunningServer: Sync {
    /// How the server is doing now.
    fn look(&self) -> LiveServer;
}

/// A TD at a moment.
#[derive(Clone, Debug)]
pub struct LiveTd {
    /// The TD.
    pub tdr: Hpa,
    /// Whether the TD has ended, and its vCPUs are leaving or have left.
    pub has_ended: bool,
    /// The TD's vCPUs, by index.
    pub vcpus: Vec<LiveVcpu>,
    /// Private mappings.
    pub private: LevelCounts,
    /// Shared mappings.
    pub shared: LevelCounts,
    /// 4 KiB frames that changed sides so far.
    pub frames_converted: u64,
    /// The place without a device that the guest read most, and how often.
    pub most_read_unclaimed: Option<(Place, u64)>,
    /// SEAMCALLs by leaf, of the whole machine and its whole life.
    pub calls: BTreeMap<String, u64>,
}

/// A TD on Linux's KVM at a moment.
#[derive(Clone, Debug)]
pub struct LiveKvmTd {
    /// How often KVM came back from its vCPUs, all of them together, by reason.
    pub exits: BTreeMap<KvmExitKind, u64>,
    /// 4 KiB frames that changed sides so far.
    pub frames_converted: u64,
}

/// A vCPU at a moment.
#[derive(Clone, Debug)]
pub struct LiveVcpu {
    /// The processor that it runs on.
    pub lp: LpId,
    /// How often it left the guest, by reason.
    pub exits: BTreeMap<ExitKind, u64>,
    /// Whether the vCPU halted with interrupts blocked, and nothing woke it before the TD ended.
    pub halted_for_good: bool,
}

/// A server at a moment.
#[derive(Clone, Debug)]
pub struct LiveServer {
    /// Whether the server has ended, and its processors are stopping or have stopped.
    pub has_ended: bool,
    /// SEAMCALLs of its host by leaf.
    pub calls: BTreeMap<String, u64>,
    /// SEAMCALLs that nobody answered.
    pub unanswered: u64,
    /// What the module and the memory noticed the host doing wrong so far.
    pub violations: usize,
}
