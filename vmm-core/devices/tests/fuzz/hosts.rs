//! The devices, hosts behind them that answer anything, and requests that their drivers make.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tdvisor_devices::virtio::VirtioDevice;
use tdvisor_devices::virtio::blk::{Disk, DiskAccess, DiskError, SECTOR, Storage, VirtioBlk};
use tdvisor_devices::virtio::console::{Terminal, TerminalSize, VirtioConsole};
use tdvisor_devices::virtio::fs::{FileServer, Tag, VirtioFs};
use tdvisor_devices::virtio::net::{FRAME_BYTES_MAX, Link, VirtioNet};
use tdvisor_devices::virtio::rng::{Entropy, NoEntropy, VirtioRng};
use tdvisor_devices::virtio::rtc::VirtioRtc;
use tdvisor_devices::virtio::vsock::{Host, Incoming, Moved, Stream, VirtioVsock};
use tdvisor_test_data::chance::Chance;

use super::Straight;
use super::guest::{Guest, Piece, number};

/// Brings input.
pub type Brings = Box<dyn FnMut()>;

/// A device to try.
pub struct Target {
    /// The target's name.
    pub name: &'static str,
    /// Makes it, and what brings its input.
    pub make: fn(u64) -> (Box<dyn VirtioDevice>, Brings),
    /// Makes one request of it, bent or not.
    pub request: fn(&mut Guest, &mut Chance, Straight),
}

/// Every device, as a target.
pub const DEVICES: [Target; 7] = [
    Target { name: "blk", make: disk, request: disk_request },
    Target { name: "rng", make: rng, request: rng_request },
    Target { name: "console", make: console, request: console_request },
    Target { name: "vsock", make: vsock, request: vsock_request },
    Target { name: "net", make: net, request: net_request },
    Target { name: "fs", make: folder, request: folder_request },
    Target { name: "rtc", make: clock, request: clock_request },
];

/// A number, or another if the request may be bent.
fn maybe(chance: &mut Chance, straight: Straight, right: u64) -> u64 {
    if straight == Straight::No && chance.one_in(12) { number(chance) } else { right }
}

/// A length of a buffer, or another one.
fn length(chance: &mut Chance, straight: Straight, right: u32) -> u32 {
    maybe(chance, straight, right.into()) as u32
}

struct SmallDisk(Vec<u8>);

impl SmallDisk {
    fn place(&mut self, sector: u64, bytes: usize) -> &mut [u8] {
        let at = (sector * SECTOR) as usize;
        &mut self.0[at..at + bytes]
    }
}

impl Disk for SmallDisk {
    fn sectors(&self) -> u64 {
        self.0.len() as u64 / SECTOR
    }

    fn access(&self) -> DiskAccess {
        DiskAccess::ReadWrite
    }

    fn read_at(&mut self, sector: u64, out: &mut [u8]) -> Result<(), DiskError> {
        out.copy_from_slice(self.place(sector, out.len()));
        Ok(())
    }

    fn write_at(&mut self, sector: u64, data: &[u8]) -> Result<(), DiskError> {
        self.place(sector, data.len()).copy_from_slice(data);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        Ok(())
    }

    fn discard(&mut self, sector: u64, sectors: u64) -> Result<(), DiskError> {
        self.write_zeroes(sector, sectors, Storage::MayBeFreed)
    }

    fn write_zeroes(&mut self, sector: u64, sectors: u64, _: Storage) -> Result<(), DiskError> {
        self.place(sector, (sectors * SECTOR) as usize).fill(0);
        Ok(())
    }
}

fn disk(_: u64) -> (Box<dyn VirtioDevice>, Brings) {
    let disk = SmallDisk(vec![0; 64 * SECTOR as usize]);
    (Box::new(VirtioBlk::new(Box::new(disk))), Box::new(|| {}))
}

fn disk_request(guest: &mut Guest, chance: &mut Chance, straight: Straight) {
    let kind = chance.pick(&[0u32, 1, 4, 8, 11, 13]);
    let sector = chance.below(64);
    let sector = maybe(chance, straight, sector);
    let header =
        [kind.to_le_bytes(), [0; 4], (sector as u32).to_le_bytes(), ((sector >> 32) as u32).to_le_bytes()];
    let data = vec![0xa5; 512 * chance.below(4) as usize];
    let range = [maybe(chance, straight, 3).to_le_bytes(), maybe(chance, straight, 1).to_le_bytes()].concat();
    let head = chance.below(120) as u16;
    let status = Piece::Room(length(chance, straight, 1));
    let room = length(chance, straight, 512);
    let body = match kind {
        1 => Piece::Read(&data),
        11 | 13 => Piece::Read(&range),
        _ => Piece::Room(room),
    };
    guest.request(0, head, &[Piece::Read(&header.concat()), body, status]);
}

struct Counting(u8);

impl Entropy for Counting {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), NoEntropy> {
        self.0 = self.0.wrapping_add(1);
        out.fill(self.0);
        Ok(())
    }
}

