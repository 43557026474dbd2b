//! The guest's log: `defmt` frames from its second serial port, as lines on stderr.
//!
//! A frame is the index of a log statement, a timestamp if the guest has one, and the statement's arguments; the
//! texts are in the guest's ELF file.
//!
//! | file | is |
//! |---|---|
//! | `frame` | rzCOBS: bytes of the port to frames |
//! | `table` | the ELF file's strings by their index |
//! | `format` | a format string: its pieces, and what its arguments are on the wire |
//! | `value` | the arguments out of a frame |
//! | `text` | the line |
//!
//! Everything here but the table comes from a guest that may be hostile, and the table from a file that may be
//! damaged. What each may cost is bounded: bytes of a frame, values in it, their depth, bytes of a line, strings of
//! a table. What cannot be decoded is counted and said once at the end.

mod format;
mod frame;
#[cfg(test)]
mod recorded;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod value;

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use defmt_parser::Level;

use format::Pattern;
use frame::{Deframer, PADDING};
use machine_emu::outlet::{Metered, Outlet};
use table::{Purpose, Table};
use text::Line;
use value::{Reader, Undecodable, Value};

/// Bytes of log that are shown.
pub const ALLOWANCE: u64 = 256 << 20;

/// A decoder that several owners share. Frames are shown as they are complete.
#[derive(Clone)]
pub struct GuestLog(Arc<Mutex<Shown>>);

struct Shown {
    decoder: Decoder,
    out: Metered,
}

impl GuestLog {
    /// A log for the guest of this ELF file, shown on `out`. Without one, or without `defmt` in it, frames are dropped;
    /// if its strings cannot be read, that is said there.
    pub fn new(elf: Option<&[u8]>, out: Outlet) -> Self {
        let mut out = Metered::new(out, ALLOWANCE);
        let table = match elf.map_or(Ok(None), Table::of_elf) {
            Ok(table) => table,
            Err(error) => {
                show(&mut out, format_args!("not shown: the ELF file is of no use, {error}"));
                None
            }
        };
        let decoder = Decoder { table, deframer: Deframer::default(), malformed: 0 };
        Self(Arc::new(Mutex::new(Shown { decoder, out })))
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes beyond [`ALLOWANCE`].
    pub fn dropped(&self) -> u64 {
        self.lock().out.dropped()
    }

    /// Says how many frames could not be read, if any.
    pub fn finish(&self) {
        let Shown { decoder, out } = &mut *self.lock();
        if decoder.malformed != 0 {
            let count = decoder.malformed;
            show(out, format_args!("{count} frames could not be decoded: is --elf the image's?"));
        }
        if decoder.deframer.is_inside_frame() {
            show(out, format_args!("the last frame is cut off"));
        }
    }
}

impl Write for GuestLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Shown { decoder, out } = &mut *self.lock();
        decoder.receive(bytes, |line| show(out, format_args!("{line}")));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Shows a line.
fn show(out: &mut Metered, line: fmt::Arguments<'_>) {
    out.send(format!("[guest log] {line}\n").as_bytes());
}

/// From bytes to lines.
struct Decoder {
    /// Without one, what the guest sends means nothing.
    table: Option<Table>,
    deframer: Deframer,
    malformed: u64,
}

impl Decoder {
    /// Takes bytes of the port, and shows a line for each frame that they complete.
    fn receive(&mut self, bytes: &[u8], mut show: impl FnMut(&str)) {
        let Some(table) = &self.table else { return };
        for byte in bytes {
            let Some(frame) = self.deframer.push(*byte) else { continue };
            let message = frame.ok().and_then(|frame| Message::of(table, &frame));
            if message.as_ref().is_none_or(|message| message.is_broken) {
                self.malformed = self.malformed.saturating_add(1);
            }
            if let Some(message) = message {
                show(&message.line);
            }
        }
    }
}

/// A frame as text.
#[derive(Debug, PartialEq, Eq)]
struct Message {
    line: String,
    /// The frame is not what its format says; the line says how.
    is_broken: bool,
}

impl Message {
    /// The message of a frame; none if it names no log statement.
    fn of(table: &Table, frame: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(table, frame);
        let entry = table.entry(reader.index().ok()?)?;
        let level = match entry.purpose {
            Purpose::Log(level) => Some(level),
            Purpose::Println => None,
            Purpose::Value | Purpose::Interned => return None,
        };
        let statement = entry.format.as_ref()?.variant(0)?;

        let timestamp = table.timestamp().and_then(|format| format.variant(0));
        let timestamp = timestamp.map(|pattern| Arguments::read(&mut reader, pattern));
        // Past an argument that cannot be decoded nothing can be found.
        let lost = timestamp.as_ref().is_some_and(|timestamp| timestamp.missing.is_some());
        let statement = (!lost).then(|| Arguments::read(&mut reader, statement));
        let whole = statement.as_ref().is_some_and(|statement| statement.missing.is_none());
        let rest = reader.rest();
        let surplus = whole && (rest.len() > PADDING || rest.iter().any(|byte| *byte != 0));

        let mut line = Line::default();
        let mut write = || {
            if let Some(timestamp) = &timestamp {
                timestamp.write(&mut line)?;
                line.write_str(" ")?;
            }
            if let Some(level) = level {
                write!(line, "{} ", name(level))?;
            }
            if let Some(statement) = &statement {
                statement.write(&mut line)?;
            }
            if surplus {
                write!(line, " <cannot decode: {} bytes too many>", rest.len())?;
            }
            Ok(())
        };
        let written = write();
        Some(Self { line: line.finish(written), is_broken: !whole || surplus })
    }
}

/// The arguments of a pattern, as far as they could be decoded.
struct Arguments<'a> {
    pattern: &'a Pattern,
    values: Vec<Value<'a>>,
    missing: Option<Undecodable>,
}

impl<'a> Arguments<'a> {
    fn read(reader: &mut Reader<'a>, pattern: &'a Pattern) -> Self {
        let (values, missing) = reader.arguments(pattern);
        Self { pattern, values, missing }
    }

    fn write(&self, line: &mut Line) -> fmt::Result {
        text::write_message(line, self.pattern, &self.values, self.missing)
    }
}

/// A level as it is printed.
fn name(level: Level) -> &'static str {
    match level {
        Level::Trace => "TRACE",
        Level::Debug => "DEBUG",
        Level::Info => "INFO",
        Level::Warn => "WARN",
        Level::Error => "ERROR",
    }
}
