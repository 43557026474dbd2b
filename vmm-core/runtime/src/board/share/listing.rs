//! Names of a folder that is open, in pieces that a guest asks for.

use rustix::io::Errno;

use super::attributes::Attributes;
use super::folder::Entry;
use super::nodes::ROOT;
use super::protocol::Body;

/// What a folder's entries are told with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listing {
    Names,
    NamesAndAttributes,
}

/// The entries from where the guest is, as many as there is room for; `look_up` gives the node of a name, which the guest holds from
/// then on, and what it is.
pub(super) fn answer(
    entries: &[Entry],
    offset: u64,
    room: usize,
    listing: Listing,
    mut look_up: impl FnMut(&[u8]) -> Option<(u64, Attributes)>,
) -> Result<Vec<u8>, Errno> {
    let mut answer = Vec::new();
    let start = usize::try_from(offset).map_err(|_| Errno::INVAL)?;
    for (index, Entry { name, kind }) in entries.iter().enumerate().skip(start) {
        let next = index as u64 + 1;
        // A number for those who only list names: a name is never looked up by that.
        let number = ROOT + next;
        let nameless = match listing {
            Listing::Names => Body::default(),
            Listing::NamesAndAttributes => Body::default().no_entry(),
        };
        let mut entry = nameless.name(number, next, *kind, name).finish();
        // Measured before it is looked up: the guest holds only what it is told of.
        if answer.len() + entry.len() > room {
            break;
        }
        // What is gone meanwhile, or is no name of one below, stays a name and nothing else.
        if listing == Listing::NamesAndAttributes
            && let Some((node, attributes)) = look_up(name)
        {
            entry = Body::default().entry(node, &attributes).name(node, next, *kind, name).finish();
        }
        answer.extend(entry);
    }
    Ok(answer)
}
