//! The page's data.

use mirror_ept::list::{Listed, ListedKind};
use serde_json::{Value, json};
use td_host::td::{DeathCause, Ending};
use tdvisor_base::{Gpa, Hpa, Level, PAGE_SIZE};
use tdvisor_runtime::inspect::{Entry, Inspection, Side};
use tdx_module_iface::sept::SeptState;

use crate::calls;
use crate::{About, SCHEMA};

/// What stands where a TD that has ended has its end.
const PAUSED: &str = "the TD is paused: this is how it stands, and it has not ended";

pub(crate) fn data(inspection: &Inspection, about: &About) -> Value {
    let root_level = inspection.entries.iter().map(|entry| number_of(entry.level)).max();
    let ranges: Vec<_> = inspection
        .ranges
        .iter()
        .map(|range| [range.start().get() * PAGE_SIZE, range.end().get() * PAGE_SIZE])
        .collect();
    let vcpus: Vec<_> =
        inspection.lps.iter().enumerate().map(|(index, lp)| json!({"index": index, "lp": lp})).collect();
    json!({
        "schema": SCHEMA,
        "tdr": hex(inspection.tdr),
        "root_level": root_level.unwrap_or_default(),
        "ve_disabled": about.ve_disabled,
        "ranges": ranges,
        "ending": {
            "died": matches!(about.ending, Some(Ending::Died(_))),
            "text": about.ending.as_ref().map_or_else(|| PAUSED.to_owned(), ToString::to_string),
            "gpa": about.ending.as_ref().and_then(address_of).map(Gpa::get),
        },
        "about": about.facts,
        "counts": about.counts,
        "vcpus": vcpus,
        "entries": inspection.entries.iter().map(entry).collect::<Vec<_>>(),
        "calls": calls::calls(inspection),
        "dropped": inspection.calls_lost,
    })
}

/// The address that a TD died of.
fn address_of(ending: &Ending) -> Option<Gpa> {
    let Ending::Died(death) = ending else { return None };
    match &death.cause {
        DeathCause::NotAccepted(gpa) => Some(*gpa),
        DeathCause::MemoryFault(fault) => Some(fault.gpa),
        _ => None,
    }
}

/// What host and module have for one range of addresses: `gpa`, `level`, `shared`, `mirror`, `sept` and `pamt`, of which the
/// last three are null where there is nothing.
pub fn entry(entry: &Entry) -> Value {
    let secure = entry.secure.map(|view| {
        let is_table = matches!(view.state, Some(SeptState::NlMapped | SeptState::NlBlocked));
        let kind = match view.page {
            Some(_) if is_table => "table",
            Some(_) => "leaf",
            None => "nothing",
        };
        json!({
            "raw": word(view.raw),
            "kind": kind,
            "state": view.state.map_or("no state", SeptState::name),
            "page": view.page.map(hex),
        })
    });
    let pamt = entry.secure.and_then(|view| view.pamt).map(|pamt| {
        json!({
            "page": hex(pamt.page),
            "type": pamt.page_type.to_string().trim_start_matches("PT_"),
            "owner": hex(pamt.owner),
            "level": number_of(pamt.level),
            "bepoch": pamt.bepoch.to_string(),
        })
    });
    json!({
        "gpa": entry.gpa.get(),
        "level": number_of(entry.level),
        "shared": entry.side == Side::Shared,
        "mirror": entry.host.as_ref().map(host_entry),
        "sept": secure,
        "pamt": pamt,
    })
}

fn host_entry(listed: &Listed) -> Value {
    let (kind, page) = match listed.kind {
        ListedKind::Table(page) => ("table", page),
        ListedKind::Leaf(page) => ("leaf", Some(page)),
        ListedKind::Other => ("nothing", None),
    };
    json!({"raw": word(listed.raw), "kind": kind, "page": page.map(|page| hex(page.base()))})
}

/// Levels as the page counts them: 0 is 4 KiB.
pub(crate) fn number_of(level: Level) -> u32 {
    level.bytes().ilog2().saturating_sub(12) / 9
}

pub(crate) fn hex(hpa: Hpa) -> String {
    format!("{:#x}", hpa.get())
}

/// All digits, so that two can be compared.
fn word(raw: u64) -> String {
    format!("{raw:#018x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_counted_from_4k() {
        let levels = [Level::L4K, Level::L2M, Level::L1G, Level::L512G, Level::L256T];
        assert_eq!(levels.map(number_of), [0, 1, 2, 3, 4]);
    }
}
