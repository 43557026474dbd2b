//! What devices count: disks and cards, in front of what is behind them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tdvisor_devices::virtio::blk::{Disk, DiskAccess, DiskError, SECTOR, Storage};
use tdvisor_devices::virtio::net::{FRAME_BYTES_MAX, Link};

/// The counters of one device, by Cloud Hypervisor's names.
#[derive(Clone, Debug)]
pub enum DeviceCounters {
    /// A disk's.
    Disk(Arc<DiskCounters>),
    /// A card's.
    Net(Arc<NetCounters>),
}

/// What a disk counts.
#[derive(Debug, Default)]
pub struct DiskCounters {
    read_bytes: AtomicU64,
    read_ops: AtomicU64,
    write_bytes: AtomicU64,
    write_ops: AtomicU64,
}

/// What a card counts.
#[derive(Debug, Default)]
pub struct NetCounters {
    rx_bytes: AtomicU64,
    rx_frames: AtomicU64,
    tx_bytes: AtomicU64,
    tx_frames: AtomicU64,
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

impl DeviceCounters {
    /// The counts by their names.
    pub fn read(&self) -> BTreeMap<String, u64> {
        let all = match self {
            Self::Disk(disk) => [
                ("read_bytes", &disk.read_bytes),
                ("read_ops", &disk.read_ops),
                ("write_bytes", &disk.write_bytes),
                ("write_ops", &disk.write_ops),
            ],
            Self::Net(net) => [
                ("rx_bytes", &net.rx_bytes),
                ("rx_frames", &net.rx_frames),
                ("tx_bytes", &net.tx_bytes),
                ("tx_frames", &net.tx_frames),
            ],
        };
        all.into_iter().map(|(name, count)| (name.to_owned(), count.load(Ordering::Relaxed))).collect()
    }
}

/// A disk that counts.
pub(super) struct CountedDisk {
    disk: Box<dyn Disk>,
    counters: Arc<DiskCounters>,
}

impl CountedDisk {
    pub(super) fn new(disk: impl Disk + 'static) -> (Self, DeviceCounters) {
        let counters = Arc::new(DiskCounters::default());
        (Self { disk: Box::new(disk), counters: counters.clone() }, DeviceCounters::Disk(counters))
    }
}

impl Disk for CountedDisk {
    fn sectors(&self) -> u64 {
        self.disk.sectors()
    }

    fn access(&self) -> DiskAccess {
        self.disk.access()
    }

    fn read_at(&mut self, sector: u64, out: &mut [u8]) -> Result<(), DiskError> {
        self.disk.read_at(sector, out)?;
        add(&self.counters.read_ops, 1);
        add(&self.counters.read_bytes, out.len() as u64);
        Ok(())
    }

    fn write_at(&mut self, sector: u64, data: &[u8]) -> Result<(), DiskError> {
        self.disk.write_at(sector, data)?;
        add(&self.counters.write_ops, 1);
        add(&self.counters.write_bytes, data.len() as u64);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.disk.flush()
    }

    fn discard(&mut self, sector: u64, sectors: u64) -> Result<(), DiskError> {
        self.disk.discard(sector, sectors)
    }

    fn write_zeroes(&mut self, sector: u64, sectors: u64, storage: Storage) -> Result<(), DiskError> {
        self.disk.write_zeroes(sector, sectors, storage)?;
        add(&self.counters.write_ops, 1);
        add(&self.counters.write_bytes, sectors.saturating_mul(SECTOR));
        Ok(())
    }
}

/// A network that counts what a card sends to it and gets from it.
pub(super) struct CountedLink {
    link: Box<dyn Link>,
    counters: Arc<NetCounters>,
}

impl CountedLink {
    pub(super) fn new(link: Box<dyn Link>) -> (Self, DeviceCounters) {
        let counters = Arc::new(NetCounters::default());
        (Self { link, counters: counters.clone() }, DeviceCounters::Net(counters))
    }
}

impl Link for CountedLink {
    fn send(&mut self, frame: &[u8]) {
        self.link.send(frame);
        add(&self.counters.tx_frames, 1);
        add(&self.counters.tx_bytes, frame.len() as u64);
    }

    fn receive(&mut self, out: &mut [u8; FRAME_BYTES_MAX]) -> usize {
        let length = self.link.receive(out);
        if length > 0 {
            add(&self.counters.rx_frames, 1);
            add(&self.counters.rx_bytes, length as u64);
        }
        length
    }

    fn has_frame(&mut self) -> bool {
        self.link.has_frame()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Zeros;

    impl Disk for Zeros {
        fn sectors(&self) -> u64 {
            8
        }

        fn access(&self) -> DiskAccess {
            DiskAccess::ReadWrite
        }

        fn read_at(&mut self, sector: u64, out: &mut [u8]) -> Result<(), DiskError> {
            out.fill(0);
            if sector < 8 { Ok(()) } else { Err(DiskError) }
        }

        fn write_at(&mut self, _: u64, _: &[u8]) -> Result<(), DiskError> {
            Ok(())
        }

        fn flush(&mut self) -> Result<(), DiskError> {
            Ok(())
        }
    }

    #[test]
    fn a_disk_counts_what_was_moved_and_not_what_failed() {
        let (mut disk, counters) = CountedDisk::new(Zeros);
        disk.read_at(0, &mut [1; 1024]).unwrap();
        disk.read_at(8, &mut [1; 512]).unwrap_err();
        disk.write_at(0, &[0; 512]).unwrap();
        disk.write_zeroes(0, 2, Storage::Kept).unwrap();
        let counts: Vec<u64> = counters.read().into_values().collect();
        assert_eq!(counts, [1024, 1, 1536, 2]);
    }
}
