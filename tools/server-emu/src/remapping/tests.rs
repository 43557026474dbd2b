//! Interrupt remapping as an operating system sets it up.

use std::collections::BTreeMap;
use std::sync::Mutex;

use tdvisor_devices::IoApic;
use tdvisor_vm::NotShared;

use super::*;

const TABLE: u64 = 0x10_0000;
const QUEUE: u64 = 0x20_0000;
const DONE: u64 = 0x30_0000;
const IO_APIC_SELECT: u64 = 0;
const IO_APIC_WINDOW: u64 = 0x10;

/// Memory, byte by byte; zero where nothing was written.
#[derive(Default)]
struct Memory(Mutex<BTreeMap<u64, u8>>);

impl SharedMemory for Memory {
    fn read(&self, gpa: Gpa, out: &mut [u8]) -> Result<(), NotShared> {
        let bytes = self.0.lock().unwrap();
        for (at, byte) in (gpa.get()..).zip(out) {
            *byte = bytes.get(&at).copied().unwrap_or_default();
        }
        Ok(())
    }

    fn write(&self, gpa: Gpa, data: &[u8]) -> Result<(), NotShared> {
        self.0.lock().unwrap().extend((gpa.get()..).zip(data.iter().copied()));
        Ok(())
    }
}

struct Board {
    memory: Memory,
    unit: RemappingRegisters,
}

impl Board {
    fn write(&mut self, offset: u64, size: AccessSize, value: u64) {
        assert_eq!(self.unit.write(offset, size, value, &self.memory), DeviceRequest::None);
    }

    fn read(&mut self, offset: u64) -> u64 {
        self.unit.read(offset, AccessSize::Double)
    }

    fn entry(&self, index: u64, entry: u128) {
        self.memory.write(Gpa::new(TABLE + 16 * index), &entry.to_le_bytes()).unwrap();
    }

    /// A unit whose table has 65,536 entries and is in use.
    fn remapping() -> Self {
        let mut board = Self { memory: Memory::default(), unit: RemappingRegisters(Arc::default()) };
        board.write(register::TABLE_ADDRESS, AccessSize::Quad, TABLE | EXTENDED_MODE | 0xf);
        board.write(register::COMMAND, AccessSize::Double, SET_TABLE.into());
        board.write(register::QUEUE_ADDRESS, AccessSize::Quad, QUEUE);
        board.write(register::COMMAND, AccessSize::Double, (QUEUE_ENABLED | REMAPPING_ENABLED).into());
        let status = board.read(register::STATUS);
        assert_eq!(status, u64::from(SET_TABLE | QUEUE_ENABLED | REMAPPING_ENABLED));
        board
    }

    fn interrupt(&self, entry: u64) -> Result<Message, Lost> {
        self.unit.0.translate(redirection(entry), &self.memory)
    }
}

/// What an I/O APIC gives for a pin with this entry.
fn redirection(entry: u64) -> Redirection {
    let mut io_apic = Arc::new(IoApic::new());
    io_apic.line(0).unwrap().raise();
    for (register, half) in [(0x11, entry >> 32), (0x10, entry & 0xffff_ffff)] {
        let nothing = Memory::default();
        let _ = io_apic.write(IO_APIC_SELECT, AccessSize::Double, register, &nothing);
        let _ = io_apic.write(IO_APIC_WINDOW, AccessSize::Double, half, &nothing);
    }
    io_apic.take_entries()[0]
}

const fn remappable(index: u64) -> u64 {
    (index & 0x7fff) << 49 | 1 << 48 | (index >> 15) << 11
}

/// Present, vector, destination, verified source.
fn entry(vector: u8, destination: u32, source: u16) -> u128 {
    1 | u128::from(vector) << 16 | u128::from(destination) << 32 | u128::from(source) << 64 | 1 << 82
}

#[test]
fn an_interrupt_gets_vector_and_destination_of_its_entry_also_beyond_eight_bits() {
    let board = Board::remapping();
    board.entry(0x8003, entry(0x51, 0x100, IO_APIC_SOURCE.bits()));
    let expected = Message { destination: Destination::Physical(0x100), mode: 0, vector: 0x51 };
    assert_eq!(board.interrupt(remappable(0x8003)), Ok(expected));
}

#[test]
fn an_interrupt_without_an_entry_of_its_own_is_lost() {
    let board = Board::remapping();
    assert_eq!(board.interrupt(remappable(5)), Err(Lost::NoEntry { index: 5 }), "not present");
    board.entry(5, entry(0x51, 0, IO_APIC_SOURCE.bits() ^ 8));
    assert_eq!(board.interrupt(remappable(5)), Err(Lost::NoEntry { index: 5 }), "another source");
    board.entry(5, entry(0x51, 0, IO_APIC_SOURCE.bits()) | 1 << 15);
    assert_eq!(board.interrupt(remappable(5)), Err(Lost::NoEntry { index: 5 }), "posted");
    assert_eq!(board.interrupt(0x31), Err(Lost::NotRemappable));
}

#[test]
fn before_it_is_enabled_interrupts_pass_as_they_are() {
    let board = Board { memory: Memory::default(), unit: RemappingRegisters(Arc::default()) };
    let expected = Message { destination: Destination::Physical(2), mode: 0, vector: 0x31 };
    assert_eq!(board.interrupt(2 << 56 | 0x31), Ok(expected));
}

#[test]
fn a_wait_descriptor_behind_an_invalidation_is_answered_in_memory() {
    let mut board = Board::remapping();
    let wait = u128::from(WAIT | WAIT_STATUS_WRITE | 2 << 32) | u128::from(DONE) << 64;
    for (slot, descriptor) in (0u64..).zip([4u128, wait]) {
        board.memory.write(Gpa::new(QUEUE + 16 * slot), &descriptor.to_le_bytes()).unwrap();
    }
    board.write(register::QUEUE_TAIL, AccessSize::Double, 32);
    let mut done = [0; 4];
    board.memory.read(Gpa::new(DONE), &mut done).unwrap();
    assert_eq!(u32::from_le_bytes(done), 2);
    assert_eq!(board.read(register::QUEUE_HEAD), 32);
}

#[test]
fn a_descriptor_that_cannot_be_carried_out_stops_the_queue_until_the_error_is_cleared() {
    let mut board = Board::remapping();
    board.memory.write(Gpa::new(QUEUE), &[0xf]).unwrap();
    board.write(register::QUEUE_TAIL, AccessSize::Double, 16);
    assert_eq!(board.read(register::FAULT_STATUS), u64::from(QUEUE_ERROR));
    assert_eq!(board.read(register::QUEUE_HEAD), 0);
    board.memory.write(Gpa::new(QUEUE), &[1]).unwrap();
    board.write(register::FAULT_STATUS, AccessSize::Double, QUEUE_ERROR.into());
    assert_eq!((board.read(register::FAULT_STATUS), board.read(register::QUEUE_HEAD)), (0, 16));
}

#[test]
fn registers_that_are_64_bits_wide_are_written_in_halves_as_well() {
    let mut board = Board { memory: Memory::default(), unit: RemappingRegisters(Arc::default()) };
    board.write(register::TABLE_ADDRESS, AccessSize::Double, 0x1000);
    board.write(register::TABLE_ADDRESS + 4, AccessSize::Double, 0x2);
    assert_eq!(board.unit.read(register::TABLE_ADDRESS, AccessSize::Quad), 0x2_0000_1000);
    assert_eq!(board.read(register::FAULT_CONTROL), u64::from(EVENT_MASKED));
    assert_eq!(board.unit.read(0x200, AccessSize::Quad), 0, "no fault is recorded");
}
