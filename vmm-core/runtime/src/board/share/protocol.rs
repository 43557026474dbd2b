//! Layouts of the FUSE protocol, version 7.31, as far as a folder needs them. All numbers are little-endian here.
//!
//! A message begins with: length (u32), operation (u32), unique number (u64), node (u64), user, group, process (u32 each), 4
//! bytes of padding. An answer begins with: length (u32), error as a negative number (i32), the message's unique number (u64).
//!
//! Source: `include/uapi/linux/fuse.h`, which documents the ABI.

use rustix::fs::FileType;
use rustix::io::Errno;

use super::attributes::Attributes;

/// The version that is spoken.
pub(super) const MAJOR: u32 = 7;
pub(super) const MINOR: u32 = 31;

const MESSAGE_HEADER_BYTES: usize = 40;
pub(super) const ANSWER_HEADER_BYTES: usize = 16;
/// Seconds that the guest may believe what it was told of a name or a file.
const VALID_SECONDS: u64 = 1;

/// Operations, by their codes.
pub(super) mod operation {
    pub(in super::super) const LOOKUP: u32 = 1;
    pub(in super::super) const FORGET: u32 = 2;
    pub(in super::super) const GETATTR: u32 = 3;
    pub(in super::super) const SETATTR: u32 = 4;
    pub(in super::super) const READLINK: u32 = 5;
    pub(in super::super) const SYMLINK: u32 = 6;
    pub(in super::super) const MKNOD: u32 = 8;
    pub(in super::super) const MKDIR: u32 = 9;
    pub(in super::super) const UNLINK: u32 = 10;
    pub(in super::super) const RMDIR: u32 = 11;
    pub(in super::super) const RENAME: u32 = 12;
    pub(in super::super) const LINK: u32 = 13;
    pub(in super::super) const OPEN: u32 = 14;
    pub(in super::super) const READ: u32 = 15;
    pub(in super::super) const WRITE: u32 = 16;
    pub(in super::super) const STATFS: u32 = 17;
    pub(in super::super) const RELEASE: u32 = 18;
    pub(in super::super) const FSYNC: u32 = 20;
    pub(in super::super) const SETXATTR: u32 = 21;
    pub(in super::super) const REMOVEXATTR: u32 = 24;
    pub(in super::super) const FLUSH: u32 = 25;
    pub(in super::super) const INIT: u32 = 26;
    pub(in super::super) const OPENDIR: u32 = 27;
    pub(in super::super) const READDIR: u32 = 28;
    pub(in super::super) const RELEASEDIR: u32 = 29;
    pub(in super::super) const FSYNCDIR: u32 = 30;
    pub(in super::super) const ACCESS: u32 = 34;
    pub(in super::super) const CREATE: u32 = 35;
    pub(in super::super) const INTERRUPT: u32 = 36;
    pub(in super::super) const DESTROY: u32 = 38;
    pub(in super::super) const BATCH_FORGET: u32 = 42;
    pub(in super::super) const FALLOCATE: u32 = 43;
    pub(in super::super) const READDIRPLUS: u32 = 44;
    pub(in super::super) const RENAME2: u32 = 45;
    pub(in super::super) const COPY_FILE_RANGE: u32 = 47;
    pub(in super::super) const TMPFILE: u32 = 51;
}

/// What RENAME2 asks for.
pub(super) mod rename_flag {
    /// The new name must be nobody's.
    pub(in super::super) const NO_REPLACE: u32 = 1;
}

/// What a server can do, of INIT's flags.
pub(super) mod init_flag {
    /// Several reads of one file at a time.
    pub(in super::super) const ASYNC_READ: u32 = 1 << 0;
    /// Writes of more than a page.
    pub(in super::super) const BIG_WRITES: u32 = 1 << 5;
    /// Names and what they are, in one answer.
    pub(in super::super) const DO_READDIRPLUS: u32 = 1 << 13;
    /// The guest chooses between that and names alone.
    pub(in super::super) const READDIRPLUS_AUTO: u32 = 1 << 14;
    /// Several lookups in one folder at a time.
    pub(in super::super) const PARALLEL_DIROPS: u32 = 1 << 18;
    /// The answer says how many pages a request has at most.
    pub(in super::super) const MAX_PAGES: u32 = 1 << 22;

    /// The flags that every folder offers.
    pub(in super::super) const OURS: u32 =
        ASYNC_READ | DO_READDIRPLUS | READDIRPLUS_AUTO | PARALLEL_DIROPS | MAX_PAGES;
}

/// Little-endian fields from the start of bytes. What is not there is an error.
pub(super) struct Fields<'m>(&'m [u8]);

impl<'m> Fields<'m> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Errno> {
        let (field, rest) = self.0.split_first_chunk().ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(*field)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Errno> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Errno> {
        self.array().map(u64::from_le_bytes)
    }

