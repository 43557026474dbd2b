//! `tdvisor run`, as a user and as a script see it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tdvisor_guest_images::HELLO_TD;
use tdvisor_test_data::chance::Chance;

fn tdvisor(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tdvisor"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A file of this test's own.
fn file(name: &str, contents: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, contents).expect("the test's folder can be written");
    path
}

/// Status 2, nothing on stdout, and exactly one line that names the problem.
#[track_caller]
fn is_refused(output: &Output, naming: &str) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(text(&output.stdout), "", "nothing ran");
    assert!(stderr.contains(naming), "'{naming}' is not named in: {stderr}");
}

/// Checks that the program itself, and not its argument parser, refuses in one line that names `naming`.
#[track_caller]
fn is_refused_in_one_line(output: &Output, naming: &str) {
    is_refused(output, naming);
    assert_eq!(text(&output.stderr).lines().count(), 1, "{}", text(&output.stderr));
}

#[test]
fn hello_td_runs_is_measured_and_leaves_nothing_behind() {
    let output = tdvisor(&[]);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stdout}\n{stderr}");
    assert!(stdout.contains("MRTD "), "the guest prints its own measurement:\n{stdout}");
    assert!(stderr.contains("matches the image"), "{stderr}");
    assert!(stderr.contains("mirror = S-EPT = PAMT"), "{stderr}");
    assert!(stderr.contains("every page and the key id came back"), "{stderr}");
}

#[test]
fn two_vcpus_share_memory_of_both_sizes_and_kinds() {
    let output = tdvisor(&["run", "--vcpus", "2", "--memory", "256M", "--json"]);
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{stdout}\n{}", text(&output.stderr));
    let summary: serde_json::Value = serde_json::from_str(&stdout).expect("stdout is the JSON summary");
    assert_eq!(summary["ending"]["code"], 0);
    assert_eq!(summary["mrtd_matches"], true);
    assert_eq!(summary["audit"]["ok"], true);
    assert_eq!(summary["lost"].as_array().map(Vec::len), Some(0));
    assert_eq!(summary["violations"].as_array().map(Vec::len), Some(0));
    assert!(summary["private_pages"]["4K"].as_u64() > Some(0), "{summary}");
    assert!(summary["private_pages"]["2M"].as_u64() > Some(0), "{summary}");
    assert!(summary["frames_converted"].as_u64() > Some(0), "{summary}");
}

#[test]
fn with_small_pages_only_no_large_page_is_mapped() {
    let output = tdvisor(&["run", "--max-page", "4K", "--json"]);
    let summary: serde_json::Value =
        serde_json::from_str(&text(&output.stdout)).expect("stdout is the JSON summary");
    assert_eq!(output.status.code(), Some(0), "{summary}");
    assert_eq!(summary["private_pages"]["2M"], 0);
}

#[test]
fn a_page_accepted_as_2m_is_split_for_a_4k_conversion() {
    let output = tdvisor(&["run", "--command", "split", "--json"]);
    let summary: serde_json::Value =
        serde_json::from_str(&text(&output.stdout)).expect("stdout is the JSON summary");
    assert_eq!(output.status.code(), Some(0), "{summary}\n{}", text(&output.stderr));
    assert!(summary["seamcalls"]["TDH.MEM.PAGE.DEMOTE"].as_u64() > Some(0), "{summary}");
}

#[test]
fn the_measurement_by_calculation_is_that_of_the_running_td() {
    let image = file("hello.fd", HELLO_TD.image);
    let measured = tdvisor(&["measure", &image.display().to_string(), "--json"]);
    assert_eq!(measured.status.code(), Some(0), "{}", text(&measured.stderr));
    let ran = tdvisor(&["run", &image.display().to_string(), "--json"]);
    let summary: serde_json::Value = serde_json::from_str(&text(&ran.stdout)).expect("JSON");
    let mrtd = summary["mrtd"].as_str().expect("a measurement");
    assert!(text(&measured.stdout).contains(mrtd), "{mrtd} is not in {}", text(&measured.stdout));
}

#[test]
fn an_image_that_is_none_is_refused_in_one_line() {
    is_refused_in_one_line(&tdvisor(&["run", "/nonexistent/image.fd"]), "/nonexistent/image.fd");
    let empty = file("empty.fd", b"");
    is_refused_in_one_line(&tdvisor(&["run", &empty.display().to_string()]), "empty");
    let truncated = file("truncated.fd", &HELLO_TD.image[HELLO_TD.image.len() / 2 + 100..]);
    is_refused_in_one_line(&tdvisor(&["run", &truncated.display().to_string()]), "truncated.fd");
    let mut random = [0; 100_000];
    Chance::new(7).fill(&mut random);
    let random = file("random.fd", &random);
    is_refused_in_one_line(&tdvisor(&["run", &random.display().to_string()]), "random.fd");
}

#[test]
fn sizes_and_counts_that_cannot_be_are_refused() {
    for (arguments, naming) in [
        (["--memory", "0"], "memory"),
        (["--memory", "100000G"], "more than the machine has"),
        (["--memory", "12345"], "multiple of 4 KiB"),
        (["--memory", "512"], "did you mean 512M?"),
        (["--memory", "1234567"], "multiple of 4 KiB"),
        (["--memory", "1T"], "at most 65536 MiB"),
        (["--memory", "lots"], "lots"),
        (["--vcpus", "0"], "vCPU"),
        (["--vcpus", "100000"], "vCPU"),
        (["--max-page", "1T"], "1T"),
    ] {
        is_refused(&tdvisor(&["run", arguments[0], arguments[1]]), naming);
    }
}

