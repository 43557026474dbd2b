//! The tree that a guest sees: what the host's folder has, with what the guest made of it on top.
//!
//! An inode is made when the guest first hears of it, and stays for as long as the guest holds it or the tree needs it: one
//! that is as the host has it, at the place where the host has it, is found again by its name.

mod files;
mod names;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use rustix::fs::FileType;
use rustix::io::Errno;

pub(super) use self::names::{New, Removal, Replacing};
use super::super::attributes::Attributes;
use super::super::folder::Folder;
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
    /// Attributes of the guest's, where they are not those that the host says.
    attributes: Option<Attributes>,
    /// Contents of the guest's, where they are not those that the host has.
    contents: Option<Contents>,
    /// What a link says that the guest made.
    target: Option<Vec<u8>>,
    children: BTreeMap<OsString, Child>,
    /// The folder that it is in, or was in last.
    above: u64,
    /// The name in the host's folder, where file and folder are the host's.
    found_as: Option<OsString>,
    /// Names in the tree.
    names: u32,
    /// How often the guest holds it, and has it open.
    held: u64,
    opened: u64,
    /// What the inode took of the budget, without its contents.
    cost: u64,
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

    /// The attributes of an inode.
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

    fn insert(&mut self, inode: Inode) -> Result<u64, Errno> {
        if self.inodes.len() >= NODES_MAX {
            return Err(Errno::NOMEM);
        }
        self.last += 1;
        self.inodes.insert(self.last, inode);
        Ok(self.last)
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
