//! The transcripts of the README are what the program says.
//!
//! A transcript is what follows `$ tdvisor …` in a `console` block, and the `text` block behind such a block. Its lines have to
//! appear in the command's output in their order. Numbers may differ (time, counts, sizes of kernels); measurements may not.
//! A line `…` stands for lines left out, and `…` ends a line that is cut. `scripts/transcripts` writes the whole outputs to
//! `target/transcripts`, to cut new excerpts from.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cli::Folder;
use tdvisor_test_data::linux;

/// A command of the README and what it is shown to print.
#[derive(Debug)]
struct Transcript {
    words: Vec<String>,
    lines: Vec<String>,
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The words of `tdvisor` on a line of a shell, without its comment.
fn words_of(line: &str) -> Option<Vec<String>> {
    let command = line.strip_prefix("$ ")?.split(" #").next()?.trim();
    let words = match command {
        "cargo run --release" => "",
        _ => command.strip_prefix("tdvisor ")?,
    };
    Some(words.split_whitespace().map(str::to_owned).collect())
}

fn transcripts() -> Vec<Transcript> {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("the README");
    let mut all: Vec<Transcript> = Vec::new();
    // The last command, while what follows may be its output.
    let mut open = false;
    let mut block = None;
    for line in readme.lines() {
        match (block, line.strip_prefix("```")) {
            (None, Some(kind)) => {
                block = Some(kind);
                open &= kind == "text";
            }
            (Some(_), Some(_)) => block = None,
            (Some("console"), None) if line.starts_with("$ ") => {
                if let Some(words) = words_of(line) {
                    all.push(Transcript { words, lines: Vec::new() });
                    open = true;
                } else {
                    open = false;
                }
            }
            (Some("console" | "text"), None) if open => {
                if let Some(last) = all.last_mut() {
                    last.lines.push(line.to_owned());
                }
            }
            _ => {}
        }
    }
    all.retain(|transcript| !transcript.lines.is_empty());
    all
}

/// A line without what differs from run to run: each number is `#`; counts of exits and calls are their label alone.
fn essence(line: &str) -> String {
    let words: Vec<_> = line
        .split_whitespace()
        .map(|word| {
            let is_measurement = word.len() >= 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
            if is_measurement { word.to_owned() } else { without_numbers(word) }
        })
        .collect();
    match words.first().map(String::as_str) {
        Some(label @ ("exits" | "SEAMCALLs")) => label.to_owned(),
        _ => words.join(" "),
    }
}

fn without_numbers(word: &str) -> String {
    let mut text = String::new();
    let mut rest = word.chars().peekable();
    while let Some(character) = rest.next() {
        if !character.is_ascii_digit() {
            text.push(character);
            continue;
        }
        let is_hexadecimal = character == '0' && rest.next_if_eq(&'x').is_some();
        while rest
            .next_if(|next| if is_hexadecimal { next.is_ascii_hexdigit() } else { next.is_ascii_digit() })
            .is_some()
        {}
        text.push('#');
    }
    text
}

/// Runs a command as a terminal would show it: both streams in one.
fn output_of(words: &[String]) -> String {
    let name = if words.is_empty() { "run".to_owned() } else { words.join(" ").replace(['/', ' '], "_") };
    let folder = Folder::new(&format!("readme-{name}"));
    let path = folder.path("output");
    let file = File::create(&path).expect("a file");
    let mut call = Command::new(env!("CARGO_BIN_EXE_tdvisor"));
    call.args(words).current_dir(root()).stdin(Stdio::null());
    call.stdout(file.try_clone().expect("a descriptor")).stderr(file);
    let status = call.status().expect("tdvisor starts");
    let said = String::from_utf8_lossy(&std::fs::read(&path).expect("the file")).into_owned();
    assert!(status.success(), "tdvisor {}: {status}\n{said}", words.join(" "));
    if let Some(kept) = std::env::var_os("TDVISOR_TRANSCRIPTS") {
        std::fs::write(Path::new(&kept).join(name), &said).expect("TDVISOR_TRANSCRIPTS is a folder");
    }
    said
}

fn check(transcript: &Transcript) {
    let said = output_of(&transcript.words);
    let mut lines = said.lines().map(essence);
    for shown in &transcript.lines {
        let whole = essence(shown);
        let (wanted, is_cut) = match whole.strip_suffix('…') {
            Some(start) => (start.trim_end(), true),
            None => (whole.as_str(), false),
        };
        if wanted.is_empty() {
            continue;
        }
        let is_it = |line: String| line == wanted || is_cut && line.starts_with(wanted);
        assert!(
            lines.any(is_it),
            "README: tdvisor {} does not print, at that place:\n  {shown}\nIt printed:\n{said}",
            transcript.words.join(" ")
        );
    }
}

fn needs_linux(transcript: &Transcript) -> bool {
    transcript.words.iter().any(|word| word == "--kernel")
}

#[test]
fn what_the_readme_shows_of_built_in_guests_and_hosts_is_printed() {
    let all = transcripts();
    let cheap: Vec<_> = all.iter().filter(|transcript| !needs_linux(transcript)).collect();
    assert!(cheap.len() >= 2, "the first command and the host image are shown: {all:?}");
    cheap.into_iter().for_each(check);
}

#[test]
#[ignore = "needs the Linux test guest"]
fn what_the_readme_shows_of_linux_as_a_td_is_printed() {
    let kernel = linux::file("bzImage");
    let of_linux =
        |transcript: &&Transcript| transcript.words.iter().any(|word| word.ends_with("target/linux/bzImage"));
    let all = transcripts();
    let boots: Vec<_> = all.iter().filter(of_linux).collect();
    assert!(!boots.is_empty(), "a boot of {} is shown: {all:?}", kernel.display());
    boots.into_iter().for_each(check);
}

#[test]
fn essences_keep_measurements_and_drop_counts() {
    let mrtd =
        "ceb84b4e0d8f1e5ad6bc2cb3b00a61be6d73a655591757e30ab4424e5e65217016e79c33cfb7b22843ee503808e2d76e";
    assert_eq!(essence(&format!("MRTD {mrtd}")), format!("MRTD {mrtd}"));
    assert_eq!(essence("  time       0.110 s"), "time #.# s");
    assert_eq!(essence("at 0x1000000..0x1fcc000, 12345 KiB"), "at #..#, # KiB");
    assert_eq!(essence("  exits      EPT violation 1053, TDVMCALL MapGPA 2"), "exits");
}
