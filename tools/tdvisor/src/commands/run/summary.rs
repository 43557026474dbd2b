//! What a run leaves to say.

use std::collections::BTreeMap;
use std::time::Duration;

use guest_command::protocol::End;
use machine_emu::Hardware;
use serde_json::{Value, json};
use td_image::digest::Digest384;
use tdvisor_attest::Hex;
use tdvisor_inspector::Symbols;
use tdvisor_runtime::kvm::KvmReport;
use tdvisor_runtime::{Audit, Report};

use super::in_guest;
use crate::outcome::Failure;

/// How a TD ended, whoever ran it.
pub type Ending<D> = tdvisor_vm::Ending<D>;

/// What ran the TD.
enum Backend {
    /// The emulated machine.
    Emulated(Hardware),
    /// Linux's KVM, and the features that the TD could not have.
    Kvm(Vec<String>),
}

/// The facts of a run.
pub struct Summary {
    backend: Backend,
    ending: Ending<String>,
    mrtd: Option<[u8; 48]>,
    predicted: Digest384,
    /// RTMR0 to RTMR3 at the end, as the emulated module holds them.
    rtmrs: Option<[[u8; 48]; 4]>,
    exits: BTreeMap<String, u64>,
    calls: BTreeMap<String, u64>,
    private_leaves: BTreeMap<&'static str, u64>,
    shared_leaves: BTreeMap<&'static str, u64>,
    frames_converted: u64,
    audit: Result<u64, String>,
    lost: Vec<String>,
    violations: Vec<String>,
    limits: Vec<String>,
    shutdowns: Vec<String>,
    /// Of a TD that died or met a limit: its last exits by processor, and the last SEAMCALLs.
    last_exits: BTreeMap<u32, Vec<String>>,
    last_calls: Vec<String>,
    /// From the start of the program to the end of the teardown.
    pub wall_time: Duration,
    /// What the guest's kernel said, on its console, when it panicked.
    pub panic: Option<String>,
    /// The time was up.
    pub timed_out: bool,
    /// What a user might try next.
    pub hint: Option<String>,
    /// How the command after `--` ended, if there was one and it is known.
    pub command: Option<End>,
    /// A debugger could see and change what the guest holds.
    pub debugger: bool,
    /// The host could look into the guest.
    pub inspectable: bool,
    /// The file that the TD was saved to, and its size.
    pub saved: Option<String>,
}

impl Summary {
    /// What a session's report says, of a TD on this hardware; places that may be shown are named.
    pub fn of(
        report: Report,
        predicted: Digest384,
        privacy: Privacy,
        hardware: Hardware,
        symbols: &Symbols,
    ) -> Self {
        let by_level = |counts: &mirror_ept::LevelCounts| {
            BTreeMap::from([("4K", counts.leaves_4k), ("2M", counts.leaves_2m), ("1G", counts.leaves_1g)])
        };
        let mut exits = BTreeMap::new();
        for (kind, count) in report.exits() {
            *exits.entry(kind.to_string()).or_insert(0) += count;
        }
        let needs_a_trail = matches!(report.ending, Ending::Died(_)) || !report.limits.is_empty();
        let mut last_exits = BTreeMap::new();
        let mut last_calls = Vec::new();
        if needs_a_trail {
            for (lp, exits) in &report.last_exits {
                last_exits
                    .insert(lp.0, exits.iter().filter_map(|exit| privacy.exit(exit, symbols)).collect());
            }
            last_calls = report.last_calls.iter().map(ToString::to_string).collect();
        }
        Self {
            last_exits,
            last_calls,
            backend: Backend::Emulated(hardware),
            mrtd: report.mrtd,
            predicted,
            rtmrs: report.rtmrs,
            exits,
            private_leaves: by_level(&report.private),
            shared_leaves: by_level(&report.shared),
            frames_converted: report.frames_converted,
            audit: match &report.audit {
                Audit::Agreed { entries } => Ok(*entries),
                Audit::NotPossible => Ok(0),
                Audit::Failed(error) => Err(error.to_string()),
            },
            lost: report.losses(),
            violations: report.violations.iter().map(ToString::to_string).collect(),
            limits: report.limits.iter().map(|limit| privacy.limit(limit)).collect(),
            shutdowns: report.shutdowns.iter().map(|shutdown| privacy.shutdown(shutdown)).collect(),
            calls: report.calls,
            ending: described(report.ending),
            wall_time: Duration::ZERO,
            panic: None,
            timed_out: false,
            hint: None,
            command: None,
            debugger: false,
            inspectable: false,
            saved: None,
        }
    }

