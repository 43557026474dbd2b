//! virtio-fs: a folder of the host (section 5.11 of the specification).
//!
//! # Protocol
//! Queue 0 has requests that must not wait behind others (forgets), queue 1 has the rest. A request is a message of the FUSE
//! protocol in buffers to read, and room for its answer in buffers to write; some messages have no answer. The configuration
//! space is the tag by which the guest mounts it (36 bytes, filled with zeros), and the number of queues like queue 1 (u32).
//!
//! # Invariants
//! - A message has at most [`MESSAGE_BYTES_MAX`] bytes; a longer one is [`Broken`].
//! - An answer has at most [`ANSWER_BYTES_MAX`] bytes, and never more than there is room for.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use super::chain::Chain;
use super::{Broken, Served, VirtioDevice};
use crate::SharedMemory;

/// Bytes of a message to the host.
pub const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Bytes of an answer.
pub const ANSWER_BYTES_MAX: usize = 256 << 10;

const DEVICE_ID: u32 = 26;
const PLACES: u16 = 128;
const CONFIG_BYTES: usize = Tag::BYTES + size_of::<u32>();
/// Queues like queue 1.
const REQUEST_QUEUES: u32 = 1;

/// The name by which a guest mounts a folder: 1 to 36 bytes of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag([u8; Self::BYTES]);

impl Tag {
    /// Bytes of a tag; shorter ones are filled with zeros.
    pub const BYTES: usize = 36;

    /// The tag that is this text; `None` if it is empty, too long, or has a control character.
    pub fn new(text: &str) -> Option<Self> {
        let mut bytes = [0; Self::BYTES];
        let printable = !text.chars().any(char::is_control);
        let place = bytes.get_mut(..text.len()).filter(|place| !place.is_empty() && printable)?;
        place.copy_from_slice(text.as_bytes());
        Some(Self(bytes))
    }
}

/// A folder of the host, by messages of the FUSE protocol.
pub trait FileServer: Send {
    /// Answers a message with at most `room` bytes; `None` if it has no answer.
    fn answer(&mut self, message: &[u8], room: usize) -> Option<Vec<u8>>;
    /// The guest has let go of the folder: nothing that it held is of use any more.
    fn reset(&mut self);
}

/// The device.
pub struct VirtioFs {
    server: Box<dyn FileServer>,
    config: [u8; CONFIG_BYTES],
}

impl VirtioFs {
    /// A folder with this tag.
    pub fn new(tag: Tag, server: Box<dyn FileServer>) -> Self {
        let mut config = [0; CONFIG_BYTES];
        for (to, from) in config.iter_mut().zip(tag.0.into_iter().chain(REQUEST_QUEUES.to_le_bytes())) {
            *to = from;
        }
        Self { server, config }
    }
}

impl VirtioDevice for VirtioFs {
    fn id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[PLACES, PLACES]
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn accept(&mut self, features: u64) {
        if features == 0 {
            self.server.reset();
        }
    }

    fn serve(&mut self, _queue: usize, chain: &Chain, memory: &dyn SharedMemory) -> Result<Served, Broken> {
        let mut reader = chain.reader(memory);
        let mut writer = chain.writer(memory);
        let length = usize::try_from(reader.remaining()).unwrap_or(usize::MAX);
        if length > MESSAGE_BYTES_MAX {
            return Err(Broken::TooLong);
        }
        let mut message = vec![0; length];
        reader.read(&mut message)?;
        let room =
            usize::try_from(writer.remaining()).map_or(ANSWER_BYTES_MAX, |room| room.min(ANSWER_BYTES_MAX));
        if let Some(answer) = self.server.answer(&message, room) {
            writer.write(&answer)?;
        }
        Ok(Served::Used(writer.written()))
    }
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;

    use tdvisor_base::sync::Mutex;

    use super::*;
    use crate::virtio::test_driver::{DATA, END, TestDriver, WRITE};

    /// Answers with the message backwards, or not at all if it is empty.
    #[derive(Clone, Default)]
    struct Backwards(Arc<Mutex<Vec<usize>>>);

    impl FileServer for Backwards {
        fn answer(&mut self, message: &[u8], room: usize) -> Option<Vec<u8>> {
            self.0.lock().push(room);
            let answer: Vec<u8> = message.iter().rev().take(room).copied().collect();
            (!answer.is_empty()).then_some(answer)
        }

        fn reset(&mut self) {
            self.0.lock().clear();
        }
    }

    fn folder() -> (TestDriver, Backwards) {
        let server = Backwards::default();
        let device = VirtioFs::new(Tag::new("home").unwrap(), Box::new(server.clone()));
        let mut driver = TestDriver::new(Box::new(device), 128);
        driver.start();
        (driver, server)
    }

    #[test]
    fn the_configuration_has_the_tag_and_one_queue_of_requests() {
        let (mut driver, _) = folder();
        assert_eq!((driver.read(0x08), driver.read(0x100)), (26, u32::from_le_bytes(*b"home")));
        assert_eq!((driver.read(0x104), driver.read(0x124)), (0, 1));
    }

    #[test]
    fn messages_are_answered_whole_over_any_buffers_and_some_not_at_all() {
        let (mut driver, server) = folder();
        for queue in [0, 1] {
            let places = driver.describe_chain_at(queue, 0, DATA, &[b"hel", b"lo"], &[2, 100]);
            driver.offer_in(queue, 0);
            driver.notify_of(queue as u32);
            assert_eq!(driver.used_of(queue), [(0, 5)]);
            assert_eq!(&driver.memory.get::<6>(places[2]), b"olleh\0");
            driver.describe_chain_at(queue, 0, DATA, &[b"forget"], &[]);
            driver.offer_in(queue, 0);
            driver.notify_of(queue as u32);
            assert_eq!(driver.used_of(queue), [(0, 0)]);
        }
        assert_eq!(*server.0.lock(), [102, 0, 102, 0]);
        driver.write(0x70, 0);
        assert!(server.0.lock().is_empty(), "a reset lets go");
    }

    #[test]
    fn messages_that_are_too_long_and_memory_that_is_not_shared_stop_the_device() {
        for (address, bytes, flags) in
            [(DATA, MESSAGE_BYTES_MAX as u32 + 1, 0), (END - 4, 8, 0), (u64::MAX, 1, WRITE)]
        {
            let (mut driver, server) = folder();
            driver.describe_in(1, 0, address, bytes, flags, 0);
            driver.offer_in(1, 0);
            driver.notify_of(1);
            assert_ne!(driver.read(0x70) & 64, 0, "{bytes} bytes at {address:#x}");
            assert!(server.0.lock().is_empty());
        }
    }

    #[test]
    fn room_for_gigabytes_is_room_for_the_longest_answer() {
        let (mut driver, server) = folder();
        driver.describe_chain_at(1, 0, DATA, &[b"hello"], &[8]);
        driver.describe_in(1, 1, DATA + 8, 1 << 30, WRITE, 0);
        driver.offer_in(1, 0);
        driver.notify_of(1);
        assert_eq!(*server.0.lock(), [ANSWER_BYTES_MAX]);
    }

    #[test]
    fn a_tag_is_short_text() {
        assert!(Tag::new(&"x".repeat(36)).is_some());
        for bad in ["", &"x".repeat(37), "a\nb", "a\0"] {
            assert_eq!(Tag::new(bad), None, "{bad:?}");
        }
    }
}
