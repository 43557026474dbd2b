//! The TCB statuses of Intel's collateral and of verdicts.

use core::fmt;

/// How a TCB stands, as Intel's collateral and library name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TcbStatus {
    /// Nothing is missing.
    UpToDate,
    /// Software in the TEE must mitigate a known issue.
    SwHardeningNeeded,
    /// The platform must be configured differently.
    ConfigurationNeeded,
    /// The platform must be configured differently, and software in the TEE must mitigate a known issue.
    ConfigurationAndSwHardeningNeeded,
    /// The TCB was updated after this TD was launched: relaunch it.
    TdRelaunchAdvised,
    /// The TCB was updated after this TD was launched: relaunch it. The platform must be configured differently, too.
    TdRelaunchAdvisedConfigurationNeeded,
    /// Updates are missing.
    OutOfDate,
    /// Updates are missing and the platform must be configured differently.
    OutOfDateConfigurationNeeded,
    /// The TCB is not to be trusted at all.
    Revoked,
    /// The TCB is below every level that the collateral knows.
    NotSupported,
}

impl TcbStatus {
    /// Every status.
    pub const ALL: [Self; 10] = [
        Self::UpToDate,
        Self::SwHardeningNeeded,
        Self::ConfigurationNeeded,
        Self::ConfigurationAndSwHardeningNeeded,
        Self::TdRelaunchAdvised,
        Self::TdRelaunchAdvisedConfigurationNeeded,
        Self::OutOfDate,
        Self::OutOfDateConfigurationNeeded,
        Self::Revoked,
        Self::NotSupported,
    ];

    /// The name that Intel's collateral uses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UpToDate => "UpToDate",
            Self::SwHardeningNeeded => "SWHardeningNeeded",
            Self::ConfigurationNeeded => "ConfigurationNeeded",
            Self::ConfigurationAndSwHardeningNeeded => "ConfigurationAndSWHardeningNeeded",
            Self::TdRelaunchAdvised => "TDRelaunchAdvised",
            Self::TdRelaunchAdvisedConfigurationNeeded => "TDRelaunchAdvisedConfigurationNeeded",
            Self::OutOfDate => "OutOfDate",
            Self::OutOfDateConfigurationNeeded => "OutOfDateConfigurationNeeded",
            Self::Revoked => "Revoked",
            Self::NotSupported => "NotSupported",
        }
    }

    /// The status of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }

    /// A status that a TCB level of a TCB info may have.
    #[must_use]
    pub const fn is_of_platform(self) -> bool {
        !matches!(
            self,
            Self::TdRelaunchAdvised | Self::TdRelaunchAdvisedConfigurationNeeded | Self::NotSupported
        )
    }

    /// A status that a TCB level of a QE identity may have.
    #[must_use]
    pub const fn is_of_qe(self) -> bool {
        self.is_of_platform()
            && !matches!(self, Self::SwHardeningNeeded | Self::ConfigurationAndSwHardeningNeeded)
    }

    /// A status that a TCB level of a TDX module identity may have.
    #[must_use]
    pub const fn is_of_module(self) -> bool {
        matches!(self, Self::UpToDate | Self::OutOfDate | Self::Revoked)
    }

    /// Whether the platform must be configured differently.
    #[must_use]
    pub const fn needs_configuration(self) -> bool {
        matches!(
            self,
            Self::ConfigurationNeeded
                | Self::ConfigurationAndSwHardeningNeeded
                | Self::OutOfDateConfigurationNeeded
                | Self::TdRelaunchAdvisedConfigurationNeeded
        )
    }
}

impl fmt::Display for TcbStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
