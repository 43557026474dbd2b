//! The device as its driver and the host's programs see it.

use alloc::sync::Arc;
use alloc::vec::Vec;

use tdvisor_base::sync::Mutex;

use super::connection::BUFFER_BYTES;
use super::*;
use crate::virtio::test_driver::{DATA, TestDriver, WRITE};

const GUEST: u64 = 42;
/// The guest's port of most tests, and the host's.
const PORT: u32 = 1234;
const SERVICE: u32 = 80;
/// Room that the guest says it has.
const ROOM: u32 = 4096;

/// A host program's end: what it sent, what it got, and how much more it takes.
#[derive(Default)]
struct End {
    sends: Vec<u8>,
    sent_all: bool,
    got: Vec<u8>,
    takes: usize,
    gone: bool,
    saw_end: bool,
    told_port: Option<u32>,
}

#[derive(Clone, Default)]
struct TestStream(Arc<Mutex<End>>);

impl Stream for TestStream {
    fn may_read(&self) -> bool {
        let end = self.0.lock();
        !end.sends.is_empty() || end.sent_all
    }

    fn read(&mut self, out: &mut [u8]) -> Moved {
        let end = &mut *self.0.lock();
        let count = end.sends.len().min(out.len());
        out[..count].copy_from_slice(&end.sends[..count]);
        end.sends.drain(..count);
        match count {
            0 if end.sent_all => Moved::End,
            0 => Moved::Later,
            count => Moved::Bytes(count),
        }
    }

    fn write(&mut self, data: &[u8]) -> Moved {
        let end = &mut *self.0.lock();
        let count = data.len().min(end.takes);
        end.takes -= count;
        end.got.extend(&data[..count]);
        match count {
            _ if end.gone => Moved::End,
            0 => Moved::Later,
            count => Moved::Bytes(count),
        }
    }

    fn shut_write(&mut self) {
        self.0.lock().saw_end = true;
    }

    fn established(&mut self, host_port: u32) {
        self.0.lock().told_port = Some(host_port);
    }
}

/// Somebody listens at [`SERVICE`], and programs may ask for the guest.
#[derive(Clone, Default)]
struct TestHost {
    service: TestStream,
    incoming: Arc<Mutex<Vec<(u32, TestStream)>>>,
}

impl Host for TestHost {
    fn connect(&mut self, port: u32) -> Option<Box<dyn Stream>> {
        (port == SERVICE).then(|| Box::new(self.service.clone()) as Box<dyn Stream>)
    }

    fn has_incoming(&self) -> bool {
        !self.incoming.lock().is_empty()
    }

    fn accept(&mut self) -> Option<Incoming> {
        let (guest_port, stream) = self.incoming.lock().pop()?;
        Some(Incoming { guest_port, stream: Box::new(stream) })
    }
}

/// A driver that keeps the device supplied with buffers.
struct Guest {
    driver: TestDriver,
    host: TestHost,
    /// A buffer waits for a packet.
    has_buffer: bool,
}

impl Guest {
    fn new() -> Self {
        let host = TestHost::default();
        host.service.0.lock().takes = usize::MAX;
        let driver = TestDriver::new(Box::new(VirtioVsock::new(GUEST, Box::new(host.clone()))), 128);
        let mut guest = Self { driver, host, has_buffer: false };
        guest.driver.start();
        guest
    }

    fn header(operation: u16) -> Header {
        let mut bytes = [0; HEADER_BYTES];
        bytes[30..32].copy_from_slice(&operation.to_le_bytes());
        let mut header = parse(&bytes);
        (header.source_cid, header.destination_cid) = (GUEST, HOST_CID);
        (header.source_port, header.destination_port) = (PORT, SERVICE);
        (header.socket_type, header.buffer_space) = (TYPE_STREAM, ROOM);
        header
    }

    /// Sends a packet, and says how many came back used.
    fn send(&mut self, header: Header, data: &[u8]) -> usize {
        let bytes = header.to_bytes();
        self.driver.describe_chain_at(1, 0, DATA, &[&bytes, data], &[]);
        self.driver.offer_in(1, 0);
        self.driver.notify_of(1);
        self.driver.used_of(1).len()
    }

