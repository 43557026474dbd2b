//! `deny.toml` is obeyed by everything that the lock files bring: licences, bans, sources.
//!
//! The file is cargo-deny's, and `cargo deny check licenses bans sources` reads it as well. Building that tool takes
//! longer than all of CI's other checks together, so its three checks are made here over `cargo metadata`. What of the
//! file is not understood here is an error, not a check that silently does not happen.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;
use tdvisor_repository::{read, root, spdx};

/// Workspaces with a lock file of their own.
const MANIFESTS: [&str; 5] = [
    "Cargo.toml",
    "tools/guests/Cargo.toml",
    "tools/guests/mig-td/Cargo.toml",
    "tests/freestanding/Cargo.toml",
    "vmm-core/bare-metal/image/Cargo.toml",
];
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Every package that a workspace's lock file brings to the target that we build for.
fn packages(manifest: &str) -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ])
        .arg("--manifest-path")
        .arg(root().join(manifest))
        .output()
        .unwrap();
    assert!(output.status.success(), "{manifest}: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let used: BTreeSet<&str> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|node| node["id"].as_str())
        .collect();
    let packages = metadata["packages"].as_array().unwrap();
    packages.iter().filter(|package| used.contains(package["id"].as_str().unwrap())).cloned().collect()
}

fn name(package: &Value) -> String {
    format!("{} {}", package["name"].as_str().unwrap(), package["version"].as_str().unwrap())
}

/// `deny.toml`, whose tables have these keys and no others.
fn policy() -> toml::Table {
    let policy: toml::Table = read("deny.toml").parse().unwrap();
    let known: [(&str, &[&str]); 4] = [
        ("graph", &["targets", "all-features"]),
        ("licenses", &["allow", "confidence-threshold", "private"]),
        ("bans", &["multiple-versions", "wildcards", "allow-wildcard-paths", "skip", "deny"]),
        ("sources", &["unknown-registry", "unknown-git"]),
    ];
    for (table, contents) in &policy {
        let keys = known.iter().find(|(name, _)| name == table).map(|(_, keys)| *keys);
        let keys = keys.unwrap_or_else(|| panic!("deny.toml: [{table}] is not checked here"));
        for key in contents.as_table().unwrap().keys() {
            assert!(keys.contains(&key.as_str()), "deny.toml: [{table}] {key} is not checked here");
        }
    }
    for (table, key) in [("bans", "wildcards"), ("sources", "unknown-registry"), ("sources", "unknown-git")] {
        assert_eq!(policy[table][key].as_str(), Some("deny"), "deny.toml: [{table}] {key}");
    }
    policy
}

fn judge(manifest: &str, problem: &dyn Fn(&Value) -> Option<String>) {
    let packages = packages(manifest);
    assert!(!packages.is_empty(), "{manifest}: no packages");
    let problems: Vec<String> = packages
        .iter()
        .filter_map(|package| Some(format!("{}: {}", name(package), problem(package)?)))
        .collect();
    assert!(problems.is_empty(), "{manifest}:\n{}", problems.join("\n"));
}

#[test]
fn every_package_is_under_a_licence_that_is_allowed_by_name() {
    let policy = policy();
    let allowed: Vec<&str> =
        policy["licenses"]["allow"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    for manifest in MANIFESTS {
        judge(manifest, &|package| {
            let Some(licence) = package["license"].as_str() else { return Some("states no licence".into()) };
            match spdx::is_allowed(licence, &|name| allowed.contains(&name)) {
                Ok(true) => None,
                Ok(false) => Some(format!("'{licence}' is not allowed by deny.toml")),
                Err(problem) => Some(problem),
            }
        });
    }
}

#[test]
fn every_package_comes_from_the_one_registry_or_from_this_repository() {
    policy();
    for manifest in MANIFESTS {
        judge(manifest, &|package| match package["source"].as_str() {
            None | Some(CRATES_IO) => None,
            Some(other) => Some(format!("comes from {other}")),
        });
    }
}

#[test]
fn no_package_is_banned_and_none_of_ours_takes_any_version_of_another() {
    let policy = policy();
    let banned: Vec<&str> = policy["bans"]
        .get("deny")
        .and_then(toml::Value::as_array)
        .into_iter()
        .flatten()
        .map(|entry| entry.as_str().or_else(|| entry["crate"].as_str()).unwrap())
        .collect();
    for manifest in MANIFESTS {
        judge(manifest, &|package| {
            if banned.contains(&package["name"].as_str().unwrap()) {
                return Some("is banned".into());
            }
            if !package["source"].is_null() {
                return None;
            }
            // A path needs no version; anything else that names none takes whatever comes.
            let wildcard = |dependency: &&Value| dependency["req"] == "*" && dependency["path"].is_null();
            let wild = package["dependencies"].as_array().unwrap().iter().find(wildcard)?;
            Some(format!("takes any version of {}", wild["name"]))
        });
    }
}
