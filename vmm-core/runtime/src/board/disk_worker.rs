//! A disk behind a thread of its own: a file system that does not answer holds no vCPU for ever.
//!
//! A request that is not answered in time is an I/O error for the guest, as from a controller that resets its drive. A
//! write may still reach the file afterwards.

use std::time::Duration;

use tdvisor_devices::virtio::blk::{Disk, DiskAccess, DiskError, Storage};

use crate::worker::{StopFlag, Worker};

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(30);

enum Request {
    Read { sector: u64, bytes: usize },
    Write { sector: u64, data: Vec<u8> },
    Flush,
    Discard { sector: u64, sectors: u64 },
    WriteZeroes { sector: u64, sectors: u64, storage: Storage },
}

/// The disk.
pub struct DiskWorker {
    worker: Worker<Request, Result<Vec<u8>, DiskError>>,
    sectors: u64,
    access: DiskAccess,
}

impl DiskWorker {
    /// A worker for `disk`, whose requests end in time, and at once when the flag is set.
    pub fn new(mut disk: impl Disk + 'static, stop: StopFlag) -> Self {
        let (sectors, access) = (disk.sectors(), disk.access());
        let worker = Worker::new(stop, move |request| match request {
            Request::Read { sector, bytes } => {
                let mut data = vec![0; bytes];
                disk.read_at(sector, &mut data).map(|()| data)
            }
            Request::Write { sector, data } => disk.write_at(sector, &data).map(|()| Vec::new()),
            Request::Flush => disk.flush().map(|()| Vec::new()),
            Request::Discard { sector, sectors } => disk.discard(sector, sectors).map(|()| Vec::new()),
            Request::WriteZeroes { sector, sectors, storage } => {
                disk.write_zeroes(sector, sectors, storage).map(|()| Vec::new())
            }
        });
        Self { worker, sectors, access }
    }

    fn ask(&self, request: Request) -> Result<Vec<u8>, DiskError> {
        self.worker.ask(request, PATIENCE).unwrap_or(Err(DiskError))
    }
}

impl Disk for DiskWorker {
    fn sectors(&self) -> u64 {
        self.sectors
    }

    fn access(&self) -> DiskAccess {
        self.access
    }

    fn read_at(&mut self, sector: u64, out: &mut [u8]) -> Result<(), DiskError> {
        let data = self.ask(Request::Read { sector, bytes: out.len() })?;
        if data.len() != out.len() {
            return Err(DiskError);
        }
        out.copy_from_slice(&data);
        Ok(())
    }

    fn write_at(&mut self, sector: u64, data: &[u8]) -> Result<(), DiskError> {
        self.ask(Request::Write { sector, data: data.to_vec() }).map(drop)
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.ask(Request::Flush).map(drop)
    }

    fn discard(&mut self, sector: u64, sectors: u64) -> Result<(), DiskError> {
        self.ask(Request::Discard { sector, sectors }).map(drop)
    }

    fn write_zeroes(&mut self, sector: u64, sectors: u64, storage: Storage) -> Result<(), DiskError> {
        self.ask(Request::WriteZeroes { sector, sectors, storage }).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    /// A disk of eight sectors that answers when the test says so.
    struct Sluggish {
        contents: Vec<u8>,
        go: Receiver<()>,
    }

    impl Sluggish {
        fn wait(&self) -> Result<(), DiskError> {
            self.go.recv().map_err(|_| DiskError)
        }
    }

    impl Disk for Sluggish {
        fn sectors(&self) -> u64 {
            8
        }

        fn access(&self) -> DiskAccess {
            DiskAccess::ReadWrite
        }

        fn read_at(&mut self, sector: u64, out: &mut [u8]) -> Result<(), DiskError> {
            self.wait()?;
            out.copy_from_slice(&self.contents[sector as usize * 512..][..out.len()]);
            Ok(())
        }

        fn write_at(&mut self, sector: u64, data: &[u8]) -> Result<(), DiskError> {
            self.wait()?;
            self.contents[sector as usize * 512..][..data.len()].copy_from_slice(data);
            Ok(())
        }

        fn flush(&mut self) -> Result<(), DiskError> {
            self.wait()
        }

        fn discard(&mut self, _: u64, _: u64) -> Result<(), DiskError> {
            self.wait()
        }

        fn write_zeroes(&mut self, sector: u64, sectors: u64, _: Storage) -> Result<(), DiskError> {
            self.wait()?;
            self.contents[sector as usize * 512..][..sectors as usize * 512].fill(0);
            Ok(())
        }
    }

    #[test]
    fn a_disk_that_answers_is_as_before() {
        let (go, held) = channel();
        (0..6).for_each(|_| go.send(()).unwrap());
        let disk = Sluggish { contents: vec![0; 8 * 512], go: held };
        let mut disk = DiskWorker::new(disk, StopFlag::default());
        assert_eq!((disk.sectors(), disk.access()), (8, DiskAccess::ReadWrite));
        disk.write_at(3, &[9; 512]).unwrap();
        disk.write_at(4, &[9; 512]).unwrap();
        disk.write_zeroes(4, 1, Storage::Kept).unwrap();
        disk.discard(5, 1).unwrap();
        disk.flush().unwrap();
        let mut sectors = [1; 1536];
        disk.read_at(2, &mut sectors).unwrap();
        assert_eq!(sectors, [[0; 512], [9; 512], [0; 512]].concat()[..]);
    }

    #[test]
    fn a_disk_that_does_not_answer_gives_errors_once_the_td_ends() {
        let (_go, held) = channel();
        let stop = StopFlag::default();
        let mut disk = DiskWorker::new(Sluggish { contents: vec![0; 8 * 512], go: held }, stop.clone());
        std::thread::scope(|scope| {
            let guest = scope
                .spawn(move || [disk.read_at(0, &mut [0; 512]), disk.write_at(0, &[0; 512]), disk.flush()]);
            stop.set();
            assert_eq!(guest.join().unwrap(), [Err(DiskError); 3]);
        });
    }
}
