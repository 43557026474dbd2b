//! A folder of the host that the guest may change, in memory: the host's files are read, and what the guest writes is kept in
//! this process and gone with it. Nothing of the host is ever written.
//!
//! # Protocol
//! `inodes` is the tree, `contents` what is in a changed file; this module answers messages. Names, links and types are checked as
//! for a folder that is only read (`share`), by the same code.
//!
//! # Bounds
//! [`OVERLAY_BYTES_MAX`] for everything that the guest writes, after which there is no space left; names, open files and entries
//! as for a folder that is only read.
//!
//! # What the guest sees
//! Owner and modes are what the guest makes them: its kernel checks them. A folder of the host that the guest renames stays what it
//! is. There are no extended attributes.

mod contents;
mod inodes;

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::FileType;
use rustix::io::Errno;

use self::inodes::{Inodes, New, Removal, Replacing};
use super::attributes::{Change, Time};
use super::folder::{Entry, Folder, component};
use super::listing::{self, Listing};
use super::protocol::{
    ANSWER_HEADER_BYTES, Body, Fields, MAJOR, MINOR, Request, init_flag, operation, rename_flag,
};
use super::server::{Answers, BACKGROUND, CROWDED, ENTRIES_MAX, HANDLES_MAX, PAGES_MAX};

/// Bytes that a guest may write.
pub const OVERLAY_BYTES_MAX: u64 = 256 << 20;
/// Bytes of one message that writes.
const WRITE_BYTES: u32 = 128 << 10;
/// A block, as the guest counts what is free.
const BLOCK_BYTES: u32 = 4096;
/// The flag of an open file that makes it empty.
const TRUNCATE: u32 = 0o1000;
const FILE_TYPE_BITS: u32 = 0o170_000;

enum Handle {
    File(u64),
    Folder(Vec<Entry>),
}

/// What time it is, for the files that change.
pub(super) type Clock = Box<dyn FnMut() -> SystemTime + Send>;

/// The server.
pub(super) struct Overlay {
    inodes: Inodes,
    clock: Clock,
    handles: BTreeMap<u64, Handle>,
    last_handle: u64,
    /// Entries of the folders that are open.
    entries: usize,
}

impl Overlay {
    pub(super) fn new(folder: Folder, clock: Clock) -> Self {
        Self {
            inodes: Inodes::new(folder, OVERLAY_BYTES_MAX),
            clock,
            handles: BTreeMap::new(),
            last_handle: 0,
            entries: 0,
        }
    }

    fn now(&mut self) -> Time {
        let since = (self.clock)().duration_since(UNIX_EPOCH).unwrap_or_default();
        (since.as_secs(), since.subsec_nanos())
    }

    fn dispatch(&mut self, request: &Request<'_>, room: usize) -> Result<Vec<u8>, Errno> {
        let mut fields = request.fields();
        let node = request.node;
        match request.operation {
            operation::INIT => self.init(&mut fields),
            operation::LOOKUP => {
                let number = self.inodes.find(node, component(fields.text()?)?)?;
                self.entry(number)
            }
            operation::FORGET => {
                self.inodes.forget(node, fields.u64()?);
                Ok(Vec::new())
            }
            operation::BATCH_FORGET => {
                let (count, _) = (fields.u32()?, fields.u32()?);
                for _ in 0..count {
                    let (node, times) = (fields.u64()?, fields.u64()?);
                    self.inodes.forget(node, times);
                }
                Ok(Vec::new())
            }
            operation::GETATTR => self.attributes(node),
            operation::SETATTR => self.set_attributes(node, &mut fields),
            operation::READLINK => self.inodes.read_link(node),
            operation::SYMLINK => {
                const LINK_MODE: u32 = 0o120_777;
                let (name, target) = (fields.text()?, fields.text()?);
                self.make(request, name, LINK_MODE, 0, Some(target.to_vec()))
            }
            operation::MKNOD => {
                let (mode, device, _, _) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
                match FileType::from_raw_mode(mode) {
                    FileType::Directory | FileType::Symlink | FileType::Unknown => Err(Errno::INVAL),
                    _ => self.make(request, fields.text()?, mode, device, None),
                }
            }
            operation::MKDIR => {
                let (mode, _) = (fields.u32()?, fields.u32()?);
                let mode = mode & !FILE_TYPE_BITS | FileType::Directory.as_raw_mode();
                self.make(request, fields.text()?, mode, 0, None)
            }
            operation::CREATE => self.create(request, &mut fields),
            operation::UNLINK | operation::RMDIR => {
                let is_folder = request.operation == operation::RMDIR;
                let removal = if is_folder { Removal::Folder } else { Removal::File };
                let now = self.now();
                self.inodes.remove(node, component(fields.text()?)?, removal, now)?;
                Ok(Vec::new())
            }
            operation::RENAME | operation::RENAME2 => self.rename(request, &mut fields),
            operation::LINK => {
                let other = fields.u64()?;
                let now = self.now();
                self.inodes.link(other, node, component(fields.text()?)?, now)?;
                self.entry(other)
            }
            operation::OPEN => self.open(node, &mut fields),
            operation::READ => self.read(&mut fields, room),
            operation::WRITE => self.write(&mut fields),
            operation::OPENDIR => self.open_folder(node),
            operation::READDIR => self.list(node, &mut fields, room, Listing::Names),
            operation::READDIRPLUS => self.list(node, &mut fields, room, Listing::NamesAndAttributes),
            operation::RELEASE | operation::RELEASEDIR => {
                match self.handles.remove(&fields.u64()?) {
                    Some(Handle::File(number)) => self.inodes.close(number),
                    Some(Handle::Folder(entries)) => {
                        self.entries = self.entries.saturating_sub(entries.len())
                    }
                    None => {}
                }
                Ok(Vec::new())
            }
            operation::STATFS => Ok(self.file_system()),
            operation::ACCESS | operation::FLUSH | operation::FSYNC | operation::FSYNCDIR => Ok(Vec::new()),
            operation::DESTROY => {
                self.reset();
                Ok(Vec::new())
            }
            _ => Err(Errno::NOSYS),
        }
    }

