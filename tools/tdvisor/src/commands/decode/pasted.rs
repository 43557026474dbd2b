//! Text that somebody pastes: lines of a kernel's log, messages of KVM and QEMU, an error of a quoting service. What is known in
//! it is explained once, however often it comes.

use std::fmt;
use std::io::{self, BufRead, Read, Write};

use serde_json::json;
use tdx_module_iface::explain::{LeafCard, Side, explain_leaf};
use tdx_module_iface::ghci::CallStatus;
use tdx_module_iface::status::{Status, StatusCode};

use super::quote_error::QuoteError;
use super::{Form, JSON_SCHEMA, Stop, trace};
use crate::outcome::Failure;

/// Of longer lines the beginning is read.
const MAX_LINE_BYTES: u64 = 16 << 10;
/// Different things that are explained; of more, the first.
const MOST_FINDINGS: usize = 256;

/// Something that can be explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Status(Status),
    Call(CallStatus),
    Quote(QuoteError),
    Leaf(Side, u16),
}

struct Finding {
    what: Known,
    /// The first line that has it.
    line: String,
    times: u64,
}

/// Explains what comes on standard input: pasted text, or a trace.
pub fn explain(mut input: impl BufRead + 'static, form: Form, out: &mut impl Write) -> Result<(), Stop> {
    let unreadable = |error: io::Error| Failure::input("standard input", error);
    let beginning = input.fill_buf().map_err(unreadable)?;
    if beginning.trim_ascii_start().starts_with(b"{") {
        return trace::explain_lines("standard input", Box::new(input), form, out);
    }
    let mut findings: Vec<Finding> = Vec::new();
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let read = input.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut bytes).map_err(unreadable)?;
        if read == 0 {
            break;
        }
        let line = String::from_utf8_lossy(&bytes);
        let line = line.trim();
        for what in known_in(line) {
            if let Some(finding) = findings.iter_mut().find(|finding| finding.what == what) {
                finding.times += 1;
            } else if findings.len() < MOST_FINDINGS {
                findings.push(Finding { what, line: line.to_owned(), times: 1 });
            }
        }
    }
    if findings.is_empty() {
        return Err(Failure::input("standard input", "nothing in it is known here").into());
    }
    let mut line = "";
    for finding in &findings {
        if form == Form::Json {
            let known = finding.what.to_string();
            let object = json!({
                "schema": JSON_SCHEMA,
                "kind": "finding",
                "line": finding.line,
                "times": finding.times,
                "text": known,
            });
            writeln!(out, "{object}")?;
            continue;
        }
        if line != finding.line {
            line = &finding.line;
            writeln!(
                out,
                "{}",
                line.chars().filter(|character| !character.is_control()).collect::<String>()
            )?;
        }
        let times = if finding.times == 1 { String::new() } else { format!(" ({} times)", finding.times) };
        writeln!(out, "  {}{times}", finding.what)?;
    }
    Ok(())
}

/// What is known of the words of a line.
fn known_in(line: &str) -> Vec<Known> {
    let upper = line.to_uppercase();
    let is_of_guest = upper.contains("TDVMCALL") || upper.contains("VMCALL");
    let mut known: Vec<Known> = Vec::new();
    let mut before = "";
    for word in upper
        .split(|character: char| !character.is_ascii_alphanumeric() && character != '_' && character != '.')
    {
        let word = word.trim_matches('.');
        if word.is_empty() {
            continue;
        }
        let found = match word.strip_prefix("0X").map(|digits| u64::from_str_radix(digits, 16)) {
            Some(Ok(value)) => of_value(value, before, is_of_guest),
            Some(Err(_)) => None,
            None => of_name(word),
        };
        if let Some(found) = found
            && !known.contains(&found)
        {
            known.push(found);
        }
        before = word;
    }
    known
}

fn of_value(value: u64, before: &str, is_of_guest: bool) -> Option<Known> {
    // "SEAMCALL (0x6) failed": the leaf, with its version in bits 23:16.
    let side = match before {
        "SEAMCALL" => Some(Side::Host),
        "TDCALL" => Some(Side::Guest),
        _ => None,
    };
    if let Some(side) = side
        && value < 1 << 24
    {
        let number = value as u16;
        return explain_leaf(side, number).map(|_| Known::Leaf(side, number));
    }
    if is_of_guest && value != 0 && CallStatus(value).name().is_some() {
        return Some(Known::Call(CallStatus(value)));
    }
    if let Some(error) = QuoteError::of(value) {
        return Some(Known::Quote(error));
    }
    let status = Status::from_raw(value);
    (status.code() != StatusCode::SUCCESS && status.code().info().is_some()).then_some(Known::Status(status))
}

