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

/// A system that somebody is logged into.
struct System {
    run: Typed,
    folder: Folder,
    disk: String,
}

impl System {
    /// Boots with as many vCPUs, and logs in at this console once both have their login.
    fn log_in(name: &str, kernel: &str, vcpus: &str, console: &str) -> Self {
        let folder = Folder::new(&format!("guests-system-{name}"));
        let disk = folder.path("disk.img");
        let copied =
            Command::new("cp").arg("--sparse=always").arg(brought("rootfs/disk.img")).arg(&disk).status();
        assert!(copied.is_ok_and(|status| status.success()), "the disk can be copied");
        let other = if console == "ttyS0" { "hvc0" } else { "ttyS0" };
        let command_line = format!("console={other} console={console} panic=-1 quiet tdvisor.root=/dev/vda");
        let (bzimage, initrd) = (word(&format!("{kernel}/bzImage")), word(&format!("{kernel}/initrd")));
        let quote = folder.path("quote");
        let boot = ["--kernel", &bzimage, "--initrd", &initrd, "--cmdline", &command_line, "--virtio", "pci"];
        let machine = ["--engine", "compiler", "--vcpus", vcpus, "--memory", "1G", "--quote", &quote];
        let devices = ["--disk", &disk, "--net", "user,host"];
        let mut run = Typed::run(&[&boot[..], &machine, &devices, &TIMEOUT].concat());
        // One of each console.
        run.wait_for(LOGIN);
        run.wait_for(LOGIN);
        run.type_in("root\r");
        run.wait_for("Password: ");
        run.type_in("tdvisor\r");
        run.wait_for(PROMPT);
        Self { run, folder, disk }
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

    /// Ends it, with this status of the program, and finds its file system whole.
    #[track_caller]
    fn ends(self, command: &str, status: i32) {
        let Self { mut run, disk, .. } = self;
        run.type_in(&format!("{command}\r"));
        assert_eq!(run.status(), Some(status), "{command}");
        let checked = Command::new("fsck.ext4").args(["-f", "-n", &disk]).output().expect("fsck.ext4 starts");
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    }
}

/// Boots with two vCPUs, logs in at the serial port, has the system check itself, and shuts it down.
fn whole_system(row: &'static str, kernel: &str) {
    let port = serve(&brought("rootfs/repository"));
    let mut system = System::log_in(kernel, kernel, "2", "ttyS0");
    system.does(&format!("check {port}"));
    for words in ["check: units ok", "check: cpus 2", "check: package ok", "check: load ok", "check: done"] {
        system.says(words);
    }
    let console = system.run.seen().to_owned();
    let bytes = printed(&console, "check", "quote").expect("a quote");
    let quote = system.folder.write("quote-of-the-system", &bytes);
    assert_eq!(verified(&system.folder, &bytes, &system.folder.path("quote")), YES);
    let log = system.folder.write("log", printed(&console, "check", "log").expect("the log of events"));
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
        system.says("check: rtmr3 absent");
    }
    system.ends("systemctl poweroff", 0);
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
    let mut system = System::log_in("hvc0", "linux-distribution", "4", "hvc0");
    system.does("check");
    for words in ["check: units ok", "check: cpus 4", "check: load ok", "check: done"] {
        system.says(words);
    }
    // A TD cannot be reset: the program says so by its status.
    system.ends("systemctl reboot", 1);
}
