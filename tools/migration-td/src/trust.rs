//! Whom a migration TD trusts.
//!
//! # Time
//! A TD has no clock that its host does not set, so what time it is *now* is not asked at all. Evidence is verified for the
//! moment at which its newest piece was issued: all of it was valid together then. What a host can still do is to hand over
//! old evidence, from before a weakness was known. Against that stands the least evaluation number that every policy here
//! has to demand: a TCB recovery raises the number, and who raises the floor shuts out all evidence from before it.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use tdvisor_attest::collateral::Bundle;
use tdvisor_attest::policy::{Context, Expected, MaskedBits, Policy, Rtmr3, Rule, Tee};
use tdvisor_attest::quote::TdAttributes;
use tdvisor_attest::report::TdInfo;
use tdvisor_attest::verify::{TrustAnchor, Verifier};

use crate::configuration::Configuration;
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
    /// The policy demands no evaluation number: collateral of any age would do.
    NoFloor,
    /// The policy forgives for a time, by a grace period or an exception: without a clock that is for ever.
    Forgives,
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
            Self::NoFloor => {
                "a policy for migration TDs has to demand a least evaluation number of the collateral"
            }
            Self::Forgives => "grace periods and exceptions need a clock, which a migration TD does not have",
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

    /// Trust in TDs that are what this one is: the same measurements, owner, configuration and attributes, on a machine that
    /// the root of that configuration vouches for. A TD that can be debugged trusts nobody.
    ///
    /// # Errors
    /// [`Untrusting`].
    pub fn in_twins(own: &TdInfo, configuration: &Configuration) -> Result<Self, Untrusting> {
        let only = |measurement: [u8; 48]| Expected::OneOf(vec![measurement]);
        let all_of = |value: u64| MaskedBits { mask: u64::MAX, value };
        if own.attributes.bits() & TdAttributes::TUD != 0 {
            return Err(Untrusting::Debug);
        }
        let mut policy = Policy::default();
        policy.tcb.minimum_evaluation_number = configuration.least_evaluation_number();
        let td = &mut policy.td;
        td.attributes = all_of(own.attributes.bits());
        td.xfam = all_of(own.xfam.get());
        td.mr_td = only(own.mr_td);
        td.mr_config_id = only(own.mr_config_id);
        td.mr_owner = only(own.mr_owner);
        td.mr_owner_config = only(own.mr_owner_config);
        let [rtmr0, rtmr1, rtmr2, rtmr3] = own.rtmr;
        td.rtmr = [rtmr0, rtmr1, rtmr2].map(only);
        td.rtmr3 = Rtmr3::OneOf(vec![rtmr3]);
        match configuration.root() {
            Some(root) => Self::in_a_test(policy, root),
            None => Self::new(policy),
        }
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
        if policy.tcb.minimum_evaluation_number == 0 {
            return Err(Untrusting::NoFloor);
        }
        if policy.tcb.grace != 0 || !policy.tcb.exceptions.is_empty() {
            return Err(Untrusting::Forgives);
        }
        if policy.report_data.is_some() {
            return Err(Untrusting::ReportData);
        }
        Ok(Self { anchor, policy })
    }

    /// Judges a quote, whose REPORTDATA has to be this.
    pub(crate) fn judge(&self, quote: &[u8], report_data: &[u8], collateral: &Bundle) -> Result<(), Refused> {
        let mut verifier = Verifier::new(self.anchor.clone());
        verifier.add_collateral(collateral).map_err(Refused::Quote)?;
        let verified = verifier.verify_without_clock(quote).map_err(Refused::Quote)?;
        let policy = Policy { report_data: Some(Vec::from(report_data)), ..self.policy.clone() };
        let verdict = policy.evaluate(&verified, &Context::default());
        if verdict.is_accepted() { Ok(()) } else { Err(Refused::Policy(verdict)) }
    }
}
