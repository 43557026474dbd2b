//! The figures of one benchmark, and whether they meet their bars.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A bar is met when the figure is at most, or at least, this.
#[derive(Clone, Copy, Debug)]
pub enum Bar {
    /// Less is better.
    AtMost(f64),
    /// More is better.
    AtLeast(f64),
    /// A figure that nobody has promised anything about.
    None,
}

impl Bar {
    fn judge(self, value: &Result<f64, String>) -> Verdict {
        match (self, value) {
            (Self::None, _) => Verdict::Met,
            (_, Err(_)) => Verdict::NotMeasured,
            (Self::AtMost(limit), Ok(value)) if *value <= limit => Verdict::Met,
            (Self::AtLeast(limit), Ok(value)) if *value >= limit => Verdict::Met,
            _ => Verdict::Missed,
        }
    }

    /// Whether a second measurement is better than the first.
    fn prefers(self, second: &Result<f64, String>, first: &Result<f64, String>) -> bool {
        match (first, second) {
            (Err(_), Ok(_)) => true,
            (Ok(first), Ok(second)) => match self {
                Self::AtMost(_) => second < first,
                Self::AtLeast(_) => second > first,
                Self::None => false,
            },
            (_, Err(_)) => false,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(limit) => format!("<= {limit}"),
            Self::AtLeast(limit) => format!(">= {limit}"),
            Self::None => String::new(),
        }
    }
}

/// What came of a bar, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The figure is as good as promised, or nothing is promised.
    Met,
    /// There is no figure: something that it needs is not there, or the machine was too busy.
    NotMeasured,
    /// The figure is worse than promised.
    Missed,
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Met => Self::SUCCESS,
            Verdict::Missed => Self::FAILURE,
            Verdict::NotMeasured => Self::from(2),
        }
    }
}

struct Row {
    key: String,
    value: Result<f64, String>,
    bar: Bar,
    note: String,
}

/// The figures of one benchmark. What it measured counts only once it is finished.
#[must_use = "a missed bar fails the process only by `finish`"]
pub struct Report {
    /// The file is `target/bench/NAME.json`.
    name: &'static str,
    rows: Vec<Row>,
    /// Where the rows of the group that is being measured begin.
    group: usize,
}

impl Report {
    /// A report without figures.
    pub fn new(name: &'static str) -> Self {
        Self { name, rows: Vec::new(), group: 0 }
    }

    /// Notes a figure.
    pub fn put(&mut self, key: &str, value: f64, bar: Bar, note: String) {
        self.put_or_skip(key, Ok(value), bar, note);
    }

    /// Notes a figure, or why there is none. Of one that was noted before the better value stays.
    pub fn put_or_skip(&mut self, key: &str, value: Result<f64, String>, bar: Bar, note: String) {
        let row = Row { key: key.into(), value, bar, note };
        match self.rows.iter_mut().find(|known| known.key == key) {
            Some(known) if bar.prefers(&row.value, &known.value) => *known = row,
            Some(_) => {}
            None => self.rows.push(row),
        }
    }

    /// Measures a group, and again while one of its bars is not met, in all at most `rounds` times.
    pub fn best_of(&mut self, rounds: u32, measure: impl Fn(&mut Self)) {
        self.group = self.rows.len();
        for round in 0..rounds.max(1) {
            let met = round > 0 && verdict(&self.rows[self.group..]) == Verdict::Met;
            if met {
                return;
            }
            measure(self);
        }
    }

