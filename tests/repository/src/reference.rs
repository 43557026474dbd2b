//! References from a table to what holds a sentence, each a code span:
//!
//! - `path`: a file or folder of the repository,
//! - `path::name`: a test of that name in the file, and `::name`: one in the file that was named before,
//! - `cargo bench -p tdvisor-tests --bench name`: a benchmark of that name,
//! - anything else: a passage of the file that was named before it in the same cell.

use crate::markdown::code_spans;
use crate::{read, root};

const BENCHMARK: &str = "cargo bench -p tdvisor-tests --bench ";

/// Looks for all that a cell refers to; how many references it has.
///
/// # Errors
/// One sentence about the first thing that is not there.
pub fn check(cell: &str) -> Result<usize, String> {
    let mut file = None;
    let mut references = 0;
    for span in code_spans(cell) {
        if let Some(name) = span.strip_prefix(BENCHMARK) {
            benchmark(name)?;
        } else if let Some((path, name)) = span.split_once("::").filter(|(path, _)| is_source(path)) {
            let path = if path.is_empty() { file.ok_or("no file is named before '::'")? } else { path };
            test(path, name)?;
            file = Some(path);
        } else if let Some(path) = file.filter(|_| !is_path(span)) {
            if !read(path).contains(span) {
                return Err(format!("'{span}' does not stand in {path}"));
            }
            continue;
        } else if root().join(span).exists() {
            file = root().join(span).is_file().then_some(span);
        } else {
            return Err(format!("no {span}"));
        }
        references += 1;
    }
    Ok(references)
}

/// What may stand before the `::` of a test.
fn is_source(path: &str) -> bool {
    path.is_empty() || path.ends_with(".rs")
}

fn is_path(span: &str) -> bool {
    !span.is_empty() && root().join(span).exists()
}

fn test(path: &str, name: &str) -> Result<(), String> {
    if !root().join(path).is_file() {
        return Err(format!("no {path}"));
    }
    if tests_in(&read(path)).any(|test| test == name) {
        Ok(())
    } else {
        Err(format!("no test {name} in {path}"))
    }
}

/// The names of the functions that an attribute marks as tests.
pub fn tests_in(source: &str) -> impl Iterator<Item = &str> {
    let mut marked = false;
    source.lines().filter_map(move |line| {
        let line = line.trim();
        if line == "#[test]" {
            marked = true;
        } else if let Some(rest) = line.strip_prefix("fn ").filter(|_| marked) {
            marked = false;
            return rest.split(['(', '<']).next();
        } else if !line.starts_with('#') && !line.starts_with("//") {
            marked &= line.starts_with("allow") || line.is_empty() || line.ends_with(']');
        }
        None
    })
}

fn benchmark(name: &str) -> Result<(), String> {
    let declared = read("tests/Cargo.toml").contains(&format!("[[bench]]\nname = \"{name}\"\n"));
    let there = root().join("tests/benches").join(name).with_extension("rs").is_file();
    if declared && there { Ok(()) } else { Err(format!("no benchmark {name} in tests/benches")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exists_is_found_and_counted() {
        let cell = "`tests/repository/src/reference.rs::what_exists_is_found_and_counted`, \
                    `::what_does_not_exist_is_named`; `deny.toml`, which allows `MIT`; \
                    `cargo bench -p tdvisor-tests --bench attest`";
        assert_eq!(check(cell), Ok(4));
        assert_eq!(check("held by good intentions"), Ok(0));
    }

    #[test]
    fn what_does_not_exist_is_named() {
        for (cell, problem) in [
            ("`no/such/file`", "no no/such/file"),
            ("`deny.toml` has `GPL-9.9`", "'GPL-9.9' does not stand in deny.toml"),
            (
                "`tests/repository/src/reference.rs::check`",
                "no test check in tests/repository/src/reference.rs",
            ),
            ("`cargo bench -p tdvisor-tests --bench luck`", "no benchmark luck in tests/benches"),
        ] {
            assert_eq!(check(cell), Err(problem.into()));
        }
    }
}
