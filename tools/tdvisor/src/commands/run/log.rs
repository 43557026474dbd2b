//! The guest's log: `defmt` frames from its second serial port, decoded with its ELF file.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use defmt_decoder::{DecodeError, StreamDecoder, Table};

/// A decoder that several owners share. Frames are printed to stderr as they are complete.
#[derive(Clone)]
pub struct GuestLog(Arc<Mutex<Decoder>>);

struct Decoder {
    /// Leaked once per run, because the stream decoder borrows it for as long as it lives.
    stream: Option<Box<dyn StreamDecoder + Send + Sync>>,
    malformed: u64,
}

impl GuestLog {
    /// A log for the guest of this ELF file. Without one, or without `defmt` in it, frames are dropped.
    pub fn new(elf: Option<&[u8]>) -> Self {
        let table = elf.and_then(|elf| Table::parse(elf).ok().flatten());
        let stream = table.map(|table| Box::leak(Box::new(table)).new_stream_decoder());
        Self(Arc::new(Mutex::new(Decoder { stream, malformed: 0 })))
    }

    /// Says how many frames could not be read, if any.
    pub fn finish(&self) {
        let decoder = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if decoder.malformed != 0 {
            eprintln!("[guest log] {} frames could not be decoded: is --elf the image's?", decoder.malformed);
        }
    }
}

impl Write for GuestLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut decoder = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Decoder { stream: Some(stream), malformed } = &mut *decoder else { return Ok(bytes.len()) };
        stream.received(bytes);
        loop {
            match stream.decode() {
                Ok(frame) => eprintln!("[guest log] {}", frame.display(false)),
                Err(DecodeError::UnexpectedEof) => return Ok(bytes.len()),
                Err(DecodeError::Malformed) => *malformed += 1,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
