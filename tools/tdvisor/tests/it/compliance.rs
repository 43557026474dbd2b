//! The guest `compliance` finds what the tables of module 1.5.05 say, under every configuration that a run can choose.

use crate::cli::tdvisor;

/// Runs the guest with these options: its exit status, and its lines.
fn run(options: &[&str], status: i32) -> Vec<String> {
    let arguments = [&["run", "compliance", "--timeout", "300"], options].concat();
    let lines = tdvisor(&arguments).ends_with(status).stdout();
    lines.lines().map(str::to_owned).collect()
}

#[track_caller]
fn passes_whole(options: &[&str]) {
    const LEAST_CHECKS: usize = 1000;
    let lines = run(options, 0);
    let count = |start: &str| lines.iter().filter(|line| line.starts_with(start)).count();
    assert_eq!(lines.first().map(String::as_str), Some("TAP version 14"));
    assert_eq!(count("not ok "), 0, "{options:?}");
    assert!(count("ok ") >= LEAST_CHECKS, "{options:?}: {} checks", count("ok "));
    assert!(lines.contains(&format!("1..{}", count("ok "))), "{options:?}: the plan is another");
}

#[test]
fn the_default_module_and_processor_are_as_the_tables_say() {
    passes_whole(&[]);
}

#[test]
fn so_is_a_debuggable_td() {
    passes_whole(&["--debug"]);
}

#[test]
fn so_is_a_td_with_several_vcpus_on_the_other_processor() {
    passes_whole(&["--cpu", "granite-rapids", "--vcpus", "3"]);
}

#[test]
fn so_is_a_td_whose_processor_hides_features() {
    passes_whole(&["--feature", "-rdrand", "--feature", "-pcid", "--feature", "-rdpid", "--feature", "-vme"]);
}

#[test]
fn so_are_the_later_profiles() {
    passes_whole(&["--profile", "1.5-late"]);
    passes_whole(&["--profile", "2.0"]);
}

/// Release 1.5.01 answers otherwise, and the guest says where: it can fail.
#[test]
fn the_release_before_is_told_apart() {
    let lines = run(&["--profile", "1.5.01"], 1);
    let failed: Vec<_> = lines.iter().filter(|line| line.starts_with("not ok ")).collect();
    // Its WRMSR of the x2APIC id, and its IA32_ARCH_CAPABILITIES, are other ones.
    for what in ["WRMSR 0x802 to 0x802", "the value of MSR 0x10a"] {
        assert!(failed.iter().any(|line| line.contains(what)), "{what}: {failed:?}");
    }
}
