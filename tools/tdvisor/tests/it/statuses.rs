//! The table of exit statuses, each with a call that ends with it. Those of commands in a guest (their own, 125, 126, 127, and
//! 128 with a signal's number) need a kernel: `linux.rs` has them.

use std::process::{Command, Stdio};

use crate::cli::{Folder, host_that_pages_as_a_386, tdvisor};

#[test]
fn status_0_is_yes() {
    for arguments in [
        &["run"][..],
        &["run", "-q"],
        &["hello-td", "--timeout", "0"],
        &["--vcpus", "2"],
        &["measure", "hello-td"],
        &["decode", "TDH.MEM.PAGE.AUG"],
        &["list"],
        &["list", "--json"],
        &["version"],
        &["version", "--verbose"],
        &["version", "--json"],
        &["completions", "bash"],
        &["--help"],
    ] {
        tdvisor(arguments).ends_with(0);
    }
}

#[test]
fn status_1_is_no() {
    tdvisor(&["run", "fault-td", "--command", "fail"]).ends_with(1);
    tdvisor(&["run", "fault-td", "--command", "fatal"]).ends_with(1);
    let other = "0".repeat(96);
    tdvisor(&["measure", "hello-td", "--expect", &other]).ends_with(1);
}

#[test]
fn status_2_is_unusable_input() {
    for arguments in [
        &["run", "--memory", "512"][..],
        &["run", "--vcpus", "0"],
        &["run", "--no-such-option"],
        &["run", "--profile", "1.5"],
        &["run", "--profile", "1.5", "--json"],
        &["server", "--kernel", "/no/such/file", "--profile", "1.5"],
        &["rnu"],
        &["completions", "csh"],
        &["man", "/no/such/folder"],
        &["decode", "no/such/thing"],
        &["measure", "/no/such/image"],
        &["verify", "/no/such/quote", "--collateral", "/no/such/file"],
    ] {
        tdvisor(arguments).ends_with(2);
    }
}

#[test]
fn status_3_is_a_td_that_died() {
    for command in ["triple-fault", "unaccepted"] {
        tdvisor(&["run", "fault-td", "--command", command]).ends_with(3);
    }
}

#[test]
fn status_4_is_a_fault_of_ours_here_a_page_that_does_not_come_back() {
    let plan = "TDH.PHYMEM.PAGE.RECLAIM#1=OPERAND_INVALID";
    let said = tdvisor(&["run", "-q", "--inject", plan]).ends_with(4).stderr();
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("tdvisor: internal fault: teardown: TDH.PHYMEM.PAGE.RECLAIM"), "{said}");
}

#[test]
fn status_5_is_a_limit_of_the_emulator() {
    let kernel = Folder::new("statuses-limit").write("host.elf", host_that_pages_as_a_386());
    let said = tdvisor(&["server", "--kernel", &kernel]).ends_with(5).stderr();
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("tdvisor: a limit of tdvisor, not a fault of the guest:"), "{said}");
    assert!(last.contains("paging without IA-32e mode"), "{said}");
}

#[test]
fn status_6_is_an_output_that_was_lost() {
    tdvisor(&["run", "--trace", "/dev/full"]).ends_with(6);
}

#[test]
fn status_124_is_a_timeout() {
    let said = tdvisor(&["run", "fault-td", "--command", "spin", "--timeout", "1"]).ends_with(124).stderr();
    assert!(said.contains("its time was up"), "{said}");
}

#[test]
fn a_guest_that_waits_for_what_cannot_come_is_explained() {
    for (command, words) in [
        ("halt", "hint: one vCPU halted with interrupts off"),
        ("wait", "and nothing is there. Other machines have a keyboard controller"),
    ] {
        let arguments = ["run", "fault-td", "--command", command, "--timeout", "2"];
        let said = tdvisor(&arguments).ends_with(124).stderr();
        assert!(said.contains(words), "{command}: {said}");
    }
    let said = tdvisor(&["run", "fault-td", "--command", "spin", "--timeout", "1"]).stderr();
    assert!(!said.contains("hint:"), "nothing is known of a loop: {said}");
}