    fn send_operation(&mut self, operation: u16) {
        assert_eq!(self.send(Self::header(operation), b""), 1);
    }

    fn send_data(&mut self, data: &[u8]) {
        let mut header = Self::header(5);
        header.length = data.len() as u32;
        assert_eq!(self.send(header, data), 1);
    }

    /// Takes the packets that wait, into one buffer of this many bytes each.
    fn receive(&mut self, room: u32) -> Vec<(Header, Vec<u8>)> {
        let at = DATA + 0x20_0000;
        let mut packets = Vec::new();
        loop {
            self.driver.describe_in(0, 0, at, room, WRITE, 0);
            if !self.has_buffer {
                self.driver.offer(0);
                self.has_buffer = true;
            }
            self.driver.attend();
            let Some((0, length)) = self.driver.used().pop() else { return packets };
            self.has_buffer = false;
            let bytes = self.driver.memory.get_many(at, length as usize);
            let (header, data) = bytes.split_at(HEADER_BYTES);
            packets.push((parse(header.try_into().unwrap()), data.to_vec()));
        }
    }

    /// The operations that wait.
    fn operations(&mut self) -> Vec<Operation> {
        self.receive(4096).into_iter().map(|(header, _)| header.operation).collect()
    }

    fn open(&mut self) {
        self.send_operation(1);
        assert_eq!(self.operations(), [Operation::Response]);
    }

    fn service(&self) -> tdvisor_base::sync::MutexGuard<'_, End> {
        self.host.service.0.lock()
    }
}

/// A header from its bytes.
fn parse(bytes: &[u8; HEADER_BYTES]) -> Header {
    use crate::test_memory::TestMemory;
    use crate::virtio::chain::{Buffer, Chain};
    let memory = TestMemory::new(0x1000, 0x1000);
    memory.put(0x1000, bytes);
    let bit = tdvisor_base::SharedBit::topmost(48);
    let readable = [Buffer::new(0x1000, HEADER_BYTES as u32, bit).unwrap()].to_vec();
    let chain = Chain { head: 0, readable, writable: Vec::new() };
    Header::read(&mut chain.reader(&memory)).unwrap()
}

#[test]
fn a_header_survives_its_bytes() {
    let bytes: [u8; HEADER_BYTES] = core::array::from_fn(|at| at as u8 + 1);
    let header = parse(&bytes);
    assert_eq!((header.source_cid, header.forwarded), (0x0807_0605_0403_0201, 0x2c2b_2a29));
    assert_eq!(header.operation, Operation::Other(0x201f));
    assert_eq!(header.to_bytes(), bytes);
}

#[test]
fn the_guest_learns_its_id() {
    let mut guest = Guest::new();
    assert_eq!((guest.driver.read(0x08), guest.driver.read(0x100), guest.driver.read(0x104)), (19, 42, 0));
}

#[test]
fn a_guest_connects_talks_both_ways_and_closes() {
    let mut guest = Guest::new();
    guest.send_operation(1);
    let packets = guest.receive(4096);
    let [(response, _)] = &packets[..] else { panic!("one answer: {packets:?}") };
    assert_eq!(response.operation, Operation::Response);
    assert_eq!((response.source_cid, response.destination_cid), (HOST_CID, GUEST));
    assert_eq!((response.source_port, response.destination_port), (SERVICE, PORT));
    assert_eq!((response.buffer_space, response.forwarded), (BUFFER_BYTES, 0));

    guest.send_data(b"hello");
    assert_eq!(guest.service().got, b"hello");
    guest.service().sends.extend(b"welcome");
    let packets = guest.receive(4096);
    assert_eq!((packets[0].0.operation, &packets[0].1[..]), (Operation::Data, &b"welcome"[..]));
    assert_eq!((packets[0].0.length, packets[0].0.forwarded), (7, 5));

    let mut shutdown = Guest::header(4);
    shutdown.flags = shutdown::SEND;
    guest.send(shutdown, b"");
    assert!(guest.service().saw_end, "the program sees the end");
    guest.service().sends.extend(b"bye");
    assert_eq!(guest.operations(), [Operation::Data], "the other direction goes on");
    guest.service().sent_all = true;
    let packets = guest.receive(4096);
    assert_eq!((packets[0].0.operation, packets[0].0.flags), (Operation::Shutdown, shutdown::SEND));
    shutdown.flags = shutdown::SEND | shutdown::RECEIVE;
    guest.send(shutdown, b"");
    assert_eq!(guest.operations(), [Operation::Reset]);
    guest.send_data(b"?");
    assert_eq!(guest.operations(), [Operation::Reset], "there is no connection any more");
}