    /// The worst verdict over all figures.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        verdict(&self.rows)
    }

    /// Prints the figures, writes the file, and says with what the process has to end.
    #[must_use = "the process has to end with it"]
    pub fn finish(self) -> ExitCode {
        self.print();
        if let Err(error) = self.write() {
            eprintln!("the results could not be written: {error}");
            return ExitCode::from(2);
        }
        self.verdict().into()
    }

    /// Ends a run that measured a part only: the file of the last whole run stays.
    #[must_use = "the process has to end with it"]
    pub fn finish_part(self) -> ExitCode {
        self.print();
        self.verdict().into()
    }

    fn print(&self) {
        println!("{:<44} {:>8}  {:<10} {:<6} notes", "figure", "value", "bar", "");
        for Row { key, value, bar, note } in &self.rows {
            let verdict = match (bar, bar.judge(value)) {
                (Bar::None, _) => "",
                (_, Verdict::Met) => "met",
                (_, Verdict::NotMeasured) => "none",
                (_, Verdict::Missed) => "MISS",
            };
            let (value, note) = match value {
                Ok(value) => (format!("{value:.3}"), note),
                Err(why) => ("-".to_owned(), why),
            };
            println!("{key:<44} {value:>8}  {:<10} {verdict:<6} {note}", bar.text());
        }
        for (verdict, what) in [(Verdict::Missed, "missed"), (Verdict::NotMeasured, "not measured")] {
            let keys: Vec<&str> = self
                .rows
                .iter()
                .filter(|row| row.bar.judge(&row.value) == verdict)
                .map(|row| row.key.as_str())
                .collect();
            if !keys.is_empty() {
                println!("{}: bars {what}: {}", self.name, keys.join(", "));
            }
        }
    }

    fn write(&self) -> std::io::Result<()> {
        let mut figures = serde_json::Map::new();
        for Row { key, value, .. } in &self.rows {
            let value = match value {
                Ok(value) => serde_json::json!((value * 1e4).round() / 1e4),
                Err(why) => serde_json::json!({ "skipped": why }),
            };
            figures.insert(key.clone(), value);
        }
        let folder = folder()?;
        std::fs::create_dir_all(&folder)?;
        let text = format!("{:#}\n", serde_json::Value::Object(figures));
        std::fs::write(folder.join(self.name).with_extension("json"), text)
    }
}

fn verdict(rows: &[Row]) -> Verdict {
    rows.iter().map(|row| row.bar.judge(&row.value)).max().unwrap_or(Verdict::Met)
}

/// `bench/` in the target folder that this program was built into: `target/PROFILE/deps/PROGRAM`.
fn folder() -> std::io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(3).filter(|target| target.join("CACHEDIR.TAG").exists());
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    Ok(target.map_or_else(beside, Path::to_path_buf).join("bench"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(values: &[(Result<f64, String>, Bar)]) -> Report {
        let mut report = Report::new("unit-test");
        for (index, (value, bar)) in values.iter().enumerate() {
            report.put_or_skip(&format!("figure_{index}"), value.clone(), *bar, String::new());
        }
        report
    }

    #[test]
    fn a_bar_is_met_up_to_its_limit_and_missed_behind_it() {
        for (value, bar, verdict) in [
            (1.0, Bar::AtMost(1.0), Verdict::Met),
            (1.001, Bar::AtMost(1.0), Verdict::Missed),
            (1.0, Bar::AtLeast(1.0), Verdict::Met),
            (0.999, Bar::AtLeast(1.0), Verdict::Missed),
            (f64::NAN, Bar::AtMost(1.0), Verdict::Missed),
            (f64::NAN, Bar::AtLeast(1.0), Verdict::Missed),
            (9.0, Bar::None, Verdict::Met),
        ] {
            assert_eq!(with(&[(Ok(value), bar)]).verdict(), verdict, "{value} for {bar:?}");
        }
    }

    #[test]
    fn a_bar_without_a_figure_is_not_met() {
        let none = || Err("no peer here".to_owned());
        assert_eq!(with(&[(none(), Bar::AtMost(1.0))]).verdict(), Verdict::NotMeasured);
        assert_eq!(with(&[(none(), Bar::None)]).verdict(), Verdict::Met);
    }

    #[test]
    fn one_missed_bar_among_met_ones_fails_the_benchmark() {
        let rows = [
            (Ok(0.5), Bar::AtMost(1.0)),
            (Ok(2.0), Bar::AtMost(1.0)),
            (Err(String::new()), Bar::AtMost(1.0)),
        ];
        assert_eq!(with(&rows).verdict(), Verdict::Missed);
    }

    #[test]
    fn of_several_rounds_the_best_figure_counts_and_no_more_are_run_than_needed() {
        let runs = std::cell::Cell::new(0);
        let mut report = Report::new("unit-test");
        report.best_of(5, |report| {
            runs.set(runs.get() + 1);
            report.put("ratio", 4.0 - f64::from(runs.get()), Bar::AtMost(1.0), String::new());
        });
        assert_eq!((runs.get(), report.verdict()), (3, Verdict::Met));

        let runs = std::cell::Cell::new(0);
        let mut report = Report::new("unit-test");
        report.best_of(2, |report| {
            runs.set(runs.get() + 1);
            report.put("speed", 1.0 / f64::from(runs.get()), Bar::AtLeast(2.0), String::new());
        });
        assert_eq!((runs.get(), report.verdict()), (2, Verdict::Missed));
        assert_eq!(report.rows[0].value, Ok(1.0), "the better of the two");
    }
}
