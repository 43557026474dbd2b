//! One verdict, for people and for programs.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;

use serde_json::{Value, json};

use crate::policy::PolicyVerdict;
use crate::quote::{Body, Quote};
use crate::verify::{Evaluation, Verification, VerifyError};
use crate::{Hex, UnixSeconds};

/// Everything that is said about one quote.
pub struct Report<'a> {
    /// The verified quote, or why it is not valid.
    pub verified: Result<&'a Verification<'a>, VerifyError>,
    /// The policy's verdict; `None` for a quote that is not valid.
    pub policy: Option<&'a PolicyVerdict>,
    /// The time it was verified for.
    pub at: UnixSeconds,
    /// A test PKI was trusted.
    pub test_root: bool,
}

impl Report<'_> {
    /// The report as text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_text(&mut text);
        text
    }

    fn write_text(&self, out: &mut String) -> core::fmt::Result {
        writeln!(out, "at      {}", self.at)?;
        if self.test_root {
            writeln!(out, "root    a TEST root is trusted: this says nothing about real hardware")?;
        }
        let verified = match self.verified {
            Ok(verified) => verified,
            Err(error) => return writeln!(out, "quote   INVALID\n        {error} [{}]", error.code()),
        };
        let (quote, tcb) = (&verified.quote, &verified.tcb);
        writeln!(
            out,
            "quote   valid: version {}, {}, platform {}",
            quote.header().version,
            quote.body().body_type(),
            Hex(&verified.platform.fmspc)
        )?;
        writeln!(
            out,
            "        all evidence is valid from {} to {} (first to expire: {})",
            verified.window.latest_issue, verified.window.earliest_expiration, verified.window.expires_first
        )?;
        write!(out, "tcb     {}", tcb.status)?;
        if let Some(date) = tcb.date {
            write!(out, ", of {date}")?;
        }
        writeln!(out, ", evaluation number {}", verified.evaluation_number())?;
        if !tcb.advisories.is_empty() {
            writeln!(out, "        advisories: {}", tcb.advisories.join(", "))?;
        }
        for shortfall in &tcb.shortfalls {
            writeln!(out, "        {shortfall}")?;
        }
        for action in &tcb.actions {
            writeln!(out, "        → {action}")?;
        }
        if let Some(policy) = self.policy {
            writeln!(out, "policy  {}", if policy.is_accepted() { "accepted" } else { "REJECTED" })?;
            for exception in &policy.exceptions {
                writeln!(out, "        by exception: {exception}")?;
            }
            for finding in &policy.findings {
                writeln!(out, "        {finding} [{}]", finding.code())?;
            }
        }
        Ok(())
    }

    /// The report as JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut report = json!({ "at": self.at.0, "test_root": self.test_root });
        let verified = match self.verified {
            Ok(verified) => verified,
            Err(error) => {
                report["quote"] = json!("invalid");
                report["tcb"] = Value::Null;
                report["policy"] = json!("reject");
                report["error"] = json!({ "code": error.code(), "text": error.to_string() });
                return report;
            }
        };
        let tcb = &verified.tcb;
        report["quote"] = json!("valid");
        report["evidence"] = quote_json(&verified.quote);
        report["platform"] = json!({
            "fmspc": Hex(&verified.platform.fmspc).to_string(),
            "pce_id": Hex(&verified.platform.pce_id).to_string(),
            "ppid": Hex(&verified.platform.ppid).to_string(),
            "pce_svn": verified.platform.pce_svn,
            "sgx_components": verified.platform.sgx_components,
            "dynamic_platform": verified.platform.dynamic_platform,
            "cached_keys": verified.platform.cached_keys,
            "smt_enabled": verified.platform.smt_enabled,
        });
        report["validity"] = json!({
            "earliest_issue": verified.window.earliest_issue.0,
            "latest_issue": verified.window.latest_issue.0,
            "earliest_expiration": verified.window.earliest_expiration.0,
            "expires_first": verified.window.expires_first.to_string(),
        });
        report["tcb"] = json!(tcb.status.name());
        report["tcb_date"] = json!(tcb.date.map(|date| date.0));
        report["tcb_launch"] = evaluation_json(tcb.launch.as_ref());
        report["tcb_current"] = evaluation_json(tcb.current.as_ref());
        report["advisories"] = json!(tcb.advisories.iter().map(|id| &**id).collect::<Vec<_>>());
        report["evaluation_number"] = json!(verified.evaluation_number());
        report["shortfalls"] = tcb
            .shortfalls
            .iter()
            .map(|shortfall| {
                json!({
                    "component": shortfall.component.to_string(),
                    "kind": &*shortfall.kind.kind,
                    "category": &*shortfall.kind.category,
                    "have": shortfall.have,
                    "need": shortfall.need,
                })
            })
            .collect();
        report["actions"] = tcb
            .actions
            .iter()
            .map(|action| json!({ "code": action.code(), "text": action.to_string() }))
            .collect();
        if let Some(policy) = self.policy {
            report["policy"] = json!(if policy.is_accepted() { "accept" } else { "reject" });
            report["exceptions"] = json!(policy.exceptions);
            report["findings"] = policy
                .findings
                .iter()
                .map(|finding| json!({ "code": finding.code(), "text": finding.to_string() }))
                .collect();
        }
        report
    }
}