    /// What a session on KVM says.
    pub fn of_kvm(report: KvmReport, predicted: Digest384) -> Self {
        Self {
            backend: Backend::Kvm(report.dropped_features.iter().map(ToString::to_string).collect()),
            ending: described(report.ending),
            mrtd: None,
            predicted,
            rtmrs: None,
            exits: report.exits.into_iter().map(|(kind, count)| (kind.to_string(), count)).collect(),
            calls: BTreeMap::new(),
            private_leaves: BTreeMap::new(),
            shared_leaves: BTreeMap::new(),
            frames_converted: report.frames_converted,
            audit: Ok(0),
            lost: Vec::new(),
            violations: Vec::new(),
            limits: Vec::new(),
            shutdowns: Vec::new(),
            last_exits: BTreeMap::new(),
            last_calls: Vec::new(),
            wall_time: Duration::ZERO,
            panic: None,
            timed_out: false,
            hint: None,
            command: None,
            debugger: false,
            inspectable: false,
            saved: None,
        }
    }

    /// How the TD ended.
    pub const fn ending(&self) -> &Ending<String> {
        &self.ending
    }

    /// The first fault of tdvisor itself that the run showed.
    pub fn fault(&self) -> Option<Failure> {
        // A limit comes first: whatever else went wrong may follow from it.
        if let Some(limit) = self.limits.first() {
            return Some(Failure::Limit(limit.clone()));
        }
        let measured_wrong = self
            .mrtd
            .filter(|mrtd| *mrtd != self.predicted.0)
            .map(|_| "the MRTD differs from the image's".to_owned());
        measured_wrong
            .or_else(|| self.audit.as_ref().err().map(|error| format!("audit: {error}")))
            .or_else(|| self.lost.first().cloned())
            .or_else(|| self.violations.first().cloned())
            .map(Failure::Internal)
    }

    /// How the run ended, in a sentence.
    fn headline(&self) -> String {
        match (&self.ending, &self.panic) {
            (Ending::Stopped, _) if self.saved.is_some() => "the TD was saved, and stopped there".to_owned(),
            (Ending::Stopped, _) if self.timed_out => "the TD was stopped: its time was up".to_owned(),
            (Ending::Reset, Some(words)) => {
                format!("the guest asked for a reboot, after its console said '{words}': the TD ends here")
            }
            (Ending::Panicked, Some(words)) => format!("{}: '{words}'", self.ending),
            _ => self.ending.to_string(),
        }
    }

    fn matches(&self) -> Option<bool> {
        self.mrtd.map(|mrtd| mrtd == self.predicted.0)
    }

