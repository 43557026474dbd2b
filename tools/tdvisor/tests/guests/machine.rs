//! Runs of guests to their end, and what their summaries say.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::cli::{Folder, tdvisor};
use crate::table::YES;

/// OVMF of Debian 12's package.
pub const OLD_FIRMWARE: &str = "/usr/share/ovmf/OVMF.fd";
/// Long enough for a busy machine: what decides is what a guest says.
pub const TIMEOUT: [&str; 2] = ["--timeout", "3000"];

/// A file that a script left below `target`.
#[track_caller]
pub fn brought(file: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target").join(file);
    assert!(path.exists(), "{} is not there: scripts/nightly guests brings it", path.display());
    path
}

/// A file of the machine, as a word of a command.
#[track_caller]
pub fn word(file: &str) -> String {
    brought(file).display().to_string()
}

/// A guest that ran.
pub struct Run {
    /// The summary.
    pub summary: Value,
    /// What the guest printed.
    pub console: String,
}

impl Run {
    /// Runs a guest on the compiling engine, to its end; in virtual time, so that nothing that a guest waits for depends on the
    /// machine.
    pub fn of(args: &[&str]) -> Self {
        let how = ["run", "--json", "--engine", "compiler", "--deterministic", "1"];
        let answer = tdvisor(&[&how[..], &TIMEOUT, args].concat());
        Self { summary: answer.json(), console: answer.stderr() }
    }

    /// Whether its console says this.
    pub fn says(&self, words: &str) -> bool {
        self.console.contains(words)
    }

    /// Whether the guest ended by itself, all pages came back, and nothing was wrong.
    pub fn power_off(&self) -> String {
        let clean = self.summary["ending"] == json!({"kind": "powered-off", "code": 0})
            && self.summary["audit"]["ok"] == json!(true)
            && self.summary["violations"] == json!([]);
        if clean { YES.to_owned() } else { format!("no: {}", self.summary["ending"]["kind"]) }
    }

    /// A file that the guest printed as base64.
    pub fn file(&self, name: &str) -> Option<Vec<u8>> {
        printed(&self.console, "distribution-init", name)
    }

    /// Whether its own quote is verified with the files beside `quote`, and by nothing else.
    pub fn quote(&self, folder: &Folder, quote: &str) -> String {
        let Some(bytes) = self.file("quote") else { return "no: none was printed".to_owned() };
        verified(folder, &bytes, quote)
    }

    /// Which of the first three registers are those that `measure` predicts with these words.
    pub fn registers(&self, measure: &[&str]) -> String {
        let predicted = tdvisor(&[&["measure", "--json"], measure].concat()).ends_with(0).json();
        as_predicted(&self.summary["rtmrs"], &predicted["boot"])
    }
}

/// A file that a guest printed as base64, between two lines.
pub fn printed(console: &str, who: &str, name: &str) -> Option<Vec<u8>> {
    let (begin, end) = (format!("{who}: begin {name}"), format!("{who}: end {name}"));
    let text: String = console
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != begin)
        .skip(1)
        .take_while(|line| *line != end)
        .collect();
    STANDARD.decode(text).ok().filter(|bytes| !bytes.is_empty())
}

/// Whether a quote is verified with the files beside another one of the same TD, and not without their root.
pub fn verified(folder: &Folder, bytes: &[u8], beside: &str) -> String {
    let own = folder.write("own-quote", bytes);
    let (collateral, root) = (format!("{beside}.collateral.json"), format!("{beside}.root.pem"));
    let with_root = tdvisor(&["verify", &own, "--collateral", &collateral, "--test-root", &root]).status();
    let without = tdvisor(&["verify", &own, "--collateral", &collateral]).status();
    if (with_root, without) == (0, 1) { YES.to_owned() } else { format!("no: {with_root}, {without}") }
}

/// The registers of a run that are as predicted for the build of the firmware that fits best.
fn as_predicted(registers: &Value, boot: &Value) -> String {
    const NAMES: [&str; 3] = ["RTMR0", "RTMR1", "RTMR2"];
    let whole = std::slice::from_ref(boot);
    let builds = boot["builds"].as_array().map_or(whole, Vec::as_slice);
    let agreeing = builds.iter().filter_map(|build| {
        let mut agree = Vec::new();
        for name in NAMES {
            let predicted = &build["registers"][name.to_lowercase()];
            let mut values: Vec<&Value> =
                predicted["values"].as_array().into_iter().flatten().map(|value| &value["value"]).collect();
            values.push(&predicted["value"]);
            values.retain(|value| value.is_string());
            match values.is_empty() {
                true => {}
                false if values.contains(&&registers[name]) => agree.push(name),
                false => return None,
            }
        }
        Some(agree)
    });
    let is_zero = |name: &&str| registers[*name].as_str().is_some_and(|text| text.bytes().all(|b| b == b'0'));
    match agreeing.max_by_key(Vec::len) {
        Some(all) if all.len() == NAMES.len() && NAMES.iter().all(is_zero) => {
            "yes: zeros, this build measures nothing".to_owned()
        }
        Some(all) if all.len() == NAMES.len() => YES.to_owned(),
        Some(some) if !some.is_empty() => format!("{}; the others are not predicted", some.join(" and ")),
        _ => "no".to_owned(),
    }
}

#[test]
fn a_register_that_differs_from_its_prediction_is_never_taken_for_another_builds() {
    let registers = json!({"RTMR0": "0a", "RTMR1": "0b", "RTMR2": "0c"});
    let build = |zero: &str, one: &str, two: Value| {
        json!({"registers": {
            "rtmr0": {"value": null, "values": [{"when": "x", "value": zero}, {"when": "y", "value": "ff"}]},
            "rtmr1": {"value": one},
            "rtmr2": two,
        }})
    };
    let known = |value: &str| json!({"value": value});
    let unknown = json!({"value": null, "not_predicted": "reason"});
    assert_eq!(as_predicted(&registers, &build("0a", "0b", known("0c"))), YES);
    assert_eq!(as_predicted(&registers, &build("0a", "0b", known("0d"))), "no");
    let partly = "RTMR0 and RTMR1; the others are not predicted";
    assert_eq!(as_predicted(&registers, &build("0a", "0b", unknown.clone())), partly);
    let builds = json!({"builds": [build("01", "0b", known("0c")), build("0a", "0b", unknown)]});
    assert_eq!(as_predicted(&registers, &builds), partly);
    let zeros = json!({"RTMR0": "00", "RTMR1": "00", "RTMR2": "00"});
    let of_nothing = build("00", "00", known("00"));
    assert_eq!(as_predicted(&zeros, &of_nothing), "yes: zeros, this build measures nothing");
}
