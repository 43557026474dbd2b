//! What a worker says of its TD: numbers, places and reasons, nothing that the guest holds, unless it was asked for as
//! inspectable: then where it was, too.

use std::collections::BTreeMap;
use std::fmt::Display;

use machine_emu::outlet::Loss;
use mirror_ept::LevelCounts;
use seam_emu::GuestExit;
use serde_json::{Value, json};
use td_image::digest::Digest384;
use tdvisor_runtime::backend::BackendKind;
use tdvisor_runtime::dump::Secrecy;
use tdvisor_runtime::inspect::Inspection;
use tdvisor_runtime::inspect::live::LiveTd;
use tdvisor_runtime::kvm::KvmReport;
use tdvisor_runtime::kvm::host::ExitKind as KvmExitKind;
use tdvisor_runtime::{Audit, Report};

/// The version of a report.
const SCHEMA: u32 = 1;
/// Hints of what the guest or the host did that are listed, each kind.
const LISTED: usize = 64;

/// Digits of bytes.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn levels(counts: &LevelCounts) -> Value {
    json!({"4K": counts.leaves_4k, "2M": counts.leaves_2m, "1G": counts.leaves_1g})
}

/// What was measured.
pub(super) fn measurements(
    mrtd: Option<[u8; 48]>,
    predicted: Digest384,
    rtmrs: Option<[[u8; 48]; 4]>,
) -> Value {
    json!({
        "mrtd": mrtd.map(|mrtd| hex(&mrtd)),
        "predicted_mrtd": hex(&predicted.0),
        "rtmrs": rtmrs.map(|rtmrs| rtmrs.map(|rtmr| hex(&rtmr))),
    })
}

/// How often vCPUs left their guests, and what memory they have.
pub(super) fn exits(td: &LiveTd) -> Value {
    let vcpus: Vec<Value> = td
        .vcpus
        .iter()
        .map(|vcpu| json!({"lp": vcpu.lp.0, "halted_for_good": vcpu.halted_for_good, "exits": by_reason(&vcpu.exits)}))
        .collect();
    json!({
        "vcpus": vcpus,
        "private_pages": levels(&td.private),
        "shared_pages": levels(&td.shared),
        "frames_converted": td.frames_converted,
    })
}

/// How often KVM came back from a TD's vCPUs, and what memory changed sides.
pub(super) fn kvm_exits(exits: &BTreeMap<KvmExitKind, u64>, frames_converted: u64) -> Value {
    let exits: BTreeMap<String, u64> = exits.iter().map(|(kind, count)| (kind.to_string(), *count)).collect();
    json!({"kvm_exits": exits, "frames_converted": frames_converted})
}

fn by_reason(exits: &BTreeMap<td_host::vcpu::ExitKind, u64>) -> BTreeMap<String, u64> {
    exits.iter().map(|(kind, count)| (kind.to_string(), *count)).collect()
}

/// At most so many entries of the page tables from an address on, and where the next begin.
pub(super) fn page_tables(inspection: &Inspection, from: u64, limit: usize) -> Value {
    let all = inspection.entries.iter().filter(|entry| from <= entry.gpa.get());
    let mut entries: Vec<_> = all.collect();
    entries.sort_by_key(|entry| (entry.gpa, entry.level, entry.side));
    // Those of one address stay together.
    let next = entries.get(limit).map(|entry| entry.gpa.get());
    if let Some(next) = next.filter(|next| entries.first().is_some_and(|first| first.gpa.get() != *next)) {
        entries.retain(|entry| entry.gpa.get() < next);
    }
    json!({
        "tdr": format!("{:#x}", inspection.tdr.get()),
        "entries": entries.into_iter().map(tdvisor_inspector::entry).collect::<Vec<_>>(),
        "next": next,
    })
}

fn first<T: ToString>(all: &[T]) -> Vec<String> {
    all.iter().take(LISTED).map(ToString::to_string).collect()
}

/// What is said of a TD, or all that there is to say where it may be looked into.
fn words(secrecy: Secrecy, said: &dyn Display, all: &dyn Display) -> String {
    match secrecy {
        Secrecy::Kept => said.to_string(),
        Secrecy::Inspectable => format!("{said}: {all}"),
    }
}

/// The last exits on each processor, oldest first: those that reached the host, and not where they were; all of them and where
/// they were of a TD that may be looked into.
fn last_exits(report: &Report) -> BTreeMap<u32, Vec<String>> {
    let words = |exit: &GuestExit| match report.secrecy {
        Secrecy::Kept => exit.reached_host.then(|| exit.to_string()),
        Secrecy::Inspectable => Some(format!("{exit} at {:#x}", exit.rip)),
    };
    report.last_exits.iter().map(|(lp, exits)| (lp.0, exits.iter().filter_map(words).collect())).collect()
}

/// What of a trace is not in its file.
pub(super) fn trace(beyond: u64, lost: Loss) -> Value {
    json!({"bytes_beyond_its_limit": beyond, "bytes_not_written": lost.not_taken, "failed": lost.failed.map(|kind| kind.to_string())})
}

/// What is said at the end.
pub(super) fn report(report: &Report, predicted: Digest384, ending: Value) -> Value {
    let audit = match &report.audit {
        Audit::Agreed { entries } => json!({"verdict": "agreed", "entries": entries}),
        Audit::NotPossible => json!({"verdict": "not-possible"}),
        Audit::Failed(error) => json!({"verdict": "failed", "reason": error.to_string()}),
    };
    json!({
        "schema": SCHEMA,
        "backend": BackendKind::Emulated,
        "inspectable": report.secrecy == Secrecy::Inspectable,
        "ending": ending,
        "measurements": measurements(report.mrtd, predicted, report.rtmrs),
        "exits": report.vcpu_exits.iter().map(by_reason).collect::<Vec<_>>(),
        "seamcalls": report.calls,
        "private_pages": levels(&report.private),
        "shared_pages": levels(&report.shared),
        "frames_converted": report.frames_converted,
        "audit": audit,
        "limits": first(&report.limits.iter().map(|limit| words(report.secrecy, limit, &limit.what)).collect::<Vec<_>>()),
        "violations": first(&report.violations),
        "shutdowns": first(&report.shutdowns.iter().map(|shutdown| words(report.secrecy, shutdown, &shutdown.what)).collect::<Vec<_>>()),
        "last_exits": last_exits(report),
        "last_calls": first(&report.last_calls),
        "losses": report.losses(),
    })
}

/// What is said at the end of a TD on KVM, into which nobody looks.
pub(super) fn of_kvm(report: &KvmReport, predicted: Digest384, ending: Value) -> Value {
    let mut said = kvm_exits(&report.exits, report.frames_converted);
    said["schema"] = json!(SCHEMA);
    said["backend"] = json!(BackendKind::Kvm);
    said["inspectable"] = json!(false);
    said["ending"] = ending;
    said["measurements"] = measurements(None, predicted, None);
    said["dropped_features"] = json!(first(&report.dropped_features));
    said
}
