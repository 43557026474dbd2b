//! What a file is, and what of that a guest asks to change.

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::protocol::Fields;

/// Seconds since 1970, and nanoseconds.
pub(super) type Time = (u64, u32);

/// A sector, in which what a file takes is counted.
const SECTOR_BYTES: u64 = 512;
const BLOCK_BYTES: u32 = 4096;
/// The bits of a mode that say who may do what; the others say what the file is.
const PERMISSIONS: u32 = 0o7777;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) size: u64,
    pub(super) blocks: u64,
    pub(super) modified: Time,
    pub(super) changed: Time,
    pub(super) mode: u32,
    pub(super) links: u32,
    pub(super) user: u32,
    pub(super) group: u32,
    pub(super) device: u32,
    pub(super) block_bytes: u32,
}

/// A time as the host has it. What was before 1970 is a negative number of seconds, in two's complement.
fn time(seconds: i64, nanoseconds: u64) -> Time {
    (seconds.cast_unsigned(), u32::try_from(nanoseconds).unwrap_or_default())
}

impl From<&Stat> for Attributes {
    fn from(stat: &Stat) -> Self {
        Self {
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            blocks: u64::try_from(stat.st_blocks).unwrap_or_default(),
            modified: time(stat.st_mtime, stat.st_mtime_nsec),
            changed: time(stat.st_ctime, stat.st_ctime_nsec),
            mode: stat.st_mode,
            links: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
            user: stat.st_uid,
            group: stat.st_gid,
            // What the protocol has room for.
            device: (stat.st_rdev & 0xffff_ffff) as u32,
            block_bytes: u32::try_from(stat.st_blksize).unwrap_or(BLOCK_BYTES),
        }
    }
}

impl Attributes {
    /// The attributes of an empty file that is made now.
    pub(super) const fn new(mode: u32, user: u32, group: u32, device: u32, now: Time) -> Self {
        Self {
            size: 0,
            blocks: 0,
            modified: now,
            changed: now,
            mode,
            links: 1,
            user,
            group,
            device,
            block_bytes: BLOCK_BYTES,
        }
    }

    pub(super) const fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    pub(super) const fn set_size(&mut self, size: u64) {
        self.size = size;
        self.blocks = size.div_ceil(SECTOR_BYTES);
    }

    /// Notes that the file was changed now.
    pub(super) const fn set_changed(&mut self, now: Time) {
        (self.modified, self.changed) = (now, now);
    }

    /// Takes over what was asked for, beside the size.
    pub(super) fn apply(&mut self, asked: &Change, now: Time) {
        if let Some(mode) = asked.mode {
            self.mode = self.mode & !PERMISSIONS | mode & PERMISSIONS;
        }
        self.user = asked.user.unwrap_or(self.user);
        self.group = asked.group.unwrap_or(self.group);
        match asked.modified {
            Some(Moment::At(time)) => self.modified = time,
            Some(Moment::Now) => self.modified = now,
            None => {}
        }
        self.changed = now;
    }
}

/// A time that a guest names, or leaves to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    At(Time),
    Now,
}

/// What a guest asks to change (`fuse_setattr_in`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    mode: Option<u32>,
    user: Option<u32>,
    group: Option<u32>,
    pub(super) size: Option<u64>,
    modified: Option<Moment>,
}

impl Change {
    /// The change that a message's fields ask for.
    pub(super) fn of(fields: &mut Fields<'_>) -> Result<Self, Errno> {
        const MODE: u32 = 1;
        const USER: u32 = 1 << 1;
        const GROUP: u32 = 1 << 2;
        const SIZE: u32 = 1 << 3;
        const MODIFIED: u32 = 1 << 5;
        const MODIFIED_NOW: u32 = 1 << 8;
        let (valid, _) = (fields.u32()?, fields.u32()?);
        let (_handle, size, _lock) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let (_accessed, seconds, _changed) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let (_, nanoseconds, _) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let (mode, _) = (fields.u32()?, fields.u32()?);
        let (user, group) = (fields.u32()?, fields.u32()?);
        let asked = |bit| valid & bit != 0;
        let modified = asked(MODIFIED).then_some(Moment::At((seconds, nanoseconds)));
        Ok(Self {
            mode: asked(MODE).then_some(mode),
            user: asked(USER).then_some(user),
            group: asked(GROUP).then_some(group),
            size: asked(SIZE).then_some(size),
            modified: if asked(MODIFIED_NOW) { Some(Moment::Now) } else { modified },
        })
    }
}
