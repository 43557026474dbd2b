//! A shared folder with an overlay, against a guest that changes it in every way, and beside a file system of this machine that is
//! changed in the same ways.
//!
//! A fixed number of rounds by default; `TDVISOR_FUZZ_SECONDS` makes each target run that long. A round that fails prints its
//! seed; `TDVISOR_FUZZ_SEED` runs that one alone.
//!
//! What holds in every round: the folder that is shared stays as it is; what succeeds and what fails is the same on both sides,
//! and so is the tree that comes out; messages of any bytes get answers for which there is room, or none.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use tdvisor_devices::virtio::fs::FileServer;
use tdvisor_runtime::board::share::Share;
use tdvisor_runtime::worker::StopFlag;
use tdvisor_test_data::chance::Chance;
use tdvisor_test_data::replay::{Replay, number};

/// Rounds of a target that is not timed.
const ROUNDS: u64 = 20;
/// Changes of a round.
const STEPS: u64 = 150;
const ROOM: usize = 1 << 17;
const ROOT: u64 = 1;
/// Names that everything here has.
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Operations of the FUSE protocol, by their codes.
mod operation {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const RELEASE: u32 = 18;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const CREATE: u32 = 35;
}

/// A path of one to three names.
fn any_path(chance: &mut Chance) -> PathBuf {
    (0..=chance.below(3)).map(|_| chance.pick(&NAMES)).collect()
}

/// Rounds until the time is over.
fn fuzz(name: &str, round: fn(&Folders, &mut Chance)) {
    let run = |seed| {
        let _replay = Replay(seed);
        let folders = Folders::new(&format!("{name}-{seed}"));
        let before = tree_of(&folders.shared);
        round(&folders, &mut Chance::new(seed));
        assert_eq!(tree_of(&folders.shared), before, "the host's folder is as it was");
    };
    if let Some(seed) = number("TDVISOR_FUZZ_SEED") {
        run(seed);
        return;
    }
    let seconds = number("TDVISOR_FUZZ_SECONDS");
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    // Other runs see other seeds where there is time for more.
    let first = if seconds.is_some() { u64::from(std::process::id()) << 32 } else { 0 };
    let mut rounds = 0;
    while end.map_or(rounds < ROUNDS, |end| Instant::now() < end) {
        run(first + rounds);
        rounds += 1;
    }
    println!("{name}: {rounds} rounds");
}

/// A folder that is shared, and one like it that is really changed.
struct Folders {
    all: PathBuf,
    shared: PathBuf,
    model: PathBuf,
}

impl Folders {
    fn new(name: &str) -> Self {
        let all = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("share-{name}"));
        let _ = fs::remove_dir_all(&all);
        let (shared, model) = (all.join("shared"), all.join("model"));
        for folder in [&shared, &model] {
            fs::create_dir_all(folder.join("a/b")).expect("a folder");
            fs::create_dir_all(folder.join("b")).expect("a folder");
            fs::write(folder.join("a/b/c"), "deep").expect("a file");
            fs::write(folder.join("a/a"), vec![7; 70_000]).expect("a file");
            fs::write(folder.join("c"), "hello").expect("a file");
        }
        Self { all, shared, model }
    }

    fn share(&self) -> Share {
        Share::overlay(&self.shared, || SystemTime::UNIX_EPOCH, StopFlag::default()).expect("a folder")
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.all);
    }
}

/// Paths, and what is in their files; `None` for folders.
type Tree = Vec<(PathBuf, Option<Vec<u8>>)>;

fn tree_of(folder: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(folder.join(&at)).expect("a folder") {
            let path = at.join(entry.expect("an entry").file_name());
            let whole = folder.join(&path);
            if whole.is_dir() {
                folders.push(path.clone());
                tree.push((path, None));
            } else {
                tree.push((path, Some(fs::read(whole).expect("a file"))));
            }
        }
    }
    tree.sort();
    tree
}

