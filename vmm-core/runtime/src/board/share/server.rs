//! Answers to the messages of a guest that only reads.

use std::collections::BTreeMap;
use std::fs::File;

use rustix::io::Errno;

use super::attributes::Attributes;
use super::folder::{Entry, Folder, component, read_at};
use super::listing::{self, Listing};
use super::nodes::Nodes;
use super::protocol::{ANSWER_HEADER_BYTES, Body, Fields, MAJOR, MINOR, Request, init_flag, operation};

/// Open files and folders at one time.
pub const HANDLES_MAX: usize = 512;
/// Entries of open folders, all together.
pub const ENTRIES_MAX: usize = 1 << 19;

/// Bytes of a page of the guest, and pages of a request.
const PAGE_BYTES: u32 = 4096;
pub(super) const PAGES_MAX: u16 = 32;
/// Requests that the guest may have waiting in the background, and where it calls that crowded.
pub(super) const BACKGROUND: u16 = 16;
pub(super) const CROWDED: u16 = 12;

/// Flags of an open file that ask to write it: the access mode, and what makes it empty.
const WRITE_FLAGS: u32 = 0b11 | 0o1000;
/// The bit of an access mask that asks to write.
const MAY_WRITE: u32 = 2;

enum Handle {
    File(File),
    Folder(Vec<Entry>),
}

/// The server.
pub(super) struct Server {
    folder: Folder,
    nodes: Nodes,
    handles: BTreeMap<u64, Handle>,
    last_handle: u64,
    /// Entries of the folders that are open.
    entries: usize,
}

/// Answers the messages of one guest.
pub(super) trait Answers: Send {
    /// Answers a message with at most `room` bytes; `None` if it has no answer.
    fn answer(&mut self, message: &[u8], room: usize) -> Option<Vec<u8>>;
    /// The guest has let go of everything.
    fn reset(&mut self);
}

impl Server {
    pub(super) const fn new(folder: Folder) -> Self {
        Self { folder, nodes: Nodes::new(), handles: BTreeMap::new(), last_handle: 0, entries: 0 }
    }

    fn dispatch(&mut self, request: &Request<'_>, room: usize) -> Result<Vec<u8>, Errno> {
        let mut fields = request.fields();
        let node = request.node;
        match request.operation {
            operation::INIT => self.init(&mut fields),
            operation::LOOKUP => {
                let (node, attributes) = lookup(&self.folder, &mut self.nodes, node, fields.text()?)?;
                Ok(Body::default().entry(node, &attributes).finish())
            }
            operation::FORGET => {
                self.nodes.forget(node, fields.u64()?);
                Ok(Vec::new())
            }
            operation::BATCH_FORGET => self.forget_all(&mut fields),
            operation::GETATTR => {
                let stat = self.folder.stat(&self.nodes.path(node)?)?;
                Ok(Body::attributes_answer(node, &Attributes::from(&stat)).finish())
            }
            operation::READLINK => self.folder.read_link(&self.nodes.path(node)?),
            operation::OPEN => self.open(node, &mut fields),
            operation::READ => self.read(&mut fields, room),
            operation::OPENDIR => self.open_folder(node),
            operation::READDIR => self.list(node, &mut fields, room, Listing::Names),
            operation::READDIRPLUS => self.list(node, &mut fields, room, Listing::NamesAndAttributes),
            operation::RELEASE | operation::RELEASEDIR => {
                if let Some(Handle::Folder(entries)) = self.handles.remove(&fields.u64()?) {
                    self.entries = self.entries.saturating_sub(entries.len());
                }
                Ok(Vec::new())
            }
            operation::STATFS => self.file_system(),
            operation::ACCESS if fields.u32()? & MAY_WRITE != 0 => Err(Errno::ROFS),
            operation::ACCESS | operation::FLUSH | operation::FSYNC | operation::FSYNCDIR => Ok(Vec::new()),
            operation::DESTROY => {
                self.reset();
                Ok(Vec::new())
            }
            operation::SETATTR
            | operation::SYMLINK
            | operation::MKNOD
            | operation::MKDIR
            | operation::UNLINK
            | operation::RMDIR
            | operation::RENAME
            | operation::RENAME2
            | operation::LINK
            | operation::WRITE
            | operation::SETXATTR
            | operation::REMOVEXATTR
            | operation::CREATE
            | operation::FALLOCATE
            | operation::COPY_FILE_RANGE
            | operation::TMPFILE => Err(Errno::ROFS),
            _ => Err(Errno::NOSYS),
        }
    }

