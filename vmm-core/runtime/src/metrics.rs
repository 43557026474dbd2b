//! Numbers of TDs that run, for Prometheus.
//!
//! # Protocol
//! [`Metrics`] is made once in a process. Each TD has a [`TdMetrics`], which is given every call of the TD's machine (as
//! [`CallObserver`] of its [`Trace`](machine_emu::trace::Trace)) and every [`Event`] of its session; one on KVM, whose calls are
//! the kernel's, every [`KvmEvent`] and, now and then, what its exits are by then ([`TdMetrics::kvm_exits`]). [`Metrics::text`] gives
//! all of them in the OpenMetrics form, at any time.
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | `tdvisor_seamcalls_total` | counter | `leaf`, `status` |
//! | `tdvisor_seamcall_duration_seconds` | histogram: all leaves but TDH.VP.ENTER, whose time is the guest's | |
//! | `tdvisor_busy_retries_total` | counter: calls that found the module busy | `leaf` |
//! | `tdvisor_td_exits_total` | counter | `td`, `vcpu`, `reason` |
//! | `tdvisor_kvm_exits_total` | counter: how often KVM came back from a TD's vCPUs | `td`, `reason` |
//! | `tdvisor_ept_violations_total` | counter | |
//! | `tdvisor_td_private_bytes` | gauge | `td`, `level` |
//! | `tdvisor_td_shared_bytes` | gauge: what is mapped of it, as [`TdMetrics::shared`] was told last | `td`, `level` |
//! | `tdvisor_conversions_total` | counter: requests of guests | `direction` |
//! | `tdvisor_td_state` | gauge: TDs in this state | `state` |
//! | `tdvisor_audit_mismatches` | gauge: TDs whose mirror, Secure EPT and PAMT differed at their end | |
//! | `tdvisor_build_info` | info | `version` |
//!
//! # Bounds
//! What a guest chooses names no label: reasons are [`ExitKind`]s, or KVM's, leaves are those of SEAMCALLs that the host made, and
//! [`TdMetrics::forget`] takes away what is named after a TD.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use machine_emu::trace::{CallObserver, ObservedCall};
use mirror_ept::LevelCounts;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use td_host::platform::LpId;
use td_host::vcpu::ExitKind;
use tdvisor_base::{Level, Side};
use tdvisor_kvm::ExitKind as KvmExitKind;
use tdvisor_vm::Ending;
use tdx_module_iface::exit::ExitReason;
use tdx_module_iface::handles::GpaLevel;
use tdx_module_iface::tdh::TdExit;
use tdx_module_iface::{LeafWord, Status, StatusCode, TdhLeaf};

use crate::drive::Happening;
use crate::kvm::KvmEvent;
use crate::machine::Event;
use crate::report::{Audit, Report};

/// Names and values of labels.
type Labels = Vec<(&'static str, String)>;

/// The shortest call that the histogram tells from others, and how much longer those of the next bucket are.
const FIRST_BUCKET: f64 = 1e-6;
const BUCKET_FACTOR: f64 = 4.0;
const BUCKETS: u16 = 12;

/// Levels that pages of shared memory have.
const SIZES: [Level; 3] = [Level::L4K, Level::L2M, Level::L1G];

/// States of a TD, as [`TdMetrics`] counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Building,
    Running,
    Paused,
    Ended,
    Died,
}

impl State {
    #[cfg(test)]
    const ALL: [Self; 5] = [Self::Building, Self::Running, Self::Paused, Self::Ended, Self::Died];

    const fn name(self) -> &'static str {
        match self {
            Self::Building => "building",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Ended => "ended",
            Self::Died => "died",
        }
    }
}

