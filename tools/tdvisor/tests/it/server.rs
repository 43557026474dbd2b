//! A TDX host on the emulated server, from the command line.
//!
//! The tests with a Linux host need `tools/hosts/linux/build.sh`; `scripts/nightly` runs them.

use crate::cli::{Folder, host_that_powers_off, tdvisor};

#[test]
fn the_hosts_power_off_code_is_the_exit_status_and_the_summary_says_what_it_did() {
    let folder = Folder::new("server-code");
    for (code, status) in [(0, 0), (7, 1)] {
        let kernel = folder.write("host.elf", host_that_powers_off(code));
        let answer =
            tdvisor(&["server", "--kernel", &kernel, "--deterministic", "1", "--json"]).ends_with(status);
        let json = answer.json();
        assert_eq!(json["schema"], 1);
        assert_eq!(json["seamcalls"], serde_json::json!([]));
        assert_eq!(json["instructions"], 3);
        assert_eq!(json["violations"], serde_json::json!([]));
    }
}

#[test]
fn what_cannot_be_booted_is_one_line_and_status_2() {
    let folder = Folder::new("server-input");
    let good = folder.write("host.elf", host_that_powers_off(0));
    let text = folder.write("text", b"not a kernel");
    let cut = folder.write("cut.elf", &host_that_powers_off(0)[..100]);
    for arguments in [
        &["server", "--kernel", "/no/such/kernel"][..],
        &["server", "--kernel", &text],
        &["server", "--kernel", &cut],
        &["server", "--kernel", &good, "--initrd", "/no/such/initrd"],
        &["server", "--kernel", &good, "--cpus", "0"],
        &["server", "--kernel", &good, "--cpus", "65"],
        &["server", "--kernel", &good, "--packages", "2"],
        &["server", "--kernel", &good, "--memory", "1M"],
        &["server", "--kernel", &good, "--memory", "1T"],
    ] {
        tdvisor(arguments).ends_with(2).one_line_of_error();
    }
}

/// What a Linux host printed, and its summary.
fn linux(arguments: &[&str]) -> (String, serde_json::Value) {
    linux_ends_with(0, arguments)
}

/// What a Linux host printed that ends with this status, and its summary.
fn linux_ends_with(status: i32, arguments: &[&str]) -> (String, serde_json::Value) {
    let (kernel, initrd) =
        (tdvisor_test_data::linux::host_file("vmlinux"), tdvisor_test_data::linux::host_file("initrd"));
    let (kernel, initrd) = (kernel.display().to_string(), initrd.display().to_string());
    let mut call = vec!["server", "--kernel", &kernel, "--json"];
    call.extend(arguments);
    // It is compressed: what arguments bring comes before it.
    call.extend(["--initrd", &initrd]);
    let answer = tdvisor(&call).ends_with(status);
    (answer.stderr(), answer.json())
}

/// The console without the kernel's time stamps.
fn without_times(console: &str) -> Vec<&str> {
    console.lines().map(|line| line.split_once("] ").map_or(line, |(_, text)| text)).collect()
}

#[test]
#[ignore = "needs tools/hosts/linux/build.sh: scripts/nightly runs it"]
fn nightly_linux_initialises_the_module_and_kvm_offers_tds_with_one_two_and_four_processors() {
    for (cpus, packages) in [("1", "1"), ("2", "1"), ("4", "2")] {
        let (console, summary) = linux(&["--cpus", cpus, "--packages", packages]);
        let lines = without_times(&console);
        for expected in [
            "virt/tdx: BIOS enabled: private KeyID range [32, 64)",
            "virt/tdx: Module version: 1.5.05",
            "virt/tdx: TDX-Module initialized",
            "tdvisor-host: tdx ok ",
            "tdvisor-host: kvm ok types=0x21",
            "tdvisor-host: done failures=0",
        ] {
            assert!(lines.contains(&expected), "{cpus} processors: '{expected}' is missing in\n{console}");
        }
        assert!(
            lines
                .iter()
                .any(|line| line.starts_with("virt/tdx: ") && line.ends_with("KB allocated for PAMT"))
        );
        assert_eq!(summary["violations"], serde_json::json!([]));
        assert_eq!(summary["audit"], serde_json::json!([]));
    }
}

#[test]
#[ignore = "needs tools/hosts/linux/build.sh: scripts/nightly runs it"]
fn nightly_processors_of_a_linux_host_go_offline_and_come_back() {
    let (console, _) = linux(&["--cpus", "4", "--append", "tdvisor.steps=tdx,cpus"]);
    assert!(without_times(&console).contains(&"tdvisor-host: cpus ok count=4"), "{console}");
}

