//! An explanation as one HTML page that needs nothing else: no script, no image, no network.

use alloc::string::{String, ToString};
use core::fmt::{self, Write};

use super::{Explanation, Line, Standing, expected_text};
use crate::eventlog::Register;

const HEAD: &str = "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>Event log explained</title><style>\
:root{color-scheme:light dark;--line:#8884;--bad:#c62828;--good:#2e7d32;--open:#b26a00}\
body{font:15px/1.5 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}\
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.35rem .6rem;\
border-bottom:1px solid var(--line)}code{font-size:.85em;overflow-wrap:anywhere}\
.bad{color:var(--bad);font-weight:600}.good{color:var(--good)}.open{color:var(--open)}\
.card{border-left:.3rem solid var(--bad);padding:.2rem 1rem;margin:1rem 0;background:#8881}\
summary{cursor:pointer}small{opacity:.75}</style></head><body>\n";

/// Text with the five characters escaped that mean something to HTML.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            c => f.write_char(c),
        })
    }
}

impl Explanation {
    /// The explanation as a self-contained page.
    #[must_use]
    pub fn to_html(&self) -> String {
        let mut page = String::from(HEAD);
        // Writing to a String cannot fail.
        let _ = self.body(&mut page);
        page.push_str("</body></html>\n");
        page
    }

    fn body(&self, out: &mut String) -> fmt::Result {
        let differences = self.differences().count();
        writeln!(out, "<h1>Event log explained</h1>")?;
        let against = Escaped(&self.against);
        if differences == 0 {
            writeln!(out, "<p class=\"good\">No difference from {against}.</p>")?;
        } else {
            writeln!(out, "<p class=\"bad\">{differences} difference(s) from {against}.</p>")?;
        }
        if let Some(first) = self.first() {
            writeln!(out, "<h2>First difference</h2>")?;
            card(out, first)?;
        }
        if differences > 1 {
            writeln!(out, "<h2>Every difference</h2>")?;
            self.differences().try_for_each(|line| card(out, line))?;
        }
        if !self.registers.is_empty() {
            writeln!(out, "<h2>Registers</h2><table><tr><th>Register<th>Verdict<th>Value</tr>")?;
            for report in &self.registers {
                let class = if report.verdict.is_explained() { "good" } else { "bad" };
                write!(
                    out,
                    "<tr><td>{}<td class=\"{class}\">{}<td><code>{}</code>",
                    report.register, report.verdict, report.actual
                )?;
                if report.actual != report.replayed {
                    write!(out, "<br><small>the log replays to <code>{}</code></small>", report.replayed)?;
                }
                writeln!(out, "</tr>")?;
            }
            writeln!(out, "</table>")?;
        }
        if !self.warnings.is_empty() {
            writeln!(out, "<h2>Odd about the log</h2><ul>")?;
            for warning in &self.warnings {
                writeln!(out, "<li>{}</li>", Escaped(warning))?;
            }
            writeln!(out, "</ul>")?;
        }
        writeln!(out, "<h2>All events</h2>")?;
        for register in Register::RTMRS {
            let mut lines = self.lines.iter().filter(|line| line.register == register).peekable();
            if lines.peek().is_none() {
                continue;
            }
            writeln!(
                out,
                "<details open><summary>{register}</summary><table><tr><th>#<th>Part<th>Standing<th>Digest</tr>"
            )?;
            lines.try_for_each(|line| row(out, line))?;
            writeln!(out, "</table></details>")?;
        }
        Ok(())
    }
}

fn card(out: &mut String, line: &Line) -> fmt::Result {
    let cause = line.cause.map(|cause| cause.to_string()).unwrap_or_default();
    writeln!(out, "<div class=\"card\"><b>{}</b>", Escaped(&cause))?;
    writeln!(out, "<br>{} · {}", line.register, Escaped(&line.part()))?;
    if let Some(cause) = line.cause {
        writeln!(out, "<br><small>{}</small>", Escaped(cause.advice()))?;
    }
    if let Some(event) = &line.logged {
        let description = Escaped(&event.description);
        writeln!(out, "<br>log, event {}: {description}<br><code>{}</code>", event.number, event.digest)?;
    }
    if let Some(predicted) = &line.predicted {
        let text = expected_text(&predicted.expectation);
        writeln!(out, "<br>predicted: <code>{}</code>", Escaped(&text))?;
    }
    writeln!(out, "</div>")
}

fn row(out: &mut String, line: &Line) -> fmt::Result {
    let (class, text) = match line.standing {
        Standing::Same => ("good", "as predicted"),
        Standing::NotPredicted => ("open", "nothing predicts it"),
        Standing::Silent => ("open", "register not predicted"),
        Standing::Differs => ("bad", "differs"),
        Standing::OnlyInLog => ("bad", "only in the log"),
        Standing::OnlyPredicted => ("bad", "missing in the log"),
    };
    let (number, digest) = match &line.logged {
        Some(event) => (event.number.to_string(), event.digest.to_string()),
        None => (String::new(), String::new()),
    };
    write!(
        out,
        "<tr><td>{number}<td>{}<td class=\"{class}\">{text}<td><code>{digest}</code>",
        Escaped(&line.part())
    )?;
    if let Some(circumstance) = line.circumstance() {
        write!(out, "<br><small>{}</small>", Escaped(circumstance))?;
    }
    writeln!(out, "</tr>")
}
