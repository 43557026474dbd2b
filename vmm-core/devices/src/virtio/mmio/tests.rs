//! The transport as its driver sees it, with a device that answers by echoing.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;

use tdvisor_base::sync::{AtomicU64, Ordering};

use super::*;
use crate::virtio::chain::Chain;
use crate::virtio::test_driver::{
    AVAILABLE, BASE, DATA, DESCRIPTORS, END, INDIRECT, NEXT, SHARED_BIT, TestDriver, USED, WRITE,
};
use crate::virtio::{Broken, Queues, Served, features};

const ECHO_FEATURE: u64 = 1 << 7;
const ALL: u64 = ECHO_FEATURE | features::REQUIRED;

/// Writes back what it reads.
struct Echo {
    accepted: Arc<AtomicU64>,
}

impl VirtioDevice for Echo {
    fn id(&self) -> u32 {
        42
    }

    fn features(&self) -> u64 {
        ECHO_FEATURE
    }

    fn queue_sizes(&self) -> &[u16] {
        &[8, 4]
    }

    fn config(&self) -> &[u8] {
        &[1, 2, 3, 4, 5, 6]
    }

    fn accept(&mut self, features: u64) {
        self.accepted.store(features, Ordering::SeqCst);
    }

    fn serve(&mut self, _: usize, chain: &Chain, memory: &dyn SharedMemory) -> Result<Served, Broken> {
        let mut reader = chain.reader(memory);
        let mut data = vec![0; reader.remaining() as usize];
        reader.read(&mut data)?;
        let mut writer = chain.writer(memory);
        writer.write(&data)?;
        Ok(Served::Used(writer.written()))
    }
}

fn driver() -> TestDriver {
    TestDriver::new(Box::new(Echo { accepted: Arc::default() }), 8)
}

fn started() -> TestDriver {
    let mut driver = driver();
    driver.start();
    driver
}

/// Starts a driver, lets it break a rule, and checks that the device stopped and said so.
#[track_caller]
fn stops(break_a_rule: impl FnOnce(&mut TestDriver)) {
    let mut driver = started();
    break_a_rule(&mut driver);
    driver.notify();
    assert_eq!(driver.read(0x70), 3 | 8 | 4 | 64, "DEVICE_NEEDS_RESET");
    assert_eq!(driver.interrupts(), 1);
    assert_ne!(driver.read(0x60) & interrupt::CONFIG, 0);
    driver.memory.take_moved();
    driver.notify();
    assert_eq!(driver.memory.take_moved(), 0, "it touches no memory any more");
    driver.write(0x70, 0);
    assert_eq!((driver.read(0x70), driver.read(0x60)), (0, 0));
    driver.start();
    driver.describe_chain(&[b"again"], &[5]);
    driver.offer(0);
    driver.notify();
    assert_eq!(driver.used(), [(0, 5)], "a reset makes it good");
}

#[test]
fn an_empty_slot_says_that_nothing_is_there() {
    let mut slot = EmptySlot;
    assert_eq!(slot.read(0, AccessSize::Double), 0x7472_6976);
    assert_eq!(slot.read(4, AccessSize::Double), 2);
    assert_eq!(slot.read(8, AccessSize::Double), 0);
}

#[test]
fn a_driver_finds_out_what_is_there() {
    let mut driver = driver();
    assert_eq!(driver.read(0x00), 0x7472_6976);
    assert_eq!(driver.read(0x04), 2);
    assert_eq!(driver.read(0x08), 42);
    assert_eq!(driver.offered_features(), ALL);
    driver.write(0x14, 2);
    assert_eq!(driver.read(0x10), 0, "no features beyond 63");
    let sizes = [0, 1, 2, u32::MAX].map(|queue| {
        driver.write(0x30, queue);
        driver.read(0x34)
    });
    assert_eq!(sizes, [8, 4, 0, 0]);
    assert_eq!(driver.read(0xb0), u32::MAX, "no shared-memory regions");
}

