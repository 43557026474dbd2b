//! Exit statuses, and the one place where a failure becomes a line on stderr.

use std::fmt;
use std::process::ExitCode;

/// How a command ended, as scripts see it.
///
/// | status | `run` | `verify` | `conformance` |
/// |---|---|---|---|
/// | 0 | the guest succeeded | accepted | all calls agree |
/// | 1 | the guest reported failure, panicked or rebooted | rejected | a call differs |
/// | 2 | bad usage or input | unusable input | unreadable input |
/// | 3 | the TD died | – | – |
/// | 4 | a fault of tdvisor itself | the same | the same |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "the full table of statuses; a build may use a part of it")]
pub enum Status {
    /// Status 0.
    Success,
    /// Status 1: the command worked and its answer is no.
    Negative,
    /// Status 3: the TD died before it could answer.
    TdDied,
}

/// A command that could not give an answer.
#[derive(Debug)]
#[allow(dead_code, reason = "the full table of statuses; a build may use a part of it")]
pub enum Failure {
    /// Status 2: what the user gave cannot be used; the text says what and what to do.
    Input(String),
    /// Status 4: tdvisor broke one of its own rules.
    Internal(String),
}

impl Failure {
    /// Bad input: `subject` is the file or option at fault.
    #[allow(dead_code, reason = "used by the commands that read files")]
    pub fn input(subject: impl fmt::Display, problem: impl fmt::Display) -> Self {
        Self::Input(format!("{subject}: {problem}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(text) => f.write_str(text),
            Self::Internal(text) => write!(f, "internal fault: {text}"),
        }
    }
}

/// Prints a failure as one line and turns the result into the process's exit code.
pub fn report(result: Result<Status, Failure>) -> ExitCode {
    match result {
        Ok(Status::Success) => ExitCode::SUCCESS,
        Ok(Status::Negative) => ExitCode::from(1),
        Ok(Status::TdDied) => ExitCode::from(3),
        Err(failure) => {
            eprintln!("tdvisor: {failure}");
            match failure {
                Failure::Input(_) => ExitCode::from(2),
                Failure::Internal(_) => ExitCode::from(4),
            }
        }
    }
}
