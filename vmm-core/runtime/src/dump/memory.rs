//! The memory that a guest has, piece by piece.

use std::collections::BTreeMap;

use mirror_ept::list::{Listed, ListedKind, Tree};
use phys_memory::Arena;
use seam_emu::audit::SecureEptView;
use tdvisor_base::{Gpa, Hpa, PAGE_SIZE, to_usize};

use super::DumpError;

/// Bytes of a page.
pub(super) const PAGE: usize = to_usize(PAGE_SIZE);

/// Mappings of guest-physical memory without a gap between them, in ascending order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    gpa: Gpa,
    /// Where the memory is in the host's, and how many bytes follow there.
    places: Vec<(Hpa, u64)>,
}

impl Piece {
    /// Where the piece begins.
    pub(super) const fn gpa(&self) -> Gpa {
        self.gpa
    }

    /// How long it is.
    pub(super) fn bytes(&self) -> u64 {
        self.places.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Visits its pages of 4 KiB.
    pub(super) fn each_page(
        &self,
        visit: &mut dyn FnMut(Hpa) -> Result<(), DumpError>,
    ) -> Result<(), DumpError> {
        let pages = |(hpa, bytes): &(Hpa, u64)| {
            let hpa = *hpa;
            (0..*bytes).step_by(PAGE).map(move |offset| hpa.wrapping_add(offset))
        };
        self.places.iter().flat_map(pages).try_for_each(visit)
    }
}

/// What a guest can use: private pages that it has accepted, and shared ones. Of two mappings of one address, which no TD at
/// rest has, the private one counts.
pub(super) fn pieces(private: &[SecureEptView], shared: &[Listed]) -> Vec<Piece> {
    let mut mapped = BTreeMap::new();
    for listed in shared.iter().filter(|listed| listed.tree == Tree::Direct) {
        if let ListedKind::Leaf(pfn) = listed.kind {
            mapped.insert(listed.at.gfn().base(), (pfn.base(), listed.at.level().bytes()));
        }
    }
    for view in private {
        let is_the_guests = view.state.is_some_and(|state| state.is_leaf() && !state.is_pending());
        if let (true, Some(page)) = (is_the_guests, view.page) {
            mapped.insert(view.gpa, (page, view.level.bytes()));
        }
    }
    joined(mapped)
}

fn joined(mapped: BTreeMap<Gpa, (Hpa, u64)>) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut end = Gpa::new(0);
    for (gpa, place) in mapped {
        match pieces.last_mut() {
            Some(piece) if gpa == end => piece.places.push(place),
            Some(_) if gpa < end => continue,
            _ => pieces.push(Piece { gpa, places: vec![place] }),
        }
        end = gpa.wrapping_add(place.1);
    }
    pieces
}

/// Memory that is read whatever key it is under.
pub(super) trait Bytes {
    /// A page of 4 KiB, as the key that it is held under sees it.
    fn page(&self, hpa: Hpa) -> Result<[u8; PAGE], DumpError>;
}

impl Bytes for Arena {
    fn page(&self, hpa: Hpa) -> Result<[u8; PAGE], DumpError> {
        let mut bytes = [0; PAGE];
        let key = self.page_key(hpa.frame()).map_err(|_| DumpError::Memory)?;
        self.read(hpa, key, &mut bytes).map_err(|_| DumpError::Memory)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_next_to_each_other_are_one_piece_wherever_they_are() {
        let at = |gpa, hpa, bytes| (Gpa::new(gpa), (Hpa::new(hpa), bytes));
        let mapped = BTreeMap::from([
            at(0x1000, 0x9000, 0x1000),
            at(0x2000, 0x3000, 0x1000),
            at(0x20_0000, 0x80_0000, 0x20_0000),
            at(0x20_1000, 0x1000, 0x1000),
            at(0x40_0000, 0x5000, 0x1000),
        ]);
        let pieces = joined(mapped);
        let spans: Vec<_> = pieces.iter().map(|piece| (piece.gpa().get(), piece.bytes())).collect();
        assert_eq!(
            spans,
            [(0x1000, 0x2000), (0x20_0000, 0x20_1000)],
            "what lies inside of another is left out"
        );
        let mut pages = Vec::new();
        pieces[0]
            .each_page(&mut |hpa| {
                pages.push(hpa.get());
                Ok(())
            })
            .unwrap();
        assert_eq!(pages, [0x9000, 0x3000]);
    }
}