#[test]
fn features_are_accepted_with_both_that_a_td_needs_and_none_that_was_not_offered() {
    let accepted = Arc::new(AtomicU64::new(0));
    let mut driver = TestDriver::new(Box::new(Echo { accepted: accepted.clone() }), 8);
    for refused in
        [0, features::VERSION_1, features::ACCESS_PLATFORM, ECHO_FEATURE, ALL | 1 << 34, ALL | 1, u64::MAX]
    {
        assert_eq!(driver.negotiate(refused), 3, "{refused:#x}");
        driver.write(0x70, 3 | 4);
        assert_eq!(driver.read(0x70), 3, "and DRIVER_OK needs FEATURES_OK");
        assert_eq!(accepted.load(Ordering::SeqCst), 0);
    }
    for taken in [ALL, features::REQUIRED] {
        assert_eq!(driver.negotiate(taken), 3 | 8);
        assert_eq!(accepted.load(Ordering::SeqCst), taken);
    }
    driver.write(0x24, 0);
    driver.write(0x20, 0xffff);
    driver.write(0x70, 3 | 8 | 4);
    assert_eq!(driver.read(0x70), 3 | 8 | 4, "settled features do not change");
    driver.write(0x70, 0);
    assert_eq!(accepted.load(Ordering::SeqCst), 0);
    driver.write(0x24, 2);
    driver.write(0x20, 1);
    driver.write(0x24, 0);
    driver.write(0x20, 0);
    driver.write(0x24, 1);
    driver.write(0x20, 3);
    driver.write(0x70, 8);
    assert_eq!(driver.read(0x70), 0, "a feature beyond 63 was taken");
}

#[test]
fn a_driver_adds_status_bits_and_only_a_reset_removes_them() {
    let mut driver = driver();
    driver.write(0x70, 1);
    driver.write(0x70, 2);
    assert_eq!(driver.read(0x70), 3);
    driver.write(0x70, 64 | 0xffff_ff00);
    assert_eq!(driver.read(0x70), 3, "DEVICE_NEEDS_RESET is the device's");
    driver.write(0x70, 0);
    assert_eq!(driver.read(0x70), 0);
}

#[test]
fn a_queue_is_enabled_with_a_usable_size_and_aligned_areas_only() {
    let mut driver = driver();
    let area = |driver: &mut TestDriver, low: u64, value: u64| {
        driver.write(low, value as u32);
        driver.write(low + 4, (value >> 32) as u32);
    };
    for (size, table, available, used) in [
        (0, 0, 0, 0),
        (3, 0, 0, 0),
        (16, 0, 0, 0),
        (0x1_0008, 0, 0, 0),
        (8, 8, 0, 0),
        (8, 0, 1, 0),
        (8, 0, 0, 2),
        (8, 0x7fff_ffff_fff0, 0, 0),
        (8, 0, 1 << 48, 0),
        (8, 0, 0, u64::MAX - 3),
    ] {
        driver.negotiate(ALL);
        driver.write(0x38, size);
        area(&mut driver, 0x80, table);
        area(&mut driver, 0x90, available);
        area(&mut driver, 0xa0, used);
        driver.write(0x44, 1);
        assert_eq!(driver.read(0x44), 0, "{size} {table:#x} {available:#x} {used:#x}");
        assert_eq!(driver.read(0x70), 3 | 8 | 64);
        assert_eq!(driver.interrupts(), 0, "nobody drives it yet");
    }
    driver.negotiate(ALL);
    assert_eq!(driver.enable_queue(SHARED_BIT), 1);
    driver.write(0x30, 1);
    assert_eq!(driver.read(0x44), 0, "the other queue is its own");
    driver.write(0x30, 0);
    driver.write(0x44, 0);
    assert_eq!(driver.read(0x44), 0);
}

#[test]
fn an_enabled_queue_stays_where_it_is() {
    let mut driver = started();
    driver.write(0x38, 4);
    driver.write(0x80, 0);
    driver.write(0x44, 1);
    driver.describe_chain(&[b"here"], &[4]);
    driver.offer(0);
    driver.notify();
    assert_eq!(driver.used(), [(0, 4)]);
}

#[test]
fn requests_are_answered_at_the_notification_in_order_with_one_interrupt() {
    let mut driver = started();
    driver.describe(0, DATA | SHARED_BIT, 2, NEXT, 1);
    driver.describe(1, DATA + 0x10, 2, WRITE, 0);
    driver.describe(5, DATA + 2, 1, NEXT, 2);
    driver.describe(2, (DATA + 0x20) | SHARED_BIT, 1, WRITE, 7);
    driver.memory.put(DATA, b"abc");
    driver.offer(5);
    driver.offer(0);
    assert_eq!(driver.used(), [], "not before it is told");
    driver.notify();
    assert_eq!(driver.used(), [(5, 1), (0, 2)]);
    assert_eq!(driver.memory.get(DATA + 0x10), *b"ab");
    assert_eq!(driver.memory.get(DATA + 0x20), *b"c");
    assert_eq!(driver.interrupts(), 1);
    assert_eq!(driver.read(0x60), interrupt::USED);
    driver.write(0x64, interrupt::USED);
    assert_eq!(driver.read(0x60), 0);
    driver.notify();
    assert_eq!((driver.used().len(), driver.interrupts()), (0, 0), "nothing waits, nothing is said");
}

