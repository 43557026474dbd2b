//! What a command writes: not over what it reads, not half, and never silently nothing.

use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use crate::cli::{Folder, tdvisor};

/// Runs `tdvisor` with its standard output at `/dev/full`.
fn with_a_full_disk(arguments: &[&str]) -> (Option<i32>, String) {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let output = Command::new(env!("CARGO_BIN_EXE_tdvisor"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(full)
        .output()
        .expect("tdvisor starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Runs `tdvisor` with standard output, and error, closed on the other side.
fn without_readers(arguments: &[&str]) -> Option<i32> {
    let closed = || Stdio::from(nix::unistd::pipe().expect("a pipe").1);
    let status = Command::new(env!("CARGO_BIN_EXE_tdvisor"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(closed())
        .stderr(closed())
        .status();
    status.expect("tdvisor starts").code()
}

/// A test quote with its files, in this folder.
fn issue(folder: &Folder) -> [String; 3] {
    let paths = ["quote", "collateral", "root"].map(|name| folder.path(name));
    let [quote, collateral, root] = &paths;
    tdvisor(&["quote", "issue", "--out", quote, "--collateral", collateral, "--root", root]).ends_with(0);
    paths
}

#[test]
fn an_answer_that_does_not_fit_on_the_disk_is_no_success() {
    let folder = Folder::new("outputs-full");
    let [quote, collateral, root] = issue(&folder);
    let trace = folder.path("trace");
    tdvisor(&["run", "--trace", &trace]).ends_with(0);
    for arguments in [
        &["verify", &quote, "--collateral", &collateral, "--test-root", &root][..],
        &["verify", &quote, "--collateral", &collateral, "--test-root", &root, "--json"],
        &["quote", "show", &quote],
        &["quote", "issue", "--out", &quote, "--collateral", &collateral, "--root", &root],
        &["measure", "hello-td"],
        &["measure", "hello-td", "--json"],
        &["decode", "0xC0000B0800000092"],
        &["decode", "TDH.MEM.PAGE.AUG", "--json"],
        &["decode", &trace],
        &["run"],
        &["run", "--json"],
    ] {
        let (status, said) = with_a_full_disk(arguments);
        assert_eq!(status, Some(6), "{arguments:?}: {said}");
        assert!(said.contains("standard output"), "{arguments:?}: {said}");
    }
}

#[test]
fn a_reader_that_leaves_changes_no_answer() {
    let folder = Folder::new("outputs-closed");
    let [quote, collateral, root] = issue(&folder);
    for (arguments, status) in [
        (&["verify", &quote, "--collateral", &collateral, "--test-root", &root][..], 0),
        (&["verify", &quote, "--collateral", &collateral], 1),
        (&["quote", "show", &quote], 0),
        (&["measure", "hello-td"], 0),
        (&["decode", "TDH.MEM.PAGE.AUG"], 0),
        (&["decode", "no/such/thing"], 2),
        (&["run"], 0),
        (&["run", "fault-td", "--command", "fail"], 1),
        (&["run", "fault-td", "--command", "triple-fault", "--json"], 3),
        (&["run", "/no/such/image"], 2),
    ] {
        assert_eq!(without_readers(arguments), Some(status), "{arguments:?}");
    }
}

#[test]
fn a_file_that_a_run_reads_is_not_written_whatever_it_is_called() {
    let folder = Folder::new("outputs-same");
    let precious = folder.write("precious", vec![7; 1 << 20]);
    let (soft, hard) = (folder.path("soft"), folder.path("hard"));
    symlink(&precious, &soft).expect("a link");
    std::fs::hard_link(&precious, &hard).expect("a link");
    let quote = folder.path("q");
    for name in [&precious, &soft, &hard] {
        for arguments in [
            &["run", "--kernel", &precious, "--disk", &precious, "--trace", name][..],
            &["run", "--kernel", "/bin/sh", "--disk", &precious, "--trace", name],
            &["run", "--kernel", &precious, "--trace", name],
            &["run", "--kernel", "/bin/sh", "--initrd", &precious, "--quote", name],
            &["run", &precious, "--quote", name],
            &["run", "--elf", &precious, "--trace", name],
            &["run", "--trace", &precious, "--quote", name],
            &[
                "quote",
                "issue",
                "--report",
                &precious,
                "--out",
                name,
                "--collateral",
                &quote,
                "--root",
                "/dev/null",
            ],
            &["quote", "issue", "--out", &precious, "--collateral", name, "--root", "/dev/null"],
            &["eventlog", "explain", &precious, "--html", name],
            &["eventlog", "explain", "/dev/null", "--kernel", &precious, "--html", name],
        ] {
            let said = tdvisor(arguments).ends_with(2).one_line_of_error();
            assert!(said.contains("same file"), "{arguments:?}: {said}");
            assert_eq!(std::fs::read(&precious).expect("it is there"), vec![7; 1 << 20], "{arguments:?}");
        }
    }
    assert!(!std::path::Path::new(&quote).exists(), "nothing is left of what did not begin");
}

#[test]
fn outputs_that_cannot_be_are_refused_before_anything_runs() {
    let folder = Folder::new("outputs-refused");
    let pipe = folder.path("pipe");
    nix::unistd::mkfifo(pipe.as_str(), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    for bad in [&folder.path("no/such/folder/file"), &pipe, &folder.path("")] {
        for option in ["--trace", "--quote"] {
            let answer = tdvisor(&["run", option, bad]).ends_with(2);
            assert!(answer.one_line_of_error().contains(bad.as_str()), "{option} {bad}");
            assert_eq!(answer.stdout(), "", "nothing ran");
        }
    }
}

#[test]
fn a_trace_that_does_not_fit_is_said_beside_the_summary() {
    let answer = tdvisor(&["run", "--trace", "/dev/full"]).ends_with(6);
    let said = answer.stderr();
    assert!(said.contains("/dev/full: the trace is incomplete"), "{said}");
    assert!(said.contains("the guest powered off: success") && said.contains("SEAMCALLs"), "{said}");
}

#[test]
fn a_quote_that_does_not_fit_is_no_success() {
    let folder = Folder::new("outputs-quote");
    symlink("/dev/full", folder.path("q")).expect("a link");
    let said = tdvisor(&["run", "--quote", &folder.path("q")]).ends_with(6).stderr();
    assert!(said.contains("the guest powered off: success"), "{said}");
}
