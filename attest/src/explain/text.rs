//! An explanation as text.

use core::fmt;

use super::{Explanation, Line, Standing, expected_text};

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let differences = self.differences().count();
        match self.first() {
            None => writeln!(f, "no difference from {}", self.against)?,
            Some(first) => {
                writeln!(f, "{differences} difference(s) from {}", self.against)?;
                writeln!(f, "first: {}", summary(first))?;
            }
        }
        for line in self.differences() {
            writeln!(f)?;
            detail(f, line)?;
        }
        let open = self.open().count();
        if open != 0 {
            writeln!(f, "\n{open} event(s) that nothing predicts:")?;
            for line in self.open() {
                let needs = line.predicted.as_ref().map(|event| expected_text(&event.expectation));
                writeln!(f, "  {} {}: {}", line.register, line.part(), needs.unwrap_or_default())?;
            }
        }
        if !self.registers.is_empty() {
            writeln!(f, "\nregisters:")?;
            for report in &self.registers {
                writeln!(f, "  {} {}", report.register, report.verdict)?;
                writeln!(f, "    register {}", report.actual)?;
                if report.actual != report.replayed {
                    writeln!(f, "    replay   {}", report.replayed)?;
                }
            }
        }
        if !self.contradictions.is_empty() {
            writeln!(f, "\nthe log says what was not measured:")?;
            self.contradictions.iter().try_for_each(|warning| writeln!(f, "  {warning}"))?;
        }
        if !self.warnings.is_empty() {
            writeln!(f, "\nodd about the log:")?;
            self.warnings.iter().try_for_each(|warning| writeln!(f, "  {warning}"))?;
        }
        Ok(())
    }
}

fn summary(line: &Line) -> alloc::string::String {
    let cause = line.cause.map(|cause| alloc::format!("{cause}")).unwrap_or_default();
    match &line.logged {
        Some(event) => alloc::format!("{cause} ({}, event {}: {})", line.register, event.number, event.part),
        None => alloc::format!("{cause} ({}, {} is missing)", line.register, line.part()),
    }
}

fn detail(f: &mut fmt::Formatter<'_>, line: &Line) -> fmt::Result {
    let what = match line.standing {
        Standing::OnlyInLog => " (not predicted)",
        Standing::OnlyPredicted => " (missing)",
        _ => "",
    };
    writeln!(f, "{} {}{what}", line.register, line.part())?;
    if let Some(cause) = line.cause {
        writeln!(f, "  cause     {cause}")?;
        writeln!(f, "  check     {}", cause.advice())?;
    }
    if let Some(event) = &line.logged {
        writeln!(f, "  log       {}", event.digest)?;
        writeln!(f, "            event {}: {}", event.number, event.description)?;
    }
    if let Some(predicted) = &line.predicted {
        writeln!(f, "  predicted {}", expected_text(&predicted.expectation))?;
    }
    Ok(())
}
