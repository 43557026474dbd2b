//! What a guest read where nothing is.
//!
//! A guest that waits for a device which its board does not have reads one place again and again. The first [`PLACES`] places
//! are counted, so that whoever ends such a guest can say what it waited for.

use alloc::vec::Vec;

use tdvisor_base::Gpa;
use tdvisor_base::sync::Mutex;

/// Places that are counted at most.
const PLACES: usize = 64;

/// Where nothing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A port.
    Port(u16),
    /// A shared guest-physical address.
    Memory(Gpa),
}

/// Reads of places where nothing is.
#[derive(Debug)]
pub(crate) struct Unclaimed(Mutex<Vec<(Place, u64)>>);

impl Unclaimed {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// A guest read there. Reads of further places than are counted are not.
    pub(crate) fn note(&self, place: Place) {
        let mut all = self.0.lock();
        if let Some((_, reads)) = all.iter_mut().find(|(known, _)| *known == place) {
            *reads = reads.saturating_add(1);
        } else if all.len() < PLACES {
            all.push((place, 1));
        }
    }

    /// The place that was read most, and how often.
    pub(crate) fn most_read(&self) -> Option<(Place, u64)> {
        self.0.lock().iter().copied().max_by_key(|(_, reads)| *reads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_guest_that_waits_is_found_among_those_that_it_probed() {
        let unclaimed = Unclaimed::new();
        assert_eq!(unclaimed.most_read(), None);
        unclaimed.note(Place::Port(0x2e));
        for _ in 0..3 {
            unclaimed.note(Place::Port(0x64));
        }
        for port in 0x1000..0x3000 {
            unclaimed.note(Place::Port(port));
        }
        assert_eq!(unclaimed.most_read(), Some((Place::Port(0x64), 3)));
        assert_eq!(unclaimed.0.lock().len(), PLACES);
    }
}
