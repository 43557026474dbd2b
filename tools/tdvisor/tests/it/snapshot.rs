//! Snapshots of a TD, from the command line.

use std::os::unix::fs::PermissionsExt as _;

use crate::cli::{Folder, tdvisor};

/// What `hello-td` says in the middle of its run.
const TEXT: &str = "conversion:";

const TD: [&str; 9] =
    ["run", "hello-td", "--vcpus", "2", "--deterministic", "3", "--inspectable", "--json", "--trace"];

#[test]
fn a_resumed_td_is_the_uninterrupted_one_byte_for_byte_and_call_for_call() {
    let folder = Folder::new("td-snapshot-resume");
    let [file, of_whole, of_first, of_second] =
        ["td.snapshot", "whole.jsonl", "first.jsonl", "second.jsonl"].map(|name| folder.path(name));
    let mut through: Vec<&str> = TD.to_vec();
    through.push(&of_whole);
    let whole = tdvisor(&through).ends_with(0);
    let mut saving: Vec<&str> = TD.to_vec();
    saving.extend([&*of_first, "--snapshot", &file, "--snapshot-at", TEXT]);
    let first = tdvisor(&saving).ends_with(0);
    assert_eq!(first.json()["ending"]["kind"], "saved");
    assert!(first.json()["snapshot"].as_str().is_some_and(|said| said.starts_with(&file)));
    assert_eq!(std::fs::metadata(&file).expect("the snapshot").permissions().mode() & 0o777, 0o600);
    let second = tdvisor(&["run", "--resume", &file, "--json", "--trace", &of_second]).ends_with(0);

    // With --json the guest's console is what goes to stderr. The line that the text is in ends in the second part.
    let (before, after) = (first.stderr(), second.stderr());
    let before = before.strip_suffix('\n').unwrap_or(&before);
    assert!(before.lines().last().is_some_and(|line| line.contains(TEXT)), "{before}");
    assert_eq!(format!("{before}{after}"), whole.stderr());
    let calls = std::fs::read_to_string(&of_whole).expect("a trace");
    let rest = std::fs::read_to_string(&of_second).expect("a trace");
    // The teardown, which is no part of the TD's run, ends both.
    assert!(calls.ends_with(&rest) && rest.lines().count() > 10, "{} calls", rest.lines().count());
    for fact in [
        "ending",
        "mrtd",
        "mrtd_matches",
        "rtmrs",
        "exits",
        "seamcalls",
        "private_pages",
        "shared_pages",
        "frames_converted",
        "audit",
        "lost",
        "violations",
        "module",
        "processor",
        "inspectable",
    ] {
        assert_eq!(second.json()[fact], whole.json()[fact], "{fact}");
    }
}

#[test]
fn what_cannot_be_saved_is_refused_before_anything_starts_with_what_to_do() {
    let folder = Folder::new("td-snapshot-refused");
    let file = folder.path("td.snapshot");
    let kernel = folder.write("kernel", [0; 64]);
    let wanted = ["run", "--snapshot", &file, "--snapshot-at", TEXT];
    for (options, words) in [
        (&["--inspectable"][..], "--deterministic"),
        (&["--deterministic", "1"], "--inspectable"),
        (&["--deterministic", "1", "--inspectable", "--backend", "kvm"], "only the emulated machine"),
        (&["--deterministic", "1", "--inspectable", "--kernel", &kernel], "virtio devices are not saved"),
        (&["--deterministic", "1", "--inspectable", "--disk", &kernel], "virtio devices are not saved"),
        (&["--deterministic", "1", "--inspectable", "--inject", "chaos:1/100"], "leave --inject out"),
        (&["--deterministic", "1", "--inspectable", "--gdb", "127.0.0.1:0"], "leave --gdb out"),
    ] {
        let arguments: Vec<&str> = wanted.iter().chain(options).copied().collect();
        let refused = tdvisor(&arguments).ends_with(2);
        assert!(refused.stderr().contains(words), "{options:?}: {}", refused.stderr());
        refused.one_line_of_error();
        assert!(!std::path::Path::new(&file).exists(), "{options:?}");
    }
    for beside in [["--memory", "256M"], ["--vcpus", "2"], ["--kernel", &kernel], ["--deterministic", "1"]] {
        tdvisor(&["run", "--resume", &file, beside[0], beside[1]]).ends_with(2);
    }
    tdvisor(&["run", "--snapshot", &file]).ends_with(2);
}

#[test]
fn what_is_no_snapshot_of_a_td_or_a_damaged_one_is_one_line_and_status_2() {
    let folder = Folder::new("td-snapshot-bad");
    let file = folder.path("td.snapshot");
    tdvisor(&[
        "run",
        "hello-td",
        "--deterministic",
        "1",
        "--inspectable",
        "--snapshot",
        &file,
        "--snapshot-at",
        TEXT,
    ])
    .ends_with(0);
    let bytes = std::fs::read(&file).expect("the snapshot");
    let changed = |at: usize| {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        damaged
    };
    for (name, contents) in [
        ("empty", Vec::new()),
        ("text", b"not a snapshot, but longer than the header of one".to_vec()),
        ("cut", bytes[..bytes.len() - 1].to_vec()),
        ("head", changed(25)),
        ("middle", changed(bytes.len() / 2)),
        ("end", changed(bytes.len() - 1)),
    ] {
        let bad = folder.write(name, contents);
        tdvisor(&["run", "--resume", &bad]).ends_with(2).one_line_of_error();
    }
    tdvisor(&["run", "--resume", "/no/such/file"]).ends_with(2).one_line_of_error();
    tdvisor(&["server", "--resume", &file]).ends_with(2).one_line_of_error();
}

#[test]
fn a_text_that_never_comes_leaves_no_snapshot_of_a_td_and_says_so_by_its_status() {
    let folder = Folder::new("td-snapshot-never");
    let file = folder.path("td.snapshot");
    tdvisor(&[
        "run",
        "hello-td",
        "--deterministic",
        "1",
        "--inspectable",
        "--snapshot",
        &file,
        "--snapshot-at",
        "never said",
    ])
    .ends_with(1);
    assert!(!std::path::Path::new(&file).exists());
}
