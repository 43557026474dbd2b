//! What recordings of migration refer to by name: ciphertext in `blobs.jsonl.gz`, decrypted pages of metadata lists in
//! `mdlists.jsonl.gz`, beside the recordings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::bundle::{MetadataPage, MetadataSequence};
use super::error::InputError;
use super::fields::{Fields, Problem, hex, list};
use super::source::Lines;

/// The files, which hold no sequences.
const BLOBS: &str = "blobs.jsonl.gz";
const LISTS: &str = "mdlists.jsonl.gz";

/// Whether a file name is one of the library's.
pub fn is_part(name: &str) -> bool {
    [BLOBS, LISTS].contains(&name)
}

type Read<T> = OnceLock<Result<BTreeMap<String, Arc<T>>, Problem>>;

/// The two files of one folder, each read when it is first needed.
#[derive(Debug)]
pub struct Library {
    folder: PathBuf,
    blobs: Read<[u8]>,
    lists: Read<MetadataPage>,
}

impl Library {
    /// The library of the folder in which a recording lies.
    pub fn beside(recording: &Path) -> Self {
        let folder = recording.parent().map_or_else(PathBuf::new, Path::to_owned);
        Self { folder, blobs: OnceLock::new(), lists: OnceLock::new() }
    }

    /// The bytes of a blob.
    ///
    /// # Errors
    /// In words, what is wrong with the file, or that it has no such blob.
    pub fn blob(&self, name: &str) -> Result<Arc<[u8]>, Problem> {
        let blobs = self.blobs.get_or_init(|| {
            read(&self.folder.join(BLOBS), |fields| {
                Ok((fields.text("blob")?.to_owned(), Arc::from(fields.byte_string("hex")?)))
            })
        });
        find(blobs, name, "blob")
    }

    /// A page of a metadata list.
    ///
    /// # Errors
    /// In words, what is wrong with the file, or that it has no such page.
    pub fn metadata_page(&self, name: &str) -> Result<Arc<MetadataPage>, Problem> {
        let lists = self.lists.get_or_init(|| {
            read(&self.folder.join(LISTS), |fields| {
                let sequences = fields.list("seqs")?.iter().map(sequence).collect::<Result<_, _>>()?;
                let page = MetadataPage { bytes: fields.count("size")?, sequences };
                Ok((fields.text("md")?.to_owned(), Arc::new(page)))
            })
        });
        find(lists, name, "metadata page")
    }
}

fn find<T: ?Sized>(
    all: &Result<BTreeMap<String, Arc<T>>, Problem>,
    name: &str,
    kind: &str,
) -> Result<Arc<T>, Problem> {
    let all = all.as_ref().map_err(Problem::clone)?;
    all.get(name).cloned().ok_or_else(|| format!("there is no {kind} {name}"))
}

fn sequence(value: &Value) -> Result<MetadataSequence, Problem> {
    let [header, values] = list(value)? else { return Err(format!("{value} is not [header, values]")) };
    let text = values.as_str().ok_or_else(|| format!("{values} is not a string"))?;
    Ok(MetadataSequence { header: hex(header)?, values: super::fields::byte_string(text)? })
}

fn read<T: ?Sized>(
    path: &Path,
    entry: impl Fn(Fields<'_>) -> Result<(String, Arc<T>), Problem>,
) -> Result<BTreeMap<String, Arc<T>>, Problem> {
    let whole = |error: InputError| error.to_string();
    let mut lines = Lines::open(path).map_err(whole)?;
    let mut all = BTreeMap::new();
    while let Some(line) = lines.next().map_err(whole)? {
        let value: Value = serde_json::from_slice(line).map_err(|error| format!("not JSON: {error}"))?;
        let (name, content) = entry(Fields::new(&value)?)?;
        all.insert(name, content);
    }
    Ok(all)
}
