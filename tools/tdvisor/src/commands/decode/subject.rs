//! What a word on the command line means: a status, a leaf, or the name of a file.

use std::path::{Path, PathBuf};

use tdx_module_iface::exit::ExitReason;
use tdx_module_iface::explain::{LeafCard, Side, explain_leaf};
use tdx_module_iface::status::{Status, StatusCode};

use super::quote_error::QuoteError;
use crate::outcome::Failure;

/// Something that can be explained.
pub enum Subject {
    /// A value of RAX on return.
    Status(Status),
    /// A code of Intel's quote libraries.
    QuoteError(QuoteError),
    /// One leaf, or the two of that number.
    Leaves(Vec<LeafCard>),
    /// A file of recorded calls.
    Trace(PathBuf),
}

/// Decides what `text` is. A file that exists under this name comes first.
pub fn classify(text: &str) -> Result<Subject, Failure> {
    if Path::new(text).is_file() {
        return Ok(Subject::Trace(text.into()));
    }
    if let Some(error) = quote_error(text) {
        return Ok(Subject::QuoteError(error));
    }
    if let Some(status) = status(text)? {
        return Ok(Subject::Status(status));
    }
    let leaves = leaves(text)?;
    if !leaves.is_empty() {
        return Ok(Subject::Leaves(leaves));
    }
    Err(Failure::input(
        format_args!("{text:?}"),
        "neither a status (0xC0000B0800000092 or a code's name), nor a leaf (TDH.MEM.PAGE.AUG, 6, tdg:6), nor an error of \
         Intel's quote libraries (0xe047 or its name), nor a file",
    ))
}

/// A code of Intel's quote libraries by value or by name. No status of a module has such a value: it would be a success with
/// an exit reason that no processor has.
fn quote_error(text: &str) -> Option<QuoteError> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let value = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    value.and_then(QuoteError::of).or_else(|| QuoteError::named(text))
}

/// A status by value or by name; `None` where the text is no status.
fn status(text: &str) -> Result<Option<Status>, Failure> {
    if let Some(code) = StatusCode::from_name(&text.to_uppercase()) {
        return Ok(Some(Status::new(code)));
    }
    let plain = text.replace('_', "");
    let digits = plain.strip_prefix("0x").or_else(|| plain.strip_prefix("0X"));
    let is_bare_word = digits.is_none() && plain.len() == 16;
    let Some(digits) = digits.or(is_bare_word.then_some(&plain)) else { return Ok(None) };
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) || digits.is_empty() {
        return Ok(None);
    }
    let Ok(value) = u64::from_str_radix(digits, 16) else {
        return Err(Failure::input(text, "a status has at most 64 bits"));
    };
    let status = with_code_alone(value).unwrap_or(Status::from_raw(value));
    // A success of TDH.VP.ENTER has the guest's exit reason in its low half; any other number there is no status at all.
    if status.code() == StatusCode::SUCCESS && !is_exit_reason(status.details()) {
        return Err(Failure::input(
            text,
            "no TDX module has such a status, and no processor such an exit reason",
        ));
    }
    if status.code().info().is_none() {
        let class = status.code().class();
        return Err(Failure::input(
            text,
            format_args!("no TDX module has a status code {:#010x} (class {class})", status.code().0),
        ));
    }
    Ok(Some(status))
}

/// Some logs print the high half of a status alone. Such a value has error bits where a status has details.
fn with_code_alone(value: u64) -> Option<Status> {
    const ERROR_OR_NON_RECOVERABLE: u32 = 0xc000_0000;
    let code = StatusCode(u32::try_from(value).ok()?);
    // 0x80000021 and its like are exit reasons of failed entries, and no codes of that value exist.
    (code.0 & ERROR_OR_NON_RECOVERABLE != 0 && code.info().is_some()).then(|| Status::new(code))
}

/// Whether the low half of a success can be a VMX exit reason: bits 15:0 name one, and of the flags above only "in enclave mode",
/// "pending MTF" and "entry failure" exist (SDM volume 3, "Basic VM-Exit Information").
fn is_exit_reason(details: u32) -> bool {
    const FLAGS: u32 = 1 << 27 | 1 << 28 | 1 << 31;
    details & !(0xffff | FLAGS) == 0 && ExitReason(details as u16).name().is_some()
}

/// The leaves that the text names; empty where it names none.
fn leaves(text: &str) -> Result<Vec<LeafCard>, Failure> {
    if let Some((prefix, number)) = text.split_once(':') {
        let side = match prefix.to_ascii_lowercase().as_str() {
            "tdh" | "seamcall" => Side::Host,
            "tdg" | "tdcall" => Side::Guest,
            _ => return Ok(Vec::new()),
        };
        let number: Option<u16> = number.parse().ok();
        return match number.and_then(|number| explain_leaf(side, number)) {
            Some(card) => Ok(vec![card]),
            None if number.is_some_and(|number| side.is_tdx_connect(number)) => Err(Failure::input(
                text,
                "a TDX Connect leaf of module 2.0; this version does not describe it",
            )),
            None => Err(Failure::input(text, "no TDX module has such a leaf")),
        };
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number: Option<u16> = text.parse().ok();
        let cards: Vec<_> = [Side::Host, Side::Guest]
            .into_iter()
            .filter_map(|side| number.and_then(|number| explain_leaf(side, number)))
            .collect();
        if cards.is_empty() {
            return Err(Failure::input(text, "no TDX module has a leaf of this number"));
        }
        return Ok(cards);
    }
    let name = text.to_ascii_uppercase().replace('_', ".");
    let names = |side: Side| {
        let name = &name;
        side.table()
            .iter()
            .filter(move |info| info.name == name || info.name.get(4..) == Some(name.as_str()))
            .map(move |info| LeafCard { side, info })
    };
    Ok(names(Side::Host).chain(names(Side::Guest)).collect())
}
