//! `tdvisor quote show`: every field of a quote or a TDREPORT, without judging it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tdvisor_attest::collateral::{ClaimedPlatform, requests};
use tdvisor_attest::evidence::{self, Evidence, HclReport};
use tdvisor_attest::quote::{Quote, SignedPart};
use tdvisor_attest::report::TdReport;
use tdvisor_attest::verdict::quote_json;
use tdvisor_attest::{Hex, UnixSeconds};

use crate::commands::verify::inputs::read;
use crate::commands::with_version;
use crate::outcome::{Failure, Status};
use crate::streams::print;

/// Print every field of a quote, TDREPORT or HCL report; nothing is verified.
///
/// Of a quote also what it says about its platform, and the requests whose answers verification needs; of a TDREPORT
/// whether its own hashes hold, and of an HCL report whether its REPORTDATA is the hash of its run-time data. Ends with
/// status 0; 2 for what is none of these.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The quote, TDREPORT or HCL report: its bytes, hexadecimal, base64, a quote buffer, or the evidence JSON that has it;
    /// `-` for standard input.
    #[arg(value_name = "QUOTE")]
    quote: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<Status, Failure> {
    let path = &args.quote;
    let opened = evidence::open(&read(path)?).map_err(|error| Failure::input(path.display(), error))?;
    let mut fields = match &opened.evidence {
        Evidence::Quote(bytes) => of_quote(path, bytes)?,
        Evidence::Report(bytes) => {
            let report =
                TdReport::from_bytes(bytes).map_err(|error| Failure::input(path.display(), error))?;
            of_report(report)
        }
        Evidence::Hcl(bytes) => {
            let hcl = HclReport::parse(bytes).map_err(|error| Failure::input(path.display(), error))?;
            let mut fields = of_report(hcl.report);
            let claims = String::from_utf8_lossy(hcl.runtime_data.0);
            fields["runtime_data"] = json!(claims);
            fields["runtime_data_holds"] = json!(hcl.binds_runtime_data());
            if !hcl.binds_runtime_data() {
                fields["runtime_data_problem"] = json!(
                    "REPORTDATA is not the SHA-256 of the run-time data: these are not what the TD reported"
                );
            }
            fields
        }
    };
    fields["forms"] = opened.forms.iter().map(|form| json!(form.to_string())).collect();
    let text = if args.json { format!("{:#}\n", with_version(fields)) } else { lines(&fields) };
    print(&text)?;
    Ok(Status::Success)
}

fn of_quote(path: &Path, bytes: &[u8]) -> Result<Value, Failure> {
    let quote = Quote::parse(bytes).map_err(|error| {
        // Say what could be read: a damaged tail does not hide the body.
        let body = SignedPart::parse(bytes)
            .map(|signed| format!(" (header and body are readable: {})", signed.body.body_type()))
            .unwrap_or_default();
        Failure::input(path.display(), format!("{error}{body}"))
    })?;
    let mut fields = quote_json(&quote);
    fields["platform"] = match ClaimedPlatform::of(&quote) {
        ClaimedPlatform::Certificate { pck, issuer, validity } => json!({
            "fmspc": Hex(&pck.fmspc).to_string(),
            "ca": issuer.map(|issuer| issuer.name()),
            "pce_id": Hex(&pck.pce_id).to_string(),
            "cpu_svn": Hex(&pck.cpu_svn).to_string(),
            "pce_svn": pck.pce_svn,
            "ppid": Hex(&pck.ppid).to_string(),
            "pck_valid_from": date(validity.from),
            "pck_valid_until": date(validity.until),
        }),
        ClaimedPlatform::Identity { ppid, cpu_svn, pce_svn, pce_id } => json!({
            "pce_id": Hex(&pce_id).to_string(),
            "cpu_svn": Hex(&cpu_svn).to_string(),
            "pce_svn": pce_svn,
            "ppid": Hex(&ppid).to_string(),
        }),
        ClaimedPlatform::Unknown => Value::Null,
    };
    fields["requests"] = requests(&quote)
        .iter()
        .map(|request| json!({ "part": request.part.to_string(), "url": request.url }))
        .collect();
    Ok(fields)
}

fn date(time: UnixSeconds) -> String {
    time.to_string()
}

fn of_report(report: &TdReport) -> Value {
    let hex = |bytes: &[u8]| json!(Hex(bytes).to_string());
    let (mac, tcb, td) = (&report.mac, &report.tee_tcb_info, &report.td_info);
    json!({
        "evidence": "TDREPORT",
        "hashes_hold": report.check_hashes().is_ok(),
        "problem": report.check_hashes().err().map(|error| error.to_string()),
        "cpu_svn": hex(&mac.cpu_svn),
        "report_data": hex(&mac.report_data),
        "tee_tcb_svn": hex(&tcb.tee_tcb_svn),
        "tee_tcb_svn2": hex(&tcb.tee_tcb_svn2),
        "mr_seam": hex(&tcb.mr_seam),
        "mr_signer_seam": hex(&tcb.mr_signer_seam),
        "td_attributes": td.attributes.to_string(),
        "xfam": format!("{:#018x}", td.xfam.get()),
        "mr_td": hex(&td.mr_td),
        "mr_config_id": hex(&td.mr_config_id),
        "mr_owner": hex(&td.mr_owner),
        "mr_owner_config": hex(&td.mr_owner_config),
        "rtmr": td.rtmr.iter().map(|rtmr| hex(rtmr)).collect::<Vec<_>>(),
        "mr_service_td": hex(&td.servtd_hash),
    })
}

/// One line per field; a list has one line per element, an object one per member.
fn lines(fields: &Value) -> String {
    let mut text = String::new();
    put(&mut text, "", fields);
    text
}

fn put(text: &mut String, name: &str, value: &Value) {
    match value {
        Value::Object(members) => {
            for (member, value) in members {
                let name = if name.is_empty() { member.clone() } else { format!("{name}.{member}") };
                put(text, &name, value);
            }
        }
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(index, value)| put(text, &format!("{name}[{index}]"), value));
        }
        Value::Null => {}
        Value::String(value) => text.push_str(&format!("{name:<26}{value}\n")),
        value => text.push_str(&format!("{name:<26}{value}\n")),
    }
}
