//! virtio-net: a network card (section 5.1 of the specification).
//!
//! # Protocol
//! Queue 0 has buffers for frames to the guest, queue 1 has frames from it. Before each frame is a header of 12 bytes, which
//! is zero but for its last two: the number of buffers, 1. The configuration space has the card's address (6 bytes), and at
//! byte 10 the largest packet (u16).
//!
//! Checksums and segmentation are the guest's own work: nothing of that is offered, so a header that asks for it means nothing.
//!
//! # Invariants
//! - A frame has at most [`FRAME_BYTES_MAX`] bytes. One from the guest that is longer, or shorter than its own header, is
//!   dropped, as a network does.
//! - A buffer for a frame has room for the longest; a smaller one is [`Broken`].

use alloc::boxed::Box;

use super::chain::Chain;
use super::{Broken, Queues, Served, VirtioDevice};
use crate::SharedMemory;

/// Bytes of the largest packet in a frame.
pub const MTU: u16 = 1500;
/// Bytes of an Ethernet header.
pub const ETHERNET_HEADER_BYTES: usize = 14;
/// Bytes of the longest frame.
pub const FRAME_BYTES_MAX: usize = ETHERNET_HEADER_BYTES + MTU as usize;

const DEVICE_ID: u32 = 1;
const PLACES: u16 = 128;
const TO_GUEST: u32 = 0;

/// Features of a network card (section 5.1.3).
mod feature {
    pub(super) const MTU: u64 = 1 << 3;
    pub(super) const MAC: u64 = 1 << 5;
}

const HEADER_BYTES: usize = 12;
/// The header of every frame to the guest: one buffer.
const HEADER: [u8; HEADER_BYTES] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

/// The network behind a card. It never waits.
pub trait Link: Send {
    /// Takes a frame from the guest, or drops it.
    fn send(&mut self, frame: &[u8]);
    /// Gives the next frame for the guest, in a buffer that has room for the longest, and its length; 0 if there is none.
    fn receive(&mut self, out: &mut [u8; FRAME_BYTES_MAX]) -> usize;
    /// Whether there is a frame for the guest.
    fn has_frame(&mut self) -> bool;
}

/// The device.
pub struct VirtioNet {
    link: Box<dyn Link>,
    config: [u8; 12],
    frame: Box<[u8; FRAME_BYTES_MAX]>,
}

impl VirtioNet {
    /// A card with this address on this network.
    pub fn new(mac: [u8; 6], link: Box<dyn Link>) -> Self {
        let [a, b, c, d, e, f] = mac;
        let [low, high] = MTU.to_le_bytes();
        let config = [a, b, c, d, e, f, 0, 0, 0, 0, low, high];
        Self { link, config, frame: Box::new([0; FRAME_BYTES_MAX]) }
    }

    fn receive(&mut self, chain: &Chain, memory: &dyn SharedMemory) -> Result<Served, Broken> {
        let mut writer = chain.writer(memory);
        if writer.remaining() < (HEADER_BYTES + FRAME_BYTES_MAX) as u64 {
            return Err(Broken::TooShort);
        }
        let length = self.link.receive(&mut self.frame);
        match self.frame.get(..length) {
            Some([]) | None => Ok(Served::Later),
            Some(frame) => {
                writer.write(&HEADER)?;
                writer.write(frame)?;
                Ok(Served::Used(writer.written()))
            }
        }
    }

    fn send(&mut self, chain: &Chain, memory: &dyn SharedMemory) -> Result<Served, Broken> {
        let mut reader = chain.reader(memory);
        reader.read(&mut [0; HEADER_BYTES])?;
        let length = usize::try_from(reader.remaining()).unwrap_or(usize::MAX);
        if length >= ETHERNET_HEADER_BYTES
            && let Some(frame) = self.frame.get_mut(..length)
        {
            reader.read(frame)?;
            self.link.send(frame);
        }
        Ok(Served::Used(0))
    }
}

