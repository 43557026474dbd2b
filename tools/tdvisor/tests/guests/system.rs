//! A distribution's systems by its kernels: systemd to its login, the network, its checks of itself, and its end.

use crate::login::{Console, System, serve};
use crate::machine::brought;
use crate::table::{Cells, NEWEST_CLOUD, NEWEST_GENERIC, STABLE_CLOUD};

/// Boots with two vCPUs, logs in at the serial port, has the system check itself, and shuts it down.
fn whole_system(row: &'static str, kernel: &str) {
    let port = serve(&brought("rootfs/repository"));
    let mut system = System::of_kernel(kernel, kernel, "2", Console::Serial, "");
    system.checks(Some(port), &["check: cpus 2", "check: package ok"]);
    let left = system.ends("systemctl poweroff", 0);
    let quote = left.is_quoted();
    left.is_logged(&quote);
    if !left.has_extended(&quote) {
        assert!(left.console.contains("check: rtmr3 absent"), "{}", left.console);
    }
    Cells::of(row).saw("login", "ttyS0 and hvc0").settle(&left.console);
}

#[test]
#[ignore = "needs tools/guests/linux/distribution.sh and tools/guests/rootfs/build.sh"]
fn nightly_a_distribution_comes_up_whole_installs_a_package_and_shuts_down_on_the_stable_kernel() {
    whole_system(STABLE_CLOUD, "linux-distribution");
}

#[test]
#[ignore = "needs tools/guests/linux/distribution.sh 7.3 and tools/guests/rootfs/build.sh"]
fn nightly_a_distribution_comes_up_whole_installs_a_package_and_shuts_down_on_the_newest_kernel() {
    whole_system(NEWEST_CLOUD, "linux-distribution-7.3");
}

#[test]
#[ignore = "needs tools/guests/linux/distribution.sh 7.3 amd64 and tools/guests/rootfs/build.sh"]
fn nightly_a_distribution_comes_up_whole_installs_a_package_and_shuts_down_on_the_generic_kernel() {
    whole_system(NEWEST_GENERIC, "linux-distribution-7.3-amd64");
}

#[test]
#[ignore = "needs tools/guests/linux/distribution.sh and tools/guests/rootfs/build.sh"]
fn nightly_four_vcpus_a_login_at_the_virtio_console_and_a_reboot_that_ends_the_td() {
    let mut system = System::of_kernel("hvc0", "linux-distribution", "4", Console::Virtio, "");
    system.checks(None, &["check: cpus 4"]);
    // A TD cannot be reset: the program says so by its status.
    system.ends("systemctl reboot", 1);
}

/// A command that fetches the kernel and its RAM disk from the host.
fn fetch(port: u16) -> String {
    let file =
        |name| format!("/usr/lib/apt/apt-helper download-file http://10.0.2.2:{port}/{name} /root/{name}");
    format!("{} && {}", file("bzImage"), file("initrd"))
}

#[test]
#[ignore = "needs tools/guests/linux/distribution.sh and tools/guests/rootfs/build.sh"]
fn nightly_a_system_starts_the_next_kernel_by_kexec_on_both_vcpus() {
    let kernel = "linux-distribution";
    let port = serve(&brought(kernel));
    let mut system = System::of_kernel("kexec", kernel, "2", Console::Serial, "");
    system.does(&fetch(port));
    system.does("kexec -s -l /root/bzImage --initrd=/root/initrd --reuse-cmdline && echo loaded: $?");
    system.says("loaded: 0");
    system.begins("systemctl kexec");
    system.comes_up();
    system.checks(None, &["check: cpus 2"]);
    system.ends("systemctl poweroff", 0);
}

#[test]
#[ignore = "needs tools/guests/linux/distribution.sh and tools/guests/rootfs/build.sh"]
fn nightly_a_kernel_that_panics_is_followed_by_its_crash_kernel() {
    let kernel = "linux-distribution";
    let port = serve(&brought(kernel));
    let mut system = System::of_kernel("kdump", kernel, "2", Console::Serial, "crashkernel=256M");
    system.does(&fetch(port));
    let options = "--append='console=hvc0 console=ttyS0 panic=-1 quiet nr_cpus=1 tdvisor.root=/dev/vda'";
    system.does(&format!("kexec -s -p /root/bzImage --initrd=/root/initrd {options} && echo loaded: $?"));
    system.says("loaded: 0");
    system.begins("echo c >/proc/sysrq-trigger");
    system.comes_up();
    // What the first kernel left, as a core file; in a system that is whole.
    system.does("head -c 4 /proc/vmcore | tail -c 3");
    system.says("ELF");
    system.checks(None, &["check: cpus 1"]);
    system.ends("systemctl poweroff", 0);
}
