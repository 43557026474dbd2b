//! TDs on Linux's KVM: what is said where there are none, and that they run on the emulated server.
//!
//! The tests on the server need `tools/hosts/linux/build.sh`, `tools/guests/linux/build.sh` and a static `tdvisor`;
//! `tools/hosts/linux/test.sh` makes all of it, and runs the same cases.

use crate::cli::{Folder, tdvisor};

/// Whether this machine's KVM could really start TDs: then there is nothing to be said.
fn can_run_tds() -> bool {
    tdvisor(&["doctor", "--json"]).json()["can_run_tds"] == true
}

#[test]
fn without_tds_on_this_machine_the_backend_is_refused_in_one_line_that_says_what_to_do() {
    if can_run_tds() {
        return;
    }
    let line = tdvisor(&["run", "hello-td", "--backend", "kvm"]).ends_with(2).one_line_of_error();
    let sentences = [
        "/dev/kvm cannot be opened: the kernel answered ",
        "KVM makes no TD (KVM_CREATE_VM): the kernel answered ",
    ];
    assert!(sentences.iter().any(|sentence| line.contains(sentence)), "{line}");
    assert!(line.contains("; "), "and what to do: {line}");
}

#[test]
fn auto_takes_the_emulated_machine_where_kvm_has_no_tds_or_an_option_needs_it() {
    if !can_run_tds() {
        let summary = tdvisor(&["run", "--backend", "auto", "--json"]).ends_with(0).json();
        assert_eq!(summary["backend"], "emulated");
    }
    let summary =
        tdvisor(&["run", "--backend", "auto", "--deterministic", "1", "--json"]).ends_with(0).json();
    assert_eq!(summary["backend"], "emulated");
}

#[test]
fn what_only_the_emulated_machine_can_do_is_refused_by_its_name() {
    for (option, value) in [
        ("--deterministic", "1"),
        ("--profile", "2.0"),
        ("--inject", "TDH.MEM.PAGE.AUG#1=OPERAND_BUSY:RCX"),
        ("--max-page", "4K"),
    ] {
        let line = tdvisor(&["run", "--backend", "kvm", option, value]).ends_with(2).one_line_of_error();
        assert!(line.contains(option) && line.contains("--backend emulated"), "{line}");
    }
}

#[test]
fn a_vmm_on_kvm_is_refused_before_a_client_comes_where_there_are_no_tds_or_the_machine_was_chosen() {
    let folder = Folder::new("vmm-kvm");
    let call = ["vmm", "--api-socket", &folder.path("api"), "--backend", "kvm"];
    let line = tdvisor(&[&call[..], &["--profile", "2.0"]].concat()).ends_with(2).one_line_of_error();
    assert!(line.contains("--profile") && line.contains("--backend emulated"), "{line}");
    if !can_run_tds() {
        let line = tdvisor(&call).ends_with(2).one_line_of_error();
        assert!(line.contains("--backend kvm: the KVM of this machine runs no TDs: "), "{line}");
    }
    assert!(!std::path::Path::new(&folder.path("api")).exists(), "nobody listens");
}

#[test]
fn the_doctor_names_every_link_and_says_what_to_do_about_the_first_that_is_missing() {
    let folder = Folder::new("doctor");
    let root = folder.path("machine");
    std::fs::create_dir_all(folder.path("machine/proc/sys/kernel")).expect("the test's folder");
    folder.write("machine/proc/sys/kernel/osrelease", "6.12.0\n");
    let cpu = "vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 207\nmodel name\t: A Xeon\nflags\t\t: vmx tme\n";
    folder.write("machine/proc/cpuinfo", cpu);
    let answer = tdvisor(&["doctor", "--root", &root]).ends_with(1);
    let text = answer.stdout();
    assert!(text.contains("ok       processor with TDX"), "{text}");
    assert!(text.contains("shown by: uname -r"), "{text}");
    assert!(
        text.contains(
            "The first missing link: kernel 6.16 or later (6.12.0); to do: boot Linux 6.16 or later"
        ),
        "{text}"
    );
    let json = tdvisor(&["doctor", "--root", &root, "--json"]).ends_with(1).json();
    assert_eq!(json["first_missing"], "kernel 6.16 or later");
    assert_eq!(json["links"].as_array().map(Vec::len), Some(17));
}