    /// The next `count` bytes of the message.
    pub(super) fn bytes(&mut self, count: usize) -> Result<&'m [u8], Errno> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// The bytes up to a NUL, which is there.
    pub(super) fn text(&mut self) -> Result<&'m [u8], Errno> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(Errno::INVAL)?;
        let (text, rest) = self.0.split_at_checked(end).ok_or(Errno::INVAL)?;
        self.0 = rest.get(1..).unwrap_or_default();
        Ok(text)
    }
}

/// A message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'m> {
    pub(super) operation: u32,
    pub(super) node: u64,
    /// Who asks, in the guest.
    pub(super) user: u32,
    pub(super) group: u32,
    unique: u64,
    body: &'m [u8],
}

impl<'m> Request<'m> {
    /// The message in these bytes; `None` if there is not even a header, or its length is not theirs.
    pub(super) fn of(message: &'m [u8]) -> Option<Self> {
        let body = message.get(MESSAGE_HEADER_BYTES..)?;
        let mut header = Fields(message);
        let length = header.u32().ok()?;
        let (operation, unique, node) = (header.u32().ok()?, header.u64().ok()?, header.u64().ok()?);
        let (user, group) = (header.u32().ok()?, header.u32().ok()?);
        (length as usize == message.len()).then_some(Self { operation, node, user, group, unique, body })
    }

    /// The fields behind the header.
    pub(super) const fn fields(&self) -> Fields<'m> {
        Fields(self.body)
    }

    /// Whether nobody waits for an answer.
    pub(super) const fn is_one_way(&self) -> bool {
        matches!(self.operation, operation::FORGET | operation::BATCH_FORGET | operation::INTERRUPT)
    }

    /// An answer; `None` if there is no room for it.
    pub(super) fn answered(&self, result: Result<Vec<u8>, Errno>, room: usize) -> Option<Vec<u8>> {
        let (error, body) = match result {
            Ok(body) => (0, body),
            Err(error) => (-error.raw_os_error(), Vec::new()),
        };
        let length = ANSWER_HEADER_BYTES + body.len();
        let bytes = u32::try_from(length).ok().filter(|_| length <= room)?;
        let mut answer = Vec::with_capacity(length);
        answer.extend(bytes.to_le_bytes());
        answer.extend(error.to_le_bytes());
        answer.extend(self.unique.to_le_bytes());
        answer.extend(body);
        Some(answer)
    }

    /// The answer to a message that took too long.
    pub(super) fn overdue(&self, room: usize) -> Option<Vec<u8>> {
        if self.is_one_way() { None } else { self.answered(Err(Errno::IO), room) }
    }
}

/// Fields of an answer.
#[derive(Default)]
pub(super) struct Body(Vec<u8>);

impl Body {
    pub(super) fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(super) fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(super) fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(super) fn zeros(mut self, count: usize) -> Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }

    /// What a file is: 88 bytes.
    fn attributes(self, node: u64, of: &Attributes) -> Self {
        // The time of access is that of the last change.
        self.u64(node)
            .u64(of.size)
            .u64(of.blocks)
            .u64(of.modified.0)
            .u64(of.modified.0)
            .u64(of.changed.0)
            .u32(of.modified.1)
            .u32(of.modified.1)
            .u32(of.changed.1)
            .u32(of.mode)
            .u32(of.links)
            .u32(of.user)
            .u32(of.group)
            .u32(of.device)
            .u32(of.block_bytes)
            .u32(0)
    }

    /// The answer to GETATTR.
    pub(super) fn attributes_answer(node: u64, of: &Attributes) -> Self {
        Self::default().u64(VALID_SECONDS).u32(0).u32(0).attributes(node, of)
    }

    /// The answer to LOOKUP: 128 bytes.
    pub(super) fn entry(self, node: u64, of: &Attributes) -> Self {
        const GENERATION: u64 = 0;
        self.u64(node)
            .u64(GENERATION)
            .u64(VALID_SECONDS)
            .u64(VALID_SECONDS)
            .u32(0)
            .u32(0)
            .attributes(node, of)
    }

    /// An entry of READDIRPLUS that says nothing but the name.
    pub(super) fn no_entry(self) -> Self {
        const ENTRY_BYTES: usize = 128;
        self.zeros(ENTRY_BYTES)
    }

    /// A name in a folder; `next` is where the folder goes on behind it.
    pub(super) fn name(self, node: u64, next: u64, kind: FileType, name: &[u8]) -> Self {
        const ALIGNMENT: usize = 8;
        let padding = name.len().next_multiple_of(ALIGNMENT) - name.len();
        // No file system has names as long as that.
        let length = u32::try_from(name.len()).unwrap_or(u32::MAX);
        self.u64(node).u64(next).u32(length).u32(type_of(kind)).bytes(name).zeros(padding)
    }
}

/// What a folder says of a file's type (`DT_*`): the type bits of its mode.
fn type_of(kind: FileType) -> u32 {
    const TYPE_SHIFT: u32 = 12;
    kind.as_raw_mode() >> TYPE_SHIFT
}
