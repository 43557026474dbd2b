//! TCB info version 3: the TCB levels of one platform family, sorted as Intel's library sorts them.

use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::Deserialize;

use super::json::{self, Text};
use super::level::{IsvSvn, RawLevel, highest_first};
use super::{CollateralError, Part, TcbStatus};
use crate::UnixSeconds;
use crate::quote::TeeType;

const PART: Part = Part::TcbInfo;

/// The security versions of sixteen components.
pub type SvnArray = [u8; 16];

/// What a component is, in Intel's words; empty where the collateral does not say.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ComponentKind {
    /// Who updates it: `BIOS`, `OS/VMM`.
    pub category: Arc<str>,
    /// What the component is: `SEAMLDR ACM`, `Early Microcode Update`.
    pub kind: Arc<str>,
}

/// One TCB level of a platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcbLevel {
    /// Least versions of the SGX components.
    pub sgx: SvnArray,
    /// Least version of the provisioning certification enclave.
    pub pce_svn: u32,
    /// Least versions of the TDX components; zeros in TCB info for SGX.
    pub tdx: SvnArray,
    /// When this level was the newest.
    pub date: UnixSeconds,
    /// The status of a platform at this level.
    pub status: TcbStatus,
    /// Advisories that apply at this level.
    pub advisories: Vec<Arc<str>>,
}

/// One TCB level of a TDX module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleLevel {
    /// Least security version of the module.
    pub isv_svn: u32,
    /// When this level was the newest.
    pub date: UnixSeconds,
    /// Status as named; `None` for a name this crate does not know.
    pub status: Option<TcbStatus>,
    /// Advisories that apply at this level.
    pub advisories: Vec<Arc<str>>,
}

/// Identity of a TDX module: who signed it, which attributes it has, and its TCB levels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleIdentity {
    /// Identifier, `TDX_01` for major version 1; empty for `tdxModule`.
    pub id: Arc<str>,
    /// MRSIGNERSEAM.
    pub mr_signer: [u8; 48],
    /// SEAMATTRIBUTES.
    pub attributes: [u8; 8],
    /// Levels, highest version first; none for `tdxModule`.
    pub levels: Vec<ModuleLevel>,
}

/// A decoded TCB info.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcbInfo {
    /// The kind of TEE that the TCB info is for.
    pub tee: TeeType,
    /// When the TCB info was issued.
    pub issued: UnixSeconds,
    /// Until when it may be used.
    pub next_update: UnixSeconds,
    /// Platform family.
    pub fmspc: [u8; 6],
    /// Provisioning certification enclave.
    pub pce_id: [u8; 2],
    /// Number of the TCB recovery that this reflects.
    pub evaluation_number: u32,
    /// `tdxModule`: identity of modules of major version 0; `None` for SGX.
    pub module: Option<ModuleIdentity>,
    /// `tdxModuleIdentities`: identities of modules of other major versions.
    pub module_identities: Vec<ModuleIdentity>,
    /// Levels, sorted by SGX components, then PCESVN, then TDX components, highest first.
    pub levels: Vec<TcbLevel>,
    /// What the SGX components are.
    pub sgx_components: [ComponentKind; 16],
    /// What the TDX components are.
    pub tdx_components: [ComponentKind; 16],
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawInfo<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    version: u32,
    #[serde(borrow)]
    issue_date: Text<'a>,
    #[serde(borrow)]
    next_update: Text<'a>,
    #[serde(borrow)]
    fmspc: Text<'a>,
    #[serde(borrow)]
    pce_id: Text<'a>,
    tcb_type: i32,
    tcb_evaluation_data_number: u32,
    #[serde(borrow, default)]
    tdx_module: Option<RawModule<'a>>,
    #[serde(borrow, default)]
    tdx_module_identities: Option<Vec<RawIdentity<'a>>>,
    #[serde(borrow)]
    tcb_levels: Vec<RawLevel<'a, RawTcb<'a>>>,
}

#[derive(Deserialize)]
struct RawModule<'a> {
    #[serde(borrow)]
    mrsigner: Text<'a>,
    #[serde(borrow)]
    attributes: Text<'a>,
    #[serde(borrow, rename = "attributesMask")]
    attributes_mask: Text<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawIdentity<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    mrsigner: Text<'a>,
    #[serde(borrow)]
    attributes: Text<'a>,
    #[serde(borrow)]
    attributes_mask: Text<'a>,
    #[serde(borrow)]
    tcb_levels: Vec<RawLevel<'a, IsvSvn>>,
}

#[derive(Deserialize)]
struct RawTcb<'a> {
    #[serde(borrow)]
    sgxtcbcomponents: [RawComponent<'a>; 16],
    pcesvn: u32,
    #[serde(borrow, default)]
    tdxtcbcomponents: Option<[RawComponent<'a>; 16]>,
}

#[derive(Deserialize)]
struct RawComponent<'a> {
    svn: u8,
    #[serde(borrow, default)]
    category: Option<Text<'a>>,
    #[serde(borrow, default, rename = "type")]
    kind: Option<Text<'a>>,
}

fn field(name: &'static str) -> CollateralError {
    CollateralError::Field { part: PART, field: name }
}

