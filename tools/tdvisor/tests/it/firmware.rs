//! UEFI firmware that nobody here wrote, OVMF of a distribution's package, runs as a TD on the board.

use crate::cli::typed::Typed;
use crate::cli::{Folder, fat, tdvisor};

/// The firmware of Debian's package `ovmf`, whose build of 2022.11 has TDX support.
const OVMF: &str = "/usr/share/ovmf/OVMF.fd";

#[test]
#[ignore = "needs Debian's package ovmf"]
fn ovmf_boots_to_its_shell_and_the_shell_powers_off() {
    let mut run = Typed::run(&["--firmware", OVMF, "--memory", "256M", "--timeout", "300"]);
    run.wait_for("UEFI Interactive Shell");
    run.wait_for("Shell> ");
    run.type_in("reset -s\r");
    assert_eq!(run.status(), Some(0), "powered off");
}

#[test]
#[ignore = "needs Debian's package ovmf"]
fn ovmf_reads_a_file_system_on_a_disk() {
    let folder = Folder::new("firmware-disk");
    let script = "echo found-by-the-shell\r\nreset -s\r\n";
    let disk = folder.write("disk.img", fat::disk(&[("STARTUP.NSH", script.as_bytes())]));
    let answer =
        tdvisor(&["run", "--firmware", OVMF, "--disk", &disk, "--memory", "256M", "--timeout", "300"])
            .ends_with(0);
    let console = answer.stdout();
    assert!(console.contains("found-by-the-shell"), "{console}");
}
