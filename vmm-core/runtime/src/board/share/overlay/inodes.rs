//! The tree that a guest sees: what the host's folder has, with what the guest made of it on top.
//!
//! An inode is made when the guest first hears of it, and stays for as long as the guest holds it or the tree needs it: one
//! that is as the host has it, at the place where the host has it, is found again by its name.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use rustix::io::Errno;

use super::super::attributes::{Attributes, Time};
use super::super::folder::{Entry, Folder, read_at};
use super::super::nodes::{NODES_MAX, ROOT};
use super::contents::{Budget, Contents};

/// What an inode of the guest's own costs beside its contents.
const INODE_BYTES: u64 = 1024;

/// What a name in a folder stands for, where the host's folder does not say.
enum Child {
    Inode(u64),
    /// The host has it, and the guest removed it.
    Gone,
}

/// A file, a folder, or whatever has a name.
#[derive(Default)]
struct Inode {
    /// Where the host has it, if it has.
    lower: Option<PathBuf>,
    /// What it is, where that is not what the host says.
    attributes: Option<Attributes>,
    /// What is in it, likewise.
    contents: Option<Contents>,
    /// What a link says that the guest made.
    target: Option<Vec<u8>>,
    children: BTreeMap<OsString, Child>,
    /// The folder that it is in, or was in last.
    above: u64,
    /// Its name there, where both are the host's.
    found_as: Option<OsString>,
    /// Names in the tree.
    names: u32,
    /// How often the guest holds it, and has it open.
    held: u64,
    opened: u64,
    /// What it took of the budget, without its contents.
    cost: u64,
}

/// What a new inode is.
pub(super) struct New {
    pub(super) mode: u32,
    pub(super) device: u32,
    pub(super) user: u32,
    pub(super) group: u32,
    pub(super) target: Option<Vec<u8>>,
}

/// The tree.
pub(super) struct Inodes {
    folder: Folder,
    inodes: BTreeMap<u64, Inode>,
    last: u64,
    pub(super) budget: Budget,
}

impl Inodes {
    pub(super) fn new(folder: Folder, bytes: u64) -> Self {
        let root =
            Inode { lower: Some(PathBuf::from(".")), names: 1, held: 1, above: ROOT, ..Inode::default() };
        Self { folder, inodes: [(ROOT, root)].into(), last: ROOT, budget: Budget::new(bytes) }
    }

    /// The guest has let go of everything; what it changed stays.
    pub(super) fn release_all(&mut self) {
        let all: Vec<u64> = self.inodes.keys().copied().collect();
        for number in all {
            if let Some(inode) = self.inodes.get_mut(&number) {
                (inode.held, inode.opened) = (u64::from(number == ROOT), 0);
            }
            self.drop_unused(number);
        }
    }

    fn inode(&self, number: u64) -> Result<&Inode, Errno> {
        self.inodes.get(&number).ok_or(Errno::STALE)
    }

    fn inode_mut(&mut self, number: u64) -> Result<&mut Inode, Errno> {
        self.inodes.get_mut(&number).ok_or(Errno::STALE)
    }

    /// What it is.
    pub(super) fn attributes(&self, number: u64) -> Result<Attributes, Errno> {
        let inode = self.inode(number)?;
        let mut found = match (&inode.attributes, &inode.lower) {
            (Some(own), _) => *own,
            (None, Some(lower)) => Attributes::from(&self.folder.stat(lower)?),
            (None, None) => return Err(Errno::STALE),
        };
        if let Some(contents) = &inode.contents {
            found.set_size(contents.size());
        }
        Ok(found)
    }

    fn kind(&self, number: u64) -> Result<FileType, Errno> {
        Ok(self.attributes(number)?.kind())
    }

    fn must_be_folder(&self, number: u64) -> Result<(), Errno> {
        if self.kind(number)? == FileType::Directory { Ok(()) } else { Err(Errno::NOTDIR) }
    }

    /// Changes what it is; from now on the host's word does not count.
    pub(super) fn change(&mut self, number: u64, change: impl FnOnce(&mut Attributes)) -> Result<(), Errno> {
        let mut attributes = self.attributes(number)?;
        change(&mut attributes);
        let inode = self.inode_mut(number)?;
        inode.attributes = Some(attributes);
        Ok(())
    }

