//! ARCHITECTURE.md: each crate is drawn once, on a floor that none of its dependencies is above; each change has one place, and
//! the files that the page names are there.

use std::collections::{BTreeMap, BTreeSet};

use tdvisor_repository::markdown::{self, code_spans};
use tdvisor_repository::{read, root};
use toml::Table;

/// The rooms of the drawing in their order; those below the blank line stand beside the floors.
fn rooms(text: &str) -> Vec<(String, Option<u32>)> {
    let drawing = text.split("```\n").nth(1).unwrap();
    let (mut floor, mut rooms) = (None, Vec::new());
    for line in drawing.lines() {
        if line.is_empty() {
            floor = None;
        }
        // A floor's number or blanks, then the room; what a room is goes on further right.
        let Some((number, rest)) = line.split_at_checked(3) else { continue };
        floor = number.trim().parse().ok().or(floor);
        let room =
            rest.split_whitespace().next().filter(|_| rest.starts_with(|c: char| c.is_ascii_lowercase()));
        rooms.extend(room.map(|room| (room.to_owned(), floor)));
    }
    rooms
}

fn manifest(folder: &str) -> Table {
    read(format!("{folder}/Cargo.toml")).parse().unwrap()
}

/// The folder of each crate of the workspace, by the crate's name.
fn members() -> BTreeMap<String, String> {
    let workspace: Table = read("Cargo.toml").parse().unwrap();
    let members = workspace["workspace"]["members"].as_array().unwrap();
    let folders = members.iter().map(|member| member.as_str().unwrap().to_owned());
    folders
        .map(|folder| (manifest(&folder)["package"]["name"].as_str().unwrap().to_owned(), folder))
        .collect()
}

/// The room that a folder is, or is a part of.
fn room_of<'r>(rooms: &'r BTreeMap<String, Option<u32>>, folder: &str) -> Option<&'r Option<u32>> {
    let parts = folder.match_indices('/').map(|(at, _)| at).chain([folder.len()]);
    parts.filter_map(|end| rooms.get(&folder[..end])).next_back()
}

#[test]
fn every_crate_is_drawn_once_and_depends_on_nothing_above_it() {
    let drawn = rooms(&read("ARCHITECTURE.md"));
    let rooms: BTreeMap<_, _> = drawn.iter().cloned().collect();
    assert_eq!(rooms.len(), drawn.len(), "a room is drawn twice: {drawn:?}");
    for (room, _) in &drawn {
        assert!(root().join(room).is_dir(), "there is no {room}");
    }
    let members = members();
    let mut arrows = 0;
    for folder in members.values() {
        let floor = room_of(&rooms, folder).unwrap_or_else(|| panic!("{folder} is not drawn"));
        let manifest = manifest(folder);
        let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table);
        for below in dependencies.into_iter().flat_map(Table::keys).filter_map(|name| members.get(name)) {
            let (Some(floor), Some(Some(other))) = (floor, room_of(&rooms, below)) else { continue };
            assert!(other <= floor, "{folder} on floor {floor} depends on {below} on floor {other}");
            arrows += 1;
        }
    }
    assert!(arrows > 50, "only {arrows} dependencies were looked at");
}

/// The paths that a span stands for: `a/{b,c}/d` is two.
fn paths(span: &str) -> Vec<String> {
    let Some((before, (inside, after))) =
        span.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
    else {
        return vec![span.to_owned()];
    };
    inside.split(',').flat_map(|one| paths(&format!("{before}{one}{after}"))).collect()
}

#[test]
fn every_change_has_one_place_which_is_there() {
    const TOPS: [&str; 11] = [
        "attest/",
        "base/",
        "mirror-ept/",
        "scripts/",
        "td-image/",
        "tdx-emu/",
        "tdx-module-iface/",
        "tests/",
        "tools/",
        "vmm-core/",
        "x86-arch/",
    ];
    let rows = markdown::rows(&read("ARCHITECTURE.md")).unwrap();
    let mut changes = BTreeSet::new();
    let mut checked = 0;
    for row in &rows {
        assert!(changes.insert(&row.cells[0]), "line {}: '{}' has a row already", row.line, row.cells[0]);
        for path in row.cells.iter().flat_map(|cell| code_spans(cell)).flat_map(paths) {
            if TOPS.iter().any(|top| path.starts_with(top)) {
                assert!(root().join(&path).exists(), "line {}: there is no {path}", row.line);
                checked += 1;
            }
        }
    }
    assert!(checked > 50, "only {checked} paths were looked at");
}