#[test]
fn a_quote_that_never_came_does_not_hide_why() {
    let quote = Folder::new("statuses-quote").path("quote");
    for (command, status) in [("spin", 124), ("triple-fault", 3), ("fail", 1)] {
        let arguments = ["run", "fault-td", "--command", command, "--timeout", "2", "--quote", &quote];
        tdvisor(&arguments).ends_with(status);
    }
}

#[test]
fn an_unknown_guest_is_answered_with_those_that_there_are() {
    let said = tdvisor(&["run", "helo-td"]).ends_with(2).one_line_of_error();
    for name in ["helo-td", "hello-td", "fault-td", "boot-shim"] {
        assert!(said.contains(name), "{said}");
    }
}

#[test]
fn quiet_says_nothing_of_a_success_and_one_line_of_anything_else() {
    let said = tdvisor(&["run", "-q"]).ends_with(0).stderr();
    assert!(said.lines().all(|line| line.starts_with("[guest log]")), "{said}");
    let said = tdvisor(&["run", "-q", "fault-td", "--command", "fail"]).ends_with(1).stderr();
    let own: Vec<_> = said.lines().filter(|line| !line.starts_with("[guest log]")).collect();
    assert_eq!(own, ["the guest powered off: failure 1"]);
}

#[test]
fn a_summary_folds_its_counts_and_verbose_unfolds_them() {
    let usual = tdvisor(&["run"]).ends_with(0).stderr();
    let line = usual.lines().find(|line| line.contains("SEAMCALLs")).expect("a line of calls");
    assert!(line.contains("other kinds") && line.len() < 240, "{line}");
    let full = tdvisor(&["run", "-v"]).ends_with(0).stderr();
    assert!(full.contains("TDH.MNG.KEY.FREEID 1") && !full.contains("other kinds"), "{full}");
}

