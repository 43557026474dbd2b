//! The table of guests in the README, between two markers: a row for each guest, a column for each thing that one should do.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// What is asked of every guest.
pub const COLUMNS: [&str; 6] =
    ["/init", "SMP", "login", "quote verified", "RTMRs as predicted", "clean power-off"];
/// Debian's kernel without support for TDX.
pub const OLD_KERNEL: &str = "Debian 6.1, cloud kernel";
/// Debian stable's kernel.
pub const STABLE_CLOUD: &str = "Debian 6.12, cloud kernel";
/// The newest kernel of Debian's archive, as cloud images have it.
pub const NEWEST_CLOUD: &str = "Debian 7.3, cloud kernel";
/// The newest kernel of Debian's archive, with drivers for everything.
pub const NEWEST_GENERIC: &str = "Debian 7.3, generic kernel";
/// OVMF of Debian 12, with a kernel that the host hands over.
pub const OLD_FIRMWARE: &str = "OVMF 2022.11, kernel by fw_cfg";
/// Debian's newest build of OVMF for TDX, which enforces Secure Boot, with a kernel that the host hands over.
pub const NEWEST_FIRMWARE: &str = "OVMF 2026.08 for TDX (Secure Boot), kernel by fw_cfg";
/// Debian's newest build of OVMF for TDX, and a disk with a distribution's signed boot loaders.
pub const GRUB_DISK: &str = "OVMF 2026.08 for TDX (Secure Boot), disk with shim, GRUB and kernel";
/// OVMF of Debian 12 and a disk with a unified kernel image.
pub const UKI_DISK: &str = "OVMF 2022.11, disk with systemd-boot and a UKI";

const ROWS: [&str; 8] = [
    OLD_KERNEL,
    STABLE_CLOUD,
    NEWEST_CLOUD,
    NEWEST_GENERIC,
    OLD_FIRMWARE,
    NEWEST_FIRMWARE,
    GRUB_DISK,
    UKI_DISK,
];
const BEGIN: &str = "<!-- guests: begin -->\n";
const END: &str = "<!-- guests: end -->";
/// What a test did that holds.
pub const YES: &str = "yes";
/// What cannot be asked of a guest.
pub const NOTHING: &str = "–";
/// What no test has been made for, or none has been run.
const UNTRIED: &str = "not tried";

/// One test at a time writes.
static README: Mutex<()> = Mutex::new(());

fn path() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md"))
}

/// The table, as it stands in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Table(Vec<(String, Vec<String>)>);

impl Table {
    /// The part of the README between the markers, and what it says.
    fn read(readme: &str) -> (std::ops::Range<usize>, Self) {
        let begin = readme.find(BEGIN).expect("the README has the table's beginning") + BEGIN.len();
        let end = begin + readme[begin..].find(END).expect("the README has the table's end");
        let rows = readme[begin..end].lines().skip(2).map(|line| {
            let mut cells = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned());
            (cells.next().unwrap_or_default(), cells.collect())
        });
        (begin..end, Self(rows.collect()))
    }

    fn write(&self) -> String {
        let line = |first: &str, cells: &[&str]| format!("| {first} | {} |\n", cells.join(" | "));
        let mut text = line("guest", &COLUMNS);
        text += &format!("|{}\n", "---|".repeat(COLUMNS.len() + 1));
        for (row, cells) in &self.0 {
            text += &line(row, &cells.iter().map(String::as_str).collect::<Vec<_>>());
        }
        text
    }
}

/// What a test saw of a guest.
pub struct Cells {
    row: &'static str,
    seen: Vec<(&'static str, String)>,
}

impl Cells {
    /// Nothing yet.
    pub const fn of(row: &'static str) -> Self {
        Self { row, seen: Vec::new() }
    }

    /// What belongs into a column.
    pub fn saw(mut self, column: &'static str, cell: impl Into<String>) -> Self {
        self.seen.push((column, cell.into()));
        self
    }

    /// Compares with the README, or writes into it.
    #[track_caller]
    pub fn settle(self, console: &str) {
        let _alone = README.lock().unwrap_or_else(PoisonError::into_inner);
        let readme = std::fs::read_to_string(path()).expect("the README");
        let (range, table) = Table::read(&readme);
        let mut seen = table.clone();
        let row = seen.0.iter_mut().find(|(name, _)| name == self.row).expect("a row of the table");
        for (column, cell) in self.seen {
            let index = COLUMNS.iter().position(|other| *other == column).expect("a column of the table");
            row.1[index] = cell;
        }
        if std::env::var_os("TDVISOR_RECORD_GUESTS").is_some() {
            let text = [&readme[..range.start], &seen.write(), &readme[range.end..]].concat();
            std::fs::write(path(), text).expect("the README can be written");
            return;
        }
        // What the README leaves open may be anything that is no failure.
        let is_so =
            |(seen, said): (&String, &String)| seen == said || said == UNTRIED && !seen.starts_with("no");
        let rows = seen.0.iter().zip(&table.0);
        let agree = rows.into_iter().all(|(seen, said)| seen.1.iter().zip(&said.1).all(is_so));
        assert!(
            agree,
            "{}: it does\n{}and the README says\n{}{console}",
            self.row,
            seen.write(),
            table.write()
        );
    }
}

#[test]
fn the_readme_has_every_guest_and_no_cell_is_empty() {
    let readme = std::fs::read_to_string(path()).expect("the README");
    let (range, table) = Table::read(&readme);
    assert_eq!(table.0.iter().map(|(row, _)| row.as_str()).collect::<Vec<_>>(), ROWS);
    for (row, cells) in &table.0 {
        assert_eq!(cells.len(), COLUMNS.len(), "{row}");
        assert!(cells.iter().all(|cell| !cell.is_empty()), "{row}: {cells:?}");
    }
    assert_eq!(readme[range], table.write(), "as these tests would write it");
    assert!(readme.contains(&format!("`{UNTRIED}`")), "the README says what the words mean");
}
