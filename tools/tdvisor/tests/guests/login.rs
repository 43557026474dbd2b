//! A distribution's root file system on a disk, and somebody who logs in at one of its consoles.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::cli::fat::Parts;
use crate::cli::typed::Typed;
use crate::cli::{Folder, tdvisor};
use crate::machine::{TIMEOUT, brought, printed, verified, word};
use crate::table::YES;

/// What the guest is called, and so how it asks for a name.
const LOGIN: &str = "tdguest login: ";
const PROMPT: &str = "root@tdguest:~# ";

/// Serves the files of a folder by HTTP, to one client at a time; gives the port.
pub fn serve(folder: &Path) -> u16 {
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

/// Where somebody logs in. Both consoles have a login; the later word of a kernel's command line is its own console.
#[derive(Clone, Copy)]
pub enum Console {
    Serial,
    Virtio,
}

impl Console {
    /// The command line of a kernel whose RAM disk goes on with the system on this disk.
    pub fn command_line(self, root: &str) -> String {
        let consoles = match self {
            Self::Serial => "console=hvc0 console=ttyS0",
            Self::Virtio => "console=ttyS0 console=hvc0",
        };
        format!("{consoles} panic=-1 quiet tdvisor.root={root}")
    }
}

/// The words of a command that hand over a kernel, with its RAM disk and its command line.
pub fn by_kernel(kernel: &str, command_line: &str) -> Vec<String> {
    let file = |name: &str| word(&format!("{kernel}/{name}"));
    let words = ["--kernel", &file("bzImage"), "--initrd", &file("initrd"), "--cmdline", command_line];
    words.map(str::to_owned).to_vec()
}

/// A disk of a test's own with the root file system.
pub struct SystemDisk {
    image: String,
    /// Where the file system begins, in bytes.
    offset: usize,
}

impl SystemDisk {
    /// All of the disk.
    pub const WHOLE: &str = "/dev/vda";
    /// What is behind the files that firmware boots.
    pub const SECOND_PARTITION: &str = "/dev/vda2";

    /// The root file system is all of it.
    #[track_caller]
    pub fn whole(folder: &Folder) -> Self {
        let disk = Self { image: folder.path("disk.img"), offset: 0 };
        disk.copy();
        disk
    }

    /// Firmware boots it by these files; the root file system is the second partition.
    #[track_caller]
    pub fn bootable(folder: &Folder, files: &[(&str, &[u8])]) -> Self {
        let system = brought("rootfs/disk.img").metadata().expect("a file").len();
        let Parts { before, behind } = Parts::around(files, system);
        let disk = Self { image: folder.write("disk.img", &before), offset: before.len() };
        disk.copy();
        let mut file = OpenOptions::new().append(true).open(&disk.image).expect("the disk");
        file.write_all(&behind).expect("the end of the disk");
        disk
    }

    /// Copies the file system to its place, without the holes that it has.
    #[track_caller]
    fn copy(&self) {
        let options = [format!("seek={}", self.offset / Parts::STEP), format!("bs={}", Parts::STEP)];
        let files = [format!("if={}", word("rootfs/disk.img")), format!("of={}", self.image)];
        let copied = Command::new("dd")
            .args(options)
            .args(files)
            .args(["conv=sparse,notrunc", "status=none"])
            .status();
        assert!(copied.is_ok_and(|status| status.success()), "the disk can be copied");
        // A hole at the end.
        let all = self.offset as u64 + brought("rootfs/disk.img").metadata().expect("a file").len();
        OpenOptions::new()
            .write(true)
            .open(&self.image)
            .and_then(|file| file.set_len(all))
            .expect("the disk");
    }

    /// Finds nothing to mend.
    #[track_caller]
    fn is_whole(&self) {
        let place = format!("{}?offset={}", self.image, self.offset);
        let checked =
            Command::new("fsck.ext4").args(["-f", "-n", &place]).output().expect("fsck.ext4 starts");
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    }
}

/// A system that somebody is logged into.
pub struct System {
    run: Typed,
    folder: Folder,
    disk: SystemDisk,
}

/// What a system left.
pub struct Left {
    pub folder: Folder,
    /// All that its consoles said.
    pub console: String,
}

impl System {
    /// Boots as the words say, and logs in once both consoles have their login.
    pub fn log_in(folder: Folder, disk: SystemDisk, vcpus: &str, words: &[String]) -> Self {
        let quote = folder.path("quote");
        let machine = ["--engine", "compiler", "--virtio", "pci", "--vcpus", vcpus, "--memory", "1G"];
        let devices = ["--disk", &disk.image, "--net", "user,host", "--quote", &quote];
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let run = Typed::run(&[&words[..], &machine, &devices, &TIMEOUT].concat())
            .copied_to(&folder.path("console"));
        let mut system = Self { run, folder, disk };
        system.comes_up();
        system
    }

    /// Boots a kernel that is handed over, with the root file system as its disk.
    pub fn of_kernel(name: &str, kernel: &str, vcpus: &str, console: Console, append: &str) -> Self {
        let folder = Folder::new(&format!("guests-system-{name}"));
        let disk = SystemDisk::whole(&folder);
        let command_line = format!("{} {append}", console.command_line(SystemDisk::WHOLE));
        Self::log_in(folder, disk, vcpus, &by_kernel(kernel, &command_line))
    }

    /// Waits for the login of each console, and logs in at the one that takes what is typed.
    pub fn comes_up(&mut self) {
        self.run.wait_for(LOGIN);
        self.run.wait_for(LOGIN);
        self.run.type_in("root\r");
        self.run.wait_for("Password: ");
        self.run.type_in("tdvisor\r");
        self.run.wait_for(PROMPT);
    }

    /// Types a command that does not come back to the prompt.
    pub fn begins(&mut self, command: &str) {
        self.run.type_in(&format!("{command}\r"));
    }

    /// Runs a command to the next prompt.
    pub fn does(&mut self, command: &str) {
        self.begins(command);
        self.run.wait_for(PROMPT);
    }

    /// Has it check itself; what it says has these words, among those of every system that is whole.
    #[track_caller]
    pub fn checks(&mut self, port: Option<u16>, words: &[&str]) {
        let port = port.map_or_else(String::new, |port| port.to_string());
        self.does(&format!("check {port}"));
        for words in ["check: units ok", "check: load ok", "check: done"].iter().chain(words) {
            self.says(words);
        }
    }

    #[track_caller]
    pub fn says(&self, words: &str) {
        assert!(self.run.seen().contains(words), "'{words}' is not in:\n{}", self.run.seen());
    }

    /// Ends it, with this status of the program, and finds its file system whole.
    #[track_caller]
    pub fn ends(self, command: &str, status: i32) -> Left {
        let Self { mut run, disk, folder } = self;
        run.type_in(&format!("{command}\r"));
        let console = run.seen().to_owned();
        let (ended, summary) = run.end();
        assert_eq!(ended, Some(status), "{command}: {summary}");
        disk.is_whole();
        Left { folder, console }
    }
}

impl Left {
    /// Finds its own quote genuine. Gives the quote's file.
    #[track_caller]
    pub fn is_quoted(&self) -> String {
        let bytes = printed(&self.console, "check", "quote").expect("a quote");
        assert_eq!(verified(&self.folder, &bytes, &self.folder.path("quote")), YES);
        self.folder.write("quote-of-the-system", &bytes)
    }

    /// Finds the registers of the boot in that quote to be what the log of events comes to. Gives the log's file.
    #[track_caller]
    pub fn is_logged(&self, quote: &str) -> String {
        let log = printed(&self.console, "check", "log").expect("the log of events");
        let log = self.folder.write("log", log);
        // What the system extended by itself is in no log: the registers of the boot are.
        let replayed = tdvisor(&["eventlog", "replay", &log, "--quote", quote, "--json"]).json();
        for register in 0..3 {
            let register = &replayed["registers"][register];
            assert_eq!(register["replayed"], register["actual"], "{replayed:#}");
        }
        log
    }

    /// Finds the value of RTMR3, after the system extended it by its kernel's files, in that quote; `false` where its kernel has no
    /// such files (before 6.16).
    #[track_caller]
    pub fn has_extended(&self, quote: &str) -> bool {
        let extended = self.console.lines().find_map(|line| line.trim().strip_prefix("check: rtmr3 ok "));
        let Some(value) = extended else { return false };
        let value = STANDARD.decode(value).expect("base64");
        let value: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
        let shown = tdvisor(&["quote", "show", quote]).ends_with(0).stdout();
        assert!(shown.contains(&value), "RTMR3 is {value}:\n{shown}");
        true
    }
}
