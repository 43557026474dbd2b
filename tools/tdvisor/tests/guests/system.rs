//! A distribution's root file system on a disk: systemd to its login, the network, its checks of itself, and its end.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::cli::typed::Typed;
use crate::cli::{Folder, tdvisor};
use crate::machine::{TIMEOUT, brought, printed, verified, word};
use crate::table::{Cells, NEWEST_CLOUD, NEWEST_GENERIC, STABLE_CLOUD, YES};

/// What the guest is called, and so how it asks for a name.
const LOGIN: &str = "tdguest login: ";
const PROMPT: &str = "root@tdguest:~# ";

/// Serves the files of a folder by HTTP, to one client at a time; gives the port.
fn serve(folder: &Path) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let folder = folder.to_path_buf();
    // It ends with the test's process.
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut writer = stream.try_clone().expect("a descriptor");
            let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
            while let Some(request) = lines.next() {
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                // The rest of its header, to the empty line.
                lines.by_ref().take_while(|line| !line.is_empty()).for_each(drop);
                // Names in the folder, and nothing above it.
                let name = path.rsplit('/').next().unwrap_or_default();
                let (status, body) = match std::fs::read(folder.join(name)) {
                    Ok(body) => ("200 OK", body),
                    Err(_) => ("404 Not Found", Vec::new()),
                };
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
                if writer.write_all(&[head.as_bytes(), &body].concat()).is_err() {
                    break;
                }
            }
        }
    });
    port
}

/// How a system is booted, and where somebody logs in.
struct Boot<'a> {
    /// Of the test's folder.
    name: &'a str,
    /// The folder of the kernel.
    kernel: &'a str,
    vcpus: &'a str,
    console: &'a str,
    /// More words of the kernel's command line.
    append: &'a str,
}

/// A system that somebody is logged into.
struct System {
    run: Typed,
    folder: Folder,
    disk: String,
}

impl System {
    /// Boots, and logs in once both consoles have their login.
    fn log_in(boot: &Boot<'_>) -> Self {
        let folder = Folder::new(&format!("guests-system-{}", boot.name));
        let disk = folder.path("disk.img");
        let copied =
            Command::new("cp").arg("--sparse=always").arg(brought("rootfs/disk.img")).arg(&disk).status();
        assert!(copied.is_ok_and(|status| status.success()), "the disk can be copied");
        let other = if boot.console == "ttyS0" { "hvc0" } else { "ttyS0" };
        let consoles = format!("console={other} console={}", boot.console);
        let command_line = format!("{consoles} panic=-1 quiet tdvisor.root=/dev/vda {}", boot.append);
        let file = |name: &str| word(&format!("{}/{name}", boot.kernel));
        let (bzimage, initrd, quote) = (file("bzImage"), file("initrd"), folder.path("quote"));
        let files =
            ["--kernel", &bzimage, "--initrd", &initrd, "--cmdline", &command_line, "--virtio", "pci"];
        let machine = ["--engine", "compiler", "--vcpus", boot.vcpus, "--memory", "1G", "--quote", &quote];
        let devices = ["--disk", &disk, "--net", "user,host"];
        let run = Typed::run(&[&files[..], &machine, &devices, &TIMEOUT].concat())
            .copied_to(&folder.path("console"));
        let mut system = Self { run, folder, disk };
        system.comes_up();
        system
    }

    /// Waits for the login of each console, and logs in at the one that was asked for.
    fn comes_up(&mut self) {
        self.run.wait_for(LOGIN);
        self.run.wait_for(LOGIN);
        self.run.type_in("root\r");
        self.run.wait_for("Password: ");
        self.run.type_in("tdvisor\r");
        self.run.wait_for(PROMPT);
    }

    /// Runs a command to the next prompt.
    fn does(&mut self, command: &str) {
        self.run.type_in(&format!("{command}\r"));
        self.run.wait_for(PROMPT);
    }

    #[track_caller]
    fn says(&self, words: &str) {
        assert!(self.run.seen().contains(words), "'{words}' is not in:\n{}", self.run.seen());
    }

