//! What a merge that took both sides leaves in the repository's papers: a row or a line of prose that stands there twice, or two
//! items of a list that begin alike.

use std::collections::BTreeMap;

use tdvisor_repository::{files, markdown, root};

/// Shorter lines may well be said twice: heads, parts of lists.
const SHORTEST: usize = 40;
/// Characters of an item of a list by which it is told from the others.
const BEGINNING: usize = 64;

/// Lines of prose with their numbers: no tables, no blocks of code.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    let lines = (1..).zip(text.lines().map(str::trim));
    lines.filter(move |(_, line)| {
        in_code ^= line.starts_with("```");
        !in_code && !line.starts_with('|') && line.len() >= SHORTEST
    })
}

/// What a line of prose is told from others by: all of it, or the beginning of an item of a list.
fn told_by(line: &str) -> String {
    line.chars().take(if line.starts_with("- ") { BEGINNING } else { usize::MAX }).collect()
}

/// Of each line that stands in the text twice, where it does.
fn repeated(text: &str) -> Vec<String> {
    let rows = markdown::rows(text).unwrap_or_default();
    let rows = rows.into_iter().map(|row| (row.line, row.cells.join(" | ")));
    let prose = prose(text).map(|(number, line)| (number, told_by(line)));
    let mut seen = BTreeMap::new();
    let all = rows.chain(prose).filter_map(|(number, line)| {
        let first = *seen.entry(line.clone()).or_insert(number);
        (first != number).then(|| format!("lines {first} and {number}: {line}"))
    });
    all.collect()
}

#[test]
fn a_row_and_a_line_that_stand_twice_are_found() {
    let line = "A sentence that is long enough to be said once only.";
    let text = format!(
        "{line}\n\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n| 1 | 2 |\n\n{line}\n\n```\n{line}\n```\n"
    );
    let expected = ["lines 5 and 7: 1 | 2".to_owned(), format!("lines 1 and 9: {line}")];
    assert_eq!(repeated(&text), expected);
}

#[test]
fn no_paper_says_anything_twice() {
    let mut problems = Vec::new();
    let papers = files(&root(), "md");
    for path in &papers {
        let text = std::fs::read_to_string(path).unwrap();
        let name = path.strip_prefix(root()).unwrap_or(path).display();
        problems.extend(repeated(&text).into_iter().map(|problem| format!("{name}: {problem}")));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(papers.len() >= 10, "only {} papers", papers.len());
}
