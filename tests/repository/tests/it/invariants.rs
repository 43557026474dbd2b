//! INVARIANTS.md: every invariant has its number, a sentence, an owner and tests that exist; every test that is named
//! after an invariant stands in its row; whoever cites a number cites one that is there.

use std::collections::{BTreeMap, BTreeSet};

use tdvisor_repository::markdown::{self, Row, code_spans};
use tdvisor_repository::{files, read, reference, root};

/// The last of the numbers; 1 to this one are all given.
const LAST: u32 = 65;

fn rows() -> Vec<Row> {
    let rows = markdown::rows(&read("INVARIANTS.md")).unwrap();
    for row in &rows {
        assert!(row.cells.len() == 4 && row.cells.iter().all(|cell| !cell.is_empty()), "line {}", row.line);
    }
    rows
}

/// `26c` as a number and what is behind it, for the order of the table.
fn parts(number: &str) -> (u32, &str) {
    let digits = number.trim_end_matches(|c: char| c.is_ascii_lowercase());
    (digits.parse().unwrap_or_else(|_| panic!("no number: '{number}'")), &number[digits.len()..])
}

#[test]
fn the_numbers_from_1_on_are_all_there_once_and_in_order() {
    let rows = rows();
    let numbers: Vec<_> = rows.iter().map(|row| parts(&row.cells[0])).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    let whole: BTreeSet<u32> = numbers.iter().map(|(number, _)| *number).collect();
    assert_eq!(whole, (1..=LAST).collect());
}

/// Whether a cell names a test that `cargo test` runs; models are built on their own.
fn has_ordinary_test(cell: &str) -> bool {
    let files = code_spans(cell).filter_map(|span| span.split_once("::")).map(|(file, _)| file);
    files
        .filter(|file| !file.is_empty())
        .any(|file| !file.ends_with("loom.rs") && !file.ends_with("shuttle.rs"))
}

#[test]
fn what_enforces_and_what_tests_each_invariant_is_there() {
    let mut problems = Vec::new();
    for row in rows() {
        let number = &row.cells[0];
        match reference::check(&row.cells[3]) {
            Ok(0) => problems.push(format!("{number}: no test")),
            Ok(_) if !has_ordinary_test(&row.cells[3]) => {
                problems.push(format!("{number}: explored by models only"));
            }
            Ok(_) => {}
            Err(problem) => problems.push(format!("{number}: {problem}")),
        }
    }
    assert!(problems.is_empty(), "INVARIANTS.md:\n{}", problems.join("\n"));
}

/// Every `fn inv_NUMBER_…` of the workspace.
fn named_tests() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for path in files(&root(), "rs") {
        let source = std::fs::read_to_string(&path).unwrap();
        let names = source.lines().filter_map(|line| line.trim().strip_prefix("fn inv_"));
        found.extend(names.filter_map(|rest| {
            let name = format!("inv_{}", rest.split(['(', '<']).next()?);
            let number = rest.split('_').next()?.trim_start_matches('0').to_owned();
            Some((number, name))
        }));
    }
    assert!(found.len() > 80, "only {} tests are named after an invariant", found.len());
    found
}

#[test]
fn every_test_that_is_named_after_an_invariant_stands_in_its_row() {
    let rows: BTreeMap<String, String> =
        rows().into_iter().map(|row| (row.cells[0].clone(), row.cells[3].clone())).collect();
    for (number, name) in named_tests() {
        // A part of an invariant that has no row of its own, as 27d, stands in that of the whole.
        let row = rows.get(&number).or_else(|| rows.get(&parts(&number).0.to_string()));
        let row = row.unwrap_or_else(|| panic!("{name}: no invariant {number}"));
        assert!(
            code_spans(row).any(|span| span.ends_with(&format!("::{name}"))),
            "{name} does not stand in row {number} of INVARIANTS.md"
        );
    }
}

#[test]
fn every_citation_is_of_an_invariant_that_exists() {
    let known: BTreeSet<String> = rows().into_iter().map(|row| row.cells[0].clone()).collect();
    let mut cited = 0;
    for path in files(&root(), "rs").into_iter().chain(files(&root(), "md")) {
        let text = std::fs::read_to_string(&path).unwrap().to_lowercase();
        for place in text.match_indices("invariant").map(|(at, word)| &text[at + word.len()..]) {
            let list = place.strip_prefix("s ").or_else(|| place.strip_prefix(' ')).unwrap_or_default();
            for number in list.split([',', ' ']).filter(|word| !word.is_empty() && *word != "and") {
                let number: String = number.chars().take_while(char::is_ascii_alphanumeric).collect();
                if !number.starts_with(|c: char| c.is_ascii_digit()) {
                    break;
                }
                cited += 1;
                assert!(known.contains(&number), "{}: invariant {number}", path.display());
                if !place.starts_with('s') {
                    break;
                }
            }
        }
    }
    assert!(cited > 20, "only {cited} citations were found");
}

#[test]
fn facts_are_cited_from_documents_that_anybody_can_read() {
    // Cut in two, so that this file does not cite them.
    let private = ["structures", "leaves", "status"].map(|name| format!("{name} {}", "reference"));
    for path in files(&root(), "rs").into_iter().chain(files(&root(), "md")) {
        let text = std::fs::read_to_string(&path).unwrap();
        for name in &private {
            assert!(!text.contains(name), "{}: '{name}' is in nobody's hands", path.display());
        }
    }
}
