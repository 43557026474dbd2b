//! Every dependency that a manifest names is used by the sources of its package.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tdvisor_repository::{files, read, root};
use toml::Table;

const TABLES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

fn manifests() -> Vec<(PathBuf, Table)> {
    let paths = files(&root(), "toml").into_iter().filter(|path| path.ends_with("Cargo.toml"));
    paths.map(|path| (path.clone(), std::fs::read_to_string(&path).unwrap().parse().unwrap())).collect()
}

/// The names by which a package's sources know its dependencies.
fn dependencies(manifest: &Table) -> BTreeSet<String> {
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    let targets = targets.into_iter().flatten().filter_map(|(_, target)| target.as_table());
    let tables = std::iter::once(manifest).chain(targets);
    let tables = tables.flat_map(|table| TABLES.map(|name| table.get(name).and_then(toml::Value::as_table)));
    tables.flatten().flat_map(|table| table.keys().cloned()).collect()
}

/// What a package is compiled from: its folders, its build script, and the files of others that it takes by path.
fn sources(folder: &Path) -> String {
    let mut paths: Vec<PathBuf> = ["src", "tests", "benches", "examples"]
        .iter()
        .map(|name| folder.join(name))
        .filter(|path| path.is_dir())
        .flat_map(|path| files(&path, "rs"))
        .collect();
    paths.extend(Some(folder.join("build.rs")).filter(|path| path.exists()));
    let mut text = String::new();
    for path in paths {
        let source = std::fs::read_to_string(&path).unwrap();
        for taken in
            source.lines().filter_map(|line| line.trim().strip_prefix("#[path = \"")?.strip_suffix("\"]"))
        {
            let taken = path.with_file_name(taken);
            text.push_str(&std::fs::read_to_string(taken).unwrap_or_default());
        }
        text.push_str(&source);
    }
    text
}

fn names(text: &str, name: &str) -> bool {
    let name = name.replace('-', "_");
    let part_of_a_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(&name).any(|(at, _)| {
        !text[..at].ends_with(part_of_a_word) && !text[at + name.len()..].starts_with(part_of_a_word)
    })
}

#[test]
fn every_dependency_is_used() {
    let mut unused = Vec::new();
    for (path, manifest) in manifests() {
        if !manifest.contains_key("package") {
            continue;
        }
        let sources = sources(path.parent().unwrap());
        let missing = dependencies(&manifest).into_iter().filter(|name| !names(&sources, name));
        unused.extend(missing.map(|name| format!("{}: {name}", path.display())));
    }
    assert!(unused.is_empty(), "nobody uses:\n{}", unused.join("\n"));
}

#[test]
fn every_dependency_of_the_workspace_is_taken_by_a_member() {
    let workspace: Table = read("Cargo.toml").parse().unwrap();
    let taken: BTreeSet<String> =
        manifests().iter().flat_map(|(_, manifest)| dependencies(manifest)).collect();
    let offered = workspace["workspace"]["dependencies"].as_table().unwrap();
    let unused: Vec<&String> = offered.keys().filter(|name| !taken.contains(*name)).collect();
    assert!(unused.is_empty(), "nobody takes {unused:?}");
}