    fn init(&mut self, fields: &mut Fields<'_>) -> Result<Vec<u8>, Errno> {
        let (major, _, readahead, flags) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
        if major < MAJOR {
            return Err(Errno::PROTO);
        }
        self.reset();
        let ours = init_flag::OURS | init_flag::BIG_WRITES;
        let body = Body::default().u32(MAJOR).u32(MINOR).u32(readahead).u32(flags & ours);
        let body = body.u16(BACKGROUND).u16(CROWDED).u32(WRITE_BYTES).u32(1).u16(PAGES_MAX).u16(0);
        const UNUSED_BYTES: usize = 32;
        Ok(body.zeros(UNUSED_BYTES).finish())
    }

    /// The answer that names an inode; the guest holds it from now on.
    fn entry(&mut self, number: u64) -> Result<Vec<u8>, Errno> {
        let attributes = self.inodes.attributes(number)?;
        self.inodes.hold(number)?;
        Ok(Body::default().entry(number, &attributes).finish())
    }

    fn attributes(&self, node: u64) -> Result<Vec<u8>, Errno> {
        Ok(Body::attributes_answer(node, &self.inodes.attributes(node)?).finish())
    }

    fn set_attributes(&mut self, node: u64, fields: &mut Fields<'_>) -> Result<Vec<u8>, Errno> {
        let now = self.now();
        let asked = Change::of(fields)?;
        if let Some(size) = asked.size {
            self.inodes.resize(node, size, now)?;
        }
        self.inodes.change(node, |attributes| attributes.apply(&asked, now))?;
        self.attributes(node)
    }

    fn make(
        &mut self,
        request: &Request<'_>,
        name: &[u8],
        mode: u32,
        device: u32,
        target: Option<Vec<u8>>,
    ) -> Result<Vec<u8>, Errno> {
        let now = self.now();
        let new = New { mode, device, user: request.user, group: request.group, target };
        let number = self.inodes.make(request.node, component(name)?, new, now)?;
        self.entry(number)
    }

    fn create(&mut self, request: &Request<'_>, fields: &mut Fields<'_>) -> Result<Vec<u8>, Errno> {
        let (_, mode, _, _) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
        self.room_for_a_handle()?;
        let mode = mode & !FILE_TYPE_BITS | FileType::RegularFile.as_raw_mode();
        let now = self.now();
        let new = New { mode, device: 0, user: request.user, group: request.group, target: None };
        let number = self.inodes.make(request.node, component(fields.text()?)?, new, now)?;
        self.inodes.open(number)?;
        let mut answer = self.entry(number)?;
        answer.extend(self.keep(Handle::File(number)));
        Ok(answer)
    }

    fn rename(&mut self, request: &Request<'_>, fields: &mut Fields<'_>) -> Result<Vec<u8>, Errno> {
        let folder = fields.u64()?;
        let mut replacing = Replacing::Allowed;
        if request.operation == operation::RENAME2 {
            let (flags, _) = (fields.u32()?, fields.u32()?);
            if flags & !rename_flag::NO_REPLACE != 0 {
                return Err(Errno::INVAL);
            }
            if flags != 0 {
                replacing = Replacing::Never;
            }
        }
        let (old, new) = (component(fields.text()?)?, component(fields.text()?)?);
        let now = self.now();
        self.inodes.rename((request.node, old), (folder, new), replacing, now)?;
        Ok(Vec::new())
    }

