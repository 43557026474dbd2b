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
    key: &'static str,
    value: Result<f64, String>,
    bar: Bar,
    note: String,
}

#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// A figure, or why there is none.
    pub fn put(&mut self, key: &'static str, value: Result<f64, String>, bar: Bar, note: String) {
        self.rows.push(Row { key, value, bar, note });
    }

    pub fn print(&self) {
        println!("{:<38} {:>8}  {:<9} {:<5} notes", "figure", "value", "bar", "");
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
            let (value, note) = match value {
                Ok(value) => (format!("{value:.3}"), note),
                Err(why) => ("-".to_owned(), why),
            };
            println!("{key:<38} {value:>8}  {bar_text:<9} {verdict:<5} {note}");
        }
    }

    pub fn write(&self) -> std::io::Result<()> {
        let mut results = serde_json::Map::new();
        for Row { key, value, .. } in &self.rows {
            let value = match value {
                Ok(value) => serde_json::json!((value * 1e4).round() / 1e4),
                Err(why) => serde_json::json!({ "skipped": why }),
            };
            results.insert((*key).to_owned(), value);
        }
        let mut text = String::new();
        let _ = writeln!(text, "{:#}", serde_json::Value::Object(results));
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench");
        std::fs::create_dir_all(folder)?;
        std::fs::write(format!("{folder}/linux.json"), text)
    }
}
