//! What a TCB lacks, component by component, and what an operator can do about it.
//!
//! The goal is the best level that the collateral knows; among several, the one that is nearest.

use alloc::vec::Vec;
use core::fmt;

use super::tcb::{Inputs, TcbVerdict, first_tdx_component};
use crate::collateral::{ComponentKind, TcbLevel, TcbStatus};

/// A component of a TCB that has a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Component {
    /// SGX component, by index from 0.
    Sgx(u8),
    /// Provisioning certification enclave.
    Pce,
    /// TDX component, by index from 0.
    Tdx(u8),
    /// TDX module of a major version.
    Module {
        /// The major version.
        major: u8,
    },
    /// The quoting enclave.
    QuotingEnclave,
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sgx(index) => write!(f, "SGX component {}", index + 1),
            Self::Pce => f.write_str("PCE"),
            Self::Tdx(index) => write!(f, "TDX component {}", index + 1),
            Self::Module { major } => write!(f, "TDX module {major}.x"),
            Self::QuotingEnclave => f.write_str("quoting enclave"),
        }
    }
}

/// A component below the version it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// Which component.
    pub component: Component,
    /// What the component is, in Intel's words; empty if the collateral does not say.
    pub kind: ComponentKind,
    /// The version it has.
    pub have: u32,
    /// The version it needs.
    pub need: u32,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ComponentKind { category, kind } = &self.kind;
        write!(f, "{}", self.component)?;
        match (kind.is_empty(), category.is_empty()) {
            (false, false) => write!(f, " ({kind}, {category})")?,
            (true, false) => write!(f, " ({category})")?,
            (false, true) => write!(f, " ({kind})")?,
            (true, true) => {}
        }
        write!(f, ": has {}, needs {}", self.have, self.need)
    }
}

/// What an operator can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Update the platform's firmware.
    UpdateFirmware,
    /// Load newer microcode before the OS starts its enclaves and TDs.
    UpdateMicrocode,
    /// Install a newer SEAM loader.
    UpdateSeamLoader,
    /// Install a newer TDX module.
    UpdateTdxModule,
    /// Install newer platform software (OS, VMM, SINIT).
    UpdatePlatformSoftware,
    /// Install newer provisioning enclaves.
    UpdatePce,
    /// Install a newer quoting enclave.
    UpdateQuotingEnclave,
    /// Get the PCK certificate of the updated TCB: the old one keeps attesting the old TCB.
    RenewPckCertificate,
    /// Change the platform's configuration as the advisories say.
    Reconfigure,
    /// Build the software inside the TEE with the mitigations that the advisories name.
    HardenSoftware,
    /// Launch the TD again: the platform under it is up to date.
    RelaunchTd,
    /// Ask the vendor: the collateral knows no better level of this platform.
    AskVendor,
    /// Do not rely on this platform.
    DoNotUse,
}

impl Action {
    /// A stable name, for programs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::UpdateFirmware => "update-firmware",
            Self::UpdateMicrocode => "update-microcode",
            Self::UpdateSeamLoader => "update-seam-loader",
            Self::UpdateTdxModule => "update-tdx-module",
            Self::UpdatePlatformSoftware => "update-platform-software",
            Self::UpdatePce => "update-pce",
            Self::UpdateQuotingEnclave => "update-quoting-enclave",
            Self::RenewPckCertificate => "renew-pck-certificate",
            Self::Reconfigure => "reconfigure-platform",
            Self::HardenSoftware => "harden-software",
            Self::RelaunchTd => "relaunch-td",
            Self::AskVendor => "ask-vendor",
            Self::DoNotUse => "do-not-use",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UpdateFirmware => "update the platform's firmware (BIOS)",
            Self::UpdateMicrocode => "load newer microcode",
            Self::UpdateSeamLoader => "install a newer SEAM loader",
            Self::UpdateTdxModule => "install a newer TDX module",
            Self::UpdatePlatformSoftware => "update the platform's software (OS, VMM, SINIT)",
            Self::UpdatePce => "install newer provisioning enclaves (PCE)",
            Self::UpdateQuotingEnclave => "install a newer quoting enclave",
            Self::RenewPckCertificate => "then fetch the PCK certificate of the updated TCB",
            Self::Reconfigure => "change the platform's configuration as the advisories say",
            Self::HardenSoftware => "build the software inside the TEE with the advised mitigations",
            Self::RelaunchTd => "launch the TD again: the platform under it is up to date",
            Self::AskVendor => "ask the platform's vendor: this collateral knows no better level for it",
            Self::DoNotUse => "do not rely on this platform",
        })
    }
}

/// How good a platform status is; lower is better.
const fn rank(status: TcbStatus) -> u8 {
    match status {
        TcbStatus::UpToDate => 0,
        TcbStatus::SwHardeningNeeded => 1,
        TcbStatus::ConfigurationNeeded => 2,
        TcbStatus::ConfigurationAndSwHardeningNeeded => 3,
        TcbStatus::TdRelaunchAdvised | TcbStatus::TdRelaunchAdvisedConfigurationNeeded => 4,
        TcbStatus::OutOfDate => 5,
        TcbStatus::OutOfDateConfigurationNeeded => 6,
        TcbStatus::Revoked => 7,
        TcbStatus::NotSupported => 8,
    }
}

