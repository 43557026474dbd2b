//! What the guest's init and its host say to each other over the guest's second serial port.
//!
//! The init begins with [`HELLO`]; what came before it is somebody else's. From then on both sides send frames: a kind (one
//! byte), the payload's length (two bytes, little-endian, at most [`MAX_PAYLOAD`]), the payload.
//!
//! | from | kind | payload |
//! |---|---|---|
//! | guest | 1 | bytes that the command wrote to standard output |
//! | guest | 2 | bytes that it wrote to standard error |
//! | guest | 3 | the guest takes so many bytes of standard input (two bytes, little-endian): one answer, 4 or 5 |
//! | host | 4 | bytes of standard input, at least one, no more than were asked for |
//! | host | 5 | standard input has ended |
//! | guest | 6 | the command ended: how (0 exited, 1 killed by a signal, 2 could not be started), and the exit status, the signal's number or `errno` (four bytes, little-endian) |
//!
//! Input is sent only when it was asked for: a serial port has no room for what nobody reads.
//!
//! This file uses the standard library only: the init, which is a program of its own, includes it.

/// The init's first bytes.
pub const HELLO: &[u8] = b"\xfftdvisor-command 1\n";
/// Most bytes of one payload.
pub const MAX_PAYLOAD: usize = 4096;
/// Where the init finds what to run, in the initial RAM disk.
pub const COMMAND_FILE: &str = "/tdvisor/command";

const HEADER: usize = 3;

/// Something that the guest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromGuest {
    /// Written to standard output.
    Output(Vec<u8>),
    /// Written to standard error.
    Error(Vec<u8>),
    /// There is room for so many bytes of standard input.
    WantsInput(u16),
    /// The command ended.
    Ended(End),
}

/// Something that the host says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromHost {
    /// Standard input.
    Input(Vec<u8>),
    /// The standard input has ended.
    EndOfInput,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The command exited with this status.
    Exited(u8),
    /// The command was killed by this signal.
    Killed(u8),
    /// The command could not be started, for this `errno`.
    NotStarted(i32),
}

/// Bytes that are no frame of this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl FromGuest {
    /// Appends its frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Output(bytes) => frame(1, bytes, out),
            Self::Error(bytes) => frame(2, bytes, out),
            Self::WantsInput(room) => frame(3, &room.to_le_bytes(), out),
            Self::Ended(end) => {
                let (how, number) = match *end {
                    End::Exited(status) => (0, i32::from(status)),
                    End::Killed(signal) => (1, i32::from(signal)),
                    End::NotStarted(errno) => (2, errno),
                };
                let [a, b, c, d] = number.to_le_bytes();
                frame(6, &[how, a, b, c, d], out);
            }
        }
    }

    /// Takes the next frame out of what has come, if it is whole.
    ///
    /// # Errors
    /// No frame begins so.
    pub fn take(bytes: &mut Vec<u8>) -> Result<Option<Self>, Malformed> {
        let Some((kind, payload)) = take(bytes)? else { return Ok(None) };
        let said = match (kind, &*payload) {
            (1, _) => Self::Output(payload),
            (2, _) => Self::Error(payload),
            (3, &[low, high]) => Self::WantsInput(u16::from_le_bytes([low, high])),
            (6, &[how, a, b, c, d]) => {
                let number = i32::from_le_bytes([a, b, c, d]);
                let small = u8::try_from(number).map_err(|_| Malformed);
                Self::Ended(match how {
                    0 => End::Exited(small?),
                    1 => End::Killed(small?),
                    2 => End::NotStarted(number),
                    _ => return Err(Malformed),
                })
            }
            _ => return Err(Malformed),
        };
        Ok(Some(said))
    }
}

impl FromHost {
    /// Appends its frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Input(bytes) => frame(4, bytes, out),
            Self::EndOfInput => frame(5, &[], out),
        }
    }

    /// Takes the next frame out of what has come, if it is whole.
    ///
    /// # Errors
    /// No frame begins so.
    pub fn take(bytes: &mut Vec<u8>) -> Result<Option<Self>, Malformed> {
        let Some((kind, payload)) = take(bytes)? else { return Ok(None) };
        match (kind, payload.is_empty()) {
            (4, false) => Ok(Some(Self::Input(payload))),
            (5, true) => Ok(Some(Self::EndOfInput)),
            _ => Err(Malformed),
        }
    }
}

/// Appends a frame, or several of one kind where the payload is longer than one may be.
fn frame(kind: u8, payload: &[u8], out: &mut Vec<u8>) {
    let mut one = |part: &[u8]| {
        out.push(kind);
        out.extend((part.len() as u16).to_le_bytes());
        out.extend(part);
    };
    if payload.is_empty() {
        one(payload);
    }
    payload.chunks(MAX_PAYLOAD).for_each(one);
}

fn take(bytes: &mut Vec<u8>) -> Result<Option<(u8, Vec<u8>)>, Malformed> {
    let Some(&[kind, low, high]) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    let length = usize::from(u16::from_le_bytes([low, high]));
    if !(1..=6).contains(&kind) || length > MAX_PAYLOAD {
        return Err(Malformed);
    }
    if bytes.len() < HEADER + length {
        return Ok(None);
    }
    let payload = bytes.drain(..HEADER + length).skip(HEADER).collect();
    Ok(Some((kind, payload)))
}

/// The tag of the virtio-fs file system that is a command's root, where it has one.
pub const ROOT_TAG: &str = "tdvisor-root";

/// The root file system of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Root {
    /// The initial RAM disk.
    #[default]
    RamDisk,
    /// The virtio-fs file system with the tag [`ROOT_TAG`], read-only.
    Shared,
}

/// What to run in the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// What the program sees as `/`.
    pub root: Root,
    /// The folder in which it runs, an absolute path.
    pub directory: Vec<u8>,
    /// The command's environment: `NAME=value`.
    pub environment: Vec<Vec<u8>>,
    /// The program (a path, or a name to be found in `PATH`) and its arguments.
    pub arguments: Vec<Vec<u8>>,
}

impl Task {
    /// As the file [`COMMAND_FILE`] has it: the root ([`ROOT_TAG`], or nothing), the folder, the number of variables, the
    /// variables, the arguments, each ended by a zero byte. No part may have one inside.
    pub fn encode(&self) -> Vec<u8> {
        let root = match self.root {
            Root::RamDisk => Vec::new(),
            Root::Shared => ROOT_TAG.into(),
        };
        let count = self.environment.len().to_string().into_bytes();
        let parts =
            [&root, &self.directory, &count].into_iter().chain(&self.environment).chain(&self.arguments);
        parts.flat_map(|part| part.iter().copied().chain([0])).collect()
    }

    /// Reads the file's contents.
    ///
    /// # Errors
    /// They are not of this form, or name no program.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let whole = bytes.strip_suffix(&[0]).ok_or(Malformed)?;
        let mut parts = whole.split(|byte| *byte == 0).map(<[u8]>::to_vec);
        let root = match &*parts.next().ok_or(Malformed)? {
            [] => Root::RamDisk,
            tag if tag == ROOT_TAG.as_bytes() => Root::Shared,
            _ => return Err(Malformed),
        };
        let directory = parts.next().ok_or(Malformed)?;
        let count = parts.next().and_then(|count| String::from_utf8(count).ok()?.parse::<usize>().ok());
        let environment: Vec<_> = parts.by_ref().take(count.ok_or(Malformed)?).collect();
        let arguments: Vec<_> = parts.collect();
        if Some(environment.len()) != count || arguments.is_empty() {
            return Err(Malformed);
        }
        Ok(Self { root, directory, environment, arguments })
    }
}
