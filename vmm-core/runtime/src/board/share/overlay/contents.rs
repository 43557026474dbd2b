//! What is in a file that a guest changed: pieces in memory, over what the host's file had.

use std::collections::BTreeMap;
use std::fs::File;

use rustix::io::Errno;
use tdvisor_base::to_usize;

use super::super::folder::read_at;

/// Bytes of a piece; a piece is at a multiple of this.
const PIECE: u64 = 64 << 10;
/// The largest file, as Linux has it.
const BYTES_MAX: u64 = i64::MAX.cast_unsigned();

/// Bytes of memory that what guests write may still take.
#[derive(Debug)]
pub(super) struct Budget {
    all: u64,
    left: u64,
}

impl Budget {
    pub(super) const fn new(bytes: u64) -> Self {
        Self { all: bytes, left: bytes }
    }

    /// Takes `bytes` bytes, if there are so many.
    pub(super) fn take(&mut self, bytes: u64) -> Result<(), Errno> {
        self.left = self.left.checked_sub(bytes).ok_or(Errno::NOSPC)?;
        Ok(())
    }

    /// Bytes that are free again.
    pub(super) const fn give(&mut self, bytes: u64) {
        self.left = self.left.saturating_add(bytes);
    }

    pub(super) const fn all(&self) -> u64 {
        self.all
    }

    pub(super) const fn left(&self) -> u64 {
        self.left
    }
}

/// The bytes of a file. A piece that is not in memory is the host's as far as [`Self::below`] reaches, and zeros from there.
///
/// No piece has anything but zeros behind the file's end, so that a file that grows again grows by zeros.
#[derive(Debug, Default)]
pub(super) struct Contents {
    size: u64,
    below: u64,
    pieces: BTreeMap<u64, Vec<u8>>,
}

impl Contents {
    /// The contents of a host's file of this size, as far as nobody changed them.
    pub(super) const fn over(size: u64) -> Self {
        Self { size, below: size, pieces: BTreeMap::new() }
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Whether the host's file has a part in it.
    pub(super) const fn needs_lower(&self) -> bool {
        self.below > 0
    }

    /// Bytes of memory that it takes.
    pub(super) fn taken(&self) -> u64 {
        self.pieces.len() as u64 * PIECE
    }

    /// Reads from an offset; gives how many bytes there were.
    pub(super) fn read(&self, lower: Option<&File>, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        let count = buffer.len().min(usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX));
        let mut rest = buffer.get_mut(..count).unwrap_or_default();
        let mut at = offset;
        while !rest.is_empty() {
            let within = at % PIECE;
            let length = rest.len().min(to_usize(PIECE - within));
            let (part, behind) = rest.split_at_mut(length);
            match self.pieces.get(&(at - within)) {
                Some(piece) => {
                    let from = piece.get(within as usize..).unwrap_or_default();
                    part.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
                }
                None => self.read_below(lower, at, part)?,
            }
            at += length as u64;
            rest = behind;
        }
        Ok(count)
    }

    /// What the host's file has there, as far as it counts; zeros behind that.
    fn read_below(&self, lower: Option<&File>, offset: u64, part: &mut [u8]) -> Result<(), Errno> {
        part.fill(0);
        let counts = usize::try_from(self.below.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = part.len().min(counts);
        match (lower, part.get_mut(..length)) {
            (Some(file), Some(part)) => read_at(file, offset, part).map(drop),
            _ => Ok(()),
        }
    }

    /// Writes at an offset.
    pub(super) fn write(
        &mut self,
        lower: Option<&File>,
        offset: u64,
        data: &[u8],
        budget: &mut Budget,
    ) -> Result<(), Errno> {
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= BYTES_MAX).ok_or(Errno::FBIG)?;
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let within = at % PIECE;
            let (part, behind) = rest.split_at(rest.len().min(to_usize(PIECE - within)));
            let start = at - within;
            if !self.pieces.contains_key(&start) {
                let mut piece = vec![0; to_usize(PIECE)];
                self.read_below(lower, start, &mut piece)?;
                budget.take(PIECE)?;
                self.pieces.insert(start, piece);
            }
            if let Some(piece) = self.pieces.get_mut(&start) {
                piece.iter_mut().skip(within as usize).zip(part).for_each(|(to, from)| *to = *from);
            }
            at += part.len() as u64;
            rest = behind;
            // What was written before there was no more room stays written.
            self.size = self.size.max(at.min(end));
        }
        Ok(())
    }

    /// Cuts it off, or lets it grow by zeros.
    pub(super) fn resize(&mut self, size: u64, budget: &mut Budget) -> Result<(), Errno> {
        if size > BYTES_MAX {
            return Err(Errno::FBIG);
        }
        self.below = self.below.min(size);
        let gone = self.pieces.split_off(&size.next_multiple_of(PIECE));
        budget.give(gone.len() as u64 * PIECE);
        if let Some(mut last) = self.pieces.last_entry() {
            let kept = usize::try_from(size.saturating_sub(*last.key())).unwrap_or(usize::MAX);
            last.get_mut().iter_mut().skip(kept).for_each(|byte| *byte = 0);
        }
        self.size = size;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tdvisor_test_data::chance::Chance;

    use super::*;

    fn all(contents: &Contents) -> Vec<u8> {
        let mut bytes = vec![0xee; contents.size() as usize];
        assert_eq!(contents.read(None, 0, &mut bytes), Ok(bytes.len()));
        bytes
    }

    #[test]
    fn a_file_is_what_was_written_whatever_the_order_and_the_sizes() {
        let mut budget = Budget::new(1 << 24);
        let mut contents = Contents::default();
        let mut model: Vec<u8> = Vec::new();
        let mut numbers = Chance::new(1);
        let mut chance = |below: u64| numbers.below(below);
        for step in 0..400 {
            let at = chance(3 * PIECE);
            if chance(4) == 0 {
                contents.resize(at, &mut budget).unwrap();
                model.resize(at as usize, 0);
            } else {
                let data = vec![step as u8 | 1; chance(PIECE + 1000) as usize];
                contents.write(None, at, &data, &mut budget).unwrap();
                let end = at as usize + data.len();
                if !data.is_empty() {
                    model.resize(model.len().max(end), 0);
                    model[at as usize..end].copy_from_slice(&data);
                }
            }
            assert_eq!(all(&contents), model, "step {step}");
        }
        contents.resize(0, &mut budget).unwrap();
        assert_eq!((budget.left(), contents.taken()), (budget.all(), 0), "everything came back");
    }

    #[test]
    fn no_offset_takes_more_memory_than_its_piece_and_the_end_of_the_world_is_refused() {
        let mut budget = Budget::new(2 * PIECE);
        let mut contents = Contents::default();
        contents.write(None, BYTES_MAX - 1, b"x", &mut budget).unwrap();
        assert_eq!((contents.size(), budget.left()), (BYTES_MAX, PIECE));
        assert_eq!(contents.write(None, BYTES_MAX, b"x", &mut budget), Err(Errno::FBIG));
        assert_eq!(contents.write(None, u64::MAX, b"x", &mut budget), Err(Errno::FBIG));
        contents.write(None, 0, b"x", &mut budget).unwrap();
        assert_eq!(contents.write(None, PIECE, b"x", &mut budget), Err(Errno::NOSPC));
        assert_eq!(contents.resize(u64::MAX, &mut budget), Err(Errno::FBIG));
    }
}
