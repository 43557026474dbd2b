//! What can be told of a script by reading it: who interprets it, and which programs its words may name.

use std::collections::BTreeSet;
use std::path::PathBuf;

/// Longest first line that is looked at, as the kernel does.
const LONGEST: usize = 256;
/// Shells: their scripts name programs by plain words.
const SHELLS: [&str; 8] = ["sh", "bash", "dash", "ash", "ksh", "mksh", "zsh", "busybox"];

/// The first line of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interpreter {
    /// The program that it names.
    pub program: PathBuf,
    /// The program that `env` is asked for, if the first is `env`.
    pub by_env: Option<String>,
}

/// Who interprets a file, if it is a script.
pub fn interpreter(file: &[u8]) -> Option<Interpreter> {
    let line = file.strip_prefix(b"#!")?;
    let line = line.get(..LONGEST.min(line.len()))?.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_whitespace();
    let program = PathBuf::from(words.next()?);
    let is_env = program.file_name().is_some_and(|name| name == "env");
    // `env -S` splits the rest itself; an assignment before the name is not a program.
    let by_env = is_env.then(|| words.find(|word| !word.starts_with('-') && !word.contains('='))).flatten();
    Some(Interpreter { by_env: by_env.map(str::to_owned), program })
}

/// Whether the program of this name reads shell scripts.
pub fn is_shell(name: &str) -> bool {
    SHELLS.contains(&name)
}

/// The words of a shell's text that may name programs: each once, without what only looks like one.
pub fn words(text: &[u8]) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(text);
    let is_of_a_word = |character: char| character.is_ascii_alphanumeric() || "._+-/".contains(character);
    let words = text.split(|character| !is_of_a_word(character));
    words
        .filter(|word| word.starts_with(|first: char| first.is_ascii_alphanumeric() || "./".contains(first)))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_names_the_interpreter_and_env_names_another() {
        let of = |text: &str| interpreter(text.as_bytes());
        let plain = |program: &str| Some(Interpreter { program: program.into(), by_env: None });
        assert_eq!(of("#!/bin/sh\nls"), plain("/bin/sh"));
        assert_eq!(of("#! /bin/bash -e\n"), plain("/bin/bash"));
        let env = of("#!/usr/bin/env -S A=b python3 -u\n").unwrap();
        assert_eq!(env.by_env.as_deref(), Some("python3"));
        assert_eq!(of("ls\n"), None);
        assert_eq!(of("#!\n"), None);
    }

    #[test]
    fn words_are_found_wherever_a_command_may_stand() {
        let found = words(b"if grep -q x /proc/cpuinfo; then $(./helper.sh)|wc -l; fi # done");
        for word in ["grep", "./helper.sh", "wc", "/proc/cpuinfo"] {
            assert!(found.contains(word), "{word}: {found:?}");
        }
        assert!(!found.contains("-q"));
    }
}