#[test]
fn every_answer_is_an_edge_even_if_the_last_one_was_not_acknowledged() {
    let mut driver = started();
    driver.describe_chain(&[b"x"], &[1]);
    for _ in 0..3 {
        driver.offer(0);
        driver.notify();
        assert_eq!(driver.interrupts(), 1);
    }
    assert_eq!(driver.used().len(), 3);
}

#[test]
fn a_driver_that_polls_is_not_interrupted() {
    let mut driver = started();
    driver.memory.put(AVAILABLE, &[1, 0]);
    driver.describe_chain(&[b"x"], &[1]);
    driver.offer(0);
    driver.notify();
    assert_eq!((driver.used().len(), driver.interrupts(), driver.read(0x60)), (1, 0, 0));
}

#[test]
fn indices_wrap_around() {
    let mut driver = started();
    driver.describe_chain(&[b"x"], &[1]);
    for round in 0..0x1_0010 {
        driver.offer(0);
        driver.notify();
        assert_eq!(driver.used(), [(0, 1)], "request {round}");
    }
    assert_eq!(u16::from_le_bytes(driver.memory.get(USED + 2)), 0x10);
}

#[test]
fn nothing_is_answered_before_driver_ok_or_after_failed() {
    let mut driver = driver();
    driver.negotiate(ALL);
    assert_eq!(driver.enable_queue(0), 1);
    driver.describe_chain(&[b"x"], &[1]);
    driver.offer(0);
    driver.memory.take_moved();
    driver.notify();
    assert_eq!(driver.memory.take_moved(), 0);
    driver.write(0x70, 3 | 8 | 4);
    driver.write(0x50, 1);
    driver.write(0x50, 77);
    assert_eq!(driver.memory.take_moved(), 0, "queues that are not enabled or do not exist");
    driver.write(0x70, 3 | 8 | 4 | 128);
    driver.notify();
    assert_eq!(driver.memory.take_moved(), 0);
}

#[test]
fn a_disabled_queue_begins_anew_when_it_is_enabled() {
    let mut driver = started();
    driver.describe_chain(&[b"x"], &[1]);
    driver.offer(0);
    driver.notify();
    driver.write(0x44, 0);
    driver.offer(0);
    driver.memory.take_moved();
    driver.notify();
    assert_eq!(driver.memory.take_moved(), 0);
    assert_eq!(driver.enable_queue(0), 1);
    driver.offer(0);
    driver.notify();
    assert_eq!(driver.used(), [(0, 1)]);
}

#[test]
fn a_loop_of_descriptors_stops_the_device() {
    stops(|driver| {
        driver.describe(0, DATA, 1, NEXT, 1);
        driver.describe(1, DATA, 1, NEXT, 0);
        driver.offer(0);
    });
    stops(|driver| {
        driver.describe(3, DATA, 1, NEXT | WRITE, 3);
        driver.offer(3);
    });
}

#[test]
fn a_descriptor_outside_the_table_stops_the_device() {
    stops(|driver| driver.offer(8));
    stops(|driver| driver.offer(0xffff));
    stops(|driver| {
        driver.describe(0, DATA, 1, NEXT, 8);
        driver.offer(0);
    });
}

#[test]
fn what_was_not_offered_stops_the_device() {
    stops(|driver| {
        driver.describe(0, DESCRIPTORS, 16, INDIRECT, 0);
        driver.offer(0);
    });
}

#[test]
fn a_readable_buffer_after_a_writable_one_stops_the_device() {
    stops(|driver| {
        driver.describe(0, DATA, 1, WRITE | NEXT, 1);
        driver.describe(1, DATA, 1, 0, 0);
        driver.offer(0);
    });
}

#[test]
fn buffers_that_are_not_shared_stop_the_device() {
    for bad in [BASE - 1, END, END - 2, u64::MAX - 2, 1 << 63, 0] {
        stops(|driver| {
            driver.describe(0, bad, 4, NEXT, 1);
            driver.describe(1, DATA, 4, WRITE, 0);
            driver.offer(0);
        });
        stops(|driver| {
            driver.describe(0, DATA, 4, NEXT, 1);
            driver.describe(1, bad, 4, WRITE, 0);
            driver.offer(0);
        });
    }
}

#[test]
fn an_index_further_ahead_than_the_ring_is_long_stops_the_device() {
    stops(|driver| driver.memory.put(AVAILABLE + 2, &9u16.to_le_bytes()));
    stops(|driver| driver.memory.put(AVAILABLE + 2, &0xffffu16.to_le_bytes()));
}

