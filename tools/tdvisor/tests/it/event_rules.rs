//! What goes with a quote beyond its registers: the event log and its rules, and Linux's integrity measurements.

use crate::cli::{Answer, Folder, tdvisor};
use td_image::digest::Digest384;
use tdvisor_attest::eventlog::{EventLog, EventType, LogBuilder, Register};
use tdvisor_attest::predict::ima;
use tdvisor_attest::report::{ReportKey, TdReport};
use zerocopy::{FromZeros, IntoBytes};

const AT: &str = "1780000100";
const LINE: &str = "/vmlinuz root=/dev/vda1 ro lockdown=integrity";

/// A log as GRUB and a kernel leave it, with this text for the command line that was measured.
fn log(text: &str) -> Vec<u8> {
    let mut log = LogBuilder::new();
    let mut push = |register, kind, data: &[u8], measured: &[u8]| {
        log.push(register, kind, &Digest384::of(measured), data);
    };
    for register in [Register::Rtmr0, Register::Rtmr1] {
        push(register, EventType::SEPARATOR, &[0; 4], &[0; 4]);
    }
    push(Register::Rtmr2, EventType::IPL, format!("kernel_cmdline: {text}\0").as_bytes(), LINE.as_bytes());
    log.finish()
}

/// A list of integrity measurements: two files by the template `ima-ng`.
fn integrity(names: [&str; 2]) -> String {
    let field = |bytes: &[u8]| [&(bytes.len() as u32).to_le_bytes()[..], bytes].concat();
    let line = |measured: &str, name: &str| {
        let hashed = [&b"sha256:\0"[..], &[7; 32]].concat();
        let data = [field(&hashed), field(&[measured.as_bytes(), &[0]].concat())].concat();
        format!("10 {} ima-ng sha256:{} {name}\n", Digest384::of(&data), "07".repeat(32))
    };
    [("boot_aggregate", names[0]), ("/usr/bin/bash", names[1])].map(|(of, name)| line(of, name)).concat()
}

const NAMES: [&str; 2] = ["boot_aggregate", "/usr/bin/bash"];

/// A TDREPORT whose RTMR2 holds the log and then the list.
fn report(list: Option<&str>) -> Vec<u8> {
    let area = log(LINE);
    let replay = EventLog::parse(&area).expect("a log").replay();
    let mut report = TdReport::new_zeroed();
    for register in Register::RTMRS {
        report.td_info.rtmr[register.rtmr().expect("an RTMR")] = replay[register].0;
    }
    for event in list.into_iter().flat_map(|list| ima::parse(list).expect("a list").events) {
        let value = &mut report.td_info.rtmr[2];
        *value = Digest384(*value).extended_by(&event.digest).0;
    }
    report.seal(&ReportKey([1; 32]));
    report.as_bytes().to_vec()
}

#[test]
fn integrity_measurements_account_for_what_rtmr2_grew_by_after_the_log() {
    let folder = Folder::new("event-rules-ima");
    let list = integrity(NAMES);
    let (log, report) = (folder.write("log", log(LINE)), folder.write("report", report(Some(&list))));
    let replay = |ima: Option<&str>| {
        let mut call = vec!["eventlog", "replay", &log, "--report", &report];
        ima.iter().for_each(|ima| call.extend(["--ima", ima]));
        tdvisor(&call)
    };
    let told = replay(None).ends_with(1).stdout();
    assert!(told.contains("the log does not reach it"), "{told}");
    replay(Some(&folder.write("ima", &list))).ends_with(0);
    // A line less, two swapped, one that says another name, and what is no list.
    let (first, second) = list.split_at(list.find('\n').expect("two lines") + 1);
    for (at, wrong) in
        [first.to_owned(), [second, first].concat(), integrity(["boot_aggregate", "/usr/bin/sh"])]
            .into_iter()
            .enumerate()
    {
        replay(Some(&folder.write("wrong", wrong))).ends_with(1);
        assert!(at < 3);
    }
    replay(Some(&folder.write("none", "text"))).ends_with(2).one_line_of_error();
}

