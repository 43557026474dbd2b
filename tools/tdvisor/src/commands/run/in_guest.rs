//! `tdvisor run … -- COMMAND`: a command of this machine under the kernel that is tried.
//!
//! The command's output is this program's output, its exit status this program's: 128 and the signal's number where a
//! signal killed it, 127 or 126 where it could not be started, 125 where the guest ended without saying. The console
//! is the kernel's, and is shown with `-v`, or its end where the command's fate is not known.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use guest_command::channel::{Channel, answer};
use guest_command::initrd::{Copy, KERNEL_PARAMETERS, Source, initrd};
use guest_command::protocol::End;
use machine_emu::Pace;
use machine_emu::outlet::{Metered, Outlet};
use serde_json::{Value, json};
use tdvisor_runtime::Watch;
use tdvisor_runtime::board::serial::SerialInput;

use super::console::ALLOWANCE;
use super::supervisor::Supervisor;
use crate::outcome::{Failure, Status};

/// How long a guest may take to power off once its command has ended.
const TO_POWER_OFF: Duration = Duration::from_secs(10);

/// Options that run a command in the guest.
#[derive(Debug, clap::Args)]
pub struct CommandArgs {
    /// Take this file or folder along for the command, to the same place in the guest or to DEST; may be repeated.
    #[arg(long = "copy", value_name = "PATH[:DEST]", value_parser = parse_copy, requires = "words")]
    copies: Vec<Copy>,
    /// Run the command with this folder of this machine as its root file system, read-only, instead of taking it along; what it
    /// writes goes to /tmp and /run, which are memory. The kernel needs CONFIG_VIRTIO_FS built in.
    #[arg(long, value_name = "DIR", requires = "words", conflicts_with_all = ["copies", "initrd"])]
    rootfs: Option<PathBuf>,
    /// Run this command of this machine in the guest, under the kernel: its output and exit status become tdvisor's own.
    /// The program comes with its libraries, a script with its interpreter and the programs that its words name.
    /// With --initrd, the command is one of that RAM disk.
    #[arg(last = true, value_name = "COMMAND", conflicts_with_all = ["image", "elf", "command"])]
    words: Vec<OsString>,
}

fn parse_copy(text: &str) -> Result<Copy, String> {
    let (from, to) = match text.split_once(':') {
        Some((from, to)) => (from, Some(PathBuf::from(to))),
        None => (text, None),
    };
    if from.is_empty() || to.as_deref().is_some_and(|to| !to.is_absolute()) {
        return Err("PATH, or PATH:DEST with an absolute DEST".to_owned());
    }
    Ok(Copy { from: from.into(), to })
}

impl CommandArgs {
    /// Whether a command was given.
    pub const fn is_given(&self) -> bool {
        !self.words.is_empty()
    }

    /// The initial RAM disk that runs the command; `initrd` is the user's own.
    ///
    /// # Errors
    /// A program or a file that is not there.
    pub fn initrd(&self, own: Option<Vec<u8>>) -> Result<Vec<u8>, Failure> {
        let directory =
            std::env::current_dir().map_err(|error| Failure::input("the current folder", error))?;
        let source = match (&self.rootfs, own) {
            (Some(root), _) => Source::Rootfs(root.clone()),
            (None, Some(own)) => Source::Initrd(own),
            (None, None) => Source::Host,
        };
        initrd(source, &directory, &self.words, &self.copies)
            .map_err(|error| Failure::Input(error.to_string()))
    }

    /// The folder that is the command's root file system.
    pub fn rootfs(&self) -> Option<&Path> {
        self.rootfs.as_deref()
    }

    /// What the kernel's command line needs for it.
    pub const fn kernel_parameters(&self) -> &'static str {
        KERNEL_PARAMETERS
    }

    /// The program's name, for messages.
    pub fn name(&self) -> String {
        self.words.first().map(|word| Path::new(word).display().to_string()).unwrap_or_default()
    }
}

/// A writer to an outlet, up to the allowance of one run.
pub struct ToOutlet(Metered);

