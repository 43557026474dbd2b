//! State as numbers, for a snapshot.
//!
//! # Protocol
//! Whoever keeps state writes it as numbers, in an order that is its own business, and reads them back in that order. A list
//! says first how many items it has, and each has at least one number: so what is read is never larger than what was written,
//! whoever wrote it. Numbers that are none of such a state are [`BadNumbers`], and nothing is made of them.

use alloc::vec::Vec;
use core::fmt;

/// State as numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers(Vec<u64>);

/// Numbers that are not such a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadNumbers;

impl fmt::Display for BadNumbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the numbers are not of such a state")
    }
}

impl core::error::Error for BadNumbers {}

impl Numbers {
    /// No number.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// One number.
    pub fn put(&mut self, number: impl Into<u64>) {
        self.0.push(number.into());
    }

    /// A number that may be missing.
    pub fn put_option(&mut self, number: Option<u64>) {
        self.put(number.is_some());
        self.put(number.unwrap_or(0));
    }

    /// A number of items, or an index.
    pub fn put_count(&mut self, count: usize) {
        self.put(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// A list: how many, then each.
    pub fn put_list<T>(&mut self, items: impl IntoIterator<Item = T>, mut put: impl FnMut(&mut Self, T)) {
        let at = self.0.len();
        self.put(0u64);
        let mut count: u64 = 0;
        for item in items {
            put(self, item);
            count += 1;
        }
        if let Some(place) = self.0.get_mut(at) {
            *place = count;
        }
    }

    /// What was written.
    pub fn into_vec(self) -> Vec<u64> {
        self.0
    }
}

/// Reads numbers in the order in which they were written.
#[derive(Clone, Debug)]
pub struct Reader<'n>(&'n [u64]);

impl<'n> Reader<'n> {
    /// From the first number on.
    pub const fn new(numbers: &'n [u64]) -> Self {
        Self(numbers)
    }

    /// The next number.
    ///
    /// # Errors
    /// [`BadNumbers`] where there is none.
    pub fn number(&mut self) -> Result<u64, BadNumbers> {
        let (first, rest) = self.0.split_first().ok_or(BadNumbers)?;
        self.0 = rest;
        Ok(*first)
    }

    /// The next number, which has fewer bits.
    ///
    /// # Errors
    /// [`BadNumbers`] where there is none, or it does not fit.
    pub fn narrow<T: TryFrom<u64>>(&mut self) -> Result<T, BadNumbers> {
        T::try_from(self.number()?).map_err(|_| BadNumbers)
    }

    /// The next number, which is 0 or 1.
    ///
    /// # Errors
    /// [`BadNumbers`] where it is not.
    pub fn flag(&mut self) -> Result<bool, BadNumbers> {
        match self.number()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(BadNumbers),
        }
    }

    /// A number that may be missing.
    ///
    /// # Errors
    /// [`BadNumbers`].
    pub fn option(&mut self) -> Result<Option<u64>, BadNumbers> {
        let is_there = self.flag()?;
        let number = self.number()?;
        Ok(is_there.then_some(number))
    }

    /// So many numbers.
    ///
    /// # Errors
    /// [`BadNumbers`] where there are fewer.
    pub fn array<const N: usize>(&mut self) -> Result<[u64; N], BadNumbers> {
        let mut array = [0; N];
        for place in &mut array {
            *place = self.number()?;
        }
        Ok(array)
    }

    /// A list.
    ///
    /// # Errors
    /// [`BadNumbers`], of the list or of an item.
    pub fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, BadNumbers>,
    ) -> Result<Vec<T>, BadNumbers> {
        let count: usize = self.narrow()?;
        if count > self.0.len() {
            return Err(BadNumbers);
        }
        (0..count).map(|_| item(self)).collect()
    }

    /// How many numbers are left.
    pub const fn left(&self) -> usize {
        self.0.len()
    }

    /// Nothing is left.
    ///
    /// # Errors
    /// [`BadNumbers`] where something is.
    pub fn end(self) -> Result<(), BadNumbers> {
        if self.0.is_empty() { Ok(()) } else { Err(BadNumbers) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_was_not_is_refused() {
        let mut numbers = Numbers::new();
        numbers.put(7u8);
        numbers.put_option(None);
        numbers.put_list([1u64, 2], |out, item| out.put(item));
        let numbers = numbers.into_vec();
        let read = |numbers: &[u64]| {
            let mut reader = Reader::new(numbers);
            let read = (reader.narrow::<u8>()?, reader.option()?, reader.list(Reader::number)?);
            reader.end()?;
            Ok(read)
        };
        assert_eq!(read(&numbers), Ok((7, None, alloc::vec![1, 2])));
        for length in 0..numbers.len() {
            assert_eq!(read(&numbers[..length]), Err(BadNumbers), "{length} numbers");
        }
        assert_eq!(read(&[&numbers[..], &[0]].concat()), Err(BadNumbers), "one too many");
        assert_eq!(read(&[256, 0, 0, 0]), Err(BadNumbers), "a number that does not fit");
        assert_eq!(read(&[7, 2, 0, 0]), Err(BadNumbers), "a flag that is none");
        assert_eq!(read(&[7, 0, 0, u64::MAX]), Err(BadNumbers), "a list that is longer than the rest");
    }
}
