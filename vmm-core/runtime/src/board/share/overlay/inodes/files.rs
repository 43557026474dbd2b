//! What is in files.

use std::fs::File;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::super::super::attributes::Time;
use super::super::super::folder::read_at;
use super::super::contents::{Budget, Contents};
use super::{Inode, Inodes};

impl Inodes {
    fn must_be_file(&self, number: u64) -> Result<(), Errno> {
        match self.kind(number)? {
            FileType::RegularFile => Ok(()),
            FileType::Directory => Err(Errno::ISDIR),
            _ => Err(Errno::ACCESS),
        }
    }

    /// The host's file below an inode, where that has a part in what is read.
    fn lower_file(&self, inode: &Inode) -> Result<Option<File>, Errno> {
        let counts = inode.contents.as_ref().is_none_or(Contents::needs_lower);
        let lower: Option<&std::path::Path> = inode.lower.as_deref().filter(|_| counts);
        lower.map(|lower| self.folder.open_file(lower)).transpose()
    }

    /// A file is opened: it has to be one, and has to be there.
    pub(in super::super) fn open(&mut self, number: u64) -> Result<(), Errno> {
        self.must_be_file(number)?;
        self.lower_file(self.inode(number)?)?;
        let inode = self.inode_mut(number)?;
        inode.opened = inode.opened.saturating_add(1);
        Ok(())
    }

    /// A file is closed.
    pub(in super::super) fn close(&mut self, number: u64) {
        if let Some(inode) = self.inodes.get_mut(&number) {
            inode.opened = inode.opened.saturating_sub(1);
        }
        self.drop_unused(number);
    }

    /// Reads a file.
    pub(in super::super) fn read(&self, number: u64, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
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
        change: impl FnOnce(&mut Contents, Option<&File>, &mut Budget) -> Result<(), Errno>,
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
    pub(in super::super) fn write(
        &mut self,
        number: u64,
        offset: u64,
        data: &[u8],
        now: Time,
    ) -> Result<(), Errno> {
        self.rewrite(number, now, |contents, lower, budget| contents.write(lower, offset, data, budget))
    }

    /// Cuts a file off, or lets it grow.
    pub(in super::super) fn resize(&mut self, number: u64, size: u64, now: Time) -> Result<(), Errno> {
        self.rewrite(number, now, |contents, _, budget| contents.resize(size, budget))
    }
}