fn rng(_: u64) -> (Box<dyn VirtioDevice>, Brings) {
    (Box::new(VirtioRng::new(Box::new(Counting(0)))), Box::new(|| {}))
}

fn rng_request(guest: &mut Guest, chance: &mut Chance, straight: Straight) {
    let (head, room) = (chance.below(14) as u16, length(chance, straight, 64));
    guest.request(0, head, &[Piece::Room(room)]);
}

/// Bytes or frames that wait for the guest.
type Waiting = Arc<Mutex<VecDeque<Vec<u8>>>>;

fn waiting(of: &Waiting) -> std::sync::MutexGuard<'_, VecDeque<Vec<u8>>> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Brings pieces of up to so many bytes, and never lets more than a few wait.
fn bringing(to: &Waiting, seed: u64, most: u64) -> Brings {
    let (to, mut chance) = (to.clone(), Chance::new(seed ^ 1));
    Box::new(move || {
        let mut waiting = waiting(&to);
        if waiting.len() < 8 {
            waiting.push_back(vec![7; 14 + chance.below(most - 13) as usize]);
        }
    })
}

/// Takes at most as much as fits; puts the rest back.
fn take(from: &Waiting, out: &mut [u8]) -> usize {
    let mut waiting = waiting(from);
    let Some(mut piece) = waiting.pop_front() else { return 0 };
    let count = piece.len().min(out.len());
    out[..count].copy_from_slice(&piece[..count]);
    if count < piece.len() {
        waiting.push_front(piece.split_off(count));
    }
    count
}

struct TestTerminal(Waiting);

impl Terminal for TestTerminal {
    fn write(&mut self, _: &[u8]) {}

    fn read(&mut self, out: &mut [u8]) -> usize {
        take(&self.0, out)
    }

    fn has_input(&self) -> bool {
        !waiting(&self.0).is_empty()
    }
}

fn console(seed: u64) -> (Box<dyn VirtioDevice>, Brings) {
    let typed = Waiting::default();
    let size = Some(TerminalSize { columns: 80, rows: 25 });
    (Box::new(VirtioConsole::new(Box::new(TestTerminal(typed.clone())), size)), bringing(&typed, seed, 700))
}

/// Control messages of a console: eight bytes with the port, the event and its value.
fn control(port: u8, event: u8, value: u8) -> [u8; 8] {
    [port, 0, 0, 0, event, 0, value, 0]
}

fn console_request(guest: &mut Guest, chance: &mut Chance, straight: Straight) {
    const PORT_OPEN: u8 = 6;
    match (straight, chance.below(8)) {
        // Input comes only to a port that is open.
        (Straight::Yes, _) => guest.request(3, 0, &[Piece::Read(&control(0, PORT_OPEN, 1))]),
        (Straight::No, 0..2) => {
            let message = control(chance.below(2) as u8, chance.below(9) as u8, chance.below(2) as u8);
            guest.request(3, chance.below(6) as u16, &[Piece::Read(&message)]);
        }
        (Straight::No, 2) => {
            let room = length(chance, straight, 64);
            guest.request(2, chance.below(6) as u16, &[Piece::Room(room)]);
        }
        (Straight::No, _) => {}
    }
    let head = chance.below(62) as u16;
    if chance.one_in(2) {
        guest.request(1, head, &[Piece::Read(b"hello, world")]);
    } else {
        let room = length(chance, straight, 100);
        guest.request(0, head, &[Piece::Room(room)]);
    }
}

struct TestStream {
    sends: Waiting,
    takes: Chance,
}

impl Stream for TestStream {
    fn may_read(&self) -> bool {
        !waiting(&self.sends).is_empty()
    }

    fn read(&mut self, out: &mut [u8]) -> Moved {
        match take(&self.sends, out) {
            0 if self.takes.one_in(20) => Moved::End,
            0 => Moved::Later,
            count => Moved::Bytes(count),
        }
    }

    fn write(&mut self, data: &[u8]) -> Moved {
        match self.takes.below(8) {
            0 => Moved::Later,
            1 if self.takes.one_in(10) => Moved::End,
            2 => Moved::Bytes(data.len() / 2),
            _ => Moved::Bytes(data.len()),
        }
    }

    fn shut_write(&mut self) {}

    fn established(&mut self, _: u32) {}
}

struct TestHost {
    sends: Waiting,
    chance: Chance,
}

impl TestHost {
    fn stream(&mut self) -> Box<dyn Stream> {
        Box::new(TestStream { sends: self.sends.clone(), takes: Chance::new(self.chance.next()) })
    }
}

impl Host for TestHost {
    fn connect(&mut self, port: u32) -> Option<Box<dyn Stream>> {
        (port < 100).then(|| self.stream())
    }

    fn has_incoming(&self) -> bool {
        waiting(&self.sends).len() == 3
    }

    fn accept(&mut self) -> Option<Incoming> {
        waiting(&self.sends).pop_front()?;
        let guest_port = self.chance.below(4) as u32;
        Some(Incoming { guest_port, stream: self.stream() })
    }
}