fn evaluation_json(evaluation: Option<&Evaluation>) -> Value {
    evaluation.map_or(Value::Null, |evaluation| {
        json!({
            "status": evaluation.status.name(),
            "date": evaluation.date.0,
            "platform": evaluation.platform.name(),
            "module": evaluation.module.map(|status| status.name()),
            "qe": evaluation.qe.name(),
            "advisories": evaluation.advisories.iter().map(|id| &**id).collect::<Vec<_>>(),
        })
    })
}

/// A quote's fields as JSON; byte strings as hexadecimal.
#[must_use]
pub fn quote_json(quote: &Quote<'_>) -> Value {
    let hex = |bytes: &[u8]| json!(Hex(bytes).to_string());
    let header = quote.header();
    let mut fields = json!({
        "version": header.version.get(),
        "tee": header.tee_type().to_string(),
        "attestation_key_type": header.attestation_key_type().to_string(),
        "qe_vendor_id": hex(&header.qe_vendor_id),
        "qe_id": hex(&header.user_data),
        "body": quote.body().body_type().to_string(),
        "report_data": hex(quote.body().report_data()),
        "qe_auth_bytes": quote.signature.qe_auth.len(),
        "qe_isv_svn": quote.signature.qe_report.isv_svn.get(),
        "qe_mr_signer": hex(&quote.signature.qe_report.mr_signer),
        "certification": quote.signature.certification.kind.to_string(),
        "trailing_bytes": quote.trailing.len(),
    });
    if let Body::Sgx(enclave) = quote.body() {
        fields["mr_enclave"] = hex(&enclave.mr_enclave);
        fields["mr_signer"] = hex(&enclave.mr_signer);
        fields["isv_prod_id"] = json!(enclave.isv_prod_id.get());
        fields["isv_svn"] = json!(enclave.isv_svn.get());
        fields["cpu_svn"] = hex(&enclave.cpu_svn);
        fields["attributes"] = hex(&enclave.attributes);
        fields["debug"] = json!(enclave.is_debug());
    }
    if let Some(td) = quote.body().td() {
        fields["tee_tcb_svn"] = hex(&td.tee_tcb_svn);
        fields["mr_seam"] = hex(&td.mr_seam);
        fields["mr_signer_seam"] = hex(&td.mr_signer_seam);
        fields["seam_attributes"] = json!(alloc::format!("{:#018x}", td.seam_attributes.get()));
        fields["td_attributes"] = json!(td.td_attributes.to_string());
        fields["xfam"] = json!(alloc::format!("{:#018x}", td.xfam.get()));
        fields["mr_td"] = hex(&td.mr_td);
        fields["mr_config_id"] = hex(&td.mr_config_id);
        fields["mr_owner"] = hex(&td.mr_owner);
        fields["mr_owner_config"] = hex(&td.mr_owner_config);
        fields["rtmr"] = td.rtmr.iter().map(|rtmr| hex(rtmr)).collect();
    }
    if let Some(td) = quote.body().td15() {
        fields["tee_tcb_svn2"] = hex(&td.tee_tcb_svn2);
        fields["mr_service_td"] = hex(&td.mr_service_td);
    }
    if let Body::Td15Ex(td) = quote.body() {
        fields["vm_id"] = json!(td.vm_id);
        fields["td_id"] = hex(&td.td_id);
        fields["dev_info"] = hex(&td.dev_info);
        fields["init_servtd_hash"] = hex(&td.init_servtd_hash);
        fields["init_servtd_attributes"] = json!(alloc::format!("{:#018x}", td.init_servtd_attributes.get()));
        fields["init_cpu_svn"] = hex(&td.init_cpu_svn);
        fields["init_tee_tcb_svn"] = hex(&td.init_tee_tcb_svn);
        fields["init_tee_fmspc"] = hex(&td.init_tee_fmspc);
        fields["cur_servtd_hash"] = hex(&td.cur_servtd_hash);
        fields["cur_servtd_attributes"] = json!(alloc::format!("{:#018x}", td.cur_servtd_attributes.get()));
    }
    fields
}
