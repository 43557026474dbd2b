//! Disks that firmware boots: a unified kernel image by systemd's boot loader, and a distribution's signed boot loaders.

use std::fs::read;

use crate::cli::uki::uki;
use crate::cli::{Folder, fat, tdvisor};
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

#[test]
#[ignore = "needs tools/guests/linux/{distribution,boot-loaders}.sh and Debian's package ovmf"]
fn nightly_a_unified_kernel_image_boots_by_systemds_boot_loader_and_its_registers_are_predicted() {
    let folder = Folder::new("guests-uki");
    let (kernel, initrd) = (contents("linux-distribution/bzImage"), contents("linux-distribution/initrd"));
    // In the order of `ukify`.
    let image = uki(
        &contents("boot-loaders/stub.efi"),
        &[
            (".osrel", b"ID=debian\nPRETTY_NAME=\"Debian\"\n"),
            (".cmdline", COMMAND_LINE.as_bytes()),
            (".initrd", &initrd),
            (".linux", &kernel),
        ],
    );
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

/// A disk as a distribution makes it: shim, GRUB with its configuration, a kernel and its RAM disk.
fn grub_disk(kernel: &[u8], initrd: &[u8]) -> Vec<u8> {
    // A kernel that is refused ends the run instead of leaving it at GRUB's prompt.
    let script = format!("if linux /VMLINUZ {COMMAND_LINE}; then initrd /INITRD; boot; fi\nreboot\n");
    fat::gpt_disk(&[
        ("EFI/BOOT/BOOTX64.EFI", &contents("boot-loaders/shim.efi")),
        ("EFI/BOOT/GRUBX64.EFI", &contents("boot-loaders/grub.efi")),
        ("EFI/DEBIAN/GRUB.CFG", script.as_bytes()),
        ("VMLINUZ", kernel),
        ("INITRD", initrd),
    ])
}

#[test]
#[ignore = "needs tools/guests/linux/{distribution,boot-loaders}.sh"]
fn nightly_signed_boot_loaders_start_a_signed_kernel_where_secure_boot_is_enforced() {
    let folder = Folder::new("guests-grub");
    let (kernel, initrd) = (contents("linux-distribution/bzImage"), contents("linux-distribution/initrd"));
    let disk = folder.write("disk.img", grub_disk(&kernel, &initrd));
    let (firmware, quote) = (word("boot-loaders/firmware-tdx.fd"), folder.path("quote"));
    let options = ["--firmware", &firmware, "--disk", &disk, "--quote", &quote];
    let run = Run::of(&[&options, &MACHINE[..]].concat());
    let [shim, grub] = ["shim", "grub"].map(|name| word(&format!("boot-loaders/{name}.efi")));
    let kernel = word("linux-distribution/bzImage");
    let smbios = folder.write("smbios", run.file("smbios").unwrap_or_default());
    let measure = [&firmware, "--boot-loader", &shim, "--boot-loader", &grub, "--kernel", &kernel];
    let machine = ["--disk", &disk, "--board-vcpus", "2", "--memory", "1G", "--smbios", &smbios];
    let registers = run.registers(&[&measure[..], &machine[..]].concat());
    cells(GRUB_DISK, &run, &folder, &quote).saw("RTMRs as predicted", registers).settle(&run.console);
}

#[test]
#[ignore = "needs tools/guests/linux/{build,boot-loaders}.sh"]
fn nightly_an_unsigned_kernel_is_refused_by_grub_and_the_hint_says_why() {
    let folder = Folder::new("guests-grub-unsigned");
    let disk = folder.write("disk.img", grub_disk(&contents("linux/bzImage"), &contents("linux/initrd")));
    let firmware = word("boot-loaders/firmware-tdx.fd");
    let call = ["run", "--json", "--engine", "compiler", "--firmware", &firmware, "--disk", &disk];
    let answer = tdvisor(&[&call[..], &["--memory", "1G", "--timeout", "3000"]].concat()).ends_with(1);
    let hint = answer.json()["hint"].as_str().unwrap_or_default().to_owned();
    assert!(hint.contains("Secure Boot"), "{hint}\n{}", answer.stderr());
}
