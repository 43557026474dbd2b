//! Why a VM does not do what it is asked.

use std::error::Error;
use std::fmt;

use tdvisor_monitor::hold::NotStill;

use super::life::StartError;
use crate::config::ConfigError;

/// A refusal.
#[derive(Debug)]
pub enum VmError {
    /// There is no VM.
    NotCreated,
    /// There is a VM already.
    AlreadyCreated,
    /// The VM does not run.
    NotRunning,
    /// The VM runs already.
    AlreadyRunning,
    /// What is asked for cannot be had.
    Config(ConfigError),
    /// The VM is paused already.
    AlreadyPaused,
    /// The VM is not paused.
    NotPaused,
    /// The VM does not stand still.
    NotStill(NotStill),
    /// The VM has one vsock device already.
    SecondVsock,
    /// The VM has no device of this name.
    NoSuchDevice(String),
    /// A TD here does not have this.
    Unsupported(&'static str),
    /// The VM's life could not begin.
    Start(StartError),
    /// Others were busy with it for too long.
    Busy,
}

impl fmt::Display for VmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotCreated => f.write_str("there is no VM"),
            Self::AlreadyCreated => f.write_str("the VM is already created"),
            Self::NotRunning => f.write_str("the VM is not running"),
            Self::AlreadyRunning => f.write_str("the VM is already running"),
            Self::AlreadyPaused => f.write_str("the VM is already paused"),
            Self::NotPaused => f.write_str("the VM is not paused"),
            Self::NotStill(_) => f.write_str("the VM could not be paused"),
            Self::Config(_) => f.write_str("the configuration cannot be had"),
            Self::SecondVsock => f.write_str("the VM has a vsock device already"),
            Self::NoSuchDevice(id) => write!(f, "the VM has no device '{id}'"),
            Self::Unsupported(what) => write!(f, "not supported: {what}"),
            Self::Start(_) => f.write_str("the VM could not be started"),
            Self::Busy => f.write_str("the VM was busy with other requests for too long"),
        }
    }
}

impl Error for VmError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Config(error) => Some(error),
            Self::Start(error) => Some(error),
            Self::NotStill(error) => Some(error),
            _ => None,
        }
    }
}

impl From<ConfigError> for VmError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<StartError> for VmError {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}
