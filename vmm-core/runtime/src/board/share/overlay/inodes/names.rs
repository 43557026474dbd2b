//! Names in the tree: what they stand for, and how that changes.

use std::ffi::OsStr;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::super::super::attributes::{Attributes, Time};
use super::super::super::folder::Entry;
use super::super::super::nodes::ROOT;
use super::super::contents::Contents;
use super::{Child, INODE_BYTES, Inode, Inodes};

/// What a new inode is.
pub(in super::super) struct New {
    pub(in super::super) mode: u32,
    pub(in super::super) device: u32,
    pub(in super::super) user: u32,
    pub(in super::super) group: u32,
    pub(in super::super) target: Option<Vec<u8>>,
}

/// What a removal is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Removal {
    File,
    Folder,
}

/// Whether a new name may be one that something has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Replacing {
    Allowed,
    Never,
}

impl Inodes {
    /// The inode of a name.
    pub(in super::super) fn find(&mut self, parent: u64, name: &OsStr) -> Result<u64, Errno> {
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
    pub(in super::super) fn make(
        &mut self,
        parent: u64,
        name: &OsStr,
        new: New,
        now: Time,
    ) -> Result<u64, Errno> {
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
    pub(super) fn touch(&mut self, number: u64, now: Time) -> Result<(), Errno> {
        self.change(number, |attributes| attributes.set_changed(now))
    }

    /// One more name for a file.
    pub(in super::super) fn link(
        &mut self,
        number: u64,
        parent: u64,
        name: &OsStr,
        now: Time,
    ) -> Result<(), Errno> {
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
    pub(in super::super) fn remove(
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
    pub(in super::super) fn rename(
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
    pub(in super::super) fn list(&self, number: u64, most: usize) -> Result<Vec<Entry>, Errno> {
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
}
