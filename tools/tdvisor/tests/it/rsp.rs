//! A small client of gdb's remote protocol.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A connection in which every packet is acknowledged.
pub struct Rsp {
    stream: UnixStream,
}

impl Rsp {
    /// Connects as soon as the socket is there.
    #[track_caller]
    pub fn connect(path: &str) -> Self {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match UnixStream::connect(path) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a time-out");
                    return Self { stream };
                }
                Err(error) => assert!(Instant::now() < deadline, "{path}: {error}"),
            }
            std::thread::yield_now();
        }
    }

    /// Sends a packet and gives the answer to it.
    #[track_caller]
    pub fn ask(&mut self, packet: &str) -> String {
        self.send(packet);
        self.receive()
    }

    /// What a `monitor` command says.
    #[track_caller]
    pub fn monitor(&mut self, command: &str) -> String {
        let digits: String = command.bytes().map(|byte| format!("{byte:02x}")).collect();
        let mut said = String::new();
        let mut answer = self.ask(&format!("qRcmd,{digits}"));
        // Text comes in packets of its own, in front of the answer.
        while let Some(text) = answer.strip_prefix('O').filter(|text| *text != "K") {
            said.push_str(&String::from_utf8_lossy(&hex(text)));
            answer = self.receive();
        }
        assert_eq!(answer, "OK", "{command}: {said}");
        said
    }

    /// Sends a packet.
    #[track_caller]
    pub fn send(&mut self, packet: &str) {
        let sum = packet.bytes().fold(0u8, u8::wrapping_add);
        self.raw(format!("${packet}#{sum:02x}").as_bytes());
    }

    /// Sends bytes that are no packet.
    #[track_caller]
    pub fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the debugger reads");
    }

    /// The next packet, with its repetitions written out.
    #[track_caller]
    pub fn receive(&mut self) -> String {
        while self.byte() != b'$' {}
        let mut text: Vec<u8> = Vec::new();
        loop {
            match self.byte() {
                b'#' => break,
                b'*' => {
                    let count = self.byte() - 29;
                    let last = *text.last().expect("something is repeated");
                    text.extend(std::iter::repeat_n(last, usize::from(count)));
                }
                byte => text.push(byte),
            }
        }
        let _checksum = [self.byte(), self.byte()];
        // Whoever said its last word does not wait for this.
        let _ = self.stream.write_all(b"+");
        String::from_utf8(text).expect("a packet is ASCII")
    }

    #[track_caller]
    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.stream.read_exact(&mut byte).expect("the debugger answers");
        byte[0]
    }

    /// A register of the current thread by the offset of its bytes in the `g` packet.
    #[track_caller]
    pub fn register(&mut self, offset: usize) -> u64 {
        let all = self.ask("g");
        let bytes = hex(&all);
        u64::from_le_bytes(bytes[offset..offset + 8].try_into().expect("eight bytes"))
    }

    /// Memory; an error is empty.
    #[track_caller]
    pub fn memory(&mut self, address: u64, bytes: usize) -> Vec<u8> {
        let answer = self.ask(&format!("m{address:x},{bytes:x}"));
        if answer.starts_with('E') { Vec::new() } else { hex(&answer) }
    }
}

/// Bytes of a string of hexadecimal digits.
#[track_caller]
pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().map(|digit| digit.to_digit(16).expect("a digit") as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