impl VirtioDevice for VirtioNet {
    fn id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        feature::MAC | feature::MTU
    }

    fn queue_sizes(&self) -> &[u16] {
        &[PLACES, PLACES]
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn accept(&mut self, _: u64) {}

    fn ready(&mut self) -> Queues {
        Queues::NONE.with_if(self.link.has_frame(), TO_GUEST)
    }

    fn serve(&mut self, queue: usize, chain: &Chain, memory: &dyn SharedMemory) -> Result<Served, Broken> {
        if queue == TO_GUEST as usize { self.receive(chain, memory) } else { self.send(chain, memory) }
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::VecDeque;
    use alloc::sync::Arc;
    use alloc::vec;
    use alloc::vec::Vec;

    use tdvisor_base::sync::Mutex;

    use super::*;
    use crate::virtio::test_driver::{DATA, END, TestDriver, WRITE};

    #[derive(Default)]
    struct Wire {
        sent: Vec<Vec<u8>>,
        waiting: VecDeque<Vec<u8>>,
    }

    #[derive(Clone, Default)]
    struct TestLink(Arc<Mutex<Wire>>);

    impl Link for TestLink {
        fn send(&mut self, frame: &[u8]) {
            self.0.lock().sent.push(frame.to_vec());
        }

        fn receive(&mut self, out: &mut [u8; FRAME_BYTES_MAX]) -> usize {
            let Some(frame) = self.0.lock().waiting.pop_front() else { return 0 };
            out[..frame.len()].copy_from_slice(&frame);
            frame.len()
        }

        fn has_frame(&mut self) -> bool {
            !self.0.lock().waiting.is_empty()
        }
    }

    fn card() -> (TestDriver, TestLink) {
        let link = TestLink::default();
        let device = VirtioNet::new([2, 0x11, 0x22, 0x33, 0x44, 0x55], Box::new(link.clone()));
        let mut driver = TestDriver::new(Box::new(device), 128);
        driver.start();
        (driver, link)
    }

    fn send(driver: &mut TestDriver, pieces: &[&[u8]]) {
        driver.describe_chain_at(1, 0, DATA, pieces, &[]);
        driver.offer_in(1, 0);
        driver.notify_of(1);
    }

    #[test]
    fn the_configuration_has_the_address_and_the_largest_packet() {
        let (mut driver, _) = card();
        assert_eq!((driver.read(0x08), driver.offered_features() & 0xffff_ffff), (1, 1 << 3 | 1 << 5));
        assert_eq!((driver.read(0x100), driver.read(0x104)), (0x3322_1102, 0x5544));
        assert_eq!(driver.read(0x108), 1500 << 16);
    }

    #[test]
    fn frames_from_the_guest_arrive_without_their_header_and_impossible_ones_do_not() {
        let (mut driver, link) = card();
        let longest: Vec<u8> = (0..FRAME_BYTES_MAX).map(|at| at as u8).collect();
        send(&mut driver, &[&[0xff; 12], &longest[..700], &longest[700..]]);
        send(&mut driver, &[&[0; 12], &[1; FRAME_BYTES_MAX + 1]]);
        send(&mut driver, &[&[0; 12], &[2; 13]]);
        send(&mut driver, &[&[0; 12]]);
        send(&mut driver, &[&[0; 12 + 60]]);
        assert_eq!(driver.used_of(1), vec![(0, 0); 5]);
        assert_eq!(link.0.lock().sent, [longest, vec![0; 60]]);
    }

    #[test]
    fn frames_for_the_guest_wait_for_buffers_and_buffers_for_frames() {
        let (mut driver, link) = card();
        link.0.lock().waiting.extend([vec![1; 60], vec![2; FRAME_BYTES_MAX]]);
        driver.attend();
        for head in 0..3 {
            let at = DATA + 0x1000 * u64::from(head);
            driver.describe(head, at, (12 + FRAME_BYTES_MAX) as u32, WRITE, 0);
            driver.offer(head);
        }
        driver.notify();
        assert_eq!(driver.used(), [(0, 72), (1, 12 + FRAME_BYTES_MAX as u32)]);
        assert_eq!(driver.memory.get::<14>(DATA), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 1]);
        assert_eq!(driver.interrupts(), 1);
        link.0.lock().waiting.push_back(vec![3; 14]);
        driver.attend();
        assert_eq!((driver.used(), driver.interrupts()), (vec![(2, 26)], 1));
    }

    #[test]
    fn buffers_without_room_and_memory_that_is_not_shared_stop_the_device() {
        type Request = (&'static str, fn(&mut TestDriver));
        let cases: [Request; 4] = [
            ("half a header", |driver| send(driver, &[&[0; 11]])),
            ("a frame where nothing is", |driver| {
                driver.describe_in(1, 0, END - 20, 60, 0, 0);
                driver.offer_in(1, 0);
                driver.notify_of(1);
            }),
            ("a buffer too small", |driver| {
                driver.describe(0, DATA, (12 + FRAME_BYTES_MAX - 1) as u32, WRITE, 0);
            }),
            ("a buffer where nothing is", |driver| driver.describe(0, END, 1 << 20, WRITE, 0)),
        ];
        for (name, request) in cases {
            let (mut driver, link) = card();
            link.0.lock().waiting.push_back(vec![1; 60]);
            request(&mut driver);
            driver.offer(0);
            driver.notify();
            assert_ne!(driver.read(0x70) & 64, 0, "{name}");
            assert!(link.0.lock().sent.is_empty(), "{name}");
        }
    }
}
