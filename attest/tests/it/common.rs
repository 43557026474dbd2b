//! What recorded quotes are judged by.

#![expect(dead_code, reason = "each test binary uses a part of it")]
#![expect(clippy::unwrap_used, reason = "a test without its data fails")]

use std::path::Path;

/// One line of `cases.jsonl`.
pub struct Case {
    pub id: String,
    pub quote: Vec<u8>,
    pub collateral: String,
    pub time: u64,
    pub expect: serde_json::Value,
    pub peer: String,
}

/// Every verification case.
pub fn cases(folder: &Path) -> Vec<Case> {
    let text = std::fs::read_to_string(folder.join("cases.jsonl")).unwrap();
    text.lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_string();
            Case {
                id: text("id"),
                quote: std::fs::read(folder.join(text("quote"))).unwrap(),
                collateral: std::fs::read_to_string(folder.join(text("collateral"))).unwrap(),
                time: line["time"].as_u64().unwrap(),
                expect: line["expect"].clone(),
                peer: text("peer"),
            }
        })
        .collect()
}
