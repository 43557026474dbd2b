//! What tdvisor says is true: of registers, calls, endings, and of what is private.

mod cli;

use cli::{Folder, tdvisor};

#[test]
fn the_registers_of_the_summary_are_those_of_a_tdreport() {
    let answer = tdvisor(&["run", "--json"]).ends_with(0);
    // With --json the console is on standard error; hello-td prints its own TDREPORT there.
    let (summary, console) = (answer.json(), answer.stderr());
    for name in ["RTMR0", "RTMR1", "RTMR2", "RTMR3"] {
        let held = summary["rtmrs"][name].as_str().expect("a register");
        assert!(console.contains(&format!("{name} {held}")), "{name} {held} is not in:\n{console}");
    }
    assert_ne!(summary["rtmrs"]["RTMR3"], summary["rtmrs"]["RTMR0"], "hello-td extends RTMR3");
}

#[test]
fn a_register_is_shown_whether_or_not_a_guest_prints_it() {
    let summary = tdvisor(&["run", "fault-td", "--command", "fail", "--json"]).ends_with(1).json();
    assert_eq!(summary["rtmrs"]["RTMR3"].as_str().map(str::len), Some(96), "{summary}");
}

#[test]
fn a_decoded_trace_has_no_call_that_the_guest_did_not_make() {
    let trace = Folder::new("words-trace").path("trace");
    tdvisor(&["run", "--trace", &trace]).ends_with(0);
    let decoded = tdvisor(&["decode", &trace]).ends_with(0).stdout();
    assert!(decoded.contains("Instruction.IO"), "{decoded}");
    for line in decoded.lines() {
        assert!(!line.contains("vendor"), "{line}");
        assert!(!line.contains("which this leaf does not do"), "{line}");
    }
}

#[test]
fn a_number_that_is_no_status_is_none() {
    let said = tdvisor(&["decode", "0xe066"]).ends_with(0).stdout();
    assert!(said.contains("SGX_QL_TCB_NOT_SUPPORTED") && !said.contains("SUCCESS"), "{said}");
    tdvisor(&["decode", "0xe0ff"]).ends_with(2);
}