    /// The inode of a name.
    pub(super) fn find(&mut self, parent: u64, name: &OsStr) -> Result<u64, Errno> {
        let folder = self.inode(parent)?;
        match folder.children.get(name) {
            Some(Child::Inode(number)) => return Ok(*number),
            Some(Child::Gone) => return Err(Errno::NOENT),
            None => {}
        }
        let Some(lower) = folder.lower.as_deref().filter(|_| folder.target.is_none()) else {
            self.must_be_folder(parent)?;
            return Err(Errno::NOENT);
        };
        let lower = lower.join(name);
        self.folder.stat(&lower)?;
        let found_as = Some(name.to_owned());
        let number =
            self.insert(Inode { lower: Some(lower), above: parent, found_as, ..Inode::default() })?;
        self.put(parent, name, number)?;
        Ok(number)
    }

    fn insert(&mut self, inode: Inode) -> Result<u64, Errno> {
        if self.inodes.len() >= NODES_MAX {
            return Err(Errno::NOMEM);
        }
        self.last += 1;
        self.inodes.insert(self.last, inode);
        Ok(self.last)
    }

    /// Lets a name stand for an inode.
    fn put(&mut self, parent: u64, name: &OsStr, number: u64) -> Result<(), Errno> {
        self.inode_mut(parent)?.children.insert(name.to_owned(), Child::Inode(number));
        let inode = self.inode_mut(number)?;
        inode.names = inode.names.saturating_add(1);
        inode.above = parent;
        Ok(())
    }

    /// Takes a name away; the inode stays for as long as somebody has it.
    fn take(&mut self, parent: u64, name: &OsStr, number: u64) -> Result<(), Errno> {
        // Its attributes are its own from now on: the host's name may be given to another file.
        self.change(number, |_| {})?;
        let folder = self.inode(parent)?;
        let is_below = folder.lower.as_ref().is_some_and(|lower| self.folder.stat(&lower.join(name)).is_ok());
        let folder = self.inode_mut(parent)?;
        if is_below {
            folder.children.insert(name.to_owned(), Child::Gone);
        } else {
            folder.children.remove(name);
        }
        let inode = self.inode_mut(number)?;
        inode.names = inode.names.saturating_sub(1);
        inode.found_as = None;
        Ok(())
    }

    /// Makes an inode of the guest's own.
    pub(super) fn make(&mut self, parent: u64, name: &OsStr, new: New, now: Time) -> Result<u64, Errno> {
        self.must_be_free(parent, name)?;
        let cost = INODE_BYTES + (name.len() + new.target.as_ref().map_or(0, Vec::len)) as u64;
        self.budget.take(cost)?;
        let mut attributes = Attributes::new(new.mode, new.user, new.group, new.device, now);
        if let Some(target) = &new.target {
            attributes.set_size(target.len() as u64);
        }
        let contents = (attributes.kind() == FileType::RegularFile).then(Contents::default);
        let inode =
            Inode { attributes: Some(attributes), contents, target: new.target, cost, ..Inode::default() };
        let made = self.insert(inode);
        match made {
            Ok(number) => {
                self.put(parent, name, number)?;
                self.touch(parent, now)?;
                Ok(number)
            }
            Err(error) => {
                self.budget.give(cost);
                Err(error)
            }
        }
    }

