//! `tdvisor server --host-image`: tdvisor's own host in ring 0 on the emulated server, and the same file under QEMU.

use std::process::Command;

use crate::cli::{Folder, tdvisor};
use tdvisor_guest_images::{FAULT_TD, HELLO_TD};

/// What the host printed, and its summary, of a server whose host ends with this code.
fn host(arguments: &[&str], code: u8) -> (String, serde_json::Value) {
    let mut call = vec!["server", "--host-image", "--deterministic", "1", "--json"];
    call.extend(arguments);
    let answer = tdvisor(&call).ends_with(i32::from(code != 0));
    let (console, summary) = (answer.stderr(), answer.json());
    let ending = if code == 0 { "success".to_owned() } else { format!("code {code}") };
    assert_eq!(summary["ending"], format!("the host powered off: {ending}"), "{console}");
    (console, summary)
}

#[track_caller]
fn says(console: &str, line: &str) {
    assert!(console.lines().any(|one| one.trim_end() == line), "'{line}' is missing in\n{console}");
}

/// A measurement as `tools/guest-images/MRTD.txt` has it.
fn known_mrtd(guest: &str) -> String {
    let list = include_str!("../../../guest-images/MRTD.txt");
    let value = list.lines().find_map(|line| line.strip_prefix(guest)).expect("the guest is listed");
    value.trim().to_owned()
}

#[test]
fn marks_say_what_host_and_td_had_executed_when_the_console_said_a_text() {
    let texts = ["the module is up", "hello-td: done", "never said"];
    let (_, summary) = host(&texts.map(|text| ["--mark", text]).concat(), 0);
    let executed = |of: &serde_json::Value| {
        ["instructions", "td_instructions"].map(|side| of[side].as_u64().unwrap_or_default())
    };
    let [up, done, never] = [0, 1, 2].map(|index| summary["marks"][index].clone());
    let ([host_up, td_up], [host_done, td_done]) = (executed(&up), executed(&done));
    let [host_all, td_all] = executed(&summary);
    assert!(0 < host_up && host_up < host_done && host_done < host_all, "{summary}");
    assert!(td_up == 0 && 0 < td_done && td_done <= td_all, "{summary}");
    assert_eq!(never, serde_json::json!({ "text": "never said" }), "{summary}");
}

#[test]
fn a_server_is_switched_off_also_while_a_td_spins() {
    let image = Folder::new("host-image-spin").write("fault-td", FAULT_TD.image);
    for more in [&[][..], &["--deterministic", "1"]] {
        let mut call =
            vec!["server", "--host-image", "--initrd", &image, "--append", "command=spin", "--timeout", "2"];
        call.extend(more);
        tdvisor(&call).ends_with(124);
    }
}

#[test]
fn hello_td_runs_on_one_and_on_two_processors_and_everything_comes_back() {
    /// The bar: 0.2 G. Bring-up, the TD's build, its exits, the audit, and the teardown take a tenth of it.
    const INSTRUCTIONS: u64 = 200_000_000;
    for cpus in ["1", "2"] {
        let (console, summary) = host(&["--cpus", cpus], 0);
        for line in [
            "hello-td: done, powering off",
            &format!("tdvisor-host: MRTD {}, as predicted", known_mrtd("hello-td")),
        ] {
            says(&console, line);
        }
        for beginning in
            ["tdvisor-host: mirror, Secure EPT and PAMT agree: ", "tdvisor-host: everything came back: "]
        {
            assert!(console.lines().any(|line| line.starts_with(beginning)), "{beginning}\n{console}");
        }
        assert_eq!(summary["violations"], serde_json::json!([]), "{cpus} processors");
        assert_eq!(summary["audit"], serde_json::json!([]), "{cpus} processors");
        assert_eq!(summary["host"], serde_json::json!([]), "{cpus} processors");
        let instructions = summary["instructions"].as_u64().expect("a number");
        assert!(instructions <= INSTRUCTIONS, "{cpus} processors: {instructions} instructions");
    }
}

#[test]
fn each_vcpu_has_a_processor_on_one_or_two_packages() {
    let (console, summary) = host(&["--cpus", "4", "--packages", "2", "--cmdline", "vcpus=3 memory=64M"], 0);
    says(&console, "hello-td: a TD with 3 vCPU(s), GPA width 48, attributes 0x10000000");
    says(&console, "vCPUs: 3 x 20000 locked increments make 60000");
    assert_eq!(summary["violations"], serde_json::json!([]));
}

#[test]
fn processors_that_run_side_by_side_make_no_difference() {
    let answer = tdvisor(&["server", "--host-image", "--cpus", "3", "--cmdline", "vcpus=2"]).ends_with(0);
    says(&answer.stdout(), "vCPUs: 2 x 20000 locked increments make 40000");
}

#[test]
fn the_same_seed_gives_the_same_run_byte_for_byte() {
    let run = || {
        let (console, summary) = host(&["--cpus", "3", "--cmdline", "vcpus=2 memory=32M"], 0);
        (console, summary["instructions"].clone(), summary["seamcalls"].clone())
    };
    assert_eq!(run(), run());
}

#[test]
fn both_engines_give_the_same_run_byte_for_byte() {
    let run = |engine| {
        let arguments = ["--cpus", "3", "--cmdline", "vcpus=2 memory=32M", "--engine", engine];
        let (console, summary) = host(&arguments, 0);
        (console, summary["instructions"].clone(), summary["seamcalls"].clone())
    };
    assert_eq!(run("interpreter"), run("compiler"));
}

