//! A file of recorded calls, explained line by line.
//!
//! The file is read as a stream with bounded lines, so that neither its size nor what it is matters.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use serde_json::json;

use super::answer::status_json;
use super::record::{Call, Line, parse};
use super::{Form, JSON_SCHEMA, Stop};
use crate::outcome::Failure;

/// Longer lines are no lines of a trace.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// Prints what the calls in a file are.
pub fn explain(path: &Path, form: Form, out: &mut impl Write) -> Result<(), Stop> {
    let unreadable = |error: io::Error| Failure::input(path.display(), error);
    let mut file = BufReader::new(File::open(path).map_err(unreadable)?);
    const GZIP: [u8; 2] = [0x1f, 0x8b];
    let is_gzip = file.fill_buf().map_err(unreadable)?.starts_with(&GZIP);
    let input: Box<dyn BufRead> =
        if is_gzip { Box::new(BufReader::new(MultiGzDecoder::new(file))) } else { Box::new(file) };
    explain_lines(&path.display().to_string(), input, form, out)
}

/// Prints what the calls in these lines are; `name` is where they are from.
pub fn explain_lines(
    name: &str,
    mut input: Box<dyn BufRead>,
    form: Form,
    out: &mut impl Write,
) -> Result<(), Stop> {
    let unreadable = |error: io::Error| Failure::input(name, error);
    let mut line = Vec::new();
    let mut calls = 0_u64;
    for line_number in 1_u64.. {
        line.clear();
        input.by_ref().take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut line).map_err(unreadable)?;
        if line.is_empty() {
            break;
        }
        let at = |problem: String| Failure::input(format_args!("{name}:{line_number}"), problem);
        if line.len() as u64 > MAX_LINE_BYTES {
            return Err(at(format!("the line is longer than {MAX_LINE_BYTES} bytes")).into());
        }
        let text = str::from_utf8(&line).map_err(|_| at("not text".to_owned()))?.trim();
        if text.is_empty() {
            continue;
        }
        match parse(text).map_err(at)? {
            Line::Calls(found) => {
                calls += found.len() as u64;
                found.iter().try_for_each(|call| print(call, form, out))?;
            }
            Line::Sequence(name) if form == Form::Text => writeln!(out, "sequence {name}")?,
            Line::Other(operation) if form == Form::Text => writeln!(out, "      {operation}")?,
            Line::Sequence(_) | Line::Other(_) | Line::Nothing => {}
        }
    }
    if calls == 0 {
        return Err(Failure::input(name, "no recorded calls in this file").into());
    }
    Ok(())
}

