//! The image recipe and the Kubernetes example promise what the program does.

use std::fs;
use std::path::PathBuf;

use crate::cli::{Folder, tdvisor};

fn read(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What stands behind a key, wherever the key stands.
#[track_caller]
fn value<'t>(text: &'t str, key: &str) -> &'t str {
    let lines = text.lines().map(str::trim);
    let mut found = lines.filter_map(|line| line.strip_prefix(key)?.strip_prefix([':', ' '])).map(str::trim);
    found.next_back().unwrap_or_else(|| panic!("there is no {key}"))
}

/// A list of words, in a form that Containerfiles, YAML and JSON share.
#[track_caller]
fn words(list: &str) -> Vec<String> {
    serde_json::from_str(list).unwrap_or_else(|error| panic!("{list}: {error}"))
}

/// The lines of a block under a key, without what they are indented by.
fn block(text: &str, key: &str) -> String {
    let (head, rest) = text.split_once(&format!("{key}: |\n")).expect("a block");
    let own = head.chars().rev().take_while(|character| *character == ' ').count();
    let inner = rest.lines().take_while(|line| line.is_empty() || line.len() - line.trim_start().len() > own);
    inner.map(|line| format!("{}\n", line.trim())).collect()
}

#[test]
fn the_image_has_the_released_program_and_runs_it_as_nobody() {
    let recipe = read("tools/containers/Containerfile");
    let release = read("scripts/release");
    assert_eq!(value(&recipe, "FROM"), "scratch");
    let copied: Vec<&str> = recipe.lines().filter_map(|line| line.strip_prefix("COPY ")).collect();
    for copy in &copied {
        let (files, _) = copy.rsplit_once(' ').expect("from and to");
        for file in files.split(' ') {
            assert!(
                file == "tdvisor" || release.contains(&format!(" {file} ")),
                "scripts/release has no {file}"
            );
        }
    }
    assert!(copied.contains(&"tdvisor /tdvisor"));
    assert!(release.contains("crt-static"), "nothing else is in the image");
    assert_eq!(words(value(&recipe, "ENTRYPOINT")), ["/tdvisor"]);
    assert_eq!(value(&recipe, "USER"), "65534:65534");
    let usual = words(value(&recipe, "CMD"));
    let usual: Vec<&str> = usual.iter().map(String::as_str).collect();
    tdvisor(&usual).ends_with(0);
}

#[test]
fn every_pod_of_the_matrix_runs_its_target_and_no_other() {
    let job = read("tools/containers/kubernetes-job.yaml");
    assert!(!job.contains('\t'), "YAML is indented with spaces");
    assert!(!job.contains("hostPath") && !job.contains("privileged"), "nothing of the node is needed");
    let recipe = read("tools/containers/Containerfile");
    let user = format!("{}:{}", value(&job, "runAsUser"), value(&job, "runAsGroup"));
    assert_eq!(user, value(&recipe, "USER"));
    let version = env!("CARGO_PKG_VERSION");
    assert!(value(&job, "image").ends_with(&format!("tdvisor:{version}")), "the image of this release");
    let plan = Folder::new("matrix").write("tdvisor.toml", block(&job, "tdvisor.toml"));
    let pods: usize = value(&job, "completions").parse().expect("a number");
    let args = words(value(&job, "args"));
    for pod in 0..pods {
        let args: Vec<String> = args
            .iter()
            .map(|word| {
                word.replace("/plan/tdvisor.toml", &plan).replace("$(JOB_COMPLETION_INDEX)", &pod.to_string())
            })
            .collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let said = tdvisor(&args).ends_with(0).stdout();
        assert!(said.contains("1 of 1 targets passed"), "{said}");
    }
    let more = pods.to_string();
    tdvisor(&["test", &plan, "--target", &more]).ends_with(2);
}