    /// The guest begins anew.
    fn init(&mut self, fields: &mut Fields<'_>) -> Result<Vec<u8>, Errno> {
        let (major, _, readahead, flags) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
        if major < MAJOR {
            return Err(Errno::PROTO);
        }
        self.reset();
        // A guest with a newer version hears which one is spoken, and asks again.
        let body = Body::default().u32(MAJOR).u32(MINOR).u32(readahead).u32(flags & init_flag::OURS);
        let body = body.u16(BACKGROUND).u16(CROWDED).u32(PAGE_BYTES).u32(1).u16(PAGES_MAX).u16(0);
        const UNUSED_BYTES: usize = 32;
        Ok(body.zeros(UNUSED_BYTES).finish())
    }

    fn forget_all(&mut self, fields: &mut Fields<'_>) -> Result<Vec<u8>, Errno> {
        let (count, _) = (fields.u32()?, fields.u32()?);
        // The message's length bounds it, whatever the count says.
        for _ in 0..count {
            let (node, times) = (fields.u64()?, fields.u64()?);
            self.nodes.forget(node, times);
        }
        Ok(Vec::new())
    }

    fn open(&mut self, node: u64, fields: &mut Fields<'_>) -> Result<Vec<u8>, Errno> {
        if fields.u32()? & WRITE_FLAGS != 0 {
            return Err(Errno::ROFS);
        }
        let file = self.folder.open_file(&self.nodes.path(node)?)?;
        self.hold(Handle::File(file))
    }

    fn open_folder(&mut self, node: u64) -> Result<Vec<u8>, Errno> {
        let entries = self.folder.list(&self.nodes.path(node)?, ENTRIES_MAX - self.entries)?;
        let count = entries.len();
        let answer = self.hold(Handle::Folder(entries))?;
        self.entries += count;
        Ok(answer)
    }

    /// Keeps something open, and says by which number.
    fn hold(&mut self, handle: Handle) -> Result<Vec<u8>, Errno> {
        if self.handles.len() >= HANDLES_MAX {
            return Err(Errno::NFILE);
        }
        self.last_handle += 1;
        self.handles.insert(self.last_handle, handle);
        Ok(Body::default().u64(self.last_handle).u32(0).u32(0).finish())
    }

    fn read(&self, fields: &mut Fields<'_>, room: usize) -> Result<Vec<u8>, Errno> {
        let (handle, offset, size) = (fields.u64()?, fields.u64()?, fields.u32()?);
        let Some(Handle::File(file)) = self.handles.get(&handle) else { return Err(Errno::BADF) };
        let mut data = vec![0; (size as usize).min(room)];
        let count = read_at(file, offset, &mut data)?;
        data.truncate(count);
        Ok(data)
    }

    /// Entries of a folder from where the guest is in it, as many as there is room for.
    fn list(
        &mut self,
        parent: u64,
        fields: &mut Fields<'_>,
        room: usize,
        listing: Listing,
    ) -> Result<Vec<u8>, Errno> {
        let (handle, offset, size) = (fields.u64()?, fields.u64()?, fields.u32()?);
        let Some(Handle::Folder(entries)) = self.handles.get(&handle) else { return Err(Errno::BADF) };
        let (folder, nodes) = (&self.folder, &mut self.nodes);
        listing::answer(entries, offset, room.min(size as usize), listing, |name| {
            lookup(folder, nodes, parent, name).ok()
        })
    }

    fn file_system(&self) -> Result<Vec<u8>, Errno> {
        const SPARE_BYTES: usize = 24;
        let found = self.folder.file_system()?;
        let body = Body::default().u64(found.f_blocks).u64(found.f_bfree).u64(found.f_bavail);
        let body = body.u64(found.f_files).u64(found.f_ffree);
        let [block, name, fragment] = [found.f_bsize, found.f_namelen, found.f_frsize]
            .map(|bytes| u32::try_from(bytes).unwrap_or(u32::MAX));
        let body = body.u32(block).u32(name).u32(fragment);
        Ok(body.u32(0).zeros(SPARE_BYTES).finish())
    }

    /// How many names the guest holds.
    #[cfg(test)]
    pub(super) fn names(&self) -> usize {
        self.nodes.count()
    }
}

impl Answers for Server {
    fn reset(&mut self) {
        self.nodes.clear();
        self.handles.clear();
        self.entries = 0;
    }

    fn answer(&mut self, message: &[u8], room: usize) -> Option<Vec<u8>> {
        let request = Request::of(message)?;
        let room_of_body = room.saturating_sub(ANSWER_HEADER_BYTES);
        let result = self.dispatch(&request, room_of_body);
        if request.is_one_way() { None } else { request.answered(result, room) }
    }
}

/// The node of a name, which the guest holds from now on, and what it is.
fn lookup(folder: &Folder, nodes: &mut Nodes, parent: u64, name: &[u8]) -> Result<(u64, Attributes), Errno> {
    let name = component(name)?;
    let stat = folder.stat(&nodes.path(parent)?.join(name))?;
    Ok((nodes.hold(parent, name)?, Attributes::from(&stat)))
}
