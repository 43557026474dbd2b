//! The keys of a policy file with their types, before their values are looked at.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;

use crate::policy::{Quantifier, Rule};
use crate::strict::{Object, stated};

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPolicy {
    #[serde(default, deserialize_with = "stated")]
    pub(super) tee: Option<RawTee>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) tcb: Option<Object<RawTcb>>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) platform: Option<Object<RawPlatform>>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) td: Option<Object<RawTd>>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) enclave: Option<Object<RawEnclave>>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) report_data: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTcb {
    #[serde(default, deserialize_with = "stated")]
    pub(super) accept: Option<Vec<String>>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) grace_days: Option<u32>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) minimum_evaluation_number: Option<u32>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) minimum_tee_tcb_svn: Option<String>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) minimum_qe_svn: Option<u16>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) minimum_pce_svn: Option<u16>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) minimum_date: Option<String>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) exceptions: Option<Vec<Object<RawException>>>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) allowed_advisories: Option<BTreeSet<String>>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) rejected_advisories: Option<BTreeSet<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPlatform {
    #[serde(default, deserialize_with = "stated")]
    pub(super) smt: Option<RawRule>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) dynamic: Option<RawRule>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) cached_keys: Option<RawRule>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) fmspc: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTd {
    #[serde(default, deserialize_with = "stated")]
    pub(super) debug: Option<RawRule>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) sept_ve_disable: Option<RawRule>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) migratable: Option<RawRule>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) attributes: Option<Object<RawBits>>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) xfam: Option<Object<RawBits>>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) mr_seam: Option<Vec<String>>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) mr_td: Option<Vec<String>>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) mr_config_id: Option<Vec<String>>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) mr_owner: Option<Vec<String>>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) mr_owner_config: Option<Vec<String>>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) rtmr0: Option<Vec<String>>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) rtmr1: Option<Vec<String>>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) rtmr2: Option<Vec<String>>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) rtmr3: Option<WordOrList>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) mr_service_td: Option<WordOrList>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) init_service_td: Option<WordOrList>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) current_service_td: Option<WordOrList>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) vm_id: Option<WordOrNumbers>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) events: Option<Vec<Object<RawEventRule>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEventRule {
    pub(super) register: String,
    pub(super) part: String,
    #[serde(default, deserialize_with = "stated")]
    pub(super) which: Option<RawQuantifier>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) digest: Option<Vec<String>>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) contains: Option<Vec<String>>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) lacks: Option<Vec<String>>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawQuantifier {
    All,
    Some,
    None,
}

impl From<RawQuantifier> for Quantifier {
    fn from(raw: RawQuantifier) -> Self {
        match raw {
            RawQuantifier::All => Self::All,
            RawQuantifier::Some => Self::Some,
            RawQuantifier::None => Self::None,
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEnclave {
    #[serde(default, deserialize_with = "stated")]
    pub(super) debug: Option<RawRule>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) mr_enclave: Option<Vec<String>>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) mr_signer: Option<Vec<String>>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) isv_prod_id: Option<u16>,
    #[serde(default, deserialize_with = "stated")]
    pub(super) minimum_isv_svn: Option<u16>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawException {
    pub(super) name: String,
    pub(super) fmspc: String,
    pub(super) component: String,
    pub(super) until: String,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawTee {
    Tdx,
    Sgx,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawRule {
    Require,
    Forbid,
    Any,
}

impl From<RawRule> for Rule {
    fn from(raw: RawRule) -> Self {
        match raw {
            RawRule::Require => Self::Require,
            RawRule::Forbid => Self::Forbid,
            RawRule::Any => Self::Any,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBits {
    pub(super) mask: String,
    pub(super) value: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum WordOrList {
    Word(String),
    List(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum WordOrNumbers {
    Word(String),
    Numbers(Vec<u8>),
}
