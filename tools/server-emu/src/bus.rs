//! Physical memory as a host processor sees it: no second stage, key ids in the upper address bits, devices in between.
//!
//! | address | answer |
//! |---|---|
//! | memory, with a shared key id or none | memory under that key |
//! | memory, with a private key id | refused: a page fault with the reserved bit, as outside SEAM mode |
//! | the TDX module's own range | reads as ones, ignores writes |
//! | a device | the device |
//! | nothing | reads as ones, ignores writes |

use std::sync::Arc;

use phys_memory::Arena;
use seam_emu::Machine;
use tdvisor_base::{Gpa, Hpa, KeyId, Level, PAGE_SIZE};
use tdvisor_devices::{AccessSize, DeviceRequest, SharedMemory};
use tdvisor_vm::NotShared;
use x86_arch::Access;
use x86_emu::bus::{Answer, Bus, Translation};

use crate::server::Server;

/// Why a host's access does not happen: its address carries a private key id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PrivateKey(pub(crate) KeyId);

/// The bus of one processor.
pub(crate) struct HostBus<'s> {
    pub(crate) server: &'s Server,
    /// What the processor adds to the machine's time-stamp counter.
    pub(crate) tsc_offset: u64,
    /// What devices asked for during the last slice, if anything.
    pub(crate) request: DeviceRequest,
}

impl<'s> HostBus<'s> {
    pub(crate) const fn new(server: &'s Server) -> Self {
        Self { server, tsc_offset: 0, request: DeviceRequest::None }
    }

    /// Takes what devices asked for.
    pub(crate) fn take_request(&mut self) -> DeviceRequest {
        core::mem::replace(&mut self.request, DeviceRequest::None)
    }

    fn machine(&self) -> &Machine {
        &self.server.machine
    }
}

/// Cuts an access into naturally aligned pieces of the sizes that devices know.
fn pieces(at: u64, bytes: usize) -> impl Iterator<Item = (u64, AccessSize)> {
    let end = at + bytes as u64;
    let mut next = at;
    core::iter::from_fn(move || {
        let left = end.checked_sub(next).filter(|left| *left > 0)?;
        let size = [8, 4, 2, 1].into_iter().find(|size| *size <= left && next.is_multiple_of(*size))?;
        let piece = (next, AccessSize::from_bytes(size)?);
        next += size;
        Some(piece)
    })
}

impl Bus for HostBus<'_> {
    type Refusal = PrivateKey;

    fn memory(&self) -> Arc<Arena> {
        self.machine().memory().clone()
    }

    fn translate(&mut self, gpa: Gpa, _access: Access) -> Result<Answer, PrivateKey> {
        let machine = self.machine();
        let (hpa, key) = machine.split_pa(gpa.get());
        if machine.config().private_hkids.contains(&key.get()) {
            return Err(PrivateKey(key));
        }
        if !self.server.is_memory(hpa) {
            return Ok(Answer::Device);
        }
        Ok(Answer::Memory(Translation {
            hpa: hpa.align_down(PAGE_SIZE),
            key,
            level: Level::L4K,
            readable: true,
            writable: true,
            executable: true,
        }))
    }

    fn load(&mut self, gpa: Gpa, data: &mut [u8]) -> Result<(), PrivateKey> {
        let (hpa, _) = self.machine().split_pa(gpa.get());
        for (at, size) in pieces(hpa.get(), data.len()) {
            let value = self.server.devices.mmio.read(Gpa::new(at), size).to_le_bytes();
            let from = (at - hpa.get()) as usize;
            if let Some(piece) = data.get_mut(from..from + size.bytes() as usize) {
                piece.copy_from_slice(&value[..size.bytes() as usize]);
            }
        }
        Ok(())
    }

    fn store(&mut self, gpa: Gpa, data: &[u8]) -> Result<(), PrivateKey> {
        let (hpa, _) = self.machine().split_pa(gpa.get());
        for (at, size) in pieces(hpa.get(), data.len()) {
            let from = (at - hpa.get()) as usize;
            let mut value = [0; 8];
            if let (Some(piece), Some(to)) =
                (data.get(from..from + size.bytes() as usize), value.get_mut(..size.bytes() as usize))
            {
                to.copy_from_slice(piece);
            }
            let value = u64::from_le_bytes(value);
            let request = self.server.devices.mmio.write(Gpa::new(at), size, value, &Dma(self.machine()));
            if request != DeviceRequest::None {
                self.request = request;
            }
        }
        // A device may have raised its line by what was written, an unmasked pin may have one waiting.
        self.server.interrupts.deliver_lines();
        Ok(())
    }

    fn tsc(&mut self) -> u64 {
        self.machine().tsc().wrapping_add(self.tsc_offset)
    }

    fn random(&mut self) -> Option<u64> {
        self.machine().random()
    }
}

/// What a device reaches by DMA: all memory, under the default key.
pub(crate) struct Dma<'m>(pub(crate) &'m Machine);

impl SharedMemory for Dma<'_> {
    fn read(&self, gpa: Gpa, out: &mut [u8]) -> Result<(), NotShared> {
        self.0.host_read(Hpa::new(gpa.get()), out).map_err(|_| NotShared::At(gpa))
    }

    fn write(&self, gpa: Gpa, data: &[u8]) -> Result<(), NotShared> {
        self.0.host_write(Hpa::new(gpa.get()), data).map_err(|_| NotShared::At(gpa))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_to_a_device_is_made_of_aligned_pieces() {
        let sizes = |at, bytes| pieces(at, bytes).map(|(at, size)| (at, size.bytes())).collect::<Vec<_>>();
        assert_eq!(sizes(0x1000, 8), [(0x1000, 8)]);
        assert_eq!(sizes(0x1000, 16), [(0x1000, 8), (0x1008, 8)]);
        assert_eq!(sizes(0x1003, 6), [(0x1003, 1), (0x1004, 4), (0x1008, 1)]);
        assert_eq!(sizes(0x1002, 3), [(0x1002, 2), (0x1004, 1)]);
        assert_eq!(sizes(0x1000, 0), []);
    }
}
