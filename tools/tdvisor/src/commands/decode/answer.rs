//! Statuses and leaves, printed.

use std::io::Write;

use serde_json::{Value, json};
use tdx_module_iface::explain::{LeafCard, Side};
use tdx_module_iface::leaf::RegUse;
use tdx_module_iface::{Release, Status};

use super::quote_error::QuoteError;
use super::{Form, JSON_SCHEMA, Stop};

/// Prints what a status means.
pub fn status(status: Status, form: Form, out: &mut impl Write) -> Result<(), Stop> {
    if form == Form::Json {
        writeln!(out, "{}", status_json(status))?;
        return Ok(());
    }
    let code = status.code();
    writeln!(out, "{:#018x} {code}", status.raw())?;
    writeln!(
        out,
        "  class     {} ({:#04x}), code {:#04x}",
        code.class(),
        status.class(),
        status.class_code()
    )?;
    let details = status.typed_details();
    if !details.is_empty() {
        writeln!(out, "  details   {details}")?;
    }
    writeln!(out, "  recovery  {}", status.recovery())?;
    if let Some(info) = code.info() {
        if info.since > Release::V1_5_01 {
            writeln!(out, "  modules   from release {} on", info.since)?;
        }
        writeln!(out, "  cause     {}", info.cause)?;
        writeln!(out, "  to do     {}", info.action)?;
    }
    Ok(())
}

/// Prints what an error of Intel's quote libraries means.
pub fn quote_error(error: QuoteError, form: Form, out: &mut impl Write) -> Result<(), Stop> {
    let (value, name, cause) = (format!("{:#06x}", error.value), error.name(), error.cause);
    match form {
        Form::Text => {
            writeln!(out, "{value} {name}\n  of        Intel's quote libraries\n  cause     {cause}")?
        }
        Form::Json => {
            let object = json!({
                "schema": JSON_SCHEMA,
                "kind": "quote-error",
                "value": value,
                "name": name,
                "cause": cause,
            });
            writeln!(out, "{object}")?;
        }
    }
    Ok(())
}

/// What a status means, as JSON.
pub fn status_json(status: Status) -> Value {
    let code = status.code();
    let info = code.info();
    let details = status.typed_details();
    json!({
        "schema": JSON_SCHEMA,
        "kind": "status",
        "value": format!("{:#018x}", status.raw()),
        "name": info.map(|info| info.name),
        "class": code.class().to_string(),
        "error": status.is_error(),
        "non_recoverable": status.is_non_recoverable(),
        "fatal": status.is_fatal(),
        "host_recoverability_hint": status.has_host_recoverability_hint(),
        "details": status.details(),
        "details_text": (!details.is_empty()).then(|| details.to_string()),
        "recovery": status.recovery().to_string(),
        "cause": info.map(|info| info.cause),
        "action": info.map(|info| info.action),
    })
}

/// Prints what is known about leaves.
pub fn leaves(cards: &[LeafCard], form: Form, out: &mut impl Write) -> Result<(), Stop> {
    for card in cards {
        match form {
            Form::Text => writeln!(out, "{card}")?,
            Form::Json => writeln!(out, "{}", leaf_json(card))?,
        }
    }
    Ok(())
}

fn leaf_json(card: &LeafCard) -> Value {
    let registers = |uses: &[RegUse]| -> Vec<Value> {
        uses.iter().map(|entry| json!({"reg": entry.reg.name(), "what": entry.what})).collect()
    };
    let info = card.info;
    json!({
        "schema": JSON_SCHEMA,
        "kind": "leaf",
        "instruction": match card.side { Side::Host => "SEAMCALL", Side::Guest => "TDCALL" },
        "number": info.number,
        "name": info.name,
        "summary": info.summary,
        "max_version": info.max_version(Release::V1_5_01),
        "newer_modules_only": info.since > Release::V1_5_01,
        "inputs": registers(info.inputs),
        "outputs": registers(info.outputs),
    })
}
