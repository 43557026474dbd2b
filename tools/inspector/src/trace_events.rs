//! The calls in the trace-event form of Chrome, which ui.perfetto.dev opens: a lane for each logical processor, a slice for each
//! stay in a guest and each SEAMCALL, an instant for each ACCEPT of a guest, and a counter of private memory.

use machine_emu::journal::{Caller, Recorded};
use serde_json::{Value, json};
use tdvisor_runtime::inspect::Inspection;
use tdx_module_iface::handles::GpaLevel;
use tdx_module_iface::{LeafWord, Status, TdhLeaf};

use crate::calls::{Times, describe};

/// The process that the lanes belong to.
const TD: u32 = 1;

/// The calls that a machine's journal kept, as trace events. Times are microseconds from the first call on.
pub fn trace_events(inspection: &Inspection) -> Value {
    let time = Times::of(inspection);
    let mut events = names(inspection);
    let mut private = 0_u64;
    for call in &inspection.calls {
        events.push(event(call, &time));
        if let Some(change) = change_of_private(call) {
            private = private.saturating_add_signed(change);
            let at = time.at(call.at.saturating_add(call.took));
            events.push(json!({
                "ph": "C", "pid": TD, "name": "private memory", "ts": at, "args": {"bytes": private},
            }));
        }
    }
    json!({"displayTimeUnit": "ns", "traceEvents": events})
}

fn names(inspection: &Inspection) -> Vec<Value> {
    let name = |what: &str, tid: u32, name: String| json!({"ph": "M", "pid": TD, "tid": tid, "name": what, "args": {"name": name}});
    let mut all = vec![name("process_name", 0, format!("TD {}", crate::data::hex(inspection.tdr)))];
    let vcpu_of = |lp: u32| inspection.lps.iter().position(|of_vcpu| *of_vcpu == lp);
    let mut lps: Vec<_> = inspection.calls.iter().map(|call| call.lp).collect();
    lps.sort_unstable();
    lps.dedup();
    for lp in lps {
        let words = vcpu_of(lp).map_or_else(|| format!("LP {lp}"), |vcpu| format!("vCPU {vcpu} (LP {lp})"));
        all.push(name("thread_name", lp, words));
    }
    all
}

fn event(call: &Recorded, time: &Times) -> Value {
    let row = describe(call);
    let leaf = row.get("leaf").cloned().unwrap_or_default();
    let name = row.get("exit").cloned().unwrap_or(leaf);
    let ts = time.at(call.at);
    match call.by {
        Caller::Guest => json!({
            "ph": "i", "s": "t", "pid": TD, "tid": call.lp, "cat": "tdcall", "name": name, "ts": ts, "args": row,
        }),
        Caller::Host => {
            let category = if row.contains_key("exit") { "guest" } else { "seamcall" };
            json!({
                "ph": "X", "pid": TD, "tid": call.lp, "cat": category, "name": name,
                "ts": ts, "dur": time.span(call.took), "args": row,
            })
        }
    }
}

/// Bytes of private memory that a call adds or takes away.
fn change_of_private(call: &Recorded) -> Option<i64> {
    let is_done = call.after.is_some_and(|after| Status::from_raw(after.rax).is_success());
    if call.by != Caller::Host || !is_done {
        return None;
    }
    let bytes = GpaLevel::from_word(call.before.rcx)?.level().bytes() as i64;
    match TdhLeaf(LeafWord(call.before.rax).leaf()) {
        TdhLeaf::MEM_PAGE_ADD | TdhLeaf::MEM_PAGE_AUG => Some(bytes),
        TdhLeaf::MEM_PAGE_REMOVE => Some(-bytes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tdvisor_base::Ticks;
    use tdx_module_iface::Gprs;

    use super::*;

    fn call(leaf: TdhLeaf, gpa: u64, status: u64) -> Recorded {
        let before = Gprs { rax: u64::from(leaf.0), rcx: gpa, ..Gprs::ZERO };
        let after = Some(Gprs { rax: status, ..Gprs::ZERO });
        Recorded {
            number: 0,
            at: Ticks::new(0),
            took: Ticks::new(2000),
            lp: 1,
            by: Caller::Host,
            before,
            after,
        }
    }

    fn inspection(calls: Vec<Recorded>) -> Inspection {
        Inspection {
            tdr: tdvisor_base::Hpa::new(0x1000),
            ranges: Vec::new(),
            entries: Vec::new(),
            lps: vec![1],
            calls,
            calls_lost: 0,
            ticks_hz: 1_000_000_000,
        }
    }

    #[test]
    fn a_call_is_a_slice_of_its_length_in_the_lane_of_its_processor() {
        let events = trace_events(&inspection(vec![call(TdhLeaf::MEM_TRACK, 0x1000, 0)]));
        let events = events["traceEvents"].as_array().unwrap();
        let slice = events.iter().find(|event| event["ph"] == "X").unwrap();
        assert_eq!(
            (&slice["name"], &slice["tid"], &slice["dur"]),
            (&json!("TDH.MEM.TRACK"), &json!(1), &json!(2.0))
        );
        assert!(events.iter().any(|event| event["args"]["name"] == "vCPU 0 (LP 1)"));
    }

    #[test]
    fn private_memory_grows_with_pages_that_were_added_and_shrinks_with_those_removed() {
        let aug = call(TdhLeaf::MEM_PAGE_AUG, 0x20_0001, 0);
        let refused = call(TdhLeaf::MEM_PAGE_AUG, 0x40_0000, 0xC000_0100_0000_0001);
        let remove = call(TdhLeaf::MEM_PAGE_REMOVE, 0x20_0001, 0);
        let events = trace_events(&inspection(vec![aug, refused, remove]));
        let counters = events["traceEvents"].as_array().unwrap().iter().filter(|event| event["ph"] == "C");
        let bytes: Vec<_> = counters.map(|event| event["args"]["bytes"].as_u64().unwrap()).collect();
        assert_eq!(bytes, [2 << 20, 0]);
    }
}
