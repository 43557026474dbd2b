//! Whom a migration TD trusts.

use alloc::vec::Vec;
use core::fmt;

use tdvisor_attest::UnixSeconds;
use tdvisor_attest::collateral::Bundle;
use tdvisor_attest::policy::{Context, Expected, Policy, Rule, Tee};
use tdvisor_attest::verify::{TrustAnchor, Verifier};

use crate::handshake::Refused;

/// A root, and a policy that says enough.
#[derive(Clone, Debug)]
pub struct Trust {
    anchor: TrustAnchor,
    policy: Policy,
}

/// A policy by which too many would be trusted, or a root that is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Untrusting {
    /// The policy is not about TDs.
    NotTdx,
    /// The policy allows a TD that can be debugged.
    Debug,
    /// The policy takes any MRTD: any TD could pose as a migration TD.
    AnyMrTd,
    /// The policy accepts no TCB status at all.
    NoTcb,
    /// The policy says what REPORTDATA is, which the conversation does.
    ReportData,
    /// The root is no certificate.
    Root,
}

impl fmt::Display for Untrusting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotTdx => "a policy for migration TDs has to be about TDs",
            Self::Debug => "a policy for migration TDs must forbid debugging",
            Self::AnyMrTd => "a policy for migration TDs has to say which MRTDs are theirs",
            Self::NoTcb => "the policy accepts no TCB status",
            Self::ReportData => "REPORTDATA belongs to the conversation, not to the policy",
            Self::Root => "the root is no self-issued certificate",
        })
    }
}

impl core::error::Error for Untrusting {}

impl Trust {
    /// Trust in TDs that keep `policy` on machines that Intel's root vouches for.
    ///
    /// # Errors
    /// [`Untrusting`].
    pub fn new(policy: Policy) -> Result<Self, Untrusting> {
        Self::with_anchor(policy, TrustAnchor::intel())
    }

    /// Trust in TDs that keep `policy` by a *test* root: it says nothing about real hardware. No other way leads to one.
    ///
    /// # Errors
    /// [`Untrusting`].
    pub fn in_a_test(policy: Policy, root: &[u8]) -> Result<Self, Untrusting> {
        Self::with_anchor(policy, TrustAnchor::from_bytes(root).map_err(|_| Untrusting::Root)?)
    }

    fn with_anchor(policy: Policy, anchor: TrustAnchor) -> Result<Self, Untrusting> {
        if policy.tee != Tee::Tdx {
            return Err(Untrusting::NotTdx);
        }
        if policy.td.debug != Rule::Forbid {
            return Err(Untrusting::Debug);
        }
        if !matches!(&policy.td.mr_td, Expected::OneOf(known) if !known.is_empty()) {
            return Err(Untrusting::AnyMrTd);
        }
        if policy.tcb.accept.is_empty() {
            return Err(Untrusting::NoTcb);
        }
        if policy.report_data.is_some() {
            return Err(Untrusting::ReportData);
        }
        Ok(Self { anchor, policy })
    }

    /// Judges a quote, whose REPORTDATA has to be this.
    pub(crate) fn judge(
        &self,
        quote: &[u8],
        report_data: &[u8],
        collateral: &Bundle,
        at: UnixSeconds,
    ) -> Result<(), Refused> {
        let mut verifier = Verifier::new(self.anchor.clone());
        verifier.add_collateral(collateral).map_err(Refused::Quote)?;
        let verified = verifier.verify(quote, at).map_err(Refused::Quote)?;
        let policy = Policy { report_data: Some(Vec::from(report_data)), ..self.policy.clone() };
        let verdict = policy.evaluate(&verified, &Context::default());
        if verdict.is_accepted() { Ok(()) } else { Err(Refused::Policy(verdict)) }
    }
}