#[test]
fn what_is_pasted_is_explained() {
    let folder = Folder::new("statuses-pasted");
    let text = folder.write("text", "tdx: SEAMCALL (0x6) failed: 0xc0000b0800000092\n".repeat(3));
    let output = Command::new(env!("CARGO_BIN_EXE_tdvisor"))
        .args(["decode", "-"])
        .stdin(Stdio::from(std::fs::File::open(text).expect("it was written")))
        .output()
        .expect("tdvisor starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("TDH.MEM.PAGE.AUG") && said.contains("TLB_TRACKING_NOT_DONE"), "{said}");
    assert!(said.contains("(3 times)"), "{said}");
}

#[test]
fn a_kernel_tree_without_what_a_td_needs_is_refused_with_the_options_to_turn_on() {
    let folder = Folder::new("statuses-tree");
    std::fs::create_dir_all(folder.path("arch/x86/boot")).unwrap();
    folder.write("Kbuild", "");
    folder.write("arch/x86/boot/bzImage", "");
    folder.write(
        ".config",
        "CONFIG_ACPI=y\nCONFIG_SERIAL_8250_CONSOLE=y\nCONFIG_PROC_FS=y\nCONFIG_BINFMT_ELF=y\n",
    );
    let said = |arguments: &[&str]| {
        let mut call = Command::new(env!("CARGO_BIN_EXE_tdvisor"));
        let output = call.current_dir(folder.path("")).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let td = said(&["run"]);
    assert!(td.contains("scripts/config -e INTEL_TDX_GUEST"), "{td}");
    assert!(said(&["run", "--", "true"]).contains("-e BLK_DEV_INITRD"));
    assert!(said(&["server"]).contains("-e INTEL_TDX_HOST"));
}

#[test]
fn what_is_for_a_kernel_is_refused_without_one() {
    for arguments in
        [&["run", "--", "true"][..], &["run", "--append", "quiet"], &["run", "--initrd", "/dev/null"]]
    {
        let said = tdvisor(arguments).ends_with(2).one_line_of_error();
        assert!(said.contains("--kernel"), "{said}");
    }
    tdvisor(&["run", "hello-td", "--", "true"]).ends_with(2);
}

#[test]
fn a_plan_runs_its_targets_and_reports_those_that_fail() {
    let folder = Folder::new("statuses-plan");
    let plan = folder.write(
        "tdvisor.toml",
        "[[target]]\nname = \"good\"\nimage = \"hello-td\"\nvcpus = 2\n\
         [[target]]\nname = \"bad | <one>\"\nimage = \"fault-td\"\nfirmware-command = \"fail\"\n\
         [[target]]\nname = \"bad as expected\"\nimage = \"fault-td\"\nfirmware-command = \"triple-fault\"\nexpect = 3\n",
    );
    let (junit, sarif) = (folder.path("junit.xml"), folder.path("results.sarif"));
    let summary = folder.path("summary.md");
    let mut call = Command::new(env!("CARGO_BIN_EXE_tdvisor"));
    call.args(["test", &plan, "--junit", &junit, "--sarif", &sarif]).env("GITHUB_ACTIONS", "true");
    let output = call.env("GITHUB_STEP_SUMMARY", &summary).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{out}{err}");
    assert!(
        out.contains("PASS  good") && out.contains("FAIL  bad") && out.contains("2 of 3 targets passed"),
        "{out}"
    );
    assert!(err.contains("::error title=bad | <one>::status 1 instead of 0"), "{err}");
    let report = std::fs::read_to_string(&junit).unwrap();
    assert!(
        report.contains("<testsuite name=\"bad | &lt;one&gt;\"") && report.contains("failures=\"1\""),
        "{report}"
    );
    let log: serde_json::Value = serde_json::from_slice(&std::fs::read(&sarif).unwrap()).unwrap();
    let results = log["runs"][0]["results"].as_array().unwrap();
    assert_eq!(
        (log["version"].as_str(), results.len()),
        (Some("2.1.0"), 1),
        "what passed is no result: {log}"
    );
    assert_eq!(results[0]["message"]["text"], "bad | <one>: status 1 instead of 0");
    let place = &results[0]["locations"][0]["physicalLocation"];
    assert_eq!(
        (&place["artifactLocation"]["uri"], &place["region"]["startLine"]),
        (&plan.as_str().into(), &5.into())
    );
    let table = std::fs::read_to_string(&summary).unwrap();
    assert!(table.contains("| bad \\| <one> | FAIL |"), "{table}");

    tdvisor(&["test", &plan, "--target", "good"]).ends_with(0);
    let said = tdvisor(&["test", &plan, "--target", "other"]).ends_with(2).one_line_of_error();
    assert!(said.contains("good"), "{said}");
    let bad = folder.write("bad.toml", "[[target]]\nname = \"x\"\nkernal = \"bzImage\"\n");
    let said = tdvisor(&["test", &bad]).ends_with(2).one_line_of_error();
    assert!(said.contains("line 3") && said.contains("kernal"), "{said}");
}

#[test]
fn the_step_of_the_action_makes_a_plan_of_its_inputs() {
    let folder = Folder::new("statuses-action");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/action");
    let step = |inputs: &[(&str, &str)]| {
        let mut call = Command::new(script);
        call.current_dir(folder.path("")).env("TDVISOR", env!("CARGO_BIN_EXE_tdvisor"));
        call.envs(inputs.iter().copied()).output().unwrap()
    };
    let good = step(&[("INPUT_IMAGE", "hello-td"), ("INPUT_VCPUS", "2"), ("INPUT_JUNIT", "junit.xml")]);
    assert_eq!(good.status.code(), Some(0), "{}", String::from_utf8_lossy(&good.stderr));
    assert!(std::fs::read_to_string(folder.path("junit.xml")).unwrap().contains("vCPU(s)"));
    let odd = step(&[("INPUT_IMAGE", "no\"such\\guest\n"), ("INPUT_VCPUS", "1")]);
    assert_eq!(odd.status.code(), Some(1), "an odd name is data: {}", String::from_utf8_lossy(&odd.stderr));
    assert_eq!(step(&[("INPUT_IMAGE", "hello-td"), ("INPUT_VCPUS", "1; rm")]).status.code(), Some(2));
}
