//! Evidence inside JSON: that of Trustee's attesters, of dstack, and of services around them.

use alloc::string::ToString;
use alloc::vec::Vec;

use serde_json::Value;

use super::{Evidence, EvidenceError, Form, OpenedLog, text, unwrap};
use crate::eventlog::EventLog;
use crate::predict::list;
use crate::strict;

/// Members that are a quote.
const QUOTES: [&str; 6] = ["quote", "td_quote", "tdQuote", "tdx_quote", "tdxQuote", "intel_quote"];
/// Members that are an HCL report, where there is no quote.
const HCL_REPORTS: [&str; 2] = ["hcl_report", "hclReport"];
/// Members that are an event log.
const LOGS: [&str; 5] = ["cc_eventlog", "event_log", "eventlog", "eventLog", "ccel"];
/// How deep members are looked for.
const MAX_DEPTH: usize = 8;
/// The most members of these names that are looked at.
const MAX_MEMBERS: usize = 64;

/// The quote in a JSON text.
pub(super) fn quote(text: &str, forms: &mut Vec<Form>) -> Result<Evidence, EvidenceError> {
    let value = strict::value(text).map_err(EvidenceError::Json)?;
    match &value {
        Value::Array(_) => {
            let bytes = byte_array(&value).ok_or(EvidenceError::NotAQuote)?;
            forms.push(Form::ByteArray);
            unwrap(&bytes, forms)
        }
        Value::String(inner) => {
            forms.push(Form::Json);
            unwrap(inner.as_bytes(), forms)
        }
        _ => {
            forms.push(Form::Json);
            match member(&value, &QUOTES, forms)? {
                Some(evidence) => Ok(evidence),
                None => member(&value, &HCL_REPORTS, forms)?.ok_or(EvidenceError::NoMember),
            }
        }
    }
}

/// The one evidence that members of these names hold.
fn member(value: &Value, names: &[&str], forms: &mut Vec<Form>) -> Result<Option<Evidence>, EvidenceError> {
    let mut found = Vec::new();
    collect(value, names, 0, &mut found)?;
    let mut only: Option<(Evidence, Vec<Form>)> = None;
    for member in found {
        let mut inner = forms.clone();
        let evidence = match &member {
            Value::String(text) => unwrap(text.as_bytes(), &mut inner)?,
            other => {
                inner.push(Form::ByteArray);
                unwrap(&byte_array(other).ok_or(EvidenceError::NotAQuote)?, &mut inner)?
            }
        };
        match &only {
            Some((first, _)) if *first != evidence => return Err(EvidenceError::TwoQuotes),
            Some(_) => {}
            None => only = Some((evidence, inner)),
        }
    }
    Ok(only.map(|(evidence, inner)| {
        *forms = inner;
        evidence
    }))
}

/// Members of these names, at any depth, and inside of JSON that is a text.
fn collect(value: &Value, names: &[&str], depth: usize, found: &mut Vec<Value>) -> Result<(), EvidenceError> {
    if depth > MAX_DEPTH || found.len() > MAX_MEMBERS {
        return Err(EvidenceError::NotAQuote);
    }
    match value {
        Value::Object(members) => members.iter().try_for_each(|(name, value)| {
            let is_object = matches!(value, Value::Object(_));
            if names.contains(&name.as_str()) && !is_object {
                // `null`: this kind of evidence has none.
                if !value.is_null() {
                    found.push(value.clone());
                }
                Ok(())
            } else {
                collect(value, names, depth + 1, found)
            }
        }),
        Value::Array(values) => {
            let objects = values.iter().filter(|value| matches!(value, Value::Object(_)));
            objects.take(MAX_MEMBERS).try_for_each(|value| collect(value, names, depth + 1, found))
        }
        Value::String(text) if text.trim_start().starts_with('{') => {
            let inner = strict::value(text).map_err(EvidenceError::Json)?;
            collect(&inner, names, depth + 1, found)
        }
        _ => Ok(()),
    }
}

fn byte_array(value: &Value) -> Option<Vec<u8>> {
    let numbers = value.as_array()?;
    numbers.iter().map(|number| number.as_u64().and_then(|number| u8::try_from(number).ok())).collect()
}

/// The event log in a JSON text: a list of events, or a member that is a log of either kind.
pub(super) fn log(text: &str) -> Result<OpenedLog, EvidenceError> {
    if text.starts_with('[') {
        return of_list(text);
    }
    let value = strict::value(text).map_err(EvidenceError::Json)?;
    let mut found = Vec::new();
    collect(&value, &LOGS, 0, &mut found)?;
    found.dedup();
    let [only] = found.as_slice() else {
        return Err(if found.is_empty() { EvidenceError::NoLog } else { EvidenceError::TwoQuotes });
    };
    match only {
        Value::String(inner) if inner.trim_start().starts_with('[') => of_list(inner.trim_start()),
        Value::String(inner) => {
            let decoded = [text::hex(inner), text::base64(inner)].into_iter().flatten();
            let mut error = None;
            for area in decoded {
                match EventLog::parse(&area) {
                    Ok(_) => return Ok(OpenedLog { area, list: None }),
                    Err(why) => error = Some(why),
                }
            }
            Err(error.map_or(EvidenceError::NoLog, EvidenceError::NotALog))
        }
        Value::Array(events) if events.iter().all(Value::is_object) => of_list(&only.to_string()),
        other => {
            let area = byte_array(other).ok_or(EvidenceError::NoLog)?;
            EventLog::parse(&area).map_err(EvidenceError::NotALog)?;
            Ok(OpenedLog { area, list: None })
        }
    }
}

fn of_list(text: &str) -> Result<OpenedLog, EvidenceError> {
    let list = list::parse(text).map_err(EvidenceError::List)?;
    Ok(OpenedLog { area: list.to_log(), list: Some(list) })
}
