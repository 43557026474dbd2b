//! A worker as the service has it: a process, and the way to it.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Write as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;

use super::FleetOptions;
use crate::worker::protocol::{self, Asked, Order, Refusal, Said, Told, VERSION};

/// How long a worker may take to read an order.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a worker that has closed its socket may take to end: longer than its own patience with its teardown.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// glibc asks a file under /proc before it gives back memory of any arena but the first, and a worker may open none.
const ONE_ARENA: (&str, &str) = ("MALLOC_ARENA_MAX", "1");

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// The worker does not follow the order.
    Refused(Refusal),
    /// The worker has ended.
    Gone,
    /// The worker has not answered in time.
    Overdue,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    askers: BTreeMap<u64, SyncSender<Result<Value, Refusal>>>,
    is_gone: bool,
}

/// A worker.
pub(super) struct Worker {
    pid: u32,
    child: Mutex<Child>,
    orders: Mutex<UnixStream>,
    waiting: Mutex<Waiting>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Worker {
    /// Starts one. What it says is read from the socket that comes with it.
    pub(super) fn start(options: &FleetOptions) -> io::Result<(Self, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        let (program, arguments) = &options.worker;
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs([ONE_ARENA])
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()?;
        ours.set_write_timeout(Some(PATIENCE))?;
        let said = ours.try_clone()?;
        let worker = Self {
            pid: child.id(),
            child: Mutex::new(child),
            orders: Mutex::new(ours),
            waiting: Mutex::default(),
        };
        Ok((worker, said))
    }

    /// The worker's process.
    pub(super) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Gives an order, and waits for the answer until the deadline.
    pub(super) fn ask(&self, order: Order, deadline: Instant) -> Result<Value, NoAnswer> {
        let (asker, answer) = sync_channel(1);
        let number = {
            let mut waiting = lock(&self.waiting);
            if waiting.is_gone {
                return Err(NoAnswer::Gone);
            }
            waiting.next += 1;
            let number = waiting.next;
            waiting.askers.insert(number, asker);
            number
        };
        if self.tell(&Told::Order(Asked { version: VERSION, number, order })).is_err() {
            lock(&self.waiting).askers.remove(&number);
            return Err(NoAnswer::Gone);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let result = answer.recv_timeout(left);
        lock(&self.waiting).askers.remove(&number);
        match result {
            Ok(result) => result.map_err(NoAnswer::Refused),
            Err(RecvTimeoutError::Disconnected) => Err(NoAnswer::Gone),
            Err(RecvTimeoutError::Timeout) => Err(NoAnswer::Overdue),
        }
    }

    /// Says something, and waits for no answer. A worker that does not read is given up: half a line is no line.
    pub(super) fn tell(&self, told: &Told) -> io::Result<()> {
        let line = protocol::line(told)?;
        let mut orders = lock(&self.orders);
        let told = orders.write_all(&line);
        if told.is_err() {
            let _ = orders.shutdown(Shutdown::Both);
        }
        told
    }

    /// Reads what it says until it says no more; answers find those who asked, the rest goes to `hear`.
    pub(super) fn listen(&self, socket: UnixStream, mut hear: impl FnMut(Said)) {
        let mut said = BufReader::new(socket);
        // What no worker says is the end of it, as its silence is.
        while let Ok(Some(said)) = protocol::next(&mut said) {
            match said {
                Said::Answer { number, result } => {
                    if let Some(asker) = lock(&self.waiting).askers.remove(&number) {
                        let _ = asker.try_send(result);
                    }
                }
                said => hear(said),
            }
        }
    }

    /// Waits until its process is gone, and kills it if that takes too long.
    pub(super) fn bury(&self) -> io::Result<ExitStatus> {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw)
            && let Ok(process) = pidfd_open(pid, PidfdFlags::empty())
        {
            let within = Timespec { tv_sec: LAST_WORDS.as_secs().cast_signed(), tv_nsec: 0 };
            let _ = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&within));
        }
        let mut child = lock(&self.child);
        if child.try_wait()?.is_none() {
            child.kill()?;
        }
        let status = child.wait();
        drop(child);
        let mut waiting = lock(&self.waiting);
        waiting.is_gone = true;
        waiting.askers.clear();
        status
    }

    /// Ends its process at once.
    pub(super) fn kill(&self) {
        // It may have ended by itself.
        let _ = lock(&self.child).kill();
    }
}
