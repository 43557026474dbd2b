//! virtio-rng: random bytes for a guest (section 5.4 of the specification).
//!
//! # Protocol
//! One queue. A request has buffers to write; the device fills them with random bytes from the first on, and may leave a rest
//! as it is: the returned length says how many there are. There is no configuration and no feature.
//!
//! # Invariants
//! - A request gets at most [`REQUEST_BYTES_MAX`] bytes, and at least one: one without room for a byte is [`Broken`].
//! - Where the [`Entropy`] fails the request waits: a device never returns bytes that are not random.

use alloc::boxed::Box;

use super::chain::Chain;
use super::{Broken, Served, VirtioDevice};
use crate::SharedMemory;

/// Bytes that one request gets at most.
pub const REQUEST_BYTES_MAX: usize = 4096;

const DEVICE_ID: u32 = 4;
const PLACES: u16 = 16;

/// Where random bytes come from.
pub trait Entropy: Send {
    /// Fills `out`.
    ///
    /// # Errors
    /// [`NoEntropy`]: what was filled is not to be used.
    fn fill(&mut self, out: &mut [u8]) -> Result<(), NoEntropy>;
}

/// There are no random bytes to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoEntropy;

impl core::fmt::Display for NoEntropy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("there are no random bytes to be had")
    }
}

impl core::error::Error for NoEntropy {}

/// The device.
pub struct VirtioRng {
    entropy: Box<dyn Entropy>,
}

impl VirtioRng {
    /// `entropy` as a virtio device.
    pub fn new(entropy: Box<dyn Entropy>) -> Self {
        Self { entropy }
    }
}

impl VirtioDevice for VirtioRng {
    fn id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[PLACES]
    }

    fn config(&self) -> &[u8] {
        &[]
    }

    fn accept(&mut self, _: u64) {}

    fn serve(&mut self, _queue: usize, chain: &Chain, memory: &dyn SharedMemory) -> Result<Served, Broken> {
        let mut writer = chain.writer(memory);
        let room = usize::try_from(writer.remaining()).unwrap_or(usize::MAX);
        let mut bytes = [0; REQUEST_BYTES_MAX];
        let bytes = bytes.get_mut(..room.min(REQUEST_BYTES_MAX)).unwrap_or_default();
        if bytes.is_empty() {
            return Err(Broken::TooShort);
        }
        if self.entropy.fill(bytes).is_err() {
            return Ok(Served::Later);
        }
        writer.write(bytes)?;
        Ok(Served::Used(writer.written()))
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::virtio::test_driver::{DATA, END, TestDriver, WRITE};

    /// Counts up from 1, until it has given so many bytes.
    struct Counting {
        given: u8,
        left: usize,
    }

    impl Entropy for Counting {
        fn fill(&mut self, out: &mut [u8]) -> Result<(), NoEntropy> {
            self.left = self.left.checked_sub(out.len()).ok_or(NoEntropy)?;
            for byte in out {
                self.given = self.given.wrapping_add(1);
                *byte = self.given;
            }
            Ok(())
        }
    }

    fn driver(left: usize) -> TestDriver {
        let mut driver = TestDriver::new(Box::new(VirtioRng::new(Box::new(Counting { given: 0, left }))), 16);
        driver.start();
        driver
    }

    #[test]
    fn a_request_is_filled_over_the_borders_of_its_buffers() {
        let mut driver = driver(100);
        assert_eq!(driver.read(0x08), 4);
        driver.describe_chain(&[], &[3, 0, 2]);
        driver.offer(0);
        driver.notify();
        assert_eq!(driver.used(), [(0, 5)]);
        assert_eq!(driver.memory.get(DATA), [1, 2, 3, 4, 5, 0]);
    }

    #[test]
    fn a_request_for_gigabytes_gets_a_page() {
        let mut driver = driver(100_000);
        driver.describe(0, DATA, 1 << 31, WRITE, 0);
        driver.offer(0);
        driver.memory.take_moved();
        driver.notify();
        assert!(driver.memory.take_moved() < 5000);
        assert_eq!(driver.used(), [(0, REQUEST_BYTES_MAX as u32)]);
    }

    #[test]
    fn a_request_waits_when_there_is_no_entropy_and_gets_no_bytes_that_are_not_random() {
        let mut driver = driver(4);
        driver.describe_chain(&[], &[5]);
        driver.offer(0);
        driver.notify();
        assert_eq!((driver.used(), driver.read(0x70)), (vec![], 15));
        assert_eq!(driver.memory.get(DATA), [0; 5]);
    }

    #[test]
    fn requests_without_room_or_with_memory_that_is_not_shared_stop_the_device() {
        for (address, bytes, flags) in [(DATA, 0, WRITE), (DATA, 8, 0), (END - 4, 8, WRITE)] {
            let mut driver = driver(100);
            driver.describe(0, address, bytes, flags, 0);
            driver.offer(0);
            driver.notify();
            assert_ne!(driver.read(0x70) & 64, 0, "{bytes} bytes at {address:#x}");
            assert!(driver.used().is_empty());
        }
    }
}
