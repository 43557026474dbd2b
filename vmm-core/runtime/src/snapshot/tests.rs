//! What a snapshot keeps, and what is refused.

use std::fs;
use std::io::Cursor;

use phys_memory::KeySpace;
use tdvisor_base::{Hpa, KeyId, PAGE_SIZE, Pfn};

use super::*;

const KEYS: KeySpace = KeySpace { first_private: 4 };
const BYTES: u64 = 8 << 20;
const PRIVATE: KeyId = KeyId::new(5);

/// A byte at the beginning, a private page, a private page of zeros, and the last byte.
fn memory() -> Arena {
    let arena = Arena::new(BYTES, KEYS);
    arena.write(Hpa::new(0x1000), KeyId::DEFAULT, &[1, 2, 3]).unwrap();
    for (page, data) in [(0x300, 7u8), (0x301, 0)] {
        arena.clear_page(Pfn::new(page), PRIVATE).unwrap();
        arena.write(Pfn::new(page).base(), PRIVATE, &[data; 4096]).unwrap();
    }
    let last = Hpa::new(BYTES - 1);
    arena.clear_page(last.frame(), KeyId::new(2)).unwrap();
    arena.write(last, KeyId::new(2), &[9]).unwrap();
    arena
}

fn saved() -> Vec<u8> {
    let mut file = Vec::new();
    write(&mut file, Kind::Server, &"the state", &memory()).unwrap();
    file
}

fn open(file: &[u8]) -> Result<(String, Arena), SnapshotError> {
    let (state, rest) = Opened::<_, String>::new(Cursor::new(file), Kind::Server)?.into_parts();
    let arena = Arena::new(BYTES, KEYS);
    rest.fill(&arena)?;
    Ok((state, arena))
}

/// Whether two memories hold the same under the same keys.
fn are_equal(one: &Arena, other: &Arena) -> bool {
    let (mut bytes, mut same) = ([0; 4096], [0; 4096]);
    (0..BYTES / PAGE_SIZE).map(Pfn::new).all(|pfn| {
        let key = one.page_key(pfn).unwrap();
        one.read(pfn.base(), key, &mut bytes).unwrap();
        other.page_key(pfn) == Ok(key) && other.read(pfn.base(), key, &mut same).is_ok() && bytes == same
    })
}

#[test]
fn state_and_memory_come_back_with_the_keys_of_all_pages() {
    let (state, arena) = open(&saved()).unwrap();
    assert_eq!(state, "the state");
    assert!(are_equal(&memory(), &arena));
}

#[test]
fn memory_that_was_never_written_costs_nothing_in_the_file_and_afterwards() {
    let (_, arena) = open(&saved()).unwrap();
    assert!(arena.is_absent(Hpa::new(4 << 20)), "the third granule");
    assert!(saved().len() < 1000, "{} bytes", saved().len());
}

#[test]
fn a_file_with_any_byte_changed_or_cut_anywhere_is_refused() {
    let file = saved();
    for at in 0..file.len() {
        let mut damaged = file.clone();
        damaged[at] ^= 0x10;
        assert!(open(&damaged).is_err(), "byte {at} of {}", file.len());
        assert!(open(&file[..at]).is_err(), "cut at {at}");
    }
    let mut longer = file;
    longer.push(0);
    assert!(matches!(open(&longer), Err(SnapshotError::Damaged)));
}

#[test]
fn another_build_another_version_and_other_files_are_named_as_such() {
    let changed = |at: usize| {
        let mut file = saved();
        file[at] ^= 1;
        open(&file).map(|_| ())
    };
    assert!(matches!(changed(0), Err(SnapshotError::NotThisKind)));
    assert!(matches!(changed(8), Err(SnapshotError::Version(3))));
    assert!(matches!(changed(12), Err(SnapshotError::NotThisKind)));
    assert!(matches!(changed(16), Err(SnapshotError::OtherBuild)));
    assert!(matches!(open(b""), Err(SnapshotError::NotThisKind)));
}

#[test]
fn memory_that_the_machine_has_not_is_refused() {
    let file = saved();
    let (_, rest) = Opened::<_, String>::new(Cursor::new(&file[..]), Kind::Server).unwrap().into_parts();
    let smaller = Arena::new(BYTES / 2, KEYS);
    assert!(matches!(rest.fill(&smaller), Err(SnapshotError::Memory)));
}

#[test]
fn a_snapshots_file_is_its_owners_alone_and_takes_its_place_when_it_is_whole() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = std::env::temp_dir().join(format!("tdvisor-snapshot-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("server.snapshot");
    fs::write(&path, "older").unwrap();
    let bytes = write_file(&path, Kind::Server, &"the state", &memory()).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.permissions().mode() & 0o777, metadata.len()), (0o600, bytes));
    let opened = Opened::<_, String>::file(&path, Kind::Server).unwrap();
    assert_eq!(opened.state, "the state");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing else is left");
    fs::remove_dir_all(&folder).unwrap();
}
