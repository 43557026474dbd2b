//! The claims that Trustee's TDX verifier makes of a quote and its event log.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::{Map, Value, json};
use zerocopy::IntoBytes;

use super::intel_dcap::{self, NoClaims};
use crate::Hex;
use crate::eventlog::{Consistency, Event, EventData, EventLog, Whole};
use crate::quote::{Quote, TdAttributes};
use crate::verify::{TrustAnchor, Verification};
use crate::x509::pem;

/// Device path node: media.
const MEDIA: u8 = 4;
/// Media node: a file's path.
const FILE_PATH: u8 = 4;

/// The claims of a verified quote and the log that replays to its registers.
///
/// `report_data` and `init_data` stand at the top, beside `quote`, `td_attributes`, `uefi_event_logs` (with a log) and what
/// [`intel_dcap::claims`] has.
///
/// # Errors
/// [`NoClaims`]: an enclave's quote, or a terminal TCB status.
pub fn claims(
    verified: &Verification<'_>,
    anchor: &TrustAnchor,
    log: Option<&EventLog<'_>>,
) -> Result<Map<String, Value>, NoClaims> {
    let quote = &verified.quote;
    let td = quote.body().td().ok_or(NoClaims::NotATd)?;
    let mut claims = intel_dcap::claims(verified, anchor)?;
    let mut put = |name: &str, value: Value| {
        claims.insert(name.to_string(), value);
    };
    put("quote", of_quote(quote).ok_or(NoClaims::NotATd)?);
    put("td_attributes", of_attributes(td.td_attributes));
    put("report_data", hex(&td.report_data));
    put("init_data", hex(&td.mr_config_id));
    if let Some(id) = verified.platform.platform_instance_id {
        put("platform_instance_id", hex(&id));
    }
    if let Some(log) = log {
        put("uefi_event_logs", log.events().map(|event| of_event(&event)).collect());
    }
    Ok(claims)
}

fn hex(bytes: &[u8]) -> Value {
    json!(Hex(bytes).to_string())
}

/// Header and body, every field as its bytes in hexadecimal.
fn of_quote(quote: &Quote<'_>) -> Option<Value> {
    let header = quote.header();
    let td = quote.body().td()?;
    let [rtmr_0, rtmr_1, rtmr_2, rtmr_3] = td.rtmr.each_ref().map(|rtmr| hex(rtmr));
    let header_bytes = header.as_bytes();
    let mut body = json!({
        "tcb_svn": hex(&td.tee_tcb_svn),
        "mr_seam": hex(&td.mr_seam),
        "mrsigner_seam": hex(&td.mr_signer_seam),
        "seam_attributes": hex(td.seam_attributes.as_bytes()),
        "td_attributes": hex(td.td_attributes.as_bytes()),
        "xfam": hex(td.xfam.as_bytes()),
        "mr_td": hex(&td.mr_td),
        "mr_config_id": hex(&td.mr_config_id),
        "mr_owner": hex(&td.mr_owner),
        "mr_owner_config": hex(&td.mr_owner_config),
        "rtmr_0": rtmr_0,
        "rtmr_1": rtmr_1,
        "rtmr_2": rtmr_2,
        "rtmr_3": rtmr_3,
        "report_data": hex(&td.report_data),
    });
    if let Some(td) = quote.body().td15() {
        body["tee_tcb_svn2"] = hex(&td.tee_tcb_svn2);
        body["mr_servicetd"] = hex(&td.mr_service_td);
    }
    let mut claims = json!({
        "header": {
            "version": hex(header_bytes.get(..2)?),
            "att_key_type": hex(header_bytes.get(2..4)?),
            "tee_type": hex(header_bytes.get(4..8)?),
            "reserved": hex(header_bytes.get(8..12)?),
            "vendor_id": hex(&header.qe_vendor_id),
            "user_data": hex(&header.user_data),
        },
        "body": body,
    });
    if header.version.get() == 5 {
        let kind = quote.body().body_type();
        claims["type"] = hex(&kind.0.to_le_bytes());
        claims["size"] = hex(&kind.size()?.to_le_bytes());
    }
    Some(claims)
}

/// The bits that have a name there.
fn of_attributes(attributes: TdAttributes) -> Value {
    let bits = attributes.bits();
    let is_set = |bit: u64| json!(bits & bit != 0);
    json!({
        "debug": is_set(TdAttributes::DEBUG),
        "septve_disable": is_set(TdAttributes::SEPT_VE_DISABLE),
        "protection_keys": is_set(TdAttributes::PKS),
        "key_locker": is_set(TdAttributes::KL),
        "perfmon": is_set(TdAttributes::PERFMON),
    })
}

/// An event. Of a device path the files are told, in the words that policies look for (`File(kernel)`).
fn of_event(event: &Event<'_>) -> Value {
    let digests: Vec<Value> = event
        .digests
        .iter()
        .map(|(algorithm, value)| json!({ "alg": algorithm.to_string(), "digest": hex(value) }))
        .collect();
    let mut details = Map::new();
    if let Some(text) = text(event) {
        details.insert("string".to_string(), json!(text));
    }
    if let EventData::Image { path, .. } = event.data() {
        let files = path.nodes().filter(|(kind, subtype, _)| (*kind, *subtype) == (MEDIA, FILE_PATH));
        let files = files.map(|(_, _, name)| json!(alloc::format!("File({})", crate::eventlog::Utf16(name))));
        details.insert("device_paths".to_string(), files.collect());
    }
    json!({
        "index": event.mr.0,
        "type_name": event.kind.to_string(),
        "digests": digests,
        "digest_matches_event": event.consistency() == Consistency::Measured,
        "event": base64(event.raw_data),
        "details": details,
    })
}

fn text(event: &Event<'_>) -> Option<String> {
    Some(match event.data() {
        EventData::Text(text) | EventData::Tagged { data: text, .. } => {
            Whole(text.strip_suffix(&[0]).unwrap_or(text)).to_string()
        }
        EventData::WideText(text) => text.to_string(),
        EventData::Blob { description, .. } | EventData::Tables { description, .. } => {
            Whole(description).to_string()
        }
        _ => return None,
    })
}

/// Base64 with padding, as claims carry raw data.
fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    pem::write_base64(bytes, &mut text);
    text
}