/// An archive in the form that Linux unpacks as its first file system ("newc"), with one file in its root.
fn initramfs_with(name: &str, contents: &[u8]) -> Vec<u8> {
    const REGULAR_FILE: usize = 0o100_644;
    let mut archive = Vec::new();
    for (name, contents, mode) in [(name, contents, REGULAR_FILE), ("TRAILER!!!", &[], 0)] {
        // Inode, mode, owner, group, links, time, size, two device numbers twice, length of the name, no checksum.
        let fields = [1, mode, 0, 0, 1, 0, contents.len(), 0, 0, 0, 0, name.len() + 1, 0];
        archive.extend(b"070701");
        fields.iter().for_each(|field| archive.extend(format!("{field:08x}").bytes()));
        archive.extend(name.bytes().chain([0]));
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend(contents);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }
    archive
}

/// The lines that a TD's guest printed, on a host's console.
fn lines_of_td(console: &str) -> Vec<&str> {
    without_times(console).into_iter().filter_map(|line| line.strip_prefix("TD| ")).collect()
}

#[test]
#[ignore = "needs tools/hosts/linux/build.sh: scripts/nightly runs it"]
fn nightly_kvm_runs_a_td_to_its_end_with_the_mrtd_of_kvms_page_order() {
    let folder = Folder::new("server-td");
    let image = tdvisor_guest_images::HELLO_TD.image;
    let archive = folder.write("td.cpio", initramfs_with("td.fd", image));
    let sections = tdvisor(&["measure", "hello-td", "--json"]).ends_with(0).json()["sections"].clone();
    // KVM measures each page right after it has added it.
    let mrtd = sections.as_array().and_then(|all| all.last()?["mrtd_so_far"]["interleaved"].as_str());
    let mrtd = mrtd.expect("an image with sections");
    for (cpus, vcpus) in [("1", "1"), ("2", "2")] {
        let append = format!("tdvisor.steps=tdx,kvm,td tdvisor.vcpus={vcpus}");
        let (console, summary) = linux(&["--initrd", &archive, "--cpus", cpus, "--append", &append]);
        let lines = lines_of_td(&console);
        for expected in [
            format!("MRTD {mrtd}"),
            format!("hello-td: a TD with {vcpus} vCPU(s), GPA width 48, attributes 0x10000000"),
            "hello-td: done, powering off".to_owned(),
        ] {
            assert!(
                lines.contains(&expected.as_str()),
                "{vcpus} vCPUs: '{expected}' is missing in\n{console}"
            );
        }
        assert!(without_times(&console).contains(&"tdvisor-host: done failures=0"), "{console}");
        assert_eq!(summary["violations"], serde_json::json!([]));
        assert_eq!(summary["audit"], serde_json::json!([]), "everything came back");
    }
}

#[test]
#[ignore = "needs tools/hosts/linux/build.sh: scripts/nightly runs it"]
fn nightly_a_deterministic_linux_host_repeats_byte_for_byte() {
    let run = || {
        let (console, summary) = linux(&["--cpus", "2", "--deterministic", "5"]);
        (console, summary["instructions"].clone(), summary["seamcalls"].clone())
    };
    assert_eq!(run(), run());
}

#[test]
#[ignore = "needs tools/hosts/linux/build.sh: scripts/nightly runs it"]
fn nightly_after_a_platform_reset_a_linux_host_finds_the_module_as_at_power_on() {
    // The second reset is not followed: it is how this run ends.
    let (console, summary) = linux_ends_with(1, &["--boots", "2", "--append", "tdvisor.end=reboot"]);
    let lines = without_times(&console);
    let times = |expected: &str| lines.iter().filter(|line| **line == expected).count();
    assert_eq!(times("virt/tdx: TDX-Module initialized"), 2, "{console}");
    assert_eq!(times("tdvisor-host: done failures=0"), 2, "{console}");
    assert_eq!(summary["ending"], "the host asked for a reset");
    assert_eq!(summary["audit"], serde_json::json!([]));
}

#[test]
#[ignore = "needs tools/hosts/linux/build.sh: scripts/nightly runs it"]
fn nightly_a_linux_host_reaches_its_milestones_in_few_instructions() {
    const MILLION: u64 = 1_000_000;
    let folder = Folder::new("server-milestones");
    let file = folder.path("linux.snapshot");
    let milestones = [
        ("the module is initialised", "virt/tdx: TDX-Module initialized", 41),
        ("/init runs", "tdvisor-host: start", 85),
        ("KVM offers TDs", "tdvisor-host: kvm ok", 95),
    ];
    for cpus in ["1", "2", "4"] {
        for (what, text, most) in milestones {
            // The server stops where the text is: what it has executed until then is the answer.
            let at = ["--cpus", cpus, "--deterministic", "1", "--snapshot", &file, "--snapshot-at", text];
            let (_, summary) = linux(&at);
            let millions = summary["instructions"].as_u64().expect("a number") / MILLION;
            eprintln!("{cpus} processors: {what}: {millions} M instructions, {} s", summary["seconds"]);
            assert!(millions <= most, "{cpus} processors: {what} after {millions} M instructions");
        }
    }
}

