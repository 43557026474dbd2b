//! Physical memory as something to be looked at: what firmware and boot loaders left there.

/// Memory by physical address.
pub trait Physical {
    /// Fills `out` from `at` on; `None` where that is out of reach.
    fn read(&self, at: u64, out: &mut [u8]) -> Option<()>;

    /// A little-endian number of one byte.
    fn u8(&self, at: u64) -> Option<u8> {
        let mut bytes = [0; 1];
        self.read(at, &mut bytes)?;
        Some(u8::from_le_bytes(bytes))
    }

    /// A little-endian number of two bytes.
    fn u16(&self, at: u64) -> Option<u16> {
        let mut bytes = [0; 2];
        self.read(at, &mut bytes)?;
        Some(u16::from_le_bytes(bytes))
    }

    /// A little-endian number of four bytes.
    fn u32(&self, at: u64) -> Option<u32> {
        let mut bytes = [0; 4];
        self.read(at, &mut bytes)?;
        Some(u32::from_le_bytes(bytes))
    }

    /// A little-endian number of eight bytes.
    fn u64(&self, at: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read(at, &mut bytes)?;
        Some(u64::from_le_bytes(bytes))
    }
}

#[cfg(test)]
pub(crate) mod fake {
    use std::collections::BTreeMap;
    use std::vec::Vec;

    use super::Physical;

    /// Memory that consists of what a test put there.
    #[derive(Default)]
    pub(crate) struct Memory(BTreeMap<u64, u8>);

    impl Memory {
        pub(crate) fn put(&mut self, at: u64, bytes: &[u8]) {
            self.0.extend((at..).zip(bytes.iter().copied()));
        }

        pub(crate) fn put_words(&mut self, at: u64, words: &[u32]) {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            self.put(at, &bytes);
        }
    }

    impl Physical for Memory {
        fn read(&self, at: u64, out: &mut [u8]) -> Option<()> {
            for (at, byte) in (at..).zip(out) {
                *byte = *self.0.get(&at)?;
            }
            Some(())
        }
    }
}