/// Verifies a quote of the report by a policy of these rules.
struct Case {
    folder: Folder,
    quote: String,
    collateral: String,
    root: String,
}

impl Case {
    fn new(name: &str, report: &[u8]) -> Self {
        let folder = Folder::new(name);
        let report = folder.write("report", report);
        let [quote, collateral, root] = ["quote", "collateral", "root"].map(|name| folder.path(name));
        let issue = ["quote", "issue", "--report", &report, "--out", &quote, "--collateral", &collateral];
        tdvisor(&[&issue[..], &["--root", &root, "--at", AT]].concat()).ends_with(0);
        Self { folder, quote, collateral, root }
    }

    fn verify(&self, rules: &str, more: &[&str]) -> Answer {
        let text = format!("[td]\nsept_ve_disable = \"any\"\n[[td.events]]\n{rules}");
        let policy = self.folder.write("policy.toml", text);
        let Self { quote, collateral, root, .. } = self;
        let call = ["verify", quote, "--collateral", collateral, "--test-root", root, "--at", AT, "--json"];
        tdvisor(&[&call[..], &["--policy", &policy], more].concat())
    }
}

#[test]
fn a_policy_judges_what_a_boot_measured_and_only_by_a_log_that_the_quote_bears_out() {
    let list = integrity(NAMES);
    let case = Case::new("event-rules-policy", &report(Some(&list)));
    let log_of = |text: &str, name: &str| case.folder.write(name, log(text));
    let (log, forged) = (log_of(LINE, "log"), log_of("/vmlinuz lockdown=integrity init=/bin/sh", "forged"));
    let ima = case.folder.write("ima", &list);
    let with = ["--event-log", &*log, "--ima", &*ima];
    let good = "register = \"RTMR2\"\npart = \"command line\"\ncontains = [\"lockdown=integrity\"]\nlacks = [\"init=\"]\n";
    case.verify(good, &with).ends_with(0);
    let code = |answer: Answer| answer.ends_with(1).json()["findings"][0]["code"].clone();
    assert_eq!(code(case.verify(&good.replace("integrity", "confidentiality"), &with)), "event");
    assert_eq!(code(case.verify(&good.replace("init=", "root="), &with)), "event");
    assert_eq!(code(case.verify(good, &[])), "no-event-log");
    assert_eq!(code(case.verify(good, &["--event-log", &forged, "--ima", &ima])), "event-log");
    assert_eq!(code(case.verify(good, &["--event-log", &log])), "event-log", "RTMR2 grew beyond the log");
    // A rule that nobody can understand is no rule that is kept.
    case.verify(&good.replace("contains", "contain"), &with).ends_with(2).one_line_of_error();
    case.verify(good, &["--ima", &ima]).ends_with(2);
}

#[test]
fn a_batch_takes_logs_too() {
    let list = integrity(NAMES);
    let case = Case::new("event-rules-batch", &report(Some(&list)));
    case.folder.write("log", log(LINE));
    case.folder.write("ima", &list);
    case.folder.write(
        "policy.toml",
        "[td]\nsept_ve_disable = \"any\"\n[[td.events]]\nregister = \"RTMR2\"\npart = \"command line\"\n",
    );
    let line = |id: &str, more: &str| {
        format!(
            "{{\"id\":\"{id}\",\"quote\":\"quote\",\"collateral\":\"collateral\",\"time\":{AT},\"policy\":\"policy.toml\"{more}}}\n"
        )
    };
    let cases = [line("a", ",\"event_log\":\"log\",\"ima\":\"ima\""), line("b", "")].concat();
    let cases = case.folder.write("cases.jsonl", cases);
    let answers = tdvisor(&["verify", "--batch", &cases, "--test-root", &case.root]).ends_with(0).stdout();
    let lines: Vec<&str> = answers.lines().collect();
    assert!(lines[0].ends_with("accept accepted"), "{answers}");
    assert!(lines[1].contains("reject") && lines[1].contains("no event log"), "{answers}");
}