fn vsock(seed: u64) -> (Box<dyn VirtioDevice>, Brings) {
    let sends = Waiting::default();
    let host = TestHost { sends: sends.clone(), chance: Chance::new(seed ^ 2) };
    (Box::new(VirtioVsock::new(3, Box::new(host))), bringing(&sends, seed, 9000))
}

fn vsock_request(guest: &mut Guest, chance: &mut Chance, straight: Straight) {
    let head = chance.below(120) as u16;
    if chance.one_in(3) && straight == Straight::No {
        let room = length(chance, straight, 4096);
        guest.request(0, head, &[Piece::Room(room)]);
        return;
    }
    let data = vec![1; chance.below(3000) as usize];
    let operation = chance.pick(&[1u16, 1, 2, 3, 4, 5, 5, 5, 6, 7, 8]);
    let host_port = if operation == 2 { (1 << 30) + chance.below(8) } else { chance.below(102) };
    let mut header = Vec::new();
    header.extend(maybe(chance, straight, 3).to_le_bytes());
    header.extend(maybe(chance, straight, 2).to_le_bytes());
    header.extend((maybe(chance, straight, 1) as u32 % 4).to_le_bytes());
    header.extend((maybe(chance, straight, host_port) as u32).to_le_bytes());
    header.extend(length(chance, straight, data.len() as u32).to_le_bytes());
    header.extend((maybe(chance, straight, 1) as u16).to_le_bytes());
    header.extend(operation.to_le_bytes());
    header.extend((chance.below(4) as u32).to_le_bytes());
    header.extend(length(chance, straight, 1 << 16).to_le_bytes());
    header.extend(length(chance, straight, 0).to_le_bytes());
    guest.request(1, head, &[Piece::Read(&header), Piece::Read(&data)]);
}

struct TestLink(Waiting);

impl Link for TestLink {
    fn send(&mut self, frame: &[u8]) {
        assert!((14..=FRAME_BYTES_MAX).contains(&frame.len()), "{} bytes are no frame", frame.len());
    }

    fn receive(&mut self, out: &mut [u8; FRAME_BYTES_MAX]) -> usize {
        take(&self.0, out)
    }

    fn has_frame(&mut self) -> bool {
        !waiting(&self.0).is_empty()
    }
}

fn net(seed: u64) -> (Box<dyn VirtioDevice>, Brings) {
    let frames = Waiting::default();
    let card = VirtioNet::new([2, 0, 0, 0, 0, 1], Box::new(TestLink(frames.clone())));
    (Box::new(card), bringing(&frames, seed, FRAME_BYTES_MAX as u64))
}

fn net_request(guest: &mut Guest, chance: &mut Chance, straight: Straight) {
    let head = chance.below(120) as u16;
    if chance.one_in(2) {
        let frame = vec![3; chance.below(1600) as usize];
        guest.request(1, head, &[Piece::Read(&[0; 12]), Piece::Read(&frame)]);
    } else {
        let room = length(chance, straight, 1526);
        guest.request(0, head, &[Piece::Room(room)]);
    }
}

/// Answers with the message.
struct Echo;

impl FileServer for Echo {
    fn answer(&mut self, message: &[u8], room: usize) -> Option<Vec<u8>> {
        (!message.is_empty()).then(|| message.iter().copied().cycle().take(room).collect())
    }

    fn reset(&mut self) {}
}

fn folder(_: u64) -> (Box<dyn VirtioDevice>, Brings) {
    (Box::new(VirtioFs::new(Tag::new("share").expect("a tag"), Box::new(Echo))), Box::new(|| {}))
}

fn folder_request(guest: &mut Guest, chance: &mut Chance, straight: Straight) {
    let (queue, head) = (chance.below(2) as u32, chance.below(120) as u16);
    let message = vec![5; 40 + chance.below(200) as usize];
    let room = length(chance, straight, 4096);
    guest.request(queue, head, &[Piece::Read(&message), Piece::Room(room)]);
}

fn clock(_: u64) -> (Box<dyn VirtioDevice>, Brings) {
    let mut now = 0u64;
    let tick = move || {
        now = now.wrapping_add(1);
        (!now.is_multiple_of(8)).then_some(now)
    };
    (Box::new(VirtioRtc::new(Box::new(tick))), Box::new(|| {}))
}

fn clock_request(guest: &mut Guest, chance: &mut Chance, straight: Straight) {
    let kind = chance.pick(&[1u64, 2, 0x1000, 0x1001, 0x1002, 0x1003]);
    let mut request = maybe(chance, straight, kind).to_le_bytes().to_vec();
    request.extend(maybe(chance, straight, 0).to_le_bytes());
    request.truncate(length(chance, straight, 16).min(16) as usize);
    let (head, room) = (chance.below(14) as u16, length(chance, straight, 16));
    guest.request(0, head, &[Piece::Read(&request), Piece::Room(room)]);
}