/// The numbers of a process.
pub struct Metrics {
    registry: Registry,
    seamcalls: Family<Labels, Counter>,
    durations: Histogram,
    busy: Family<Labels, Counter>,
    exits: Family<Labels, Counter>,
    kvm_exits: Family<Labels, Counter>,
    violations: Counter,
    private: Family<Labels, Gauge>,
    shared: Family<Labels, Gauge>,
    conversions: Family<Labels, Counter>,
    states: Family<Labels, Gauge>,
    mismatches: Gauge,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// All zero.
    pub fn new() -> Arc<Self> {
        let mut all = Self {
            registry: Registry::with_prefix("tdvisor"),
            seamcalls: Family::default(),
            durations: Histogram::new(exponential_buckets(FIRST_BUCKET, BUCKET_FACTOR, BUCKETS)),
            busy: Family::default(),
            exits: Family::default(),
            kvm_exits: Family::default(),
            violations: Counter::default(),
            private: Family::default(),
            shared: Family::default(),
            conversions: Family::default(),
            states: Family::default(),
            mismatches: Gauge::default(),
        };
        let registry = &mut all.registry;
        registry.register(
            "seamcalls",
            "SEAMCALLs by leaf and what the module answered",
            all.seamcalls.clone(),
        );
        registry.register(
            "seamcall_duration_seconds",
            "How long SEAMCALLs took, but for TDH.VP.ENTER",
            all.durations.clone(),
        );
        registry.register("busy_retries", "SEAMCALLs that found the module busy", all.busy.clone());
        registry.register("td_exits", "How often vCPUs left their guests", all.exits.clone());
        registry.register("kvm_exits", "How often KVM came back from vCPUs", all.kvm_exits.clone());
        registry.register("ept_violations", "Exits for memory that was not mapped", all.violations.clone());
        registry.register("td_private_bytes", "Private memory by the size of its pages", all.private.clone());
        registry.register(
            "td_shared_bytes",
            "Memory that is mapped as shared, by the size of its pages",
            all.shared.clone(),
        );
        registry.register(
            "conversions",
            "Conversions of memory that guests asked for",
            all.conversions.clone(),
        );
        registry.register("td_state", "TDs by what they do", all.states.clone());
        registry.register(
            "audit_mismatches",
            "TDs whose mirror, Secure EPT and PAMT differed at their end",
            all.mismatches.clone(),
        );
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION").to_owned())]);
        registry.register("build", "What program this is", build);
        Arc::new(all)
    }

    /// All numbers in the OpenMetrics form.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }

    /// The numbers of a TD that is about to be built. Its vCPUs run on the processors from 1 on.
    pub fn td(self: &Arc<Self>, name: impl Into<String>) -> Arc<TdMetrics> {
        let td = TdMetrics {
            all: self.clone(),
            td: name.into(),
            state: Mutex::new(State::Building),
            exits: Mutex::default(),
            kvm_exits: Mutex::default(),
        };
        self.count(State::Building).inc();
        Arc::new(td)
    }

    fn count(&self, state: State) -> Gauge {
        self.states.get_or_create_owned(&vec![("state", state.name().to_owned())])
    }
}

/// The numbers of a TD.
#[derive(Debug)]
pub struct TdMetrics {
    all: Arc<Metrics>,
    td: String,
    state: Mutex<State>,
    /// What was counted of its exits, by vCPU and reason.
    exits: Mutex<BTreeMap<(u32, ExitKind), Counter>>,
    /// How many of its exits from KVM were counted, by reason.
    kvm_exits: Mutex<BTreeMap<KvmExitKind, u64>>,
}

impl TdMetrics {
    /// Takes note of an event of the TD's session.
    pub fn event(&self, event: &Event<'_>) {
        match event {
            Event::BringUp(_) | Event::Build(_) | Event::Built => {}
            Event::Running => self.is(State::Running),
            Event::Happened(happening) => self.happened(happening),
            Event::Ended(ending) => self.ended(ending),
        }
    }

    /// Takes note of an event of the session of a TD on KVM.
    pub fn kvm_event(&self, event: &KvmEvent<'_>) {
        match event {
            KvmEvent::Added { .. } | KvmEvent::Built => {}
            KvmEvent::Running => self.is(State::Running),
            KvmEvent::Happened(happening) => self.happened(happening),
            KvmEvent::Ended(ending) => self.ended(ending),
        }
    }