    fn room_for_a_handle(&self) -> Result<(), Errno> {
        if self.handles.len() >= HANDLES_MAX { Err(Errno::NFILE) } else { Ok(()) }
    }

    /// Keeps something open, and says by which number.
    fn keep(&mut self, handle: Handle) -> Vec<u8> {
        self.last_handle += 1;
        self.handles.insert(self.last_handle, handle);
        Body::default().u64(self.last_handle).u32(0).u32(0).finish()
    }

    fn open(&mut self, node: u64, fields: &mut Fields<'_>) -> Result<Vec<u8>, Errno> {
        let flags = fields.u32()?;
        self.room_for_a_handle()?;
        self.inodes.open(node)?;
        if flags & TRUNCATE != 0 {
            let now = self.now();
            if let Err(error) = self.inodes.resize(node, 0, now) {
                self.inodes.close(node);
                return Err(error);
            }
        }
        Ok(self.keep(Handle::File(node)))
    }

    fn open_folder(&mut self, node: u64) -> Result<Vec<u8>, Errno> {
        self.room_for_a_handle()?;
        let entries = self.inodes.list(node, ENTRIES_MAX - self.entries)?;
        self.entries += entries.len();
        Ok(self.keep(Handle::Folder(entries)))
    }

    fn file(&self, handle: u64) -> Result<u64, Errno> {
        match self.handles.get(&handle) {
            Some(Handle::File(number)) => Ok(*number),
            _ => Err(Errno::BADF),
        }
    }

    fn read(&self, fields: &mut Fields<'_>, room: usize) -> Result<Vec<u8>, Errno> {
        let (handle, offset, size) = (fields.u64()?, fields.u64()?, fields.u32()?);
        let mut data = vec![0; (size as usize).min(room)];
        let count = self.inodes.read(self.file(handle)?, offset, &mut data)?;
        data.truncate(count);
        Ok(data)
    }

    fn write(&mut self, fields: &mut Fields<'_>) -> Result<Vec<u8>, Errno> {
        const UNUSED_BYTES: usize = 20;
        let (handle, offset, size) = (fields.u64()?, fields.u64()?, fields.u32()?);
        fields.bytes(UNUSED_BYTES)?;
        let data = fields.bytes(size as usize)?;
        let number = self.file(handle)?;
        let now = self.now();
        self.inodes.write(number, offset, data, now)?;
        Ok(Body::default().u32(size).u32(0).finish())
    }

    fn list(
        &mut self,
        parent: u64,
        fields: &mut Fields<'_>,
        room: usize,
        listing: Listing,
    ) -> Result<Vec<u8>, Errno> {
        let (handle, offset, size) = (fields.u64()?, fields.u64()?, fields.u32()?);
        let Some(Handle::Folder(entries)) = self.handles.get(&handle) else { return Err(Errno::BADF) };
        let inodes = &mut self.inodes;
        listing::answer(entries, offset, room.min(size as usize), listing, |name| {
            let number = inodes.find(parent, component(name).ok()?).ok()?;
            let attributes = inodes.attributes(number).ok()?;
            inodes.hold(number).ok()?;
            Some((number, attributes))
        })
    }

    fn file_system(&self) -> Vec<u8> {
        const NAME_BYTES: u32 = 255;
        const SPARE_BYTES: usize = 24;
        let free = self.inodes.budget.left() / u64::from(BLOCK_BYTES);
        let body = Body::default().u64(self.inodes.budget.all() / u64::from(BLOCK_BYTES)).u64(free).u64(free);
        let body = body.u64(0).u64(0).u32(BLOCK_BYTES).u32(NAME_BYTES).u32(BLOCK_BYTES);
        body.u32(0).zeros(SPARE_BYTES).finish()
    }
}

impl Answers for Overlay {
    fn reset(&mut self) {
        self.handles.clear();
        self.entries = 0;
        self.inodes.release_all();
    }

    fn answer(&mut self, message: &[u8], room: usize) -> Option<Vec<u8>> {
        let request = Request::of(message)?;
        let room_of_body = room.saturating_sub(ANSWER_HEADER_BYTES);
        let result = self.dispatch(&request, room_of_body);
        if request.is_one_way() { None } else { request.answered(result, room) }
    }
}

#[cfg(test)]
mod tests;
