//! What every part of one TD shares: its identity, its vCPUs' whereabouts, and how it ended.

use alloc::boxed::Box;
use alloc::vec::Vec;

use tdvisor_base::sync::{AtomicBool, Mutex, Ordering};
use tdvisor_base::{KeyId, Pfn};
use tdx_module_iface::handles::{Tdr, Tdvpr};

use super::Ending;
use crate::host::Host;
use crate::platform::{LpId, Platform};
use crate::vcpu::presence::{Gate, Presence, Requests, kick};

/// The shared part of one TD.
pub(crate) struct TdCore<'h, P: Platform> {
    pub(crate) host: &'h Host<P>,
    pub(crate) tdr: Tdr,
    pub(crate) key: KeyId,
    /// L2 VMs that the TD has.
    pub(crate) l2_vms: u8,
    /// One per vCPU that the TD may have.
    presences: Box<[Presence]>,
    /// For a vCPU that does not exist, so that looking one up cannot fail.
    nobody: Presence,
    pub(crate) gate: Gate,
    /// The TD is finalised: vCPUs may run, and the module demands TLB tracking.
    runnable: AtomicBool,
    /// vCPUs that are asked to park stay parked while this holds.
    paused: AtomicBool,
    /// Control pages of vCPUs whose creation failed half-way: reclaimed with the TD.
    stray_pages: Mutex<Vec<Pfn>>,
    stray_vcpus: Mutex<Vec<(LpId, Tdvpr)>>,
    ending: Mutex<Option<Ending>>,
}

impl<'h, P: Platform> TdCore<'h, P> {
    pub(crate) fn new(host: &'h Host<P>, tdr: Tdr, key: KeyId, vcpus: usize, l2_vms: u8) -> Self {
        Self {
            host,
            tdr,
            key,
            l2_vms,
            presences: (0..vcpus).map(|_| Presence::default()).collect(),
            nobody: Presence::default(),
            gate: Gate::default(),
            runnable: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            stray_pages: Mutex::new(Vec::new()),
            stray_vcpus: Mutex::new(Vec::new()),
            ending: Mutex::new(None),
        }
    }

    /// The shared part of a TD that ran, and was saved.
    pub(crate) fn restored(
        host: &'h Host<P>,
        tdr: Tdr,
        key: KeyId,
        presences: Vec<Presence>,
        l2_vms: u8,
    ) -> Self {
        let core = Self { presences: presences.into_boxed_slice(), ..Self::new(host, tdr, key, 0, l2_vms) };
        core.set_runnable();
        core
    }

    /// Whether vCPUs that were never finished left something behind.
    pub(crate) fn has_strays(&self) -> bool {
        !self.stray_pages.lock().is_empty() || !self.stray_vcpus.lock().is_empty()
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

    /// Whether vCPUs have to stay out of the guest until [`Self::unpause`].
    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    /// Asks every vCPU to park ([`crate::vcpu::park`]); they are not waited for.
    pub(crate) fn pause(&self) {
        self.paused.store(true, Ordering::SeqCst);
        self.request_all(Requests::PARK);
        self.kick_all();
    }

    /// Lets parked vCPUs go on.
    pub(crate) fn unpause(&self) {
        self.paused.store(false, Ordering::SeqCst);
        for lp in self.presences.iter().filter_map(Presence::lp) {
            self.host.platform.send_ipi(lp);
        }
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