/// Visits each component of `level` that the platform does not reach: (component, have, need).
fn visit_missing(
    inputs: &Inputs<'_>,
    tee_tcb_svn: Option<&[u8; 16]>,
    level: &TcbLevel,
    visit: &mut impl FnMut(Component, u32, u32),
) {
    let mut compare = |component: fn(u8) -> Component, have: &[u8; 16], need: &[u8; 16], from: usize| {
        for ((index, have), need) in (0u8..).zip(have).zip(need).skip(from) {
            if have < need {
                visit(component(index), u32::from(*have), u32::from(*need));
            }
        }
    };
    compare(Component::Sgx, &inputs.pck.sgx_components, &level.sgx, 0);
    if let Some(svn) = tee_tcb_svn {
        compare(Component::Tdx, svn, &level.tdx, first_tdx_component(svn));
    }
    if inputs.pck.pce_svn < level.pce_svn {
        visit(Component::Pce, inputs.pck.pce_svn, level.pce_svn);
    }
}

/// Fills in shortfalls and actions of a verdict that is not up to date.
pub(super) fn explain(inputs: &Inputs<'_>, tee_tcb_svn: Option<&[u8; 16]>, verdict: &mut TcbVerdict) {
    let mut shortfalls = Vec::new();
    let best = inputs.info.levels.iter().map(|level| rank(level.status)).min();
    let goal =
        inputs.info.levels.iter().filter(|level| Some(rank(level.status)) == best).min_by_key(|level| {
            let mut missing = 0u32;
            visit_missing(inputs, tee_tcb_svn, level, &mut |_, _, _| missing += 1);
            missing
        });
    if let Some(goal) = goal {
        visit_missing(inputs, tee_tcb_svn, goal, &mut |component, have, need| {
            let kinds = match component {
                Component::Sgx(index) => inputs.info.sgx_components.get(usize::from(index)),
                Component::Tdx(index) => inputs.info.tdx_components.get(usize::from(index)),
                _ => None,
            };
            shortfalls.push(Shortfall { component, kind: kinds.cloned().unwrap_or_default(), have, need });
        });
    }
    if let Some([minor, major @ 1..=255, ..]) = tee_tcb_svn
        && let Some(identity) = inputs.info.module_identity(*major)
    {
        // The lowest version that is still up to date.
        let levels = identity.levels.iter().rev();
        let need = levels.clone().find(|level| level.status == Some(TcbStatus::UpToDate));
        if let Some(need) = need.filter(|level| u32::from(*minor) < level.isv_svn) {
            shortfalls.push(Shortfall {
                component: Component::Module { major: *major },
                kind: ComponentKind::default(),
                have: u32::from(*minor),
                need: need.isv_svn,
            });
        }
    }
    let need = inputs.identity.levels.iter().rev().find(|level| level.status == TcbStatus::UpToDate);
    if let Some(need) = need.filter(|level| u32::from(inputs.qe_svn) < level.isv_svn) {
        shortfalls.push(Shortfall {
            component: Component::QuotingEnclave,
            kind: ComponentKind::default(),
            have: u32::from(inputs.qe_svn),
            need: need.isv_svn,
        });
    }
    verdict.actions = actions(verdict.status, &shortfalls);
    verdict.shortfalls = shortfalls;
}

fn is_unnamed(shortfall: &Shortfall) -> bool {
    shortfall.kind.category.is_empty() && shortfall.kind.kind.is_empty()
}

fn actions(status: TcbStatus, shortfalls: &[Shortfall]) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut add = |action| {
        if !actions.contains(&action) {
            actions.push(action);
        }
    };
    if status == TcbStatus::Revoked {
        add(Action::DoNotUse);
    }
    let mut renew = false;
    for shortfall in shortfalls {
        let kind = &*shortfall.kind.kind;
        match shortfall.component {
            Component::Module { .. } => add(Action::UpdateTdxModule),
            Component::QuotingEnclave => add(Action::UpdateQuotingEnclave),
            Component::Pce => {
                renew = true;
                add(Action::UpdatePce);
            }
            // A component without a name stands for the platform's configuration.
            Component::Sgx(_) if status.needs_configuration() && is_unnamed(shortfall) => {
                add(Action::Reconfigure);
            }
            Component::Sgx(_) | Component::Tdx(_) => {
                renew |= matches!(shortfall.component, Component::Sgx(_));
                add(if &*shortfall.kind.category == "BIOS" || kind.contains("Early Microcode") {
                    Action::UpdateFirmware
                } else if kind.contains("TDX Module") {
                    Action::UpdateTdxModule
                } else if kind.contains("SEAMLDR") {
                    Action::UpdateSeamLoader
                } else if kind.contains("Microcode") {
                    Action::UpdateMicrocode
                } else {
                    Action::UpdatePlatformSoftware
                });
            }
        }
    }
    if renew {
        add(Action::RenewPckCertificate);
    }
    if status.needs_configuration() {
        add(Action::Reconfigure);
    }
    if matches!(status, TcbStatus::SwHardeningNeeded | TcbStatus::ConfigurationAndSwHardeningNeeded) {
        add(Action::HardenSoftware);
    }
    if matches!(status, TcbStatus::TdRelaunchAdvised | TcbStatus::TdRelaunchAdvisedConfigurationNeeded) {
        add(Action::RelaunchTd);
    }
    // Out of date, and nothing in the collateral would be less so.
    if actions.is_empty() && status != TcbStatus::UpToDate {
        actions.push(Action::AskVendor);
    }
    actions
}
