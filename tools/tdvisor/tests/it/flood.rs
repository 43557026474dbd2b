//! A hostile guest feeds its host as much as it can, of every kind that the host might remember; the host's memory stays
//! flat. SPECIFICATION.md lists the bounds.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

/// What the second half of a flood may add to the resident memory, KiB: allocators and caches breathe.
const SLACK_KIB: u64 = 3 << 10;

/// A flooding TD, its console in a pipe.
struct Flood {
    kind: &'static str,
    process: Child,
    console: BufReader<std::process::ChildStdout>,
}

impl Flood {
    fn start(kind: &'static str, count: u64, options: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_tdvisor"))
            .args(["run", "fault-td", "--command", &format!("flood:{kind}:{count}"), "--timeout", "300"])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tdvisor starts");
        let console = BufReader::new(process.stdout.take().expect("a pipe"));
        Self { kind, process, console }
    }

    /// Waits until the guest has done a half and is waiting itself; gives the host's resident memory, KiB.
    fn resident_after(&mut self, half: u32) -> u64 {
        let mark = format!("flood {} {half}", self.kind);
        let mut line = Vec::new();
        loop {
            line.clear();
            // The flood itself may be in the way of the mark, and need not be text.
            let read = self.console.read_until(b'\n', &mut line).expect("the console can be read");
            if read == 0 {
                let said = self.rest();
                panic!("{}: the guest ended before '{mark}': {said}", self.kind);
            }
            if line.ends_with(format!("{mark}\n").as_bytes()) {
                break;
            }
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("it runs");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("resident memory");
        resident.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    fn go_on(&mut self) {
        self.process.stdin.as_mut().expect("a pipe").write_all(b"x").expect("the guest is there");
    }

    fn rest(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut stderr) = self.process.stderr.take() {
            let _ = stderr.read_to_string(&mut text);
        }
        text
    }

    /// Lets the guest end; gives its summary.
    fn summary(mut self) -> String {
        self.go_on();
        let summary = self.rest();
        let mut console = Vec::new();
        let _ = self.console.read_to_end(&mut console);
        let status = self.process.wait().expect("it ends");
        assert_eq!(status.code(), Some(0), "{}: {summary}", self.kind);
        summary
    }
}

fn stays_flat(kind: &'static str, count: u64, options: &[&str]) -> String {
    let mut flood = Flood::start(kind, count, options);
    // Standard error has to be read, or the guest waits for it.
    let stderr = flood.process.stderr.take().expect("a pipe");
    let reader = std::thread::spawn(move || {
        let (mut kept, mut line) = (Vec::new(), Vec::new());
        let mut lines = BufReader::new(stderr);
        while lines.read_until(b'\n', &mut line).is_ok_and(|read| read != 0) {
            // Of a flood of log lines the end is enough.
            if kept.len() > 1 << 16 {
                kept.clear();
            }
            kept.append(&mut line);
        }
        String::from_utf8_lossy(&kept).into_owned()
    });
    let half = flood.resident_after(0);
    flood.go_on();
    let whole = flood.resident_after(1);
    flood.summary();
    let summary = reader.join().expect("it reads");
    println!("{kind}: {half} KiB, then {whole} KiB");
    assert!(
        whole <= half + SLACK_KIB,
        "{kind}: {count} more took the host from {half} to {whole} KiB; run fault-td --command flood:{kind}:{count}"
    );
    let longest = summary.lines().map(str::len).max().unwrap_or(0);
    assert!(longest < 4096, "{kind}: a line of {longest} bytes in the summary");
    summary
}

#[test]
fn calls_of_numbers_that_nobody_defined_cost_nothing() {
    let summary = stays_flat("calls", 100_000, &[]);
    assert!(summary.contains("TDVMCALL of no known function 400000"), "{summary}");
    stays_flat("vendor", 100_000, &[]);
    stays_flat("malformed", 100_000, &[]);
}

#[test]
fn ports_and_mmio_addresses_without_a_device_cost_nothing() {
    stays_flat("ports", 100_000, &[]);
    stays_flat("mmio", 100_000, &[]);
}

#[test]
fn msrs_cpuid_leaves_and_notification_vectors_cost_nothing() {
    for kind in ["msrs", "cpuid", "notifications"] {
        stays_flat(kind, 100_000, &[]);
    }
}

#[test]
fn a_console_that_is_read_and_a_log_that_makes_no_sense_cost_nothing() {
    stays_flat("console", 200_000, &[]);
    stays_flat("log", 200_000, &[]);
}

#[test]
fn conversions_back_and_forth_cost_nothing() {
    stays_flat("conversions", 20_000, &[]);
}

#[test]
fn quotes_cost_nothing_from_an_issuer_and_from_a_service_that_is_not_there() {
    stays_flat("quotes", 100, &[]);
    let summary = stays_flat("quotes", 2000, &["--qgs", "/no/such/socket"]);
    let complaints = summary.lines().filter(|line| line.contains("/no/such/socket")).count();
    assert_eq!(complaints, 8, "{summary}");
}

#[test]
fn a_trace_of_a_flood_grows_in_its_file_only() {
    let trace = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("flood-trace.jsonl");
    stays_flat("calls", 20_000, &["--trace", &trace.display().to_string()]);
    std::fs::remove_file(trace).expect("the trace was written");
}
