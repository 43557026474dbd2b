//! SPECIFICATION.md: every promise has its number, and what holds it is there.

use tdvisor_repository::{markdown, read, reference};

const NOT_YET_HELD: &str = "[not yet held]";

#[test]
fn every_promise_has_a_number_of_its_own_in_the_order_of_its_table() {
    let rows = markdown::rows(&read("SPECIFICATION.md")).unwrap();
    let mut last = String::new();
    let mut letters = Vec::new();
    for row in &rows {
        let number = row.cells.first().unwrap();
        let (letter, digits) = number.split_at(1);
        let digits: u32 =
            digits.parse().unwrap_or_else(|_| panic!("line {}: no number '{number}'", row.line));
        let expected = match last.split_at_checked(1) {
            Some((same, before)) if same == letter => before.parse::<u32>().unwrap() + 1,
            _ => {
                assert!(!letters.contains(&letter.to_owned()), "line {}: {letter} again", row.line);
                letters.push(letter.to_owned());
                1
            }
        };
        assert_eq!(digits, expected, "line {}: {number}", row.line);
        last.clone_from(number);
    }
    assert!(rows.len() >= 40, "only {} promises", rows.len());
}

#[test]
fn what_holds_each_promise_is_there() {
    let mut problems = Vec::new();
    for row in markdown::rows(&read("SPECIFICATION.md")).unwrap() {
        let [number, promise, holder] = row.cells.as_slice() else {
            panic!("line {}: not three columns", row.line)
        };
        match reference::check(holder) {
            Ok(0) if promise.contains(NOT_YET_HELD) => {}
            Ok(0) => problems.push(format!("{number}: nothing holds it, and it does not say {NOT_YET_HELD}")),
            Ok(_) => {}
            Err(problem) => problems.push(format!("{number}: {problem}")),
        }
    }
    assert!(problems.is_empty(), "SPECIFICATION.md:\n{}", problems.join("\n"));
}
