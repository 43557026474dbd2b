//! The command, and what goes through its three pipes.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::protocol::{End, FromGuest, FromHost, MAX_PAYLOAD, Task};
use crate::wire::Wire;

/// Bytes of input that are asked for at a time: with their header they fit into what a terminal keeps for its reader.
const INPUT: u16 = 2048;
/// What is still carried after the command has ended, for each stream: others may hold its pipes open.
const REST: usize = 16 << 20;

/// Runs the task to its end.
pub fn run(task: &Task, wire: &mut Wire) -> io::Result<End> {
    let mut child = match command(task).and_then(|mut command| command.spawn()) {
        Ok(child) => child,
        Err(error) => return Ok(End::NotStarted(error.raw_os_error().unwrap_or_default())),
    };
    let mut relay = Relay::new(&mut child)?;
    let ended = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    let status = loop {
        relay.carry(wire, &ended)?;
        if let Some(status) = child.try_wait()? {
            break status;
        }
    };
    relay.rest(wire)?;
    Ok(end_of(status))
}

/// The command, with its program found and its folder entered: what is left to the child is little enough for
/// posix_spawn, which needs no sockets of the kernel.
fn command(task: &Task) -> io::Result<Command> {
    std::env::set_current_dir(OsStr::from_bytes(&task.directory))?;
    let mut words = task.arguments.iter().map(|word| OsStr::from_bytes(word));
    let mut command = Command::new(find(task, words.next().unwrap_or_default())?);
    command.args(words).env_clear();
    for variable in &task.environment {
        let mut halves = variable.splitn(2, |byte| *byte == b'=').map(OsStr::from_bytes);
        if let (Some(name), Some(value)) = (halves.next(), halves.next()) {
            command.env(name, value);
        }
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// A program by its path, or by its name in the folders of the task's `PATH`.
fn find(task: &Task, name: &OsStr) -> io::Result<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return Ok(name.into());
    }
    let path = task.environment.iter().find_map(|variable| variable.strip_prefix(b"PATH="));
    let folders = path.unwrap_or_default().split(|byte| *byte == b':');
    let found =
        folders.map(|folder| Path::new(OsStr::from_bytes(folder)).join(name)).find(|path| path.is_file());
    found.ok_or_else(|| io::Error::from_raw_os_error(rustix::io::Errno::NOENT.raw_os_error()))
}

fn end_of(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exited(code as u8),
        (None, Some(signal)) => End::Killed(signal as u8),
        (None, None) => End::NotStarted(0),
    }
}

/// One of the command's outputs.
struct Source {
    pipe: Option<Box<dyn Pipe>>,
    frame: fn(Vec<u8>) -> FromGuest,
}

trait Pipe: Read + AsFd {}
impl<T: Read + AsFd> Pipe for T {}

struct Relay {
    input: Option<ChildStdin>,
    /// What the host sent and the command has not read.
    waiting: VecDeque<u8>,
    /// The host has been asked, and has not answered.
    asked: bool,
    /// The host has no more.
    input_ended: bool,
    sources: [Source; 2],
}

impl Relay {
    fn new(child: &mut Child) -> io::Result<Self> {
        let (output, error) = (child.stdout.take(), child.stderr.take());
        if let Some(pipe) = &output {
            without_waiting(pipe)?;
        }
        if let Some(pipe) = &error {
            without_waiting(pipe)?;
        }
        let input = child.stdin.take();
        if let Some(pipe) = &input {
            without_waiting(pipe)?;
        }
        Ok(Self {
            input,
            waiting: VecDeque::new(),
            asked: false,
            input_ended: false,
            sources: [
                Source { pipe: output.map(|pipe| Box::new(pipe) as Box<dyn Pipe>), frame: FromGuest::Output },
                Source { pipe: error.map(|pipe| Box::new(pipe) as Box<dyn Pipe>), frame: FromGuest::Error },
            ],
        })
    }

    /// Waits until something can be carried, or the command has ended, and carries it.
    fn carry(&mut self, wire: &mut Wire, ended: &OwnedFd) -> io::Result<()> {
        if self.input.is_some() && self.waiting.is_empty() {
            if self.input_ended {
                self.input = None;
            } else if !self.asked {
                wire.say(&FromGuest::WantsInput(INPUT))?;
                self.asked = true;
            }
        }
        {
            let wire: &Wire = wire;
            let mut all = vec![PollFd::new(wire, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
            for source in &self.sources {
                all.extend(
                    source.pipe.as_ref().map(|pipe| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)),
                );
            }
            if let Some(input) = self.input.as_ref().filter(|_| !self.waiting.is_empty()) {
                all.push(PollFd::new(input, PollFlags::OUT));
            }
            match poll(&mut all, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        self.hear(wire)?;
        self.feed();
        self.sources.iter_mut().try_for_each(|source| source.carry(wire).map(drop))
    }

    fn hear(&mut self, wire: &mut Wire) -> io::Result<()> {
        while let Some(said) = wire.hear()? {
            self.asked = false;
            match said {
                FromHost::Input(bytes) => self.waiting.extend(bytes),
                FromHost::EndOfInput => self.input_ended = true,
            }
        }
        Ok(())
    }

    fn feed(&mut self) {
        let Some(input) = &mut self.input else { return };
        while !self.waiting.is_empty() {
            match input.write(self.waiting.make_contiguous()) {
                Ok(count) => drop(self.waiting.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The command does not read any more.
                Err(_) => {
                    self.waiting.clear();
                    self.input = None;
                    return;
                }
            }
        }
    }

    /// Carries what the pipes still hold.
    fn rest(&mut self, wire: &mut Wire) -> io::Result<()> {
        for source in &mut self.sources {
            let mut carried = 0;
            while carried < REST {
                match source.carry(wire)? {
                    0 => break,
                    count => carried += count,
                }
            }
        }
        Ok(())
    }
}

impl Source {
    /// Carries what is there, at most one frame; gives the number of bytes.
    fn carry(&mut self, wire: &mut Wire) -> io::Result<usize> {
        let Some(pipe) = &mut self.pipe else { return Ok(0) };
        let mut bytes = [0; MAX_PAYLOAD];
        match pipe.read(&mut bytes) {
            Ok(0) => self.pipe = None,
            Ok(count) => {
                wire.say(&(self.frame)(bytes.iter().copied().take(count).collect()))?;
                return Ok(count);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.pipe = None,
        }
        Ok(0)
    }
}

fn without_waiting(pipe: impl AsFd) -> io::Result<()> {
    let flags = fcntl_getfl(&pipe)?;
    Ok(fcntl_setfl(&pipe, flags | OFlags::NONBLOCK)?)
}