    /// For people, several lines.
    pub fn to_text(&self, detail: Detail) -> String {
        use std::fmt::Write;
        if detail == Detail::Quiet {
            let ended_well = matches!(self.ending, Ending::PoweredOff { code: 0 }) || self.saved.is_some();
            let succeeded = ended_well && self.fault().is_none();
            return if succeeded { String::new() } else { format!("{}\n", self.headline()) };
        }
        let most = if detail == Detail::Full { usize::MAX } else { MOST_COUNTS };
        let mut text = format!("\n{}\n", self.headline());
        if let Some(hint) = &self.hint {
            text.push_str(hint);
            text.push('\n');
        }
        // Writing to a string cannot fail.
        let mut line = |label: &str, value: String| {
            let _ = writeln!(text, "  {label:<10} {value}");
        };
        let why_not_readable = match &self.backend {
            Backend::Emulated(Hardware { module, processor, .. }) => {
                line("module", format!("{module}, by {}, on {}", module.backing(), processor.model));
                "not readable any more"
            }
            Backend::Kvm(dropped) => {
                line("on", "Linux's KVM".to_owned());
                if detail == Detail::Full {
                    dropped.iter().for_each(|feature| line("without", feature.clone()));
                }
                "KVM lets no host read it"
            }
        };
        match (self.mrtd, self.matches()) {
            (Some(mrtd), Some(true)) => line("MRTD", format!("{} matches the image", Hex(&mrtd))),
            (Some(mrtd), _) => {
                line("MRTD", format!("{} DIFFERS from the image's {}", Hex(&mrtd), self.predicted));
            }
            (None, _) => line("MRTD", format!("{why_not_readable}; the image's is {}", self.predicted)),
        }
        if self.debugger {
            line("gdb", "could see and change what the guest held".to_owned());
        }
        if self.inspectable {
            line("secrecy", "given up: the host could look at what the guest held".to_owned());
        }
        for (index, value) in self.rtmrs.iter().flatten().enumerate() {
            line(&format!("RTMR{index}"), format!("{} (in the emulated module)", Hex(value)));
        }
        if let Some(saved) = &self.saved {
            line("snapshot", saved.clone());
        }
        line("exits", list(&self.exits, most));
        let is_emulated = matches!(self.backend, Backend::Emulated(_));
        if is_emulated {
            line("SEAMCALLs", list(&self.calls, most));
            line("private", list(&self.private_leaves, most));
            line("shared", list(&self.shared_leaves, most));
        }
        line("converted", format!("{} pages of 4K", self.frames_converted));
        match &self.audit {
            _ if !is_emulated => {}
            Ok(0) => line("audit", "not possible: the TD is dead".to_owned()),
            Ok(entries) => line("audit", format!("mirror = S-EPT = PAMT in all {entries} entries")),
            Err(error) => line("audit", format!("FAILED: {error}")),
        }
        if self.lost.is_empty() && is_emulated {
            line("teardown", "every page and the key id came back".to_owned());
        }
        for lost in self.lost.iter().chain(&self.violations) {
            line("LOST", lost.clone());
        }
        for limit in &self.limits {
            line("LIMIT", limit.clone());
        }
        for shutdown in &self.shutdowns {
            line("shutdown", shutdown.clone());
        }
        for (lp, exits) in &self.last_exits {
            line("last", format!("exits on LP {lp}: {}", newest(exits, most)));
        }
        if !self.last_calls.is_empty() {
            line("last", format!("SEAMCALLs: {}", newest(&self.last_calls, most)));
        }
        line("time", format!("{:.3} s", self.wall_time.as_secs_f64()));
        text
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        let ending = match &self.ending {
            Ending::PoweredOff { code } => json!({"kind": "powered-off", "code": code}),
            Ending::FatalError { code, message } => {
                json!({"kind": "fatal-error", "code": code, "message": message})
            }
            Ending::Died(death) => json!({"kind": "died", "why": death}),
            Ending::Reset => json!({"kind": "reset"}),
            Ending::Panicked => json!({"kind": "panicked"}),
            Ending::Stopped if self.saved.is_some() => json!({"kind": "saved"}),
            Ending::Stopped if self.timed_out => json!({"kind": "timed-out"}),
            Ending::Stopped => json!({"kind": "stopped"}),
        };
        let rtmrs: BTreeMap<String, String> = (0..)
            .zip(self.rtmrs.iter().flatten())
            .map(|(index, value): (u32, _)| (format!("RTMR{index}"), Hex(value).to_string()))
            .collect();
        // What only an emulated machine knows is null on another.
        let (backend, module, processor) = match &self.backend {
            Backend::Emulated(Hardware { module, processor, .. }) => (
                "emulated",
                json!({"profile": module.name(), "backed_by": module.backing().to_string()}),
                json!(processor.model.name()),
            ),
            Backend::Kvm(_) => ("kvm", Value::Null, Value::Null),
        };
        let audit = match (&self.backend, &self.audit) {
            (Backend::Kvm(_), _) => Value::Null,
            (_, Ok(entries)) => json!({"ok": *entries != 0, "entries": entries}),
            (_, Err(error)) => json!({"ok": false, "error": error}),
        };
        let without: &[String] = match &self.backend {
            Backend::Emulated(_) => &[],
            Backend::Kvm(dropped) => dropped,
        };
        json!({
            "schema": JSON_SCHEMA,
            "backend": backend,
            "module": module,
            "processor": processor,
            "without": without,
            "ending": ending,
            "console_panic": self.panic,
            "hint": self.hint,
            "command": in_guest::to_json(self.command),
            "debugger": self.debugger,
            "inspectable": self.inspectable,
            "snapshot": self.saved,
            "mrtd": self.mrtd.map(|mrtd| Hex(&mrtd).to_string()),
            "mrtd_of_image": self.predicted.to_string(),
            "mrtd_matches": self.matches(),
            "rtmrs": rtmrs,
            "exits": self.exits,
            "seamcalls": self.calls,
            "private_pages": self.private_leaves,
            "shared_pages": self.shared_leaves,
            "frames_converted": self.frames_converted,
            "audit": audit,
            "lost": self.lost,
            "violations": self.violations,
            "limits": self.limits,
            "shutdowns": self.shutdowns,
            "last_exits": self.last_exits,
            "last_calls": self.last_calls,
            "wall_seconds": self.wall_time.as_secs_f64(),
        })
    }
}

