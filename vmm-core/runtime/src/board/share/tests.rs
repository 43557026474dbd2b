//! The server as a guest's kernel sees it, and a folder of the host behind it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use tdvisor_test_data::chance::Chance;

use super::protocol::operation;
use super::server::HANDLES_MAX;
use super::*;

/// A folder of its own for one test, with another beside it that is nobody's business; removed at its end.
pub(super) struct Folders(PathBuf);

impl Folders {
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tdvisor-share-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("shared/sub")).unwrap();
        fs::write(path.join("secret"), "secret").unwrap();
        fs::write(path.join("shared/file"), "hello").unwrap();
        fs::write(path.join("shared/sub/inner"), "inner").unwrap();
        Self(path)
    }

    pub(super) fn shared(&self, name: &str) -> PathBuf {
        self.0.join("shared").join(name)
    }

    fn server(&self) -> Guest<Server> {
        Guest(Server::new(Folder::open(&self.0.join("shared")).unwrap()))
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A guest's kernel.
pub(super) struct Guest<A>(pub(super) A);

pub(super) const ROOT: u64 = 1;
pub(super) const ROOM: usize = 1 << 17;
/// Where the attributes of an entry are: behind node, generation and times of validity.
const ATTRIBUTES: usize = 40;

pub(super) const NO_ENTRY: i32 = -2;
pub(super) const INVALID: i32 = -22;
const LOOP: i32 = -40;
const READ_ONLY: i32 = -30;
const BAD_HANDLE: i32 = -9;

pub(super) fn message(operation: u32, node: u64, body: &[u8]) -> Vec<u8> {
    let mut message = ((40 + body.len()) as u32).to_le_bytes().to_vec();
    message.extend(operation.to_le_bytes());
    message.extend(7u64.to_le_bytes());
    message.extend(node.to_le_bytes());
    message.extend([0; 16]);
    message.extend(body);
    message
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

impl<A: Answers> Guest<A> {
    /// The body of an answer, or its error.
    fn ask_with(&mut self, operation: u32, node: u64, body: &[u8], room: usize) -> Result<Vec<u8>, i32> {
        let answer = self.0.answer(&message(operation, node, body), room).expect("an answer");
        assert_eq!(u32::from_le_bytes(answer[..4].try_into().unwrap()) as usize, answer.len());
        assert_eq!(u64_at(&answer, 8), 7, "the message's number");
        match i32::from_le_bytes(answer[4..8].try_into().unwrap()) {
            0 => Ok(answer[16..].to_vec()),
            error => Err(error),
        }
    }

    pub(super) fn ask(&mut self, operation: u32, node: u64, body: &[u8]) -> Result<Vec<u8>, i32> {
        self.ask_with(operation, node, body, ROOM)
    }

    pub(super) fn lookup(&mut self, parent: u64, name: &str) -> Result<u64, i32> {
        let entry = self.ask(operation::LOOKUP, parent, format!("{name}\0").as_bytes())?;
        assert_eq!(entry.len(), 128);
        assert_eq!(u64_at(&entry, 0), u64_at(&entry, ATTRIBUTES), "a file's number is its node");
        Ok(u64_at(&entry, 0))
    }

    pub(super) fn open(&mut self, operation: u32, node: u64, flags: u32) -> Result<u64, i32> {
        let open = [flags.to_le_bytes(), [0; 4]].concat();
        self.ask(operation, node, &open).map(|answer| u64_at(&answer, 0))
    }

    pub(super) fn read(&mut self, handle: u64, offset: u64, size: u32) -> Result<Vec<u8>, i32> {
        self.read_with(operation::READ, 0, handle, offset, size)
    }

    fn read_with(
        &mut self,
        operation: u32,
        node: u64,
        handle: u64,
        offset: u64,
        size: u32,
    ) -> Result<Vec<u8>, i32> {
        let body = [&handle.to_le_bytes()[..], &offset.to_le_bytes(), &size.to_le_bytes(), &[0; 20]].concat();
        self.ask(operation, node, &body)
    }

    /// Names of a folder, read in pieces of this size.
    pub(super) fn names(&mut self, operation: u32, node: u64, size: u32) -> Vec<String> {
        let handle = self.open(operation::OPENDIR, node, 0).unwrap();
        let (mut names, mut offset) = (Vec::new(), 0);
        let start = if operation == operation::READDIRPLUS { 128 } else { 0 };
        loop {
            let piece = self.read_with(operation, node, handle, offset, size).unwrap();
            assert!(piece.len() <= size as usize);
            if piece.is_empty() {
                self.ask(operation::RELEASEDIR, node, &[&handle.to_le_bytes()[..], &[0; 16]].concat())
                    .unwrap();
                return names;
            }
            let mut rest = &piece[..];
            while !rest.is_empty() {
                let entry = &rest[start..];
                offset = u64_at(entry, 8);
                let length = u32::from_le_bytes(entry[16..20].try_into().unwrap()) as usize;
                names.push(String::from_utf8(entry[24..24 + length].to_vec()).unwrap());
                rest = &rest[start + (24 + length).next_multiple_of(8)..];
            }
        }
    }
}

#[test]
fn a_guest_and_the_server_agree_on_a_version() {
    let folders = Folders::new("init");
    let mut guest = folders.server();
    let init = |major: u32| [major.to_le_bytes(), 99u32.to_le_bytes(), [0, 0, 2, 0], [0xff; 4]].concat();
    let answer = guest.ask(operation::INIT, 0, &init(7)).unwrap();
    assert_eq!(answer.len(), 64);
    assert_eq!((u64_at(&answer, 0), u64_at(&answer, 8) as u32), (31 << 32 | 7, 0x2_0000));
    let flags = (u64_at(&answer, 8) >> 32) as u32;
    assert_eq!(flags, 1 | 1 << 13 | 1 << 14 | 1 << 18 | 1 << 22);
    assert_eq!(guest.ask(operation::INIT, 0, &init(6)), Err(-71));
    assert!(guest.ask(operation::INIT, 0, &init(8)).is_ok(), "a newer guest asks again");
    assert_eq!(guest.ask(operation::INIT, 0, &init(7)[..12]), Err(INVALID));
}

#[test]
fn files_are_found_and_read_at_any_offset() {
    let folders = Folders::new("read");
    let mut guest = folders.server();
    let sub = guest.lookup(ROOT, "sub").unwrap();
    let inner = guest.lookup(sub, "inner").unwrap();
    assert_eq!(guest.lookup(sub, "inner"), Ok(inner), "a name keeps its node");
    let attributes = guest.ask(operation::GETATTR, inner, &[0; 16]).unwrap();
    assert_eq!((attributes.len(), u64_at(&attributes, 24)), (104, 5), "its size");
    let handle = guest.open(operation::OPEN, inner, 0).unwrap();
    assert_eq!(guest.read(handle, 0, 4096).as_deref(), Ok(&b"inner"[..]));
    assert_eq!(guest.read(handle, 3, 1).as_deref(), Ok(&b"e"[..]));
    assert_eq!(guest.read(handle, 5, 4096).as_deref(), Ok(&b""[..]));
    assert!(guest.read(handle, u64::MAX, 4096).is_err());
    assert_eq!(guest.read(handle + 1, 0, 1), Err(BAD_HANDLE));
    guest.ask(operation::RELEASE, inner, &[&handle.to_le_bytes()[..], &[0; 16]].concat()).unwrap();
    assert_eq!(guest.read(handle, 0, 1), Err(BAD_HANDLE));
    assert_eq!(guest.lookup(ROOT, "absent"), Err(NO_ENTRY));
    assert_eq!(guest.lookup(inner, "absent"), Err(-20), "a file has no files");
    assert!(guest.ask(operation::STATFS, ROOT, b"").unwrap().len() == 80);
}

#[test]
fn no_name_and_no_link_leads_out_of_the_folder() {
    let folders = Folders::new("escape");
    symlink("../secret", folders.shared("up")).unwrap();
    symlink(folders.0.join("secret"), folders.shared("absolute")).unwrap();
    symlink("..", folders.shared("above")).unwrap();
    symlink("sub", folders.shared("inside")).unwrap();
    let mut guest = folders.server();
    for name in ["..", ".", "", "../secret", "sub/../../secret", "sub/inner", "/etc/passwd"] {
        assert_eq!(guest.lookup(ROOT, name), Err(INVALID), "{name:?}");
    }
    for (link, target) in [("up", "../secret"), ("above", "..")] {
        let node = guest.lookup(ROOT, link).unwrap();
        assert_eq!(guest.ask(operation::READLINK, node, b"").as_deref(), Ok(target.as_bytes()));
        assert!(guest.open(operation::OPEN, node, 0).is_err(), "{link}");
    }
    // Even a link that stays inside is the guest's to follow: it may be another one by now.
    for link in ["above", "inside", "absolute"] {
        let node = guest.lookup(ROOT, link).unwrap();
        for name in ["secret", "inner"] {
            assert!(matches!(guest.lookup(node, name), Err(LOOP | -20)), "{link}/{name}");
        }
        assert!(guest.open(operation::OPENDIR, node, 0).is_err(), "{link}");
    }
    // A folder that becomes a link under a guest that holds it.
    let sub = guest.lookup(ROOT, "sub").unwrap();
    fs::rename(folders.shared("sub"), folders.0.join("moved")).unwrap();
    symlink("..", folders.shared("sub")).unwrap();
    assert!(guest.lookup(sub, "secret").is_err());
    let file = guest.lookup(ROOT, "file").unwrap();
    assert_eq!(guest.ask(operation::READLINK, file, b""), Err(INVALID), "no link");
}

#[test]
fn folders_are_listed_whole_in_pieces_of_any_size() {
    let folders = Folders::new("list");
    for number in 0..200 {
        fs::write(folders.shared(&format!("sub/n{number:03}")), "").unwrap();
    }
    let mut guest = folders.server();
    let sub = guest.lookup(ROOT, "sub").unwrap();
    let mut expected = vec![".".to_owned(), "..".to_owned(), "inner".to_owned()];
    expected.extend((0..200).map(|number| format!("n{number:03}")));
    for size in [160, 1000, 65536] {
        for operation in [operation::READDIR, operation::READDIRPLUS] {
            assert_eq!(guest.names(operation, sub, size), expected, "{size} bytes at a time");
        }
    }
    assert_eq!(guest.0.names(), 202, "the folder, and each name in it");
}

#[test]
fn what_the_guest_forgets_is_forgotten() {
    let folders = Folders::new("forget");
    let mut guest = folders.server();
    let file = guest.lookup(ROOT, "file").unwrap();
    assert_eq!(guest.lookup(ROOT, "file"), Ok(file));
    let sub = guest.lookup(ROOT, "sub").unwrap();
    assert_eq!(guest.0.answer(&message(operation::FORGET, file, &1u64.to_le_bytes()), 0), None);
    assert_eq!(guest.0.names(), 2, "it was held twice");
    let both = [
        [2u64.to_le_bytes(), file.to_le_bytes(), 1u64.to_le_bytes()].concat(),
        [sub, u64::MAX].map(u64::to_le_bytes).concat(),
    ];
    assert_eq!(guest.0.answer(&message(operation::BATCH_FORGET, 0, &both.concat()), 0), None);
    assert_eq!(guest.0.names(), 0);
    assert_eq!(guest.ask(operation::GETATTR, file, &[0; 16]), Err(-116), "it is stale");
    assert!(guest.ask(operation::GETATTR, ROOT, &[0; 16]).is_ok(), "the folder itself always is");
}

#[test]
fn nothing_is_written() {
    let folders = Folders::new("write");
    let mut guest = folders.server();
    let file = guest.lookup(ROOT, "file").unwrap();
    for flags in [1, 2, 0o1000, 0o1002] {
        assert_eq!(guest.open(operation::OPEN, file, flags), Err(READ_ONLY), "{flags:o}");
    }
    for operation in [4, 6, 8, 9, 10, 11, 12, 13, 16, 21, 24, 35, 43, 45, 47, 51] {
        assert_eq!(guest.ask(operation, file, &[0; 128]), Err(READ_ONLY), "operation {operation}");
    }
    assert_eq!(guest.ask(operation::ACCESS, file, &2u64.to_le_bytes()), Err(READ_ONLY));
    assert_eq!(guest.ask(operation::ACCESS, file, &4u64.to_le_bytes()), Ok(Vec::new()));
    assert_eq!(fs::read(folders.shared("file")).unwrap(), b"hello");
}

#[test]
fn a_pipe_or_a_socket_is_seen_and_not_opened() {
    let folders = Folders::new("pipe");
    let _socket = std::os::unix::net::UnixListener::bind(folders.shared("socket")).unwrap();
    let mut guest = folders.server();
    let socket = guest.lookup(ROOT, "socket").unwrap();
    assert_eq!(guest.open(operation::OPEN, socket, 0), Err(-13));
}

#[test]
fn a_guest_cannot_hold_more_open_than_it_may() {
    let folders = Folders::new("handles");
    let mut guest = folders.server();
    let sub = guest.lookup(ROOT, "sub").unwrap();
    for _ in 0..HANDLES_MAX {
        guest.open(operation::OPENDIR, sub, 0).unwrap();
    }
    assert_eq!(guest.open(operation::OPENDIR, sub, 0), Err(-23));
    guest.0.reset();
    assert!(guest.open(operation::OPENDIR, ROOT, 0).is_ok());
}

#[test]
fn an_answer_never_has_more_bytes_than_there_is_room_for() {
    let folders = Folders::new("room");
    let mut guest = folders.server();
    let file = guest.lookup(ROOT, "file").unwrap();
    let handle = guest.open(operation::OPEN, file, 0).unwrap();
    let read = [&handle.to_le_bytes()[..], &0u64.to_le_bytes(), &4096u32.to_le_bytes(), &[0; 20]].concat();
    assert_eq!(guest.ask_with(operation::READ, file, &read, 18).as_deref(), Ok(&b"he"[..]));
    assert_eq!(guest.0.answer(&message(operation::GETATTR, file, &[0; 16]), 100), None);
    assert_eq!(guest.0.answer(b"short", 4096), None);
    let mut wrong = message(operation::GETATTR, file, &[0; 16]);
    wrong[0] += 1;
    assert_eq!(guest.0.answer(&wrong, 4096), None, "its length is not that of the message");
}

#[test]
fn messages_of_any_bytes_end_nothing_and_change_nothing() {
    let folders = Folders::new("any");
    let mut guest = folders.server();
    let mut chance = Chance::new(1);
    for _ in 0..50_000 {
        let body: Vec<u8> =
            (0..chance.below(64)).map(|_| if chance.one_in(2) { 0 } else { chance.byte() }).collect();
        let mut message = message(chance.below(60) as u32, chance.below(4), &body);
        if chance.one_in(8) {
            let at = chance.index(message.len());
            message[at] = chance.byte();
        }
        let room = chance.index(5000);
        let answer = guest.0.answer(&message, room);
        assert!(answer.is_none_or(|answer| answer.len() <= room));
    }
    assert_eq!(fs::read(folders.shared("file")).unwrap(), b"hello");
    assert_eq!(fs::read_dir(folders.shared("")).unwrap().count(), 2);
}

#[test]
fn a_share_is_a_folder() {
    let folders = Folders::new("folder");
    for path in [folders.shared("file"), folders.shared("absent")] {
        assert!(Share::read_only(&path, StopFlag::default()).is_err(), "{}", path.display());
    }
    let mut share = Share::read_only(&folders.shared(""), StopFlag::default()).unwrap();
    let answer = share.answer(&message(operation::LOOKUP, ROOT, b"file\0"), ROOM).unwrap();
    assert_eq!(answer.len(), 144);
    let stop = StopFlag::default();
    let mut share = Share::read_only(&folders.shared(""), stop.clone()).unwrap();
    stop.set();
    // Whether the thread is faster than the flag or not: there is an answer, and nobody waits.
    assert!(share.answer(&message(operation::LOOKUP, ROOT, b"file\0"), ROOM).is_some());
    assert_eq!(share.answer(&message(operation::FORGET, 2, &1u64.to_le_bytes()), 0), None);
}
