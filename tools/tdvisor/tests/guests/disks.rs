//! Disks that firmware boots: a unified kernel image by systemd's boot loader, and a distribution's signed boot loaders.

use std::fs::read;

use crate::cli::uki::uki;
use crate::cli::{Folder, fat, tdvisor};
use crate::login::{Console, Left, System, SystemDisk};
use crate::machine::{OLD_FIRMWARE, Run, brought, word};
use crate::table::{Cells, GRUB_DISK, UKI_DISK, YES};

const MACHINE: [&str; 4] = ["--vcpus", "2", "--memory", "1G"];
const COMMAND_LINE: &str = "console=ttyS0 panic=-1";

#[track_caller]
fn contents(file: &str) -> Vec<u8> {
    read(brought(file)).expect("a file that can be read")
}

/// What these disks show of a boot, whatever starts the kernel.
fn cells(row: &'static str, run: &Run, folder: &Folder, quote: &str) -> Cells {
    let yes = |holds| if holds { YES } else { "no" };
    Cells::of(row)
        .saw("/init", yes(run.says("distribution-init: Linux version")))
        .saw("SMP", if run.says("distribution-init: cpus 2") { "2 vCPUs" } else { "no" })
        .saw("quote verified", run.quote(folder, quote))
        .saw("clean power-off", run.power_off())
}

/// A unified kernel image, in the order of `ukify`.
fn image(kernel: &[u8], initrd: &[u8], command_line: &str) -> Vec<u8> {
    uki(
        &contents("boot-loaders/stub.efi"),
        &[
            (".osrel", b"ID=debian\nPRETTY_NAME=\"Debian\"\n"),
            (".cmdline", command_line.as_bytes()),
            (".initrd", initrd),
            (".linux", kernel),
        ],
    )
}

#[test]
#[ignore = "needs tools/guests/linux/{distribution,boot-loaders}.sh and Debian's package ovmf"]
fn nightly_a_unified_kernel_image_boots_by_systemds_boot_loader_and_its_registers_are_predicted() {
    let folder = Folder::new("guests-uki");
    let (kernel, initrd) = (contents("linux-distribution/bzImage"), contents("linux-distribution/initrd"));
    let image = image(&kernel, &initrd, COMMAND_LINE);
    let loader = contents("boot-loaders/systemd-boot.efi");
    let disk = fat::gpt_disk(&[("EFI/BOOT/BOOTX64.EFI", &loader), ("EFI/LINUX/TD.EFI", &image)]);
    let (image, disk) = (folder.write("uki.efi", image), folder.write("disk.img", disk));
    let quote = folder.path("quote");
    let firmware = ["--firmware", OLD_FIRMWARE, "--disk", &disk, "--quote", &quote];
    let run = Run::of(&[&firmware, &MACHINE[..]].concat());
    let loader = word("boot-loaders/systemd-boot.efi");
    let measure =
        [OLD_FIRMWARE, "--boot-loader", &loader, "--uki", &image, "--disk", &disk, "--board-vcpus", "2"];
    let registers = run.registers(&[&measure[..], &["--memory", "1G"]].concat());
    cells(UKI_DISK, &run, &folder, &quote).saw("RTMRs as predicted", registers).settle(&run.console);
}

/// What GRUB is told: the kernel with this command line, and its RAM disk.
fn script(command_line: &str) -> String {
    format!("linux /VMLINUZ {command_line}\ninitrd /INITRD\nboot\n")
}

/// As [`script`], where the kernel is refused: that ends the run instead of leaving it at GRUB's prompt.
fn script_that_ends(command_line: &str) -> String {
    format!("if linux /VMLINUZ {command_line}; then initrd /INITRD; boot; fi\nreboot\n")
}

/// The files of a disk as a distribution makes it: shim, GRUB with its configuration, a kernel and its RAM disk.
fn with_grub(kernel: &[u8], initrd: &[u8], script: &str) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("EFI/BOOT/BOOTX64.EFI", contents("boot-loaders/shim.efi")),
        ("EFI/BOOT/GRUBX64.EFI", contents("boot-loaders/grub.efi")),
        ("EFI/DEBIAN/GRUB.CFG", script.as_bytes().to_vec()),
        ("VMLINUZ", kernel.to_vec()),
        ("INITRD", initrd.to_vec()),
    ]
}

