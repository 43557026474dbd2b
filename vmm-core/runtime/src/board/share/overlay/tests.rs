//! A folder that the guest changes, and the host's that stays as it was.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use tdvisor_test_data::chance::Chance;

use super::super::tests::{Folders, Guest, INVALID, NO_ENTRY, ROOM, ROOT, message, u64_at};
use super::*;

const EXISTS: i32 = -17;
const NO_FOLDER: i32 = -20;
const A_FOLDER: i32 = -21;
const NO_SPACE: i32 = -28;
const NOT_EMPTY: i32 = -39;
/// When everything here happens.
const NOW: u64 = 1_600_000_000;
/// Where attributes have the time of change, the mode and the number of links.
const MODIFIED: usize = 32;
const MODE: usize = 60;

fn overlay(folders: &Folders) -> Guest<Overlay> {
    let clock = Box::new(|| UNIX_EPOCH + Duration::from_secs(NOW));
    Guest(Overlay::new(Folder::open(&folders.shared("")).unwrap(), clock))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn words(words: &[u32], text: &str) -> Vec<u8> {
    let mut body: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    body.extend(text.as_bytes());
    body
}

impl Guest<Overlay> {
    /// Makes a file and opens it: its node, and the handle.
    fn create(&mut self, parent: u64, name: &str) -> Result<(u64, u64), i32> {
        let answer =
            self.ask(operation::CREATE, parent, &words(&[2, 0o100_644, 0, 0], &format!("{name}\0")))?;
        Ok((u64_at(&answer, 0), u64_at(&answer, 128)))
    }

    fn make_folder(&mut self, parent: u64, name: &str) -> Result<u64, i32> {
        let answer = self.ask(operation::MKDIR, parent, &words(&[0o755, 0], &format!("{name}\0")))?;
        Ok(u64_at(&answer, 0))
    }

    fn write(&mut self, handle: u64, offset: u64, data: &[u8]) -> Result<u32, i32> {
        let numbers = [&handle.to_le_bytes()[..], &offset.to_le_bytes(), &(data.len() as u32).to_le_bytes()];
        let body = [&numbers.concat()[..], &[0; 20], data].concat();
        self.ask(operation::WRITE, 0, &body).map(|answer| u32_at(&answer, 0))
    }

    fn remove(&mut self, operation: u32, parent: u64, name: &str) -> Result<(), i32> {
        self.ask(operation, parent, format!("{name}\0").as_bytes()).map(drop)
    }

    fn rename(&mut self, from: (u64, &str), to: (u64, &str), flags: u32) -> Result<(), i32> {
        let names = format!("{}\0{}\0", from.1, to.1);
        let body = [&to.0.to_le_bytes()[..], &words(&[flags, 0], &names)].concat();
        self.ask(operation::RENAME2, from.0, &body).map(drop)
    }

    /// Asks to change what these bits name: size, mode.
    fn set(&mut self, node: u64, valid: u32, size: u64, mode: u32) -> Result<Vec<u8>, i32> {
        let mut body = words(&[valid, 0], "");
        for number in [0, size, 0, 0, 0, 0] {
            body.extend(u64::to_le_bytes(number));
        }
        body.extend(words(&[0, 0, 0, mode, 0, 7, 8, 0], ""));
        self.ask(operation::SETATTR, node, &body)
    }

    /// What is in a file, by a handle of its own.
    fn all(&mut self, parent: u64, name: &str) -> Result<Vec<u8>, i32> {
        let node = self.lookup(parent, name)?;
        let handle = self.open(operation::OPEN, node, 0)?;
        let data = self.read(handle, 0, 4096);
        self.close(handle);
        data
    }

    fn close(&mut self, handle: u64) {
        let body = [&handle.to_le_bytes()[..], &[0; 16]].concat();
        self.ask(operation::RELEASE, 0, &body).unwrap();
    }

    fn forget(&mut self, node: u64, times: u64) {
        assert_eq!(self.0.answer(&message(operation::FORGET, node, &times.to_le_bytes()), 0), None);
    }
}

#[test]
fn what_the_guest_writes_is_there_for_it_and_the_host_has_what_it_had() {
    let folders = Folders::new("overlay-write");
    let mut guest = overlay(&folders);
    let file = guest.lookup(ROOT, "file").unwrap();
    let handle = guest.open(operation::OPEN, file, 2).unwrap();
    assert_eq!(guest.write(handle, 3, b"p, and more"), Ok(11));
    assert_eq!(guest.read(handle, 0, 100).as_deref(), Ok(&b"help, and more"[..]));
    assert_eq!(guest.all(ROOT, "file").as_deref(), Ok(&b"help, and more"[..]));
    let found = guest.ask(operation::GETATTR, file, &[0; 16]).unwrap();
    assert_eq!((u64_at(&found, 16 + 8), u64_at(&found, 16 + MODIFIED)), (14, NOW));
    let sub = guest.lookup(ROOT, "sub").unwrap();
    let (_, new) = guest.create(sub, "new").unwrap();
    guest.write(new, 0, b"mine").unwrap();
    assert_eq!(guest.all(sub, "new").as_deref(), Ok(&b"mine"[..]));
    assert_eq!(guest.names(operation::READDIR, sub, 4096), [".", "..", "inner", "new"]);
    assert_eq!(guest.names(operation::READDIRPLUS, sub, 200), [".", "..", "inner", "new"]);
    assert_eq!(guest.create(sub, "inner"), Err(EXISTS));
    assert_eq!(fs::read(folders.shared("file")).unwrap(), b"hello");
    assert_eq!(fs::read_dir(folders.shared("sub")).unwrap().count(), 1);
}

#[test]
fn a_file_that_is_cut_off_and_grows_again_has_zeros_and_not_what_it_had() {
    let folders = Folders::new("overlay-size");
    let mut guest = overlay(&folders);
    let file = guest.lookup(ROOT, "file").unwrap();
    const SIZE: u32 = 8;
    guest.set(file, SIZE, 2, 0).unwrap();
    guest.set(file, SIZE, 4, 0).unwrap();
    assert_eq!(guest.all(ROOT, "file").as_deref(), Ok(&b"he\0\0"[..]));
    let handle = guest.open(operation::OPEN, file, 0o1001).unwrap();
    assert_eq!(guest.read(handle, 0, 10).as_deref(), Ok(&b""[..]), "opened to be empty");
    assert_eq!(guest.set(file, SIZE, u64::MAX, 0), Err(-27));
    assert_eq!(guest.set(ROOT, SIZE, 0, 0), Err(A_FOLDER));
}

#[test]
fn owner_and_mode_are_the_guests_and_the_kind_of_a_file_stays() {
    let folders = Folders::new("overlay-mode");
    fs::set_permissions(folders.shared("file"), fs::Permissions::from_mode(0o600)).unwrap();
    let mut guest = overlay(&folders);
    let file = guest.lookup(ROOT, "file").unwrap();
    let found = guest.set(file, 1 | 2 | 4, 0, 0o040_751).unwrap();
    assert_eq!(u32_at(&found, 16 + MODE), 0o100_751);
    assert_eq!((u32_at(&found, 16 + MODE + 8), u32_at(&found, 16 + MODE + 12)), (7, 8));
    let mode = fs::metadata(folders.shared("file")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn names_that_are_removed_are_gone_and_can_be_made_anew_as_something_else() {
    let folders = Folders::new("overlay-remove");
    let mut guest = overlay(&folders);
    assert_eq!(guest.remove(operation::RMDIR, ROOT, "sub"), Err(NOT_EMPTY));
    assert_eq!(guest.remove(operation::UNLINK, ROOT, "sub"), Err(A_FOLDER));
    assert_eq!(guest.remove(operation::RMDIR, ROOT, "file"), Err(NO_FOLDER));
    let sub = guest.lookup(ROOT, "sub").unwrap();
    guest.remove(operation::UNLINK, sub, "inner").unwrap();
    guest.remove(operation::RMDIR, ROOT, "sub").unwrap();
    assert_eq!(guest.lookup(ROOT, "sub"), Err(NO_ENTRY));
    assert_eq!(guest.names(operation::READDIR, ROOT, 4096), [".", "..", "file"]);
    assert_eq!(guest.create(sub, "late"), Err(NO_ENTRY), "a folder that was removed takes no files");
    // A folder of the same name has nothing of the host's.
    let sub = guest.make_folder(ROOT, "sub").unwrap();
    assert_eq!(guest.names(operation::READDIR, sub, 4096), [".", ".."]);
    assert_eq!(guest.lookup(sub, "inner"), Err(NO_ENTRY));
    assert!(folders.shared("sub/inner").exists());
}

#[test]
fn a_file_without_a_name_lives_for_as_long_as_it_is_open() {
    let folders = Folders::new("overlay-open");
    let mut guest = overlay(&folders);
    let (node, handle) = guest.create(ROOT, "temporary").unwrap();
    guest.write(handle, 0, b"still here").unwrap();
    guest.remove(operation::UNLINK, ROOT, "temporary").unwrap();
    assert_eq!(guest.lookup(ROOT, "temporary"), Err(NO_ENTRY));
    guest.forget(node, 1);
    assert_eq!(guest.read(handle, 0, 100).as_deref(), Ok(&b"still here"[..]));
    guest.close(handle);
    assert_eq!(guest.0.inodes.budget.left(), OVERLAY_BYTES_MAX, "nothing is left of it");
    assert_eq!(guest.0.inodes.count(), 1);
}

#[test]
fn what_is_renamed_keeps_what_is_in_it_and_a_folder_does_not_get_into_itself() {
    let folders = Folders::new("overlay-rename");
    let mut guest = overlay(&folders);
    guest.rename((ROOT, "sub"), (ROOT, "moved"), 0).unwrap();
    let moved = guest.lookup(ROOT, "moved").unwrap();
    assert_eq!(guest.all(moved, "inner").as_deref(), Ok(&b"inner"[..]), "the host's files come along");
    assert_eq!(guest.lookup(ROOT, "sub"), Err(NO_ENTRY));
    let deep = guest.make_folder(moved, "deep").unwrap();
    assert_eq!(guest.rename((ROOT, "moved"), (deep, "loop"), 0), Err(INVALID));
    assert_eq!(guest.rename((ROOT, "moved"), (ROOT, "file"), 0), Err(NO_FOLDER));
    assert_eq!(guest.rename((ROOT, "file"), (ROOT, "moved"), 0), Err(A_FOLDER));
    assert_eq!(guest.rename((ROOT, "file"), (moved, "inner"), 1), Err(EXISTS));
    assert_eq!(guest.rename((ROOT, "file"), (moved, "inner"), 2), Err(INVALID), "no exchange");
    guest.rename((ROOT, "file"), (moved, "inner"), 0).unwrap();
    assert_eq!(guest.all(moved, "inner").as_deref(), Ok(&b"hello"[..]));
    assert_eq!(guest.names(operation::READDIR, ROOT, 4096), [".", "..", "moved"]);
    assert!(folders.shared("file").exists() && folders.shared("sub/inner").exists());
}

#[test]
fn links_of_both_kinds_are_made_and_lead_nowhere_outside() {
    let folders = Folders::new("overlay-links");
    symlink("../secret", folders.shared("up")).unwrap();
    let mut guest = overlay(&folders);
    let file = guest.lookup(ROOT, "file").unwrap();
    let body = [&file.to_le_bytes()[..], b"second\0"].concat();
    guest.ask(operation::LINK, ROOT, &body).unwrap();
    let handle = guest.open(operation::OPEN, file, 1).unwrap();
    guest.write(handle, 0, b"J").unwrap();
    guest.remove(operation::UNLINK, ROOT, "file").unwrap();
    assert_eq!(guest.all(ROOT, "second").as_deref(), Ok(&b"Jello"[..]));
    guest.ask(operation::SYMLINK, ROOT, b"made\0../secret\0").unwrap();
    for name in ["up", "made"] {
        let node = guest.lookup(ROOT, name).unwrap();
        assert_eq!(guest.ask(operation::READLINK, node, b"").as_deref(), Ok(&b"../secret"[..]));
        assert!(guest.open(operation::OPEN, node, 0).is_err());
        assert!(guest.open(operation::OPENDIR, node, 0).is_err());
        assert!(guest.lookup(node, "x").is_err());
        assert!(guest.create(node, "x").is_err());
    }
    for name in ["..", ".", "", "a/b"] {
        assert_eq!(guest.create(ROOT, name), Err(INVALID), "{name:?}");
    }
}

#[test]
fn a_guest_that_writes_without_end_has_no_space_left() {
    let folders = Folders::new("overlay-space");
    let mut guest = overlay(&folders);
    guest.0.inodes = Inodes::new(Folder::open(&folders.shared("")).unwrap(), 1 << 20);
    let (_, handle) = guest.create(ROOT, "large").unwrap();
    let written = (0..).take_while(|step| guest.write(handle, step << 16, &[1; 1 << 16]).is_ok()).count();
    assert_eq!(written, 15, "a mebibyte, without what the file itself takes");
    assert_eq!(guest.write(handle, 1 << 40, b"x"), Err(NO_SPACE));
    guest.remove(operation::UNLINK, ROOT, "large").unwrap();
    let made = (0..).take_while(|number| guest.make_folder(ROOT, &number.to_string()).is_ok()).count();
    assert!(made < 1024, "names cost as well");
}

#[test]
fn messages_of_any_bytes_change_nothing_on_the_host_and_everything_comes_back() {
    let folders = Folders::new("overlay-any");
    let mut guest = overlay(&folders);
    let mut numbers = Chance::new(1);
    let mut chance = |below: u64| numbers.below(below);
    const NAMES: [&[u8]; 6] = [b"file\0", b"sub\0", b"inner\0", b"a\0", b"b\0", b"..\0"];
    const OPERATIONS: [u32; 24] =
        [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 27, 28, 29, 35, 42, 44, 45, 17];
    for _ in 0..60_000 {
        let mut body: Vec<u8> = Vec::new();
        for _ in 0..chance(6) {
            match chance(3) {
                0 => body.extend(chance(12).to_le_bytes()),
                1 => body.extend(NAMES[chance(6) as usize]),
                _ => body.extend((0..chance(12)).map(|_| chance(128) as u8)),
            }
        }
        let operation = OPERATIONS[chance(24) as usize];
        let room = chance(5000) as usize;
        let answer = guest.0.answer(&message(operation, chance(12), &body), room);
        assert!(answer.is_none_or(|answer| answer.len() <= room));
    }
    assert_eq!(fs::read(folders.shared("file")).unwrap(), b"hello");
    assert_eq!(fs::read(folders.shared("sub/inner")).unwrap(), b"inner");
    assert_eq!(fs::read_dir(folders.shared("")).unwrap().count(), 2);
    guest.0.reset();
    // The guest that comes next finds a tree whose names all can be looked up.
    for name in guest.names(operation::READDIRPLUS, ROOT, ROOM as u32) {
        if !matches!(&name[..], "." | "..") {
            assert!(guest.lookup(ROOT, &name).is_ok(), "{name}");
        }
    }
}
