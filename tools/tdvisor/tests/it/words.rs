//! What tdvisor says is true: of registers, calls, endings, and of what is private.

use crate::cli::{Folder, tdvisor};

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
fn every_profile_of_the_list_runs_a_td_and_says_what_it_rests_on() {
    let list = tdvisor(&["list", "--json"]).ends_with(0).json();
    let profiles = list["module_profiles"].as_array().expect("a list");
    assert_eq!(list["module_profile"], "1.5.05");
    for profile in profiles {
        let name = profile["name"].as_str().expect("a name");
        let summary = tdvisor(&["run", "--profile", name, "--json"]).ends_with(0).json();
        assert_eq!(summary["module"]["profile"], name);
        assert_eq!(summary["module"]["backed_by"], profile["backed_by"]);
    }
    let backing = |name| profiles.iter().find(|profile| profile["name"] == name).map(|of| &of["backed_by"]);
    assert_eq!(backing("1.5.05"), Some(&"recording".into()));
    assert_eq!(backing("2.0"), Some(&"rule".into()));
    assert_eq!(tdvisor(&["run", "--json"]).ends_with(0).json()["module"]["profile"], "1.5.05");
}

#[test]
fn every_processor_of_the_list_runs_a_td() {
    let list = tdvisor(&["list", "--json"]).ends_with(0).json();
    for processor in list["processors"].as_array().expect("a list") {
        let name = processor["name"].as_str().expect("a name");
        let summary = tdvisor(&["run", "--cpu", name, "--feature", "-rdrand", "--json"]).ends_with(0).json();
        assert_eq!(summary["processor"], name);
    }
    assert_eq!(list["processor"], "sapphire-rapids");
}

#[test]
fn a_feature_that_cannot_be_hidden_is_answered_with_those_that_can() {
    for (feature, why) in
        [("-rdrnd", "no feature has this name"), ("-x2apic", "need it"), ("-vmx", "not offer")]
    {
        let said = tdvisor(&["run", "--feature", feature, "--json"]).ends_with(2).stderr();
        assert!(said.contains(why) && said.contains("rdseed") && !said.contains(", vmx"), "{said}");
    }
    let said = tdvisor(&["run", "--feature", "rdrand"]).ends_with(2).stderr();
    assert!(said.contains("taken away"), "{said}");
    let said = tdvisor(&["run", "--cpu", "skylake"]).ends_with(2).stderr();
    assert!(said.contains("sapphire-rapids") && said.contains("granite-rapids"), "{said}");
}

#[test]
fn a_profile_that_does_not_exist_is_answered_with_those_that_do() {
    for arguments in [&["run", "--profile", "1.5.5"][..], &["run", "--profile", "1.5.5", "--json"]] {
        let said = tdvisor(arguments).ends_with(2).stderr();
        for name in ["1.5.01", "1.5.05", "1.5-late", "2.0"] {
            assert!(said.contains(name), "{said}");
        }
    }
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

#[test]
fn every_command_has_a_manual_page_and_every_shell_its_completions() {
    let folder = Folder::new("words-man");
    tdvisor(&["man", &folder.path("")]).ends_with(0);
    let help = tdvisor(&["--help"]).ends_with(0).stdout();
    let commands: Vec<_> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .map_while(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    assert!(commands.contains(&"run") && commands.contains(&"man"), "{help}");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = tdvisor(&["completions", shell]).ends_with(0).stdout();
        for command in &commands {
            let page = std::fs::read_to_string(folder.path(&format!("tdvisor-{command}.1"))).expect(command);
            assert!(page.contains("NAME"), "{command}");
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
}
