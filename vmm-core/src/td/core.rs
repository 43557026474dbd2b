//! What every part of one TD shares: its identity, its seats, its vCPUs' whereabouts, and how it ended.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use base::sync::{AtomicBool, Mutex, MutexGuard, Ordering};
use base::{Gfn, Hpa, KeyId, Level, Pfn};
use tdx_module_iface::handles::{Tdr, Tdvpr};

use crate::host::Host;
use crate::platform::{LpId, Platform};
use crate::vcpu::presence::{Gate, Presence, Requests, kick};

/// How a TD ended. The first reason counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The guest powered itself off and says how it went: 0 is success.
    PoweredOff {
        /// The guest's exit code.
        code: u8,
    },
    /// The guest reported a fatal error (GHCI ReportFatalError).
    FatalError {
        /// Its code.
        code: u32,
        /// Its message.
        message: String,
    },
    /// The guest asked for a reset. A TD cannot be reset: it would have to be built anew.
    Reset,
    /// The guest's kernel panicked, as it said through its panic device.
    Panicked,
    /// The TD cannot go on; the text says why.
    Died(String),
    /// The host asked it to stop.
    Stopped,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PoweredOff { code: 0 } => f.write_str("the guest powered off: success"),
            Self::PoweredOff { code } => write!(f, "the guest powered off: failure {code}"),
            Self::FatalError { code, message } => {
                write!(f, "the guest reported a fatal error (code {code:#x}): {message}")
            }
            Self::Reset => f.write_str("the guest asked for a reboot: the TD ends here"),
            Self::Panicked => f.write_str("the guest's kernel panicked"),
            Self::Died(why) => write!(f, "the TD died: {why}"),
            Self::Stopped => f.write_str("the TD was stopped"),
        }
    }
}

/// A guest page that left the TD, but whose cache lines could not be written back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unclean {
    pub(crate) gfn: Gfn,
    pub(crate) level: Level,
}

/// The shared part of one TD.
pub(crate) struct TdCore<'h, P: Platform> {
    pub(crate) host: &'h Host<P>,
    pub(crate) tdr: Tdr,
    pub(crate) key: KeyId,
    /// LP tokens by participant of the MMU: who runs a hook finds its LP here.
    seats: Box<[Mutex<Option<P::Lp<'h>>>]>,
    /// One per vCPU that the TD may have.
    presences: Box<[Presence]>,
    /// For a vCPU that does not exist, so that looking one up cannot fail.
    nobody: Presence,
    pub(crate) gate: Gate,
    /// The TD is finalised: vCPUs may run, and the module demands TLB tracking.
    runnable: AtomicBool,
    /// The source page of the TDH.MEM.PAGE.ADD in progress.
    add_source: Mutex<Option<Hpa>>,
    unclean: Mutex<Vec<Unclean>>,
    /// Control pages of vCPUs whose creation failed half-way: reclaimed with the TD.
    stray_pages: Mutex<Vec<Pfn>>,
    stray_vcpus: Mutex<Vec<(LpId, Tdvpr)>>,
    ending: Mutex<Option<Ending>>,
}

impl<'h, P: Platform> TdCore<'h, P> {
    pub(crate) fn new(host: &'h Host<P>, tdr: Tdr, key: KeyId, seats: usize, vcpus: usize) -> Self {
        Self {
            host,
            tdr,
            key,
            seats: (0..seats).map(|_| Mutex::new(None)).collect(),
            presences: (0..vcpus).map(|_| Presence::default()).collect(),
            nobody: Presence::default(),
            gate: Gate::default(),
            runnable: AtomicBool::new(false),
            add_source: Mutex::new(None),
            unclean: Mutex::new(Vec::new()),
            stray_pages: Mutex::new(Vec::new()),
            stray_vcpus: Mutex::new(Vec::new()),
            ending: Mutex::new(None),
        }
    }

    /// The place of a participant's LP token.
    pub(crate) fn seat(&self, participant: usize) -> Option<MutexGuard<'_, Option<P::Lp<'h>>>> {
        self.seats.get(participant).map(Mutex::lock)
    }

    pub(crate) fn presence_of(&self, vcpu: u32) -> &Presence {
        self.presences.get(vcpu as usize).unwrap_or(&self.nobody)
    }

    pub(crate) fn presences(&self) -> &[Presence] {
        &self.presences
    }

    /// Gets every vCPU out of the guest once.
    pub(crate) fn kick_all(&self) -> usize {
        kick(self.presences.iter(), |lp| self.host.platform.send_ipi(lp))
    }

    /// Asks every vCPU for something; those in the guest or asleep are interrupted, not waited for.
    pub(crate) fn request_all(&self, requests: Requests) {
        for presence in &self.presences {
            presence.request(requests);
        }
        for lp in self.presences.iter().filter_map(Presence::lp) {
            self.host.platform.send_ipi(lp);
        }
    }

    pub(crate) fn is_runnable(&self) -> bool {
        self.runnable.load(Ordering::Acquire)
    }

    pub(crate) fn set_runnable(&self) {
        self.runnable.store(true, Ordering::Release);
    }

    /// Keeps the source of a page that is being added, for the hook that adds it.
    pub(crate) fn with_add_source<T>(&self, source: Hpa, work: impl FnOnce() -> T) -> T {
        *self.add_source.lock() = Some(source);
        let result = work();
        *self.add_source.lock() = None;
        result
    }

    pub(crate) fn add_source(&self) -> Option<Hpa> {
        *self.add_source.lock()
    }

    pub(crate) fn note_unclean(&self, page: Unclean) {
        self.unclean.lock().push(page);
    }

    pub(crate) fn take_unclean(&self) -> Vec<Unclean> {
        core::mem::take(&mut *self.unclean.lock())
    }

    pub(crate) fn note_control_page(&self, page: Pfn) {
        self.stray_pages.lock().push(page);
    }

    pub(crate) fn note_half_made_vcpu(&self, lp: LpId, tdvpr: Tdvpr) {
        self.stray_vcpus.lock().push((lp, tdvpr));
    }

    /// What vCPUs that were never finished left behind.
    pub(crate) fn take_strays(&self) -> (Vec<Pfn>, Vec<(LpId, Tdvpr)>) {
        (core::mem::take(&mut *self.stray_pages.lock()), core::mem::take(&mut *self.stray_vcpus.lock()))
    }

    /// Ends the TD: the first reason stays, every vCPU leaves its loop.
    pub(crate) fn end(&self, ending: Ending) {
        self.ending.lock().get_or_insert(ending);
        self.request_all(Requests::STOP);
    }

    pub(crate) fn ending(&self) -> Option<Ending> {
        self.ending.lock().clone()
    }
}
