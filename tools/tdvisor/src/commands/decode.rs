//! `tdvisor decode`: status words, leaves and traces of calls, explained.

mod answer;
mod pasted;
mod quote_error;
mod record;
mod subject;
mod trace;

use std::io::{self, Write};

use crate::outcome::{Failure, Status};

use subject::Subject;

/// Explain a status word, a leaf, a trace of SEAMCALLs, or pasted text.
///
/// With `-`, standard input is read: lines of a kernel's log, messages of KVM and QEMU, errors of a quoting service; what
/// is known in them is explained once.
///
/// STATUS is RAX in hexadecimal (0xC0000B0800000092) or the name of a code (TLB_TRACKING_NOT_DONE); LEAF is a name
/// (TDH.MEM.PAGE.AUG) or a number (6, tdh:6, tdg:6); TRACE is a file written by `run --trace`, or a recording, plain
/// or gzip. Codes of Intel's quote libraries (0xe047, SGX_QL_…) are explained too. Ends with status 2 for anything else.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to explain.
    #[arg(required = true, value_name = "TRACE|STATUS|LEAF|-")]
    subjects: Vec<String>,
    /// Print JSON: one object per status, leaf or call.
    #[arg(long)]
    json: bool,
}

/// The version of the JSON form, `schemas/decode.schema.json`.
const JSON_SCHEMA: u32 = 1;

/// How to print.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Text,
    Json,
}

/// Why decoding stopped.
#[derive(Debug)]
enum Stop {
    /// What the user gave cannot be explained.
    Input(Failure),
    /// Nobody reads the output any more.
    Output(io::Error),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Input(failure)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Runs the command.
pub fn run(args: Args) -> Result<Status, Failure> {
    let form = if args.json { Form::Json } else { Form::Text };
    let mut out = io::BufWriter::new(io::stdout().lock());
    let result = args.subjects.iter().try_for_each(|subject| explain(subject, form, &mut out));
    let flushed = out.flush();
    match (result, flushed) {
        (Err(Stop::Input(failure)), _) => Err(failure),
        // A reader that stops early (`| head`) is not a failure.
        (Err(Stop::Output(error)), _) | (Ok(()), Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::output("standard output", error))
        }
        _ => Ok(Status::Success),
    }
}

fn explain(text: &str, form: Form, out: &mut impl Write) -> Result<(), Stop> {
    if text == "-" {
        return pasted::explain(io::stdin().lock(), form, out);
    }
    match subject::classify(text)? {
        Subject::Status(status) => answer::status(status, form, out),
        Subject::QuoteError(error) => answer::quote_error(error, form, out),
        Subject::Leaves(leaves) => answer::leaves(&leaves, form, out),
        Subject::Trace(path) => trace::explain(&path, form, out),
    }
}

#[cfg(test)]
mod tests {
    use tdx_module_iface::explain::Side;
    use tdx_module_iface::status::{self, Status as Word, StatusCode};

    use super::*;

    fn text(subject: &str, form: Form) -> String {
        let mut out = Vec::new();
        explain(subject, form, &mut out).unwrap_or_else(|stop| panic!("{subject}: {stop:?}"));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_status_code_of_the_table_is_explained_by_value_and_by_name() {
        for info in status::TABLE {
            for details in [0, 1, 0x92] {
                // The details of a success are an exit reason, and 0x92 is none.
                if info.code == StatusCode::SUCCESS && details == 0x92 {
                    continue;
                }
                let word = format!("{:#018X}", Word::with_details(info.code, details).raw());
                let answer = text(&word, Form::Text);
                for part in [info.name, info.cause, info.action] {
                    assert!(answer.contains(part), "{word}: {part:?} is missing in:\n{answer}");
                }
            }
            assert!(text(info.name, Form::Text).contains(info.cause), "{}", info.name);
            let word = format!("{:#x}", Word::new(info.code).raw());
            let json: serde_json::Value = serde_json::from_str(&text(&word, Form::Json)).unwrap();
            assert_eq!(json["name"], info.name);
            assert_eq!(json["cause"], info.cause);
            assert_eq!(json["error"], Word::new(info.code).is_error());
        }
    }

    #[test]
    fn the_example_of_an_unblock_without_tracking_names_code_operand_recoverability_and_cause() {
        let answer = text("0xC0000B0800000092", Form::Text);
        for part in
            ["TLB_TRACKING_NOT_DONE", "operand SEPT_TREE", "repeating the call cannot help", "MEM.TRACK"]
        {
            assert!(answer.contains(part), "{part:?} is missing in:\n{answer}");
        }
    }

    #[test]
    fn a_number_that_is_no_status_is_not_called_a_success() {
        assert!(text("0xe066", Form::Text).contains("SGX_QL_TCB_NOT_SUPPORTED"));
        assert!(text("SGX_QL_PLATFORM_UNKNOWN", Form::Text).contains("not registered"));
        assert!(text("0x4d", Form::Text).contains("exit reason: TDCALL"));
        for subject in ["0xe036", "0xe166", "0x92", "0xffff", "0xdeadbeef", "0x10000"] {
            let mut out = Vec::new();
            assert!(explain(subject, Form::Text, &mut out).is_err(), "{subject}");
        }
    }

    #[test]
    fn every_leaf_is_explained_by_number_and_by_name() {
        for (side, prefix) in [(Side::Host, "tdh"), (Side::Guest, "tdg")] {
            for info in side.table() {
                for subject in [
                    info.name.to_owned(),
                    info.name.to_lowercase().replace('.', "_"),
                    format!("{prefix}:{}", info.number),
                ] {
                    let answer = text(&subject, Form::Text);
                    assert!(answer.starts_with(info.name), "{subject}:\n{answer}");
                    assert!(answer.contains(info.summary), "{subject}:\n{answer}");
                }
                let json: serde_json::Value = serde_json::from_str(&text(info.name, Form::Json)).unwrap();
                assert_eq!(json["number"], info.number);
            }
        }
    }

    #[test]
    fn a_bare_number_is_the_leaf_of_either_side() {
        let answer = text("6", Form::Text);
        assert!(answer.contains("TDH.MEM.PAGE.AUG") && answer.contains("TDG.MEM.PAGE.ACCEPT"), "{answer}");
        assert!(text("MEM.PAGE.AUG", Form::Text).starts_with("TDH.MEM.PAGE.AUG"));
    }

    #[test]
    fn unknown_input_is_named_in_one_line() {
        for subject in [
            "",
            "hello",
            "TDH.NO.SUCH.LEAF",
            "42",
            "99999",
            "tdh:x",
            "tdx:6",
            "0x",
            "0xC0000B7700000001",
            "0x123456789012345678",
            "no/such/file.jsonl",
        ] {
            let mut out = Vec::new();
            let Err(Stop::Input(Failure::Input(line))) = explain(subject, Form::Text, &mut out) else {
                panic!("{subject:?} must be refused");
            };
            assert!(!line.contains('\n') && !line.is_empty(), "{line:?}");
        }
    }
}