fn of_name(word: &str) -> Option<Known> {
    if let Some(error) = QuoteError::named(word) {
        return Some(Known::Quote(error));
    }
    let code = word.strip_prefix("TDX_").and_then(StatusCode::from_name);
    if let Some(code) = code.filter(|code| *code != StatusCode::SUCCESS) {
        return Some(Known::Status(Status::new(code)));
    }
    // A leaf as Intel writes it, or as C does.
    let name = word.replace('_', ".");
    [Side::Host, Side::Guest].into_iter().find_map(|side| {
        let leaf = side.table().iter().find(|info| info.name == name)?;
        Some(Known::Leaf(side, leaf.number))
    })
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => status.fmt(f),
            Self::Call(status) => write!(f, "{status} ({:#x}): what a host answered a TDVMCALL", status.0),
            Self::Quote(error) => {
                write!(
                    f,
                    "{} ({:#06x}), of Intel's quote libraries: {}",
                    error.name(),
                    error.value,
                    error.cause
                )
            }
            Self::Leaf(side, number) => match explain_leaf(*side, *number) {
                Some(LeafCard { info, .. }) => write!(f, "{} (leaf {number}): {}", info.name, info.summary),
                None => write!(f, "leaf {number}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(text: &'static str) -> String {
        let mut out = Vec::new();
        explain(text.as_bytes(), Form::Text, &mut out).unwrap_or_else(|stop| panic!("{text}: {stop:?}"));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_of_a_host_kernels_log_names_leaf_and_status() {
        let said =
            explained("[   12.345678] tdx: SEAMCALL (0x0000000000000006) failed: 0xc0000b0800000092\n");
        assert!(said.contains("TDH.MEM.PAGE.AUG (leaf 6)"), "{said}");
        assert!(said.contains("TLB_TRACKING_NOT_DONE") && said.contains("SEPT_TREE"), "{said}");
    }

    #[test]
    fn messages_of_other_programs_are_known_by_their_words() {
        for (text, part) in [
            ("kvm_intel: SEAMCALL TDH_MNG_KEY_CONFIG failed: 0x8000020300000000", "TDH.MNG.KEY.CONFIG"),
            ("qemu: TDX_OPERAND_BUSY", "OPERAND_BUSY"),
            ("[QPL] Error: 0xe047 from PCCS", "SGX_QL_PLATFORM_UNKNOWN"),
            ("tee_att_get_quote: SGX_QL_NO_PLATFORM_CERT_DATA", "no certificate for this platform"),
            ("tdx: TDVMCALL failed: 0x8000000000000003", "SUBFUNC_UNSUPPORTED"),
        ] {
            let mut out = Vec::new();
            explain(text.as_bytes(), Form::Text, &mut out).unwrap_or_else(|stop| panic!("{text}: {stop:?}"));
            let said = String::from_utf8(out).unwrap();
            assert!(said.contains(part), "{text}: {said}");
        }
    }

    #[test]
    fn repeats_fold() {
        let said = explained("a 0xc0000b0800000092\nb 0xc0000b0800000092\nc 0xc0000b0800000092\n");
        assert!(said.contains("(3 times)") && said.lines().count() == 2, "{said}");
    }

    #[test]
    fn text_without_anything_known_is_refused_and_any_bytes_are_survived() {
        for text in [&b""[..], b"hello\n", b"0x0 0x1 0x4d\n", b"\xff\xfe\0\n", b"0xzz ... ___ 0x\n"] {
            assert!(explain(text, Form::Text, &mut Vec::new()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_trace_is_one_on_standard_input_too() {
        let line = r#"{"n":1,"lp":0,"op":"seamcall","leaf":"TDH.MEM.TRACK","in":{"rax":"0x26"},"out":{"rax":"0x0"}}"#;
        assert!(explained(line).contains("TDH.MEM.TRACK"));
    }
}
