//! Test collateral: TCB info, QE identity and revocation lists for any date, status and revocation.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use super::pki::{Role, TestPki};
use super::platform::PlatformSpec;
use crate::collateral::{Bundle, SignedBody, SvnArray, TcbStatus};
use crate::crypto::Signature;
use crate::quote::TeeType;
use crate::time::{UnixSeconds, Validity};
use crate::{Hex, quote::Measurement};

/// MRSIGNER of the test quoting enclaves.
pub const QE_MR_SIGNER: [u8; 32] = *b"tdvisor TEST quoting enclave....";

const DAY: u64 = 86_400;

/// A TCB level of the TCB info.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelSpec {
    /// SGX components.
    pub sgx: SvnArray,
    /// PCESVN.
    pub pce_svn: u16,
    /// TDX components.
    pub tdx: SvnArray,
    /// tcbDate.
    pub date: UnixSeconds,
    /// tcbStatus.
    pub status: TcbStatus,
    /// advisoryIDs.
    pub advisories: Vec<String>,
}

/// A TCB level of a TDX module or of a quoting enclave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentLevelSpec {
    /// isvsvn.
    pub isv_svn: u16,
    /// tcbDate.
    pub date: UnixSeconds,
    /// tcbStatus.
    pub status: TcbStatus,
    /// advisoryIDs.
    pub advisories: Vec<String>,
}

/// A TDX module identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleSpec {
    /// Major version.
    pub major: u8,
    /// mrsigner.
    pub mr_signer: Measurement,
    /// attributes.
    pub attributes: u64,
    /// tcbLevels.
    pub levels: Vec<ComponentLevelSpec>,
}

/// What the collateral says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollateralSpec {
    /// Whom the TCB info and QE identity are for.
    pub tee: TeeType,
    /// issueDate and nextUpdate of the JSON bodies.
    pub json_validity: Validity,
    /// thisUpdate and nextUpdate of the revocation lists.
    pub crl_validity: Validity,
    /// tcbEvaluationDataNumber.
    pub evaluation_number: u32,
    /// fmspc of the TCB info.
    pub fmspc: [u8; 6],
    /// pceId of the TCB info.
    pub pce_id: [u8; 2],
    /// tcbLevels of the TCB info.
    pub levels: Vec<LevelSpec>,
    /// mrsigner of `tdxModule`.
    pub module_mr_signer: Measurement,
    /// tdxModuleIdentities.
    pub modules: Vec<ModuleSpec>,
    /// tcbLevels of the QE identity.
    pub qe_levels: Vec<ComponentLevelSpec>,
    /// Whose certificates are revoked.
    pub revoked: Vec<Role>,
}

impl CollateralSpec {
    /// Collateral issued at `at`, for 30 days, by which `platform` with `tee_tcb_svn` is up to date.
    #[must_use]
    pub fn up_to_date(
        platform: &PlatformSpec,
        tee: TeeType,
        tee_tcb_svn: &SvnArray,
        qe_isv_svn: u16,
        at: UnixSeconds,
    ) -> Self {
        let validity = Validity { from: at, until: UnixSeconds(at.0.saturating_add(30 * DAY)) };
        let [minor, major, rest @ ..] = *tee_tcb_svn;
        let mut tdx = [0; 16];
        if major == 0 {
            tdx[0] = minor;
        }
        for (place, svn) in tdx.iter_mut().skip(2).zip(rest) {
            *place = svn;
        }
        let level = |isv_svn| ComponentLevelSpec {
            isv_svn,
            date: at,
            status: TcbStatus::UpToDate,
            advisories: Vec::new(),
        };
        let modules = (major > 0).then(|| ModuleSpec {
            major,
            mr_signer: [0; 48],
            attributes: 0,
            levels: Vec::from([level(u16::from(minor))]),
        });
        Self {
            tee,
            json_validity: validity,
            crl_validity: validity,
            evaluation_number: 17,
            fmspc: platform.fmspc,
            pce_id: platform.pce_id,
            levels: Vec::from([LevelSpec {
                sgx: platform.sgx_components,
                pce_svn: platform.pce_svn,
                tdx,
                date: at,
                status: TcbStatus::UpToDate,
                advisories: Vec::new(),
            }]),
            module_mr_signer: [0; 48],
            modules: modules.into_iter().collect(),
            qe_levels: Vec::from([level(qe_isv_svn)]),
            revoked: Vec::new(),
        }
    }

    /// The signed bundle.
    #[must_use]
    pub fn issue(&self, pki: &TestPki) -> Bundle {
        let signed = |body: String| SignedBody {
            signature: Signature(pki.sign_collateral(&body)),
            chain: pki.signing_chain(),
            body,
        };
        let revoked_by = |issuer: Role| -> Vec<Role> {
            let by_ca = issuer == Role::PckCa;
            self.revoked.iter().copied().filter(|role| (*role == Role::Pck) == by_ca).collect()
        };
        Bundle {
            tcb_info: signed(self.tcb_info()),
            qe_identity: signed(self.qe_identity()),
            root_crl: pki.revocation_list(Role::Root, self.crl_validity, &revoked_by(Role::Root)),
            pck_crl: pki.revocation_list(Role::PckCa, self.crl_validity, &revoked_by(Role::PckCa)),
            pck_crl_chain: Vec::from([pki.certificate(Role::PckCa), pki.certificate(Role::Root)]),
            pck_chain: Vec::new(),
        }
    }

