//! Snapshots of a server, from the command line.

use crate::cli::{Folder, tdvisor};

/// What the built-in host says when the module is up, long before its TD.
const TEXT: &str = "the module is up";

/// A host with one TD of two vCPUs, in virtual time.
const HOST: [&str; 8] =
    ["server", "--host-image", "--cpus", "3", "--cmdline", "vcpus=2", "--deterministic", "3"];

#[test]
fn a_resumed_run_is_the_uninterrupted_one_byte_for_byte_and_instruction_by_instruction() {
    let folder = Folder::new("snapshot-resume");
    let file = folder.path("server.snapshot");
    let mut through: Vec<&str> = HOST.to_vec();
    through.push("--json");
    let whole = tdvisor(&through).ends_with(0);
    let mut saved = through.clone();
    saved.extend(["--snapshot", &file, "--snapshot-at", TEXT]);
    let first = tdvisor(&saved).ends_with(0);
    let second = tdvisor(&["server", "--resume", &file, "--json"]).ends_with(0);
    // With --json the host's console is what goes to stderr. The line that the text is in ends in the second part.
    let before = first.stderr();
    let before = before.strip_suffix('\n').unwrap_or(&before);
    assert!(before.lines().last().is_some_and(|line| line.contains(TEXT)), "{before}");
    assert_eq!(format!("{before}{}", second.stderr()), whole.stderr());
    for fact in ["instructions", "td_instructions", "seamcalls", "ending", "violations", "audit"] {
        assert_eq!(second.json()[fact], whole.json()[fact], "{fact}");
    }
}

#[test]
fn what_is_no_snapshot_or_a_damaged_one_is_one_line_and_status_2() {
    let folder = Folder::new("snapshot-bad");
    let file = folder.path("server.snapshot");
    let mut arguments: Vec<&str> = HOST.to_vec();
    arguments.extend(["--snapshot", &file, "--snapshot-at", "processors"]);
    tdvisor(&arguments).ends_with(0);
    let bytes = std::fs::read(&file).expect("the snapshot");
    let mut damaged = bytes.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    for (name, contents) in [
        ("empty", &[][..]),
        ("text", b"not a snapshot, but longer than the header of one"),
        ("cut", &bytes[..bytes.len() - 1]),
        ("damaged", &damaged),
    ] {
        let bad = folder.write(name, contents);
        tdvisor(&["server", "--resume", &bad]).ends_with(2).one_line_of_error();
    }
    tdvisor(&["server", "--resume", "/no/such/file"]).ends_with(2).one_line_of_error();
    tdvisor(&["server", "--resume", &file, "--cpus", "2"]).ends_with(2);
    tdvisor(&["server", "--host-image", "--snapshot", &file]).ends_with(2);
    let disk = folder.write("disk", [0; 512]);
    tdvisor(&["server", "--host-image", "--disk", &disk, "--snapshot", &file, "--snapshot-at", "x"])
        .ends_with(2);
}

#[test]
fn a_text_that_never_comes_leaves_no_snapshot_and_says_so_by_its_status() {
    let folder = Folder::new("snapshot-never");
    let file = folder.path("server.snapshot");
    let host = folder.write("host.elf", crate::cli::host_that_powers_off(0));
    tdvisor(&[
        "server",
        "--kernel",
        &host,
        "--deterministic",
        "1",
        "--snapshot",
        &file,
        "--snapshot-at",
        "never said",
    ])
    .ends_with(1);
    assert!(!std::path::Path::new(&file).exists());
}
