//! One line of a trace: a call with its registers, and what happened in the guest meanwhile.
//!
//! A register that a line does not list is zero on entry. On return it is unchanged in a recording, and zero in a trace:
//! a trace lists what is not zero.

use serde_json::{Map, Value};
use tdx_module_iface::explain::{CallRecord, Side};
use tdx_module_iface::leaf::{TdgLeaf, TdhLeaf};
use tdx_module_iface::regs::{Gprs, Reg};

/// A call of a trace, with what the line says about it beside the registers.
pub struct Call {
    /// `n` of a trace, `i` of a recording.
    pub number: Option<u64>,
    /// The logical processor.
    pub lp: Option<u64>,
    /// The registers.
    pub record: CallRecord,
    /// The leaf as the line names it.
    pub recorded_leaf: Option<String>,
    /// How deep the line nests it: 0 for a step, more for what happens while a guest runs.
    pub depth: usize,
}

/// What a line holds.
pub enum Line {
    /// Calls: the step itself and those that happened while its guest ran.
    Calls(Vec<Call>),
    /// The start of a recorded sequence.
    Sequence(String),
    /// A step that is no call, by the name of its operation.
    Other(String),
    /// Nothing to show (the end mark of a sequence).
    Nothing,
}

/// Reads one line.
pub fn parse(line: &str) -> Result<Line, String> {
    let value: Value = serde_json::from_str(line).map_err(|error| format!("not JSON: {error}"))?;
    let Value::Object(object) = value else { return Err("not a JSON object".to_owned()) };
    if let Some(sequence) = object.get("seq").and_then(Value::as_str) {
        return Ok(Line::Sequence(sequence.to_owned()));
    }
    if object.contains_key("end") {
        return Ok(Line::Nothing);
    }
    match object.get("op").and_then(Value::as_str) {
        // A trace notes calls that ended before the module's first instruction.
        Some("seamcall") if object.contains_key("n") && !object.contains_key("out") => {
            let leaf = object.get("leaf").and_then(Value::as_str).unwrap_or("a call");
            Ok(Line::Other(format!("{leaf} did not reach the module")))
        }
        Some("seamcall" | "tdcall") => {
            let mut calls = Vec::new();
            step(&object, 0, &mut calls)?;
            Ok(Line::Calls(calls))
        }
        Some(operation) => Ok(Line::Other(operation.to_owned())),
        None => Err("no \"op\"".to_owned()),
    }
}

fn step(object: &Map<String, Value>, depth: usize, calls: &mut Vec<Call>) -> Result<(), String> {
    let side = match object.get("op").and_then(Value::as_str) {
        Some("seamcall") => Side::Host,
        Some("tdcall") => Side::Guest,
        // Other steps of another processor (memory writes, pending interrupts) have no registers.
        _ => return Ok(()),
    };
    calls.push(call(object, "leaf", side, depth)?);
    for event in object.get("guest").and_then(Value::as_array).into_iter().flatten() {
        let Value::Object(event) = event else { return Err("a guest event is not an object".to_owned()) };
        if let Some(Value::Object(host)) = event.get("host") {
            step(host, depth + 1, calls)?;
        } else if event.contains_key("tdcall") && event.contains_key("out") {
            calls.push(call(event, "tdcall", Side::Guest, depth + 1)?);
        }
    }
    Ok(())
}

fn call(object: &Map<String, Value>, leaf_key: &str, side: Side, depth: usize) -> Result<Call, String> {
    let recorded_leaf = object.get(leaf_key).and_then(Value::as_str).map(str::to_owned);
    let mut input = registers(object, "in", Gprs::ZERO)?;
    let names_rax = object.get("in").and_then(Value::as_object).is_some_and(|list| list.contains_key("rax"));
    if !names_rax {
        let number = recorded_leaf.as_deref().and_then(|name| match side {
            Side::Host => TdhLeaf::from_name(name).map(|leaf| leaf.0),
            Side::Guest => TdgLeaf::from_name(name).map(|leaf| leaf.0),
        });
        input.rax = number.map(u64::from).ok_or("neither RAX on entry nor the name of a known leaf")?;
    }
    let number = ["n", "i"].into_iter().find_map(|key| object.get(key)).and_then(Value::as_u64);
    let is_trace = object.contains_key("n");
    let output = registers(object, "out", if is_trace { Gprs::ZERO } else { input })?;
    let lp = object.get("lp").and_then(Value::as_u64);
    Ok(Call { number, lp, record: CallRecord { side, input, output }, recorded_leaf, depth })
}