    /// Ends it, with this status of the program, and finds its file system whole. Gives what it left, and its console.
    #[track_caller]
    fn ends(self, command: &str, status: i32) -> (Folder, String) {
        let Self { mut run, disk, folder } = self;
        run.type_in(&format!("{command}\r"));
        let console = run.seen().to_owned();
        let (ended, summary) = run.end();
        assert_eq!(ended, Some(status), "{command}: {summary}");
        let checked = Command::new("fsck.ext4").args(["-f", "-n", &disk]).output().expect("fsck.ext4 starts");
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
        (folder, console)
    }
}

/// Boots with two vCPUs, logs in at the serial port, has the system check itself, and shuts it down.
fn whole_system(row: &'static str, kernel: &str) {
    let port = serve(&brought("rootfs/repository"));
    let mut system = System::log_in(&Boot { name: kernel, kernel, vcpus: "2", console: "ttyS0", append: "" });
    system.does(&format!("check {port}"));
    for words in ["check: units ok", "check: cpus 2", "check: package ok", "check: load ok", "check: done"] {
        system.says(words);
    }
    let (folder, console) = system.ends("systemctl poweroff", 0);
    let bytes = printed(&console, "check", "quote").expect("a quote");
    let quote = folder.write("quote-of-the-system", &bytes);
    assert_eq!(verified(&folder, &bytes, &folder.path("quote")), YES);
    let log = folder.write("log", printed(&console, "check", "log").expect("the log of events"));
    // What the system extended by itself is in no log: the registers of the boot are.
    let replayed = tdvisor(&["eventlog", "replay", &log, "--quote", &quote, "--json"]).json();
    for register in 0..3 {
        let register = &replayed["registers"][register];
        assert_eq!(register["replayed"], register["actual"], "{replayed:#}");
    }
    let extended = console.lines().find_map(|line| line.trim().strip_prefix("check: rtmr3 ok "));
    let shown = tdvisor(&["quote", "show", &quote]).ends_with(0).stdout();
    if let Some(value) = extended {
        let value = STANDARD.decode(value).expect("base64");
        let value: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(shown.contains(&value), "RTMR3 is {value}:\n{shown}");
    } else {
        // Kernels before 6.16 have no such interface.
        assert!(console.contains("check: rtmr3 absent"), "{console}");
    }
    Cells::of(row).saw("login", "ttyS0 and hvc0").settle(&console);
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
    let kernel = "linux-distribution";
    let mut system =
        System::log_in(&Boot { name: "hvc0", kernel, vcpus: "4", console: "hvc0", append: "reboot=acpi" });
    system.does("check");
    for words in ["check: units ok", "check: cpus 4", "check: load ok", "check: done"] {
        system.says(words);
    }
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
    let mut system =
        System::log_in(&Boot { name: "kexec", kernel, vcpus: "2", console: "ttyS0", append: "" });
    system.does(&fetch(port));
    system.does("kexec -s -l /root/bzImage --initrd=/root/initrd --reuse-cmdline && echo loaded: $?");
    system.says("loaded: 0");
    system.run.type_in("systemctl kexec\r");
    system.comes_up();
    system.does("check");
    for words in ["check: units ok", "check: cpus 2", "check: load ok", "check: done"] {
        system.says(words);
    }
    system.ends("systemctl poweroff", 0);
}

#[test]
#[ignore = "needs tools/guests/linux/distribution.sh and tools/guests/rootfs/build.sh"]
fn nightly_a_kernel_that_panics_is_followed_by_its_crash_kernel() {
    let kernel = "linux-distribution";
    let port = serve(&brought(kernel));
    let append = "crashkernel=256M";
    let mut system = System::log_in(&Boot { name: "kdump", kernel, vcpus: "2", console: "ttyS0", append });
    system.does(&fetch(port));
    let options = "--append='console=hvc0 console=ttyS0 panic=-1 quiet nr_cpus=1 tdvisor.root=/dev/vda'";
    system.does(&format!("kexec -s -p /root/bzImage --initrd=/root/initrd {options} && echo loaded: $?"));
    system.says("loaded: 0");
    system.run.type_in("echo c >/proc/sysrq-trigger\r");
    system.comes_up();
    system.does("head -c 4 /proc/vmcore | tail -c 3; check");
    // What the first kernel left, as a core file; in a system that is whole.
    for words in ["ELF", "check: units ok", "check: cpus 1", "check: load ok", "check: done"] {
        system.says(words);
    }
    system.ends("systemctl poweroff", 0);
}