    fn dates(&self, out: &mut String) {
        let Validity { from, until } = self.json_validity;
        put(out, format_args!("\"issueDate\":\"{from}\",\"nextUpdate\":\"{until}\","));
    }

    /// The TCB info's inner object.
    fn tcb_info(&self) -> String {
        let is_tdx = self.tee == TeeType::TDX;
        let mut out = String::new();
        put(&mut out, format_args!("{{\"id\":\"{}\",\"version\":3,", if is_tdx { "TDX" } else { "SGX" }));
        self.dates(&mut out);
        put(
            &mut out,
            format_args!(
                "\"fmspc\":\"{}\",\"pceId\":\"{}\",\"tcbType\":0,\"tcbEvaluationDataNumber\":{},",
                Hex(&self.fmspc),
                Hex(&self.pce_id),
                self.evaluation_number
            ),
        );
        if is_tdx {
            put(&mut out, format_args!("\"tdxModule\":{{"));
            module_fields(&mut out, &self.module_mr_signer, 0);
            out.push_str("},");
            if !self.modules.is_empty() {
                out.push_str("\"tdxModuleIdentities\":[");
                join(&mut out, &self.modules, |out, module| {
                    put(out, format_args!("{{\"id\":\"TDX_{:02X}\",", module.major));
                    module_fields(out, &module.mr_signer, module.attributes);
                    out.push_str(",\"tcbLevels\":[");
                    join(out, &module.levels, component_level);
                    out.push_str("]}");
                });
                out.push_str("],");
            }
        }
        out.push_str("\"tcbLevels\":[");
        join(&mut out, &self.levels, |out, level| {
            out.push_str("{\"tcb\":{\"sgxtcbcomponents\":[");
            join(out, &level.sgx, |out, svn| put(out, format_args!("{{\"svn\":{svn}}}")));
            put(out, format_args!("],\"pcesvn\":{}", level.pce_svn));
            if is_tdx {
                out.push_str(",\"tdxtcbcomponents\":[");
                join(out, &level.tdx, |out, svn| put(out, format_args!("{{\"svn\":{svn}}}")));
                out.push(']');
            }
            level_tail(out, level.date, level.status, &level.advisories);
        });
        out.push_str("]}");
        out
    }

    /// The QE identity's inner object.
    fn qe_identity(&self) -> String {
        let (id, product) = if self.tee == TeeType::TDX { ("TD_QE", 2) } else { ("QE", 1) };
        let mut out = String::new();
        put(&mut out, format_args!("{{\"id\":\"{id}\",\"version\":2,"));
        self.dates(&mut out);
        put(
            &mut out,
            format_args!(
                "\"tcbEvaluationDataNumber\":{},\"miscselect\":\"00000000\",\"miscselectMask\":\"FFFFFFFF\",\
                 \"attributes\":\"11000000000000000000000000000000\",\
                 \"attributesMask\":\"FBFFFFFFFFFFFFFF0000000000000000\",\
                 \"mrsigner\":\"{}\",\"isvprodid\":{product},\"tcbLevels\":[",
                self.evaluation_number,
                Hex(&QE_MR_SIGNER)
            ),
        );
        join(&mut out, &self.qe_levels, component_level);
        out.push_str("]}");
        out
    }
}

/// Writes formatted text; writing to a string cannot fail.
fn put(out: &mut String, text: core::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}

/// Writes items with commas between them.
fn join<T>(out: &mut String, items: &[T], mut write: impl FnMut(&mut String, &T)) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write(out, item);
    }
}

fn module_fields(out: &mut String, mr_signer: &Measurement, attributes: u64) {
    put(
        out,
        format_args!(
            "\"mrsigner\":\"{}\",\"attributes\":\"{}\",\"attributesMask\":\"FFFFFFFFFFFFFFFF\"",
            Hex(mr_signer),
            Hex(&attributes.to_le_bytes())
        ),
    );
}

/// Closes `tcb` and writes what every level ends with.
fn level_tail(out: &mut String, date: UnixSeconds, status: TcbStatus, advisories: &[String]) {
    put(out, format_args!("}},\"tcbDate\":\"{date}\",\"tcbStatus\":\"{status}\""));
    if !advisories.is_empty() {
        out.push_str(",\"advisoryIDs\":[");
        join(out, advisories, |out, id| put(out, format_args!("\"{id}\"")));
        out.push(']');
    }
    out.push('}');
}

fn component_level(out: &mut String, level: &ComponentLevelSpec) {
    put(out, format_args!("{{\"tcb\":{{\"isvsvn\":{}", level.isv_svn));
    level_tail(out, level.date, level.status, &level.advisories);
}