/// As a file system takes them.
fn borrowed<'a>(files: &'a [(&'static str, Vec<u8>)]) -> Vec<(&'static str, &'a [u8])> {
    files.iter().map(|(name, contents)| (*name, contents.as_slice())).collect()
}

#[test]
#[ignore = "needs tools/guests/linux/{distribution,boot-loaders}.sh"]
fn nightly_signed_boot_loaders_start_a_signed_kernel_where_secure_boot_is_enforced() {
    let folder = Folder::new("guests-grub");
    let (kernel, initrd) = (contents("linux-distribution/bzImage"), contents("linux-distribution/initrd"));
    let files = with_grub(&kernel, &initrd, &script(COMMAND_LINE));
    let disk = folder.write("disk.img", fat::gpt_disk(&borrowed(&files)));
    let (firmware, quote) = (word("boot-loaders/firmware-tdx.fd"), folder.path("quote"));
    let options = ["--firmware", &firmware, "--disk", &disk, "--quote", &quote];
    let run = Run::of(&[&options, &MACHINE[..]].concat());
    let [shim, grub] = ["shim", "grub"].map(|name| word(&format!("boot-loaders/{name}.efi")));
    let kernel = word("linux-distribution/bzImage");
    let smbios = folder.write("smbios", run.file("smbios").unwrap_or_default());
    let initrd = word("linux-distribution/initrd");
    let configuration = folder.write("grub.cfg", script(COMMAND_LINE));
    let loaders =
        [&firmware, "--boot-loader", &shim, "--boot-loader", &grub, "--grub-config", &configuration];
    let measure = [&loaders[..], &["--kernel", &kernel, "--initrd", &initrd]].concat();
    let machine = ["--disk", &disk, "--board-vcpus", "2", "--memory", "1G", "--smbios", &smbios];
    let registers = run.registers(&[&measure[..], &machine[..]].concat());
    cells(GRUB_DISK, &run, &folder, &quote).saw("RTMRs as predicted", registers).settle(&run.console);
}

#[test]
#[ignore = "needs tools/guests/linux/{build,boot-loaders}.sh"]
fn nightly_an_unsigned_kernel_is_refused_by_grub_and_the_hint_says_why() {
    let folder = Folder::new("guests-grub-unsigned");
    let files =
        with_grub(&contents("linux/bzImage"), &contents("linux/initrd"), &script_that_ends(COMMAND_LINE));
    let disk = folder.write("disk.img", fat::gpt_disk(&borrowed(&files)));
    let firmware = word("boot-loaders/firmware-tdx.fd");
    let call = ["run", "--json", "--engine", "compiler", "--firmware", &firmware, "--disk", &disk];
    let answer = tdvisor(&[&call[..], &["--memory", "1G", "--timeout", "3000"]].concat()).ends_with(1);
    let hint = answer.json()["hint"].as_str().unwrap_or_default().to_owned();
    assert!(hint.contains("Secure Boot"), "{hint}\n{}", answer.stderr());
}

/// KiB that are left to be accepted when a kernel with this command line has started its first program. Firmware accepts what it
/// needs, and leaves the rest of a machine with much memory to a kernel that asks for it.
fn left_to_accept(name: &str, command_line: &str) -> u64 {
    let folder = Folder::new(name);
    let (kernel, initrd) = (contents("linux-distribution/bzImage"), contents("linux-distribution/initrd"));
    let files = with_grub(&kernel, &initrd, &script(command_line));
    let disk = folder.write("disk.img", fat::gpt_disk(&borrowed(&files)));
    let firmware = word("boot-loaders/firmware-tdx.fd");
    let run = Run::of(&["--firmware", &firmware, "--disk", &disk, "--vcpus", "2", "--memory", "5G"]);
    assert_eq!(run.power_off(), YES, "{}", run.console);
    let said =
        run.console.lines().find_map(|line| line.trim().strip_prefix("distribution-init: unaccepted "));
    let number = said.and_then(|said| said.split_whitespace().find_map(|word| word.parse().ok()));
    number.unwrap_or_else(|| panic!("{said:?}\n{}", run.console))
}

#[test]
#[ignore = "needs tools/guests/linux/{distribution,boot-loaders}.sh"]
fn nightly_a_kernel_accepts_memory_when_it_needs_it_or_all_at_once_as_it_is_told() {
    let lazily = left_to_accept("guests-accept-lazy", COMMAND_LINE);
    assert!(lazily > 1 << 20, "of 5 GiB, {lazily} KiB are left");
    let eagerly = left_to_accept("guests-accept-eager", &format!("{COMMAND_LINE} accept_memory=eager"));
    assert_eq!(eagerly, 0, "KiB are left");
}

/// Logs into the system on a disk that firmware boots by these files, has it check itself, and shuts it down.
fn logs_in(row: &'static str, name: &str, firmware: &str, files: &[(&'static str, Vec<u8>)]) -> Left {
    let folder = Folder::new(&format!("guests-system-{name}"));
    let disk = SystemDisk::bootable(&folder, &borrowed(files));
    let words = ["--firmware", firmware].map(str::to_owned);
    let mut system = System::log_in(folder, disk, "2", &words);
    system.checks(None, &["check: cpus 2"]);
    let left = system.ends("systemctl poweroff", 0);
    Cells::of(row).saw("login", "ttyS0 and hvc0").settle(&left.console);
    left
}

#[test]
#[ignore = "needs tools/guests/linux/{distribution,boot-loaders}.sh and tools/guests/rootfs/build.sh"]
fn nightly_a_system_behind_signed_boot_loaders_comes_up_whole_and_its_log_of_events_replays() {
    let (kernel, initrd) = (contents("linux-distribution/bzImage"), contents("linux-distribution/initrd"));
    let command_line = Console::Serial.command_line(SystemDisk::SECOND_PARTITION);
    let files = with_grub(&kernel, &initrd, &script(&command_line));
    let left = logs_in(GRUB_DISK, "grub", &word("boot-loaders/firmware-tdx.fd"), &files);
    let quote = left.is_quoted();
    left.is_logged(&quote);
}

#[test]
#[ignore = "needs tools/guests/linux/{distribution,boot-loaders}.sh, tools/guests/rootfs/build.sh and Debian's package ovmf"]
fn nightly_a_system_in_a_unified_kernel_image_comes_up_whole() {
    let (kernel, initrd) = (contents("linux-distribution/bzImage"), contents("linux-distribution/initrd"));
    let command_line = Console::Serial.command_line(SystemDisk::SECOND_PARTITION);
    let image = image(&kernel, &initrd, &command_line);
    let loader = contents("boot-loaders/systemd-boot.efi");
    let files = [("EFI/BOOT/BOOTX64.EFI", loader), ("EFI/LINUX/TD.EFI", image)];
    logs_in(UKI_DISK, "uki", OLD_FIRMWARE, &files).is_quoted();
}