fn print(call: &Call, form: Form, out: &mut impl Write) -> io::Result<()> {
    let record = &call.record;
    if form == Form::Json {
        let unexpected: Vec<_> = record.unexpected().map(|reg| reg.name()).collect();
        return writeln!(
            out,
            "{}",
            json!({
                "schema": JSON_SCHEMA,
                "kind": "call",
                "n": call.number,
                "lp": call.lp,
                "depth": call.depth,
                "leaf": record.leaf().map(|info| info.name),
                "text": record.to_string(),
                "status": status_json(record.status()),
                "unexpected": unexpected,
            })
        );
    }
    match call.number {
        Some(number) => write!(out, "{number:>5} ")?,
        None => write!(out, "      ")?,
    }
    write!(out, "{:indent$}", "", indent = 2 * call.depth)?;
    if let Some(lp) = call.lp {
        write!(out, "lp{lp} ")?;
    }
    write!(out, "{record}")?;
    let known = record.leaf().map(|info| info.name);
    if let Some(recorded) = call.recorded_leaf.as_deref()
        && known.is_some_and(|known| known != recorded)
    {
        write!(out, " [recorded as {recorded}]")?;
    }
    for reg in record.unexpected() {
        write!(out, " [{reg} changed to {:#x}, which this leaf does not do]", record.output.get(reg))?;
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs;
    use std::path::PathBuf;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tdvisor_test_data::vectors;
    use tdx_module_iface::explain::CallRecord;
    use tdx_module_iface::leaf::Kind;
    use tdx_module_iface::metadata::{FieldId, find_in_context};
    use tdx_module_iface::regs::Reg;

    use super::*;

    const LINE: &str = r#"{"n":1,"lp":0,"op":"seamcall","leaf":"TDH.MEM.RANGE.UNBLOCK","in":{"rcx":"0x1000","rdx":"0x2000"},"out":{"rax":"0xc0000b0800000092","rcx":"0x0","rdx":"0x0"}}"#;

    fn file(name: &str, contents: &[u8]) -> PathBuf {
        let path = env::temp_dir().join(format!("tdvisor-decode-{}-{name}", std::process::id()));
        fs::write(&path, contents).unwrap();
        path
    }

    fn text(path: &Path, form: Form) -> Result<String, String> {
        let mut out = Vec::new();
        let result = explain(path, form, &mut out);
        match result {
            Ok(()) => Ok(String::from_utf8(out).unwrap()),
            Err(Stop::Input(failure)) => Err(failure.to_string()),
            Err(Stop::Output(error)) => panic!("{error}"),
        }
    }

    #[test]
    fn plain_and_compressed_traces_read_alike() {
        let plain = file("plain.jsonl", format!("{LINE}\n{LINE}\n").as_bytes());
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(format!("{LINE}\n{LINE}").as_bytes()).unwrap();
        let compressed = file("packed.jsonl.gz", &gzip.finish().unwrap());
        let expected = text(&plain, Form::Text).unwrap();
        assert_eq!(expected.lines().count(), 2);
        assert!(expected.contains("lp0 TDH.MEM.RANGE.UNBLOCK rcx=gpa 0x1000 at 4K"), "{expected}");
        assert!(expected.contains("TLB_TRACKING_NOT_DONE, operand SEPT_TREE"), "{expected}");
        assert_eq!(text(&compressed, Form::Text).unwrap(), expected);
        let json = text(&plain, Form::Json).unwrap();
        let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
        assert_eq!(first["status"]["name"], "TLB_TRACKING_NOT_DONE");
        fs::remove_file(plain).unwrap();
        fs::remove_file(compressed).unwrap();
    }

    #[test]
    fn unusable_files_are_refused_with_the_line_at_fault() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(LINE.repeat(50).as_bytes()).unwrap();
        let cut = gzip.finish().unwrap();
        for (name, contents, part) in [
            ("empty", Vec::new(), "no recorded calls"),
            ("words", format!("{LINE}\nhello\n").into_bytes(), ":2: not JSON"),
            ("bytes", vec![0xff, 0xfe, 0xfd], ":1: not text"),
            ("cut", cut[..cut.len() / 2].to_vec(), "cut"),
            ("long", vec![b' '; (1 << 20) + 2], "longer than"),
            ("only-end", b"{\"end\":true}\n".to_vec(), "no recorded calls"),
        ] {
            let path = file(name, &contents);
            let line = text(&path, Form::Text).unwrap_err();
            assert!(line.contains(part) && !line.contains('\n'), "{name}: {line}");
            fs::remove_file(path).unwrap();
        }
    }

    /// Where a read of an element by its own identifier returned that of the next one, the metadata tables have
    /// exactly that one. (Element size and top bit of another identifier are carried over to the next.)
    fn assert_next_field_is_known(record: &CallRecord, at: &str) {
        let output = record.leaf().and_then(|info| info.output(Reg::Rdx));
        let Some(Kind::Field(context)) = output.map(|output| output.kind) else { return };
        let canonical = |id: FieldId| {
            let found = find_in_context(context, id)?;
            if found.field.is_sparse() { Some(id) } else { found.field.element_id(found.index) }
        };
        let (asked, next) = (FieldId(record.input.rdx), FieldId(record.output.rdx));
        let by_own_name = asked == FieldId::NULL || canonical(asked) == Some(asked);
        if record.status().is_success() && by_own_name && next != FieldId::NULL {
            assert_eq!(canonical(next), Some(next), "{at}: the field after {asked}");
        }
    }

    #[test]
    #[ignore = "needs recordings"]
    fn every_recorded_call_is_explained_and_changes_only_registers_that_the_tables_name() {
        let folder = vectors::folder(vectors::MODULE);
        let mut calls = 0;
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "gz") {
                continue;
            }
            let reader = BufReader::new(MultiGzDecoder::new(BufReader::new(File::open(&path).unwrap())));
            for (number, line) in reader.lines().enumerate() {
                let at = format!("{}:{}", path.display(), number + 1);
                let Line::Calls(found) =
                    parse(&line.unwrap()).unwrap_or_else(|problem| panic!("{at}: {problem}"))
                else {
                    continue;
                };
                for call in found {
                    calls += 1;
                    let text = call.record.to_string();
                    assert!(!text.contains("not in the table of known codes"), "{at}: {text}");
                    let recorded = call.recorded_leaf.as_deref().unwrap_or("UNKNOWN");
                    let known = call.record.leaf().map_or("UNKNOWN", |info| info.name);
                    assert!(known == recorded || recorded == "UNKNOWN", "{at}: {recorded}, but {known}");
                    assert_eq!(call.record.unexpected().next(), None, "{at}: {text}");
                    assert_next_field_is_known(&call.record, &at);
                }
            }
        }
        assert!(calls > 100_000, "only {calls} calls were read");
    }
}