#[test]
fn a_trace_that_cannot_be_written_is_refused_before_anything_runs() {
    is_refused_in_one_line(&tdvisor(&["run", "--trace", "/nonexistent/trace"]), "/nonexistent/trace");
}

#[test]
fn a_trace_holds_every_seamcall_and_is_explained() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("calls.jsonl");
    let output = tdvisor(&["run", "--trace", &path.display().to_string(), "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let summary: serde_json::Value = serde_json::from_str(&text(&output.stdout)).expect("JSON");
    let counted: u64 = summary["seamcalls"]
        .as_object()
        .expect("counts by leaf")
        .values()
        .filter_map(serde_json::Value::as_u64)
        .sum();
    let lines = std::fs::read_to_string(&path).expect("the trace is there").lines().count();
    assert_eq!(lines as u64, counted);
    let decoded = tdvisor(&["decode", &path.display().to_string()]);
    assert_eq!(decoded.status.code(), Some(0), "{}", text(&decoded.stderr));
    assert!(text(&decoded.stdout).contains("TDH.MR.FINALIZE"));
}

#[test]
fn fault_td_ends_as_its_command_says() {
    for (command, status, naming) in [
        ("unaccepted", 3, "not accepted"),
        ("triple-fault", 3, "triple fault"),
        ("fatal", 1, "fatal error"),
        ("fail", 1, "failure"),
    ] {
        let output = tdvisor(&["run", "fault-td", "--command", command]);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{command}: {stderr}");
        assert!(stderr.contains(naming), "{command}: '{naming}' is not named in {stderr}");
    }
}

#[test]
fn a_td_that_died_leaves_its_last_exits_and_the_last_seamcalls() {
    let died = |options: &[&str]| {
        let output = tdvisor(&[&["run", "fault-td", "--command", "triple-fault", "-v"], options].concat());
        text(&output.stderr)
    };
    let told = |summary: &str, what: &str| {
        let line =
            summary.lines().find_map(|line| line.trim().strip_prefix("last")?.trim().strip_prefix(what));
        line.unwrap_or_else(|| panic!("{what}: {summary}")).to_owned()
    };
    let debug = died(&["--debug"]);
    let exits = told(&debug, "exits on LP 1:");
    let last = exits.rsplit(", ").next().unwrap_or_default();
    assert!(last.starts_with("triple fault at 0x"), "{exits}");
    let calls = told(&debug, "SEAMCALLs:");
    assert!(calls.contains("TDH.VP.ENTER on LP 1: NON_RECOVERABLE_VCPU"), "{calls}");
    let confidential = died(&[]);
    let exits = told(&confidential, "exits on LP 1:");
    assert!(exits.contains("TDVMCALL") && !exits.contains(" at 0x") && !exits.contains("TDG.MEM"), "{exits}");
    let alive = text(&tdvisor(&["run", "hello-td", "-v"]).stderr);
    assert!(!alive.lines().any(|line| line.trim().starts_with("last ")), "{alive}");
}

#[test]
fn a_guest_that_never_ends_is_stopped_in_order() {
    let output = tdvisor(&["run", "fault-td", "--command", "spin", "--timeout", "1"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(124), "{stderr}");
    assert!(stderr.contains("stopped"), "{stderr}");
    assert!(stderr.contains("every page and the key id came back"), "{stderr}");
}

#[test]
fn a_quote_of_the_running_td_is_verified_under_the_test_root_and_no_other() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("q.bin");
    let (quote, collateral, root) = (
        path.display().to_string(),
        format!("{}.collateral.json", path.display()),
        format!("{}.root.pem", path.display()),
    );
    let ran = tdvisor(&["run", "--quote", &quote, "--json"]);
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
    let summary: serde_json::Value = serde_json::from_str(&text(&ran.stdout)).expect("JSON");
    let mrtd = summary["mrtd"].as_str().expect("a measurement");
    let verified = tdvisor(&["verify", &quote, "--collateral", &collateral, "--test-root", &root]);
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified.stdout));
    let shown = tdvisor(&["quote", "show", &quote]);
    assert!(text(&shown.stdout).contains(mrtd), "{}", text(&shown.stdout));
    let trusting_intel = tdvisor(&["verify", &quote, "--collateral", &collateral]);
    assert_eq!(trusting_intel.status.code(), Some(1), "{}", text(&trusting_intel.stdout));
}

#[test]
fn a_td_survives_a_chaos_plan_and_a_bad_plan_is_refused() {
    let output = tdvisor(&["run", "--vcpus", "2", "--command", "split", "--inject", "chaos:7/50", "--json"]);
    let summary: serde_json::Value =
        serde_json::from_str(&text(&output.stdout)).expect("stdout is the JSON summary");
    assert_eq!(output.status.code(), Some(0), "{summary}\n{}", text(&output.stderr));
    assert_eq!(summary["audit"]["ok"], true);
    is_refused(&tdvisor(&["run", "--inject", "TDH.NO.SUCH#1=irq"]), "TDH.NO.SUCH");
}

#[test]
fn an_l2_vm_runs_inside_of_a_td_where_one_is_asked_for() {
    let output = tdvisor(&["run", "l1-vmm"]);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stdout}\n{stderr}");
    assert!(stdout.contains("L2: \"hello from an L2 VM\""), "{stdout}");
    assert!(stderr.contains("mirror = S-EPT = PAMT"), "{stderr}");
    assert!(stderr.contains("every page and the key id came back"), "{stderr}");

    let without = tdvisor(&["run", "l1-vmm", "--l2-vms", "0"]);
    assert_eq!(without.status.code(), Some(1), "{}", text(&without.stdout));
    assert!(text(&without.stdout).contains("this TD has no L2 VM"));
    is_refused_in_one_line(&tdvisor(&["run", "--l2-vms", "4"]), "at most 3");
}
