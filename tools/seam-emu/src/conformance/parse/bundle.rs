//! Steps about migration bundles: `seal` and `check_bundle`.

use serde_json::Value;
use tdvisor_base::Hpa;

use super::MAX_STEP_BYTES;
use crate::conformance::bundle::{
    BundleKind, CheckBundle, Key, MemoryEntry, Plaintext, Seal, Sealed, StatePage,
};
use crate::conformance::fields::{Fields, Problem, hex, number};
use crate::conformance::library::Library;
use crate::conformance::model::Pattern;

fn key(fields: Fields<'_>) -> Result<Key, Problem> {
    let words = fields.list("key")?.iter().map(number).collect::<Result<Vec<_>, _>>()?;
    words.try_into().map_err(|_| "field `key`: not four words".to_owned())
}

/// Reads a `seal` step.
pub(super) fn seal(fields: Fields<'_>) -> Result<Seal, Problem> {
    fields.only(&["i", "op", "key", "iv", "aad", "plain", "tag_pa"])?;
    Ok(Seal {
        key: key(fields)?,
        iv: fields.bytes("iv")?,
        aad: fields.byte_string("aad")?,
        parts: fields.list("plain")?.iter().map(sealed).collect::<Result<_, _>>()?,
        tag_at: Hpa::new(fields.hex("tag_pa")?),
    })
}

fn sealed(value: &Value) -> Result<Sealed, Problem> {
    let fields = Fields::new(value)?;
    fields.only(&["pa", "len", "pattern", "hex"])?;
    let len = fields.hex_at_most("len", MAX_STEP_BYTES)?;
    let plain = if fields.has("pattern") {
        Plaintext::Pattern(Pattern { seed: fields.hex("pattern")?, len })
    } else {
        let mut bytes = fields.byte_string("hex")?;
        if bytes.len() as u64 > len {
            return Err("field `hex`: more than `len` bytes".to_owned());
        }
        bytes.resize(usize::try_from(len).map_err(|error| error.to_string())?, 0);
        Plaintext::Bytes(bytes)
    };
    Ok(Sealed { at: Hpa::new(fields.hex("pa")?), plain })
}

/// Reads a `check_bundle` step.
pub(super) fn check(fields: Fields<'_>, library: &Library) -> Result<CheckBundle, Problem> {
    fields.only(&["i", "op", "kind", "key", "mbmd_pa", "mbmd", "pages", "entries", "mac_lists"])?;
    let kind = match fields.text("kind")? {
        "immutable" => BundleKind::Immutable,
        "td" => BundleKind::Td,
        "vp" => BundleKind::Vcpu,
        "mem" => BundleKind::Memory,
        "token" => BundleKind::EpochToken,
        "abort" => BundleKind::AbortToken,
        other => return Err(format!("field `kind`: no bundle {other:?}")),
    };
    let each = |name: &str| if fields.has(name) { fields.list(name) } else { Ok(&[][..]) };
    let page = |value: &Value| {
        let fields = Fields::new(value)?;
        fields.only(&["pa", "md"])?;
        Ok(StatePage { at: Hpa::new(fields.hex("pa")?), list: library.metadata_page(fields.text("md")?)? })
    };
    Ok(CheckBundle {
        kind,
        key: key(fields)?,
        mbmd_at: Hpa::new(fields.hex("mbmd_pa")?),
        mbmd: fields.bytes("mbmd")?,
        pages: each("pages")?.iter().map(page).collect::<Result<_, Problem>>()?,
        entries: each("entries")?.iter().map(entry).collect::<Result<_, _>>()?,
        mac_lists: each("mac_lists")?.iter().map(|at| hex(at).map(Hpa::new)).collect::<Result<_, _>>()?,
    })
}

fn entry(value: &Value) -> Result<MemoryEntry, Problem> {
    let fields = Fields::new(value)?;
    fields.only(&["idx", "aad", "pa", "sha256"])?;
    let content = match fields.has("pa") {
        true => Some((Hpa::new(fields.hex("pa")?), fields.bytes("sha256")?)),
        false => None,
    };
    Ok(MemoryEntry { index: fields.count("idx")?, aad: fields.hex("aad")?, content })
}