    /// Takes note of how often KVM has come back from the TD's vCPUs by now.
    pub fn kvm_exits(&self, exits: &BTreeMap<KvmExitKind, u64>) {
        let mut counted = lock(&self.kvm_exits);
        for (reason, now) in exits {
            let before = counted.insert(*reason, *now).unwrap_or_default();
            self.all.kvm_exits.get_or_create(&self.of_kvm_exit(*reason)).inc_by(now.saturating_sub(before));
        }
    }

    fn happened(&self, happening: &Happening) {
        match happening {
            Happening::Resumed => self.is(State::Running),
            Happening::Paused => self.is(State::Paused),
            Happening::Quoted { .. } => {}
            Happening::Converted(conversion) => {
                let direction = match conversion.to {
                    Side::Private => "private",
                    Side::Shared => "shared",
                };
                self.all.conversions.get_or_create(&vec![("direction", direction.to_owned())]).inc();
            }
        }
    }

    /// Takes note of how much shared memory is mapped: no call of the module says so.
    pub fn shared(&self, mapped: &LevelCounts) {
        for level in SIZES {
            let bytes = i64::try_from(mapped.leaves(level).saturating_mul(level.bytes())).unwrap_or(i64::MAX);
            self.all.shared.get_or_create(&self.of_level(level)).set(bytes);
        }
    }

    /// Takes note of how much private memory a TD has that goes on from a snapshot: of what came before there are no calls.
    pub fn private(&self, mapped: &LevelCounts) {
        for level in SIZES {
            let bytes = i64::try_from(mapped.leaves(level).saturating_mul(level.bytes())).unwrap_or(i64::MAX);
            self.all.private.get_or_create(&self.of_level(level)).set(bytes);
        }
    }

    fn ended<D>(&self, ending: &Ending<D>) {
        self.is(if matches!(ending, Ending::Died(_)) { State::Died } else { State::Ended });
    }

    /// Takes note of what is said of the TD at its end.
    pub fn report(&self, report: &Report) {
        self.shared(&report.shared);
        if matches!(report.audit, Audit::Failed(_)) {
            self.all.mismatches.inc();
        }
    }

    /// Takes away what is named after the TD, which is gone.
    pub fn forget(&self) {
        self.all.count(*lock(&self.state)).dec();
        for level in Level::ALL {
            self.all.private.remove(&self.of_level(level));
            self.all.shared.remove(&self.of_level(level));
        }
        for (vcpu, reason) in std::mem::take(&mut *lock(&self.exits)).into_keys() {
            self.all.exits.remove(&self.of_exit(vcpu, reason));
        }
        for reason in std::mem::take(&mut *lock(&self.kvm_exits)).into_keys() {
            self.all.kvm_exits.remove(&self.of_kvm_exit(reason));
        }
    }

    fn is(&self, now: State) {
        let mut state = lock(&self.state);
        self.all.count(*state).dec();
        self.all.count(now).inc();
        *state = now;
    }

    fn of_level(&self, level: Level) -> Labels {
        vec![("td", self.td.clone()), ("level", level.to_string())]
    }

    fn of_exit(&self, vcpu: u32, reason: ExitKind) -> Labels {
        vec![("td", self.td.clone()), ("vcpu", vcpu.to_string()), ("reason", reason.to_string())]
    }

    fn of_kvm_exit(&self, reason: KvmExitKind) -> Labels {
        vec![("td", self.td.clone()), ("reason", reason.to_string())]
    }

    fn exited(&self, lp: LpId, exit: &TdExit) {
        if let TdExit::Async(exit) = exit
            && exit.reason.basic() == ExitReason::EPT_VIOLATION
        {
            self.all.violations.inc();
        }
        // Processor 0 is the host's own; vCPUs have the others in their order.
        let (vcpu, reason) = (lp.0.saturating_sub(1), ExitKind::of(exit));
        let mut exits = lock(&self.exits);
        let counter = exits
            .entry((vcpu, reason))
            .or_insert_with(|| self.all.exits.get_or_create_owned(&self.of_exit(vcpu, reason)));
        counter.inc();
    }