    /// The name is nobody's yet, in a folder that is one and has not been removed.
    fn must_be_free(&mut self, parent: u64, name: &OsStr) -> Result<(), Errno> {
        self.must_be_folder(parent)?;
        if self.inode(parent)?.names == 0 {
            return Err(Errno::NOENT);
        }
        match self.find(parent, name) {
            Ok(found) => {
                self.drop_unused(found);
                Err(Errno::EXIST)
            }
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A change in a folder is seen at its times.
    fn touch(&mut self, number: u64, now: Time) -> Result<(), Errno> {
        self.change(number, |attributes| attributes.set_changed(now))
    }

    /// One more name for a file.
    pub(super) fn link(&mut self, number: u64, parent: u64, name: &OsStr, now: Time) -> Result<(), Errno> {
        if self.kind(number)? == FileType::Directory {
            return Err(Errno::PERM);
        }
        if self.inode(number)?.names == 0 {
            return Err(Errno::NOENT);
        }
        self.must_be_free(parent, name)?;
        self.change(number, |_| {})?;
        self.budget.take(INODE_BYTES)?;
        let inode = self.inode_mut(number)?;
        inode.found_as = None;
        inode.cost += INODE_BYTES;
        self.put(parent, name, number)?;
        self.touch(parent, now)
    }

    /// Removes a name: of a folder that is empty, or of what is no folder.
    pub(super) fn remove(
        &mut self,
        parent: u64,
        name: &OsStr,
        expected: Removal,
        now: Time,
    ) -> Result<(), Errno> {
        let number = self.find(parent, name)?;
        match (expected, self.kind(number)? == FileType::Directory) {
            (Removal::Folder, false) => return Err(Errno::NOTDIR),
            (Removal::File, true) => return Err(Errno::ISDIR),
            (Removal::Folder, true) => self.must_be_empty(number)?,
            (Removal::File, false) => {}
        }
        self.take(parent, name, number)?;
        self.drop_unused(number);
        self.touch(parent, now)
    }

    fn must_be_empty(&self, number: u64) -> Result<(), Errno> {
        const DOTS: usize = 2;
        let entries = self.list(number, usize::MAX)?;
        if entries.len() > DOTS { Err(Errno::NOTEMPTY) } else { Ok(()) }
    }

    /// Gives what has one name another, and removes what had that.
    pub(super) fn rename(
        &mut self,
        from: (u64, &OsStr),
        to: (u64, &OsStr),
        replacing: Replacing,
        now: Time,
    ) -> Result<(), Errno> {
        let number = self.find(from.0, from.1)?;
        let is_folder = self.kind(number)? == FileType::Directory;
        self.must_be_folder(to.0)?;
        if self.inode(to.0)?.names == 0 {
            return Err(Errno::NOENT);
        }
        if is_folder && self.is_within(to.0, number) {
            return Err(Errno::INVAL);
        }
        match self.find(to.0, to.1) {
            Ok(_) if replacing == Replacing::Never => return Err(Errno::EXIST),
            Ok(same) if same == number => return Ok(()),
            Ok(old) => {
                match (is_folder, self.kind(old)? == FileType::Directory) {
                    (true, false) => return Err(Errno::NOTDIR),
                    (false, true) => return Err(Errno::ISDIR),
                    (true, true) => self.must_be_empty(old)?,
                    (false, false) => {}
                }
                self.take(to.0, to.1, old)?;
                self.drop_unused(old);
            }
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
        self.take(from.0, from.1, number)?;
        self.put(to.0, to.1, number)?;
        self.touch(from.0, now)?;
        self.touch(to.0, now)
    }

    /// Whether a folder is another one, or in it.
    fn is_within(&self, folder: u64, other: u64) -> bool {
        let mut at = folder;
        for _ in 0..=self.inodes.len() {
            if at == other {
                return true;
            }
            match self.inodes.get(&at) {
                Some(inode) if at != ROOT => at = inode.above,
                _ => return false,
            }
        }
        true
    }

    /// The names in a folder, `.` and `..` first, the others sorted; at most so many.
    pub(super) fn list(&self, number: u64, most: usize) -> Result<Vec<Entry>, Errno> {
        self.must_be_folder(number)?;
        let inode = self.inode(number)?;
        let mut entries = match &inode.lower {
            Some(lower) => self.folder.list(lower, most)?,
            None => {
                [&b"."[..], b".."].map(|name| Entry { name: name.to_vec(), kind: FileType::Directory }).into()
            }
        };
        entries.retain(|entry| entry.is_dots() || !inode.children.contains_key(entry.os_name()));
        for (name, child) in &inode.children {
            if let Child::Inode(child) = child
                && let Ok(kind) = self.kind(*child)
            {
                entries.push(Entry { name: name.as_encoded_bytes().to_vec(), kind });
            }
        }
        if entries.len() > most {
            return Err(Errno::OVERFLOW);
        }
        entries
            .sort_unstable_by(|one, other| (!one.is_dots(), &one.name).cmp(&(!other.is_dots(), &other.name)));
        Ok(entries)
    }

    /// What a symbolic link says.
    pub(super) fn read_link(&self, number: u64) -> Result<Vec<u8>, Errno> {
        let inode = self.inode(number)?;
        match (&inode.target, &inode.lower) {
            (Some(target), _) => Ok(target.clone()),
            (None, Some(lower)) => self.folder.read_link(lower),
            (None, None) => Err(Errno::INVAL),
        }
    }

    fn must_be_file(&self, number: u64) -> Result<(), Errno> {
        match self.kind(number)? {
            FileType::RegularFile => Ok(()),
            FileType::Directory => Err(Errno::ISDIR),
            _ => Err(Errno::ACCESS),
        }
    }

    /// The host's file below an inode, where that has a part in what is read.
    fn lower_file(&self, inode: &Inode) -> Result<Option<std::fs::File>, Errno> {
        let counts = inode.contents.as_ref().is_none_or(Contents::needs_lower);
        let lower: Option<&Path> = inode.lower.as_deref().filter(|_| counts);
        lower.map(|lower| self.folder.open_file(lower)).transpose()
    }

    /// A file is opened: it has to be one, and has to be there.
    pub(super) fn open(&mut self, number: u64) -> Result<(), Errno> {
        self.must_be_file(number)?;
        self.lower_file(self.inode(number)?)?;
        let inode = self.inode_mut(number)?;
        inode.opened = inode.opened.saturating_add(1);
        Ok(())
    }

    /// A file is closed.
    pub(super) fn close(&mut self, number: u64) {
        if let Some(inode) = self.inodes.get_mut(&number) {
            inode.opened = inode.opened.saturating_sub(1);
        }
        self.drop_unused(number);
    }

    /// Reads a file.
    pub(super) fn read(&self, number: u64, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        self.must_be_file(number)?;
        let inode = self.inode(number)?;
        let lower = self.lower_file(inode)?;
        match (&inode.contents, &lower) {
            (Some(contents), lower) => contents.read(lower.as_ref(), offset, buffer),
            (None, Some(file)) => read_at(file, offset, buffer),
            (None, None) => Ok(0),
        }
    }

    /// Changes what is in a file.
    fn rewrite(
        &mut self,
        number: u64,
        now: Time,
        change: impl FnOnce(&mut Contents, Option<&std::fs::File>, &mut Budget) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        self.must_be_file(number)?;
        let size = self.attributes(number)?.size;
        let lower = self.lower_file(self.inode(number)?)?;
        self.touch(number, now)?;
        let inode = self.inodes.get_mut(&number).ok_or(Errno::STALE)?;
        let contents = inode.contents.get_or_insert_with(|| Contents::over(size));
        change(contents, lower.as_ref(), &mut self.budget)
    }

    /// Writes to a file.
    pub(super) fn write(&mut self, number: u64, offset: u64, data: &[u8], now: Time) -> Result<(), Errno> {
        self.rewrite(number, now, |contents, lower, budget| contents.write(lower, offset, data, budget))
    }

    /// Cuts a file off, or lets it grow.
    pub(super) fn resize(&mut self, number: u64, size: u64, now: Time) -> Result<(), Errno> {
        self.rewrite(number, now, |contents, _, budget| contents.resize(size, budget))
    }

    /// The guest holds it once more.
    pub(super) fn hold(&mut self, number: u64) -> Result<(), Errno> {
        let inode = self.inode_mut(number)?;
        inode.held = inode.held.saturating_add(1);
        Ok(())
    }

    /// The guest lets go of it so often.
    pub(super) fn forget(&mut self, number: u64, times: u64) {
        if number == ROOT {
            return;
        }
        if let Some(inode) = self.inodes.get_mut(&number) {
            inode.held = inode.held.saturating_sub(times);
        }
        self.drop_unused(number);
    }

    /// Removes what nobody needs: what has no name, and what is found again by its name.
    pub(super) fn drop_unused(&mut self, number: u64) {
        let mut at = number;
        while let Some(inode) = self.inodes.get(&at) {
            let is_lower = inode.found_as.is_some()
                && inode.attributes.is_none()
                && inode.contents.is_none()
                && inode.children.is_empty();
            let is_used = inode.held > 0 || inode.opened > 0 || (inode.names > 0 && !is_lower);
            if at == ROOT || is_used {
                return;
            }
            let Some(inode) = self.inodes.remove(&at) else { return };
            self.budget.give(inode.cost + inode.contents.as_ref().map_or(0, Contents::taken));
            // The folder above may have been kept for it alone.
            let Some(name) = inode.found_as else { return };
            if let Some(folder) = self.inodes.get_mut(&inode.above) {
                folder.children.remove(&name);
            }
            at = inode.above;
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.inodes.len()
    }
}

/// What a removal is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    File,
    Folder,
}

/// Whether a new name may be one that something has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replacing {
    Allowed,
    Never,
}