#[test]
#[ignore = "needs tools/hosts/linux/build.sh: scripts/nightly runs it"]
fn nightly_a_linux_host_resumed_from_a_snapshot_is_the_one_that_never_stopped() {
    let folder = Folder::new("server-linux-snapshot");
    let file = folder.path("linux.snapshot");
    let host = ["--cpus", "2", "--deterministic", "7"];
    let (whole, summary) = linux(&host);
    let mut saving = host.to_vec();
    saving.extend(["--snapshot", &file, "--snapshot-at", "tdvisor-host: tdx ok"]);
    let (first, _) = linux(&saving);
    let second = tdvisor(&["server", "--resume", &file, "--json"]).ends_with(0);
    assert_eq!(format!("{}{}", first.strip_suffix('\n').unwrap_or(&first), second.stderr()), whole);
    for fact in ["instructions", "seamcalls", "violations", "audit"] {
        assert_eq!(second.json()[fact], summary[fact], "{fact}");
    }
}

/// What becomes of a Linux host whose SEAMCALL fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Survived,
    OneTdDied,
    HostDied,
}

/// What a resumed host says of itself: its fate, and the first line in which its kernel names a SEAMCALL.
fn fate(console: &str) -> (Fate, String) {
    let lines = without_times(console);
    let says = |text: &str| lines.iter().any(|line| line.contains(text));
    let host_died = says("Kernel panic") || says("Oops") || !says("tdvisor-host: done failures=");
    let own = lines.iter().find(|line| line.contains("SEAMCALL") || line.contains("TDH_"));
    let fate = if host_died {
        Fate::HostDied
    } else if says("tdvisor-host: td ok") {
        Fate::Survived
    } else {
        Fate::OneTdDied
    };
    (fate, own.copied().unwrap_or_default().to_owned())
}

#[test]
#[ignore = "needs tools/hosts/linux/build.sh: scripts/nightly runs it"]
fn nightly_seamcalls_that_fail_end_one_td_of_a_linux_host_at_most() {
    const PLANS: [(&str, Fate); 8] = [
        ("TDH.MNG.CREATE#1=OPERAND_BUSY:RCX", Fate::OneTdDied),
        ("TDH.MNG.INIT#1=OPERAND_INVALID:RCX", Fate::OneTdDied),
        ("TDH.MEM.PAGE.ADD#3=OPERAND_INVALID:RCX", Fate::OneTdDied),
        ("TDH.MEM.PAGE.AUG#5=OPERAND_BUSY:SEPT_TREE", Fate::Survived),
        ("TDH.MEM.PAGE.AUG#5=OPERAND_INVALID:RCX", Fate::OneTdDied),
        ("TDH.VP.ENTER#300=OPERAND_BUSY:RCX", Fate::Survived),
        ("TDH.MEM.PAGE.REMOVE#2=OPERAND_BUSY:SEPT_TREE", Fate::Survived),
        ("TDH.PHYMEM.PAGE.RECLAIM#7=OPERAND_INVALID:RCX", Fate::Survived),
    ];
    let folder = Folder::new("server-faults");
    let archive = folder.write("td.cpio", initramfs_with("td.fd", tdvisor_guest_images::HELLO_TD.image));
    let file = folder.path("linux.snapshot");
    // From here on the host only runs its TD.
    let at = ["--snapshot", &file, "--snapshot-at", "tdvisor-host: kvm ok"];
    let mut saving =
        vec!["--initrd", &archive, "--deterministic", "1", "--append", "tdvisor.steps=tdx,kvm,td"];
    saving.extend(at);
    linux(&saving);
    let rows = PLANS.map(|(plan, expected)| {
        let answer = tdvisor(&["server", "--resume", &file, "--json", "--inject", plan]);
        let (fate, line) = fate(&answer.stderr());
        eprintln!("| {plan} | {fate:?} | {line} |");
        (plan, fate, expected, answer.stderr())
    });
    for (plan, fate, expected, console) in rows {
        assert_eq!(fate, expected, "{plan}\n{console}");
    }
}