#[test]
fn rings_that_are_not_shared_stop_the_device() {
    for low in [0x80, 0x90, 0xa0] {
        let mut driver = driver();
        driver.negotiate(ALL);
        for (low, area) in [(0x80, DESCRIPTORS), (0x90, AVAILABLE), (0xa0, USED)] {
            driver.write(low, area as u32);
        }
        driver.write(low, END as u32);
        driver.write(0x38, 8);
        driver.write(0x44, 1);
        assert_eq!(driver.read(0x44), 1);
        driver.write(0x70, 3 | 8 | 4);
        driver.describe_chain(&[b"x"], &[1]);
        driver.offer(0);
        driver.notify();
        assert_eq!(driver.read(0x70), 3 | 8 | 4 | 64, "area at register {low:#x}");
        assert_eq!(driver.interrupts(), 1);
    }
}

#[test]
fn the_configuration_space_is_read_in_any_size_and_ends_in_zeros() {
    let mut driver = driver();
    let mut read = |offset, size| driver.transport.read(offset, size);
    assert_eq!(read(0x100, AccessSize::Byte), 1);
    assert_eq!(read(0x101, AccessSize::Word), 0x0302);
    assert_eq!(read(0x102, AccessSize::Double), 0x0605_0403);
    assert_eq!(read(0x104, AccessSize::Quad), 0x0605);
    assert_eq!(read(0xfff, AccessSize::Byte), 0);
}

#[test]
fn registers_are_four_bytes_and_nothing_else() {
    let mut driver = driver();
    for size in [AccessSize::Byte, AccessSize::Word, AccessSize::Quad] {
        assert_eq!(driver.transport.read(0, size), 0);
        let _ = driver.transport.write(0x70, size, 1, &driver.memory);
    }
    assert_eq!(driver.read(0x02), 0);
    assert_eq!(driver.read(0x70), 0);
}

/// Has input in its queue 0 when the test says so, and is made ready for it by its queue 1 too.
struct Input {
    waiting: Arc<AtomicU64>,
}

impl VirtioDevice for Input {
    fn id(&self) -> u32 {
        43
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[8, 8]
    }

    fn config(&self) -> &[u8] {
        &[]
    }

    fn accept(&mut self, _: u64) {}

    fn ready(&mut self) -> Queues {
        Queues::NONE.with_if(self.waiting.load(Ordering::SeqCst) != 0, 0)
    }

    fn serve(&mut self, queue: usize, chain: &Chain, memory: &dyn SharedMemory) -> Result<Served, Broken> {
        if queue == 1 {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            return Ok(Served::Used(0));
        }
        let waiting = self.waiting.load(Ordering::SeqCst);
        if waiting == 0 {
            return Ok(Served::Later);
        }
        self.waiting.store(waiting - 1, Ordering::SeqCst);
        chain.writer(memory).write(&[waiting as u8])?;
        Ok(Served::Used(1))
    }
}

#[test]
fn requests_that_cannot_be_answered_yet_wait_in_their_order_until_the_device_is_ready() {
    let waiting = Arc::new(AtomicU64::new(0));
    let mut driver = TestDriver::new(Box::new(Input { waiting: waiting.clone() }), 8);
    driver.start();
    for (head, at) in [(3, DATA), (5, DATA + 1), (1, DATA + 2)] {
        driver.describe(head, at, 1, WRITE, 0);
        driver.offer(head);
        driver.notify();
    }
    driver.attend();
    assert_eq!((driver.used(), driver.interrupts()), (vec![], 0), "nothing has come");
    waiting.store(2, Ordering::SeqCst);
    driver.attend();
    assert_eq!((driver.used(), driver.interrupts()), (vec![(3, 1), (5, 1)], 1));
    assert_eq!(driver.memory.get(DATA), [2, 1, 0]);
    driver.describe_in(1, 0, DATA, 1, 0, 0);
    driver.offer_in(1, 0);
    driver.notify_of(1);
    assert_eq!(driver.used_of(1), [(0, 0)]);
    assert_eq!((driver.used(), driver.interrupts()), (vec![(1, 1)], 1), "what another queue brought");
}

#[test]
fn a_device_that_is_not_driven_attends_to_nothing() {
    let waiting = Arc::new(AtomicU64::new(1));
    let mut driver = TestDriver::new(Box::new(Input { waiting: waiting.clone() }), 8);
    driver.start();
    driver.describe(0, DATA, 1, WRITE, 0);
    driver.offer(0);
    for status in [0, 3 | 8 | 4 | 128] {
        driver.write(0x70, status);
        driver.attend();
        assert_eq!((driver.used(), driver.interrupts()), (vec![], 0), "status {status:#x}");
    }
    assert_eq!(waiting.load(Ordering::SeqCst), 1);
}
