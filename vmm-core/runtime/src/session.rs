//! One TD, from its specification to its teardown.

use std::sync::atomic::{AtomicBool, Ordering};

use machine_emu::EmulatedMachine;
use td_host::Error;
use td_host::host::hkid::HkidCounts;
use td_host::td::config::TdConfig;
use td_host::td::{Ending, Td};
use td_host::vcpu::Vcpu;
use tdvisor_devices::{Devices, Place};
use tdvisor_monitor::{Monitor, QuoteSource};

use crate::bell::Bell;
use crate::debugger::{Debuggee, Debugger};
use crate::drive::{Driver, Turns};
use crate::dump::{Dump, DumpError, Secrecy};
use crate::inspect::Inspection;
use crate::inspect::live::{Live, LiveTd, LiveVcpu, RunningTd};
use crate::machine::{Event, Machine};
use crate::pause::Pauser;
use crate::report::{Audit, Report};

/// What a TD is made of.
pub struct TdSpec<'i> {
    /// Memory, vCPUs and attributes.
    pub config: TdConfig,
    /// A TDVF image.
    pub image: &'i [u8],
    /// What the guest finds around it.
    pub devices: Devices,
    /// What whoever feeds a device rings.
    pub bell: Bell,
    /// Where the TD's quotes come from.
    pub quotes: Option<Box<dyn QuoteSource>>,
    /// Who may stop it and look inside. Its machine was brought up with the same debug port.
    pub debugger: Option<Debugger>,
    /// Whether the TD may be dumped.
    pub secrecy: Secrecy,
}

impl std::fmt::Debug for TdSpec<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TdSpec").field("config", &self.config).finish_non_exhaustive()
    }
}

/// What a session that is driven waits for beside its TD, or its server.
pub trait Watch: Sync {
    /// Whether the machine has to be stopped.
    fn wants_stop(&self) -> bool;

    /// Waits until [`Self::ring`] is called, or a little while: the time that a request to stop may go unnoticed.
    fn wait(&self);

    /// Ends the wait of the thread that watches: something was typed, or the machine has ended.
    fn ring(&self);

    /// Called between two waits until every processor has stopped: whoever wants to know how the machine is doing looks now.
    fn running(&self, _machine: Live<'_>) {}
}

/// What the machine had before the TD.
pub(crate) struct Before {
    pub(crate) frames: u64,
    pub(crate) hkids: HkidCounts,
}

/// A TD that is built and measured, with its devices around it.
pub struct Session<'m, 'e> {
    pub(crate) machine: &'m Machine,
    pub(crate) td: Td<'m, EmulatedMachine>,
    pub(crate) monitor: Monitor,
    pub(crate) bell: Bell,
    pub(crate) pauser: Pauser,
    pub(crate) debugger: Option<Debugger>,
    pub(crate) secrecy: Secrecy,
    pub(crate) events: &'e (dyn Fn(Event<'_>) + Sync),
    pub(crate) before: Before,
}

impl std::fmt::Debug for Session<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("td", &self.td).finish_non_exhaustive()
    }
}

impl<'m, 'e> Session<'m, 'e> {
    /// Builds the TD.
    ///
    /// # Errors
    /// Bad images and configurations, exhausted machines, refusals of the module. Nothing is left of the TD.
    pub fn start(
        machine: &'m Machine,
        spec: TdSpec<'_>,
        events: &'e (dyn Fn(Event<'_>) + Sync),
    ) -> Result<Self, Error> {
        let host = machine.host();
        let before = Before { frames: machine.frames(), hkids: host.hkid_counts() };
        let td = Td::build(host, &spec.config, spec.image, |progress| events(Event::Build(progress)))?;
        events(Event::Built);
        let monitor = Monitor::new(spec.devices, spec.quotes);
        let pauser = Pauser::new(spec.config.vcpus, spec.bell.clone());
        let TdSpec { bell, debugger, secrecy, .. } = spec;
        Ok(Self { machine, td, monitor, bell, pauser, debugger, secrecy, events, before })
    }

    /// What pauses the session while another thread drives it.
    pub fn pauser(&self) -> Pauser {
        self.pauser.clone()
    }

    /// The TD.
    pub fn td(&self) -> &Td<'m, EmulatedMachine> {
        &self.td
    }

    /// Runs every vCPU on a thread of its own until the TD has ended, or is stopped because the watch wants it.
    pub fn drive(self, watch: &impl Watch) -> Ended<'m> {
        let driver = Driver {
            vm: &self.td,
            monitor: &self.monitor,
            bell: &self.bell,
            live: Live::Td(&self),
            has_begun: &|| (self.events)(Event::Running),
            hold: self.pauser.hold(),
            turns: self.machine.platform().takes_turns().then_some(self.machine.platform() as &dyn Turns),
            told: &|happening| (self.events)(Event::Happened(happening)),
            has_ended: &|ending| (self.events)(Event::Ended(ending)),
            vcpu_done: &|index| {
                if let Some(vcpu) = self.td.vcpus().get(index as usize) {
                    self.machine.platform().vcpu_has_ended(vcpu.lp());
                }
            },
        };
        let finished = AtomicBool::new(false);
        let ending = std::thread::scope(|scope| {
            if let Some(debugger) = &self.debugger {
                scope.spawn(|| debugger.serve(&self.debuggee(&finished)));
            }
            let ending = driver.drive(watch);
            finished.store(true, Ordering::SeqCst);
            ending
        });
        let most_read_unclaimed = self.monitor.devices().most_read_unclaimed();
        let Self { machine, td, monitor, before, secrecy, .. } = self;
        let frozen = machine.platform().is_frozen().then_some(monitor);
        Ended { machine, td, before, ending, most_read_unclaimed, secrecy, frozen }
    }

    /// What its debugger is told of the TD.
    fn debuggee<'s>(&'s self, finished: &'s AtomicBool) -> Debuggee<'s> {
        Debuggee {
            machine: self.machine.platform().machine(),
            lps: self.td.vcpus().iter().map(|vcpu| vcpu.lp().0 as usize).collect(),
            finished,
            subject: &self.td,
        }
    }
}

