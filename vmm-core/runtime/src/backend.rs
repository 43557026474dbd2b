//! What runs a TD.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What runs a TD.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackendKind {
    /// The emulated TDX module and the software CPU: on any machine.
    #[default]
    Emulated,
    /// Linux's KVM, on a TDX server whose kernel has KVM_TDX.
    Kvm,
}

impl BackendKind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Emulated, Self::Kvm];

    /// The kind's name, on command lines and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Emulated => "emulated",
            Self::Kvm => "kvm",
        }
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_has_one_name_in_json_and_in_words() {
        for kind in BackendKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.to_string());
        }
    }
}