impl ToOutlet {
    /// A writer to `outlet`.
    pub fn new(outlet: Outlet) -> Self {
        Self(Metered::new(outlet, ALLOWANCE))
    }
}

impl Write for ToOutlet {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.send(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Answers the command's wishes for input: from stdin in real time; in a deterministic run there is none, and the answer
/// is given in the guest's own turn.
pub fn feed(channel: &Channel, port: SerialInput, pace: Pace, supervisor: &Supervisor) {
    if pace != Pace::Real {
        channel.answer_at_once(move |bytes| push(&port, bytes));
        return;
    }
    let (channel, supervisor) = (channel.clone(), supervisor.clone());
    // Never joined: it may be inside a read that does not end.
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = [0; 1024];
        while let Some(room) = channel.wait_for_request() {
            let room = usize::from(room).clamp(1, buffer.len());
            // What cannot be read has ended.
            let count = stdin.read(buffer.get_mut(..room).unwrap_or_default()).unwrap_or(0);
            push(&port, &answer(buffer.get(..count).unwrap_or_default()));
            supervisor.ring();
        }
    });
}

fn push(port: &SerialInput, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let taken = port.push(bytes);
        bytes = bytes.get(taken..).unwrap_or_default();
    }
}

/// The watch over a run with a command: also over a guest that does not power off after it.
pub struct UntilItEnds<'a> {
    /// The watch over the run.
    pub supervisor: &'a Supervisor,
    /// Where the command's end is told.
    pub channel: &'a Channel,
}

impl Watch for UntilItEnds<'_> {
    fn wants_stop(&self) -> bool {
        let is_over = |ended: Instant| ended.elapsed() >= TO_POWER_OFF;
        self.supervisor.wants_stop() || self.channel.ended_at().is_some_and(is_over)
    }

    fn wait(&self) {
        self.supervisor.wait();
    }

    fn ring(&self) {
        self.supervisor.ring();
    }
}

/// This program's exit status, and what has to be said about it.
pub fn status_of(end: Option<End>, name: &str) -> (Status, Option<String>) {
    const NO_ENTRY: i32 = 2;
    match end {
        Some(End::Exited(status)) => (Status::OfCommand(status), None),
        Some(End::Killed(signal)) => (
            Status::OfCommand(signal.saturating_add(128)),
            Some(format!("{name}: killed by signal {signal}")),
        ),
        Some(End::NotStarted(errno)) => {
            let why = std::io::Error::from_raw_os_error(errno);
            let status = if errno == NO_ENTRY { 127 } else { 126 };
            (Status::OfCommand(status), Some(format!("{name}: could not be started in the guest: {why}")))
        }
        None => {
            (Status::CommandLost, Some(format!("{name}: the guest ended without saying what became of it")))
        }
    }
}

/// The end for programs.
pub fn to_json(end: Option<End>) -> Value {
    match end {
        Some(End::Exited(status)) => json!({"exited": status}),
        Some(End::Killed(signal)) => json!({"killed": signal}),
        Some(End::NotStarted(errno)) => json!({"not_started": errno}),
        None => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_the_status_that_shells_give_it() {
        let status = |end| status_of(end, "x").0;
        assert_eq!(status(Some(End::Exited(7))), Status::OfCommand(7));
        assert_eq!(status(Some(End::Killed(9))), Status::OfCommand(137));
        assert_eq!(status(Some(End::NotStarted(2))), Status::OfCommand(127));
        assert_eq!(status(Some(End::NotStarted(13))), Status::OfCommand(126));
        assert_eq!(status(None), Status::CommandLost);
    }

    #[test]
    fn a_copy_names_a_place_here_and_perhaps_one_in_the_guest() {
        assert_eq!(parse_copy("a/b"), Ok(Copy { from: "a/b".into(), to: None }));
        assert_eq!(parse_copy("a:/srv/b"), Ok(Copy { from: "a".into(), to: Some("/srv/b".into()) }));
        assert!(parse_copy("a:b").is_err() && parse_copy(":/b").is_err() && parse_copy("").is_err());
    }
}