fn message(operation: u32, node: u64, body: &[u8]) -> Vec<u8> {
    let mut message = ((40 + body.len()) as u32).to_le_bytes().to_vec();
    message.extend(operation.to_le_bytes());
    message.extend(7u64.to_le_bytes());
    message.extend(node.to_le_bytes());
    message.extend([0; 16]);
    message.extend(body);
    message
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Numbers of 32 bits, and text with its NUL.
fn body(words: &[u32], texts: &[&str]) -> Vec<u8> {
    let mut body: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    for text in texts {
        body.extend(text.as_bytes());
        body.push(0);
    }
    body
}

/// A guest's kernel, which lets go of every name at once.
struct Guest(Share);

/// A change that was refused.
type Refused = i32;

impl Guest {
    fn ask(&mut self, operation: u32, node: u64, body: &[u8]) -> Result<Vec<u8>, Refused> {
        let answer = self.0.answer(&message(operation, node, body), ROOM).expect("an answer");
        match i32::from_le_bytes(answer[4..8].try_into().expect("four bytes")) {
            0 => Ok(answer[16..].to_vec()),
            error => Err(error),
        }
    }

    fn forget(&mut self, node: u64) {
        assert!(self.0.answer(&message(operation::FORGET, node, &1u64.to_le_bytes()), 0).is_none());
    }

    /// Does something with the node of a path, held meanwhile.
    fn at<T>(
        &mut self,
        path: &Path,
        act: impl FnOnce(&mut Self, u64) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let (mut node, mut held) = (ROOT, Vec::new());
        let mut found = Ok(());
        for name in path {
            let name = name.to_str().expect("text");
            match self.ask(operation::LOOKUP, node, &body(&[], &[name])) {
                Ok(entry) => {
                    node = u64_at(&entry, 0);
                    held.push(node);
                }
                Err(error) => {
                    found = Err(error);
                    break;
                }
            }
        }
        let result = found.and_then(|()| act(self, node));
        held.into_iter().rev().for_each(|node| self.forget(node));
        result
    }

    /// Does something with a name in a folder.
    fn name(
        &mut self,
        path: &Path,
        act: impl FnOnce(&mut Self, u64, &str) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        self.at(path.parent().expect("a folder"), |guest, folder| act(guest, folder, name))
    }

    fn open(&mut self, node: u64) -> Result<u64, Refused> {
        self.ask(operation::OPEN, node, &body(&[2, 0], &[])).map(|answer| u64_at(&answer, 0))
    }

    fn close(&mut self, operation: u32, handle: u64) {
        let body = [&handle.to_le_bytes()[..], &[0; 16]].concat();
        self.ask(operation, ROOT, &body).expect("what is open can be closed");
    }

    fn write(&mut self, handle: u64, offset: u64, data: &[u8]) -> Result<(), Refused> {
        let head = [&handle.to_le_bytes()[..], &offset.to_le_bytes(), &(data.len() as u32).to_le_bytes()];
        self.ask(operation::WRITE, ROOT, &[&head.concat()[..], &[0; 20], data].concat()).map(drop)
    }

    fn read(&mut self, operation: u32, handle: u64, offset: u64) -> Result<Vec<u8>, Refused> {
        let body = [&handle.to_le_bytes()[..], &offset.to_le_bytes(), &65536u32.to_le_bytes(), &[0; 20]];
        self.ask(operation, ROOT, &body.concat())
    }

    /// The tree as the guest sees it.
    fn tree(&mut self) -> Tree {
        let mut tree = Tree::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(at) = folders.pop() {
            let names = self.at(&at, |guest, node| {
                let opened = guest.ask(operation::OPENDIR, node, &body(&[0, 0], &[]))?;
                let handle = u64_at(&opened, 0);
                let listed = guest.read(operation::READDIR, handle, 0)?;
                guest.close(operation::RELEASEDIR, handle);
                let (mut names, mut rest) = (Vec::new(), &listed[..]);
                while !rest.is_empty() {
                    let length = u32::from_le_bytes(rest[16..20].try_into().expect("four bytes")) as usize;
                    names.push(String::from_utf8(rest[24..24 + length].to_vec()).expect("text"));
                    rest = &rest[(24 + length).next_multiple_of(8)..];
                }
                Ok(names)
            });
            for name in names.expect("a folder").into_iter().filter(|name| name != "." && name != "..") {
                let path = at.join(name);
                match self.at(&path, Self::contents) {
                    Ok(contents) => tree.push((path, Some(contents))),
                    Err(_) => {
                        folders.push(path.clone());
                        tree.push((path, None));
                    }
                }
            }
        }
        tree.sort();
        tree
    }

    fn contents(&mut self, node: u64) -> Result<Vec<u8>, Refused> {
        let handle = self.open(node)?;
        let mut contents = Vec::new();
        loop {
            let piece = self.read(operation::READ, handle, contents.len() as u64)?;
            if piece.is_empty() {
                break;
            }
            contents.extend(piece);
        }
        self.close(operation::RELEASE, handle);
        let found = self.ask(operation::GETATTR, node, &[0; 16])?;
        assert_eq!(u64_at(&found, 16 + 8), contents.len() as u64, "a file's size is what can be read");
        Ok(contents)
    }
}

/// Makes one change on both sides; whether each of them took it.
fn change(guest: &mut Guest, model: &Path, chance: &mut Chance) -> (&'static str, bool, bool) {
    let path = any_path(chance);
    let there = model.join(&path);
    match chance.below(8) {
        0 => {
            let made = guest.name(&path, |guest, folder, name| {
                let answer = guest.ask(operation::CREATE, folder, &body(&[2, 0o100_644, 0, 0], &[name]))?;
                guest.close(operation::RELEASE, u64_at(&answer, 128));
                guest.forget(u64_at(&answer, 0));
                Ok(())
            });
            ("create", made.is_ok(), fs::File::create_new(&there).is_ok())
        }
        1 => {
            let made = guest.name(&path, |guest, folder, name| {
                let answer = guest.ask(operation::MKDIR, folder, &body(&[0o755, 0], &[name]))?;
                guest.forget(u64_at(&answer, 0));
                Ok(())
            });
            ("mkdir", made.is_ok(), fs::create_dir(&there).is_ok())
        }
        2 => {
            let (at, length) = (chance.below(200_000), chance.below(3000));
            let data = vec![chance.byte(); length as usize];
            let written = guest.at(&path, |guest, node| {
                let handle = guest.open(node)?;
                let written = guest.write(handle, at, &data);
                guest.close(operation::RELEASE, handle);
                written
            });
            let model = fs::OpenOptions::new().write(true).open(&there).and_then(|mut file| {
                file.seek(SeekFrom::Start(at))?;
                file.write_all(&data)
            });
            ("write", written.is_ok(), model.is_ok())
        }
        3 => {
            const SIZE: u32 = 8;
            let size = chance.below(200_000);
            let mut asked = body(&[SIZE, 0, 0, 0], &[]);
            asked.extend(size.to_le_bytes());
            asked.extend([0; 64]);
            let cut = guest.at(&path, |guest, node| guest.ask(operation::SETATTR, node, &asked));
            let file = fs::OpenOptions::new().write(true).open(&there);
            ("truncate", cut.is_ok(), file.and_then(|file| file.set_len(size)).is_ok())
        }
        4 => {
            let removed = guest.name(&path, |guest, folder, name| {
                guest.ask(operation::UNLINK, folder, &body(&[], &[name])).map(drop)
            });
            ("unlink", removed.is_ok(), fs::remove_file(&there).is_ok())
        }
        5 => {
            let removed = guest.name(&path, |guest, folder, name| {
                guest.ask(operation::RMDIR, folder, &body(&[], &[name])).map(drop)
            });
            ("rmdir", removed.is_ok(), fs::remove_dir(&there).is_ok())
        }
        step => {
            let other = any_path(chance);
            let name = other.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
            let folder = other.parent().expect("a folder").to_path_buf();
            if step == 6 {
                let renamed = guest.name(&path, |guest, from, old| {
                    guest.at(&folder, |guest, to| {
                        let names = [&to.to_le_bytes()[..], &body(&[], &[old, &name])].concat();
                        guest.ask(operation::RENAME, from, &names).map(drop)
                    })
                });
                return ("rename", renamed.is_ok(), fs::rename(&there, model.join(&other)).is_ok());
            }
            let linked = guest.at(&path, |guest, file| {
                guest.at(&folder, |guest, to| {
                    let names = [&file.to_le_bytes()[..], &body(&[], &[&name])].concat();
                    let answer = guest.ask(operation::LINK, to, &names)?;
                    guest.forget(u64_at(&answer, 0));
                    Ok(())
                })
            });
            ("link", linked.is_ok(), fs::hard_link(&there, model.join(&other)).is_ok())
        }
    }
}

fn beside_a_file_system(folders: &Folders, chance: &mut Chance) {
    let mut guest = Guest(folders.share());
    for step in 0..STEPS {
        let (what, ours, theirs) = change(&mut guest, &folders.model, chance);
        assert_eq!(ours, theirs, "step {step}: {what} succeeds on one side only");
        if step % 50 == 0 {
            guest.0.reset();
        }
    }
    assert_eq!(guest.tree(), tree_of(&folders.model));
}

fn any_messages(folders: &Folders, chance: &mut Chance) {
    let mut share = folders.share();
    for _ in 0..STEPS * 20 {
        let mut body = Vec::new();
        for _ in 0..chance.below(6) {
            match chance.below(3) {
                0 => body.extend(chance.below(12).to_le_bytes()),
                1 => body.extend([chance.pick(&NAMES).as_bytes(), b"\0"].concat()),
                _ => body.extend((0..chance.below(24)).map(|_| chance.byte())),
            }
        }
        let mut bytes = message(chance.below(56) as u32, chance.below(12), &body);
        if chance.below(16) == 0 {
            let at = chance.index(bytes.len());
            bytes[at] = chance.byte();
        }
        let room = chance.index(5000);
        let answer = share.answer(&bytes, room);
        assert!(answer.is_none_or(|answer| answer.len() <= room), "an answer for which there is room");
    }
    // Whoever comes next finds a tree in which everything can be found.
    share.reset();
    Guest(share)
        .at(Path::new(""), |guest, root| guest.ask(operation::GETATTR, root, &[0; 16]))
        .expect("a root");
}

#[test]
fn a_folder_with_an_overlay_is_changed_as_a_file_system_is() {
    fuzz("beside", beside_a_file_system);
}

#[test]
fn a_folder_with_an_overlay_survives_any_guest() {
    fuzz("any", any_messages);
}
