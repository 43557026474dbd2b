//! `--status`: how a machine is doing, in a line on stderr every so many seconds.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tdvisor_runtime::Watch;
use tdvisor_runtime::inspect::live::{Live, LiveKvmTd, LiveServer, LiveTd};

use crate::streams::Streams;

/// Option for lines of status.
#[derive(Debug, clap::Args)]
pub struct StatusLinesArgs {
    /// Say on stderr every so many seconds how the machine is doing: why its vCPUs left their guest, memory, conversions,
    /// SEAMCALLs.
    #[arg(long = "status", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    every: Option<u64>,
}

impl StatusLinesArgs {
    /// Where lines go to, if they were asked for.
    pub fn open(&self, streams: &Streams) -> Option<StatusLines> {
        let every = Duration::from_secs(self.every?);
        let started = Instant::now();
        Some(StatusLines { every, started, due: Mutex::new(started + every), streams: streams.clone() })
    }
}

/// Says how a machine is doing.
pub struct StatusLines {
    every: Duration,
    started: Instant,
    due: Mutex<Instant>,
    streams: Streams,
}

impl StatusLines {
    fn due(&self) -> MutexGuard<'_, Instant> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says it, if it is time.
    fn look(&self, machine: Live<'_>) {
        let now = Instant::now();
        {
            let mut due = self.due();
            if now < *due {
                return;
            }
            *due = now + self.every;
        }
        let line = match machine {
            Live::Td(td) => of_td(&td.look()),
            Live::Kvm(td) => of_kvm(&td.look()),
            Live::Server(server) => of_server(&server.look()),
        };
        self.streams.say(format_args!("tdvisor: {} s: {line}", now.duration_since(self.started).as_secs()));
    }
}

fn of_td(td: &LiveTd) -> String {
    /// Exit reasons that are named; the rest is in the sum.
    const NAMED: usize = 3;
    let vcpu = |(index, vcpu): (usize, &tdvisor_runtime::inspect::live::LiveVcpu)| {
        let mut exits: Vec<_> = vcpu.exits.iter().filter(|(_, count)| **count != 0).collect();
        exits.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let named: Vec<String> =
            exits.iter().take(NAMED).map(|(kind, count)| format!("{kind} {count}")).collect();
        let all: u64 = vcpu.exits.values().sum();
        format!("vCPU {index} {all} exits ({})", named.join(", "))
    };
    let vcpus: Vec<String> = td.vcpus.iter().enumerate().map(vcpu).collect();
    format!(
        "{}; {} frames private, {} shared, {} converted; {} SEAMCALLs",
        vcpus.join(", "),
        td.private.frames(),
        td.shared.frames(),
        td.frames_converted,
        sum(&td.calls)
    )
}

fn of_kvm(td: &LiveKvmTd) -> String {
    let exits: u64 = td.exits.values().sum();
    format!("{exits} exits; {} frames converted", td.frames_converted)
}

fn of_server(server: &LiveServer) -> String {
    let enters = server.calls.get("TDH.VP.ENTER").copied().unwrap_or_default();
    let violations = match server.violations {
        0 => String::new(),
        count => format!("; {count} violations"),
    };
    format!("{} SEAMCALLs, {enters} of them TDH.VP.ENTER{violations}", sum(&server.calls))
}

fn sum(calls: &BTreeMap<String, u64>) -> u64 {
    calls.values().sum()
}

/// A watch beside which it is said how the machine is doing.
pub struct Telling<'w, W> {
    watch: &'w W,
    lines: Option<StatusLines>,
}

impl<'w, W: Watch> Telling<'w, W> {
    /// Lines beside this watch, if there are some.
    pub const fn new(watch: &'w W, lines: Option<StatusLines>) -> Self {
        Self { watch, lines }
    }
}

impl<W: Watch> Watch for Telling<'_, W> {
    fn wants_stop(&self) -> bool {
        self.watch.wants_stop()
    }

    fn wait(&self) {
        self.watch.wait();
    }

    fn ring(&self) {
        self.watch.ring();
    }

    fn running(&self, machine: Live<'_>) {
        if let Some(lines) = &self.lines {
            lines.look(machine);
        }
        self.watch.running(machine);
    }
}
