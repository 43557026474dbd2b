//! Exit statuses, and the one place where a failure becomes a line on stderr.

use std::fmt;
use std::process::ExitCode;

use crate::streams::say_at_the_end;

/// How a command ended, as scripts see it.
///
/// `vmm` ends as `run` where its guest ended by itself, and with 0 where a client or a signal ended it.
///
/// | status | `run` | `verify` | `conformance` |
/// |---|---|---|---|
/// | 0 | the guest succeeded | accepted | all calls agree |
/// | 1 | the guest reported failure, panicked or rebooted | rejected | a call differs |
/// | 2 | bad usage or input | unusable input | unreadable input |
/// | 3 | the TD died, or a signal stopped it | – | – |
/// | 4 | a fault of tdvisor itself | the same | the same |
/// | 5 | the guest needs what the emulator does not implement | – | – |
/// | 6 | the answer would be 0, but an output could not be written | the same, whatever the answer | the same |
/// | 124 | `--timeout` stopped the TD (the status of timeout(1)) | – | – |
/// | 125 | what became of the command after `--` is not known | – | – |
///
/// `run … -- COMMAND` ends with the command's own status where that is known (128 and the signal's number where one killed
/// it, 126 or 127 where it could not be started), and not with 1 or 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Status 0.
    Success,
    /// Status 1: the command worked and its answer is no.
    Negative,
    /// Status 3: the TD died, or was stopped, before it could answer.
    TdDied,
    /// Status 6: all went well, but not all of it could be written.
    OutputLost,
    /// Status 124: the time was up.
    TimedOut,
    /// Status 125: what became of a command in the guest is not known.
    CommandLost,
    /// The status of a command in the guest.
    OfCommand(u8),
}

/// A command that could not give an answer.
#[derive(Debug)]
pub enum Failure {
    /// Status 2: what the user gave cannot be used; the text says what and what to do.
    Input(String),
    /// Status 4: tdvisor broke one of its own rules.
    Internal(String),
    /// Status 5: the emulator does not implement what the guest asked for.
    Limit(String),
    /// Status 6: an answer that could not be written.
    Output(String),
}

impl Failure {
    /// Bad input: `subject` is the file or option at fault.
    pub fn input(subject: impl fmt::Display, problem: impl fmt::Display) -> Self {
        Self::Input(format!("{subject}: {problem}"))
    }

    /// An output that cannot be written: `subject` is the file or stream.
    pub fn output(subject: impl fmt::Display, problem: impl fmt::Display) -> Self {
        Self::Output(format!("{subject}: {problem}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(text) | Self::Output(text) => f.write_str(text),
            Self::Internal(text) => write!(f, "internal fault: {text}"),
            Self::Limit(text) => write!(f, "a limit of tdvisor, not a fault of the guest: {text}"),
        }
    }
}

/// Prints a failure as one line and turns the result into the process's exit code.
pub fn report(result: Result<Status, Failure>) -> ExitCode {
    match result {
        Ok(Status::Success) => ExitCode::SUCCESS,
        Ok(Status::Negative) => ExitCode::from(1),
        Ok(Status::TdDied) => ExitCode::from(3),
        Ok(Status::OutputLost) => ExitCode::from(6),
        Ok(Status::TimedOut) => ExitCode::from(124),
        Ok(Status::CommandLost) => ExitCode::from(125),
        Ok(Status::OfCommand(status)) => ExitCode::from(status),
        Err(failure) => {
            say_at_the_end(format_args!("tdvisor: {failure}"));
            ExitCode::from(match failure {
                Failure::Input(_) => 2,
                Failure::Internal(_) => 4,
                Failure::Limit(_) => 5,
                Failure::Output(_) => 6,
            })
        }
    }
}