impl Turns for EmulatedMachine {
    fn hold(&self) {
        self.hold_turns();
    }

    fn release(&self) {
        self.release_turns();
    }
}

impl RunningTd for Session<'_, '_> {
    fn look(&self) -> LiveTd {
        let statistics = self.td.memory().statistics();
        let vcpu = |vcpu: &Vcpu| LiveVcpu {
            lp: vcpu.lp(),
            exits: vcpu.exits(),
            halted_for_good: vcpu.is_halted_for_good(),
        };
        LiveTd {
            tdr: self.td.tdr().hpa(),
            has_ended: self.td.ending().is_some(),
            vcpus: self.td.vcpus().iter().map(vcpu).collect(),
            private: statistics.mirror,
            shared: statistics.direct,
            frames_converted: self.td.memory().frames_converted(),
            most_read_unclaimed: self.monitor.devices().most_read_unclaimed(),
            calls: self.machine.platform().trace().calls(),
        }
    }

    fn inspect(&self) -> Result<Inspection, Error> {
        Inspection::of(&self.td, self.machine.platform())
    }

    fn audit(&self) -> Result<u64, Error> {
        self.td.audit().map(|report| report.compared)
    }

    fn dump(&self) -> Result<Dump, DumpError> {
        Dump::of(&self.td, self.machine.platform().machine(), self.secrecy)
    }
}

/// A TD that has ended and is not torn down.
pub struct Ended<'m> {
    pub(crate) machine: &'m Machine,
    pub(crate) td: Td<'m, EmulatedMachine>,
    pub(crate) before: Before,
    ending: Ending,
    most_read_unclaimed: Option<(Place, u64)>,
    pub(crate) secrecy: Secrecy,
    /// What answered the exits of a TD that froze.
    pub(crate) frozen: Option<Monitor>,
}

impl std::fmt::Debug for Ended<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ended").field("ending", &self.ending).finish_non_exhaustive()
    }
}

impl<'m> Ended<'m> {
    /// How the TD ended.
    pub const fn ending(&self) -> &Ending {
        &self.ending
    }

    /// The TD.
    pub fn td(&self) -> &Td<'m, EmulatedMachine> {
        &self.td
    }

    /// What an inspector shows of it.
    ///
    /// # Errors
    /// The host's processor cannot be had.
    pub fn inspect(&self) -> Result<Inspection, Error> {
        Inspection::of(&self.td, self.machine.platform())
    }

    /// All that it held, for whoever started it inspectable.
    ///
    /// # Errors
    /// [`DumpError`]: it was not, or what is mapped cannot be read.
    pub fn dump(&self) -> Result<Dump, DumpError> {
        Dump::of(&self.td, self.machine.platform().machine(), self.secrecy)
    }

    /// Looks at what is left, compares mirror, Secure EPT and PAMT, and gives everything back.
    pub fn teardown(self) -> Report {
        let Self { machine, td, before, ending, most_read_unclaimed, secrecy, frozen: _ } = self;
        let last_calls = machine.platform().trace().last_calls();
        let audit = match td.audit() {
            Ok(report) => Audit::Agreed { entries: report.compared },
            // A TD that the module calls dead cannot be read.
            Err(_) if matches!(ending, Ending::Died(_)) => Audit::NotPossible,
            Err(error) => Audit::Failed(error),
        };
        let statistics = td.memory().statistics();
        let platform = machine.platform();
        let vcpu_exits = td.vcpus().iter().map(Vcpu::exits).collect();
        let mut report = Report {
            ending,
            mrtd: td.mrtd().ok(),
            rtmrs: platform.machine().rtmrs(td.tdr().hpa()),
            vcpu_exits,
            halted_for_good: td.vcpus().iter().filter(|vcpu| vcpu.is_halted_for_good()).count(),
            most_read_unclaimed,
            secrecy,
            private: statistics.mirror,
            shared: statistics.direct,
            frames_converted: td.memory().frames_converted(),
            audit,
            limits: platform.limits(),
            shutdowns: platform.shutdowns(),
            last_exits: platform.guest_exits(),
            last_calls,
            teardown: td.teardown(),
            calls: platform.trace().calls(),
            frames_lost: 0,
            key_id_lost: false,
            violations: platform.violations(),
        };
        report.frames_lost = machine.frames().abs_diff(before.frames);
        report.key_id_lost = machine.host().hkid_counts() != before.hkids;
        report
    }
}
