//! A process whose output is read line by line, with its CPU time at each line.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// A moment in a process's life, in seconds.
#[derive(Clone, Copy)]
pub struct Moment {
    /// CPU time of all its threads.
    pub cpu: f64,
    /// Wall time since it began.
    pub wall: f64,
}

impl Moment {
    pub fn since(self, earlier: Self) -> Self {
        Self { cpu: self.cpu - earlier.cpu, wall: self.wall - earlier.wall }
    }
}

/// A running process. Ended when dropped.
pub struct Process {
    child: Child,
    lines: BufReader<ChildStdout>,
    started: Instant,
}

impl Process {
    pub fn start(command: &mut Command) -> Result<Self, String> {
        let program = command.get_program().to_string_lossy().into_owned();
        let started = Instant::now();
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = child.map_err(|error| format!("{program}: {error}"))?;
        let lines = child.stdout.take().ok_or("no pipe")?;
        Ok(Self { child, lines: BufReader::new(lines), started })
    }

    /// Reads until a line that contains this text; the line, and the moment at which it was read.
    pub fn wait_for(&mut self, text: &str) -> Result<(String, Moment), String> {
        let mut last = String::new();
        loop {
            let mut line = Vec::new();
            let read = self.lines.read_until(b'\n', &mut line).map_err(|error| error.to_string())?;
            // The time first: the process goes on meanwhile.
            let moment = self.now();
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if line.contains(text) {
                return Ok((line, moment?));
            }
            if read == 0 {
                return Err(format!("the boot ended before '{text}', after '{last}'"));
            }
            last = line;
        }
    }

    /// Peak of the resident set, in MiB.
    pub fn peak_memory_mib(&self) -> Result<f64, String> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next());
        let kib: f64 = kib.and_then(|kib| kib.parse().ok()).ok_or("no VmHWM")?;
        Ok(kib / 1024.0)
    }

    fn now(&self) -> Result<Moment, String> {
        let pid = Pid::from_raw(self.child.id() as i32);
        let cpu = clock_getcpuclockid(pid).and_then(clock_gettime).map_err(|error| error.to_string())?;
        let cpu = cpu.tv_sec() as f64 + cpu.tv_nsec() as f64 / 1e9;
        Ok(Moment { cpu, wall: self.started.elapsed().as_secs_f64() })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended by itself cannot be killed, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