impl TcbInfo {
    /// Decodes the inner object of a TCB info, as served.
    ///
    /// # Errors
    /// Anything that Intel's library refuses: other versions than 3, a TCB type other than 0, statuses
    /// and dates that do not exist, missing TDX parts, no or duplicate levels.
    pub fn parse(text: &str) -> Result<Self, CollateralError> {
        let raw: RawInfo<'_> = json::decode_object(text, PART)?;
        if raw.version != 3 {
            return Err(CollateralError::Version { part: PART, version: raw.version });
        }
        let tee = match raw.id.as_str() {
            "SGX" => TeeType::SGX,
            "TDX" => TeeType::TDX,
            _ => return Err(field("id")),
        };
        if raw.tcb_type != 0 {
            return Err(field("tcbType"));
        }
        let is_tdx = tee == TeeType::TDX;
        if raw.tdx_module.is_some() != is_tdx {
            return Err(field("tdxModule"));
        }
        if raw.tdx_module_identities.as_ref().is_some_and(|list| list.is_empty() || !is_tdx) {
            return Err(field("tdxModuleIdentities"));
        }
        let (sgx_components, tdx_components) = component_kinds(&raw.tcb_levels);
        Ok(Self {
            tee,
            issued: raw.issue_date.date(PART, "issueDate")?,
            next_update: raw.next_update.date(PART, "nextUpdate")?,
            fmspc: raw.fmspc.hex(PART, "fmspc")?,
            pce_id: raw.pce_id.hex(PART, "pceId")?,
            evaluation_number: raw.tcb_evaluation_data_number,
            module: raw.tdx_module.map(module).transpose()?,
            module_identities: raw
                .tdx_module_identities
                .unwrap_or_default()
                .iter()
                .map(module_identity)
                .collect::<Result<_, _>>()?,
            levels: levels(&raw.tcb_levels, is_tdx)?,
            sgx_components,
            tdx_components,
        })
    }

    /// The identity of TDX modules of a major version, found by `TDX_` and two hexadecimal digits.
    #[must_use]
    pub fn module_identity(&self, major: u8) -> Option<&ModuleIdentity> {
        self.module_identities.iter().find(|identity| {
            identity
                .id
                .split_at_checked(4)
                .filter(|(prefix, digits)| prefix.eq_ignore_ascii_case("TDX_") && digits.len() == 2)
                .and_then(|(_, digits)| crate::bytes::hex_array::<1>(digits))
                == Some([major])
        })
    }
}

fn module(raw: RawModule<'_>) -> Result<ModuleIdentity, CollateralError> {
    raw.attributes_mask.hex::<8>(PART, "tdxModule.attributesMask")?;
    Ok(ModuleIdentity {
        id: Arc::from(""),
        mr_signer: raw.mrsigner.hex(PART, "tdxModule.mrsigner")?,
        attributes: raw.attributes.hex(PART, "tdxModule.attributes")?,
        levels: Vec::new(),
    })
}

fn module_identity(raw: &RawIdentity<'_>) -> Result<ModuleIdentity, CollateralError> {
    raw.attributes_mask.hex::<8>(PART, "tdxModuleIdentities.attributesMask")?;
    let mut levels = Vec::with_capacity(raw.tcb_levels.len());
    for level in &raw.tcb_levels {
        levels.push(ModuleLevel {
            isv_svn: level.tcb.isvsvn,
            date: level.date(PART, "tdxModuleIdentities.tcbDate")?,
            status: level.status(),
            advisories: level.advisories(),
        });
    }
    Ok(ModuleIdentity {
        id: Arc::from(raw.id.as_str()),
        mr_signer: raw.mrsigner.hex(PART, "tdxModuleIdentities.mrsigner")?,
        attributes: raw.attributes.hex(PART, "tdxModuleIdentities.attributes")?,
        levels: highest_first(levels, |level| level.isv_svn, PART, "tdxModuleIdentities.tcbLevels")?,
    })
}

fn levels(raw: &[RawLevel<'_, RawTcb<'_>>], is_tdx: bool) -> Result<Vec<TcbLevel>, CollateralError> {
    let mut levels = Vec::with_capacity(raw.len());
    for level in raw {
        let tdx = match &level.tcb.tdxtcbcomponents {
            Some(components) if is_tdx => components.each_ref().map(|component| component.svn),
            None if is_tdx => return Err(field("tdxtcbcomponents")),
            _ => [0; 16],
        };
        levels.push(TcbLevel {
            sgx: level.tcb.sgxtcbcomponents.each_ref().map(|component| component.svn),
            pce_svn: level.tcb.pcesvn,
            tdx,
            date: level.date(PART, "tcbDate")?,
            status: level.known_status(PART)?,
            advisories: level.advisories(),
        });
    }
    highest_first(levels, |level| (level.sgx, level.pce_svn, level.tdx), PART, "tcbLevels")
}

/// What the components are: the first level says it for all.
fn component_kinds(levels: &[RawLevel<'_, RawTcb<'_>>]) -> ([ComponentKind; 16], [ComponentKind; 16]) {
    let text = |text: &Option<Text<'_>>| Arc::from(text.as_ref().map_or("", Text::as_str));
    let kinds = |components: &[RawComponent<'_>; 16]| {
        components.each_ref().map(|component| ComponentKind {
            category: text(&component.category),
            kind: text(&component.kind),
        })
    };
    match levels.first() {
        Some(level) => (
            kinds(&level.tcb.sgxtcbcomponents),
            level.tcb.tdxtcbcomponents.as_ref().map(kinds).unwrap_or_default(),
        ),
        None => Default::default(),
    }
}