#[test]
fn a_program_connects_to_the_guest_or_hears_that_it_cannot() {
    let mut guest = Guest::new();
    let program = TestStream::default();
    guest.host.incoming.lock().push((5000, program.clone()));
    let packets = guest.receive(4096);
    let [(request, _)] = &packets[..] else { panic!("one request: {packets:?}") };
    assert_eq!((request.operation, request.destination_port), (Operation::Request, 5000));
    assert_eq!(request.source_port, FIRST_HOST_PORT);
    assert_eq!(program.0.lock().told_port, None);
    let mut response = Guest::header(2);
    (response.source_port, response.destination_port) = (5000, request.source_port);
    guest.send(response, b"");
    assert_eq!(program.0.lock().told_port, Some(request.source_port));

    let refused = TestStream::default();
    guest.host.incoming.lock().push((5001, refused.clone()));
    let packets = guest.receive(4096);
    let mut reset = Guest::header(3);
    (reset.source_port, reset.destination_port) = (5001, packets[0].0.source_port);
    guest.send(reset, b"");
    assert!(guest.operations().is_empty(), "a reset is not answered");
    assert_eq!(Arc::strong_count(&refused.0), 1, "the program's end is closed");
}

#[test]
fn what_does_not_exist_is_reset_and_a_reset_is_not() {
    let mut guest = Guest::new();
    let change: [fn(&mut Header); 5] = [
        |header| header.destination_port = SERVICE + 1,
        |header| header.destination_cid = 7,
        |header| header.source_cid = GUEST + 1,
        |header| header.socket_type = 2,
        |header| header.operation = Operation::Other(99),
    ];
    for (index, change) in change.into_iter().enumerate() {
        for operation in [1, 3] {
            let mut header = Guest::header(operation);
            let reset = operation == 3 && index != 4;
            change(&mut header);
            guest.send(header, b"");
            let expected: &[Operation] = if reset { &[] } else { &[Operation::Reset] };
            assert_eq!(guest.operations(), expected, "case {index}, operation {operation}");
        }
    }
}

#[test]
fn data_waits_for_a_slow_program_up_to_the_credit_and_more_ends_the_connection() {
    let mut guest = Guest::new();
    guest.open();
    guest.service().takes = 10;
    let all: Vec<u8> = (0..BUFFER_BYTES).map(|at| (at % 251) as u8).collect();
    guest.send_data(&all[..1000]);
    assert_eq!(guest.service().got, &all[..10]);
    guest.service().takes = usize::MAX;
    guest.driver.attend();
    assert_eq!(guest.service().got, &all[..1000], "it goes on when the program takes more");

    guest.service().takes = 0;
    for piece in all.chunks(16 << 10) {
        guest.send_data(piece);
    }
    assert!(guest.operations().is_empty());
    guest.send_data(b"!");
    assert_eq!(guest.operations(), [Operation::Reset]);
}

#[test]
fn a_guest_hears_of_its_credit_before_it_runs_out() {
    let mut guest = Guest::new();
    guest.open();
    for _ in 0..BUFFER_BYTES / 2 / 8192 {
        guest.send_data(&[1; 8192]);
    }
    let packets = guest.receive(4096);
    assert_eq!(packets[0].0.operation, Operation::CreditUpdate);
    assert_eq!(packets[0].0.forwarded, BUFFER_BYTES / 2);
    guest.send_operation(7);
    assert_eq!(guest.operations(), [Operation::CreditUpdate]);
}

