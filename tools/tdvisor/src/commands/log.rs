//! `--log` and `--log-format`: what a service does, in lines on standard error.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::Instant;

use clap::ValueEnum;
use machine_emu::outlet::Outlet;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::streams::GRACE;

/// Bytes that wait for a reader; what comes when they are full is dropped, for nobody who is served waits for a log.
const QUEUE: usize = 1 << 20;

/// Options of what is written down.
#[derive(Clone, Debug, clap::Args)]
pub struct LogArgs {
    /// Write lines of this level and of those above it on standard error: `info` has every request with its answer, and what
    /// happens to TDs; `debug` also what guests do again and again; `warn` what failed. What guests hold or say, bodies and tokens are in none.
    #[arg(long = "log", value_name = "LEVEL", value_enum, default_value_t)]
    level: LogLevel,
    /// How lines are written: as text, or each as a JSON object.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
}

/// How much is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum LogLevel {
    Off,
    Error,
    #[default]
    Warn,
    Info,
    Debug,
    Trace,
}

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    #[default]
    Text,
    Json,
}

impl LogLevel {
    const fn filter(self) -> LevelFilter {
        match self {
            Self::Off => LevelFilter::OFF,
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }
}

/// The lines of a process.
#[derive(Clone, Debug)]
pub struct Log(Outlet);

impl LogArgs {
    /// As many levels more as a client said `-v`.
    pub fn louder(mut self, times: u8) -> Self {
        let heard = [LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];
        if let Some(level) = heard.get(usize::from(times).min(heard.len() - 1)).filter(|_| times != 0) {
            self.level = self.level.max(*level);
        }
        self
    }

    /// Begins to write. A process has one log: of a second one there is nothing.
    pub fn start(&self) -> Log {
        let outlet = match io::stderr().as_fd().try_clone_to_owned() {
            Ok(stderr) => Outlet::new(File::from(stderr), QUEUE),
            Err(_) => Outlet::new(io::sink(), QUEUE),
        };
        // Nobody waits for room.
        outlet.release(Instant::now());
        let log = Log(outlet);
        let lines = tracing_subscriber::fmt()
            .with_max_level(self.level.filter())
            .with_writer(log.clone())
            .with_ansi(false)
            .with_target(false)
            .log_internal_errors(false);
        // An error is a log that this process has already.
        let _ = match self.log_format {
            LogFormat::Text => tracing::subscriber::set_global_default(lines.finish()),
            LogFormat::Json => {
                tracing::subscriber::set_global_default(lines.json().flatten_event(true).finish())
            }
        };
        log
    }
}

impl Log {
    /// Waits until all lines are out, or have had their time.
    pub fn finish(self) {
        let until = Instant::now() + GRACE;
        self.0.drain(|| until <= Instant::now());
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Log {
    /// Takes a line, which comes at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.send(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_says_v_hears_more_and_never_less() {
        let args = |level| LogArgs { level, log_format: LogFormat::Text };
        for (level, times, expected) in [
            (LogLevel::Warn, 0, LogLevel::Warn),
            (LogLevel::Off, 0, LogLevel::Off),
            (LogLevel::Warn, 1, LogLevel::Info),
            (LogLevel::Warn, 2, LogLevel::Debug),
            (LogLevel::Warn, 200, LogLevel::Trace),
            (LogLevel::Trace, 1, LogLevel::Trace),
        ] {
            assert_eq!(args(level).louder(times).level, expected, "{level:?}, {times} times");
        }
    }
}