/// An ending with the reason of a death in words.
fn described<D: std::fmt::Display>(ending: Ending<D>) -> Ending<String> {
    match ending {
        Ending::PoweredOff { code } => Ending::PoweredOff { code },
        Ending::FatalError { code, message } => Ending::FatalError { code, message },
        Ending::Reset => Ending::Reset,
        Ending::Panicked => Ending::Panicked,
        Ending::Stopped => Ending::Stopped,
        Ending::Died(death) => Ending::Died(death.to_string()),
    }
}

/// Counts that one line shows; the others are added up, and `-v` shows them.
const MOST_COUNTS: usize = 6;

/// The counts that are not zero: at most so many, the largest, by name.
fn list<K: std::fmt::Display + Ord>(counts: &BTreeMap<K, u64>, most: usize) -> String {
    let mut largest: Vec<_> = counts.iter().filter(|(_, count)| **count != 0).collect();
    if largest.is_empty() {
        return "none".to_owned();
    }
    largest.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let others = largest.split_off(most.min(largest.len()));
    largest.sort();
    let mut items: Vec<String> = largest.iter().map(|(name, count)| format!("{name} {count}")).collect();
    if !others.is_empty() {
        let sum: u64 = others.iter().map(|(_, count)| **count).sum();
        items.push(format!("{} other kinds {sum}", others.len()));
    }
    items.join(", ")
}

/// The newest entries, at most so many, oldest first; equal neighbours are one.
fn newest(entries: &[String], most: usize) -> String {
    let runs: Vec<String> = entries
        .chunk_by(|one, next| one == next)
        .filter_map(|run| Some((run.first()?, run.len())))
        .map(|(entry, times)| if times == 1 { entry.clone() } else { format!("{entry} ({times} times)") })
        .collect();
    let from = runs.len().saturating_sub(most);
    runs.get(from..).unwrap_or(&runs).join(", ")
}

/// How much of a summary is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Nothing of a success, one line of anything else.
    Quiet,
    /// What fits in short lines.
    Usual,
    /// Every count.
    Full,
}

