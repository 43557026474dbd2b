//! What the page says of a TD beside what was inspected.

use std::fmt::Display;

use mirror_ept::LevelCounts;
use td_host::td::Ending;
use tdvisor_runtime::inspect::live::LiveTd;
use tdvisor_runtime::{Audit, Report};
use tdx_module_iface::td_params::attributes::SEPT_VE_DISABLE;

/// What the page says of a TD beside what was inspected.
#[derive(Clone, Debug)]
pub struct About {
    /// How the TD ended; `None` for one that is paused.
    pub ending: Option<Ending>,
    /// Whether an access to a page that is not accepted ends the TD (ATTRIBUTES.SEPT_VE_DISABLE).
    pub ve_disabled: bool,
    /// Names and values for people, in the order of the page.
    pub facts: Vec<(String, String)>,
    /// Calls by leaf, the machine's whole life.
    pub counts: Vec<(String, u64)>,
}

impl About {
    /// A TD with these ATTRIBUTES that has ended.
    #[must_use]
    pub fn of_ended(report: &Report, attributes: u64) -> Self {
        Self {
            ending: Some(report.ending.clone()),
            ve_disabled: attributes & SEPT_VE_DISABLE != 0,
            facts: facts(report),
            counts: report.calls.iter().map(|(leaf, count)| (leaf.clone(), *count)).collect(),
        }
    }

    /// A TD with these ATTRIBUTES that is paused.
    #[must_use]
    pub fn of_paused(td: &LiveTd, attributes: u64) -> Self {
        let mut facts = Vec::new();
        let mut fact = |name: &str, value: String| facts.push((name.to_owned(), value));
        fact("private pages", levels(&td.private));
        fact("shared pages", levels(&td.shared));
        fact("converted", format!("{} pages of 4K", td.frames_converted));
        for (index, vcpu) in td.vcpus.iter().enumerate() {
            fact(&format!("exits of vCPU {index}"), counted(&vcpu.exits));
        }
        Self {
            ending: None,
            ve_disabled: attributes & SEPT_VE_DISABLE != 0,
            facts,
            counts: td.calls.iter().map(|(leaf, count)| (leaf.clone(), *count)).collect(),
        }
    }
}

fn facts(report: &Report) -> Vec<(String, String)> {
    let mut facts = Vec::new();
    let mut fact = |name: &str, value: String| facts.push((name.to_owned(), value));
    if let Some(mrtd) = &report.mrtd {
        fact("MRTD", digits(mrtd));
    }
    for (index, rtmr) in report.rtmrs.iter().flatten().enumerate() {
        fact(&format!("RTMR{index}"), digits(rtmr));
    }
    let audit = match &report.audit {
        Audit::Agreed { entries } => format!("mirror = S-EPT = PAMT in all {entries} entries"),
        Audit::NotPossible => "not possible by the module's own calls: the TD is dead".to_owned(),
        Audit::Failed(error) => format!("FAILED: {error}"),
    };
    fact("audit", audit);
    fact("private pages", levels(&report.private));
    fact("shared pages", levels(&report.shared));
    fact("converted", format!("{} pages of 4K", report.frames_converted));
    fact("exits", counted(&report.exits()));
    for shutdown in &report.shutdowns {
        fact("shutdown", shutdown.to_string());
    }
    for limit in &report.limits {
        fact("limit of the emulator", limit.to_string());
    }
    let lost = report.losses();
    fact("teardown", if lost.is_empty() { "everything came back".to_owned() } else { lost.join("; ") });
    if let Ending::Died(death) = &report.ending {
        fact("to blame", format!("{:?}", death.blame()));
    }
    facts
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn counted<'k, K: Display + 'k>(counts: impl IntoIterator<Item = (&'k K, &'k u64)>) -> String {
    let all: Vec<_> = counts.into_iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    all.join(", ")
}

fn levels(counts: &LevelCounts) -> String {
    format!("{} of 4K, {} of 2M, {} of 1G", counts.leaves_4k, counts.leaves_2m, counts.leaves_1g)
}
