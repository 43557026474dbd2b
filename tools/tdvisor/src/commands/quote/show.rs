//! `tdvisor quote show`: every field of a quote, without judging it.

use std::path::PathBuf;

use serde_json::Value;
use tdvisor_attest::quote::{Quote, SignedPart};

use crate::commands::verify::inputs::read_quote;
use crate::commands::verify::report::quote_json;
use crate::outcome::{Failure, Status};
use crate::streams::print;

/// Print every field of a quote; nothing is verified.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The quote, as binary or hexadecimal.
    #[arg(value_name = "QUOTE")]
    quote: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<Status, Failure> {
    let bytes = read_quote(&args.quote)?;
    let quote = Quote::parse(&bytes).map_err(|error| {
        // Say what could be read: a damaged tail does not hide the body.
        let body = SignedPart::parse(&bytes)
            .map(|signed| format!(" (header and body are readable: {})", signed.body.body_type()))
            .unwrap_or_default();
        Failure::input(args.quote.display(), format!("{error}{body}"))
    })?;
    let fields = quote_json(&quote);
    let text = if args.json { format!("{fields:#}\n") } else { lines(&fields) };
    print(&text)?;
    Ok(Status::Success)
}

/// One line per field; a list has one line per element.
fn lines(fields: &Value) -> String {
    let mut text = String::new();
    let mut put = |name: &str, value: &Value| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_string);
        text.push_str(&format!("{name:<22}{value}\n"));
    };
    for (name, value) in fields.as_object().into_iter().flatten() {
        match value {
            Value::Array(list) => {
                list.iter().enumerate().for_each(|(index, value)| put(&format!("{name}[{index}]"), value));
            }
            value => put(name, value),
        }
    }
    text
}
