//! Calls as the page lists them.

use machine_emu::journal::{Caller, Recorded, is_memory_leaf};
use serde_json::{Map, Value, json};
use td_host::ghci::Request;
use tdvisor_base::{Gpa, Ticks};
use tdvisor_runtime::inspect::Inspection;
use tdx_module_iface::exit::{ExitReason, ExtendedType};
use tdx_module_iface::handles::GpaLevel;
use tdx_module_iface::tdh::{AsyncKind, TdExit};
use tdx_module_iface::{Gprs, LeafWord, Status, TdgLeaf, TdhLeaf};

use crate::data::number_of;

/// All calls that are kept, with their times from the first on.
pub(crate) fn calls(inspection: &Inspection) -> Vec<Value> {
    let time = Times::of(inspection);
    inspection
        .calls
        .iter()
        .map(|call| {
            let mut row = describe(call);
            row.insert("n".to_owned(), json!(call.number));
            row.insert("t".to_owned(), json!(time.at(call.at)));
            row.insert("d".to_owned(), json!(time.span(call.took)));
            row.insert("lp".to_owned(), json!(call.lp));
            row.insert("vcpu".to_owned(), json!(inspection.lps.iter().position(|lp| *lp == call.lp)));
            row.into_iter().collect()
        })
        .collect()
}

/// Times of calls in microseconds from the first call on.
pub(crate) struct Times {
    start: Ticks,
    hertz: u64,
}

impl Times {
    pub(crate) fn of(inspection: &Inspection) -> Self {
        let start = inspection.calls.iter().map(|call| call.at).min().unwrap_or(Ticks::new(0));
        Self { start, hertz: inspection.ticks_hz.max(1) }
    }

    pub(crate) fn at(&self, time: Ticks) -> f64 {
        self.span(time.saturating_since(self.start))
    }

    pub(crate) fn span(&self, ticks: Ticks) -> f64 {
        ticks.duration(self.hertz).as_nanos() as f64 / 1_000.0
    }
}

/// What a call is, but for its time and its place.
pub(crate) fn describe(call: &Recorded) -> Map<String, Value> {
    let mut row = Map::new();
    let mut set = |name: &str, value: Value| row.insert(name.to_owned(), value);
    let leaf = LeafWord(call.before.rax).leaf();
    set("guest", json!(call.by == Caller::Guest));
    set("in", registers(&call.before));
    set("out", call.after.as_ref().map_or(json!({}), registers));
    let range = GpaLevel::from_word(call.before.rcx);
    if call.by == Caller::Guest {
        set("leaf", json!(TdgLeaf(leaf).to_string()));
        let status = call.after.map(|after| Status::from_raw(after.rax));
        // An ACCEPT of a page that is not there leaves the guest, and is made again when the host has added the page.
        let left = "left the guest for the host".to_owned();
        set("status", json!(status.map_or(left, |status| status.code().to_string())));
        set("ok", json!(status.is_some_and(Status::is_success)));
        set("left", json!(status.is_none()));
        place(&mut set, range);
        return row;
    }
    let leaf = TdhLeaf(leaf);
    set("leaf", json!(leaf.to_string()));
    let Some(after) = call.after else {
        set("status", json!("not reached"));
        set("ok", json!(false));
        return row;
    };
    let status = Status::from_raw(after.rax);
    if leaf == TdhLeaf::VP_ENTER
        && let Some(exit) = TdExit::from_gprs(&after)
    {
        let told = told(&exit, &after);
        set("exit", json!(told.reason));
        set("detail", json!(told.detail));
        set("status", json!(status.code().to_string()));
        set("ok", json!(told.goes_on));
        place(&mut set, told.gpa.map(GpaLevel::page));
        return row;
    }
    set("status", json!(status.code().to_string()));
    set("ok", json!(status.is_success()));
    if is_memory_leaf(leaf) {
        place(&mut set, range);
        set("detail", json!(page_of(leaf, &call.before)));
    }
    row
}

fn place(set: &mut dyn FnMut(&str, Value) -> Option<Value>, range: Option<GpaLevel>) {
    if let Some(range) = range {
        set("gpa", json!(range.gpa().get()));
        set("level", json!(number_of(range.level())));
    }
}

/// The page that a call gives to the TD.
fn page_of(leaf: TdhLeaf, before: &Gprs) -> Option<String> {
    let gives =
        [TdhLeaf::MEM_PAGE_ADD, TdhLeaf::MEM_PAGE_AUG, TdhLeaf::MEM_SEPT_ADD, TdhLeaf::MEM_PAGE_DEMOTE];
    gives.contains(&leaf).then(|| format!("page {:#x}", before.r8))
}

/// An exit in words.
struct Told {
    reason: String,
    detail: String,
    gpa: Option<Gpa>,
    /// The vCPU may be entered again.
    goes_on: bool,
}

fn told(exit: &TdExit, after: &Gprs) -> Told {
    match exit {
        TdExit::TdVmCall(_) => {
            let request = format!("{:x?}", Request::parse(after));
            let name: String = request.chars().take_while(|c| c.is_alphanumeric()).collect();
            let rest = request.get(name.len()..).unwrap_or_default().trim();
            Told { reason: format!("TDVMCALL {name}"), detail: with_prefixes(rest), gpa: None, goes_on: true }
        }
        TdExit::Async(exit) => {
            let is_violation = exit.reason.basic() == ExitReason::EPT_VIOLATION;
            let detail = match exit.kind {
                // Most exits have none.
                AsyncKind::Resumable if exit.extended.kind() == ExtendedType::NONE => String::new(),
                AsyncKind::Resumable => exit.extended.to_string(),
                kind => format!("{kind:?}"),
            };
            Told {
                reason: exit.reason.to_string(),
                detail,
                gpa: is_violation.then_some(exit.gpa),
                goes_on: exit.kind == AsyncKind::Resumable,
            }
        }
    }
}

/// Hexadecimal numbers, which have no prefix, with one. What else has such digits begins with a capital.
fn with_prefixes(text: &str) -> String {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let word = |word: &str| {
        let digits = word.trim_end_matches([',', ')', ']']);
        let begin = digits.rfind(['(', '[']).map_or(0, |at| at + 1);
        let number = digits.get(begin..).unwrap_or_default();
        if !number.is_empty() && number.bytes().all(is_digit) {
            format!("{}0x{}", word.get(..begin).unwrap_or_default(), word.get(begin..).unwrap_or_default())
        } else {
            word.to_owned()
        }
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// The registers that are not zero.
fn registers(gprs: &Gprs) -> Value {
    let shown = gprs.iter().filter(|(_, value)| *value != 0);
    shown
        .map(|(reg, value)| (reg.name().to_owned(), json!(format!("{value:#x}"))))
        .collect::<Map<_, _>>()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_from_words_of_the_same_letters() {
        let text = "{ port: 3f8, size: Byte, value: 66, kind: Add, of: [1, ff], at: Gpa(abc), face: Dead }";
        let wanted = "{ port: 0x3f8, size: Byte, value: 0x66, kind: Add, of: [0x1, 0xff], at: Gpa(0xabc), face: Dead }";
        assert_eq!(with_prefixes(text), wanted);
    }
}
