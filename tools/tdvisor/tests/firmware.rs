//! UEFI firmware that nobody here wrote, OVMF of a distribution's package, runs as a TD on the board.

mod cli;

use std::io::{BufReader, Read, Write};
use std::process::{Command, Stdio};

use cli::{Folder, fat, tdvisor};

/// The firmware of Debian's package `ovmf`, whose build of 2022.11 has TDX support.
const OVMF: &str = "/usr/share/ovmf/OVMF.fd";

/// A run whose console is waited for, and typed to.
struct Typed {
    child: std::process::Child,
    console: BufReader<std::process::ChildStdout>,
    seen: String,
}

impl Typed {
    fn run(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tdvisor"))
            .arg("run")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("tdvisor starts");
        let console = BufReader::new(child.stdout.take().expect("a console"));
        Self { child, console, seen: String::new() }
    }

    /// Reads the console until it says these words.
    #[track_caller]
    fn wait_for(&mut self, words: &str) {
        let mut byte = [0];
        while !self.seen.ends_with(words) {
            match self.console.read(&mut byte) {
                Ok(1) => self.seen.push(char::from(byte[0])),
                _ => panic!("the console never says {words:?}:\n{}", self.seen),
            }
        }
    }

    fn type_in(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().expect("a keyboard");
        stdin.write_all(text.as_bytes()).expect("tdvisor reads what is typed");
    }

    fn status(mut self) -> Option<i32> {
        let mut rest = String::new();
        let _ = self.console.read_to_string(&mut rest);
        self.child.wait().expect("tdvisor ends").code()
    }
}

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
