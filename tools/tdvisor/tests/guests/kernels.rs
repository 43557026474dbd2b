//! Kernels of a distribution, as its users have them: by our boot shim, and by OVMF that is handed them through `fw_cfg`.

use crate::cli::Folder;
use crate::cli::typed::Typed;
use crate::login::{Console, System, SystemDisk, by_kernel};
use crate::machine::{OLD_FIRMWARE, Run, TIMEOUT, word};
use crate::table::{
    self, Cells, NEWEST_CLOUD, NEWEST_FIRMWARE, NEWEST_GENERIC, NOTHING, OLD_KERNEL, STABLE_CLOUD, YES,
};

/// What every boot here has: a machine of this size.
const MACHINE: [&str; 4] = ["--vcpus", "2", "--memory", "1G"];

/// The two files of a kernel, as words of a command.
fn boot_files(distribution: &str) -> [String; 4] {
    let file = |name: &str| word(&format!("{distribution}/{name}"));
    ["--kernel".to_owned(), file("bzImage"), "--initrd".to_owned(), file("initrd")]
}

#[test]
#[ignore = "needs tools/guests/linux/distribution.sh 6.1"]
fn a_kernel_without_tdx_is_refused_with_its_reason() {
    let files = boot_files("linux-distribution-6.1");
    let run = Run::of(&files.each_ref().map(String::as_str));
    let reason = run.summary["hint"].as_str().unwrap_or_default();
    let refused = run.summary["ending"]["kind"] == "died" && reason.contains("CONFIG_INTEL_TDX_GUEST");
    let cell = if refused { "refused: no CONFIG_INTEL_TDX_GUEST" } else { "no" };
    let mut cells = Cells::of(OLD_KERNEL).saw("/init", cell);
    for column in &table::COLUMNS[1..] {
        cells = cells.saw(column, NOTHING);
    }
    cells.settle(&run.console);
}

/// Boots to the first program, which takes a quote and powers off.
fn boots(row: &'static str, distribution: &str, measure: &[&str], firmware: &[&str]) {
    let files = boot_files(distribution);
    let files = files.each_ref().map(String::as_str);
    let folder = Folder::new(&format!("guests-{distribution}-{}", firmware.len()));
    let quote = folder.path("quote");
    let run = Run::of(&[&files, firmware, &MACHINE[..], &["--quote", &quote]].concat());
    // What Linux says of a host whose TDH.VP.INIT gives no x2APIC ids, and of a processor with a feature too many.
    let complains = ["VMM did not configure X2APIC_IDs", "nopku"].iter().any(|words| run.says(words));
    let cpus = if run.says("distribution-init: cpus 2") && !complains { "2 vCPUs" } else { "no" };
    Cells::of(row)
        .saw("/init", if run.says("distribution-init: Linux version") { YES } else { "no" })
        .saw("SMP", cpus)
        .saw("quote verified", run.quote(&folder, &quote))
        .saw("RTMRs as predicted", run.registers(&[measure, &files, &["--memory", "1G"]].concat()))
        .saw("clean power-off", run.power_off())
        .settle(&run.console);
}

#[test]
#[ignore = "needs tools/guests/linux/distribution.sh"]
fn the_stable_kernel_brings_two_cpus_and_its_quote_is_verified() {
    boots(STABLE_CLOUD, "linux-distribution", &[], &[]);
}

#[test]
#[ignore = "needs tools/guests/linux/distribution.sh 7.3"]
fn nightly_the_newest_cloud_kernel_brings_two_cpus_and_its_quote_is_verified() {
    boots(NEWEST_CLOUD, "linux-distribution-7.3", &[], &[]);
}

#[test]
#[ignore = "needs tools/guests/linux/distribution.sh 7.3 amd64"]
fn nightly_the_newest_generic_kernel_brings_two_cpus_and_its_quote_is_verified() {
    boots(NEWEST_GENERIC, "linux-distribution-7.3-amd64", &[], &[]);
}

/// Boots a kernel whose first program restarts the machine.
fn restarts(distribution: &str) {
    let files = boot_files(distribution);
    let files = files.each_ref().map(String::as_str);
    let options = ["--memory", "512M", "--append", "tdvisor.end=reboot"];
    let run = Run::of(&[&files, &options[..]].concat());
    let ending = &run.summary["ending"];
    assert_eq!(ending["kind"], "reset", "nobody told it how to restart: {ending}\n{}", run.console);
    assert_eq!(run.summary["audit"]["ok"], true, "{}", run.console);
}

#[test]
#[ignore = "needs tools/guests/linux/distribution.sh"]
fn the_stable_kernel_restarts_by_acpi_unasked_for_a_td_has_no_real_mode() {
    restarts("linux-distribution");
}

#[test]
#[ignore = "needs tools/guests/linux/distribution.sh 7.3"]
fn nightly_the_newest_kernel_restarts_by_acpi_unasked() {
    restarts("linux-distribution-7.3");
}

#[test]
#[ignore = "needs tools/guests/linux/distribution.sh and Debian's package ovmf"]
fn ovmf_of_2022_starts_the_stable_kernel_and_what_it_measures_is_predicted() {
    let measure = [OLD_FIRMWARE, "--board-vcpus", "2"];
    boots(table::OLD_FIRMWARE, "linux-distribution", &measure, &["--firmware", OLD_FIRMWARE]);
}

#[test]
#[ignore = "needs tools/guests/linux/distribution.sh, tools/guests/rootfs/build.sh and Debian's package ovmf"]
fn nightly_a_system_whose_kernel_ovmf_of_2022_is_handed_comes_up_whole() {
    let folder = Folder::new("guests-system-ovmf");
    let disk = SystemDisk::whole(&folder);
    let command_line = Console::Serial.command_line(SystemDisk::WHOLE);
    let mut words = by_kernel("linux-distribution", &command_line);
    words.extend(["--firmware", OLD_FIRMWARE].map(str::to_owned));
    let mut system = System::log_in(folder, disk, "2", &words);
    system.checks(None, &["check: cpus 2"]);
    let left = system.ends("systemctl poweroff", 0);
    left.is_quoted();
    Cells::of(table::OLD_FIRMWARE).saw("login", "ttyS0 and hvc0").settle(&left.console);
}

#[test]
#[ignore = "needs tools/guests/linux/{distribution,boot-loaders}.sh"]
fn nightly_firmware_that_enforces_secure_boot_refuses_a_kernel_by_fw_cfg_with_a_hint() {
    let firmware = word("boot-loaders/firmware-tdx.fd");
    let files = boot_files("linux-distribution");
    let options = ["--engine", "compiler", "--firmware", &firmware];
    let call = [&files.each_ref().map(String::as_str), &options[..], &MACHINE, &TIMEOUT].concat();
    let mut run = Typed::run(&call);
    // It waits for a key then, without end.
    let ended = run.reaches("No bootable option or device was found");
    let console = run.seen().to_owned();
    if ended.is_ok() {
        run.interrupt();
    }
    let (_, summary) = run.end();
    let refused = summary.contains("Secure Boot") && !console.contains("distribution-init");
    let mut cells =
        Cells::of(NEWEST_FIRMWARE).saw("/init", if refused { "refused: not signed" } else { "no" });
    for column in &table::COLUMNS[1..] {
        cells = cells.saw(column, NOTHING);
    }
    cells.settle(&console);
}