    fn private_memory(&self, level: Level, change: i64) {
        self.all.private.get_or_create(&self.of_level(level)).inc_by(change);
    }

    /// What a successful call makes of private memory.
    fn changed(&self, leaf: TdhLeaf, at: Option<Level>) {
        let Some(level) = at else { return };
        let Ok(bytes) = i64::try_from(level.bytes()) else { return };
        match leaf {
            TdhLeaf::MEM_PAGE_ADD | TdhLeaf::MEM_PAGE_AUG => self.private_memory(level, bytes),
            TdhLeaf::MEM_PAGE_REMOVE => self.private_memory(level, -bytes),
            TdhLeaf::MEM_PAGE_DEMOTE => {
                self.private_memory(level, -bytes);
                level.down().into_iter().for_each(|below| self.private_memory(below, bytes));
            }
            TdhLeaf::MEM_PAGE_PROMOTE => {
                self.private_memory(level, bytes);
                level.down().into_iter().for_each(|below| self.private_memory(below, -bytes));
            }
            _ => {}
        }
    }
}

impl CallObserver for TdMetrics {
    fn called(&self, call: &ObservedCall<'_>) {
        let leaf = TdhLeaf(LeafWord(call.before.rax).leaf());
        let status = Status::from_raw(call.after.rax);
        let answer = if call.reached { status.code().to_string() } else { "not reached".to_owned() };
        self.all.seamcalls.get_or_create(&vec![("leaf", leaf.to_string()), ("status", answer)]).inc();
        if leaf != TdhLeaf::VP_ENTER {
            self.all.durations.observe(call.took.as_secs_f64());
        }
        if !call.reached {
            return;
        }
        if is_busy(status) {
            self.all.busy.get_or_create(&vec![("leaf", leaf.to_string())]).inc();
        }
        if leaf == TdhLeaf::VP_ENTER
            && let Some(exit) = TdExit::from_gprs(call.after)
        {
            self.exited(call.lp, &exit);
        }
        if status.is_success() {
            self.changed(leaf, GpaLevel::from_word(call.before.rcx).map(GpaLevel::level));
        }
    }
}

