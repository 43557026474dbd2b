//! CONTRIBUTING.md: the commands name packages, test binaries and tests that exist, the tables files that exist.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tdvisor_repository::markdown::{self, code_spans};
use tdvisor_repository::{files, read, reference, root};

/// The folder of each package of the workspaces.
fn packages() -> BTreeMap<String, PathBuf> {
    let manifests = files(&root(), "toml").into_iter().filter(|path| path.ends_with("Cargo.toml"));
    let named = manifests.filter_map(|path| {
        let manifest: toml::Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        let name = manifest.get("package")?.get("name")?.as_str()?.to_owned();
        Some((name, path.parent()?.to_path_buf()))
    });
    named.collect()
}

/// The lines of the shell blocks, continued ones joined, without what stands behind them as a comment.
fn commands(text: &str) -> Vec<String> {
    let blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let lines: Vec<String> = blocks.map(|block| block.replace("\\\n", " ")).collect();
    let lines = lines.iter().flat_map(|block| block.lines());
    lines.filter_map(|line| line.split(" # ").next()).map(|line| line.trim().to_owned()).collect()
}

fn value_of<'a>(words: &[&'a str], option: &str) -> Option<&'a str> {
    words.windows(2).find(|pair| pair[0] == option).map(|pair| pair[1])
}

#[test]
fn every_command_names_what_exists() {
    let packages = packages();
    let mut checked = 0;
    for command in commands(&read("CONTRIBUTING.md")) {
        let words: Vec<&str> = command.split_whitespace().collect();
        if let Some(script) = words.first().filter(|word| word.contains('/') && !word.contains('=')) {
            assert!(root().join(script).exists(), "{command}: no {script}");
        }
        let Some(package) = value_of(&words, "-p").filter(|package| *package != "CRATE") else { continue };
        let folder = packages.get(package).unwrap_or_else(|| panic!("{command}: no package {package}"));
        checked += 1;
        let Some(binary) = value_of(&words, "--test") else { continue };
        let test = folder.join("tests").join(binary);
        assert!(
            test.with_extension("rs").exists() || test.join("main.rs").exists(),
            "{command}: no {binary}"
        );
        let last = words.last().unwrap();
        let is_filter = *last != binary && !last.starts_with('-');
        let known = || {
            let sources = files(&folder.join("tests"), "rs").into_iter();
            sources
                .map(|path| std::fs::read_to_string(path).unwrap())
                .any(|source| reference::tests_in(&source).any(|name| name.contains(last)))
        };
        assert!(!is_filter || known(), "{command}: no test has '{last}' in its name");
    }
    assert!(checked >= 10, "only {checked} commands name a package");
}

#[test]
fn every_file_that_a_table_names_exists() {
    for row in markdown::rows(&read("CONTRIBUTING.md")).unwrap() {
        for span in row.cells.iter().flat_map(|cell| code_spans(cell)) {
            let path = span.split("::").next().and_then(|path| path.split(" ").next()).unwrap_or_default();
            let is_path =
                ["scripts/", "tests/", "tools/", "attest/", ".ci/"].iter().any(|top| path.starts_with(top));
            assert!(!is_path || root().join(path).exists(), "line {}: no {path}", row.line);
        }
    }
}
