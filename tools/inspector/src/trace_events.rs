//! The calls in the trace-event form of Chrome, which ui.perfetto.dev opens: a lane for each logical processor, a slice for each
//! stay in a guest and each SEAMCALL, an instant for each ACCEPT of a guest, and the counters of [`tracks`].

use machine_emu::journal::{Caller, Recorded};
use serde_json::{Value, json};
use tdvisor_runtime::inspect::Inspection;

use crate::calls::{Times, describe};
use crate::tracks;

/// The process that the lanes belong to.
const TD: u32 = 1;

/// The calls that a machine's journal kept, as trace events. Times are microseconds from the first call on.
pub fn trace_events(inspection: &Inspection) -> Value {
    let time = Times::of(inspection);
    let mut events = names(inspection);
    events.extend(inspection.calls.iter().map(|call| event(call, &time)));
    events.extend(tracks::samples(inspection, &time, TD));
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

#[cfg(test)]
pub(crate) mod tests {
    use tdvisor_base::{SharedBit, Ticks};
    use tdx_module_iface::{Gprs, TdhLeaf};

    use super::*;

    /// A stay in a guest that ended with these registers.
    pub(crate) fn enter(after: Gprs) -> Recorded {
        Recorded { after: Some(after), ..call(TdhLeaf::VP_ENTER, 0, 0) }
    }

    pub(crate) fn call(leaf: TdhLeaf, gpa: u64, status: u64) -> Recorded {
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

    pub(crate) fn inspection(calls: Vec<Recorded>) -> Inspection {
        Inspection {
            tdr: tdvisor_base::Hpa::new(0x1000),
            shared_bit: SharedBit::topmost(48),
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
}
