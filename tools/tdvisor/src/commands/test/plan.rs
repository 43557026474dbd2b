//! The plan: a TOML file, read strictly.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use crate::outcome::Failure;
use crate::read_bounded::read_text_bounded;

/// Largest plan.
const MAX_PLAN: u64 = 1 << 20;
/// Most targets of one plan.
const MAX_TARGETS: usize = 1000;
/// Seconds that a target may take which does not say.
const TIMEOUT: u64 = 600;

/// What to run.
#[derive(Debug)]
pub struct Plan {
    /// The folder of its relative paths.
    pub folder: PathBuf,
    /// One after the other.
    pub targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    target: Vec<Spanned<Target>>,
}

/// One run.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Target {
    /// The target's name, once in a plan.
    pub name: String,
    /// The line of the plan in which it begins, from 1.
    #[serde(skip)]
    pub line: usize,
    kernel: Option<PathBuf>,
    initrd: Option<PathBuf>,
    cmdline: Option<String>,
    append: Option<String>,
    #[serde(default)]
    copy: Vec<String>,
    image: Option<String>,
    firmware_command: Option<String>,
    memory: Option<String>,
    vcpus: Option<u32>,
    profile: Option<String>,
    deterministic: Option<u64>,
    command: Option<Words>,
    /// The exit status that passes.
    #[serde(default)]
    pub expect: u8,
    /// Seconds.
    #[serde(default = "default_timeout")]
    pub timeout: u64,
}

fn default_timeout() -> u64 {
    TIMEOUT
}

/// A command: its words, or a text for the shell.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Words {
    Text(String),
    List(Vec<String>),
}

impl Plan {
    /// Reads a plan.
    ///
    /// # Errors
    /// It cannot be read, has a key that is not known, or no target.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let text = read_text_bounded(path, MAX_PLAN)?;
        let refused = |problem: String| Failure::input(path.display(), problem);
        let file: File = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(&text, span.start));
            refused(format!("line {line}: {}", error.message()))
        })?;
        let begun = |target: Spanned<Target>| {
            let line = line_of(&text, target.span().start);
            Target { line, ..target.into_inner() }
        };
        let targets: Vec<_> = file.target.into_iter().map(begun).collect();
        if targets.is_empty() || targets.len() > MAX_TARGETS {
            return Err(refused(format!("{} targets: a plan has 1 to {MAX_TARGETS}", targets.len())));
        }
        let mut names = BTreeSet::new();
        for target in &targets {
            if target.name.is_empty() || !names.insert(&target.name) {
                return Err(refused(format!(
                    "two targets, or one without a name, are called '{}'",
                    target.name
                )));
            }
            if target.timeout == 0 {
                return Err(refused(format!("{}: timeout: a number of seconds from 1 on", target.name)));
            }
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(Self { folder: folder.to_owned(), targets })
    }

    /// The plan with these targets alone; all of them if none is named.
    ///
    /// # Errors
    /// There is none of a name.
    pub fn only(mut self, names: &[String]) -> Result<Self, Failure> {
        if let Some(name) = names.iter().find(|name| !self.targets.iter().any(|target| target.name == **name))
        {
            let known: Vec<_> = self.targets.iter().map(|target| target.name.as_str()).collect();
            return Err(Failure::input(name, format!("no such target; there are {}", known.join(", "))));
        }
        if !names.is_empty() {
            self.targets.retain(|target| names.contains(&target.name));
        }
        Ok(self)
    }
}

/// The line that a byte of the plan is in, from 1.
fn line_of(text: &str, at: usize) -> usize {
    text.get(..at).unwrap_or_default().matches('\n').count() + 1
}

impl Target {
    /// The words of `tdvisor` for it.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> =
            vec!["run".into(), "--timeout".into(), self.timeout.to_string().into()];
        let mut option = |name: &str, value: Option<OsString>| {
            words.extend(value.into_iter().flat_map(|value| [OsString::from(name), value]));
        };
        option("--kernel", self.kernel.clone().map(Into::into));
        option("--initrd", self.initrd.clone().map(Into::into));
        option("--cmdline", self.cmdline.clone().map(Into::into));
        option("--append", self.append.clone().map(Into::into));
        option("--command", self.firmware_command.clone().map(Into::into));
        option("--memory", self.memory.clone().map(Into::into));
        option("--vcpus", self.vcpus.map(|count| count.to_string().into()));
        option("--profile", self.profile.clone().map(Into::into));
        option("--deterministic", self.deterministic.map(|seed| seed.to_string().into()));
        for copy in &self.copy {
            option("--copy", Some(copy.into()));
        }
        words.extend(self.image.iter().map(OsString::from));
        match &self.command {
            None => {}
            Some(Words::Text(text)) => words.extend(["--", "sh", "-c", text].map(OsString::from)),
            Some(Words::List(list)) => {
                words.push("--".into());
                words.extend(list.iter().map(OsString::from));
            }
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_becomes_the_words_that_a_person_would_type() {
        let text = "[[target]]\nname = 'a'\nkernel = 'bzImage'\nvcpus = 2\ncommand = 'exit 7'\nexpect = 7\n";
        let file: File = toml::from_str(text).unwrap();
        let words: Vec<_> = file.target[0]
            .get_ref()
            .arguments()
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        assert_eq!(words.join(" "), "run --timeout 600 --kernel bzImage --vcpus 2 -- sh -c exit 7");
    }

    #[test]
    fn an_unknown_key_is_refused() {
        assert!(toml::from_str::<File>("[[target]]\nname = 'a'\nkernal = 'bzImage'\n").is_err());
    }
}