/// Whether the module refused a call because something was in use.
fn is_busy(status: Status) -> bool {
    matches!(
        status.code(),
        StatusCode::OPERAND_BUSY | StatusCode::SYS_BUSY | StatusCode::PREVIOUS_TLB_EPOCH_BUSY
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tdx_module_iface::Gprs;

    use super::*;

    fn call(td: &TdMetrics, leaf: TdhLeaf, rcx: u64, status: u64) {
        let before = Gprs { rax: u64::from(leaf.0), rcx, ..Gprs::ZERO };
        let after = Gprs { rax: status, ..Gprs::ZERO };
        let took = Duration::from_micros(3);
        td.called(&ObservedCall { lp: LpId(1), before: &before, after: &after, reached: true, took });
    }

    #[track_caller]
    fn has(metrics: &Metrics, line: &str) {
        let text = metrics.text();
        assert!(text.lines().any(|other| other == line), "'{line}' is not in:\n{text}");
    }

    /// A status: OPERAND_BUSY with an operand.
    const BUSY: u64 = 0x8000_0200_0000_0001;

    #[test]
    fn calls_are_counted_by_leaf_and_answer_and_private_memory_follows_them() {
        let metrics = Metrics::new();
        let td = metrics.td("one");
        call(&td, TdhLeaf::MEM_PAGE_AUG, 0x20_0001, 0);
        call(&td, TdhLeaf::MEM_PAGE_AUG, 0x40_0001, BUSY);
        has(&metrics, "tdvisor_seamcalls_total{leaf=\"TDH.MEM.PAGE.AUG\",status=\"SUCCESS\"} 1");
        has(&metrics, "tdvisor_busy_retries_total{leaf=\"TDH.MEM.PAGE.AUG\"} 1");
        has(&metrics, "tdvisor_td_private_bytes{td=\"one\",level=\"2M\"} 2097152");
        has(&metrics, "tdvisor_seamcall_duration_seconds_count 2");
        call(&td, TdhLeaf::MEM_PAGE_DEMOTE, 0x20_0001, 0);
        call(&td, TdhLeaf::MEM_PAGE_REMOVE, 0x20_0000, 0);
        has(&metrics, "tdvisor_td_private_bytes{td=\"one\",level=\"2M\"} 0");
        has(&metrics, "tdvisor_td_private_bytes{td=\"one\",level=\"4K\"} 2093056");
    }

    #[test]
    fn shared_memory_is_what_was_told_last_of_its_mappings() {
        let metrics = Metrics::new();
        let td = metrics.td("one");
        td.shared(&LevelCounts { leaves_4k: 3, leaves_2m: 1, ..LevelCounts::default() });
        has(&metrics, "tdvisor_td_shared_bytes{td=\"one\",level=\"4K\"} 12288");
        has(&metrics, "tdvisor_td_shared_bytes{td=\"one\",level=\"2M\"} 2097152");
        td.shared(&LevelCounts::default());
        has(&metrics, "tdvisor_td_shared_bytes{td=\"one\",level=\"4K\"} 0");
    }

    #[test]
    fn a_td_that_is_gone_leaves_no_number_that_is_named_after_it() {
        let metrics = Metrics::new();
        let td = metrics.td("gone");
        td.event(&Event::Running);
        call(&td, TdhLeaf::MEM_PAGE_ADD, 0x1000, 0);
        td.shared(&LevelCounts { leaves_4k: 1, ..LevelCounts::default() });
        call(&td, TdhLeaf::VP_ENTER, 0, u64::from(ExitReason::EPT_VIOLATION.0));
        has(&metrics, "tdvisor_ept_violations_total 1");
        assert!(metrics.text().contains("vcpu=\"0\""), "{}", metrics.text());
        td.event(&Event::Ended(&Ending::Stopped));
        has(&metrics, "tdvisor_td_state{state=\"ended\"} 1");
        td.forget();
        assert!(!metrics.text().contains("gone"), "{}", metrics.text());
        has(&metrics, "tdvisor_td_state{state=\"ended\"} 0");
    }

    #[test]
    fn exits_from_kvm_are_counted_once_however_often_they_are_told_and_go_with_their_td() {
        let metrics = Metrics::new();
        let td = metrics.td("one");
        td.kvm_event(&KvmEvent::Running);
        has(&metrics, "tdvisor_td_state{state=\"running\"} 1");
        for io in [3, 3, 5] {
            td.kvm_exits(&BTreeMap::from([(KvmExitKind::Io, io)]));
        }
        has(&metrics, "tdvisor_kvm_exits_total{td=\"one\",reason=\"IO\"} 5");
        td.kvm_event(&KvmEvent::Ended(&Ending::Stopped));
        has(&metrics, "tdvisor_td_state{state=\"ended\"} 1");
        td.forget();
        assert!(!metrics.text().contains("one"), "{}", metrics.text());
    }

    #[test]
    fn every_state_that_tds_can_be_in_is_counted() {
        let metrics = Metrics::new();
        let td = metrics.td("one");
        let (paused, resumed) = (Event::Happened(Happening::Paused), Event::Happened(Happening::Resumed));
        for (event, state) in [(Event::Running, "running"), (paused, "paused"), (resumed, "running")] {
            td.event(&event);
            for other in State::ALL.map(State::name) {
                let count = u8::from(other == state);
                if metrics.text().contains(other) {
                    has(&metrics, &format!("tdvisor_td_state{{state=\"{other}\"}} {count}"));
                }
            }
        }
    }
}
