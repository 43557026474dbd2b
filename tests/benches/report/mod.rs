//! What the benchmarks share: a table on the screen, a file for machines, and bars.

#![allow(dead_code, reason = "each benchmark uses a part of it")]

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

/// The figures of one benchmark.
pub struct Report {
    /// The file is `target/bench/NAME.json`.
    name: &'static str,
    rows: Vec<Row>,
}

impl Report {
    pub fn new(name: &'static str) -> Self {
        Self { name, rows: Vec::new() }
    }

    pub fn put(&mut self, key: &str, value: f64, bar: Bar, note: String) {
        self.put_or_skip(key, Ok(value), bar, note);
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
            let (value, note) = match value {
                Ok(value) => (format!("{value:.3}"), note),
                Err(why) => ("-".to_owned(), why),
            };
            println!("{key:<44} {value:>8}  {bar_text:<10} {verdict:<6} {note}");
        }
    }

    pub fn write(&self) -> std::io::Result<()> {
        let mut figures = serde_json::Map::new();
        for Row { key, value, .. } in &self.rows {
            let value = match value {
                Ok(value) => serde_json::json!((value * 1e4).round() / 1e4),
                Err(why) => serde_json::json!({ "skipped": why }),
            };
            figures.insert(key.clone(), value);
        }
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench");
        std::fs::create_dir_all(folder)?;
        let text = format!("{:#}\n", serde_json::Value::Object(figures));
        std::fs::write(format!("{folder}/{}.json", self.name), text)
    }
}
