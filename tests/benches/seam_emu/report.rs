//! The table on the screen and the file.

use std::fmt::Write as _;

/// A bar is met when the figure is at most, or at least, this.
#[derive(Clone, Copy)]
pub enum Bar {
    AtMost(f64),
    AtLeast(f64),
    None,
}

struct Row {
    key: String,
    value: Result<f64, String>,
    bar: Bar,
    note: String,
}

#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
}

impl Report {
    pub fn put(&mut self, key: &str, value: f64, bar: Bar, note: String) {
        self.rows.push(Row { key: key.into(), value: Ok(value), bar, note });
    }

    /// A figure, or why there is none.
    pub fn put_or_skip(&mut self, key: &str, value: Result<f64, String>, bar: Bar, note: String) {
        self.rows.push(Row { key: key.into(), value, bar, note });
    }

    pub fn print(&self) {
        println!("{:<44} {:>8}  {:<10} {:<6} notes", "figure", "value", "bar", "");
        for Row { key, value, bar, note } in &self.rows {
            let bar_text = match bar {
                Bar::AtMost(limit) => format!("<= {limit}"),
                Bar::AtLeast(limit) => format!(">= {limit}"),
                Bar::None => String::new(),
            };
            let verdict = match (*bar, value) {
                (Bar::None, _) => "",
                (_, Err(_)) => "skip",
                (Bar::AtMost(limit), Ok(value)) if *value <= limit => "met",
                (Bar::AtLeast(limit), Ok(value)) if *value >= limit => "met",
                _ => "MISS",
            };
            let (value, why) = match value {
                Ok(value) => (format!("{value:.3}"), ""),
                Err(why) => ("-".to_owned(), why.as_str()),
            };
            println!("{key:<44} {value:>8}  {bar_text:<10} {verdict:<6} {note}{why}");
        }
    }

    pub fn write(&self) -> std::io::Result<()> {
        let mut json = String::from("{\n");
        for (index, Row { key, value, .. }) in self.rows.iter().enumerate() {
            let comma = if index + 1 == self.rows.len() { "" } else { "," };
            let _ = match value {
                Ok(value) => writeln!(json, "  \"{key}\": {value:.4}{comma}"),
                Err(why) => writeln!(json, "  \"{key}\": {{\"skipped\": \"{why}\"}}{comma}"),
            };
        }
        json.push_str("}\n");
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench");
        std::fs::create_dir_all(folder)?;
        std::fs::write(format!("{folder}/seam_emu.json"), json)
    }
}