/// The version of the JSON form, `schemas/run.schema.json`. It changes when a field goes away or means something else.
const JSON_SCHEMA: u32 = 2;

/// What of a guest's private state may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privacy {
    /// The TD is in debug mode, or inspectable: all of it.
    Debug,
    /// None of it.
    Confidential,
}

impl Privacy {
    fn limit(self, limit: &seam_emu::EmulatorLimit) -> String {
        match self {
            Self::Debug => format!("emulated processor {}: {}", limit.lp, limit.what),
            Self::Confidential => format!("{limit} (--debug shows the instruction)"),
        }
    }

    /// An exit, with where it was or without; nothing of one that only the module saw.
    fn exit(self, exit: &seam_emu::GuestExit, symbols: &Symbols) -> Option<String> {
        match self {
            Self::Debug => {
                let name = symbols.place(exit.rip).map(|name| format!(" ({name})")).unwrap_or_default();
                Some(format!("{exit} at {:#x}{name}", exit.rip))
            }
            Self::Confidential => exit.reached_host.then(|| exit.to_string()),
        }
    }

    fn shutdown(self, shutdown: &seam_emu::GuestShutdown) -> String {
        match self {
            Self::Debug => format!("emulated processor {}: {}", shutdown.lp, shutdown.what),
            Self::Confidential => format!("{shutdown} (--debug shows where)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use seam_emu::{EmulatorLimit, GuestCall, GuestExit, Unimplemented};
    use tdx_module_iface::TdgLeaf;
    use tdx_module_iface::exit::ExitReason;

    use super::*;

    #[test]
    fn a_line_shows_the_largest_counts_and_adds_the_others_up() {
        let counts = BTreeMap::from([("a", 1), ("b", 50), ("c", 0), ("d", 7), ("e", 9)]);
        assert_eq!(list(&counts, 2), "b 50, e 9, 2 other kinds 8");
        assert_eq!(list(&counts, usize::MAX), "a 1, b 50, d 7, e 9");
        assert_eq!(list(&BTreeMap::from([("a", 0)]), 2), "none");
    }

    #[test]
    fn what_a_confidential_guest_executes_is_not_shown() {
        let limit = EmulatorLimit {
            lp: 1,
            what: Unimplemented::in_64_bit_code(vec![0xdb, 0x2c, 0x24], 0xffff, "the instruction"),
        };
        let shown = Privacy::Confidential.limit(&limit);
        assert!(shown.contains("fld") && shown.contains("--debug"), "{shown}");
        assert!(!shown.contains("0xffff") && !shown.contains("db 2c") && !shown.contains("rsp"), "{shown}");
        assert!(Privacy::Debug.limit(&limit).contains("0xffff, bytes db 2c 24"));
    }

    #[test]
    fn of_a_confidential_guests_exits_those_are_shown_that_reached_the_host_and_not_where_they_were() {
        let exit = |reached_host| GuestExit {
            reason: ExitReason::TDCALL,
            call: Some(GuestCall::Module(TdgLeaf::MEM_PAGE_ACCEPT)),
            rip: 0xffff,
            reached_host,
        };
        let none = Symbols::default();
        let some = Symbols::read(b"000000000000fff0 T entry").unwrap();
        assert_eq!(
            Privacy::Debug.exit(&exit(false), &some).as_deref(),
            Some("TDG.MEM.PAGE.ACCEPT at 0xffff (entry+0xf)")
        );
        assert_eq!(
            Privacy::Debug.exit(&exit(false), &none).as_deref(),
            Some("TDG.MEM.PAGE.ACCEPT at 0xffff")
        );
        assert_eq!(Privacy::Confidential.exit(&exit(false), &none), None);
        assert_eq!(Privacy::Confidential.exit(&exit(true), &none).as_deref(), Some("TDG.MEM.PAGE.ACCEPT"));
        let entries = ["a", "b", "b", "c"].map(ToOwned::to_owned);
        assert_eq!(newest(&entries, 2), "b (2 times), c");
    }
}