/// The registers under `key`, on top of `gprs`.
fn registers(object: &Map<String, Value>, key: &str, mut gprs: Gprs) -> Result<Gprs, String> {
    let Some(Value::Object(list)) = object.get(key) else {
        return Err(format!("no registers under {key:?}"));
    };
    for (name, value) in list {
        let reg = Reg::from_name(name).ok_or_else(|| format!("no register is called {name:?}"))?;
        gprs.set(reg, number(value).ok_or_else(|| format!("{name} is not a hexadecimal string: {value}"))?);
    }
    Ok(gprs)
}

fn number(value: &Value) -> Option<u64> {
    u64::from_str_radix(value.as_str()?.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_trace_and_one_of_a_recording_read_alike() {
        let trace = r#"{"n":7,"lp":1,"op":"seamcall","leaf":"TDH.MEM.TRACK","in":{"rcx":"0x1000"},"out":{"rax":"0x0","rcx":"0x1000"}}"#;
        let recording = r#"{"i":7,"lp":1,"op":"seamcall","leaf":"TDH.MEM.TRACK","in":{"rax":"0x26","rcx":"0x1000"},"out":{"rax":"0x0"}}"#;
        for line in [trace, recording] {
            let Ok(Line::Calls(calls)) = parse(line) else { panic!("{line}") };
            assert_eq!((calls[0].number, calls[0].lp), (Some(7), Some(1)));
            assert_eq!(calls[0].record.to_string(), "TDH.MEM.TRACK rcx=0x1000 -> SUCCESS");
        }
    }

    #[test]
    fn a_register_that_became_zero_is_not_what_it_was() {
        // A HLT: R10 is zero for a function of the GHCI. It held the answer of the call before.
        let trace = r#"{"n":8,"lp":1,"op":"seamcall","leaf":"TDH.VP.ENTER","in":{"rax":"0x0","r10":"0x8000000000000003","rcx":"0x2000"},"out":{"rax":"0x4d","rcx":"0xfc00","r11":"0xc"}}"#;
        let Ok(Line::Calls(calls)) = parse(trace) else { panic!("{trace}") };
        assert_eq!(calls[0].record.output.r10, 0);
        assert!(calls[0].record.to_string().contains("HLT"), "{}", calls[0].record);
        let recording = r#"{"i":8,"op":"seamcall","leaf":"TDH.MEM.TRACK","in":{"rax":"0x26","r10":"0x5"},"out":{"rax":"0x0"}}"#;
        let Ok(Line::Calls(calls)) = parse(recording) else { panic!("{recording}") };
        assert_eq!(calls[0].record.output.r10, 5);
    }

    #[test]
    fn a_call_that_did_not_reach_the_module_is_named() {
        let line = r#"{"n":8,"lp":1,"op":"seamcall","leaf":"TDH.VP.ENTER","in":{"rax":"0x0"}}"#;
        let Ok(Line::Other(text)) = parse(line) else { panic!("{line}") };
        assert!(text.contains("TDH.VP.ENTER") && text.contains("did not reach"), "{text}");
    }

    #[test]
    fn what_is_not_a_call_is_refused_or_named() {
        assert!(matches!(parse(r#"{"end":true}"#), Ok(Line::Nothing)));
        assert!(matches!(parse(r#"{"seq":"mem-0"}"#), Ok(Line::Sequence(_))));
        assert!(matches!(parse(r#"{"op":"write_mem"}"#), Ok(Line::Other(_))));
        for line in [
            "",
            "[]",
            "{}",
            r#"{"op":"seamcall"}"#,
            r#"{"op":"seamcall","leaf":"X","in":{},"out":{}}"#,
            r#"{"op":"seamcall","leaf":"X","in":{"rsp":"0x1"},"out":{}}"#,
            r#"{"op":"seamcall","leaf":"X","in":{"rax":1},"out":{}}"#,
            r#"{"op":"seamcall","leaf":"X","in":{"rax":"0x12345678901234567"},"out":{}}"#,
            r#"{"op":"seamcall","in":{"rax":"0x0"},"out":{},"guest":[3]}"#,
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