#[test]
fn a_td_that_dies_dies_alone_and_says_why() {
    let folder = Folder::new("host-image-fault");
    let image = folder.write("fault-td.fd", FAULT_TD.image);
    let (console, summary) = host(&["--initrd", &image, "--cmdline", "command=triple-fault"], 1);
    assert!(
        console.contains("tdvisor-host: the TD: ") && console.contains("triple fault on vCPU 0"),
        "{console}"
    );
    assert!(console.contains("tdvisor-host: everything came back: "), "{console}");
    assert_eq!(summary["violations"], serde_json::json!([]));
}

#[test]
fn a_td_given_as_initrd_is_the_one_that_runs() {
    let folder = Folder::new("host-image-initrd");
    let image = folder.write("hello-td.fd", HELLO_TD.image);
    let (console, _) = host(&["--initrd", &image], 0);
    says(&console, &format!("tdvisor-host: MRTD {}, as predicted", known_mrtd("hello-td")));
}

#[test]
fn what_the_host_does_not_understand_is_refused_in_one_line() {
    let folder = Folder::new("host-image-usage");
    let image = folder.write("image", vec![7; 8192]);
    let (console, _) = host(&["--cmdline", "vcpu=2"], 2);
    says(&console, "tdvisor-host: 'vcpu=2' on the command line is not understood");
    let (console, _) = host(&["--cmdline", "vcpus=2"], 2);
    says(&console, "tdvisor-host: the TD cannot be built: 2 vCPUs is more than this machine runs: at most 1");
    let (console, _) = host(&["--initrd", &image], 2);
    assert!(console.contains("tdvisor-host: the TD cannot be built: "), "{console}");
}

#[test]
fn under_chaos_the_host_survives_or_ends_its_td() {
    for seed in 0..6 {
        let plan = format!("chaos:{seed}/40");
        let call = ["server", "--host-image", "--deterministic", "1", "--json", "--inject", &plan];
        let answer = tdvisor(&call);
        let (console, summary) = (answer.stderr(), answer.json());
        let ending = summary["ending"].as_str().expect("text");
        // 0: it made no difference. 1: the TD ended. 4: the module did not come up, or did not give everything back.
        let known = ["success", "code 1", "code 4"].map(|how| format!("the host powered off: {how}"));
        assert!(known.iter().any(|one| one == ending), "{plan}: {ending}\n{console}");
        assert!(!console.contains("panic"), "{plan}\n{console}");
        assert_eq!(summary["violations"], serde_json::json!([]), "{plan}\n{console}");
    }
}

#[test]
fn a_call_that_fails_for_good_ends_its_td_or_is_the_hosts_to_report() {
    for (plan, code, line) in [
        ("TDH.SYS.LP.INIT#1=SYS_BUSY", 0, "everything came back: "),
        ("TDH.SYS.CONFIG#1=OPERAND_INVALID:RCX", 4, "the module did not come up: TDH.SYS.CONFIG: "),
        ("TDH.MNG.INIT#1=OPERAND_INVALID:RCX", 4, "the TD cannot be built: TDH.MNG.INIT: "),
        ("TDH.MEM.PAGE.AUG#5=OPERAND_INVALID:RCX", 1, "everything came back: "),
        ("TDH.VP.ENTER#300=TD_FATAL", 1, "everything came back: "),
        ("TDH.MEM.PAGE.REMOVE#2=OPERAND_INVALID:RCX", 1, "everything came back: "),
        ("TDH.MNG.KEY.FREEID#1=OPERAND_INVALID:RCX", 4, "teardown: TDH.MNG.KEY.FREEID: "),
        ("TDH.PHYMEM.PAGE.RECLAIM#7=OPERAND_INVALID:RCX", 4, "2 frames and 0 key ids did not come back, "),
    ] {
        let (console, summary) = host(&["--inject", plan], code);
        let line = format!("tdvisor-host: {line}");
        assert!(console.lines().any(|one| one.starts_with(&line)), "{plan}\n{console}");
        assert!(!console.contains("panic"), "{plan}\n{console}");
        assert_eq!(summary["violations"], serde_json::json!([]), "{plan}\n{console}");
    }
}

/// The host image under QEMU: its console, and its status.
fn qemu(processors: &str) -> (String, u8) {
    let folder = Folder::new(&format!("host-image-qemu-{processors}"));
    let image = folder.write("host.elf", tdvisor_host_image::HOST_IMAGE);
    let output = Command::new("qemu-system-x86_64")
        .args(["-machine", "q35,accel=tcg", "-cpu", "max", "-m", "128M", "-smp", processors])
        .args(["-kernel", &image, "-append", "exit-port=0x501"])
        .args(["-device", "isa-debug-exit,iobase=0x501,iosize=1"])
        .args(["-display", "none", "-serial", "stdio", "-no-reboot"])
        .output()
        .expect("qemu-system-x86_64 starts");
    // The device ends QEMU with twice the byte, and one more.
    let status = output.status.code().expect("an exit status");
    (String::from_utf8_lossy(&output.stdout).into_owned(), (status / 2) as u8)
}

#[test]
#[ignore = "needs qemu-system-x86_64: scripts/nightly runs it"]
fn nightly_under_qemu_the_image_starts_every_processor_and_names_what_is_missing() {
    for processors in ["1", "2", "4"] {
        let (console, status) = qemu(processors);
        says(&console, "tdvisor-host: tdvisor 0.1.0, entered by PVH");
        let started =
            format!("tdvisor-host: {processors} processors (others started by INIT and start-up IPIs), ");
        assert!(console.lines().any(|line| line.starts_with(&started)), "{console}");
        says(&console, "tdvisor-host: no TDX: the processor has no VMX (CPUID.1:ECX[5])");
        assert_eq!(status, 3, "{console}");
    }
}