#[test]
fn the_guests_credit_is_never_overdrawn() {
    let mut guest = Guest::new();
    guest.open();
    guest.service().sends = (0..10_000).map(|at: u32| at as u8).collect();
    let packets = guest.receive(1000);
    let data: usize = packets.iter().map(|(_, data)| data.len()).sum();
    assert_eq!(data, ROOM as usize);
    assert_eq!(packets.last().unwrap().0.operation, Operation::CreditRequest);
    assert!(packets.iter().all(|(_, data)| data.len() <= 1000 - HEADER_BYTES), "as the buffers are");
    let mut update = Guest::header(6);
    update.forwarded = 100;
    guest.send(update, b"");
    let more: usize = guest.receive(4096).iter().map(|(_, data)| data.len()).sum();
    assert_eq!(more, 100);
    // It claims to have forwarded what it never got.
    update.forwarded = u32::MAX;
    guest.send(update, b"");
    assert_eq!(guest.operations(), [Operation::CreditRequest]);
}

#[test]
fn connections_take_turns() {
    let mut guest = Guest::new();
    guest.open();
    let program = TestStream::default();
    guest.host.incoming.lock().push((5000, program.clone()));
    let request = guest.receive(4096)[0].0;
    let mut response = Guest::header(2);
    (response.source_port, response.destination_port) = (5000, request.source_port);
    guest.send(response, b"");
    guest.service().sends = [1; 100].to_vec();
    program.0.lock().sends = [2; 100].to_vec();
    let bytes: Vec<u8> = guest.receive(HEADER_BYTES as u32 + 50).iter().map(|(_, data)| data[0]).collect();
    assert!(matches!(bytes[..], [1, 2, 1, 2] | [2, 1, 2, 1]), "{bytes:?}");
}

#[test]
fn answers_that_nobody_takes_hold_up_the_guest_and_nothing_else() {
    let mut guest = Guest::new();
    for _ in 0..REPLIES_MAX {
        guest.send_operation(5);
    }
    assert_eq!(guest.send(Guest::header(5), b""), 0, "there is no room for its answer");
    assert_eq!(guest.operations().len(), REPLIES_MAX + 1);
    assert_eq!(guest.driver.used_of(1).len(), 1, "it was taken as soon as there was");
}

#[test]
fn there_are_no_more_connections_than_there_may_be() {
    let mut guest = Guest::new();
    for port in 0..CONNECTIONS_MAX as u32 {
        let mut request = Guest::header(1);
        request.source_port = port;
        guest.send(request, b"");
        assert_eq!(guest.operations(), [Operation::Response], "connection {port}");
    }
    let mut request = Guest::header(1);
    request.source_port = 5000;
    guest.send(request, b"");
    assert_eq!(guest.operations(), [Operation::Reset]);
    let late = TestStream::default();
    guest.host.incoming.lock().push((1, late.clone()));
    assert!(guest.operations().is_empty());
    assert_eq!(Arc::strong_count(&late.0), 1, "a program beyond the bound is let go");
}

#[test]
fn a_reset_of_the_device_ends_every_connection() {
    let mut guest = Guest::new();
    guest.open();
    // The test's, the device's, and the connection's.
    assert_eq!(Arc::strong_count(&guest.host.service.0), 3);
    guest.driver.write(0x70, 0);
    assert_eq!(Arc::strong_count(&guest.host.service.0), 2);
}

#[test]
fn a_program_that_is_gone_resets_the_connection() {
    let mut guest = Guest::new();
    guest.open();
    guest.service().gone = true;
    guest.send_data(b"hello");
    assert_eq!(guest.operations(), [Operation::Reset]);
}

#[test]
fn packets_that_are_cut_off_and_buffers_too_small_stop_the_device() {
    let mut guest = Guest::new();
    let mut header = Guest::header(5);
    header.length = 6;
    guest.send(header, b"hello");
    assert_ne!(guest.driver.read(0x70) & 64, 0, "more data than there is");

    let mut guest = Guest::new();
    guest.driver.describe_chain_at(1, 0, DATA, &[&[0; HEADER_BYTES - 1]], &[]);
    guest.driver.offer_in(1, 0);
    guest.driver.notify_of(1);
    assert_ne!(guest.driver.read(0x70) & 64, 0, "half a header");

    let mut guest = Guest::new();
    guest.driver.describe(0, DATA, HEADER_BYTES as u32 - 1, WRITE, 0);
    guest.driver.offer(0);
    guest.driver.notify();
    assert_ne!(guest.driver.read(0x70) & 64, 0, "no room for a header");
}
