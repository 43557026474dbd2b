//! The processors that recordings name: `platforms.json` beside them, or in the folder above.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::error::InputError;
use super::fields::{Fields, Problem, hex, list};
use crate::cpuid::CpuidValues;
use crate::processor::ListedProcessor;

/// The file.
const FILE: &str = "platforms.json";
/// Most bytes of it.
const MAX_BYTES: u64 = 1 << 24;

/// Processors by name.
#[derive(Debug, Default)]
pub struct Platforms {
    by_name: BTreeMap<String, Arc<ListedProcessor>>,
}

impl Platforms {
    /// The platforms that belong to a recording. Where there is no file, there are none.
    pub fn of(recording: &Path) -> Result<Self, InputError> {
        let folder = recording.parent().unwrap_or(Path::new("."));
        let beside = folder.join(FILE);
        let above = folder.join("..").join(FILE);
        match [beside, above].into_iter().find(|path| path.is_file()) {
            Some(path) => Self::read(&path),
            None => Ok(Self::default()),
        }
    }

    fn read(path: &Path) -> Result<Self, InputError> {
        let mut text = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_BYTES).read_to_end(&mut text))
            .map_err(|source| InputError::Io { path: path.to_owned(), source })?;
        parse(&text).map_err(|problem| InputError::Line { path: PathBuf::from(path), line: 1, problem })
    }

    /// A processor by its name.
    pub fn get(&self, name: &str) -> Option<Arc<ListedProcessor>> {
        self.by_name.get(name).cloned()
    }
}

fn parse(text: &[u8]) -> Result<Platforms, Problem> {
    let value: Value = serde_json::from_slice(text).map_err(|error| format!("not JSON: {error}"))?;
    let mut platforms = Platforms::default();
    // Texts are notes for readers.
    for (name, value) in Fields::new(&value)?.iter().filter(|(_, value)| !value.is_string()) {
        let fields = Fields::new(value).map_err(|problem| format!("platform `{name}`: {problem}"))?;
        fields.only(&["cpuid", "msr"])?;
        let processor = processor(fields).map_err(|problem| format!("platform `{name}`: {problem}"))?;
        platforms.by_name.insert(name.to_owned(), Arc::new(processor));
    }
    Ok(platforms)
}

fn processor(fields: Fields<'_>) -> Result<ListedProcessor, Problem> {
    let cpuid = fields.list("cpuid")?.iter().map(|row| {
        let [leaf, subleaf, eax, ebx, ecx, edx] = row_of::<6>(row)?.map(narrow);
        Ok(((leaf?, subleaf?), CpuidValues { eax: eax?, ebx: ebx?, ecx: ecx?, edx: edx? }))
    });
    let msrs = fields.list("msr")?.iter().map(|row| {
        let [index, value] = row_of::<2>(row)?;
        Ok((narrow(index)?, value))
    });
    Ok(ListedProcessor::new(
        cpuid.collect::<Result<Vec<_>, Problem>>()?,
        msrs.collect::<Result<Vec<_>, Problem>>()?,
    ))
}

fn row_of<const N: usize>(row: &Value) -> Result<[u64; N], Problem> {
    let numbers = list(row)?.iter().map(hex).collect::<Result<Vec<_>, Problem>>()?;
    numbers.try_into().map_err(|_| format!("{row} does not have {N} numbers"))
}

fn narrow(value: u64) -> Result<u32, Problem> {
    u32::try_from(value).map_err(|_| format!("{value:#x} is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_its_rows_and_zero_elsewhere() {
        let text = br#"{"P": {"cpuid": [["0x7","0x1","0x1","0x2","0x3","0x4"]], "msr": [["0x10a","0x9"]]}, "note": "x"}"#;
        let platforms = parse(text).unwrap();
        let expected =
            ListedProcessor::new([((7, 1), CpuidValues { eax: 1, ebx: 2, ecx: 3, edx: 4 })], [(0x10a, 9)]);
        assert_eq!(*platforms.get("P").unwrap(), expected);
        assert!(platforms.get("note").is_none());
    }

    #[test]
    fn a_short_row_and_an_unknown_table_are_refused() {
        assert!(parse(br#"{"P": {"cpuid": [["0x7","0x1"]], "msr": []}}"#).is_err());
        assert!(parse(br#"{"P": {"cpuid": [], "msr": [], "mtrr": []}}"#).is_err());
    }
}
