//! Standard output and standard error.
//!
//! Answers of commands that do nothing else go out by [`print()`], and a failed write is an error of the command. A run
//! has [`Streams`]: nobody who holds up a TD writes to them, for both are [`Outlet`]s. Where both are one file or
//! terminal they are one outlet, so that lines keep their order.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use machine_emu::outlet::Outlet;

use crate::outcome::Failure;

/// How long outputs may take once the program, or its TD, has to end.
pub const GRACE: Duration = Duration::from_secs(2);

/// Bytes that wait for a reader.
const QUEUE: usize = 64 << 10;

/// The two streams.
#[derive(Clone)]
pub struct Streams {
    /// Standard output.
    pub out: Outlet,
    /// Standard error.
    pub err: Outlet,
}

impl Streams {
    /// The process's own.
    pub fn of_process() -> Self {
        let (out, err) = (owned(io::stdout().as_fd()), owned(io::stderr().as_fd()));
        let same = matches!((&out, &err), (Some(out), Some(err)) if identity(out).is_some()
            && identity(out) == identity(err));
        let outlet = |file: Option<File>| match file {
            Some(file) => Outlet::new(file, QUEUE),
            // A closed stream is one that nobody reads.
            None => Outlet::new(io::sink(), QUEUE),
        };
        let out = outlet(out);
        let err = if same { out.clone() } else { outlet(err) };
        Self { out, err }
    }

    /// Says one line on standard error.
    pub fn say(&self, line: impl std::fmt::Display) {
        self.err.send(format!("{line}\n").as_bytes());
    }
}

/// The stream without the lock and the buffer of the standard library, which a blocked writer would hold for ever.
fn owned(stream: impl AsFd) -> Option<File> {
    stream.as_fd().try_clone_to_owned().ok().map(File::from)
}

fn identity(file: &File) -> Option<(u64, u64)> {
    file.metadata().ok().map(|data| (data.dev(), data.ino()))
}

/// Prints an answer.
///
/// # Errors
/// [`Failure::Output`]: it could not be written whole. A reader that stops early (`| head`) is no failure.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::output("standard output", error))
        }
        _ => Ok(()),
    }
}

/// Says a line on standard error, without waiting for a reader for ever, and without minding if there is none.
pub fn say_at_the_end(line: impl std::fmt::Display) {
    let Some(file) = owned(io::stderr().as_fd()) else { return };
    let outlet = Outlet::new(file, QUEUE);
    outlet.send(format!("{line}\n").as_bytes());
    let patience = Instant::now() + GRACE;
    outlet.drain(|| patience <= Instant::now());
}
